"""Kinds of things that are found by being there: a module of a package, or an entry point of an installed one."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from bitwright.errors import RecipeError, nearest

T = TypeVar("T")


def names_in(package: str, group: str, besides: tuple[str, ...] = ()) -> list[str]:
    """What modules of a package, and plugins of an entry point group, provide by name; imports neither.

    >>> "rtn" in names_in("bitwright.methods", "bitwright.methods", ("method",))
    True
    """
    spec = importlib.util.find_spec(package)
    modules = [module.name for module in pkgutil.iter_modules(spec.submodule_search_locations if spec else [])]
    inside = [name.replace("_", "-") for name in modules if not name.startswith("_") and name not in besides]
    return list(dict.fromkeys([*inside, *(point.name for point in entry_points(group=group))]))


class Registry(Generic[T]):
    """Everything of one kind by name. A module of `package` with the upper-case `attribute` provides one thing.

    Listing names imports none of them, so that help is instant and torch is loaded only where it is used.

    >>> from bitwright import methods
    >>> methods.registry.get("rtn").title
    'Round to nearest'
    """

    def __init__(
        self,
        package: str,
        attribute: str,
        *,
        group: str | None = None,
        besides: tuple[str, ...] = (),
        key: str | None = None,
    ) -> None:
        """`besides` names modules of the package that provide nothing, `key` the recipe's key that chooses one.

        What a thing is called in errors is the attribute in lower case, as is the module that says what it is. Plugins
        come through the entry points of `group`, by default the package's name.
        """
        self.package, self.attribute, self.key = package, attribute, key
        self.group = group or package
        self._besides = (attribute.lower(), *besides)
        self._given: dict[str, T] = {}
        self._found: dict[str, T] = {}

    @property
    def what(self) -> str:
        """One of these things, in words."""
        return self.attribute.lower()

    def names(self) -> list[str]:
        """All names: those of this house first, then plugins."""
        return list(dict.fromkeys([*names_in(self.package, self.group, self._besides), *self._given]))

    def get(self, name: str) -> T:
        """The thing called `name`; RecipeError with the nearest names where there is none."""
        if name in self._given:
            return self._given[name]
        if name not in self._found:
            self._found[name] = self._load(name)
        return self._found[name]

    def all(self) -> list[T]:
        """Every one of them."""
        return [self.get(name) for name in self.names()]

    def add(self, thing: T) -> None:
        """Take up one more. RecipeError where its name is taken: nothing is ever replaced in silence."""
        name: str = thing.name  # type: ignore[attr-defined]
        if name in self.names():
            raise RecipeError(f"there is a {self.what} called {name!r} already", where=self.package, fix="Rename it")
        self._given[name] = thing

    @contextmanager
    def adding(self, thing: T) -> Iterator[T]:
        """Have one more for a while: what tests do."""
        self.add(thing)
        try:
            yield thing
        finally:
            del self._given[thing.name]  # type: ignore[attr-defined]

    def _plugins(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}

    def _load(self, name: str) -> T:
        plugins = self._plugins()
        if name in self.names() and name not in plugins:
            return self._checked(
                name, getattr(importlib.import_module(f"{self.package}.{name.replace('-', '_')}"), self.attribute)
            )
        if name in plugins:
            try:
                return self._checked(name, plugins[name].load())
            except (ImportError, AttributeError) as error:
                fix = "Update or remove the package that provides it"
                raise RecipeError(f"the plugin {plugins[name].value} cannot be loaded ({error})", where=self.package,
                                  fix=fix) from error  # fmt: skip
        fix = nearest(name, self.names())
        raise RecipeError(f"no {self.what} is called {name!r}", where=self.key or self.what, fix=fix, key=self.key)

    def _checked(self, name: str, thing: Any) -> T:
        """`thing`, which must call itself as its module or entry point is called: its name goes into certificates."""
        if thing.name != name:
            raise RecipeError(f"the {self.what} {name!r} calls itself {thing.name!r}", where=self.package,
                              fix="Give both one name")  # fmt: skip
        return thing  # type: ignore[no-any-return]
