"""Weights on a lattice: the codes they were decoded from, or any that mean the same; none where there are none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from bitwright.core.formats import named
from bitwright.core.formats.gguf import FAMILY
from bitwright.core.lattice import found, looked_for, recover
from bitwright.core.lattice.borders import Borders
from bitwright.core.lattice.sieve import possible
from bitwright.core.qtensor import QTensor
from bitwright.core.scaling import NUMBERS
from bitwright.methods import mse, rtn

GGUF = list(FAMILY.titles)
OTHERS = ["mxfp4", "int3", "int4", "int8", "int4_narrow", "nf4", "fp4", "fp8", "ternary"]
SOURCES = ["bf16", "fp16", "fp32"]


def weights(rows: int = 12, columns: int = 512, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.02, (rows, columns)).astype(np.float32)


def hard() -> np.ndarray:
    """Rows of zeros, in part zeros, of one sign, in part constant, of two values, with an outlier, and tiny ones."""
    w = weights()
    w[0], w[1, :300], w[2], w[3], w[4, :64], w[5, ::2] = 0, 0, abs(w[2]), -abs(w[3]) - 0.01, 0.03, 0
    w[6], w[7, 5], w[8], w[9, 64:96], w[10] = np.sign(w[6]) * 0.02, 3.0, w[8] * 1e-3, -0.01, np.abs(w[10]) + 0.05
    return w


def stored(q: QTensor, source: str) -> Any:
    return NUMBERS[source].round(q.decode())


def means(q: QTensor | None, w: Any, source: str) -> QTensor:
    """What was found, after all that must hold of it."""
    assert q is not None and q.notes == ()
    assert (stored(q, source) == w).all() and str(q.codes.dtype).endswith("uint8") and q.codes.shape == w.shape
    assert (q.format.scale.round(q.scale, q.outer) == q.scale).all()
    if q.format.shift is not None:
        assert (q.format.shift.round(q.shift, q.shift_outer) == q.shift).all()
    return q


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", [*GGUF, *OTHERS])
def test_codes_come_back(name: str, source: str) -> None:
    made = mse.quantize(weights(), named(name))
    w = stored(made, source)
    found = means(recover(w, named(name), source), w, source)
    share = (found.codes == made.codes).mean()
    # Some small blocks of few levels lie on a coarser lattice, too; all scales come back from what was rounded less.
    assert share == 1 if len(found.format.scale.levels) == 1 and name not in ("q8_0", "int8", "fp8") else share > 0.96
    if source != "bf16":
        assert (found.scale == made.scale).mean() > 0.95


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", [*GGUF, "int4"])
def test_rows_that_are_ambiguous_are_found_all_the_same(name: str, source: str) -> None:
    made = rtn.quantize(hard(), named(name))
    w = stored(made, source)
    means(recover(w, named(name), source), w, source)
    here = torch.from_numpy(w)
    found = means(recover(here, named(name), source), here, source)
    assert isinstance(found.scale, torch.Tensor)


@pytest.mark.parametrize("name", [*GGUF, *OTHERS])
@pytest.mark.parametrize("source", SOURCES)
def test_other_weights_lie_on_none(name: str, source: str) -> None:
    w = NUMBERS[source].round(weights())
    assert recover(w, named(name), source) is None


def test_one_weight_beside_the_lattice_is_seen() -> None:
    w = stored(rtn.quantize(weights(), named("q4_0")), "bf16")
    step = np.abs(w[-1, 64:96]).max() / 8
    w[-1, 70] = np.float32(step * 2.5)
    assert recover(NUMBERS["bf16"].round(w), named("q4_0")) is None


def test_a_lattice_lies_on_finer_ones() -> None:
    w = stored(mse.quantize(weights(), named("q4_0")), "fp32")
    for finer in ("q5_0", "q4_1", "q5_1", "q4_0"):
        means(recover(w, named(finer), "fp32"), w, "fp32")
    assert recover(stored(mse.quantize(weights(), named("q5_0")), "fp32"), named("q4_0"), "fp32") is None


def any_matrix(name: str, seed: int) -> QTensor:
    """Any codes and any small scales, of which one in each larger block is the end of its type, as encoders have it.

    Small blocks with a shift use the lowest and the highest code, too, and bfloat16 tells all their codes apart.
    """
    format, rng = named(name), np.random.default_rng(seed)
    levels, size = format.scale.levels, int(format.scale.levels[-1].block)  # type: ignore[arg-type]
    codes = rng.integers(0, len(format.grid.values), (2, 4 * size), dtype=np.uint8)
    outer = NUMBERS["fp16"].round(rng.uniform(1e-4, 1e-2, (2, 4)).astype(np.float32))
    if len(levels) == 1:
        shift = None if format.shift is None else NUMBERS["fp16"].round(rng.normal(0, 0.03, (2, 4)).astype(np.float32))
        return QTensor(format, codes, outer, shift=shift)

    def small(low: float, high: float) -> np.ndarray:
        found = rng.integers(
            int(high) // 4 if low == 0 else int(low), int(high) + 1, (2, 4, size // int(levels[0].block))
        )  # type: ignore[arg-type]
        found[..., 0] = high if low == 0 else low
        return rng.permuted(found, axis=-1).astype(np.float32)

    number = levels[0].number
    scale = (outer[..., None] * small(number.low, number.high)).reshape(2, -1)
    if format.shift is None:
        return QTensor(format, codes, scale, outer=(outer,))
    blocks = codes.reshape(-1, int(levels[0].block))  # type: ignore[arg-type]
    blocks[:, 3], blocks[:, 8] = 0, len(format.grid.values) - 1
    least = -NUMBERS["fp16"].round(outer * rng.uniform(1, 8, (2, 4)).astype(np.float32))
    shift = (least[..., None] * small(0, format.shift.levels[0].number.high)).reshape(2, -1)
    return QTensor(format, codes, scale, shift=shift, outer=(outer,), shift_outer=(least,))


@pytest.mark.parametrize("name", GGUF)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("seed", range(2))
def test_any_codes_and_small_scales_are_found(name: str, seed: int, source: str) -> None:
    w = stored(any_matrix(name, seed), source)
    found = recover(w, named(name), source)
    assert found is not None and (stored(found, source) == w).all()


def test_what_is_not_looked_for_is_refused() -> None:
    for other in ("codebook4", "trellis2", "nvfp4"):
        assert not looked_for(named(other))
        with pytest.raises(ValueError, match=f"{other} is no lattice that is looked for"):
            recover(weights(), named(other))
    assert not looked_for(named("int4", group="tensor"))
    assert all(looked_for(named(name)) for name in GGUF)


def test_groups_of_any_size() -> None:
    for group in (64, "channel"):
        format = named("int4", group=group, scale="bf16")
        made = mse.quantize(weights(), format)
        w = stored(made, "bf16")
        assert (means(recover(w, format), w, "bf16").codes == made.codes).all()
    assert recover(weights(2, 48), named("q4_0")) is None, "no whole blocks"


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("method", [rtn, mse])
def test_codes_with_zero_points_come_back(method: Any, bits: int, source: str) -> None:
    format = named(f"int{bits}", group=64, symmetric=False, scale="bf16" if source == "bf16" else "fp16")
    made = method.quantize(weights() + 0.01, format)
    w = stored(made, source)
    again = means(recover(w, format, source), w, source)
    assert again.zero is not None and made.zero is not None
    assert ((again.zero == again.zero.round()) & (again.zero >= format.grid.low)).all()
    # Where not all of a block's range is used, codes and zero may both be some steps away.
    steps = [np.repeat(q.zero, 64, axis=1) - q.codes for q in (made, again)]
    assert bits == 8 or (steps[0] == steps[1]).all()
    w = stored(method.quantize(hard(), format), source)
    means(recover(w, format, source), w, source)


@pytest.mark.parametrize("name", ["int2", "int4", "int8"])
def test_other_weights_lie_on_none_with_zero_points(name: str) -> None:
    assert recover(NUMBERS["bf16"].round(weights()), named(name, group=64, symmetric=False)) is None


@pytest.mark.parametrize("source", SOURCES)
def test_the_type_in_which_weights_were_stored_is_found(source: str) -> None:
    made = rtn.quantize(weights(), named("q4_1"))
    w = stored(made, source)
    again = found(w, named("q4_1"))
    assert again is not None and (again.codes == made.codes).all() and (stored(again, source) == w).all()
    assert again.notes == (() if source == "fp32" else (f"decodes to its weights once rounded to {source}",))


@pytest.mark.parametrize("name", [*GGUF, *OTHERS])
@pytest.mark.parametrize("source", SOURCES)
def test_the_sieve_lets_every_lattice_pass(name: str, source: str) -> None:
    format = named(name)
    for w in (weights(), hard()):
        blocks = stored(rtn.quantize(w, format), source).reshape(-1, format.block_size(w.shape[1]))
        assert possible(Borders.of(blocks, source), format.grid).all()
    others = NUMBERS[source].round(weights()).reshape(-1, format.block_size(512))
    assert name == "fp8" or not possible(Borders.of(others, source), format.grid).all()


def test_what_is_not_finite_lies_on_none() -> None:
    w = stored(rtn.quantize(weights(), named("q4_0")), "bf16")
    for value in (np.nan, np.inf):
        w[3, 3] = value
        assert recover(w, named("q4_0")) is None
