"""Programs as the database keeps them."""

from __future__ import annotations

from bitwright.studio.practice.text import code_of


def test_a_byte_order_mark_is_no_part_of_a_program() -> None:
    assert code_of("\ufeffdef f(): ...\n") == "def f(): ...\n"
    assert code_of("# a \ufeff within\n") == "# a \ufeff within\n"
