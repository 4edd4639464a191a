"""Where the content lies, and how its text files are read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from bitwright.errors import FileError

CONTENT = Path(__file__).parents[1] / "content"


def read_text(path: Path) -> str:
    """The text of a file. FileError where it cannot be read."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"cannot be read ({error})", where=str(path), fix="Write it, or install again") from error


def read_toml(path: Path) -> dict[str, Any]:
    """The table in a TOML file. FileError where it cannot be read."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FileError(f"cannot be read ({error})", where=str(path), fix="Correct it, or install again") from error


def read_page(path: Path) -> tuple[dict[str, Any], str]:
    """Head and body of a text file. FileError where it has no head, or one that is not TOML.

    Blank lines stand for the head in the body, so that line numbers in errors are those of the file.
    """
    found = re.match(r"\+\+\+\n(.*?)\n\+\+\+\n(.*)", read_text(path), re.DOTALL)
    if not found:
        raise FileError("has no head", where=str(path), fix="Begin with a line +++, TOML, and another line +++")
    try:
        head = tomllib.loads(found[1])
    except tomllib.TOMLDecodeError as error:
        raise FileError(f"head is not valid TOML ({error})", where=str(path), fix="Correct it") from error
    return head, "\n" * (found[1].count("\n") + 3) + found[2]
