"""Programs, text and results as the database can keep them."""

from __future__ import annotations

import math
from typing import Any

from bitwright.errors import InputError

CODE = 64 << 10
"""Bytes that a program may have."""


def code_of(code: str) -> str:
    """A program that can be kept, without a byte order mark, as Python reads it; InputError where it is too long."""
    code = code.removeprefix("\ufeff")
    if len(code.encode(errors="replace")) > CODE:
        raise InputError(f"the program is longer than {CODE >> 10} kB", where="code", fix="Make it shorter")
    return text_of("code", code, CODE)


def text_of(where: str, text: str, most: int) -> str:
    """Text that both engines can store, `most` characters at most; InputError otherwise."""
    if len(text) > most:
        raise InputError(f"longer than {most:,} characters", where=where, fix="Make it shorter")
    if "\0" in text or any("\ud800" <= one <= "\udfff" for one in text):
        raise InputError("has a character that is none", where=where, fix="Remove it")
    return text


def plain(value: Any, longest: int = 20_000) -> Any:
    """JSON that every reader takes: no NaN or infinity (None), no text longer than `longest`, lists likewise."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return str(value)[:longest].encode(errors="replace").decode()
    if isinstance(value, dict):
        return {str(key): plain(one, longest) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one, longest) for one in value[:longest]]
    return value
