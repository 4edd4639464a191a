"""Learned rounding (AdaRound): for each weight, up or down, as the layer's output asks. The work is in `rounding`."""

from __future__ import annotations

from bitwright.core.array import Array
from bitwright.core.format import Format
from bitwright.core.grid import Grid
from bitwright.core.qtensor import QTensor
from bitwright.methods.method import Method, Options, Seen, fits_fixed


def fits(format: Format) -> str | None:
    """Why a format has no neighbouring codes to choose between; None where it has."""
    if not isinstance(format.code, Grid) or not format.code.uniform:
        return f"cannot learn the rounding of {format.name}"
    return fits_fixed(format)


def solve(w: Array, format: Format, seen: Seen, options: Options) -> QTensor:
    """Quantize `w` by its samples; see `rounding.quantize`."""
    from bitwright.methods.adaround import rounding

    s = seen.samples
    assert s is not None, "the engine gives samples to a method that needs them"
    return rounding.quantize(w, format, s.x, s.target, bias=s.bias, relu=s.relu, groups=s.groups)


METHOD = Method(
    name="adaround",
    title="Learned rounding",
    source="Nagel et al. 2020, arXiv 2004.10568",
    solve=solve,
    needs="samples",
    fits=fits,
    work=lambda options: 500.0,
    fallback="mse",
)
