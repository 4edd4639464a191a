"""Which models the workbench may open: the bundled ones, those below the given folders, and what runs have made."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from bitwright.errors import InputError, about
from bitwright.models import kind_at, kind_of
from bitwright.recipe import BROUGHT, WRITTEN, Share
from bitwright.studio.shell.config import Config

Origin = Literal["bundled", "folder", "run"]
DEPTH = 3
"""Folders below a root that are looked into."""
MOST = 200
"""Models that are listed."""
LONGEST = 2.0
"""Seconds that looking may take."""
PASSED = ("node_modules", "__pycache__", "site-packages", "venv")
"""Folders that are not looked into, besides those whose name begins with a dot."""


class Bundled(NamedTuple):
    """A model that came with the package: its name, and the demonstration it belongs to, as `engine.demo` calls it.

    `recipe` says what a page proposes for it first, besides what its kind of model has by default.
    """

    name: str
    task: str
    recipe: Mapping[str, Any] = MappingProxyType({})


BUNDLED = {
    "demo-model": Bundled(
        "Demo language model", "language",
        {"calibration": {"source": "stdlib", "windows": 64, "heldout_windows": 16}},
    ),
    "digits/model.onnx": Bundled("Digits (vision)", "vision"),
    "words/model.onnx": Bundled("Words (speech)", "speech"),
    "scenes/model.onnx": Bundled("Scenes (detection)", "detect"),
}  # fmt: skip
"""The bundled models by their place below the content."""
SOURCES = (WRITTEN, BROUGHT)
"""Calibration text that is no path."""


@dataclass(frozen=True)
class Model:
    """A model's folder or file; `recipe` is what a page proposes for it first."""

    path: str
    name: str
    kind: str
    bytes: int
    bundled: bool
    origin: Origin
    recipe: dict[str, Any]

    def json(self) -> dict[str, Any]:
        """As a page gets it: the origin is called "from"."""
        table = asdict(self)
        table["from"] = table.pop("origin")
        return table


def bundled(config: Config, path: Path) -> str | None:
    """The demonstration that a model belongs to: language, vision, speech or detect; None for any other model."""
    return next((own.task for place, own in BUNDLED.items() if path == (config.content / place).resolve()), None)


def find(config: Config, made: Iterable[tuple[str, Path]] = ()) -> list[Model]:
    """The models there are: bundled, below the roots in order, and `made`: the names and outputs of finished runs.

    Looks into no file: names say what is a model. Bounded in depth, number and time.
    """
    homes = [((config.content / place).resolve(), own) for place, own in BUNDLED.items()]
    found = [_model(path, own.name, "bundled", own.recipe) for path, own in homes if path.exists()]
    until = time.monotonic() + LONGEST
    seen = {model.path for model in found}
    own = config.data.resolve()
    for root in config.models:
        base = root.resolve()
        for path in _walk(base, DEPTH, until):
            if str(path) in seen or path.is_relative_to(own):
                continue
            seen.add(str(path))
            name = str(path.relative_to(base)) if path != base else path.name
            found.append(_model(path, name, "folder"))
            if len(found) >= MOST:
                break
    return found + [_model(out, name, "run") for name, out in made if out.exists()]


def _model(path: Path, name: str, origin: Origin, recipe: Mapping[str, Any] | None = None) -> Model:
    kind, size = kind_of(path), 0
    with suppress(OSError):
        size = kind.size(path)
    return Model(str(path), name, kind.name, size, origin == "bundled", origin, dict(recipe or {}))


def _walk(folder: Path, depth: int, until: float) -> Iterator[Path]:
    """Models in and below a folder, nearest first; links to folders are not followed, so that nothing lies outside."""
    if time.monotonic() > until:
        return
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError:
        return
    if kind_at(folder):
        yield folder
        return
    for entry in entries:
        if entry.is_file(follow_symlinks=False) and kind_at(Path(entry.path)):
            yield Path(entry.path)
    for entry in entries if depth else ():
        hidden = entry.name.startswith(".") or entry.name in PASSED or entry.name.endswith(".partial")
        if not hidden and entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), depth - 1, until)


def roots(config: Config) -> list[Path]:
    """Folders below which anything may be opened: the given ones, what runs made, and what was dropped."""
    folders = [*config.models, config.data / "runs", config.data / "uploads"]
    return [folder.resolve() for folder in folders] + [(config.content / place).resolve() for place in BUNDLED]


def resolve(config: Config, text: str, what: str = "model") -> Path:
    """The path that `text` means, links and dots resolved, below a root; relative ones are below the first root.

    InputError for what lies elsewhere, or is not there; `what` says what it was given for.
    """
    if text.startswith("hub:"):
        fix = "Download it first: hf download OWNER/NAME --local-dir FOLDER below an opened folder"
        raise InputError("the studio does not download models", where=text, fix=fix)
    try:
        given = Path(text).expanduser()
        bases = [base for base in config.models if not given.is_absolute()] or [Path.cwd()]
        tried = [(base / given).resolve() for base in bases]
    except (ValueError, OSError, RuntimeError) as error:
        raise InputError("is not a path", where=f"{what} {text[:200]!r}", fix="Choose one from the list") from error
    inside = [path for path in tried if any(path.is_relative_to(root) for root in roots(config))]
    if not text or not inside:
        folder = tried[0].parent if text else Path("DIR")
        fix = f"Start the studio with the folder that holds it: bitwright studio --models {folder}"
        raise InputError("lies outside the folders that this studio opens", where=f"{what} {text!r}", fix=fix)
    path = next((path for path in inside if path.exists()), None)
    if path is None:
        raise InputError("does not exist", where=f"{what} {text}", fix="Choose one from the list")
    return path


def guard_recipe(config: Config, recipe: dict[str, Any]) -> None:
    """Raise InputError where a recipe's data lie outside the roots, as models must not."""
    for table, key in (("calibration", "source"), ("calibration", "heldout"), ("data", "source"), ("data", "heldout")):
        named = (recipe.get(table) or {}).get(key)
        for source in named if isinstance(named, list) else [named]:
            if source is None or (table == "calibration" and source.startswith("hub:")):
                continue
            with about(f"{table}.{key}"):
                path = Share.read(source).source if (table, key) == ("calibration", "source") else source
                if table != "calibration" or path not in SOURCES:
                    resolve(config, path, f"recipe: {table}.{key}")
