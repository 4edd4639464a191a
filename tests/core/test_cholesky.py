"""Cholesky factors: of definite matrices alone, and no other error is taken for an indefinite one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from bitwright.core.cholesky import cholesky

DEFINITE = np.array([[4, 2], [2, 5]], np.float32)


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_definite_matrices_have_a_factor(convert: Any) -> None:
    lower = cholesky(convert(DEFINITE))
    assert lower is not None
    np.testing.assert_allclose(np.asarray(lower), [[2, 0], [1, 2]])


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("wrong", [-DEFINITE, DEFINITE * 0, DEFINITE * np.nan], ids=["negative", "zero", "nan"])
def test_others_have_none_and_a_stack_with_one_has_none(wrong: np.ndarray, convert: Any) -> None:
    assert cholesky(convert(wrong)) is None
    assert cholesky(convert(np.stack([DEFINITE, wrong]))) is None


def test_other_errors_are_told() -> None:
    with pytest.raises(RuntimeError, match="Half"):
        cholesky(torch.from_numpy(DEFINITE).half())
