"""Errors that say more than their class: which HTTP status they are."""

from __future__ import annotations

from bitwright.errors import BitwrightError, InputError, ResourceError


class Unknown(InputError):
    """Nothing here is called so."""


class Conflict(InputError):
    """What was asked does not fit the state that something is in."""


class TooLarge(InputError):
    """More bytes, or more files, than may be sent."""


class NoSpace(ResourceError):
    """The disk is full."""


class Unavailable(ResourceError):
    """The database does not answer."""


STATUS: tuple[tuple[type[BitwrightError], int], ...] = (
    (Unknown, 404), (Conflict, 409), (TooLarge, 413), (NoSpace, 507), (Unavailable, 503), (InputError, 400),
    (ResourceError, 503),
)  # fmt: skip
"""The first that fits counts."""


def status_of(error: BitwrightError) -> int:
    """The HTTP status that says what an error says."""
    if isinstance(error, ResourceError) and ("disk is full" in error.what or "No space left" in error.what):
        return 507
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def sentence(error: BitwrightError) -> str:
    """What is wrong, and where, as pages show it."""
    text = f"{error.where}: {error.what}" if error.where else error.what
    return text.rstrip(".") + "."
