"""The randomised Hadamard transform: what it is, that it turns back, and that both libraries agree to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bitwright.core.rotation import hadamard, rotate, rotate_back, signs


def sylvester(size: int) -> np.ndarray:
    """The Hadamard matrix of a power of two, by its recursive definition, orthogonal."""
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix / np.sqrt(size)


@pytest.mark.parametrize(("n", "size"), [(1, 1), (2, 2), (8, 8), (12, 4), (80, 16), (7, 1)])
def test_is_sylvesters_matrix_of_the_largest_power_of_two(n: int, size: int) -> None:
    expected = np.kron(np.eye(n // size), sylvester(size))
    assert np.allclose(hadamard(np.eye(n, dtype=np.float32)), expected, atol=1e-7)
    assert np.allclose(rotate(np.eye(n, dtype=np.float32)), np.diag(signs(n)) @ expected, atol=1e-7)


@pytest.mark.parametrize("n", [1, 7, 64, 576, 1280])
def test_turns_back_and_keeps_lengths(n: int) -> None:
    x = np.random.default_rng(n).normal(size=(3, n)).astype(np.float32)
    y = rotate(x)
    assert np.allclose(np.linalg.norm(y, axis=1), np.linalg.norm(x, axis=1), rtol=1e-6)
    assert np.allclose(rotate_back(y), x, atol=1e-6)
    assert (rotate(torch.from_numpy(x)).numpy() == y).all()
    assert (rotate_back(torch.from_numpy(y)).numpy() == rotate_back(y)).all()


def test_signs_look_drawn_and_are_the_same_every_time() -> None:
    s = signs(4096)
    assert set(s.tolist()) == {1.0, -1.0} and abs(s.sum()) < 3 * 64
    products = [abs(float((s[:-lag] * s[lag:]).sum())) for lag in range(1, 33)]
    assert max(products) < 4 * 64, "none goes with its neighbours"
    assert signs(8).tolist() == s[:8].tolist()


def test_one_huge_weight_is_spread_over_its_row() -> None:
    x = np.zeros((1, 1024), np.float32)
    x[0, 17] = 32.0
    assert np.allclose(np.abs(rotate(x)), 1.0)
