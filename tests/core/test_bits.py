"""Packing against a plain big-integer bit string, and against compressed-tensors' own packer."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.core.bits import pack, packed_size, unpack

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, raised when compressed-tensors is imported
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

few = settings(max_examples=60, deadline=None)


def reference(row: list[int], bits: int) -> bytes:
    """Code i in bits [i * bits, (i + 1) * bits) of one big number, written little end first."""
    number = sum(code << (i * bits) for i, code in enumerate(row))
    return number.to_bytes((len(row) * bits + 7) // 8, "little")


def codes_of(rows: int, n: int, bits: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**bits, (rows, n)).astype(np.uint8)


shapes = st.tuples(st.integers(1, 4), st.integers(1, 70), st.integers(1, 8), st.integers(0, 2**32))


@few
@given(shapes)
def test_pack_is_the_bit_string_and_unpack_undoes_it(case: tuple[int, int, int, int]) -> None:
    rows, n, bits, seed = case
    codes = codes_of(rows, n, bits, seed)
    packed = pack(codes, bits)
    assert packed.dtype == np.uint8 and packed.shape == (rows, packed_size(n, bits))
    assert [bytes(row) for row in packed] == [reference(row, bits) for row in codes.tolist()]
    assert (unpack(packed, bits, n) == codes).all()


@few
@given(shapes)
def test_torch_packs_the_same_bytes(case: tuple[int, int, int, int]) -> None:
    rows, n, bits, seed = case
    codes = codes_of(rows, n, bits, seed)
    t = torch.from_numpy(codes)
    packed = pack(t, bits)
    assert packed.dtype == torch.uint8 and (packed.numpy() == pack(codes, bits)).all()
    back = unpack(packed, bits, n)
    assert back.dtype == torch.uint8 and (back == t).all()


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("rows", [1, 3])
def test_any_strides(rows: int, bits: int) -> None:
    """Columns, every other code, a single row: what lies in memory in another order packs to the same bytes."""
    codes = codes_of(16, 6, bits, bits)
    for view in (codes.T[:rows], codes.T[:rows, 1::2], codes.T[:rows, :1], codes[:rows, 3:]):
        plain = np.ascontiguousarray(view)
        packed = pack(plain, bits)
        tensor = torch.from_numpy(codes).T[:rows] if view.shape == (rows, 16) else torch.from_numpy(view)
        assert (pack(view, bits) == packed).all() and pack(tensor, bits).tolist() == packed.tolist()
        turned = np.asfortranarray(packed)
        assert (unpack(turned, bits, view.shape[1]) == plain).all()
        assert unpack(torch.from_numpy(packed.T.copy()).T, bits, view.shape[1]).tolist() == plain.tolist()


@pytest.mark.parametrize("bits", range(1, 9))
def test_extreme_codes(bits: int) -> None:
    for value in (0, 2**bits - 1):
        codes = np.full((2, 17), value, np.uint8)
        assert bytes(pack(codes, bits)[1]) == reference([value] * 17, bits)
        assert (unpack(pack(codes, bits), bits, 17) == codes).all()


@pytest.mark.parametrize("bits", [4, 8])
@few
@given(rows=st.integers(1, 5), words=st.integers(1, 9), seed=st.integers(0, 2**32))
def test_compressed_tensors_packs_the_same_words(bits: int, rows: int, words: int, seed: int) -> None:
    codes = codes_of(rows, words * 32 // bits, bits, seed)
    signed = torch.from_numpy(codes.astype(np.int16) - 2 ** (bits - 1)).to(torch.int8)
    theirs = pack_to_int32(signed, bits).numpy()
    assert (np.ascontiguousarray(pack(codes, bits)).view("<i4") == theirs).all()


def test_packed_size() -> None:
    assert [packed_size(n, 3) for n in (0, 1, 2, 3, 8, 9)] == [0, 1, 1, 2, 3, 4]
    assert packed_size(9, 4, word=32) == 2 and packed_size(8, 4, word=32) == 1
