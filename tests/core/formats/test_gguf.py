"""GGUF's types: bits, and K-quants' blocks of bytes against ggml's own decoding, written down from its C code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from bitwright.core.formats import named
from bitwright.core.formats.gguf import FAMILY
from bitwright.core.measure import Error
from bitwright.core.qtensor import QTensor
from bitwright.core.stats import Stats
from bitwright.errors import RecipeError
from bitwright.methods import descent, gptq, mse, registry, rtn

BITS = {
    "q2_k": 2.625, "q3_k": 3.4375, "q4_k": 4.5, "q5_k": 5.5, "q6_k": 6.5625, "q4_0": 4.5, "q4_1": 5, "q5_0": 5.5,
    "q5_1": 6, "q8_0": 8.5, "iq4_nl": 4.5, "iq4_xs": 4.25, "tq1_0": 1.6875, "tq2_0": 2.0625,
}  # fmt: skip
Q4_K, Q6_K = 144, 210
"""Bytes of 256 weights."""
SIGNED = ["q3_k", "q6_k", "q4_0", "q8_0", "iq4_nl", "iq4_xs"]
SHIFTED = ["q4_1", "q5_1", "q2_k", "q4_k", "q5_k"]


def test_every_type_of_the_family_is_here() -> None:
    assert list(FAMILY.titles) == list(BITS)


@pytest.mark.parametrize("name", [*BITS, "mxfp4"])
def test_stored_bits_are_those_of_the_file(name: str) -> None:
    weights, size = GGML_QUANT_SIZES[GGMLQuantizationType[name.upper()]]
    assert named(name).stored_bits(3, 512) == 3 * 512 // weights * size * 8
    assert BITS.get(name, 4.25) == 8 * size / weights


def test_nvfp4_has_a_factor_per_tensor_besides() -> None:
    weights, size = GGML_QUANT_SIZES[GGMLQuantizationType.NVFP4]
    assert named("nvfp4").stored_bits(3, 512) == 3 * 512 // weights * size * 8 + 32


def half(block: bytes, at: int) -> np.float32:
    return np.frombuffer(block[at : at + 2], np.float16)[0].astype(np.float32)


def scale_min(j: int, q: bytes) -> tuple[int, int]:
    """`get_scale_min_k4` of ggml-quants.c."""
    if j < 4:
        return q[j] & 63, q[j + 4] & 63
    return (q[j + 4] & 0xF) | ((q[j - 4] >> 6) << 4), (q[j + 4] >> 4) | ((q[j] >> 6) << 4)


def decode_q4_k(block: bytes) -> list[float]:
    """`dequantize_row_q4_K` of ggml-quants.c, weight by weight, in float32."""
    d, low, scales, qs = half(block, 0), half(block, 2), block[4:16], block[16:]
    out: list[float] = []
    for part in range(4):
        for nibble in (0, 1):
            sc, m = scale_min(2 * part + nibble, scales)
            d1, m1 = d * np.float32(sc), low * np.float32(m)
            for byte in qs[32 * part : 32 * part + 32]:
                out.append(float(d1 * np.float32((byte >> 4) if nibble else (byte & 15)) - m1))
    return out


def read_q4_k(blocks: np.ndarray) -> QTensor:
    """Blocks uint8 [rows, n, 144] as a QTensor."""
    rows, n, _ = blocks.shape
    d, low = (blocks[..., i : i + 2].copy().view(np.float16)[..., 0].astype(np.float32) for i in (0, 2))
    packed = blocks[..., 4:16]
    a, b, c = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    sc = np.concatenate([a & 63, (c & 15) | (a >> 6 << 4)], axis=-1)
    m = np.concatenate([b & 63, (c >> 4) | (b >> 6 << 4)], axis=-1)
    qs = blocks[..., 16:].reshape(rows, n, 4, 1, 32)
    codes = np.concatenate([qs & 15, qs >> 4], axis=3).reshape(rows, 256 * n)
    scale, shift = (d[..., None] * sc).reshape(rows, -1), (-low[..., None] * m).reshape(rows, -1)
    return QTensor(named("q4_k"), codes, scale, shift=shift, outer=(d,), shift_outer=(-low,))


def decode_q6_k(block: bytes) -> list[float]:
    """`dequantize_row_q6_K` of ggml-quants.c, weight by weight, in float32."""
    ql, qh, sc, d = block[:128], block[128:192], np.frombuffer(block[192:208], np.int8), half(block, 208)
    out = [0.0] * 256
    for n in (0, 1):
        for i in range(32):
            high = qh[32 * n + i]
            first, second = ql[64 * n + i], ql[64 * n + i + 32]
            nibbles = (first & 15, second & 15, first >> 4, second >> 4)
            for k, nibble in enumerate(nibbles):
                q = (nibble | ((high >> (2 * k)) & 3) << 4) - 32
                out[128 * n + 32 * k + i] = float(d * np.float32(sc[8 * n + i // 16 + 2 * k]) * np.float32(q))
    return out


def read_q6_k(blocks: np.ndarray) -> QTensor:
    """Blocks uint8 [rows, n, 210] as a QTensor."""
    rows, n, _ = blocks.shape
    ql = blocks[..., :128].reshape(rows, n, 2, 1, 64)
    nibbles = np.concatenate([ql & 15, ql >> 4], axis=3).reshape(rows, n, 2, 4, 32)
    twos = blocks[..., 128:192].reshape(rows, n, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    sc = blocks[..., 192:208].copy().view(np.int8).astype(np.float32)
    d = blocks[..., 208:].copy().view(np.float16)[..., 0].astype(np.float32)
    codes = (nibbles | twos << 4).reshape(rows, 256 * n)
    return QTensor(named("q6_k"), codes, (d[..., None] * sc).reshape(rows, -1), outer=(d,))


def some_blocks(size: int, halves: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """uint8 [3, 2, size]: any bits at all, but fp16 numbers of ordinary size, of either sign, at `halves`."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (3, 2, size), dtype=np.uint8)
    for at in halves:
        numbers = rng.normal(0, 0.01, (3, 2, 1)).astype(np.float16)
        blocks[..., at : at + 2] = numbers.view(np.uint8)
    return blocks


