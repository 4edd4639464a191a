"""Encode and decode: error bounds, both array libraries, edge blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.format import Format
from bitwright.core.formats import named
from bitwright.core.qtensor import QTensor, encode
from bitwright.methods import rtn

few = settings(max_examples=10, deadline=None)
seeds = st.integers(0, 2**32)
UNIFORM = [
    *(named(f"int{b}", group=16) for b in range(2, 9)),
    *(named(f"midrise{b}", group=16) for b in range(1, 9)),
    named("ternary", group=16),
]
AFFINE = [named(f"int{b}", group=g, symmetric=False) for b in range(1, 9) for g in (16, "channel", "tensor")]
FLOAT = [named(n, group=16) for n in ("nf4", "fp4", "fp8", "fp8_e5m2")] + [named("mxfp4"), named("nvfp4")]
ALL = [
    *UNIFORM,
    *AFFINE,
    *FLOAT,
    named("int4", group="tensor", scale="bf16"),
    named("int4", group="channel", scale="fp32"),
]


def name(format: Format) -> str:
    return f"{format.name}-{format.block}-{format.scale.type}-{'affine' if format.zero else 'symmetric'}"


def weights(seed: int, rows: int = 4, columns: int = 64) -> np.ndarray:
    rng = np.random.default_rng(seed)
    w = rng.standard_t(3, (rows, columns)) * np.exp(rng.normal(0, 2, (rows, 1))) + rng.normal(0, 0.3)
    return w.astype(np.float32)


def per_weight(q: QTensor, values: np.ndarray) -> np.ndarray:
    """[rows, groups] spread over the weights [rows, columns]."""
    blocks = q.format.blocks(q.codes)
    return np.broadcast_to(values[..., None], blocks.shape).reshape(q.shape)


@pytest.mark.parametrize("format", UNIFORM, ids=name)
@few
@given(seed=seeds)
def test_half_a_step_inside_the_range(format: Format, seed: int) -> None:
    w = weights(seed)
    q = rtn.quantize(w, format)
    scale = per_weight(q, q.scale).astype(np.float64)
    # Where the scale is 0 (a block too small for fp16 on a grid without zero) nothing is inside.
    level = w / np.where(scale == 0, 1e-30, scale)
    scale = np.abs(scale)
    inside = (level >= format.grid.low - 0.5) & (level <= format.grid.high + 0.5)
    error = np.abs(w - q.decode().astype(np.float64))
    assert inside.mean() > 0.5
    # Three float32 roundings (division, offset, product) may add a few parts in 2^24 of the largest number met.
    slack = 2.0**-22 * 2**format.bits * scale
    assert (error <= scale / 2 + slack)[inside].all()


@pytest.mark.parametrize("format", AFFINE, ids=name)
@few
@given(seed=seeds)
def test_half_a_step_inside_an_affine_range(format: Format, seed: int) -> None:
    w = weights(seed)
    q = rtn.quantize(w, format)
    assert q.zero is not None
    zero = per_weight(q, q.zero).astype(np.float64)
    scale = per_weight(q, q.scale).astype(np.float64)
    assert (zero == np.round(zero)).all() and zero.min() >= format.grid.low and zero.max() <= format.grid.high
    inside = (w >= scale * (format.grid.low - zero - 0.5)) & (w <= scale * (format.grid.high - zero + 0.5))
    error = np.abs(w - q.decode().astype(np.float64))
    assert inside.mean() > 0.5
    assert (error <= scale / 2 + 2.0**-22 * 2**format.bits * scale)[inside].all()


@pytest.mark.parametrize("bits", range(1, 9))
def test_the_affine_formula_to_the_letter(bits: int) -> None:
    """k = clamp(round(x / s) + z, qmin, qmax), x^ = s (k - z), on numbers that float32 holds exactly and no ties."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    format = named(f"int{bits}", group="channel", symmetric=False)
    x = np.arange(-600, 600, dtype=np.float32)[None] / 8 + np.float32(1 / 16)
    for s, z in ((0.25, low), (0.5, 0), (2.0, high)):
        q = encode(x, format, np.full((1, 1), s, np.float32), np.full((1, 1), z, np.float32))
        k = np.clip(np.round(x / s) + z, low, high)
        assert (q.format.grid.decode(q.codes) == k).all()
        assert (q.decode() == s * (k - z)).all()


@pytest.mark.parametrize("format", ALL, ids=name)
@few
@given(seed=seeds)
def test_numpy_and_torch_agree_to_the_bit(format: Format, seed: int) -> None:
    w = weights(seed)
    a, b = rtn.quantize(w, format), rtn.quantize(torch.from_numpy(w), format)
    assert [x.tolist() for x in a.outer] == [x.tolist() for x in b.outer]
    assert (a.scale == b.scale.numpy()).all()
    assert (a.codes == b.codes.numpy()).all() and a.codes.dtype == np.uint8
    assert (a.decode() == b.decode().numpy()).all() and a.decode().dtype == np.float32
    assert a.decode().shape == w.shape


