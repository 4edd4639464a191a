"""Certificates as something to read: the verdict of one screen, Markdown, JSON, and one self-contained HTML page.

Everything said here is computed from the certificates alone; no model is opened, and neither torch nor onnx is needed.
What differs between kinds of models is in their own folders (`models/*/facts`); all else serves every kind.
"""

from bitwright.engine.report.certificate import (
    Certificate,
    certificate_path,
    decibel,
    fallbacks,
    floats,
    lint,
    load,
    readers,
    remarks,
    stale,
    worst,
)
from bitwright.engine.report.figures import MAX_BARS, bars, disagreement, histogram, pictures, scatter
from bitwright.engine.report.judgement import (
    JUDGEMENTS,
    NOTHING,
    SCALES,
    cautions,
    comparability,
    front,
    headline,
    judge,
    ranking,
    summary,
)
from bitwright.engine.report.measures import facts, measures, speed
from bitwright.engine.report.page import to_html
from bitwright.engine.report.spending import frontier, spending
from bitwright.engine.report.text import LINES, WIDTH, to_json, to_markdown, verdict_lines
from bitwright.models.kind import Fact
from bitwright.words import measured

__all__ = [
    "JUDGEMENTS",
    "LINES",
    "MAX_BARS",
    "NOTHING",
    "SCALES",
    "WIDTH",
    "Certificate",
    "Fact",
    "bars",
    "cautions",
    "certificate_path",
    "comparability",
    "decibel",
    "disagreement",
    "facts",
    "fallbacks",
    "floats",
    "front",
    "frontier",
    "headline",
    "histogram",
    "judge",
    "lint",
    "load",
    "measured",
    "measures",
    "pictures",
    "ranking",
    "readers",
    "remarks",
    "scatter",
    "speed",
    "spending",
    "stale",
    "summary",
    "to_html",
    "to_json",
    "to_markdown",
    "verdict_lines",
    "worst",
]
