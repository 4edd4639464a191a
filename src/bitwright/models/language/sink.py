"""Where the tensors of an output folder go while it is made: each to its final place, in any order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from bitwright.errors import CertificationError
from bitwright.files.container import Place, Stored
from bitwright.files.folder import open_checkpoint, require_finite
from bitwright.files.quantized import same_bytes
from bitwright.files.safetensors import Checkpoint, Entry, Layout, Spec
from bitwright.models.language import cache
from bitwright.models.language.arch import Architecture
from bitwright.models.language.memory import COPY_BYTES
from bitwright.models.model import Aside, Item, Outcome, Plan, Sink

SHARD = 5_000_000_000
"""Bytes of a weight file of a folder, at most, unless the recipe says otherwise."""


class FolderSink(Sink):
    """The files of `folder`, laid out to the byte before anything is written."""

    def __init__(self, plan: Plan, arch: Architecture, folder: Path) -> None:
        self.plan, self.arch, self.folder = plan, arch, folder
        tensors = arch.checkpoint.tensors.values()
        parts = [item.part for item in plan.items.values()]
        kept = {part.name for part in parts if arch.apart(part)}
        # A tied tensor may be stored under both names.
        again = {f"{module}.weight" for part in parts for module in part.shared}
        again |= {part.param for part in parts if arch.apart(part)}
        self.copies: list[Entry] = [
            e for e in tensors if (e.name not in plan.items or e.name in kept) and arch.targets.get(e.name) not in again
        ]
        held = plan.container.cache
        self.attentions = [] if held is None else cache.attentions(arch, held)
        self._scales = {cache.aside(one): [Spec(*s) for s in cache.specs(one, held)] for one in self.attentions}
        self.layout = Layout(self._specs(), plan.recipe.max_shard_bytes or SHARD)

    def _specs(self) -> list[Spec]:
        """Every tensor of the output, in the source's order of files and offsets."""
        specs: list[Spec] = []
        copied = {e.name for e in self.copies}
        items = self.plan.items
        apart = {e.part_of.name for e in self.arch.checkpoint.tensors.values() if e.part_of and e.name in items}
        if self.plan.container.study:
            apart = set()

        def placed(entry: Entry, spec: Spec) -> Spec:
            whole = entry.part_of
            if whole is None or whole.name in apart:
                return spec
            return replace(spec, part_of=Spec(whole.name, whole.dtype, whole.shape))

        for entry in self.arch.checkpoint.tensors.values():
            if entry.name in copied:
                specs.append(placed(entry, Spec(entry.name, entry.dtype, entry.shape)))
            item = self.plan.items.get(entry.name)
            if item is not None:
                specs += [placed(entry, spec) for spec in self._stored(item)]
        return specs + [spec for scales in self._scales.values() for spec in scales]

    def _stored(self, item: Item) -> list[Spec]:
        """The tensors that hold one matrix."""
        specs: list[Spec] = self.plan.container.specs(item.format, self._place(item))
        return specs

    def _place(self, item: Item) -> Place:
        dtype = self.arch.checkpoint.entry(item.name).dtype
        part = item.part
        return Place(
            self.module(item), part.rows, part.columns, item.activations, dtype,
            part.transposed, part.lookup, part.shared,
        )  # fmt: skip

    def module(self, item: Item) -> str:
        """The module name under which a matrix is stored."""
        return self.arch.written(item.part)

    @property
    def final_bytes(self) -> int:
        return self.layout.total_bytes

    @property
    def larger(self) -> list[str]:
        """Files that are larger than asked for, a line each that says why."""
        return []

    @property
    def untouched(self) -> list[str]:
        return [entry.name for entry in self.copies]

    @property
    def asides(self) -> list[str]:
        return [*self._scales]

    def put(self, aside: Aside) -> dict[str, int]:
        return {name: self.layout.write(self.folder, name, tensor) for name, tensor in aside.tensors.items()}

    def kept(self, aside: str) -> Aside:
        """What was kept under this name."""
        return Aside(aside, {spec.name: self.layout.read(self.folder, spec.name) for spec in self._scales[aside]})

    def create(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.layout.create(self.folder)

    def pack(self, item: Item, start: int, outcome: Outcome) -> list[Stored]:
        stored = self.plan.container.pack(outcome.q, start, self._place(item))
        return [Stored(name, tensor.cpu(), first) for name, tensor, first in stored]

    def write(self, item: Item, packed: list[Stored], sums: dict[str, int]) -> None:
        for name, tensor, first in packed:
            sums[name] = self.layout.write(self.folder, name, tensor, first, sums.get(name, 0))

    def read(self, item: Item) -> torch.Tensor:
        """A matrix that is written, as it decodes and as the source has it."""
        stored = {spec.name: self.layout.read(self.folder, spec.name) for spec in self._stored(item)}
        decoded: torch.Tensor = self.plan.container.unpack(stored, item.format, self._place(item))
        return decoded

    def copy(self, name: str) -> dict[str, int]:
        return copied(self.arch, name, self.layout, self.folder)

    def adopt(self, item: Item, other: FolderSink) -> dict[str, int]:
        """Take over what another layout holds of a matrix."""
        sums = {}
        for spec in self._stored(item):
            crc, rows = 0, spec.shape[0] if spec.shape else 1
            step = max(1, COPY_BYTES // max(spec.size // max(rows, 1), 1))
            for start in range(0, rows, step):
                crc = self.layout.write(
                    self.folder, spec.name, other.layout.read(other.folder, spec.name, start, start + step), start, crc
                )
            sums[spec.name] = crc
        return sums

    def open(self, path: Path) -> Checkpoint:
        """An output of this plan that lies at `path`, read back: its tensors as the source calls them."""
        return self.arch.divide(open_checkpoint(path))

    def same(self, written: Checkpoint, name: str) -> bool:
        """Whether a copied tensor reads back as it was meant."""
        return same_bytes(self.arch.checkpoint, written, name)

    def intact(self, sums: Mapping[str, int]) -> bool:
        return all(
            name in self.layout.place and self.layout.checksum(self.folder, name) == crc for name, crc in sums.items()
        )

    def require_intact(self, sums: Mapping[str, int]) -> None:
        """Raise CertificationError where a file's header or a tensor is not what was written."""
        require_intact(self.layout, self.folder, sums)


def copied(arch: Architecture, name: str, layout: Layout, folder: Path) -> dict[str, int]:
    """Write a source tensor below `folder` as it is, checked to be finite; its {stored name: CRC-32}."""
    entry, crc = arch.checkpoint.entry(name), 0
    for start, piece in arch.checkpoint.chunks(name, max(1, COPY_BYTES // max(entry.row_size, 1))):
        require_finite(f"{entry.path}: {name}", piece, start)
        crc = layout.write(folder, name, piece, start, crc)
    return {name: crc}


def require_intact(layout: Layout, folder: Path, sums: Mapping[str, int]) -> None:
    """Raise CertificationError where a file's header or a tensor in `folder` is not what was written."""
    damaged = [file for file in layout.files if not layout.intact(folder, file)]
    damaged = damaged or [n for n in layout.place if layout.checksum(folder, n) != sums.get(n)]
    if damaged:
        raise CertificationError(
            "the bytes on disk are not those that were written",
            where=damaged[0],
            fix="The disk or memory may be faulty; run the same command again: it writes them anew",
        )


def sink_of(plan: Plan) -> FolderSink:
    """The plan's sink, as what it is."""
    assert isinstance(plan.sink, FolderSink)
    return plan.sink
