"""What a program's compiled code does: divisions, powers, loops, imports, and looking behind the scenes.

A problem that forbids an operation has it looked for twice: in the compiled code before anything runs, and at run time
in whatever code is compiled then, and by arguments that notice what is done to them (`Watched`). Looking behind the
scenes (reflection) is refused in such problems, since it is the way around both.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any, NamedTuple, NoReturn

OPERATORS = {
    "/": "division", "//": "division", "%": "division", "/=": "division", "//=": "division", "%=": "division",
    "*": "multiplication", "*=": "multiplication", "**": "power", "**=": "power", "@": "matmul", "@=": "matmul",
}  # fmt: skip
NAMES = {
    "division": {
        "divmod", "truediv", "floordiv", "mod", "itruediv", "ifloordiv", "imod", "fmod", "remainder", "divide", "true_divide", "floor_divide",
        "reciprocal", "Fraction", "Decimal", "inv", "pinv", "solve", "lstsq", "mean", "average", "fmean",
        "__truediv__", "__rtruediv__", "__floordiv__", "__rfloordiv__", "__mod__", "__rmod__", "__divmod__", "__rdivmod__",
    },
    "multiplication": {"mul", "imul", "prod", "multiply", "cumprod", "dot", "vdot", "inner", "outer", "matmul", "einsum", "__mul__", "__rmul__", "__imul__"},
    "power": {"pow", "power", "float_power", "exp", "exp2", "expm1", "ipow", "ldexp", "__pow__", "__rpow__"},
    "sorting": {"sort", "sorted", "argsort", "lexsort", "partition", "argpartition", "nsmallest", "nlargest", "sort_complex"},
    "matmul": {"matmul", "dot", "vdot", "inner", "einsum", "tensordot", "__matmul__", "multi_dot"},
    "loops": set(),
}  # fmt: skip
"""Operation -> what it is called where it is not an operator. A negative power divides: division forbids powers, too."""
ALSO = {"division": ("power",)}
REFLECTION = {
    "getattr", "eval", "exec", "compile", "vars", "globals", "locals", "__import__", "__dict__", "__getattribute__", "__builtins__", "__subclasses__",
    "__globals__", "__code__", "__class__", "__mro__", "__base__", "__bases__", "attrgetter", "methodcaller", "breakpoint", "open", "__loader__", "__spec__",
}  # fmt: skip
BEHIND = {"sys", "ctypes", "_ctypes", "importlib", "gc", "inspect", "types", "builtins", "operator", "_operator", "marshal", "dis", "os", "posix", "subprocess", "threading", "_thread", "code", "codeop", "pickle"}  # fmt: skip
"""Modules that lead behind the scenes, or are operations in other words."""
LOOPS = ("FOR_ITER", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT")


class Use(NamedTuple):
    """A forbidden thing in a program: which, as what, where (0: not known)."""

    operation: str
    what: str
    line: int


def uses(code: CodeType, operations: frozenset[str], modules: frozenset[str]) -> Iterator[Use]:
    """Where compiled code does what is forbidden; nothing where nothing is."""
    wanted = set(operations) | {more for name in operations for more in ALSO.get(name, ())}
    names = {word: name for name in wanted for word in NAMES[name]}
    line = code.co_firstlineno
    for step in dis.get_instructions(code):
        line = (step.positions.lineno if step.positions else None) or line
        told = str(step.argval)
        if step.opname == "BINARY_OP" and OPERATORS.get(step.argrepr) in wanted:
            yield Use(OPERATORS[step.argrepr], step.argrepr, line)
        elif step.opname in LOOPS and "loops" in wanted:
            yield Use("loops", "a loop", line)
        elif step.opname == "IMPORT_NAME" and ((root := told.partition(".")[0]) in modules or root in BEHIND):
            yield Use("import" if root in modules else "reflection", f"import {told}", line)
        elif step.opname.startswith(
            ("LOAD_", "IMPORT_FROM", "STORE_ATTR", "STORE_NAME", "STORE_GLOBAL")
        ) and isinstance(step.argval, str):
            if step.opname != "LOAD_CONST" and told in names:
                yield Use(names[told], told, line)
            elif told in REFLECTION or (step.opname != "LOAD_CONST" and told in BEHIND):
                yield Use("reflection", told, line)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from uses(constant, operations, modules)


class Forbidden(BaseException):
    """A program did at run time what its problem forbids. Not an Exception, so that `except Exception` lets it through."""


def refuse(use: Use) -> NoReturn:
    """Stop the program: it did something that is forbidden."""
    raise Forbidden(f"{use.operation}\n{use.what}\n{use.line}")


def watch(operations: frozenset[str], modules: frozenset[str]) -> None:
    """From now on code that is compiled at run time is looked at before it runs. Cannot be undone."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "exec" and isinstance(arguments[0], CodeType) and arguments[0].co_filename.startswith("<"):
            for use in uses(arguments[0], operations, modules):
                refuse(use)

    sys.addaudithook(hook)


def _noticing(base: type, forbidden: dict[str, str]) -> type:
    """A subclass of a number that refuses some operations and passes itself on through the others."""
    body: dict[str, Any] = {"__slots__": ()} if base is int else {}

    def refusing(name: str, operation: str) -> Callable[..., Any]:
        def method(self: Any, *_: Any) -> NoReturn:
            line = sys._getframe(1).f_lineno
            refuse(Use(operation, name, line))

        return method

    def passing(name: str) -> Callable[..., Any]:
        plain = getattr(base, name)

        def method(self: Any, *others: Any) -> Any:
            result = plain(self, *others)
            return made(result) if type(result) is base else result

        return method

    for name in ("add", "radd", "sub", "rsub", "mul", "rmul", "neg", "abs", "pos"):
        body[f"__{name}__"] = passing(f"__{name}__")
    for name, operation in forbidden.items():
        body[name] = refusing(name, operation)
    made = type(base.__name__, (base,), body)
    return made


def watched(value: Any, operations: frozenset[str]) -> Any:
    """Arguments with numbers that refuse what is forbidden, however it is asked of them."""
    forbidden = {}
    if "division" in operations:
        for name in ("truediv", "rtruediv", "floordiv", "rfloordiv", "mod", "rmod", "divmod", "rdivmod"):
            forbidden[f"__{name}__"] = "division"
        forbidden |= {"__pow__": "power", "__rpow__": "power"}
    if "multiplication" in operations:
        forbidden |= {"__mul__": "multiplication", "__rmul__": "multiplication"}
    if "power" in operations:
        forbidden |= {"__pow__": "power", "__rpow__": "power"}
    if not forbidden:
        return value
    kinds = {int: _noticing(int, forbidden), float: _noticing(float, forbidden)}

    def change(one: Any) -> Any:
        if type(one) in kinds:
            return kinds[type(one)](one)
        if type(one) in (list, tuple):
            return type(one)(change(inner) for inner in one)
        if type(one) is dict:
            return {key: change(inner) for key, inner in one.items()}
        return one

    return change(value)
