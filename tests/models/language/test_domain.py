"""Text is in domain where its words are as likely as those of what calibration saw."""

from __future__ import annotations

import math

import pytest
import torch

from bitwright.models.language.domain import FEW, domain


def draw(seed: int, first: int, windows: int = 16, length: int = 64) -> torch.Tensor:
    """Windows of tokens from `first` on, the lower the likelier, of a kind that varies from window to window."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.rand(length, generator=generator) ** (2 + i % 4) * 200 for i in range(windows)]
    return torch.stack(rows).long() + first


def test_text_of_the_same_kind_is_in_domain_and_of_another_is_not() -> None:
    kinds = {"low": draw(0, 0), "high": draw(1, 300)}
    assert domain(draw(2, 0), kinds)["in"] and domain(draw(2, 0), kinds)["nearest"] == "low"
    assert domain(draw(3, 300), kinds)["in"] and domain(draw(3, 300), kinds)["nearest"] == "high"
    between = domain(draw(4, 150), kinds)
    assert not between["in"] and between["excess"] > between["spread"] > 0
    # A mixture makes text of both kinds in domain; one source alone only its own.
    assert not domain(draw(3, 300), {"low": kinds["low"]})["in"]


def test_the_figures_are_those_of_plain_counts() -> None:
    known = torch.tensor([[0, 0], [0, 1], [1, 1], [0, 1]])
    found = domain(torch.tensor([[2, 2]]), {"text": known})
    # Of 8 tokens 4 are 0 and 4 are 1; a window's own are left out: [0, 0] is scored by two 0 of 6, [0, 1] by three of
    # each, [1, 1] by two 1. Half is added to each of the three counts.
    own = -(torch.tensor([2.5, 3.5, 2.5, 3.5]) / 7.5).log()
    assert found["excess"] == pytest.approx(-math.log(0.5 / 9.5) - float(own.mean()), rel=1e-5)
    assert found["spread"] == pytest.approx(float(own.std(correction=0)), rel=1e-5)


def test_a_few_windows_say_nothing_of_a_kind() -> None:
    assert domain(draw(0, 0), {"text": draw(1, 0, windows=FEW - 1)}) == {"in": False}
