"""Where the tensors of a network go in a GGUF file, and the file while it is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gguf import GGMLQuantizationType, LlamaFileType, quants

from bitwright.errors import CertificationError, RecipeError
from bitwright.files import gguf
from bitwright.files.container import Stored
from bitwright.files.containers.gguf import header, mixes, names, source, tokenizer
from bitwright.files.containers.gguf.checkpoint import GgufCheckpoint, file_in
from bitwright.files.containers.gguf.layout import Layout, Spec
from bitwright.files.containers.gguf.names import Piece, Shape, Target
from bitwright.files.folder import require_finite
from bitwright.files.safetensors import Checkpoint, Entry
from bitwright.models.language.arch import Architecture
from bitwright.models.language.memory import COPY_BYTES
from bitwright.models.language.sink import FolderSink
from bitwright.models.model import Item, Outcome, Plan

FLOATS = {
    torch.float16: GGMLQuantizationType.F16,
    torch.bfloat16: GGMLQuantizationType.BF16,
    torch.float32: GGMLQuantizationType.F32,
    torch.float64: GGMLQuantizationType.F32,
}
"""How a matrix that stays float is stored."""


class Spot(NamedTuple):
    """Where some `rows` of a tensor of the source go: rows `at` of `target`."""

    target: Target
    rows: np.ndarray[Any, Any]
    at: np.ndarray[Any, Any]


@dataclass
class Places:
    """The tensors of a GGUF file of a network, and what of the source each holds."""

    arch: Architecture
    pre: str | None = None
    """How its runtimes cut text, where that was said."""

    @cached_property
    def config(self) -> dict[str, Any]:
        """The decoder's config."""
        found: dict[str, Any] = self.arch.config.get_text_config(decoder=True).to_dict()
        return found

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """The tensors of the source, by name."""
        wholes = [entry.part_of or entry for entry in self.arch.checkpoint.tensors.values()]
        return {whole.name: whole.shape for whole in wholes}

    @cached_property
    def targets(self) -> list[Target]:
        """What the file holds."""
        return names.targets(self.config, self.shapes)

    @cached_property
    def pieces(self) -> dict[str, list[tuple[Target, Piece]]]:
        """Where each tensor of the source goes, by its name."""
        found: dict[str, list[tuple[Target, Piece]]] = {}
        for target in self.targets:
            for piece in target.pieces:
                found.setdefault(piece.source, []).append((target, piece))
        return found

    def of(self, entry: Entry) -> list[tuple[Target, Piece]]:
        """Where a tensor goes, or the whole that it is a part of; nowhere if runtimes have no need of it."""
        return self.pieces.get((entry.part_of or entry).name, [])

    def spots(self, entry: Entry, start: int, stop: int) -> Iterator[Spot]:
        """Where its rows [start, stop) go, all axes but the last counting as rows."""
        columns = entry.shape[-1]
        base = 0 if entry.part_of is None else (entry.offset - entry.part_of.offset) // (columns * entry.dtype.itemsize)
        for target, piece in self.of(entry):
            places = piece.places(base + start, base + stop)
            rows = np.flatnonzero(places >= 0)
            if len(rows):
                yield Spot(target, rows, places[rows])

    def types(self, mix: str) -> dict[str, GGMLQuantizationType]:
        """The type of each tensor of the file in one of llama.cpp's mixes. RecipeError for an unknown one."""
        guided = mixes.mix_of(mix).needs_imatrix  # which is what calibration gives
        return mixes.types(mix, {t.name: t.shape for t in self.targets}, mixes.Build.of(self.config), guided)

    def format(self, mix: str, name: str) -> tuple[str, str | None]:
        """The format in which a mix stores a tensor of the source, and what is to be said of it."""
        entry = self.arch.checkpoint.entry(name)
        kinds = {self.types(mix)[target.name] for target, _ in self.of(entry)}
        if len(kinds) != 1:
            raise RecipeError(
                "goes into several tensors of the file, of different types", where=name, fix="Choose another --type",
                key="type",
            )  # fmt: skip
        kind, columns, base = kinds.pop(), entry.shape[-1], mixes.mix_of(mix).base
        if mixes.legal(base, columns) == base:
            return kind.name.lower(), None
        size = 32 if columns % 32 else 256
        return kind.name.lower(), f"{columns} inputs do not divide by {size}: {kind.name}, as in llama.cpp"

    def together(self, names: list[str]) -> list[list[str]]:
        """The tensors of the source, those together that have a part in one tensor of the file."""
        groups: list[tuple[set[str], list[str]]] = []
        for name in names:
            targets = {target.name for target, _ in self.of(self.arch.checkpoint.entry(name))}
            meeting = [group for group in groups if group[0] & targets]
            groups = [group for group in groups if group not in meeting]
            groups.append(
                (targets.union(*(t for t, _ in meeting)), [n for _, found in meeting for n in found] + [name])
            )
        return [found for _, found in groups]

    @cached_property
    def _given(self) -> header.Facts | None:
        """The metadata of the source where it is a GGUF file itself."""
        path = self.arch.checkpoint.folder
        return source.facts(path) if gguf.is_gguf(path) else None

    @cached_property
    def _words(self) -> header.Facts:
        """The metadata of the tokenizer."""
        return tokenizer.facts(self.arch.checkpoint.folder, self.config, self.pre)

    def facts(self, file_type: LlamaFileType) -> header.Facts:
        """The metadata of the file."""
        if self._given is not None:
            return self._given | header.typed(file_type)
        return header.facts(self.arch.checkpoint.folder, self.config, self.targets, file_type) | self._words


