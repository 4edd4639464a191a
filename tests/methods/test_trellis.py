"""Trellis codes under the layer's objective: below what nearest paths and one side give, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bitwright.core.formats import named
from bitwright.core.stats import Stats
from bitwright.core.trellis import Trellis
from bitwright.errors import RecipeError, TensorError
from bitwright.methods import descent, registry, rtn, trellis
from bitwright.methods.descent.outputs import NO_SLOPE
from bitwright.methods.method import Seen
from tests.methods.test_descent import damped
from tests.methods.test_descent_outputs import both, slopes
from tests.methods.test_gptq import inputs
from tests.methods.test_lloyd import weights

SMALL = replace(named("trellis2"), code=Trellis("trellis2", 2, history=8, rows=64))
"""Of 1,024 states, quickly searched."""
ROWS = 80
"""A path, and a part of one."""


def test_each_side_lowers_the_objective() -> None:
    w, stats, g = weights(1, ROWS), inputs(1), slopes(1)
    hessian = damped(stats)
    nearest = rtn.quantize(w, SMALL)
    one = trellis.quantize(w, SMALL, stats)
    two = trellis.quantize(w, SMALL, stats, curvature=g)
    identity = np.eye(ROWS)
    assert both(w, one, hessian, identity, 0) < 0.7 * both(w, nearest, hessian, identity, 0)
    assert both(w, two, hessian, g) < 0.8 * both(w, one, hessian, g)


def test_half_the_error_of_integers_of_as_many_bits() -> None:
    w, stats, g = weights(2, ROWS), inputs(2), slopes(2)
    integers = descent.quantize(w, named("int2", group=32), stats, curvature=g)
    found = trellis.quantize(w, SMALL, stats, curvature=g)
    assert both(w, found, damped(stats), g) < 0.55 * both(w, integers, damped(stats), g)


def test_torch_gives_the_same_codes() -> None:
    w, stats, g = weights(3, ROWS), inputs(3), slopes(3)
    ours = trellis.quantize(w, SMALL, stats, curvature=g)
    tensors = Stats(stats.n, torch.from_numpy(np.asarray(stats.moment)))
    theirs = trellis.quantize(torch.from_numpy(w), SMALL, tensors, curvature=torch.from_numpy(g))
    assert theirs.codes.dtype == torch.uint8
    assert (theirs.codes.numpy() == ours.codes).mean() > 0.99 or both(w, theirs, damped(stats), g) == pytest.approx(
        both(w, ours, damped(stats), g), rel=0.05
    )


def test_rows_of_zeros_stay_zero() -> None:
    w, stats = weights(4, ROWS), inputs(4)
    w[3] = 0
    w[70:] = 0
    decoded = trellis.quantize(w, SMALL, stats, curvature=slopes(4)).decode()
    assert np.isfinite(decoded).all() and (decoded[3] == 0).all() and (decoded[70:] == 0).all()
    assert (trellis.quantize(w * 0, SMALL, stats).decode() == 0).all()


def test_outputs_that_do_not_count_are_noted() -> None:
    w, stats = weights(5, ROWS), inputs(5)
    q = trellis.quantize(w, SMALL, stats, curvature=np.zeros((ROWS, ROWS), np.float32))
    assert NO_SLOPE in q.notes
    assert (q.codes == trellis.quantize(w, SMALL, stats).codes).all()


def test_what_it_cannot_do_is_refused() -> None:
    w, stats = weights(6, ROWS), inputs(6)
    with pytest.raises(RecipeError, match="needs calibration data"):
        trellis.quantize(w, SMALL)
    with pytest.raises(RecipeError, match="int4 has no trellis"):
        trellis.quantize(w, named("int4"), stats)
    with pytest.raises(TensorError, match="not finite"):
        trellis.quantize(w, SMALL, stats, curvature=np.full((ROWS, ROWS), np.nan, np.float32))
    for method in registry.all():
        assert (method.fits(SMALL) is None) == (method.name in ("rtn", "trellis")), method.name
    assert trellis.METHOD.fits(named("nf4")) is not None


def test_the_method_shares_the_factor_of_an_input() -> None:
    w, stats = weights(7, ROWS), inputs(7)
    options = trellis.METHOD.options(damping=0.05)
    assert trellis.METHOD.prepare is not None
    seen = Seen(stats, trellis.METHOD.prepare(stats, options))
    found = trellis.METHOD.solve(w, SMALL, seen, options)
    assert (found.codes == trellis.quantize(w, SMALL, stats, damping=0.05).codes).all()
