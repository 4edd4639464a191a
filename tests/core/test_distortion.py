"""Measured distortion on a unit Gaussian against the published optima, and against the bound nobody beats.

Max 1960, tables I and II: the optimum uniform and non-uniform quantizers; the bound is D(R) = 2^(-2R).
"""

from __future__ import annotations

import math

import pytest
import torch

from bitwright.core.formats import named
from bitwright.core.measure import Error
from bitwright.core.qtensor import encode
from bitwright.methods import lloyd

UNIFORM = {1: 0.3634, 2: 0.1188, 3: 0.03744, 4: 0.01154}
LLOYD_MAX = {1: 0.3634, 2: 0.1175, 3: 0.03454, 4: 0.009497}


@pytest.fixture(scope="module")
def gaussian() -> torch.Tensor:
    """2^21 samples, [2048, 1024]: the standard error of a distortion is well below 1 %."""
    return torch.randn(2048, 1024, generator=torch.Generator().manual_seed(1960))


def uniform_distortion(x: torch.Tensor, bits: int, step: float) -> float:
    """Mean squared error with one `step` for the whole tensor."""
    q = encode(x, named(f"midrise{bits}", group="tensor", scale="fp32"), torch.tensor([[step]]))
    return Error.between(x, q.decode()).mse


@pytest.mark.parametrize("bits", UNIFORM)
def test_uniform(gaussian: torch.Tensor, bits: int) -> None:
    sample = gaussian[:256]
    # The error is convex enough in the step for a golden-section search between a too fine and a too coarse step.
    low, high, golden = 0.05, 4.0, (math.sqrt(5) - 1) / 2
    for _ in range(16):
        a, b = high - golden * (high - low), low + golden * (high - low)
        if uniform_distortion(sample, bits, a) < uniform_distortion(sample, bits, b):
            high = b
        else:
            low = a
    distortion = uniform_distortion(gaussian, bits, (low + high) / 2)
    assert distortion == pytest.approx(UNIFORM[bits], rel=0.01)
    assert distortion > 2.0 ** (-2 * bits)


@pytest.mark.parametrize("bits", LLOYD_MAX)
def test_lloyd_max(gaussian: torch.Tensor, bits: int) -> None:
    q = lloyd.quantize(gaussian, named(f"codebook{bits}", group="tensor"))
    distortion = Error.between(gaussian, q.decode()).mse
    assert distortion == pytest.approx(LLOYD_MAX[bits], rel=0.01)
    # At the optimum each level is its cell's mean, so the decoded power falls short of 1 by the distortion.
    assert float((q.decode() ** 2).mean()) == pytest.approx(float((gaussian**2).mean()) - distortion, abs=1e-3)
    # The bound holds for the stored bits, codebook and all.
    rate = q.stored_bits() / gaussian.numel()
    assert bits < rate < bits + 0.001
    assert distortion > 2.0 ** (-2 * rate)


def test_learned_values_gain_exactly_what_theory_says(gaussian: torch.Tensor) -> None:
    """At 4 bits the free codebook is 0.85 dB better than the best uniform grid: 10 log10(.01154 / .009497)."""
    q = lloyd.quantize(gaussian, named("codebook4", group="tensor"))
    best = min(uniform_distortion(gaussian, 4, 0.3352 * (1 + 0.002 * i)) for i in (-1, 0, 1))
    gain = 10 * math.log10(best / Error.between(gaussian, q.decode()).mse)
    assert gain == pytest.approx(10 * math.log10(UNIFORM[4] / LLOYD_MAX[4]), abs=0.05)
