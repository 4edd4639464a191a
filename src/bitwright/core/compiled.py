"""Loops as machine code. Imported where they run, and only there: numba takes a while to load."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(loop: Callable[..., Any]) -> Callable[..., Any]:
    """`loop` as machine code, made when it is first called and kept where there is a folder to keep it in.

    It is kept between processes, beside the loop's file or in the user's cache folder. Sums are not reordered, so the
    same machine gives the same result every time.
    """
    options = {"nogil": True, "error_model": "numpy"}
    try:
        made = numba.njit(cache=True, **options)(loop)
    except RuntimeError:  # no folder for it can be written
        made = numba.njit(**options)(loop)
    found: Callable[..., Any] = made
    return found
