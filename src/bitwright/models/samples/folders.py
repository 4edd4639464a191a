"""Samples that are files: folders of images or WAV files, read one by one when their turn comes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from bitwright.errors import DataError
from bitwright.files.plain import require_regular
from bitwright.models.samples import audio, images, wav
from bitwright.models.samples.preprocess import Array, Feeds, Notes


class Reader(Protocol):
    """What makes an array of a file's bytes; or, where it `streams`, one for each call, [calls, ...]."""

    kind: str
    calls: int
    """Most calls of a file that was looked at."""

    @property
    def streams(self) -> bool: ...

    def look(self, data: bytes, path: Path) -> None:
        """Check the file; the first one settles what the recipe and the network left open."""
        ...

    def read(self, data: bytes, path: Path, notes: Notes, name: str) -> Array: ...

    def settings(self) -> dict[str, Any]: ...


class PictureReader:
    """Images; where nobody states a size, that of the first one looked at holds for all."""

    kind = "images"
    streams, calls = False, 1

    def __init__(self, plan: images.Picture) -> None:
        self.plan = plan

    def look(self, data: bytes, path: Path) -> None:
        size = images.look(data, path, self.plan)
        if self.plan.size is None:
            self.plan = replace(self.plan, size=size)

    def read(self, data: bytes, path: Path, notes: Notes, name: str) -> Array:
        return images.read(data, path, self.plan, notes, name)

    def settings(self) -> dict[str, Any]:
        return self.plan.settings()


class SoundReader:
    """WAV files; where the recipe states no rate, that of the first one looked at holds for all."""

    kind = "sounds"

    def __init__(self, plan: audio.Sound) -> None:
        self.plan, self.calls = plan, 1

    @property
    def streams(self) -> bool:
        return self.plan.frame is not None

    def look(self, data: bytes, path: Path) -> None:
        rate, channels = wav.decode(data, path)
        audio.check_rate(rate, path, self.plan)
        if self.plan.rate is None:
            self.plan = replace(self.plan, rate=rate)
        self.calls = max(self.calls, audio.calls(len(channels) * (self.plan.rate or rate) // rate, self.plan))

    def read(self, data: bytes, path: Path, notes: Notes, name: str) -> Array:
        return audio.read(data, path, self.plan, notes, name)

    def settings(self) -> dict[str, Any]:
        return self.plan.settings()


class Files:
    """A `Source` of one file per sample, for a network with one input."""

    batched = False
    forward = False

    def __init__(
        self,
        paths: Sequence[Path],
        names: list[str],
        labels: list[Any] | None,
        reader: Reader,
        entry: str,
        dropped: Notes,
        kind: str | None = None,
        carried: tuple[str, ...] = (),
    ) -> None:
        self.paths, self.names, self.labels = paths, names, labels
        self.reader, self.entry, self.dropped = reader, entry, dropped
        self.kind, self.carried = kind or reader.kind, carried
        self.streamed = frozenset({entry}) if reader.streams else frozenset()

    @property
    def calls(self) -> int:
        """See `Source`."""
        return self.reader.calls

    def inspect(self, chosen: Sequence[int]) -> str:
        """See `Source`: headers of images, whole WAV files."""
        digest = hashlib.sha256()
        for index in chosen:
            data = read_bytes(self.paths[index])
            self.reader.look(data, self.paths[index])
            digest.update(data)
        return digest.hexdigest()

    def rows(self, chosen: Sequence[int], notes: Notes) -> Iterator[Feeds]:
        """See `Source`."""
        for index in chosen:
            path = self.paths[index]
            yield {self.entry: self.reader.read(read_bytes(path), path, notes, self.names[index])}

    def settings(self) -> dict[str, Any]:
        """See `Source`."""
        return self.reader.settings()


def read_bytes(path: Path) -> bytes:
    """A whole file; raises DataError that names it."""
    try:
        require_regular(path)
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot be read ({error.strerror})", where=str(path), fix="Check the path and its rights"
        ) from error


def walk(folder: Path) -> list[Path]:
    """All files below `folder`, sorted by path."""
    found = [Path(root, name) for root, _, names in os.walk(folder) for name in names]
    return sorted(found, key=Path.as_posix)


def pick(folder: Path, files: Sequence[Path], suffixes: Sequence[str]) -> tuple[list[Path], list[str | None], Notes]:
    """The files with one of `suffixes`, the class of each (its first folder below `folder`), and what was left out.

    Where some lie in subfolders, those that lie in none are left out; hidden files and folders always are.
    """
    dropped, kept = Notes(), []
    for path in files:
        name = path.relative_to(folder).as_posix()
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            dropped.add("hidden", name)
        elif path.suffix.lower() not in suffixes:
            dropped.add("another kind of file, by its name", name)
        else:
            kept.append(path)
    parts = [path.relative_to(folder).parts for path in kept]
    if any(len(part) > 1 for part in parts):
        for part in parts:
            if len(part) == 1:
                dropped.add("in no class folder", part[0])
        kept = [path for path, part in zip(kept, parts, strict=True) if len(part) > 1]
    classes = [path.relative_to(folder).parts[0] if path.parent != folder else None for path in kept]
    return kept, classes, dropped


def picture_folder(
    folder: Path, files: Sequence[Path], plan: images.Picture, entry: str, carried: tuple[str, ...] = ()
) -> Files:
    """Images; the label is the name of the class folder, where there are any."""
    kept, classes, dropped = pick(folder, files, images.SUFFIXES)
    labels = classes if any(name is not None for name in classes) else None
    return Files(kept, _names(folder, kept), labels, PictureReader(plan), entry, dropped, carried=carried)


def sound_folder(
    folder: Path, files: Sequence[Path], plan: audio.Sound, entry: str, *, texts: bool, carried: tuple[str, ...] = ()
) -> Files:
    """WAV files; the label is the name of the class folder, else the file name's part before the first "_".

    Clips that are cut into calls have no labels: outputs are compared call by call.
    With `texts`, NAME.txt beside NAME.wav is what is said in it and comes before both. DataError names a file without
    one where others have it.
    """
    kept, classes, dropped = pick(folder, [path for path in files if not (texts and _is_text(path))], audio.SUFFIXES)
    labels: list[Any] | None = classes
    beside = [path.with_suffix(".txt") for path in kept]
    if plan.frame is not None:
        labels = None
    elif texts and any(path.exists() for path in beside):
        labels = [" ".join(_text(path).split()) for path in beside]
    elif all(name is None for name in classes):
        labels = [path.stem.split("_")[0] for path in kept] if all("_" in path.stem for path in kept) else None
    return Files(kept, _names(folder, kept), labels, SoundReader(plan), entry, dropped, carried=carried)


def _names(folder: Path, paths: Sequence[Path]) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


def _is_text(path: Path) -> bool:
    return path.suffix == ".txt" and any(path.with_suffix(suffix).exists() for suffix in audio.SUFFIXES)


def _text(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8 text", where=str(path), fix="Save it as UTF-8") from error
