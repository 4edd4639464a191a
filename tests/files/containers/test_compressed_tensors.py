"""What we pack comes back as it was, from our decoder and from the compressed-tensors library's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import compressed_tensors
import numpy as np
import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from compressed_tensors.quantization import QuantizationConfig
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.format import Format
from bitwright.core.formats import named
from bitwright.core.qtensor import QTensor
from bitwright.core.scaling import Levels
from bitwright.errors import FileError, RecipeError
from bitwright.files.containers.compressed_tensors.layout import (
    Scheme,
    decode_by_library,
    quantization_config,
    scheme_of,
    unpack,
)
from bitwright.files.containers.compressed_tensors.rules import UNEVEN, dense, installed
from bitwright.methods import rtn

COLUMNS = 64
DENSE = dense(installed())
WIDTHS = tuple(range(1, 9)) if DENSE else (1, 2, 4, 8)
"""Bits that the installed release of the library packs as we do."""
INTEGERS = [
    Scheme(named(f"int{bits}", group=block, symmetric=symmetric))  # type: ignore[arg-type]
    for bits in WIDTHS
    for symmetric in (True, False)
    for block in (16, "channel")
    if bits > 1 or not symmetric
]
EIGHT = [
    Scheme(named("int8", group="channel"), "int8"),
    Scheme(named("fp8", group="channel"), "fp8"),
    Scheme(named("fp8", group="channel")),
    Scheme(named("fp8", group=16)),
]
SCHEMES = INTEGERS + EIGHT


def label(scheme: Scheme) -> str:
    f = scheme.format
    return f"{f.name}-{'asym' if f.zero else 'sym'}-{f.block}-{scheme.activations}"


def matrix(rows: int, columns: int = COLUMNS, seed: int = 0) -> torch.Tensor:
    """Rows of different size and lean, so that scales of both signs and zeros of all kinds occur."""
    g = torch.Generator().manual_seed(seed)
    w = torch.randn(rows, columns, generator=g) * torch.exp(torch.randn(rows, 1, generator=g))
    return w + torch.randn(rows, 1, generator=g)


def stored(scheme: Scheme, q: QTensor) -> dict[str, torch.Tensor]:
    """The packed tensors by suffix, checked against the specs by which the files are laid out."""
    parts = scheme.pack("m", q, q.shape[0])
    specs = {spec.name: (spec.dtype, spec.shape) for spec in scheme.specs("m", *q.shape)}
    assert {part.name: (part.tensor.dtype, tuple(part.tensor.shape)) for part in parts} == specs
    assert not any(part.first for part in parts)
    # As read from a file, where strides are always those of the shape.
    return {part.name.removeprefix("m."): part.tensor.reshape(-1).clone().reshape(part.tensor.shape) for part in parts}


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """Its bytes, row by row; a column of one number per row may have any stride."""
    return tensor.reshape(-1).clone().reshape(len(tensor), -1).view(torch.uint8)


def with_scale(scheme: Scheme, scale: str) -> Scheme:
    f = scheme.format
    return Scheme(replace(f, scale=Levels.of((f.block, scale), zeros=f.scale.zeros)), scheme.activations)


@pytest.mark.parametrize("scale", ["fp16", "bf16", "fp32"])
@pytest.mark.parametrize("rows", [1, 5, 32, 37])
@pytest.mark.parametrize("scheme", SCHEMES, ids=label)
def test_both_decoders(scheme: Scheme, rows: int, scale: str) -> None:
    scheme = with_scale(scheme, scale)
    scheme.require_packing()
    q = rtn.quantize(matrix(rows), scheme.format)
    parts = stored(scheme, q)
    back = unpack(parts, scheme)
    assert torch.equal(back.codes, q.codes) and torch.equal(back.scale, q.scale)
    assert (back.zero is None) == (q.zero is None)
    if q.zero is not None:
        assert torch.equal(back.zero, q.zero)
        assert len(q.zero.unique()) > 1 or rows == 1
    assert torch.equal(back.decode(), q.decode())
    theirs = decode_by_library(parts, scheme)
    assert torch.equal(q.decode().to(theirs.dtype), theirs)
    assert theirs.dtype == parts["weight_scale"].dtype


@pytest.mark.parametrize("scheme", [s for s in INTEGERS if s.format.block == "channel"], ids=label)
@settings(max_examples=15, deadline=None)
@given(rows=st.integers(1, 70), columns=st.integers(1, 70), seed=st.integers(0, 2**32))
def test_any_shape(scheme: Scheme, rows: int, columns: int, seed: int) -> None:
    """Rows and columns that fill no whole word, of any codes and zeros at all."""
    f = scheme.format
    g = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2**f.bits, (rows, columns), generator=g, dtype=torch.uint8)
    scale = torch.rand(rows, 1, generator=g).half().float() + 0.5
    zero = None
    if f.zero is not None:
        zero = f.grid.decode(torch.randint(0, 2**f.bits, (rows, 1), generator=g, dtype=torch.uint8))
    q = QTensor(f, codes, scale.half().float(), zero)
    parts = stored(scheme, q)
    assert torch.equal(unpack(parts, scheme).codes, codes)
    theirs = decode_by_library(parts, scheme)
    assert torch.equal(unpack(parts, scheme).decode().to(theirs.dtype), theirs)
    assert torch.equal(q.decode().to(theirs.dtype), theirs)


@pytest.mark.parametrize("rows", [5, 64, 101])
@pytest.mark.parametrize("scheme", SCHEMES, ids=label)
def test_pieces_of_whole_words_are_the_whole(scheme: Scheme, rows: int) -> None:
    """A matrix is written in runs of rows; its zeros are packed along the rows, so runs are multiples of 32."""
    q = rtn.quantize(matrix(rows, seed=rows), scheme.format)
    whole = stored(scheme, q)
    for step in (32, 64):
        pieces = [p for i in range(0, rows, step) for p in scheme.pack("m", q.part(i, min(i + step, rows)), rows, i)]
        assert {piece.name for piece in pieces} == {f"m.{suffix}" for suffix in whole}
        for suffix, tensor in whole.items():
            runs = [(piece.first, piece.tensor) for piece in pieces if piece.name == f"m.{suffix}"]
            ends = np.cumsum([0, *(len(run) for _, run in runs)])
            assert [first for first, _ in runs] == list(ends[:-1]), "each begins where the one before it ends"
            assert torch.equal(torch.cat([plain(run) for _, run in runs]), plain(tensor))


def test_int8_bytes_and_fp8_bytes_are_plain() -> None:
    """Formats that other programs read without unpacking: the values themselves, as they stand."""
    w = matrix(3)
    for scheme, dtype in ((EIGHT[0], torch.int8), (EIGHT[1], torch.float8_e4m3fn)):
        q = rtn.quantize(w, scheme.format)
        parts = stored(scheme, q)
        assert parts.keys() == {"weight", "weight_scale"} and parts["weight"].dtype == dtype
        assert torch.equal(parts["weight"].float() * parts["weight_scale"].float(), q.decode())


def configuration(schemes: dict[Scheme, list[str]], ignore: list[str]) -> dict[str, Any]:
    return quantization_config(schemes, ignore, compressed_tensors.__version__)


@pytest.mark.parametrize("scheme", SCHEMES, ids=label)
def test_config_is_what_the_library_accepts(scheme: Scheme) -> None:
    raw = configuration({scheme: ["model.layers.0.mlp.up_proj"]}, ["lm_head", "a"])
    config = QuantizationConfig.model_validate(raw)
    assert config.ignore == ["a", "lm_head"]
    assert config.format == scheme.kind
    assert config.quantization_status == "compressed"
    [group] = config.config_groups.values()
    f, args = scheme.format, group.weights
    assert group.targets == ["Linear"]
    assert (args.num_bits, args.symmetric) == (f.bits, f.zero is None)
    assert args.type == ("float" if f.name == "fp8" else "int")
    assert args.strategy == ("channel" if f.block == "channel" else "group")
    assert args.group_size == (None if f.block == "channel" else f.block)
    inputs = group.input_activations
    if scheme.activations == "none":
        assert inputs is None
    else:
        assert (inputs.num_bits, inputs.dynamic, inputs.strategy, inputs.symmetric) == (8, True, "token", True)
    again = scheme_of(raw["config_groups"]["group_0"], torch.float16, "config.json")
    assert again.format == f and again.activations == scheme.activations


def test_config_of_several_schemes_names_their_modules() -> None:
    raw = configuration({INTEGERS[0]: ["a", "b"], EIGHT[0]: ["c"], EIGHT[1]: ["d"]}, [])
    config = QuantizationConfig.model_validate(raw)
    assert config.format == "mixed-precision"
    assert [group.targets for group in config.config_groups.values()] == [["a", "b"], ["c"], ["d"]]
    assert [group.format for group in config.config_groups.values()] == [
        "pack-quantized",
        "int-quantized",
        "float-quantized",
    ]
    alike = configuration({INTEGERS[0]: ["a"], INTEGERS[1]: ["b"]}, [])
    assert alike["format"] == "pack-quantized"


UNSTABLE = [
    *(f"int{bits}" for bits in UNEVEN if not DENSE),
    "nf4",
    "fp4",
    "mxfp4",
    "nvfp4",
    "ternary",
    "fp8_e5m2",
    "codebook4",
    "midrise4",
]


@pytest.mark.parametrize("name", [*UNSTABLE, "midrise8", "codebook8", "int1"])
@pytest.mark.parametrize("block", [16, "channel"])
def test_what_has_no_stable_packing_is_refused(name: str, block: int | str) -> None:
    with pytest.raises(RecipeError, match=rf"no stable packing for {name}\. "):
        Scheme(named(name, group=block)).require_packing()  # type: ignore[arg-type]


def test_blocks_and_scales_that_have_no_packing_are_refused() -> None:
    for format in (
        named("int4", group="tensor"),
        named("fp8", group="tensor"),
        named("int4", group=16, scale="e8m0"),
        named("int4", group=16, scale="e4m3"),
    ):
        with pytest.raises(RecipeError, match="no stable packing"):
            Scheme(format).require_packing()


@pytest.mark.parametrize(
    ("format", "activations", "words"),
    [
        (named("int4", group="channel"), "int8", "int8 activations need symmetric 8-bit weights per channel"),
        (named("int8", group=16), "int8", "int8 activations need symmetric 8-bit weights per channel"),
        (named("int8", group="channel", symmetric=False), "int8", "need symmetric 8-bit weights per channel"),
        (named("fp8", group=16), "fp8", "fp8 activations need symmetric 8-bit weights per channel"),
        (named("int8", group="channel"), "fp8", "must share a type"),
        (named("fp8", group="channel"), "int8", "must share a type"),
    ],
)
def test_activations_that_do_not_go_with_the_weights_are_refused(format: Format, activations: Any, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Scheme(format, activations).require_packing()


@pytest.mark.parametrize(
    "weights",
    [
        {"type": "int", "num_bits": 4, "strategy": "block"},
        {"type": "float", "num_bits": 4, "strategy": "group", "group_size": 16},
        {"type": "int", "num_bits": 4, "strategy": "group", "group_size": None},
        {"type": "int", "num_bits": 4, "strategy": "group", "group_size": -1},
        {},
        None,
    ],
)
def test_a_config_we_cannot_decode_is_refused(weights: dict[str, Any] | None) -> None:
    with pytest.raises(FileError) as caught:
        scheme_of({"weights": weights}, torch.float16, "config.json")
    assert caught.value.where == "config.json"


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", UNEVEN)
@pytest.mark.parametrize("columns", [64, 11, 7])
def test_both_layouts_of_uneven_widths(bits: int, symmetric: bool, columns: int) -> None:
    """Dense codes fill their bits; the layout before 0.18 leaves some of each word empty. Either is read back."""
    form = named(f"int{bits}", group="channel", symmetric=symmetric)
    q = rtn.quantize(matrix(37, columns), form)
    widths = {}
    for padded in (True, False):
        scheme = Scheme(form, padded=padded)
        parts = stored(scheme, q)
        widths[padded] = parts["weight_packed"].shape[1]
        assert torch.equal(unpack(parts, scheme).decode(), q.decode())
        # The library decodes its own layout; the other is laid out anew for it.
        assert torch.equal(decode_by_library(parts, scheme), q.decode().half())
        if padded != DENSE:
            signed = (q.codes.to(torch.int16) - 2 ** (bits - 1)).to(torch.int8)
            assert torch.equal(pack_to_int32(signed, bits), parts["weight_packed"])
    assert widths == {True: -(-columns // (32 // bits)), False: -(-columns * bits // 32)}


def test_which_releases_pack_densely() -> None:
    assert not any(map(dense, ("0.9.4", "0.15.0.1", "0.17.1", "")))
    assert all(map(dense, ("0.18.0", "0.20.1a2", "1.0")))
