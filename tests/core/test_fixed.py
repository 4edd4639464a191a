"""One fixed scale for what passes at run time has the least squared error, whatever the grid and the shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bitwright.core.fixed import fit, noise
from bitwright.core.grid import E4M3, INT, Grid
from bitwright.core.observe import Histogram
from bitwright.core.scaling import NUMBERS

GRIDS = (INT[4], INT[8], E4M3)


def draw(shape: str) -> Any:
    g = np.random.default_rng(1)
    x = {
        "normal": lambda: g.normal(size=60_000),
        "heavy tails": lambda: g.standard_t(3, size=60_000),
        "an outlying channel": lambda: np.concatenate([g.normal(size=60_000), 20 * g.normal(size=1_000)]),
        "one side": lambda: np.abs(g.normal(size=60_000)),
        "mostly zeros": lambda: g.normal(size=60_000) * (g.random(60_000) < 0.1),
    }[shape]()
    return x.astype(np.float32)


def error(x: Any, scale: float, grid: Grid) -> float:
    """What rounding `x` itself costs."""
    rounded = np.asarray(grid.round(x / np.float32(scale))) * np.float32(scale)
    return float(np.square(x.astype(np.float64) - rounded).mean())


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: grid.name)
@pytest.mark.parametrize("shape", ["normal", "heavy tails", "an outlying channel", "one side", "mostly zeros"])
def test_no_scale_has_a_smaller_error(shape: str, grid: Grid) -> None:
    x = draw(shape)
    scale = fit(Histogram.of(x), grid, NUMBERS["fp32"])
    largest = np.abs(x).max() / grid.high
    tried = [error(x, largest * 2.0**-octaves, grid) for octaves in np.arange(0, 5, 0.1)]
    assert error(x, scale, grid) <= 1.01 * min(tried)
    if grid is INT[4] and shape in ("normal", "heavy tails"):
        assert error(x, scale, grid) < 0.9 * tried[0]  # the largest value alone decides badly


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: grid.name)
def test_the_error_that_a_histogram_foretells_is_that_of_the_values(grid: Grid) -> None:
    x = draw("normal")
    scales = np.abs(x).max() / grid.high * np.array([1.0, 0.5, 0.25])
    measured = [error(x, scale, grid) for scale in scales]
    np.testing.assert_allclose(noise(Histogram.of(x), scales, grid), measured, rtol=0.02)


def test_the_scale_is_one_that_is_stored() -> None:
    seen = Histogram.of(draw("normal"))
    for name in ("bf16", "fp16"):
        scale = np.array([fit(seen, INT[8], NUMBERS[name])], np.float32)
        assert NUMBERS[name].round(scale) == scale
    tiny = Histogram.of(draw("normal") * np.float32(1e-12))
    assert fit(tiny, E4M3, NUMBERS["fp16"]) == NUMBERS["fp16"].least  # rounding to 0 would divide by it


def test_zeros_and_nothing_have_a_scale_of_one() -> None:
    assert fit(Histogram(), INT[8], NUMBERS["bf16"]) == 1.0
    assert fit(Histogram.of(np.zeros(9, np.float32)), INT[8], NUMBERS["bf16"]) == 1.0


def test_a_single_value_is_kept() -> None:
    for grid in GRIDS:
        x = np.full(5, -0.75, np.float32)
        assert error(x, fit(Histogram.of(x), grid, NUMBERS["fp32"]), grid) < 1e-5
