"""How strongly each column of a matrix is multiplied, as llama.cpp keeps it in an imatrix: read, or made of text."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bitwright.core.stats import Stats
from bitwright.errors import DataError
from bitwright.events import Event, Note, Progress
from bitwright.files.containers.gguf import imatrix
from bitwright.files.containers.gguf.header import Facts
from bitwright.files.containers.gguf.imatrix import Entry, Imatrix
from bitwright.files.folder import require_finite
from bitwright.models.language.arch import Matrix
from bitwright.models.language.calibration import Calibration
from bitwright.models.language.targets import Places
from bitwright.models.language.watch import Squares, addresses
from bitwright.models.model import Item
from bitwright.words import plural, some


class Importance:
    """An imatrix of a network whose tensors go to `places`.

    Raises FileError where it is damaged, or the imatrix of another network.
    """

    def __init__(self, path: Path, places: Places) -> None:
        self.path, self._places = path, places
        self._given = imatrix.read(path)
        shapes = {target.name: target.shape for target in places.targets}
        self._squares = imatrix.fitting(self._given, shapes, path)
        with path.open("rb") as file:
            self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()

    def of(self, part: Matrix) -> torch.Tensor | None:
        """E[x^2] of each column of a matrix, float32 [columns]; None where the imatrix has none of it."""
        name, number = _slot(self._places, part)
        if name not in self._squares:
            return None
        counts = self._given.entries[name].counts
        if not counts[number if len(counts) > 1 else 0]:
            return None
        return torch.from_numpy(np.array(self._squares[name][number], np.float32))

    def record(self, items: Iterable[Item], device: str) -> Record:
        """What it says of the inputs of these matrices, as calibration would record them."""
        known = {item.name: self.of(item.part) for item in items}
        return Record({name: found.to(device) for name, found in known.items() if found is not None})

    @property
    def facts(self) -> Facts:
        """What a GGUF file says of it."""
        return self._given.facts(self.path.name)

    @property
    def summary(self) -> dict[str, Any]:
        """For plan and certificate."""
        given = self._given
        size = {"entries": len(given.entries), "chunks": given.chunks, "dataset": given.dataset}
        return {"file": self.path.name, "sha256": self.sha256, **size}

    @property
    def note(self) -> str:
        """What is done with it, and what it does not allow."""
        size = f"{plural(len(self._given.entries), 'tensor')}, {plural(self._given.chunks, 'chunk')}"
        return (
            f"columns are weighed by the imatrix {self.path.name} ({size}): it has the mean square of each alone, so "
            "no error is made up for in other columns, and output errors are counted column by column"
        )


class Record:
    """Mean squares of the inputs of matrices, by name: what `group` reads of a `Recorder`.

    Matrices whose mean squares are the same have one input. Of this the moments are made when they are asked for, as
    they are as large as the matrix.
    """

    def __init__(self, squares: dict[str, torch.Tensor]) -> None:
        self._squares = squares
        first: dict[bytes, str] = {}
        self.leader = {name: first.setdefault(found.cpu().numpy().tobytes(), name) for name, found in squares.items()}
        self.usage: dict[str, None] = {}

    @property
    def stats(self) -> Record:
        """The moments, by leader."""
        return self

    def get(self, leader: str) -> Stats | None:
        """Those of one input; None where nothing is known of it."""
        return Stats.diagonal(self._squares[leader]) if leader in self._squares else None


def _slot(places: Places, part: Matrix) -> tuple[str, int]:
    """The tensor of a GGUF file that a matrix goes to, and which of its matrices it is there."""
    entry = places.arch.checkpoint.entry(part.name)
    spot = next(places.spots(entry, 0, 1))
    shape = spot.target.shape
    return spot.target.name, int(spot.at[0]) // shape[-2]


def gather(
    places: Places, calibration: Calibration, parts: Iterable[Matrix], length: int, dataset: str
) -> Generator[Event, None, Imatrix]:
    """The imatrix of what all windows, of `length` tokens, multiply `parts` by, block after block.

    An expert that no token went to is counted 0 times, as llama.cpp has it. A matrix that is never multiplied has no
    entry, and is named. Raises DataError where none is, TensorError for mean squares that are not finite.
    """
    arch, decoder, hidden = places.arch, calibration.decoder, calibration.hidden
    wanted = [part for part in parts if part.multiplied]
    seen: dict[str, tuple[int, torch.Tensor]] = {}
    for block in range(arch.count):
        with decoder.loaded(block) as module:
            watch = Squares(calibration.addresses(block, module, [part for part in wanted if part.block == block]))
            for i in range(len(hidden)):
                with watch:
                    hidden[i] = decoder.run(block, hidden[i], calibration.passages[i])
        seen |= watch.sums
        yield Progress("imatrix", block + 1, arch.count, f"block {block + 1} of {arch.count}")
    outside = [part for part in wanted if part.block is None]
    watch, words = Squares(addresses(decoder.model, "", outside)), calibration.head_words
    for i in range(len(hidden) if outside else 0):
        for row in hidden[i]:  # all logits of a batch may be gigabytes
            with watch:
                decoder.logits(row[None], *words)
    seen |= watch.sums
    if missing := [part.name for part in wanted if part.name not in seen and part.expert is None]:
        yield Note(f"no text reaches {some(missing, 3)}: without an entry")
    entries = _entries(places, wanted, seen)
    if not entries:
        raise DataError("the text reaches no matrix", where=str(arch.checkpoint.folder), fix="Give other text")
    return Imatrix(entries, sum(len(passage.ids) for passage in calibration.passages), length, dataset)


def _entries(places: Places, parts: Iterable[Matrix], seen: dict[str, tuple[int, torch.Tensor]]) -> dict[str, Entry]:
    """Mean squares and counts by the names of a GGUF file's tensors."""
    shapes = {target.name: target.shape for target in places.targets}
    squares: dict[str, Any] = {}
    counts: dict[str, Any] = {}
    for part in parts:
        tokens, sums = seen.get(part.name, (0, None))
        if not tokens or sums is None:
            continue
        name, number = _slot(places, part)
        require_finite(f"{part.name}: mean squares of its input", sums)
        matrices, columns = max(1, int(np.prod(shapes[name][:-2]))), shapes[name][-1]
        squares.setdefault(name, np.ones((matrices, columns), np.float32))[number] = sums.numpy() / tokens
        counts.setdefault(name, np.zeros(matrices, np.float32))[number] = tokens
    return {name: Entry(squares[name], counts[name]) for name in squares}
