"""The order of a leaderboard."""

from __future__ import annotations

from typing import Any

from bitwright.studio.practice.ranking import ordered


def test_rows_are_in_pareto_order() -> None:
    def row(name: str, quality: float, bits: float) -> dict[str, Any]:
        return {"name": name, "quality": quality, "bits": bits}

    rows = [row("a", 10, 4), row("a", 9, 4), row("b", 8, 2), row("c", 7, 3), row("b", 8, 2), row("d", 6, 5)]
    found = [(one["rank"], one["name"], one["bits"]) for one in ordered(rows)]
    assert found == [(1, "b", 2), (1, "a", 4), (2, "c", 3), (3, "d", 5)]
    assert ordered([]) == []
