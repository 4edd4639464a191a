"""Mistakes that show in other ways than a wrong answer: exceptions, no end, growth, and what is forbidden."""

from __future__ import annotations

import ast
import re
from collections import Counter
from typing import Any

from .growth import power
from .recognise import Found
from .verdict import Case, Result, Verdict

STEPS = "Step to the last line that ran, and look at the variables there."
EXCEPTIONS: dict[str, tuple[str, str, str]] = {
    "NotImplementedError": (
        "Not written yet",
        "The function still holds the line that the starter came with.",
        "Replace it by a first idea, however slow, and run the samples.",
    ),
    "IndexError": (
        "Index outside the list",
        "An index outside the list was read.",
        "Compare the index with the length at that line; the last place is the length minus one.",
    ),
    "KeyError": (
        "Key that is not there",
        "A dictionary was asked for a key that it does not have.",
        "Decide what an unknown key means here, and ask before you read.",
    ),
    "ZeroDivisionError": (
        "Division by zero",
        "The divisor is zero on this input.",
        "See in the steps where the zero comes from, and what the statement returns in that case.",
    ),
    "RecursionError": (
        "Recursion without an end, or too deep",
        "The function calls itself more often than Python allows.",
        "Check that every call has a smaller input than its caller, and what the smallest one returns. Python "
        "allows about a thousand levels.",
    ),
    "UnboundLocalError": (
        "Variable read before it was set",
        "On this path the variable has no value yet.",
        "Give it a value before the branch or the loop that may not run.",
    ),
    "NameError": (
        "Unknown name",
        "A name is used that is defined nowhere.",
        "Look for a misspelling, a missing import, or a variable of another function.",
    ),
    "AttributeError": (
        "No such attribute or method",
        "The value is of another type than the line takes it for.",
        STEPS,
    ),
    "TypeError": (
        "Wrong kind of value",
        "An operation got a value of a type that it cannot take.",
        "See in the steps which variable has another type than you think.",
    ),
    "ValueError": ("Value that cannot be used", "An operation got a value that it cannot take.", STEPS),
    "OverflowError": (
        "Number too large",
        "A number grew beyond what a float can hold.",
        "Find the exponent or product that grows, and what could be taken out of it beforehand.",
    ),
    "AssertionError": ("An assertion does not hold", "Your own assertion is not true on this input.", STEPS),
    "ImportError": (
        "Module that is not there",
        "This module cannot be imported here.",
        "Solve it with what the starter imports; the standard library and, where the problem has it, NumPy are there.",
    ),
    "ModuleNotFoundError": (
        "Module that is not there",
        "This module cannot be imported here.",
        "Solve it with what the starter imports; the standard library and, where the problem has it, NumPy are there.",
    ),
    "EOFError": (
        "Reads from the keyboard",
        "There is nobody to type: the input comes as arguments.",
        "Use the arguments of the function, and return the result.",
    ),
    "StopIteration": (
        "Nothing left to iterate",
        "next() was asked for more than there is.",
        "Give next() a second argument, or ask first whether something is left.",
    ),
    "SystemExit": ("Leaves the program", "The program ends instead of returning.", "Use return."),
    "PermissionError": (
        "Not allowed here",
        "Files, processes and the network are closed to programs here.",
        "The problem needs none of them: use the arguments alone.",
    ),
    "OSError": (
        "Not allowed here",
        "Files, processes and the network are closed to programs here.",
        "The problem needs none of them: use the arguments alone.",
    ),
    "Broken": ("The judge failed", "This was our fault.", "Submit it again."),
}
"""Exception -> name of the mistake, what happens, what to try next."""


def from_error(case: Case, code: str, steps: list[dict[str, Any]]) -> Found:
    """The mistake behind an exception."""
    error = case.error or {}
    kind, text, line = str(error.get("type", "")), str(error.get("text", "")), error.get("line")
    name, says, next_ = EXCEPTIONS.get(
        kind, (f"Raises {kind}" if kind else "Stopped", case.reason[:1].upper() + case.reason[1:] + ".", STEPS)
    )
    if "NoneType" in text:
        name = "None where a value is needed"
        says = (
            "A function or a lookup gave None, and the line goes on with it. A function without return gives None; "
            "so do methods that change in place, like sort or append."
        )
        next_ = "See in the steps which variable is None, and where it came from."
    elif kind in ("NameError", "UnboundLocalError") and (quoted := re.search(r"'(\w+)'", text)):
        says = f"{says[:-1]}: {quoted[1]}."
    elif kind == "IndexError" and "pop from" in text:
        name, says = "Takes from an empty list", "pop was called on a list that is empty."
        next_ = "Ask whether something is left before you take it."
    elif kind == "IndexError" and (told := _index(code, line if isinstance(line, int) else 0, steps)):
        name, says = "Index one too far", told
    elif kind == "ValueError" and (
        "empty sequence" in text or "zero-size array" in text or "iterable argument is empty" in text
    ):
        name, says = (
            "Maximum or minimum of nothing",
            "The list or array is empty at that line, and nothing has no largest or smallest.",
        )
        next_ = "Decide what the answer is where nothing is left, and ask for it first."
    elif kind in ("ValueError", "TypeError") and ("broadcast" in text or "shapes" in text or "matmul" in text):
        name, says = "Shapes that do not fit", f"Two arrays meet whose shapes do not go together: {text[:160]}."
        next_ = "Write both shapes beside the line; which axis is missing, or which is turned?"
    elif kind == "TypeError" and "positional argument" in text:
        name, next_ = "Number of arguments", "Keep the arguments that the starter has."
    where = f" (line {line})" if isinstance(line, int) and line else ""
    return Found(
        name, f"{says[:-1] if where and says.endswith('.') else says}{where}{'.' if where else ''}", next_, "exception"
    )


