"""Solves parts, measures them, and stores each: the only way from a weight to its row in the report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import torch

from bitwright.core.array import namespace
from bitwright.core.format import Format
from bitwright.core.measure import Error, Usage
from bitwright.core.qtensor import QTensor
from bitwright.engine.journal import Journal
from bitwright.errors import TensorError, about
from bitwright.events import Event, Row
from bitwright.files.held import Held
from bitwright.methods import Method, Seen, registry
from bitwright.models.model import Aside, Copy, Item, Plan, Turn, alike
from bitwright.models.precision import wasted
from bitwright.models.recovery import RECOVERY, OffLatticeError
from bitwright.parallel import in_order


class Writer:
    """Takes the turns of one plan: solved parts go to the plan's sink and into the journal."""

    def __init__(self, plan: Plan, journal: Journal, label: str | None = None) -> None:
        """`label` tells the work of this plan from that of others in the same journal; by default the plan's own."""
        self.plan, self.journal = plan, journal
        self.label = plan.label if label is None else label
        plan.sink.create()
        for name in self._names:
            entry = journal.done.get(self._key(name))
            if entry is not None and not plan.sink.intact(entry["sums"]):
                del journal.done[self._key(name)]  # its bytes are no longer what was written
        for name, row in self.rows.items():
            if row.method == RECOVERY.name:
                plan.items[name] = plan.items[name].recovered

    def _key(self, name: str) -> str:
        return f"{self.label}{name}"

    @property
    def _names(self) -> list[str]:
        """What the journal calls everything that is written."""
        sink = self.plan.sink
        return [*self.plan.items, *map(_copied, sink.untouched), *sink.asides]

    @property
    def done(self) -> list[str]:
        """Parts that are finished."""
        return [name for name in self.plan.items if self.finished(name)]

    @property
    def written(self) -> int:
        """How many tensors are finished, those that are copied included."""
        return len(self.done) + sum(self.finished(_copied(name)) for name in self.plan.sink.untouched)

    @property
    def rows(self) -> dict[str, Row]:
        """The report's rows of all finished parts, in the plan's order."""
        return {name: self.journal.row(self._key(name)) for name in self.done}

    @property
    def sums(self) -> dict[str, int]:
        """CRC-32 of everything stored."""
        found = (self.journal.done[self._key(name)]["sums"] for name in self._names if self.finished(name))
        return {stored: crc for sums in found for stored, crc in sums.items()}

    def finished(self, name: str) -> bool:
        """Whether a part, or a copied tensor, is written."""
        return self._key(name) in self.journal.done

    def run(self, data: Any) -> Iterator[Event]:
        """All turns of the plan."""
        for turn in self.plan.model.turns(self.plan, data, self.finished):
            if isinstance(turn, Event):
                yield turn
            elif isinstance(turn, Copy):
                self._copy(turn.name)
            elif isinstance(turn, Aside):
                self.journal.add(self._key(turn.name), self.plan.sink.put(turn), None)
            else:
                yield from self._take(turn)
            del turn  # the next factor is computed while this name would still hold the last

    def adopt(self, other: Writer) -> None:
        """Take everything over from the writer of a trial, but for parts that stay float after all."""
        for item in self.plan.items.values():
            if not self.finished(item.name):
                sums = self.plan.model.adopt(self.plan, item, other.plan)
                self.journal.add(self._key(item.name), sums, other.rows[item.name])
        for name in self.plan.sink.untouched:
            self._copy(name)
        for name in self.plan.sink.asides:
            if not self.finished(name):
                self.journal.add(self._key(name), self.plan.model.adopt_aside(self.plan, name, other.plan), None)

    def _copy(self, name: str) -> None:
        if not self.finished(_copied(name)):
            self.journal.add(self._key(_copied(name)), self.plan.sink.copy(name), None)

    def _take(self, turn: Turn) -> Iterator[Row]:
        """Solve the parts of a turn, piece by piece; keep them and yield their rows. The plan's items are what ran.

        A matrix that was to be recovered, and lies on no lattice, is left as if its turn had not come.
        """
        if all(self.finished(item.name) for item in turn.items):
            for item in turn.items:
                turn.restore(item)
            return
        tallies = [Tally(item, turn) for item in turn.items]
        if len(turn.items) == 1:
            try:
                self._stream(turn, tallies[0])
            except OffLatticeError:
                return
        else:
            model = self.plan.model
            whole = [model.rows(item, 0, item.rows) for item in turn.items]
            targets = [turn.aim(item, 0, w) for item, w in zip(turn.items, whole, strict=True)]
            for tally, w, q in zip(tallies, whole, together(targets, turn), strict=True):
                self._write(tally, self._piece(turn, tally.item, 0, w, q))
        for tally in tallies:
            row = tally.row(len(turn.items), self.plan)
            self.journal.add(self._key(row.name), tally.sums, row)
            self.plan.items[row.name] = tally.item
            yield row

    def _stream(self, turn: Turn, tally: Tally) -> None:
        """One matrix in pieces; where nothing orders them, as many at once as torch may use threads."""
        model, item = self.plan.model, tally.item
        step = model.piece_rows(self.plan, item)

        def work(start: int) -> Piece:
            w = model.rows(item, start, start + step)
            q = turn.solved if turn.solved is not None else solve(turn.aim(item, start, w), item, turn, start)
            return self._piece(turn, item, start, w, q)

        starts = range(0, item.rows, step)
        apart = len(starts) > 1 and not any(seen.shared is not None for seen in turn.seen)
        if apart and work_on_cpu(model):
            in_order(work, starts, partial(self._write, tally))
            return
        for start in starts:
            self._write(tally, work(start))

    def _write(self, tally: Tally, piece: Piece) -> None:
        self.plan.sink.write(tally.item, piece.packed, tally.sums)
        tally.add(piece)

    def _piece(self, turn: Turn, item: Item, start: int, w: Any, q: QTensor) -> Piece:
        """Settle, measure and pack some rows: all that several threads can do at once."""
        outcome = turn.settle(item, start, w, q)
        decoded = outcome.q.decode()
        error = Error.between(w if isinstance(decoded, torch.Tensor) else w.numpy(), decoded)
        notes = (*q.notes, *outcome.notes)
        packed = self.plan.sink.pack(item, start, outcome)
        usage = Usage.of(outcome.q.codes, outcome.q.format.code)
        sums = outcome.noise, outcome.power
        return Piece(packed, outcome.q.format, error, usage, *sums, notes, outcome.correction)


