"""A problem as it lies in its folder; nothing here runs its programs."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from .limits import Limits
from .operations import NAMES

DIFFICULTIES = ("easy", "medium", "hard")
NEEDS = ("plain", "numpy", "torch")
CHECKS = ("exact", "numeric", "unordered", "custom")
HINTS = 3
SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
VERDICTS = ("WA", "RTE", "TLE", "MLE", "OLE")


class ProblemError(ValueError):
    """A problem's folder is not as it must be: names the file and the fault."""


@dataclass(frozen=True)
class Check:
    """How an answer is compared."""

    kind: str = "exact"
    absolute: float = 0.0
    relative: float = 0.0
    dtype: bool = False


@dataclass(frozen=True)
class Growth:
    """CPU time may grow with the size of the input to about this power."""

    exponent: float
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Mistake:
    """What a wrong submission did wrong. `file` is below the problem's folder."""

    slug: str
    file: str
    verdict: str
    name: str
    says: str
    next: str


@dataclass(frozen=True)
class Problem:
    """One problem: its head, and its folder's texts as they are asked for."""

    folder: Path
    title: str
    collection: str
    difficulty: str
    minutes: int
    tags: tuple[str, ...]
    function: str
    needs: str
    statement: str
    check: Check
    limits: Limits
    operations: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    growth: Growth | None = None
    lesson: str = ""
    sources: tuple[str, ...] = ()
    idea: str = ""
    watch: tuple[str, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    _texts: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def slug(self) -> str:
        """The folder's name."""
        return self.folder.name

    def text(self, name: str) -> str:
        """A file of the folder. ProblemError where it cannot be read."""
        if name not in self._texts:
            try:
                self._texts[name] = (self.folder / name).read_text("utf-8-sig")
            except (OSError, UnicodeDecodeError) as error:
                raise ProblemError(f"{self.slug}/{name}: cannot be read ({error})") from error
        return self._texts[name]

    @cached_property
    def hints(self) -> list[str]:
        """The hints, and last the approach."""
        parts = re.split(r"^## (Hint|Approach)[ \t]*$", self.text("hints.md"), flags=re.MULTILINE)
        if [*parts[1::2]] != ["Hint"] * HINTS + ["Approach"]:
            raise ProblemError(f"{self.slug}/hints.md: needs `## Hint` {HINTS} times, then `## Approach`")
        return [part.strip() for part in parts[2::2]]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of every file: what was computed for a problem holds as long as it stays."""
        digest = hashlib.sha256()
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(self.folder)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
        return digest.hexdigest()


def read(folder: Path) -> Problem:
    """The problem in a folder. ProblemError names the file and what is wrong in it."""
    head, statement = _head(folder)
    explain = _toml(folder / "explain.toml", folder)
    where = f"{folder.name}/problem.md"

    def take(table: dict[str, Any], name: str, kind: type | tuple[type, ...], default: Any = ...) -> Any:
        value = table.pop(name, default)
        if value is ...:
            raise ProblemError(f"{where}: {name} is missing")
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ProblemError(f"{where}: {name} = {value!r} is of the wrong kind")
        return value

    def among(name: str, value: Any, allowed: tuple[str, ...]) -> str:
        if value not in allowed:
            raise ProblemError(f"{where}: {name} = {value!r} is none of {', '.join(allowed)}")
        return str(value)

    number = (int, float)
    check, limits, forbid, growth = (take(head, name, dict, {}) for name in ("check", "limits", "forbid", "growth"))
    operations = tuple(take(forbid, "operations", list, []))
    for name in operations:
        among("forbid.operations", name, tuple(NAMES))
    found = Problem(
        folder=folder,
        title=take(head, "title", str),
        collection=take(head, "collection", str),
        difficulty=among("difficulty", take(head, "difficulty", str), DIFFICULTIES),
        minutes=take(head, "minutes", int),
        tags=tuple(take(head, "tags", list, [])),
        function=take(head, "function", str),
        needs=among("needs", take(head, "needs", str), NEEDS),
        statement=statement,
        lesson=take(head, "lesson", str, ""),
        sources=tuple(take(head, "sources", list, [])),
        check=Check(
            among("check.kind", take(check, "kind", str, "exact"), CHECKS),
            take(check, "absolute", number, 0.0),
            take(check, "relative", number, 0.0),
            take(check, "dtype", bool, False),
        ),
        limits=Limits(cpu=take(limits, "cpu", number, 2.0), memory=take(limits, "memory", int, 256)),
        operations=operations,
        modules=tuple(take(forbid, "modules", list, [])),
        growth=Growth(take(growth, "exponent", number), tuple(take(growth, "sizes", list))) if growth else None,
        idea=take(explain, "idea", str),
        watch=tuple(take(explain, "watch", list, [])),
        mistakes=_mistakes(folder, take(explain, "mistakes", dict, {})),
    )
    for name, table in (
        ("", head),
        ("check.", check),
        ("limits.", limits),
        ("forbid.", forbid),
        ("growth.", growth),
        ("explain.toml: ", explain),
    ):
        if table:
            raise ProblemError(f"{where}: {name}{next(iter(table))} is not known")
    return found


def _head(folder: Path) -> tuple[dict[str, Any], str]:
    if not SLUG.fullmatch(folder.name):
        raise ProblemError(f"{folder.name}: a problem's folder has a name like product-except-self")
    path = folder / "problem.md"
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ProblemError(f"{folder.name}/problem.md: cannot be read ({error})") from error
    parts = re.split(r"^\+\+\+[ \t]*$", text, maxsplit=2, flags=re.MULTILINE)
    if len(parts) != 3 or parts[0].strip():
        raise ProblemError(f"{folder.name}/problem.md: begins with TOML between two lines of +++")
    try:
        return tomllib.loads(parts[1]), parts[2].strip()
    except tomllib.TOMLDecodeError as error:
        raise ProblemError(f"{folder.name}/problem.md: {error}") from error


def _toml(path: Path, folder: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ProblemError(f"{folder.name}/{path.name}: cannot be read ({error})") from error


def _mistakes(folder: Path, table: dict[str, Any]) -> tuple[Mistake, ...]:
    found = []
    files = {
        path.stem: f"{path.parent.name}/{path.name}"
        for kind in ("wrong", "slow")
        for path in sorted((folder / kind).glob("*.py"))
    }
    for slug, entry in table.items():
        if slug not in files:
            raise ProblemError(
                f"{folder.name}/explain.toml: mistakes.{slug} has no file wrong/{slug}.py or slow/{slug}.py"
            )
        fields = {"verdict", "name", "says", "next"}
        if not isinstance(entry, dict) or set(entry) != fields or entry["verdict"] not in VERDICTS:
            raise ProblemError(f"{folder.name}/explain.toml: mistakes.{slug} needs {', '.join(sorted(fields))}")
        found.append(Mistake(slug, files[slug], **entry))
    for slug in files:
        if slug not in table:
            raise ProblemError(f"{folder.name}/explain.toml: has no entry mistakes.{slug} for {files[slug]}")
    return tuple(found)


@dataclass(frozen=True)
class Collection:
    """A list of problems, in the order in which they are best solved."""

    slug: str
    title: str
    summary: str
    problems: tuple[str, ...]


GROUP = "bitwright.problems"
"""Entry points of other packages' problems: a package, or a path, laid out like a content folder."""


class Shelf:
    """The problems below a content folder, and those of other installed packages.

    `faults` says which packages' problems cannot be had, and why; none of them keeps the others from being solved.
    """

    def __init__(self, content: Path) -> None:
        """Reads collections.toml; problems are read as they are asked for. ProblemError where it cannot be."""
        self.folder = content / "problems"
        self.collections = _collections(content)
        self.slugs = [slug for collection in self.collections for slug in collection.problems]
        self.faults: list[str] = []
        self._read: dict[str, Problem] = {}
        for point in entry_points(group=GROUP):
            try:
                self._take(_content(point))
            except ProblemError as error:
                package = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
                self.faults.append(f"the problems of {package} are left out ({error})")

    def _take(self, content: Path) -> None:
        """Add the problems of another package, or none of them where one is faulty or its name is taken."""
        collections = _collections(content)
        problems = [read(content / "problems" / slug) for found in collections for slug in found.problems]
        names = {found.slug for found in self.collections}
        for slug in [*(found.slug for found in collections), *(problem.slug for problem in problems)]:
            if slug in names or slug in self:
                raise ProblemError(f"the name {slug!r} is taken")
        self.collections += collections
        self.slugs += [problem.slug for problem in problems]
        self._read |= {problem.slug: problem for problem in problems}

    def __contains__(self, slug: str) -> bool:
        """Whether there is a problem of this slug, in a collection or not yet."""
        return slug in self._read or bool(SLUG.fullmatch(slug) and (self.folder / slug).is_dir())

    def problem(self, slug: str) -> Problem:
        """A problem by its slug. ProblemError where there is none, or its folder is faulty."""
        if slug not in self:
            raise ProblemError("; ".join([f"there is no problem {slug!r}", *self.faults]))
        if slug not in self._read:
            self._read[slug] = read(self.folder / slug)
        return self._read[slug]

    def __iter__(self) -> Iterator[Problem]:
        """All problems, in the order of the collections."""
        return (self.problem(slug) for slug in self.slugs)


def _collections(content: Path) -> list[Collection]:
    try:
        table = tomllib.loads((content / "collections.toml").read_text("utf-8"))["collections"]
        return [Collection(c["slug"], c["title"], c["summary"], tuple(c["problems"])) for c in table]
    except (OSError, KeyError, TypeError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ProblemError(f"collections.toml: cannot be read ({error})") from error


def _content(point: EntryPoint) -> Path:
    """The folder that an entry point names: that of a package, or a path."""
    try:
        found = point.load()
        return Path(found if isinstance(found, str | Path) else next(iter(found.__path__)))
    except Exception as error:  # other people's code may raise anything
        raise ProblemError(f"{point.value}: cannot be loaded ({type(error).__name__}: {error})") from error
