"""How prose writes numbers: `[[ sqnr | db ]]`."""

from __future__ import annotations

from collections.abc import Callable


def significant(value: float, digits: int = 3) -> str:
    """A number to `digits` significant digits, without exponent, thousands separated; a true minus sign.

    >>> significant(0.012345), significant(12345.6), significant(-2.5)
    ('0.0123', '12,300', '−2.50')
    """
    rounded = float(f"{value:.{digits}g}")
    places = max(0, digits - 1 - _exponent(rounded)) if rounded else 0
    return f"{rounded:,.{places}f}".replace("-", "\u2212")


def _exponent(value: float) -> int:
    return int(f"{value:e}".split("e")[1])


def scientific(value: float, digits: int = 2) -> str:
    """A number as 1.12 × 10⁻² (Unicode superscripts, so that it reads in any text)."""
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa.replace('-', chr(0x2212))} × 10{raised}"


FILTERS: dict[str, Callable[..., str]] = {
    "n": significant,
    "fixed": lambda value, places=2: f"{value:,.{places}f}".replace("-", "\u2212"),
    "whole": lambda value: f"{round(value):,}".replace("-", "\u2212"),
    "sci": scientific,
    "db": lambda value: f"{value:.1f} dB".replace("-", "\u2212"),
    "percent": lambda value, places=1: f"{100 * value:.{places}f} %".replace("-", "\u2212"),
    "times": lambda value: f"{significant(value, 2)} times",
    "kb": lambda value: f"{value / 1000:,.1f} kB",
    "mb": lambda value: f"{value / 1e6:,.2f} MB",
}
"""By their names in prose. `n` gives significant digits, `fixed` decimal places."""
