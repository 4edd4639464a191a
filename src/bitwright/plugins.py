"""What other installed packages provide through entry points, and the error if it cannot be loaded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from bitwright.errors import RecipeError


@dataclass(frozen=True)
class Plugin:
    """One entry point of another package."""

    point: EntryPoint

    @property
    def name(self) -> str:
        """The entry point's."""
        return self.point.name

    @property
    def package(self) -> str:
        """Who provides it: `bitwright-example 1.0`."""
        found = self.point.dist
        return f"{found.name} {found.version}" if found else self.point.value

    def load(self, kind: type[Any]) -> Any:
        """What it provides, a `kind`. RecipeError names the package where it is none, or cannot be imported."""
        try:
            found = self.point.load()
        except Exception as error:  # other people's code may raise anything
            raise self.fault(f"cannot be loaded ({type(error).__name__}: {error})") from error
        if not isinstance(found, kind):
            raise self.fault(f"is not a {kind.__name__} ({self.point.value})")
        return found

    def fault(self, what: str) -> RecipeError:
        """The error that names it as the cause."""
        fix = "Update or remove that package"
        return RecipeError(f"the plugin {self.name!r} of {self.package} {what}", where=self.point.group, fix=fix)


@cache
def plugins(group: str) -> tuple[Plugin, ...]:
    """All entry points of a group; nothing is imported. Packages are looked for once."""
    return tuple(map(Plugin, entry_points(group=group)))
