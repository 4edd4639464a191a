"""GGUF's blocks: what they mean is what gguf-py decodes, bit for bit, and what is packed is what was meant."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, quants
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.formats import named
from bitwright.core.formats.gguf import FAMILY
from bitwright.core.qtensor import QTensor
from bitwright.files.containers.gguf.blocks import LAYOUTS, SIZES, pack, read_codes, unpack
from bitwright.methods import mse, rtn

Raw = np.ndarray[Any, Any]
HALVES = [0.0, -0.0, 1.0, -1.0, 2.0**-24, -(2.0**-24), 2.0**-14, 65504.0, -65504.0, 0.0123, -0.0123]
"""What an fp16 number may be: zeros, subnormal ones, the ends, of either sign."""
BYTES = {name: kind for name, kind in SIZES.items() if not kind.halves}
"""MXFP4 and NVFP4, whose scales are bytes."""
names = pytest.mark.parametrize("name", LAYOUTS)


def decoded(raw: Raw, name: str) -> Raw:
    """By gguf-py, float32 [rows, columns]."""
    found: Raw = quants.dequantize(raw, GGMLQuantizationType[name.upper()])
    return found


def bits(x: Any) -> Raw:
    return np.ascontiguousarray(np.asarray(x)).view(np.int32)


def some(name: str, seed: int, halves: list[float], fill: int = -1, rows: int = 3, count: int = 2) -> Raw:
    """Rows of blocks of random bytes (or all `fill`), with given numbers at the places of fp16 numbers."""
    rng, kind = np.random.default_rng(seed), SIZES[name]
    raw = rng.integers(0, 256, (rows, count, kind.size), dtype=np.uint8)
    if fill >= 0:
        raw[:] = fill
    for i, at in enumerate(kind.halves):
        chosen = rng.choice(halves, (rows, count, 1)) if i else np.resize(halves, (rows, count, 1))
        raw[..., at : at + 2] = chosen.astype(np.float16).view(np.uint8)
    if name == "mxfp4":
        raw[..., 0] = np.minimum(raw[..., 0], 252)  # beyond, 6 times 2^(e - 127) is infinite; 255 is no number
    if name == "nvfp4":
        raw[..., :4] &= 127  # no sign
    return raw.reshape(rows, -1)


def test_every_type_with_a_code_for_each_weight_is_here() -> None:
    assert sorted(LAYOUTS) == sorted([*FAMILY.titles, "mxfp4", "nvfp4"]) == sorted(SIZES)


@names
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), halves=st.lists(st.sampled_from(HALVES), min_size=1, max_size=6))
def test_any_bytes_mean_what_they_mean_to_gguf_py(name: str, seed: int, halves: list[float]) -> None:
    raw = some(name, seed, halves)
    theirs = bits(decoded(raw, name))
    for given_ in (raw, torch.from_numpy(raw)):
        q = unpack(given_, name)
        assert q.format == named(name) and (bits(q.decode()) == theirs).all()
        assert (np.asarray(read_codes(given_, name)) == np.asarray(q.codes)).all()
        again = unpack(pack(q), name)
        assert (bits(again.decode()) == theirs).all() and (np.asarray(again.codes) == np.asarray(q.codes)).all()
        pairs = [(q.scale, again.scale), *zip(q.outer, again.outer, strict=True)]
        if q.shift is not None:
            pairs += [(q.shift, again.shift), *zip(q.shift_outer, again.shift_outer, strict=True)]
        assert all((bits(one) == bits(other)).all() for one, other in pairs)


@names
@pytest.mark.parametrize("fill", [0, 255, 0x80, 0x7F])
def test_codes_and_small_scales_at_their_ends(name: str, fill: int) -> None:
    raw = some(name, 0, HALVES, fill)
    q = unpack(raw, name)
    assert (bits(q.decode()) == bits(decoded(raw, name))).all()
    assert (bits(unpack(pack(q), name).decode()) == bits(q.decode())).all()


@names
def test_bytes_come_back(name: str) -> None:
    """Where a matrix has one spelling only: not in base 3, nor where a scale of 0 or a weight of -0 has two."""
    raw = some(name, 5, [0.01, -0.02])
    if name == "tq1_0":
        raw = np.asarray(pack(unpack(raw, name)))
    if name in BYTES:
        kind = SIZES[name]
        blocks = raw.reshape(-1, kind.size)
        blocks[:, kind.size - kind.weights // 2 :] &= 0x77  # positive values
        blocks[:, : kind.size - kind.weights // 2] &= 0x3F
    assert (pack(unpack(raw, name)) == raw).all()
    assert torch.equal(pack(unpack(torch.from_numpy(raw), name)), torch.from_numpy(raw))


@pytest.mark.parametrize("name", ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "tq1_0", "tq2_0", "mxfp4"])
def test_what_gguf_py_encodes_is_read_and_written_again(name: str) -> None:
    w = np.random.default_rng(1).normal(0, 0.02, (4, 512)).astype(np.float32)
    w[0], w[1], w[2, ::3], w[3, :32] = 0, 0.01, 0, -0.05
    raw = quants.quantize(w, GGMLQuantizationType[name.upper()])
    q = unpack(raw, name)
    assert (bits(q.decode()) == bits(decoded(raw, name))).all()
    assert (pack(q) == raw).all()


@names
@pytest.mark.parametrize("method", [rtn, mse])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_what_a_method_finds_is_stored_as_it_is(name: str, method: Any, library: str) -> None:
    w = np.random.default_rng(2).normal(0, 0.02, (4, 512)).astype(np.float32)
    w[0], w[1], w[2, 7], w[3] = 0, -0.03, 9, abs(w[3]) * 1e-3
    q = method.quantize(torch.from_numpy(w) if library == "torch" else w, named(name))
    packed = pack(q)
    assert packed.shape == (4, 512 // SIZES[name].weights * SIZES[name].size) and str(packed.dtype).endswith("uint8")
    assert packed.shape[0] * packed.shape[1] * 8 == q.stored_bits() - 32 * (name == "nvfp4")
    means = q.decode()
    if name == "nvfp4":  # llama.cpp reads the factor from a tensor beside it
        inner = unpack(packed, name).scale
        assert (inner * q.outer[0] == q.scale).all()
        means = replace(q, scale=inner).decode()
    assert (np.asarray(means) == decoded(np.asarray(packed), name)).all()


def test_a_factor_of_zero_keeps_the_signs_of_what_it_decodes_to() -> None:
    raw = some("q6_k", 3, [0.0, -0.0])
    q = unpack(raw, "q6_k")
    assert (q.decode() == 0).all() and 0 < np.signbit(q.decode()).mean() < 1
    assert (bits(unpack(pack(q), "q6_k").decode()) == bits(q.decode())).all()


def test_numbers_that_are_none() -> None:
    raw = some("q4_k", 0, [float("nan"), float("inf"), 1.0, 1.0, 1.0, 1.0])
    assert np.isnan(unpack(raw, "q4_k").scale).any()
    with pytest.raises(ValueError, match="scales or shifts that Q4_K cannot hold"):
        pack(unpack(torch.from_numpy(raw), "q4_k"))
    raw = some("mxfp4", 0, [])
    raw[0, 0] = 255
    lost = np.isnan(unpack(raw, "mxfp4").decode())
    assert lost[0, :32].all() and lost.sum() == 32


def test_nvfp4_scales_of_all_ones_are_read_as_llama_cpp_does() -> None:
    raw = some("nvfp4", 0, [])
    raw[0, :4] = (127, 255, 128, 129)
    q = unpack(raw, "nvfp4")
    assert q.scale[0, :4].tolist() == [0, 480, 0, 2**-9]
    assert (bits(q.decode()) == bits(decoded(raw, "nvfp4"))).all()
    with pytest.raises(ValueError, match="NVFP4 cannot hold"):
        pack(q)


def test_what_cannot_be_stored_is_refused() -> None:
    w = torch.randn(2, 512, generator=torch.Generator().manual_seed(0))
    q = rtn.quantize(w, named("q4_k"))
    assert q.shift is not None
    with pytest.raises(ValueError, match="GGUF has no type for int4"):
        pack(rtn.quantize(w, named("int4")))
    with pytest.raises(ValueError, match=r"48 weights per row are no whole blocks of 64 \(NVFP4\)"):
        pack(rtn.quantize(w[:, :48], named("nvfp4")))
    for wrong in (
        replace(q, scale=q.scale * 1.01),
        replace(q, scale=q.scale * 64),
        replace(q, shift=q.shift - 1e-6),
        replace(q, shift=-q.shift),
        replace(q, outer=(q.outer[0] * 1.01,)),
    ):
        with pytest.raises(ValueError, match="scales or shifts that Q4_K cannot hold"):
            pack(wrong)
    with pytest.raises(ValueError, match="NVFP4 cannot hold"):
        pack(replace(rtn.quantize(w, named("nvfp4")), scale=-torch.ones(2, 32)))
    with pytest.raises(ValueError, match=r"143 bytes per row are no whole blocks of 144 \(Q4_K\)"):
        unpack(torch.zeros(1, 143, dtype=torch.uint8), "q4_k")


def test_rows_are_independent() -> None:
    raw = torch.from_numpy(some("q5_k", 4, HALVES, rows=5))
    q = unpack(raw, "q5_k")
    assert torch.equal(pack(q.part(1, 4)), pack(q)[1:4])
    assert torch.equal(pack(QTensor.stack([q.part(0, 2), q.part(2, 5)])), pack(q))
