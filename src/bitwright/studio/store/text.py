"""Text that both engines can store."""

from __future__ import annotations

import unicodedata

from bitwright.errors import InputError


def is_clean(text: str) -> bool:
    """Whether it has no control characters, and no halves of a surrogate pair."""
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def name_of(where: str, text: str, least: int = 1, most: int = 200) -> str:
    """A name that was sent, `least` to `most` characters; InputError where it cannot be one."""
    if not least <= len(text) <= most or not is_clean(text):
        raise InputError(f"{text[:40]!r} cannot be one", where=where, fix="Reload the page")
    return text
