"""The engine's report of a run as one page."""

from __future__ import annotations

from pathlib import Path

from bitwright.engine import report


def page(out: str) -> str:
    """The self-contained HTML report on an output's certificate."""
    return report.to_html([report.load(Path(out))])
