"""The pages' templates, and the names of the bundled files they ask for."""

from __future__ import annotations

import json
from functools import cache, lru_cache
from pathlib import Path

import jinja2

from bitwright import __version__
from bitwright.errors import ResourceError

STUDIO = Path(__file__).parents[1]
BUILT = STUDIO / "built"
ROOMS = (("/today", "Today"), ("/learn", "Learn"), ("/practice", "Practice"), ("/workbench", "Workbench"))


@cache
def environment() -> jinja2.Environment:
    """The templates, strict about unknown names."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(STUDIO / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(asset=asset, version=__version__, rooms=ROOMS)
    return made


def manifest() -> dict[str, str]:
    """Names of the bundle's files; ResourceError where it has not been built."""
    path = BUILT / "manifest.json"
    try:
        return _names(path.stat().st_mtime_ns)
    except FileNotFoundError as error:
        fix = "Run `make`, or install again"
        raise ResourceError("the studio's pages are not built", where=str(path), fix=fix) from error


@lru_cache(maxsize=1)
def _names(changed: int) -> dict[str, str]:
    """The manifest as it was at a time: a bundle that was built again is picked up."""
    found: dict[str, str] = json.loads((BUILT / "manifest.json").read_text("utf-8"))
    return found


def asset(name: str) -> str:
    """The address of a bundled file, whose name changes with its content."""
    return f"/static/{manifest()[name]}"