def work_on_cpu(model: Any) -> bool:
    """Whether pieces may be solved by several threads."""
    return getattr(model, "device", "cpu") == "cpu"


def _copied(name: str) -> str:
    """The journal's name of a tensor that is written as it is: a tied embedding is copied and quantized."""
    return f"copy:{name}"


@dataclass(frozen=True)
class Piece:
    """Some rows of a matrix: what the sink keeps of them, and their measures."""

    packed: Any
    format: Format
    error: Error
    usage: Usage
    noise: float
    power: float
    notes: tuple[str, ...]
    correction: str | None


def used(item: Item, turn: Turn) -> tuple[Method, str | None]:
    """The method that solves an item, and why where it is not the one asked for."""
    method = item.method
    if turn.fallback is None or method.needs == "nothing":
        return method, None
    assert method.fallback is not None  # every method of single matrices that needs something has one
    other = registry.get(method.fallback)
    return other, f"{turn.fallback}: {other.name} instead of {method.name}"


def together(targets: Sequence[Any], turn: Turn) -> Iterator[QTensor]:
    """The items of a turn quantized: as one matrix, whose columns are visited once for all.

    Where outputs count each in its own way, every item is solved alone.
    """
    if turn.curvature is not alike:
        for item, w in zip(turn.items, targets, strict=True):
            yield solve(w, item, turn)
        return
    q, first = solve(torch.cat(list(targets)), turn.items[0], turn), 0
    for w in targets:
        yield q.part(first, first + w.shape[0])
        first += w.shape[0]


