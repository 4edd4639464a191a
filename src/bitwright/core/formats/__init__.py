"""Number formats by name. Each module of this folder provides one family, its `FAMILY`, and is found automatically.

Other packages add families through entry points `bitwright.formats`.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache

from bitwright.core.format import Format
from bitwright.core.scaling import Block, Levels
from bitwright.errors import RecipeError
from bitwright.plugins import plugins


@dataclass(frozen=True)
class Asked:
    """The settings of a format that leaves them open: weights per scale (None: its default), zeros, scale type."""

    group: Block | None = None
    symmetric: bool = True
    scale: str = "fp16"

    def levels(self, default: Block = 128, *, zeros: bool = False) -> Levels:
        """One level of scales, in blocks of `default` weights where none were asked for."""
        return Levels.of((self.block(default), self.scale), zeros=zeros)

    def block(self, default: Block = 128) -> Block:
        """The block asked for, or `default`."""
        return default if self.group is None else self.group


@dataclass(frozen=True)
class Family:
    """A kind of number: `titles` {concrete name: what it is, in one line} and `make`, the format of such a name."""

    titles: Mapping[str, str]
    make: Callable[[str, Asked], Format]
    title: str = "Others"
    """What its formats have in common, in a word or two."""


_added: list[Family] = []


def register(family: Family) -> None:
    """Add a family from elsewhere. Raises ValueError for a name that is taken."""
    if taken := families().keys() & family.titles.keys():
        raise ValueError(f"a format called {min(taken)} exists")
    _added.append(family)


@contextmanager
def adding(family: Family) -> Iterator[Family]:
    """Have one more family for a while, for tests."""
    register(family)
    try:
        yield family
    finally:
        _added.remove(family)


def families() -> dict[str, Family]:
    """Every concrete name with its family: those of this folder, those of other packages, then those registered."""
    return {name: family for family in (*_found(), *_others().families, *_added) for name in family.titles}


def faults() -> list[RecipeError]:
    """What is wrong with other packages' families."""
    return _others().faults


@cache
def _found() -> tuple[Family, ...]:
    modules = (importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__))
    return tuple(module.FAMILY for module in modules)


@dataclass
class _Others:
    """Families of other packages, the names of those that were refused, and all that is wrong."""

    families: list[Family] = field(default_factory=list)
    refused: dict[str, RecipeError] = field(default_factory=dict)
    faults: list[RecipeError] = field(default_factory=list)


@cache
def _others() -> _Others:
    found = _Others()
    known = {name for family in _found() for name in family.titles}
    for plugin in plugins("bitwright.formats"):
        try:
            family: Family = plugin.load(Family)
        except RecipeError as error:
            found.faults.append(error)
            continue
        if taken := known & family.titles.keys():
            fault = plugin.fault(f"uses a name that is taken: there is a format {min(taken)!r} already")
            found.refused |= dict.fromkeys(family.titles, fault)
            found.faults.append(fault)
            continue
        known |= family.titles.keys()
        found.families.append(family)
    return found


def names() -> dict[str, str]:
    """Every name that `named` knows, with its title."""
    return {name: family.titles[name] for name, family in families().items()}


def named(name: str, *, group: Block | None = None, symmetric: bool = True, scale: str = "fp16") -> Format:
    """The format called `name`; `group`, `symmetric` and `scale` apply where the format leaves them open.

    Raises RecipeError for a name that is not in `names()`, for one that two packages provide, and for an unknown type
    of scale.
    """
    if name in _others().refused:
        raise _others().refused[name]
    known = families()
    if name not in known:
        close = difflib.get_close_matches(name.lower(), known, 2)
        meant = f"Did you mean {' or '.join(close)}? " if close else ""
        fix = f"{meant}Choose one of: {', '.join(spans(known))}"
        missing = "".join(f"; {fault.what}" for fault in faults())
        raise RecipeError(f"no format is called {name!r}{missing}", where="format", fix=fix, key="layer.format")
    return known[name].make(name, Asked(group, symmetric, scale))


def spans(names: Iterable[str]) -> list[str]:
    """Names that differ only in a number, as a range: int1, int2, int3, nf4 -> int1..int3, nf4."""
    runs: list[list[str]] = []
    for name in names:
        if runs and name == re.sub(r"\d", lambda digit: str(int(digit[0]) + 1), runs[-1][-1], count=1):
            runs[-1].append(name)
        else:
            runs.append([name])
    return [run[0] if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs]
