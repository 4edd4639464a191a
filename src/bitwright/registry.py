"""Registries of things found automatically: modules of a package, and entry points of installed packages."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from bitwright.errors import RecipeError, nearest
from bitwright.plugins import plugins

T = TypeVar("T")


def names_in(package: str, group: str, besides: tuple[str, ...] = ()) -> list[str]:
    """What modules of a package, and plugins of an entry point group, provide by name; imports neither.

    >>> "rtn" in names_in("bitwright.methods", "bitwright.methods", ("method",))
    True
    """
    return list(dict.fromkeys([*_modules(package, besides), *(plugin.name for plugin in plugins(group))]))


def _modules(package: str, besides: tuple[str, ...]) -> list[str]:
    spec = importlib.util.find_spec(package)
    names = [module.name for module in pkgutil.iter_modules(spec.submodule_search_locations if spec else [])]
    return [name.replace("_", "-") for name in names if not name.startswith("_") and name not in besides]


class Registry(Generic[T]):
    """Everything of one kind by name. A module of `package` with the upper-case `attribute` provides one thing.

    Listing names imports none of them, so that help is instant and torch is loaded only where it is used. A name that
    two provide means neither: asking for it is an error that names the package, and all other names go on.

    >>> from bitwright import methods
    >>> methods.registry.get("rtn").title
    'Round to nearest'
    """

    def __init__(
        self,
        of: type[Any],
        package: str,
        attribute: str,
        *,
        group: str | None = None,
        besides: tuple[str, ...] = (),
        key: str | None = None,
    ) -> None:
        """`of` is the type of each thing; `besides` names modules of the package that provide none, `key` the recipe's
        key that chooses one.

        What a thing is called in errors is the attribute in lower case, as is the module that says what it is. Plugins
        come through the entry points of `group`, by default the package's name.
        """
        self.of, self.package, self.attribute, self.key = of, package, attribute, key
        self.group = group or package
        self._besides = (attribute.lower(), *besides)
        self._given: dict[str, T] = {}
        self._found: dict[str, T] = {}
        self._faults: dict[str, RecipeError] = {}

    @property
    def what(self) -> str:
        """One of these things, in words."""
        return self.attribute.lower()

    def names(self) -> list[str]:
        """All names: Bitwright's own first, then those of plugins."""
        return list(dict.fromkeys([*names_in(self.package, self.group, self._besides), *self._given]))

    def get(self, name: str) -> T:
        """The thing called `name`; RecipeError with the nearest names where there is none."""
        if name in self._given:
            return self._given[name]
        if name not in self._found:
            self._found[name] = self._load(name)
        return self._found[name]

    def all(self) -> list[T]:
        """All of them, except broken plugins: commands that do not name those work without them."""
        faulty = self.faults()
        return [self.get(name) for name in self.names() if name not in faulty]

    def faults(self) -> dict[str, RecipeError]:
        """What is wrong with plugins, by name."""
        for plugin in plugins(self.group):
            if plugin.name not in self._found and plugin.name not in self._faults:
                try:
                    self.get(plugin.name)
                except RecipeError as error:
                    self._faults[plugin.name] = error
        return self._faults

    def add(self, thing: T) -> None:
        """Register one more. RecipeError if its name is taken: nothing is ever replaced silently."""
        name: str = thing.name  # type: ignore[attr-defined]
        if name in self.names():
            raise RecipeError(f"there is a {self.what} called {name!r} already", where=self.package, fix="Rename it")
        self._given[name] = thing

    @contextmanager
    def adding(self, thing: T) -> Iterator[T]:
        """Have one more for a while, for tests."""
        self.add(thing)
        try:
            yield thing
        finally:
            del self._given[thing.name]  # type: ignore[attr-defined]

    def _load(self, name: str) -> T:
        own = name in _modules(self.package, self._besides)
        providers = [plugin for plugin in plugins(self.group) if plugin.name == name]
        if providers[0 if own else 1 :]:
            raise providers[-1].fault(f"uses a name that is taken: there is a {self.what} {name!r} already")
        if own:
            module = importlib.import_module(f"{self.package}.{name.replace('-', '_')}")
            found, where = getattr(module, self.attribute), self.package
        elif providers:
            found, where = providers[0].load(self.of), providers[0].package
        else:
            fix = nearest(name, self.names())
            raise RecipeError(f"no {self.what} is called {name!r}", where=self.key or self.what, fix=fix, key=self.key)
        if found.name != name:  # it goes into certificates
            raise RecipeError(f"the {self.what} {name!r} calls itself {found.name!r}", where=where,
                              fix="Give both one name")  # fmt: skip
        return found  # type: ignore[no-any-return]
