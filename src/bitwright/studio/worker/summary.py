"""What the workbench shows of a certificate: its figures, and the words of the report."""

from __future__ import annotations

from typing import Any

from bitwright.engine import report
from bitwright.events import plain

WORST = 8
"""Matrices that are listed as the worst."""


def summary(certificate: dict[str, Any]) -> dict[str, Any]:
    """Sizes, losses with their intervals (None where they were not measured), the verdict in words, the worst rows."""
    verdict: dict[str, Any] = certificate["verdict"] or {}
    found = report.judge(certificate)
    rows = sorted(certificate["rows"], key=_badness)
    return plain(  # type: ignore[no-any-return]
        {
            "final_bytes": certificate["output"]["bytes"],
            "source_bytes": certificate["source"]["bytes"],
            "stored_bits": certificate["stored_bits_per_weight"],
            "kl": verdict.get("kl"),
            "kl_interval": verdict.get("kl_interval"),
            "top1": verdict.get("top1_agreement"),
            "top1_interval": verdict.get("top1_interval"),
            "perplexity": [verdict["perplexity_float"], verdict["perplexity_quantized"]]
            if "perplexity_float" in verdict
            else None,
            "words": found.words if found else None,
            "tone": found.tone if found else None,
            "rank": found.rank if found else None,
            "headline": report.headline(certificate),
            "cautions": report.cautions(certificate),
            "facts": [fact._asdict() for fact in report.facts(certificate)],
            "worst": [
                {"name": row["name"], "sqnr": row["sqnr"], "output_error": row["output_error"]} for row in rows[:WORST]
            ],
            "fallbacks": report.fallbacks(certificate),
            "readers": report.readers(certificate),
        }
    )


def _badness(row: dict[str, Any]) -> tuple[float, float]:
    """Largest output error first, then lowest SQNR."""
    return -(row["output_error"] or 0.0), row["sqnr"] if row["sqnr"] is not None else float("inf")
