"""Hints come in order."""

from __future__ import annotations

import pytest

from bitwright.errors import InputError
from bitwright.studio.practice import hints
from bitwright.studio.store.database import Database
from tests.studio.practice.work import NOW, submit


def test_hints_come_in_order_and_the_approach_is_free_once_solved(database: Database, you: int) -> None:
    for number in (2, 4, 0, 5, -1):
        with pytest.raises(InputError):
            hints.see(database, you, "a", number, NOW)
    for number in (1, 1, 2, 3, 4):
        hints.see(database, you, "a", number, NOW)
    assert hints.seen(database, you, "a") == [1, 2, 3, 4]
    submit(database, you, "AC", NOW, "b")
    hints.see(database, you, "b", 4, NOW)
    assert hints.seen(database, you, "b") == []
