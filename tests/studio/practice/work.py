"""Submissions with a verdict, for tests of what is remembered of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from bitwright.studio.practice import submissions
from bitwright.studio.store.database import Database

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)


def result(verdict: str) -> dict[str, Any]:
    return {
        "verdict": verdict, "words": "w", "sentence": f"It is {verdict}", "cases": [{"cpu": float("nan")}], "total": 3,
        "cpu": 0.5, "memory": 1000, "tier": "A", "reason": "", "line": 0, "growth": None,
    }  # fmt: skip


def submit(database: Database, you: int, verdict: str, when: datetime, slug: str = "a", code: str = "x") -> int:
    id, job = submissions.submit(database, you, slug, code, when, "me", 60.0)
    assert submissions.judged(database, id, job, "me", result(verdict), when.date())
    return id