def _index(code: str, line: int, steps: list[dict[str, Any]]) -> str:
    """Which index was one too far, where the line and its variables tell."""
    try:
        nodes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Subscript) and node.lineno == line]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    for step in [step for step in steps if step["line"] == line][:-6:-1]:  # a comprehension's own steps are among them
        lengths, numbers = _read(step["variables"])
        for node in nodes:
            match node:
                case ast.Subscript(value=ast.Name(id=name), slice=index) if name in lengths:
                    found = _worth(index, numbers)
                    if found == lengths[name]:
                        last = f"the last place of {name} is {found - 1}" if found else f"{name} is empty"
                        return f"{ast.unparse(index)} is {found}, but {last}."
    return ""


def _read(variables: dict[str, str]) -> tuple[dict[str, int], dict[str, int]]:
    """Lengths of lists, and integers, among variables as they are shown."""
    lengths: dict[str, int] = {}
    numbers: dict[str, int] = {}
    for name, text in variables.items():
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        if type(value) is int:
            numbers[name] = value
        elif isinstance(value, list | tuple | str):
            lengths[name] = len(value)
    return lengths, numbers


def _worth(node: ast.expr, values: dict[str, int]) -> int | None:
    """What an index is: a variable or number, with one added or taken away."""
    match node:
        case ast.Constant(value=int(number)):
            return number
        case ast.Name(id=name):
            return values.get(name)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
            a, b = _worth(left, values), _worth(right, values)
            return None if a is None or b is None else a + b if isinstance(op, ast.Add) else a - b
    return None


def from_verdict(case: Case) -> Found | None:
    """The mistake of a program that was stopped."""
    if case.verdict is Verdict.MLE:
        next_ = "Ask what must be kept at the same time: often a few numbers do where whole tables are stored."
        return Found(
            "Too much memory",
            f"{_sentence(case.reason)} Something grows with the input that need not.",
            next_,
            "exception",
        )
    if case.verdict is Verdict.OLE:
        next_ = "Return the result, and take the prints out; the steps show the variables without them."
        return Found("Too much output", _sentence(case.reason), next_, "exception")
    if case.verdict is Verdict.RTE and not case.error:
        next_ = "Return the result from the function instead of ending or bypassing it; then step through what remains."
        return Found("Ended without an answer", _sentence(case.reason), next_, "exception")
    return None


LARGE = Found(
    "Wrong only for large inputs",
    "Every small input was answered rightly.",
    "Ask what is different about size: a table of fixed length, a narrow dtype that overflows, a limit that is "
    "reached.",
)


def from_compiler(result: Result) -> Found:
    """What keeps a program from compiling."""
    text = result.reason.lower()
    name = "Does not compile"
    next_ = "Look at this line and at the end of the one before: brackets, colons and quotes come in pairs."
    if "indent" in text:
        next_ = "Indent the lines of a block alike, with spaces alone."
    elif "no function" in text:
        name, next_ = "The function is missing", "Keep the name and the arguments that the starter has."
    elif "longer than" in result.sentence:
        next_ = "Leave out what is not needed."
    return Found(name, _sentence(result.reason or result.sentence), next_, "exception")


def forbidden(reason: str) -> Found:
    """A program that does what its problem forbids."""
    next_ = "Ask what the operation was to bring, and whether the same can be built up from what is allowed."
    if "which can hide it" in reason or "is not allowed in this problem" in reason:
        name, next_ = (
            "Uses what may not be used here",
            "Write it with plain loops and variables; nothing else is needed.",
        )
        return Found(name, _sentence(reason), next_, "forbidden")
    return Found("Uses what is forbidden", _sentence(reason), next_, "forbidden")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""


# --- time


