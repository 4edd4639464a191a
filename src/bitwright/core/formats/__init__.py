"""Number formats by name. One module of this folder is one family, found by being there: its `FAMILY`."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from bitwright.core.format import Format
from bitwright.core.scaling import Block, Levels
from bitwright.errors import RecipeError


@dataclass(frozen=True)
class Asked:
    """What was asked of a format that leaves it open: weights per scale (None: its own choice), zeros, scale type."""

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


def families() -> dict[str, Family]:
    """Every concrete name with its family: those of this folder, then those registered."""
    return {name: family for family in (*_found(), *_added) for name in family.titles}


@cache
def _found() -> tuple[Family, ...]:
    modules = (importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__))
    return tuple(module.FAMILY for module in modules)


def names() -> dict[str, str]:
    """Every name that `named` knows, with its title."""
    return {name: family.titles[name] for name, family in families().items()}


def named(name: str, *, group: Block | None = None, symmetric: bool = True, scale: str = "fp16") -> Format:
    """The format called `name`; `group`, `symmetric` and `scale` apply where the format leaves them open.

    Raises RecipeError for a name that is not in `names()`, and for an unknown type of scale.
    """
    known = families()
    if name not in known:
        close = difflib.get_close_matches(name.lower(), known, 2)
        meant = f"Did you mean {' or '.join(close)}? " if close else ""
        fix = f"{meant}Choose one of: {', '.join(spans(known))}"
        raise RecipeError(f"no format is called {name!r}", where="format", fix=fix, key="layer.format")
    return known[name].make(name, Asked(group, symmetric, scale))


def spans(names: Iterable[str]) -> list[str]:
    """Names that only count on, as one: int1, int2, int3, nf4 -> int1..int3, nf4."""
    runs: list[list[str]] = []
    for name in names:
        if runs and name == re.sub(r"\d", lambda digit: str(int(digit[0]) + 1), runs[-1][-1], count=1):
            runs[-1].append(name)
        else:
            runs.append([name])
    return [run[0] if len(run) == 1 else f"{run[0]}..{run[-1]}" for run in runs]
