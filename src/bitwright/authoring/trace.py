"""A small program run line by line, as a figure: which line, what each name then means, what was printed."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import numpy as np

from bitwright.authoring.figures import Figure, Steps

MOST = 60
"""Steps at which a program is cut off: a story that nobody plays to the end teaches nothing."""


def run_code(source: str, watch: Sequence[str], given: dict[str, Any] | None = None) -> Figure:
    """Run `source` (module level, no imports of its own needed beyond `given`) and tell it line by line.

    `watch` names the variables to show; `given` are names it starts with (`np` is always there). Raises what the
    program raises, and ValueError where it takes more than MOST steps.
    """
    lines = source.strip("\n").splitlines()
    code = compile("\n".join(lines), "<figure>", "exec")
    scope: dict[str, Any] = {"np": np, **(given or {})}
    printed = io.StringIO()
    states: list[dict[str, Any]] = []
    captions: list[str] = []

    def note(line: int) -> None:
        shown = [
            {"symbol": name, "meaning": type(scope[name]).__name__, "value": _show(scope[name])}
            for name in watch
            if name in scope
        ]
        told = ", ".join(f"{v['symbol']} = {v['value']}" for v in shown) or "nothing yet"
        states.append(
            {"line": line, "variables": shown, "output": printed.getvalue(), "say": f"After line {line}: {told}."}
        )
        captions.append(lines[line - 1].strip())
        if len(states) > MOST:
            raise ValueError(f"the program takes more than {MOST} steps")

    before: list[int] = []

    def local(frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        if event in ("line", "return"):
            if before:
                note(before.pop())
            if event == "line":
                before.append(frame.f_lineno)
        return local

    def start(frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        return local if frame.f_code is code else None

    old = sys.gettrace()
    try:
        with contextlib.redirect_stdout(printed):
            sys.settrace(start)
            exec(code, scope)
    finally:
        sys.settrace(old)
    base = {"source": "\n".join(lines), "html": ""}
    return Figure(controls={"step": Steps(captions=tuple(captions), label="Line")}, base=base, states=tuple(states))


def _show(value: Any) -> str:
    """A value in one short line."""
    if isinstance(value, np.ndarray):
        text = np.array2string(value, precision=4, threshold=12, max_line_width=1000, separator=", ")
        return " ".join(text.split())
    if isinstance(value, (float, np.floating)):
        return f"{value:.6g}"
    return repr(value)
