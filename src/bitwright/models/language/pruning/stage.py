"""Pruning as a stage: its plan, and its work block by block."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from bitwright import machine
from bitwright.errors import ModelError
from bitwright.events import Event, Note, Progress
from bitwright.files.safetensors import Spec
from bitwright.models.language import curvature
from bitwright.models.language.arch import build
from bitwright.models.language.curvature import Curvature
from bitwright.models.language.memory import (
    BATCH_TOKENS,
    GRAPH_TOKENS,
    KEPT_PER_ROW,
    LOADED,
    LOGITS,
    POSITIONS,
    tokenizer_memory,
)
from bitwright.models.language.pruning import depth, shape
from bitwright.models.language.pruning.anatomy import DOWN, OUTPUT, Anatomy
from bitwright.models.language.pruning.walk import Done, Fitted, Walk
from bitwright.models.language.stage import FolderStage, copy_rest
from bitwright.models.language.text import Text
from bitwright.models.model import Estimate
from bitwright.models.stage import Record, Size, Table
from bitwright.stages import Prune
from bitwright.words import share

WEIGHING = 16
"""Windows of calibration text on which it is learnt how much each output counts for the loss."""
SQUARES = 28
"""Matrices of the widest input's moments that are there at once while a layer is fitted (measured on docs18m: 25)."""
LAYERS, BLOCK = "layers", "block "
"""What the journal keeps: the blocks that stay, and of each block what stays of it."""


