"""Round to nearest against plain loops over single weights, and its edge blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.format import Format
from bitwright.core.formats import named
from bitwright.methods import rtn
from tests.methods.test_lloyd import weights

few = settings(max_examples=5, deadline=None)
seeds = st.integers(0, 2**32)
f32 = np.float32


def cut(w: np.ndarray, block: int | str) -> list[np.ndarray]:
    """The blocks of `w`, in the order of its scales."""
    if block == "tensor":
        return [w.reshape(-1)]
    size = w.shape[1] if block == "channel" else int(block)
    return [row[i : i + size] for row in w for i in range(0, w.shape[1], size)]


def by_hand(block: np.ndarray, bits: int, symmetric: bool) -> tuple[float, int, list[int], list[float]]:
    """Scale, zero, codes and decoded weights of one block: integers of `bits` bits with an fp16 scale."""
    qmin, qmax = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    high, low = f32(max(block)), f32(min(block))
    if symmetric:
        wide = -high if high > -low else -low
        step, zero = f32(wide) / f32(-qmin), 0
    else:
        high, low = max(high, f32(0)), min(low, f32(0))
        step = f32(high - low) / f32(qmax - qmin)
        zero = int(np.clip(np.round(f32(qmin) - low / (step if step > 0 else f32(1))), qmin, qmax))
    scale = f32(np.float16(step)) or f32(1)
    codes, decoded = [], []
    for weight in block:
        level = int(np.clip(np.round(f32(weight) / scale + f32(zero)), qmin, qmax))
        codes.append(level - qmin)
        decoded.append(float(f32(level - zero) * scale))
    return float(scale), zero, codes, decoded


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("block", [8, "channel", "tensor"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@few
@given(seed=seeds)
def test_plain_loops(bits: int, block: int | str, symmetric: bool, seed: int) -> None:
    w = weights(seed, 4, 32)
    w[0] = 0
    w[1] = abs(w[1])
    w[2] = -abs(w[2])
    q = rtn.quantize(w, named(f"int{bits}", group=block, symmetric=symmetric))  # type: ignore[arg-type]
    expected = [by_hand(part, bits, symmetric) for part in cut(w, block)]
    assert np.asarray(q.scale).reshape(-1).tolist() == [scale for scale, _, _, _ in expected]
    if symmetric:
        assert q.zero is None
    else:
        assert np.asarray(q.zero).reshape(-1).tolist() == [zero for _, zero, _, _ in expected]
    assert [c.tolist() for c in cut(np.asarray(q.codes), block)] == [codes for _, _, codes, _ in expected]
    assert [c.tolist() for c in cut(np.asarray(q.decode()), block)] == [decoded for _, _, _, decoded in expected]


def test_the_longer_tail_gets_the_extra_level() -> None:
    w = np.array([[4.0, -1, 2, 0], [-4, 1, 2, 0]], np.float32)
    q = rtn.quantize(w, named("int4", group="channel"))
    assert np.asarray(q.scale).tolist() == [[-0.5], [0.5]]
    assert (np.asarray(q.decode()) == w).all(), "code -8 reaches the longest weight on either side"
    assert q.codes[0, 0] == 0
    assert q.codes[1, 0] == 0


def formats() -> list[Format]:
    """Every fixed format with groups of 16 (or its own), every scale type."""
    ints = [named(f"int{b}", group=16, symmetric=s) for b in range(1, 9) for s in (True, False)]
    midrise = [named(f"midrise{b}", group=16) for b in (1, 2, 4, 8)]
    floats = [named(name, group=16) for name in ("nf4", "fp4", "fp8", "fp8_e5m2", "ternary")]
    scales = [named("int4", group=16, scale=s) for s in ("fp32", "bf16", "e8m0", "e4m3")]
    return [*ints, *midrise, *floats, *scales, named("mxfp4"), named("nvfp4"), named("int4", group="tensor")]


def label(format: Format) -> str:
    return f"{format.name}-{'asym' if format.zero else 'sym'}-{format.block}-{format.scale.type}"


@pytest.mark.parametrize("format", formats(), ids=label)
@few
@given(seed=seeds)
def test_both_libraries(format: Format, seed: int) -> None:
    """Only elementwise operations, so that there is no room for a difference; and codes are nearest."""
    w = weights(seed, 4, 64)
    q, t = rtn.quantize(w, format), rtn.quantize(torch.from_numpy(w), format)
    assert (t.codes.numpy() == q.codes).all() and t.codes.dtype == torch.uint8
    assert (t.scale.numpy() == q.scale).all() and t.outer == q.outer
    assert (t.decode().numpy() == q.decode()).all()
    values = np.array([v for v in format.grid.values if v == v], np.float32)
    zero = 0 if q.zero is None else np.asarray(q.zero)[..., None, None]
    levels = (values - zero) * np.asarray(q.scale)[..., None, None]
    x = format.blocks(w).astype(np.float64)
    best = np.abs(x[..., None] - levels).min(axis=-1)
    got = np.abs(x - format.blocks(np.asarray(q.decode())))
    assert (got <= best + 1e-6 * np.abs(levels).max(axis=(-1, -2))[..., None]).all()


@pytest.mark.parametrize("format", formats(), ids=label)
def test_zero_blocks_are_exact_zeros(format: Format) -> None:
    w = weights(3, 4, 64)
    w[1] = 0
    w[2, 32:] = 0
    for x in (w, torch.from_numpy(w)):
        decoded = np.asarray(rtn.quantize(x, format).decode())
        assert np.isfinite(decoded).all() and decoded[0].any()
        if format.block != "tensor" or format.grid.zero_code is not None:
            assert not decoded[1].any() and not decoded[2, 32:].any()
        assert not np.asarray(rtn.quantize(x * 0, format).decode()).any()
