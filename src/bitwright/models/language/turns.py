"""The turns in which the matrices of a language model are solved, as calibration text comes to them block by block."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import torch

from bitwright.core.measure import Usage, layer_error
from bitwright.core.qtensor import QTensor
from bitwright.errors import about
from bitwright.events import Event, Progress
from bitwright.methods import Method, Seen, registry
from bitwright.models.language import curvature, memory
from bitwright.models.language.activations import SPILL
from bitwright.models.language.arch import Architecture
from bitwright.models.language.blocks import release
from bitwright.models.language.cache import Keeper, aside
from bitwright.models.language.calibration import Calibration, Replay, Stage, group, usage_of
from bitwright.models.language.importance import Importance
from bitwright.models.language.sink import sink_of
from bitwright.models.language.streams import Streams, Twin
from bitwright.models.language.text import Text
from bitwright.models.language.tuning import Text as Lessons
from bitwright.models.language.tuning import learn, open_tuned
from bitwright.models.language.whole import Draft, Whole
from bitwright.models.model import Aside, Copy, Item, Outcome, Plan, Turn, alike

Aimed = Callable[[Item, int, Any], tuple[Any, str | None]]
"""(matrix, first row, rows) -> what these were rounded for, and in words how far that makes up for earlier errors."""
Found = dict[str, QTensor]
"""Codes of matrices by name."""
Weigh = Callable[[Item, int, int], Any]
"""(item, first row, row after the last) -> how much those outputs count, or None: all alike."""


class Turns:
    """All turns of one plan, those of tensors outside the blocks first; progress counts bytes of the source."""

    def __init__(
        self,
        arch: Architecture,
        device: str,
        plan: Plan,
        data: Text | None,
        finished: Callable[[str], bool],
        weighing: Importance | None = None,
    ) -> None:
        """`finished` says of a matrix, by name, whether it is written; `weighing` is known without any text."""
        self._weighing = weighing
        self.arch, self.device, self.plan, self.data = arch, device, plan, data
        self._trained = [item for item in plan.items.values() if item.method.scope == "model"]
        again = {item.name for item in self._trained if not all(finished(item.name) for item in self._trained)}
        # What is trained together is all begun again where not all of it is finished; what is written stays.
        self.finished, self._again = finished, again
        self._rows = partial(plan.model.piece_rows, plan)
        self._weighed: Weigh = alike
        self._drafts: dict[str, Draft] = {}
        blocks = sum(e.size for block in range(self.arch.count) for e in self.arch.tensors_of(block))
        weighed = any(item.method.weighs and not finished(item.name) for item in plan.items.values())
        self._weighs = data is not None and plan.effort.weighing > 0 and weighed
        self._total = plan.model.source_bytes + blocks * (memory.needs_text(plan) + 2 * self._weighs)
        self._done = 0.0

    def __iter__(self) -> Iterator[Event | Turn | Copy | Aside]:
        plan, arch, data, finished = self.plan, self.arch, self.data, self.finished
        for left in plan.partial.glob(f"{SPILL}*"):
            left.unlink()  # a killed run could not
        if self._weighs and data is not None:
            self._weighed = yield from self._weigh(data)
        walk = None if data is None or not memory.uses_text(plan) else self._walk(data)
        copies = {e.name for e in sink_of(plan).copies}
        # What lies outside the blocks is copied first, and solved last: only then has the text reached the head.
        outside = [item for item in plan.items.values() if item.part.block is None]
        at_head = [i.part for i in outside if i.part.multiplied and i.method.moments and not finished(i.name)]
        for block in [None, *range(arch.count)]:
            entries = arch.tensors_of(block)
            todo = [plan.items[e.name] for e in entries if e.name in plan.items and block is not None]
            if block is None:
                entries += [arch.checkpoint.tensors[name] for name in arch.outside]
            for entry in entries:
                if entry.name in copies:
                    yield Copy(entry.name)
                if entry.name not in plan.items or finished(entry.name):
                    yield self._progress(entry.size, entry.name)
            if walk is None or block is None:
                yield from self._solved(Stage(todo, self._record(todo)))
                continue
            last = block == arch.count - 1 and not at_head
            for stage in walk.through(block, todo, self._settled, self._progress, self._count, last):
                if isinstance(stage, Event | Aside):
                    yield stage
                elif isinstance(stage, Whole):
                    yield from self._learned(stage)
                else:
                    yield from self._draft(stage)
                    yield from self._solved(stage)
        recorder = self._record(outside)
        if walk is not None and at_head:
            recorder = yield from walk.at_head(at_head, self._progress, self._count)
        yield from self._solved(Stage(outside, recorder))
        if walk is not None:
            if not all(self._settled(item.name) for item in self._trained):
                yield from self._train(walk)
            walk.decoder.close()
        release()

    def _record(self, items: list[Item]) -> Any:
        """What is known of the inputs of matrices without any text: a record of them, or None."""
        return None if self._weighing is None else self._weighing.record(items, self.device)

    def _settled(self, name: str) -> bool:
        return name not in self._again and self.finished(name)

    def _progress(self, size: float, label: str) -> Progress:
        self._done += size
        return Progress("quantize", min(self._done, self._total), self._total, label)

    def _count(self, name: str, x: torch.Tensor) -> Usage | None:
        item = self.plan.items[name]
        if item.activations == "none":
            return None
        found: Usage = self.plan.container.count_inputs(x.float(), item.format, item.activations)
        return found

    def _weigh(self, data: Text) -> Generator[Event, None, Weigh]:
        """How much the outputs of matrices count for the loss, learnt before any is solved."""
        plan, seed = self.plan, self.plan.recipe.calibration.seed
        windows = data.calibration[: plan.effort.weighing]
        items, budget = [i for i in plan.items.values() if i.method.weighs], memory.activation_budget(plan)
        job = curvature.Curvature(
            self.arch, self.device, windows, items, plan.shared or plan.partial, budget, seed, self._rows,
            shared=plan.shared is not None,
        )  # fmt: skip
        yield from job.compute(self._progress)
        of = lru_cache(maxsize=1)(job.of)

        def weigh(item: Item, start: int, stop: int) -> torch.Tensor | None:
            found = None if item.part.block is None else of(item.part.block).get(item.name)
            return None if found is None else curvature.piece(found, start, stop - start)

        return weigh

    def _walk(self, data: Text) -> Calibration:
        """The walk that shows methods the inputs of their matrices."""
        plan, budget, keeper = self.plan, memory.activation_budget(self.plan), self._keeper()
        sees = memory.looks(plan)
        if sees and not plan.effort.corrects:
            return Calibration(self.arch, self.device, data, budget, plan.partial, keeper)

        def rounding(name: str, x: torch.Tensor) -> torch.Tensor:
            item = plan.items[name]
            if item.activations == "none":
                return x
            rounded: torch.Tensor = plan.container.round_inputs(x.float(), item.format, item.activations)
            return rounded.to(x.dtype)

        if keeper is not None and not sees:
            return Replay(self.arch, self.device, data, budget, plan.partial, keeper, self._decoded, rounding)
        return Streams(self.arch, self.device, data, budget, plan.partial, self._decoded, rounding, keeper)

    def _decoded(self, item: Item) -> torch.Tensor:
        """A matrix as it is stored: as it was written, or what was found to begin with."""
        draft = self._drafts.get(item.name)
        if draft is None:
            return sink_of(self.plan).read(item)
        w: torch.Tensor = draft.q.decode()
        return w.T if item.part.transposed else w

    def _keeper(self) -> Keeper | None:
        """What chooses the scales of keys and values, where they are rounded; those written are known to it."""
        sink = sink_of(self.plan)
        if not sink.attentions:
            return None
        written = {
            name: tensor
            for one in sink.attentions
            if self.finished(aside(one))
            for name, tensor in sink.kept(aside(one)).tensors.items()
        }
        return Keeper(self.plan.container, self.arch, sink.attentions, written.get)

    def _solved(self, stage: Stage) -> Iterator[Event | Turn]:
        """The turns of matrices whose inputs were recorded together."""
        release()  # else what passing a block leaves free stands beside what solving takes, and the other way round
        for turn in self._grouped(stage, self.finished):
            left = [item.name for item in turn.items if not self.finished(item.name)]
            first = turn.items[0].name
            yield turn
            del turn  # the next factor is computed while this name would still hold the last
            yield self._progress(sum(self.arch.checkpoint.entry(name).size for name in left), first)
        release()

    def _grouped(self, stage: Stage, finished: Callable[[str], bool]) -> Iterator[Turn]:
        recorder = stage.recorder
        least = self.plan.recipe.calibration.min_expert_tokens if self._weighing is None else 1
        twin = recorder if isinstance(recorder, Twin) else None
        for items, seen, fallback in group(stage.items, recorder, finished, self._rows, least):
            settle = self._settle(seen, _as_given if twin is None else twin.aimed)
            turn = Turn(items, (seen,), fallback, settle, inputs=usage_of(items, recorder))
            if twin is not None:
                turn.aim = twin.aim
            if items[0].method.weighs:
                turn.curvature = self._weighed
            del seen
            yield turn
            del turn

    def _settle(self, seen: Seen, aimed: Aimed) -> Callable[[Item, int, Any, QTensor], Outcome]:
        def settle(item: Item, start: int, w: torch.Tensor, q: QTensor) -> Outcome:
            target, correction = aimed(item, start, w)
            if seen.stats is None:
                return Outcome(q, correction=correction)
            hessian = seen.stats.hessian
            noise, power = layer_error(target - q.decode(), hessian), layer_error(w, hessian)
            return Outcome(q, noise, power, correction=correction)

        return settle

    # --- what is learned with its block, or with the whole model

    def _draft(self, stage: Stage) -> Iterator[Event]:
        """Take out of a stage what is learned with its block or with the whole model, and find codes to begin with."""
        together = [item for item in stage.items if item.method.scope != "matrix"]
        stage.items = [item for item in stage.items if item.method.scope == "matrix"]
        first = [replace(item, method=_first(item.method), options=_first(item.method).options()) for item in together]
        for turn in self._grouped(Stage(first, stage.recorder), lambda name: False):
            for item in turn.items:
                self._drafts[item.name] = self._begin(turn, item, stage.recorder)
                yield self._progress(0, item.name)

    def _begin(self, turn: Turn, item: Item, twin: Twin) -> Draft:
        """Codes of one matrix of a turn, by the method of its item or by that one's fallback."""
        method, options, notes = item.method, item.options, tuple[str, ...]()
        if turn.fallback is not None and method.needs != "nothing":
            method = _first(method)
            options, notes = method.options(), (f"{turn.fallback}: learning begins at codes of {method.name}",)
        w = self.plan.model.rows(item, 0, item.rows)
        turn.aim(item, 0, w)
        target, correction = twin.aimed(item, 0, w)
        seen = replace(turn.seen[0], curvature=turn.curvature(item, 0, item.rows))
        with about(where=item.name):
            q = method.solve(target, item.format, seen, options)
        q = replace(q, notes=(*q.notes, *notes))
        # Until the whole model is trained the moments of all its inputs would have to be kept.
        stats = seen.stats if item.method.scope == "block" else None
        # A turn of its own: that one holds all that its stage has seen.
        return Draft(target, q, Turn([item], (Seen(stats),), inputs=turn.inputs), correction)

    def _learned(self, whole: Whole) -> Iterator[Event | Turn]:
        """The turns of the matrices of a block that are learned together."""
        label = f"learning block {whole.number + 1} of {self.arch.count}"
        for items in _alike(whole.items):
            part = replace(whole, items=items, drafts={item.name: self._drafts[item.name] for item in items})
            found = yield from self._watched(items[0].method.solve(part, items[0].options), label)
            yield from self._known(items, found)

    def _train(self, walk: Calibration) -> Iterator[Event | Turn]:
        """The turns of the matrices that are trained together, as the text has passed all blocks."""
        text = Lessons([passage.ids for passage in walk.passages], walk.hidden)

        def weights(block: int) -> dict[str, torch.Tensor]:
            inside = [item for item in self.plan.items.values() if item.part.block == block]
            return walk.decoder.checked(block) | {item.name: self._decoded(item) for item in inside}

        for items in _alike(self._trained):
            drafts = {item.name: self._drafts[item.name] for item in items}
            with open_tuned(walk.decoder, items, drafts, weights, text) as tuned:
                epochs = items[0].method.solve(tuned, items[0].options)
                found = yield from self._watched(learn(tuned, epochs), "training the whole model")
            yield from self._known(items, found)

    def _watched(self, learning: Generator[Any, None, Found], label: str) -> Generator[Event, None, Found]:
        while True:
            try:
                next(learning)
            except StopIteration as stop:
                found: Found = stop.value
                return found
            yield self._progress(0, label)

    def _known(self, items: list[Item], found: Found) -> Iterator[Event | Turn]:
        """The turns of matrices whose codes were learned."""
        for item in items:
            draft = self._drafts.pop(item.name)
            if not self.finished(item.name):
                settle = self._settle(draft.turn.seen[0], partial(_aimed, draft))
                yield Turn([item], draft.turn.seen, None, settle, solved=found[item.name], inputs=draft.turn.inputs)
                yield self._progress(self.arch.checkpoint.entry(item.name).size, item.name)


def _alike(items: list[Item]) -> Iterable[list[Item]]:
    """Items by method and options."""
    groups: dict[Any, list[Item]] = {}
    for item in items:
        groups.setdefault((item.method.name, item.options), []).append(item)
    return groups.values()


def _as_given(item: Item, start: int, w: Any) -> tuple[Any, str | None]:
    return w, None


def _aimed(draft: Draft, item: Item, start: int, w: Any) -> tuple[Any, str | None]:
    return draft.target, draft.correction


def _first(method: Method) -> Method:
    """What takes a method's place, or finds the codes at which it begins."""
    assert method.fallback is not None  # every method that needs something has one
    return registry.get(method.fallback)