@pytest.mark.parametrize("format", ALL, ids=name)
def test_zero_blocks_decode_to_exact_zeros(format: Format) -> None:
    w = weights(1)
    w[1] = 0
    w[2, :32] = 0
    for x in (w, torch.from_numpy(w)):
        back = np.asarray(rtn.quantize(x, format).decode())
        assert np.isfinite(back).all()
        if format.block != "tensor":
            assert (back[1] == 0).all()
        if isinstance(format.block, int):
            assert (back[2, :32] == 0).all()
    assert (rtn.quantize(w * 0, format).decode() == 0).all()


@pytest.mark.parametrize("format", ALL, ids=name)
@pytest.mark.parametrize("size", [1e-9, 1e-5, 1e4])
def test_tiny_and_large_weights_stay_in_proportion(format: Format, size: float) -> None:
    w = weights(5) * np.float32(size) / np.abs(weights(5)).max()
    back = rtn.quantize(w, format).decode()
    assert np.isfinite(back).all()
    # No decoded weight exceeds the largest original by more than the coarsest scale type's factor (E8M0: sqrt 2).
    assert np.abs(back).max() <= np.abs(w).max() * (1.5 if format.scale.type == "e8m0" else 2.01)


@pytest.mark.parametrize("format", ALL, ids=name)
@few
@given(seed=seeds)
def test_decoded_weights_encode_to_themselves(format: Format, seed: int) -> None:
    q = rtn.quantize(weights(seed), format)
    again = encode(q.decode(), format, q.scale, q.zero, outer=q.outer)
    assert (again.decode() == q.decode()).all()


def test_the_drawn_equation_with_shift() -> None:
    format = named("int2", group=2)
    codes = np.array([[0, 1, 2, 3]], np.uint8)
    f = np.float32
    q = QTensor(format, codes, np.array([[2, 10]], f), np.array([[1, -1]], f), np.array([[100, 0.5]], f))
    # grid = -2 -1 0 1; scale * (grid[code] - zero) + shift
    assert q.decode().tolist() == [[94.0, 96.0, 10.5, 20.5]]
    w = q.decode() + np.array([[0.4, -0.4, 4.0, -4.0]], f)
    assert (encode(w, format, q.scale, q.zero, q.shift).codes == codes).all()


def test_a_table_replaces_the_grid() -> None:
    f = np.float32
    codes = np.array([[0, 1, 1, 0], [1, 1, 0, 0]], np.uint8)
    format = named("codebook1", group=2)
    table = np.arange(8, dtype=f).reshape(2, 2, 2)
    q = QTensor(format, codes, np.ones((2, 2), f), table=table)
    assert q.decode().tolist() == [[0, 1, 3, 2], [5, 5, 6, 6]]
    one = QTensor(named("codebook1", group="tensor"), codes, np.ones((1, 1), f), table=np.array([[[-3, 7]]], f))
    assert one.decode().tolist() == [[-3, 7, 7, -3], [7, 7, -3, -3]]
    both = QTensor(format, torch.from_numpy(codes), torch.ones(2, 2), table=torch.from_numpy(table))
    assert both.decode().tolist() == q.decode().tolist()


def test_one_block_a_tensor_has_one_scale() -> None:
    w = weights(2)
    q = rtn.quantize(w, named("int8", group="tensor"))
    assert q.scale.shape == (1, 1) and q.shape == (4, 64)
    # Two's complement: the largest weight, whatever its sign, is level -128.
    assert abs(float(q.scale[0, 0])) == pytest.approx(np.abs(w).max() / 128, rel=1e-3)
    assert int(q.codes[np.unravel_index(np.abs(w).argmax(), w.shape)]) == 0


def test_ternary_uses_three_values() -> None:
    q = rtn.quantize(weights(3), named("ternary", group="tensor"))
    assert set(np.unique(q.codes)) <= {0, 1, 2}
    assert len(np.unique(q.decode())) == 3


def test_a_negative_scale_mirrors_the_grid() -> None:
    w = weights(4)
    format = named("int4", group=16)
    q = rtn.quantize(w, format)
    mirrored, plain = encode(w, format, -q.scale), encode(-w, format, q.scale)
    assert (mirrored.codes == plain.codes).all()
    assert (mirrored.decode() == -plain.decode()).all()


def test_stored_bits() -> None:
    q = rtn.quantize(weights(0), named("nvfp4"))
    assert q.stored_bits() == 4 * 64 * 4 + 16 * 8 + 32
    odd = QTensor(named("int3", group="channel"), np.zeros((2, 5), np.uint8), np.ones((2, 1), np.float32))
    assert odd.stored_bits() == 2 * 16 + 2 * 16 and odd.stored_bits(32) == 2 * 32 + 2 * 16


def test_the_input_is_left_alone() -> None:
    for make in (np.asarray, torch.from_numpy):
        w = weights(6)
        x, copy = make(w), w.copy()
        for format in ALL:
            rtn.quantize(x, format)
        assert (np.asarray(x) == copy).all()