def solve(w: Any, item: Item, turn: Turn, start: int = 0) -> QTensor:
    """Quantize `w` [rows, columns], the item's rows from `start` on; a matrix with groups of inputs in as many parts.

    Raises TensorError where the method's answer is no quantized matrix of that shape and format.
    """
    method, _ = used(item, turn)
    options = item.options if method is item.method else method.options()
    seen: Sequence[Seen] = turn.seen
    size = w.shape[0] // len(seen)
    parts = []
    for i, s in enumerate(seen):
        rows, first = w[i * size : (i + 1) * size], start + i * size
        with about(where=item.name):
            s = replace(s, curvature=turn.curvature(item, first, first + size))
            parts.append(method.solve(rows, item.format, s, options))
        _require_sound(parts[-1], rows, item, method)
    return QTensor.stack(parts)


def _require_sound(q: Any, w: Any, item: Item, method: Method) -> None:
    """Raise TensorError for an answer that would make a broken file: a method may come from a plugin."""
    wrong = _nonsense(q, tuple(w.shape), item.format)
    if wrong is not None:
        fix = "Choose another --method, and report this to the provider of this one"
        raise TensorError(f"method {method.name} returned {wrong}", where=item.name, fix=fix)


def _nonsense(q: Any, shape: tuple[int, ...], format: Format) -> str | None:
    """What is wrong with a method's answer for a matrix of this shape; None for nothing."""
    if not isinstance(q, QTensor):
        return f"a {type(q).__name__}, not a QTensor"
    if q.format != format:
        return f"format {q.format.name} instead of {format.name}"
    if tuple(q.codes.shape) != shape:
        return f"codes of shape {list(q.codes.shape)} for a matrix of shape {list(shape)}"
    if str(q.codes.dtype).rpartition(".")[2] != "uint8" or int(q.codes.max()) >> format.bits:
        return f"codes that are not {format.bits}-bit numbers in uint8"
    count = format.block_count(*shape)
    if prod(q.scale.shape) != count or not bool(namespace(q.scale).isfinite(q.scale).all()):
        return f"scales that are not one finite number for each of {count} blocks"
    return None


class Tally:
    """The running measures of one matrix, over its pieces."""

    def __init__(self, item: Item, turn: Turn) -> None:
        self.item = item
        self.method, reason = used(item, turn)
        self.format = item.format
        self.sums: dict[str, int] = {}
        self.error, self.noise, self.power = Error(), 0.0, 0.0
        self.usage: Usage | None = None
        self.inputs = turn.inputs
        self.notes = [note for note in (item.note, reason) if note]
        self.corrections: list[str] = []
        stats = turn.seen[0].stats if turn.seen else None
        self.tokens = None if stats is None or stats.apart else stats.n
        self.started = time.perf_counter()

    def add(self, piece: Piece) -> None:
        """Count a piece."""
        self.format = piece.format
        self.error += piece.error
        self.usage = piece.usage if self.usage is None else self.usage + piece.usage
        self.noise += piece.noise
        self.power += piece.power
        self.notes += [note for note in piece.notes if note not in self.notes]
        if piece.correction and piece.correction not in self.corrections:
            self.corrections.append(piece.correction)

    def row(self, sharing: int, plan: Plan) -> Row:
        """The report's row; `sharing` matrices shared the time. The method's name is that of the method that ran."""
        item, usage = self.item, self.usage
        rounded = plan.model.input_levels(plan, item)
        inputs = self.inputs if rounded is not None else None
        assert usage is not None  # a matrix has rows
        unused = wasted(usage)
        return Row(
            name=item.name,
            format=Held(self.format, item.activations).words,
            method=self.method.name,
            rows=item.rows,
            columns=item.columns,
            stored_bits=plan.stored(replace(item, format=self.format)),
            levels=usage.levels,
            levels_used=usage.used,
            entropy=usage.entropy,
            input_levels=rounded,
            input_levels_used=None if inputs is None else inputs.used,
            input_entropy=None if inputs is None else inputs.entropy,
            mse=self.error.mse,
            psnr=self.error.psnr(),
            sqnr=self.error.sqnr,
            cosine=self.error.cosine,
            output_error=self.noise / self.power if self.power else None,
            tokens=self.tokens,
            seconds=round((time.perf_counter() - self.started) / sharing, 4),
            correction="; ".join(self.corrections) or None,
            notes=(*self.notes, *((unused,) if unused else ())),
        )