def endless(code: str, steps: list[dict[str, Any]]) -> Found:
    """A program that does not end, given its first steps: a loop in which nothing changes is named."""
    next_ = "Ask what must change in each round for the loop to end, and on which path it does not change."
    seen: set[tuple[int, str, str]] = set()
    loops = _while_lines(code)
    for step in steps:
        state = (step["line"], step["function"], repr(sorted(step["variables"].items())))
        if step["event"] == "line" and step["line"] in loops:
            if state in seen:
                says = f"The loop in line {step['line']} comes round with the same variables as before."
                return Found("A loop that does not end", f"{says} So it will not end.", next_, "growth")
            seen.add(state)
    often = Counter(step["line"] for step in steps if step["event"] == "line").most_common(1)
    says = f"Line {often[0][0]} ran {often[0][1]} times in the first {len(steps)} steps." if often else ""
    return Found("Does not come to an end", f"Even a small input keeps it running. {says}".strip(), next_, "growth")


def _while_lines(code: str) -> set[int]:
    try:
        return {node.test.lineno for node in ast.walk(ast.parse(code)) if isinstance(node, ast.While)}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()


def repeated(code: str, steps: list[dict[str, Any]]) -> Found | None:
    """A function that is called again for what it was called for already."""
    firsts = {}
    try:
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.FunctionDef):
                calls = {c.func.id for c in ast.walk(node) if isinstance(c, ast.Call) and isinstance(c.func, ast.Name)}
                if node.name in calls:
                    firsts[node.name] = (
                        node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
                    ).lineno
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    calls_seen: dict[str, int] = {}
    for step in steps:
        if step["event"] == "line" and firsts.get(step["function"]) == step["line"]:
            key = f"{step['function']} {sorted(step['variables'].items())!r}"
            calls_seen[key] = calls_seen.get(key, 0) + 1
    if max(calls_seen.values(), default=0) < 3:
        return None
    says = "The function calls itself for the same arguments again and again; each time all below is computed anew."
    return Found(
        "Solves the same part many times",
        says,
        "Count on this input how often one call recurs, and think about what a first answer is good for.",
        "growth",
    )


WALKS = {
    "sum",
    "max",
    "min",
    "sorted",
    "sort",
    "index",
    "count",
    "insert",
    "remove",
    "reversed",
    "list",
    "prod",
    "copy",
    "any",
    "all",
}
"""Calls that walk over the whole of what they are given."""


def growth(result: Result, code: str) -> Found:
    """Time that grows too fast: what was measured, and the typical cause that the code shows."""
    measured = result.growth or {}
    exponent, allowed = measured.get("exponent"), measured.get("allowed", 1)
    how = f"Time grew like n^{exponent:.1f}, {power(allowed)} is allowed. " if exponent is not None else ""
    if exponent is None:
        how = f"{_sentence(result.reason)} "
    cause, next_ = _cause(code)
    name = "A walk within a walk" if exponent is None or exponent < allowed + 1.5 else "Loops within loops"
    return Found(name, f"{how}{cause}".strip(), next_, "growth")


def _cause(code: str) -> tuple[str, str]:
    """The likely cause of growth, from how the code looks."""
    keep = "Ask what one round already knows of the next one, and keep that instead of starting over."
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "", keep
    for loop in ast.walk(tree):
        if not isinstance(loop, ast.For | ast.While | ast.ListComp | ast.GeneratorExp | ast.SetComp | ast.DictComp):
            continue
        inside = (
            loop.body
            if isinstance(loop, ast.For | ast.While)
            else [c for c in ast.iter_child_nodes(loop) if not isinstance(c, ast.comprehension)]
        )
        for node in (inner for part in inside for inner in ast.walk(part)):
            match node:
                case ast.For() | ast.While() | ast.ListComp() | ast.GeneratorExp():
                    return (
                        f"In line {node.lineno} a loop runs within another: for every round of the outer one it "
                        "starts again.",
                        keep,
                    )
                case ast.Call(func=ast.Attribute(attr="pop"), args=[ast.Constant(value=0)]):
                    return (
                        f"In line {node.lineno} pop(0) moves all that is left by one place, in every round.",
                        "Take from the other end, or keep an index of where you are.",
                    )
                case ast.Call(func=ast.Name(id=name)) | ast.Call(func=ast.Attribute(attr=name)) if name in WALKS:
                    return f"In line {node.lineno} {name}() walks over all it is given, in every round.", keep
                case ast.Subscript(slice=ast.Slice()):
                    return f"In line {node.lineno} a slice is copied in every round.", keep
                case ast.Compare(ops=[ast.In() | ast.NotIn(), *_]):
                    return (
                        f"If what is searched with `in` in line {node.lineno} is a list, the search walks over it in "
                        "every round.",
                        "Ask which container answers `in` without a walk.",
                    )
    return "", keep