class GgufSink(FolderSink):
    """One file in `folder`, named as the output, or its shards; sums are those of rows, by the source's tensors."""

    layout: Layout  # type: ignore[assignment]

    def __init__(self, plan: Plan, arch: Architecture, folder: Path, places: Places, more: header.Facts) -> None:
        """`more` is metadata besides that of the network: of what its codes were chosen by."""
        self.plan, self.arch, self.folder, self.places = plan, arch, folder, places
        self.attentions, self._scales = [], {}
        entries = arch.checkpoint.tensors
        self.copies = [e for e in entries.values() if e.name not in plan.items and places.of(e)]
        kinds: dict[str, dict[GGMLQuantizationType, str]] = {}
        for entry in entries.values():
            item = plan.items.get(entry.name)
            for target, _ in places.of(entry):
                kind = _float(target, entry) if item is None else GGMLQuantizationType[item.format.name.upper()]
                kinds.setdefault(target.name, {}).setdefault(kind, entry.name)
        for name, found in kinds.items():
            if len(found) > 1:
                told = ", ".join(f"{kind.name} ({source})" for kind, source in found.items())
                raise RecipeError(
                    f"one tensor of a GGUF file cannot have several types: {told}", where=name,
                    fix="Give all that go into it the same format", key="rules",
                )  # fmt: skip
        chosen = {name: next(iter(found)) for name, found in kinds.items()}
        specs = [Spec(t.name, chosen.get(t.name, GGMLQuantizationType.F32), t.shape) for t in places.targets]
        facts = places.facts(_file_type(plan, specs)) | more
        self.layout = Layout(plan.out.name, facts, specs, plan.recipe.max_shard_bytes)

    @property
    def larger(self) -> list[str]:
        most = self.plan.recipe.max_shard_bytes
        return [] if most is None else self.layout.larger(most)

    def pack(self, item: Item, start: int, outcome: Outcome) -> list[Stored]:
        stored: list[Stored] = self.plan.container.pack(outcome.q, start, self._place(item))
        return [Stored(name, tensor.cpu(), first) for name, tensor, first in stored]

    def write(self, item: Item, packed: list[Stored], sums: dict[str, int]) -> None:
        for _, tensor, first in packed:
            sums[item.name] = self._put(item.name, tensor.numpy(), first, sums.get(item.name, 0))

    def _put(self, name: str, data: np.ndarray[Any, Any], first: int, total: int) -> int:
        """Write rows from row `first` of a tensor of the source on; returns `total` with their sum."""
        for spot in self.places.spots(self.arch.checkpoint.entry(name), first, first + len(data)):
            total = self.layout.write(self.folder, spot.target.name, data[spot.rows], spot.at, total)
        return total

    def _raw(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray[Any, Any]:
        """The bytes of rows [start, stop) of a matrix of the source, as they lie in the file."""
        entry = self.arch.checkpoint.entry(name)
        stop = prod(entry.shape[:-1]) if stop is None else stop
        found: np.ndarray[Any, Any] | None = None
        for spot in self.places.spots(entry, start, stop):
            first = int(spot.at.min())
            read = self.layout.read(self.folder, spot.target.name, first, int(spot.at.max()) + 1)
            if found is None:
                found = np.empty((stop - start, read.shape[1]), np.uint8)
            found[spot.rows] = read[spot.at - first]
        assert found is not None  # it is an item, and goes somewhere
        return found

    def read(self, item: Item) -> torch.Tensor:
        place = self._place(item)
        raw = {place.module: torch.from_numpy(self._raw(item.name))}
        decoded: torch.Tensor = self.plan.container.unpack(raw, item.format, place)
        return decoded

    def create(self) -> None:
        super().create()
        for target in self.places.targets:
            if target.values is not None:
                self.layout.write(self.folder, target.name, target.values[None])

    def copy(self, name: str) -> dict[str, int]:
        total, whole = 0, self._whole(name)
        for first, data in self._converted(name):
            if whole is None:
                total = self._put(name, data, first, total)
            else:
                total = self.layout.write(self.folder, whole.name, data, first, total)
        return {name: total}

    def _whole(self, name: str) -> Target | None:
        """The tensor of the file that a tensor of the source makes alone, where runtimes take no codes for it."""
        (target, _), *_ = self.places.of(self.arch.checkpoint.entry(name))
        return None if target.quantizable else target

    def _converted(self, name: str) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
        """A tensor that is no item as the file holds it, a piece at a time, each with its first row."""
        checkpoint, whole = self.arch.checkpoint, self._whole(name)
        entry = checkpoint.entry(name)
        where = f"{entry.path}: {name}"
        if whole is not None:
            require_finite(where, checkpoint.read(name))
            yield 0, whole.whole(checkpoint.read).reshape(-1, whole.shape[-1])
            return
        (target, _), *_ = self.places.of(entry)
        kind, inner = self.layout.place[target.name][2].type, prod(entry.shape[1:-1])
        for start, read in checkpoint.chunks(name, max(1, COPY_BYTES // max(entry.row_size, 1))):
            require_finite(where, read, start)
            yield start * inner, quants.quantize(read.float().reshape(-1, entry.shape[-1]).numpy(), kind)

    def open(self, path: Path) -> Checkpoint:
        return self.arch.divide(GgufCheckpoint(file_in(path), self.places.config, self.places.shapes))

    def same(self, written: Checkpoint, name: str) -> bool:
        """Whether a copied tensor reads back as it was meant."""
        whole = self._whole(name)
        for first, data in self._converted(name):
            held = (
                self._raw(name, first, first + len(data))
                if whole is None
                else self.layout.read(self.folder, whole.name)
            )
            if not np.array_equal(data.view(np.uint8), held):
                return False
        return True

    def adopt(self, item: Item, other: FolderSink) -> dict[str, int]:
        assert isinstance(other, GgufSink)
        total, rows = 0, item.part.rows
        for start in range(0, rows, step := max(1, COPY_BYTES // item.part.columns)):
            total = self._put(item.name, other._raw(item.name, start, min(start + step, rows)), start, total)
        return {item.name: total}

    def _sum(self, name: str) -> int:
        """The sum of what the file holds of a tensor of the source."""
        if (whole := self._whole(name)) is not None:
            return self.layout.checksum(self.folder, whole.name)
        entry = self.arch.checkpoint.entry(name)
        spots = self.places.spots(entry, 0, prod(entry.shape[:-1]))
        return sum(self.layout.checksum(self.folder, spot.target.name, spot.at) for spot in spots)

    def intact(self, sums: Mapping[str, int]) -> bool:
        known = self.arch.checkpoint.tensors
        return all(name in known and self._sum(name) == total for name, total in sums.items())

    def require_intact(self, sums: Mapping[str, int]) -> None:
        damaged = [file for file in self.layout.files if not self.layout.intact(self.folder, file)]
        damaged = damaged or [name for name, total in sums.items() if self._sum(name) != total]
        damaged += [
            target.name
            for target in self.places.targets
            if target.values is not None
            and not np.array_equal(self.layout.read(self.folder, target.name)[0].view(np.float32), target.values)
        ]
        if damaged:
            raise CertificationError(
                "the bytes on disk are not those that were written",
                where=damaged[0],
                fix="The disk or memory may be faulty; run the same command again: it writes them anew",
            )


def _float(target: Target, entry: Entry) -> GGMLQuantizationType:
    """How a tensor that stays float is stored."""
    return FLOATS[entry.dtype] if target.quantizable else GGMLQuantizationType.F32


def _file_type(plan: Plan, specs: list[Spec]) -> LlamaFileType:
    """What runtimes call a file with these tensors: by its mix, or by the type of most weights."""
    if plan.recipe.type is not None:
        return mixes.mix_of(plan.recipe.type).file_type
    sizes = Counter[str]()
    for spec in specs:
        sizes[spec.type.name] += prod(spec.shape)
    most = sizes.most_common(1)[0][0]
    known = LlamaFileType.__members__
    fitting = [known[name] for name in (f"MOSTLY_{most}", f"MOSTLY_{most}_S", f"ALL_{most}") if name in known]
    return fitting[0] if fitting else LlamaFileType.GUESSED