@pytest.mark.parametrize("seed", range(3))
def test_q4_k_decodes_as_ggml_does(seed: int) -> None:
    blocks = some_blocks(Q4_K, (0, 2), seed)
    q = read_q4_k(blocks)
    theirs = [[x for block in row for x in decode_q4_k(block.tobytes())] for row in blocks]
    assert q.decode().tolist() == theirs and q.decode().dtype == np.float32
    assert q.stored_bits() == 8 * blocks.size
    part = q.part(1, 3)
    assert part.decode().tolist() == theirs[1:] and part.outer[0].shape == part.shift_outer[0].shape == (2, 2)


@pytest.mark.parametrize("seed", range(3))
def test_q6_k_decodes_as_ggml_does(seed: int) -> None:
    blocks = some_blocks(Q6_K, (208,), seed)
    q = read_q6_k(blocks)
    assert q.decode().tolist() == [[x for block in row for x in decode_q6_k(block.tobytes())] for row in blocks]
    assert q.stored_bits() == 8 * blocks.size


@pytest.mark.parametrize("read", [read_q4_k, read_q6_k])
def test_what_was_read_is_a_fixed_point_of_rounding(read) -> None:
    q = read(some_blocks(*((Q4_K, (0, 2)) if read is read_q4_k else (Q6_K, (208,)))))
    used = q.scale != 0
    assert (q.format.scale.round(q.scale, q.outer)[used] == q.scale[used]).all()
    if q.shift is not None:
        assert (q.format.shift.round(q.shift, q.shift_outer) == q.shift).all()


def gaussian(rows: int = 8, columns: int = 512) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)


@pytest.mark.parametrize("name", ["q3_k", "q6_k"])
def test_scales_are_whole_multiples_of_their_factor(name: str) -> None:
    w, format = gaussian(64), named(name)
    for q in (rtn.quantize(w, format), mse.quantize(w, format)):
        assert [factor.shape for factor in q.outer] == [(64, 2)]
        whole = q.scale / np.repeat(q.outer[0], 16, axis=1)
        assert np.abs(whole - np.round(whole)).max() < 1e-3