@dataclass
class Pruning(FolderStage):
    """A language model without some channels, groups of heads or blocks."""

    settings: Prune

    def __post_init__(self) -> None:
        super().__post_init__()
        self.anatomy = Anatomy(self.arch)
        outside = self.before.parameters - self.before.blocks
        self.full = shape.whole(self.anatomy)
        self.shape = shape.choose(self.anatomy, self.settings, shape.target(self.anatomy, self.settings, outside))
        self._chosen = list(range(self.shape.layers))
        """The blocks that stay, once they are chosen."""
        self._require_loadable()

    def _require_loadable(self) -> None:
        """Raise ModelError where transformers would build another network of the new config than is written."""
        network = build(self.anatomy.config(self.config()), torch.float32, self.source)
        shapes = {name: tuple(param.shape) for name, param in network.state_dict().items()}
        for spec in self.specs():
            found = shapes.get(self.arch.targets.get(spec.name, spec.name))
            if found is not None and found != spec.shape:
                raise ModelError(
                    f"transformers would make {spec.name} {list(found)} where {list(spec.shape)} remain",
                    where=str(self.source), fix="Leave out --cut heads or --cut width", foreign=True,
                )  # fmt: skip

    # --- the plan

    @cached_property
    def after(self) -> Size:
        inside = shape.parameters(self.anatomy, self.shape)
        outside = self.before.parameters - self.before.blocks
        return Size(outside + inside, inside, self.layout.total_bytes)

    @property
    def words(self) -> str:
        return f"pruned to {self.after.blocks / self.before.blocks:.0%} of its blocks".replace("%", " %")

    def lines(self) -> list[str]:
        old, new, a = self.full, self.shape, self.anatomy
        found = []
        if new.layers < old.layers:
            found.append(f"layers: {old.layers} -> {new.layers}, chosen by what leaving each out costs")
        if new.width < old.width:
            fitting = [size for size in (256, 128, 64, 32) if new.width % size == 0]
            found.append(f"MLP width: {old.width} -> {new.width}: groups of {fitting[0]} weights and less fit")
        if new.groups < old.groups:
            heads = f"{a.heads} -> {new.groups * a.sharing}, in {old.groups} -> {new.groups} groups of {a.sharing}"
            found.append(f"attention heads: {heads} with their keys and values")
        how = {
            "elimination": "what costs the loss least once the others make up for it",
            "taylor": "what changes the loss least by itself", "activation": "the smallest activations",
        }  # fmt: skip
        told = "the rest is fitted to the float layers' answers" if self.settings.repair else "the rest stays as it is"
        if new.width < old.width or new.groups < old.groups:
            found.append(f"first goes {how[self.settings.importance]}; {told}")
        else:
            found.append(told)
        return found

    def facts(self) -> dict[str, Any]:
        return {
            "shape_before": self.full._asdict(), "shape_after": self.shape._asdict(),
            "parameters_before": self.before.parameters, "parameters": self.after.parameters,
            "block_parameters_before": self.before.blocks, "block_parameters": self.after.blocks,
        }  # fmt: skip

    @property
    def widths(self) -> Mapping[str, int]:
        if not self.settings.repair:
            return {}
        inputs = self.anatomy.heads * self.anatomy.head, self.anatomy.width
        return {"narrowest": min(inputs), "widest": max(inputs)}

    @cached_property
    def estimate(self) -> Estimate:
        a, c = self.anatomy, self.settings.calibration
        dtype = machine.calibration_dtype(self.device)
        size, tokens = dtype.itemsize, c.windows * c.length
        inputs = [a.hidden, a.heads * a.head, a.width]
        outside = size * (self.before.parameters - self.before.blocks)
        batch = min(max(BATCH_TOKENS, c.length), tokens)
        streams = size * tokens * (2 * a.hidden + 2 * sum(inputs))
        block = a.per_block * (4 * size + 4)
        squares = 4 * (SQUARES * max(inputs) ** 2 + 8 * a.hidden * max(inputs))
        graph = GRAPH_TOKENS * KEPT_PER_ROW * 4 * (3 * a.width + 4 * a.heads * a.head)
        head = 10 * 4 * min(LOGITS, POSITIONS * self.arch.vocabulary)
        work = outside + block + max(squares, graph, head) + batch * 8 * a.width * size
        judging = int(LOADED * self.after.parameters) if 4 * self.after.parameters <= 1 << 30 else 0
        judging = max(judging, 8 * (self.before.parameters - self.before.blocks) + head)
        rate, slow = machine.matmul_rate(dtype, self.device), machine.matmul_rate(torch.float32, self.device)
        passes = (2 + 5 * self.settings.repair) * 2 * tokens * self.before.blocks
        gathering = sum(6 * tokens * n * n for n in inputs) * a.arch.count
        solving = a.arch.count * sum(40 * n**3 for n in inputs) * self.settings.repair
        rounds = max(0, self.full.layers - self.shape.layers)
        skipping = rounds * depth.WINDOWS * c.length * self.before.blocks * self.full.layers
        verdict = 4 * c.heldout_windows * c.length * self.before.parameters * len(c.heldout or c.source)
        seconds = 8 + (1.4 * (passes + skipping) + 2 * gathering) / rate + (solving + verdict / 0.55) / slow
        reading, holes = tokenizer_memory(self.source, self.arch)
        return Estimate(machine.BASE + holes + max(reading - holes, work, judging), seconds, streams)

    # --- what is written

    def _renamed(self, layers: list[int]) -> Iterator[tuple[str, str, int | None]]:
        """(name in the output, in the source, block) of each stored tensor where these blocks stay, numbered anew."""
        for name in self.arch.checkpoint.tensors:
            block = self.arch.block_of(self.arch.targets.get(name, ""))
            if block is None:
                if name not in self.arch.beyond or self.shape.layers == self.full.layers:
                    yield name, name, None
            elif block in layers:
                yield name.replace(f".{block}.", f".{layers.index(block)}.", 1), name, block

    def specs(self) -> list[Spec]:
        """The first blocks stand for those that stay, as all are alike."""
        found = []
        for stored, name, block in self._renamed(list(range(self.shape.layers))):
            entry = self.arch.checkpoint.entry(name)
            found.append(Spec(stored, entry.dtype, entry.shape if block is None else self._shape(name, block)))
        return found

    def _shape(self, name: str, block: int) -> tuple[int, ...]:
        """The shape that a tensor of a block has after the cut."""
        shape, cut = [*self.arch.checkpoint.entry(name).shape], self.anatomy.cuts.get(self.anatomy.paths(block)[name])
        if cut is not None:
            shape[cut.axis] = cut.size * (self.shape.width if cut.along == "channels" else self.shape.groups)
        return tuple(shape)

    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self.shape.width < self.full.width:
            found["intermediate_size"] = self.shape.width
        if self.shape.groups < self.full.groups:
            found |= self.anatomy.with_groups(self.shape.groups)
        if self.shape.layers < self.full.layers:
            found["num_hidden_layers"] = self.shape.layers
            for key, value in self.arch.config.to_dict().items():
                if isinstance(value, list) and len(value) == self.full.layers:
                    found[key] = [value[block] for block in self._chosen]
        return found

    # --- the work

    def work(self, data: Text, record: Record) -> Iterator[Event]:
        windows, budget = data.calibration, max(16 * machine.MIB, self.room - self.estimate.needed)
        layers = yield from self._layers(windows, budget, record)
        self._chosen = layers
        renamed = list(self._renamed(layers))
        names = {source: stored for stored, source, block in renamed if block is not None}
        yield from copy_rest(self, record, {*names.values()})
        if all(f"{BLOCK}{block}" in record.done for block in layers):
            return
        g = yield from self._weigh(windows, budget, layers)
        walk = Walk(self.anatomy, self.device, windows, self.settings, self.shape, layers, g, budget, self.partial)
        for block in range(self.full.layers):
            if block not in layers:
                yield from walk.skip(block)
                continue
            done = yield from walk.cut(block, self._known(block, names, record))
            if f"{BLOCK}{block}" not in record.done:
                record.keep(f"{BLOCK}{block}", {"kept": done.kept, "told": done.told})
                tensors = {names[name]: tensor for name, tensor in done.tensors.items()}
                record.add(f"{BLOCK}{block}", self.write(tensors), None)
        walk.decoder.close()

    def _layers(self, windows: torch.Tensor, budget: int, record: Record) -> Generator[Event, None, list[int]]:
        """The blocks that stay: each goes in turn whose absence costs least beside those that are gone."""
        if self.shape.layers == self.full.layers:
            return list(range(self.full.layers))
        rounds: list[dict[str, Any]] = list(record.kept.get(LAYERS, []))
        while len(rounds) < self.full.layers - self.shape.layers:
            gone = [found["block"] for found in rounds]
            costs = yield from depth.order(self.arch, self.device, windows, gone, budget, self.partial)
            block = min(costs, key=lambda i: (costs[i], i))
            rounds.append({"block": block, "kl": costs[block]})
            record.keep(LAYERS, rounds)
            yield Note(f"layer {block} goes: without it KL is {costs[block]:.3g} nats per token, before any fitting")
        gone = [found["block"] for found in rounds]
        return [block for block in range(self.full.layers) if block not in gone]

    def _weigh(self, windows: torch.Tensor, budget: int, layers: list[int]) -> Generator[Event, None, Any]:
        """What gives G of a block's matrices by name: how much their outputs count for the loss."""
        cuts = self.shape.width < self.full.width or self.shape.groups < self.full.groups
        if not cuts or self.settings.importance == "activation":
            return lambda block: {}
        readers = [Fitted(self.anatomy.matrix(block, path)) for block in layers for path in (OUTPUT, DOWN)]
        c = self.settings.calibration
        found = Curvature(
            self.arch, self.device, windows[:WEIGHING], readers, self.partial, budget, c.seed, lambda item: item.rows
        )
        total, spent = 2 * sum(e.size for b in range(self.arch.count) for e in self.arch.tensors_of(b)), 0.0

        def progress(size: float, label: str) -> Progress:
            nonlocal spent
            spent += size
            return Progress("prune", spent, total, label)

        yield from found.compute(progress)
        return found.of

    def _known(self, block: int, names: dict[str, str], record: Record) -> Done | None:
        """A block as an earlier run left it."""
        kept = record.kept.get(f"{BLOCK}{block}")
        if kept is None or f"{BLOCK}{block}" not in record.done:
            return None
        entries = self.arch.tensors_of(block)
        tensors = {e.name: self.layout.read(self.partial, names[e.name]) for e in entries}
        return Done(kept["kept"], tensors, kept["told"])

    def tables(self, record: Record) -> list[Table]:
        rows = []
        for new, block in enumerate(self._chosen):
            told = record.kept[f"{BLOCK}{block}"]["told"]
            kept = record.kept[f"{BLOCK}{block}"]["kept"]
            number = f"{block}" if new == block else f"{block}, now {new}"
            cells = [number, f"{len(kept['channels'])}", f"{', '.join(map(str, kept['groups']))}"]
            for path in (OUTPUT, DOWN):
                cells += [share(told[path]["cut"]), share(told[path].get("fitted"))]
            rows.append(tuple(cells))
        head = (
            "Block", "Channels", "Groups of heads kept", "Attention's error after the cut", "fitted",
            "MLP's error after the cut", "fitted",
        )  # fmt: skip
        return [Table("Output error of each layer, as a share of its power on calibration text", head, tuple(rows))]

    def clean(self) -> None:
        super().clean()
        curvature.clear(self.partial)
