"""Every error Bitwright raises on purpose.

    BitwrightError
    ├── InputError              what you gave cannot be used
    │   ├── ModelError          a model folder, its config or its index
    │   ├── TensorError         one tensor: NaN, Inf, shape, dtype, odd dimension
    │   ├── FileError           one file: truncated, corrupt, missing, unreadable
    │   ├── DataError           calibration or held-out text
    │   └── RecipeError         a recipe, an option or a pattern
    ├── ResourceError           not enough memory or disk
    ├── CertificationError      the written bytes are not what was meant
    ├── TrainingError           a loss is not finite any more; the best weights so far are kept
    └── Interrupted             stopped by Ctrl-C; the work so far is kept

A message says what is wrong, where (file, tensor, index, option) and what to do about it, in one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class BitwrightError(Exception):
    """Base of all deliberate errors: `where: what. fix`.

    `what` is the cause, `where` the file, tensor or option it concerns, `fix` what the user can do. `key` is the
    recipe's key at fault (`layer.group`), where it is one: a page shows the error beside that option. `foreign` says
    that what it concerns may well be right, and is only not known here: a check then gives no verdict.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        fix: str | None = None,
        key: str | None = None,
        foreign: bool = False,
    ) -> None:
        self.what, self.where, self.fix, self.key, self.foreign = what, where, fix, key, foreign
        super().__init__(what)

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head.rstrip('.')}. {self.fix}" if self.fix else head


class InputError(BitwrightError):
    """What the user gave cannot be used."""

    exit_code = 2


class ModelError(InputError):
    """A model folder, its config or its index."""


class TensorError(InputError):
    """One tensor: a value that is not finite, or a shape or dtype that does not fit."""


class FileError(InputError):
    """One file: truncated, corrupt, missing or unreadable."""


class DataError(InputError):
    """Calibration or held-out text."""


class RecipeError(InputError):
    """A recipe, an option or a pattern."""


class ResourceError(BitwrightError):
    """Not enough memory or disk for what was asked."""

    exit_code = 3


class CertificationError(BitwrightError):
    """The written bytes do not decode to what was meant; no final output exists."""

    exit_code = 4


class TrainingError(BitwrightError):
    """Training went astray: a loss is not finite any more. The best weights so far are kept."""

    exit_code = 5


class Interrupted(BitwrightError):
    """Stopped on request; finished work is kept, and the same command continues."""

    exit_code = 130


@contextmanager
def about(key: str | None = None, *, where: str | None = None) -> Iterator[None]:
    """Deliberate errors raised inside are about this key of the recipe, or this place, unless they name another."""
    try:
        yield
    except BitwrightError as error:
        error.key, error.where = error.key or key, error.where or where
        raise


def nearest(word: str, known: Iterable[str]) -> str:
    """ "Did you mean ...?" for a mistyped word, or the list of what is known."""
    names = list(known)
    close = difflib.get_close_matches(word, names, 3, 0.5)
    return f"Did you mean {', '.join(close)}?" if close else f"Known: {', '.join(names[:12])}"
