"""What a program's compiled code does: divisions, powers, loops, imports, and looking behind the scenes.

A problem that forbids an operation has it looked for twice: in the compiled code before anything runs, and at run time
in whatever code is compiled then, and by arguments that notice what is done to them (`watched`). Looking behind the
scenes (reflection) is refused in such problems, since it is the way around both; so are modules that are not known to
keep to what they are for, and calls that divide under another name, as the length of a range does.
"""

from __future__ import annotations

import ast
import builtins
import dis
import sys
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any, NamedTuple, NoReturn


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


OPERATORS = {
    "/": "division", "//": "division", "%": "division", "/=": "division", "//=": "division", "%=": "division",
    "*": "multiplication", "*=": "multiplication", "**": "power", "**=": "power", "@": "matmul", "@=": "matmul",
}  # fmt: skip
_NAMES = {
    "division": """
        divmod truediv floordiv mod itruediv ifloordiv imod fmod remainder remainder_near divide divide_int true_divide
        floor_divide reciprocal Fraction Decimal inv pinv solve lstsq mean nanmean average fmean median var std cov
        corrcoef polydiv polyfit interp gradient hash tan tanh sinh cosh atan2 arctan2 angle dist
        __truediv__ __rtruediv__ __itruediv__ __floordiv__ __rfloordiv__ __ifloordiv__ __mod__ __rmod__ __imod__
        __divmod__ __rdivmod__ __hash__""",
    "multiplication": """
        mul imul prod multiply cumprod dot vdot inner outer matmul einsum __mul__ __rmul__ __imul__""",
    "power": "pow power float_power exp exp2 expm1 ipow ldexp __pow__ __rpow__ __ipow__",
    "sorting": """
        sort sorted argsort lexsort partition argpartition nsmallest nlargest sort_complex insort insort_left
        insort_right""",
    "matmul": "matmul dot vdot inner einsum tensordot __matmul__ __rmatmul__ __imatmul__ multi_dot",
    "loops": "",
}
NAMES = {operation: _words(names) for operation, names in _NAMES.items()}
"""Operation -> what it is called where it is no operator. A negative power divides: division forbids powers, too."""
ALSO = {"division": ("power",)}
REFLECTION = _words(
    """
    getattr setattr delattr eval exec compile vars globals locals type dir open breakpoint help attrgetter
    methodcaller mro update_wrapper wraps gi_frame gi_code gi_yieldfrom cr_frame cr_code ag_frame ag_code tb_frame
    tb_next f_back f_builtins f_code f_globals f_locals f_trace __import__ __builtins__ __loader__ __spec__
    """
)
"""Names that lead behind the scenes; so does every attribute that begins with _, but for `HARMLESS`."""
HARMLESS = _words(
    """
    __init__ __new__ __len__ __iter__ __next__ __getitem__ __setitem__ __delitem__ __contains__ __name__ __doc__
    __eq__ __ne__ __lt__ __le__ __gt__ __ge__ __add__ __radd__ __iadd__ __sub__ __rsub__ __mul__ __rmul__ __neg__
    __abs__ __bool__ __int__ __float__ __index__ __repr__ __str__ __call__ __enter__ __exit__ __post_init__
    """
)
MODULES = _words("__future__ array bisect collections copy functools heapq itertools math numpy torch typing")
"""What may be imported where an operation is forbidden: modules that do not do it under another name."""
BEHIND = _words(
    """
    sys ctypes _ctypes importlib gc inspect types builtins operator _operator marshal dis os posix subprocess threading
    _thread code codeop pickle
    """
)
"""Modules that lead behind the scenes, or are operations in other words."""
BUILTIN = frozenset(vars(builtins))
LOOPS = ("FOR_ITER", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT")
ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER", "IMPORT_FROM", "STORE_ATTR")
GLOBALS = ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM", "STORE_NAME", "STORE_GLOBAL")
"""Instructions that name something. Local variables may have any name: what is in them came from elsewhere."""


class Use(NamedTuple):
    """A forbidden thing in a program: which, as what, where (0: not known)."""

    operation: str
    what: str
    line: int


def uses(code: CodeType, operations: frozenset[str], modules: frozenset[str]) -> Iterator[Use]:
    """Where compiled code does what is forbidden; nothing where nothing is."""
    wanted = set(operations) | {more for name in operations for more in ALSO.get(name, ())}
    names = {word: name for name in wanted for word in NAMES[name]}
    line, before = code.co_firstlineno, None
    for step in dis.get_instructions(code):
        line = (step.positions.lineno if step.positions else None) or line
        told = str(step.argval)
        if step.opname == "BINARY_OP" and OPERATORS.get(step.argrepr) in wanted:
            yield Use(OPERATORS[step.argrepr], step.argrepr, line)
        elif step.opname in LOOPS and "loops" in wanted:
            yield Use("loops", "a loop", line)
        elif step.opname == "IMPORT_NAME":
            yield from _import(told, operations, modules, line)
            if before and before.argval == ("*",):
                yield Use("reflection", f"from {told} import *", line)
        elif step.opname == "MATCH_CLASS" and before and isinstance(before.argval, tuple):
            for word in before.argval:  # case object(name=it) is getattr in other words
                yield from _name(str(word), names, modules, True, line)
        elif step.opname.startswith(ATTRIBUTES):
            yield from _name(told, names, modules, True, line)
        elif step.opname.startswith(GLOBALS) and (told in BUILTIN or told.startswith("__")):
            yield from _name(told, names, modules, False, line)
        before = step
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from uses(constant, operations, modules)


def _import(told: str, operations: frozenset[str], modules: frozenset[str], line: int) -> Iterator[Use]:
    root = told.partition(".")[0]
    if root in modules:
        yield Use("import", f"import {told}", line)
    elif root in BEHIND or (operations and root not in MODULES):
        yield Use("reflection", f"import {told}", line)


def _name(word: str, names: dict[str, str], modules: frozenset[str], attribute: bool, line: int) -> Iterator[Use]:
    behind = word in BEHIND - {"code"} or (word.startswith("_") and word not in HARMLESS)
    if word in names:
        yield Use(names[word], word, line)
    elif word in REFLECTION or (attribute and (behind or word in modules)):
        yield Use("reflection", word, line)


def disguises(source: str, operations: frozenset[str]) -> Iterator[Use]:
    """Divisions that no operator shows: the length of a range or slice in steps is a quotient, its items remainders.

    So where division is forbidden, steps are 1 or -1, written out. For source that compiles.
    """
    if "division" not in operations:
        return
    tree = ast.parse(source)
    plain = {
        node.func
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords
        if len(node.args) < 3 or (len(node.args) == 3 and _one(node.args[2]))
        if not any(isinstance(argument, ast.Starred) for argument in node.args)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in ("range", "slice") and node not in plain:
            yield Use("division", f"{node.id} in steps", node.lineno)
        elif isinstance(node, ast.Slice) and node.step and not _one(node.step):
            yield Use("division", "a slice in steps", node.step.lineno)


def _one(step: ast.expr) -> bool:
    """Whether a step is written as 1, -1 or None."""
    if isinstance(step, ast.UnaryOp) and isinstance(step.op, ast.USub):
        step = step.operand
    return isinstance(step, ast.Constant) and (step.value is None or (type(step.value) is int and step.value == 1))


class Forbidden(BaseException):
    """A program did at run time what its problem forbids. Not an Exception: `except Exception` lets it through."""


seen: list[Use] = []
"""What was refused in this process, so that a program that catches even this is told all the same."""


def refuse(use: Use) -> NoReturn:
    """Stop the program: it did something that is forbidden."""
    seen.append(use)
    raise Forbidden(f"{use.operation}\n{use.what}\n{use.line}")


def watch(program: CodeType, operations: frozenset[str], modules: frozenset[str]) -> None:
    """From now on code that is not `program` and was compiled at run time is looked at before it runs, for good."""
    importing = "<frozen importlib._bootstrap"

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "exec" or arguments[0] is program or not isinstance(arguments[0], CodeType):
            return
        if sys._getframe(1).f_code.co_filename.startswith(importing):
            return
        for use in uses(arguments[0], operations, modules):
            refuse(use)
        if "division" in operations and "range" in arguments[0].co_names:
            refuse(Use("reflection", "range", arguments[0].co_firstlineno))

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