@pytest.mark.parametrize("name", SIGNED)
def test_calibrated_methods_keep_scales_storable(name: str) -> None:
    w = torch.from_numpy(gaussian())
    stats = Stats.of(torch.randn(600, 512, generator=torch.Generator().manual_seed(1)))
    plain = gptq.quantize(w, named(name), stats)
    for q in (plain, descent.quantize(w, named(name), stats)):
        assert torch.equal(q.format.scale.round(q.scale, q.outer), q.scale)
        assert torch.isfinite(q.decode()).all() and Error.between(w, q.decode()).sqnr > 12
        parts = q.part(2, 5)
        assert torch.equal(parts.decode(), q.decode()[2:5])


PLAIN_ERROR = {
    "q4_0": 0.0075, "q5_0": 0.00184, "q8_0": 2.84e-5, "iq4_nl": 0.0065, "iq4_xs": 0.0065, "tq1_0": 0.66, "tq2_0": 0.66,
    "q4_1": 0.0062, "q5_1": 0.00146, "q2_k": 0.11, "q3_k": 0.0245, "q4_k": 0.0062, "q5_k": 0.0015, "q6_k": 0.00036,
}  # fmt: skip
"""Mean squared error of `rtn` on N(0, 1), a little more than it is; gguf-py has the same for Q4_0 ... Q8_0, TQ1_0."""


@pytest.mark.parametrize("name", BITS)
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_data_free_methods_fit_every_type(name: str, library: str) -> None:
    w, format = gaussian(64), named(name)
    given = torch.from_numpy(w) if library == "torch" else w
    plain, searched = rtn.quantize(given, format), mse.quantize(given, format)
    assert Error.between(given, plain.decode()).mse < PLAIN_ERROR[name]
    assert Error.between(given, searched.decode()).mse <= Error.between(given, plain.decode()).mse
    for q in (plain, searched):
        assert (format.scale.round(q.scale, q.outer) == q.scale).all()
        if format.shift is not None:
            assert (format.shift.round(q.shift, q.shift_outer) == q.shift).all()
            assert len(q.shift_outer) == len(format.shift.levels) - 1


@pytest.mark.parametrize("name", BITS)
def test_rows_that_are_hard_to_fit(name: str) -> None:
    """Zeros, a constant, one outlier, all of one sign, tiny and huge: finite, and never further off than the range."""
    w = gaussian(8)
    w[0], w[1], w[2], w[2, 7] = 0, 0.3, 0, -5
    w[3], w[4], w[5], w[6] = abs(w[3]) + 2, -abs(w[4]) - 2, w[5] * 1e-30, w[6] * 1e4
    for q in (rtn.quantize(w, named(name)), mse.quantize(w, named(name))):
        assert np.isfinite(q.decode()).all() and (q.decode()[0] == 0).all()
        off = np.abs(q.decode() - w).max(axis=1)
        assert (off <= 1.01 * np.abs(w).max(axis=1)).all()
    if name in ("q4_1", "q5_1"):
        assert np.abs(rtn.quantize(w, named(name)).decode()[1] - 0.3).max() < 1e-4, "a shift alone"


def test_the_unevenly_spaced_reach_further_on_the_side_of_the_longer_tail() -> None:
    w = np.zeros((2, 32), np.float32)
    w[0, 3], w[1, 3], w[:, 4] = 4, -4, 0.5
    q = rtn.quantize(w, named("iq4_nl"))
    assert (q.scale[:, 0] < 0).tolist() == [True, False] and (q.codes[:, 3] == 0).all()


@pytest.mark.parametrize("name", SHIFTED)
def test_methods_without_shifts_say_so(name: str) -> None:
    w, format = gaussian(), named(name)
    assert registry.get("gptq").fits(format) == f"cannot choose the shifts of {name}"
    assert registry.get("rtn").fits(format) is registry.get("mse").fits(format) is None
    with pytest.raises(RecipeError, match=f"{name} stores shifts, which this method cannot choose.*rtn or mse"):
        gptq.quantize(torch.from_numpy(w), format, Stats.of(torch.from_numpy(w)))


def test_the_span_of_a_shifted_format_ends_where_its_shifts_do() -> None:
    assert named("q4_1").span == (15 * 2**-20, 65504.0)
    assert named("q4_k").span == (15 * 63 * 2**-20, 63 * 65504.0)
    w = np.array([[-65504.0, *[0.0] * 31], [-2 * 65504.0, *[0.0] * 31]], np.float32)
    assert rtn.quantize(w, named("q4_1")).decode()[:, 0].tolist() == [-65504.0, -65504.0]
