"""What happens with one program inside the walls: compile, run, call, answer.

A request is one JSON object: `code`; `calls`, a list of {function, arguments}; `forbid` {operations, modules};
`inspect` (look at the compiled code, run nothing); `trace` {most line events, names to watch, stop after them}.
The answer:

    {"results": [...]}                        what each call returned
    {"error": {phase, type, text, line, stack}} phase is compile, load or call
    {"uses": [...]}                            only looked at
    {"steps": [...], "cut": ..., "results": ...} traced

Nothing in here is a secret, and nothing it says is believed: a program can say all this itself, but not know the
expected answer.
"""

from __future__ import annotations

import linecache
import sys
import traceback
from types import CodeType, FrameType
from typing import Any

from . import operations, values

FILE = "solution.py"
MOST_TEXT = 2000


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Run one request."""
    source: str = request["code"]
    linecache.cache[FILE] = (len(source), None, source.splitlines(True), FILE)
    try:
        code = compile(source, FILE, "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        return {"error": _error("compile", error)}
    forbid = request.get("forbid") or {}
    forbidden = frozenset(forbid.get("operations", ())), frozenset(forbid.get("modules", ()))
    guarded = any(forbidden)
    if request.get("inspect"):
        if not guarded:
            return {"uses": []}
        found_uses = [*operations.uses(code, *forbidden), *operations.disguises(source, forbidden[0])]
        return {"uses": [list(use) for use in found_uses]}
    if guarded:
        operations.watch(code, *forbidden)
    tracer = Tracer(request["trace"]) if request.get("trace") else None
    space: dict[str, Any] = {"__name__": "solution", "__file__": FILE}
    try:
        exec(code, space)
    except BaseException as error:
        return {"error": _error("load", error)}
    results = []
    for call in request["calls"]:
        name = call["function"]
        if not callable(space.get(name)):
            text = f"there is no function {name}"
            return {"error": {"phase": "load", "type": "NameError", "text": text, "line": 0, "stack": []}}
        arguments = [values.inside(one) for one in call["arguments"]]
        if guarded:
            arguments = [operations.watched(one, forbidden[0]) for one in arguments]
        try:
            if tracer:
                with tracer:
                    result = space[name](*arguments)
            else:
                result = space[name](*arguments)
            encoded = values.encode(result)
        except Full:
            return {"steps": tracer.steps if tracer else [], "cut": True}
        except BaseException as error:
            told: dict[str, Any] = {"error": _error("call", error)}
            return {**told, "steps": tracer.steps, "cut": tracer.cut} if tracer else told
        if operations.seen:  # it went on all the same
            return {"error": _error("call", operations.Forbidden("\n".join(map(str, operations.seen[0]))))}
        results.append(encoded)
    found: dict[str, Any] = {"results": results}
    return {**found, "steps": tracer.steps, "cut": tracer.cut} if tracer else found


def _error(phase: str, error: BaseException) -> dict[str, Any]:
    """An exception as far as it concerns the program: its own lines."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == FILE]
    line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else 0
    try:
        text = str(error.msg if isinstance(error, SyntaxError) else error)
    except Exception:
        text = "(an exception that cannot be shown)"
    stack = [[frame.name, frame.lineno, frame.line or ""] for frame in frames[-8:]]
    return {"phase": phase, "type": _kind(error), "text": text[:MOST_TEXT], "line": line or 0, "stack": stack}


def _kind(error: BaseException) -> str:
    """The name of an exception's class; MemoryError for every kind of it."""
    return "MemoryError" if isinstance(error, MemoryError) else type(error).__name__


class Full(BaseException):
    """Ends a program whose trace is as long as it may be."""


class Tracer:
    """Notes the program's variables line by line, for a story that can be stepped through."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        """`wanted`: `most` steps, `names` of variables (all simple ones unless given), `stop` to end it after these."""
        self.most: int = wanted["most"]
        self.stop: bool = wanted.get("stop", False)
        self.names: set[str] = set(wanted.get("names", ()))
        self.steps: list[dict[str, Any]] = []
        self.cut = False

    def __enter__(self) -> None:
        sys.settrace(self._call)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if _own(frame.f_code) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event in ("line", "return", "exception"):
            if len(self.steps) >= self.most:
                self.cut = True
                sys.settrace(None)
                if self.stop:
                    raise Full
                return None
            self.steps.append(
                {
                    "line": frame.f_lineno,
                    "event": event,
                    "function": frame.f_code.co_name,
                    "variables": {
                        name: self._shown(one) for name, one in frame.f_locals.items() if self._wanted(name, one)
                    },
                    **({"value": self._shown(argument)} if event == "return" else {}),
                }
            )
        return self._line

    def _wanted(self, name: str, value: Any) -> bool:
        if self.names:
            return name in self.names
        return not name.startswith("__") and not callable(value) and type(value).__name__ != "module"

    def _shown(self, value: Any) -> Any:
        try:
            return values.show(values.encode(value), 160)
        except Exception as error:
            return f"<{type(error).__name__}>"


def _own(code: CodeType) -> bool:
    return code.co_filename == FILE
