"""The only loop: a plan becomes files, told as a stream of events."""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

import bitwright
from bitwright.core.measure import Error, layer_error
from bitwright.core.qtensor import QTensor
from bitwright.core.stats import Stats
from bitwright.engine import certify, machine
from bitwright.engine.events import Event, Finished, Progress, Row, Started
from bitwright.engine.journal import Journal
from bitwright.engine.plan import BATCH_TOKENS, SOLVE, Item, Plan, describe, output_module, require_out
from bitwright.engine.recipe import CALIBRATED
from bitwright.engine.text import Text
from bitwright.files.folder import copy_sidecars, require_finite
from bitwright.methods import descent, gptq, lloyd, mse, rtn
from bitwright.models.arch import Matrix
from bitwright.models.blocks import SPILL, Activations, Decoder, Recorder
from bitwright.models.evaluate import batches

COPY_BYTES = 1 << 24
"""Bytes of a tensor in memory while it is copied."""

CACHED = 1 << 18
"""Weights that a data-free method gets at once: its passes over them stay in the processor's cache."""


def run(plan: Plan, text: Text | None = None) -> Iterator[Event]:
    """Quantize, certify and rename; yields events and ends with `Finished`.

    `text` holds the calibration and held-out windows (None for a data-free plan without a verdict on text). Stop the
    iteration at any event, or kill the process at any moment: running the same plan again goes on, and the finished
    bytes are those of an uninterrupted run. Raises TensorError for weights that are not finite, ResourceError,
    CertificationError.
    """
    require_out(plan)
    machine.enforce(plan.ceiling)
    plan.partial.mkdir(parents=True, exist_ok=True)
    journal = Journal(plan.partial, job_hash(plan, text))
    for left in (*plan.partial.glob(f"{SPILL}*"), *plan.partial.glob("*.tmp")):
        left.unlink()  # a killed run could not
    plan.layout.create(plan.partial)
    _distrust(plan, journal)
    yield Started("quantize", f"{len(plan.items)} matrices", resumed=len(journal.done))
    writer = Writer(plan, journal)
    yield from _counted(plan, _write_all(plan, text, writer))
    copy_sidecars(plan.source, plan.partial)
    certify.write_config(plan)
    certificate: dict[str, Any] = yield from certify.certify(plan, writer.rows, writer.sums, text)
    certify.publish(plan)
    yield Finished(str(plan.out), certificate)


def job_hash(plan: Plan, text: Text | None) -> str:
    """SHA-256 of what decides the output's bytes: recipe, source tensors, calibration, layout, version, dtype."""
    source = sorted(
        (e.name, str(e.dtype), e.shape, e.path.stat().st_size) for e in plan.arch.checkpoint.tensors.values()
    )
    facts = {
        "version": bitwright.__version__,
        "recipe": plan.recipe.hash,
        "source": source,
        "changed": sorted(p.stat().st_mtime_ns for p in plan.arch.checkpoint.files),
        "layout": {name: size for name, (_, size) in plan.layout.files.items()},
        "calibration": None if text is None else text.calibration_hash,
        "arithmetic": [plan.device, str(machine.calibration_dtype(plan.device))],
    }
    return hashlib.sha256(json.dumps(facts, default=str, sort_keys=True).encode()).hexdigest()


def _distrust(plan: Plan, journal: Journal) -> None:
    """Forget journal lines whose bytes are no longer what was written."""
    for name, entry in list(journal.done.items()):
        if any(plan.layout.checksum(plan.partial, part) != crc for part, crc in entry["sums"].items()):
            del journal.done[name]


class Writer:
    """Writes finished tensors to their place and the journal, and keeps the rows of the report."""

    def __init__(self, plan: Plan, journal: Journal) -> None:
        self.plan, self.journal = plan, journal
        self.rows: dict[str, Row] = {}
        for name in journal.done:
            row = journal.row(name)
            if row is not None:
                self.rows[name] = row

    @property
    def sums(self) -> dict[str, int]:
        """CRC-32 of every stored tensor that is written."""
        return {part: crc for entry in self.journal.done.values() for part, crc in entry["sums"].items()}

    def finished(self, name: str) -> bool:
        """Whether a source tensor's output is already written."""
        return name in self.journal.done

    def copy(self, name: str) -> None:
        """Write a source tensor as it is, after checking that it is finite."""
        plan = self.plan
        entry = plan.arch.checkpoint.entry(name)
        crc = 0
        for start, piece in plan.arch.checkpoint.chunks(name, max(1, COPY_BYTES // max(entry.row_size, 1))):
            require_finite(f"{entry.path}: {name}", piece, start)
            crc = plan.layout.write(plan.partial, name, piece, start, crc)
        self.journal.add(f"copy:{name}", {name: crc}, None)

    def quantize(self, items: list[Item], found: Found) -> Iterator[Row]:
        """Quantize matrices that share input, scheme and method, piece by piece; write them and yield their rows."""
        tallies = [Tally(item, found) for item in items]
        if len(items) == 1:
            self._stream(tallies[0])
        else:
            whole = [read_rows(self.plan, item, 0, item.matrix.rows) for item in items]
            q = solve(torch.cat(whole), items[0], found)
            first = 0
            for tally, w in zip(tallies, whole, strict=True):
                self._write(tally, measure(self.plan, tally.item, found, 0, w, q.part(first, first + w.shape[0])))
                first += w.shape[0]
        for tally in tallies:
            row = tally.row(len(items))
            self.rows[row.name] = row
            self.journal.add(row.name, tally.sums, row)
            yield row

    def _stream(self, tally: Tally) -> None:
        """One matrix in pieces; where nothing orders them, as many at once as torch may use threads."""
        plan, item, found = self.plan, tally.item, tally.found
        rows = piece_rows(item)

        def work(start: int) -> Piece:
            w = read_rows(plan, item, start, start + rows)
            return measure(plan, item, found, start, w, solve(w, item, found))

        starts = range(0, item.matrix.rows, rows)
        threads = torch.get_num_threads()
        if found.factor is not None or threads == 1 or plan.device != "cpu":
            for start in starts:
                self._write(tally, work(start))
            return
        # Small pieces gain nothing from torch's own threads: one thread a piece, several pieces under way.
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(threads) as pool:
                under_way: deque[Future[Piece]] = deque()
                for start in starts:
                    under_way.append(pool.submit(work, start))
                    if len(under_way) > 2 * threads:
                        self._write(tally, under_way.popleft().result())
                while under_way:
                    self._write(tally, under_way.popleft().result())
        finally:
            torch.set_num_threads(threads)

    def _write(self, tally: Tally, piece: Piece) -> None:
        """Write one piece to its place in every stored tensor, and count it."""
        plan, item = self.plan, tally.item
        for name, part in piece.parts.items():
            spec = plan.layout.place[name][2]
            # A piece covers the same share of every stored tensor; zero points pack several rows into one.
            first = piece.start * spec.shape[0] // item.matrix.rows
            if name.endswith("weight_zero_point"):
                first = piece.start * item.scheme.format.bits // 32
            if name.endswith("weight_shape"):
                if piece.start:
                    continue
                first = 0
            tally.sums[name] = plan.layout.write(plan.partial, name, part, first, tally.sums.get(name, 0))
        tally.add(piece)


@dataclass(frozen=True)
class Piece:
    """Some rows of a matrix, quantized: stored tensors by name, and sums for the report."""

    start: int
    parts: dict[str, torch.Tensor]
    error: Error
    loss: float
    power: float
    notes: tuple[str, ...]


def piece_rows(item: Item) -> int:
    """Rows of a matrix that are quantized at once: bounded memory, and a whole number of packed words of rows."""
    matrix = item.matrix
    if matrix.transposed or item.scheme.format.block == "tensor" or item.scheme.format.learned:
        return matrix.rows
    weights = SOLVE if item.layer.method in CALIBRATED else CACHED
    return max(32, weights // matrix.columns // 32 * 32)


def read_rows(plan: Plan, item: Item, start: int, stop: int) -> torch.Tensor:
    """Rows [start, stop) of a matrix as float32 on the plan's device, outputs first; TensorError where not finite."""
    checkpoint, matrix = plan.arch.checkpoint, item.matrix
    stored = (
        checkpoint.read(matrix.name).T.contiguous() if matrix.transposed else checkpoint.read(matrix.name, start, stop)
    )
    w = stored.to(plan.device).float()
    require_finite(f"{checkpoint.entry(matrix.name).path}: {matrix.name}", w, start)
    return w


def measure(plan: Plan, item: Item, found: Found, start: int, w: torch.Tensor, q: QTensor) -> Piece:
    """Pack and measure rows `w` of a matrix, quantized as `q`."""
    matrix, decoded = item.matrix, q.decode()
    module = output_module(plan, item)
    if plan.recipe.output == "float":
        value = decoded.T.contiguous() if matrix.transposed else decoded
        parts = {f"{module}.weight": value.to(plan.arch.checkpoint.entry(matrix.name).dtype).cpu()}
    else:
        parts = {name: part.cpu() for name, part in item.scheme.pack(module, q, matrix.rows).items()}
    loss = power = 0.0
    if found.stats is not None:
        loss = layer_error(w - decoded, found.stats.hessian)
        power = layer_error(w, found.stats.hessian)
    return Piece(start, parts, Error.between(w, decoded), loss, power, q.notes)


@dataclass(frozen=True)
class Found:
    """What calibration found out about a matrix: its input's record, the factor of it, and a reason to fall back."""

    stats: Stats | None = None
    factor: gptq.Factor | None = None
    fallback: str | None = None


class Tally:
    """The running measures of one matrix, over its pieces."""

    def __init__(self, item: Item, found: Found) -> None:
        self.item, self.found = item, found
        self.sums: dict[str, int] = {}
        self.error, self.loss, self.power = Error(), 0.0, 0.0
        self.notes = [note for note in (item.note, found.fallback) if note]
        self.started = time.perf_counter()

    def add(self, piece: Piece) -> None:
        """Count a piece."""
        self.error += piece.error
        self.loss += piece.loss
        self.power += piece.power
        self.notes += [note for note in piece.notes if note not in self.notes]

    def row(self, sharing: int) -> Row:
        """The report's row; `sharing` matrices shared the time."""
        matrix, scheme = self.item.matrix, self.item.scheme
        return Row(
            name=matrix.name,
            format=describe(scheme),
            method=method_of(self.item, self.found),
            rows=matrix.rows,
            columns=matrix.columns,
            stored_bits=scheme.format.stored_bits(matrix.rows, matrix.columns),
            mse=self.error.mse,
            psnr=self.error.psnr(),
            sqnr=self.error.sqnr,
            cosine=self.error.cosine,
            output_error=self.loss / self.power if self.power else None,
            tokens=None if self.found.stats is None else self.found.stats.n,
            seconds=round((time.perf_counter() - self.started) / sharing, 4),
            notes=tuple(self.notes),
        )


def method_of(item: Item, found: Found) -> str:
    """The method that is used: the one asked for, or scale search where calibration did not reach the matrix."""
    return "mse" if found.fallback and item.layer.method in CALIBRATED else item.layer.method


def solve(w: torch.Tensor, item: Item, found: Found) -> QTensor:
    """Quantize `w` [rows, columns] by the item's method and options."""
    f, options, method = item.scheme.format, item.layer.options, method_of(item, found)
    if method == "rtn":
        return rtn.quantize(w, f)
    if method == "mse":
        return mse.quantize(w, f, found.stats)
    if method == "lloyd":
        return lloyd.quantize(w, f, found.stats)
    shared: dict[str, Any] = {"damping": options.damping, "order": options.order, "factor": found.factor}
    if method == "gptq":
        return gptq.quantize(w, f, found.stats, **shared)
    return descent.quantize(w, f, found.stats, sweeps=options.sweeps, **shared)


def _counted(plan: Plan, events: Iterator[Event]) -> Iterator[Event]:
    """The same events; each `Progress` comes in with its own bytes and goes out with the sum and the total."""
    total = plan.source_bytes
    if plan.calibrated:
        total += sum(e.size for block in range(plan.arch.count) for e in plan.arch.tensors_of(block))
    done = 0.0
    for event in events:
        if isinstance(event, Progress):
            done += event.done
            event = replace(event, done=min(done, total), total=total)
        yield event


def _write_all(plan: Plan, text: Text | None, writer: Writer) -> Iterator[Event]:
    """All tensors, those outside the blocks first; each `Progress` counts its own source bytes."""
    walk = Calibration(plan, text) if text is not None and plan.uses_text else None
    for block in [None, *range(plan.arch.count)]:
        entries = plan.arch.tensors_of(block)
        if block is None:
            entries += [plan.arch.checkpoint.tensors[name] for name in plan.arch.outside]
        todo = [plan.items[e.name] for e in entries if e.name in plan.items]
        if all(writer.finished(item.matrix.name) for item in todo):
            todo = []
        recorder = None
        if walk is not None and block is not None:
            recorder = yield from walk.through(block, [item.matrix for item in todo])
        for entry in entries:
            if entry in plan.copies and not writer.finished(f"copy:{entry.name}"):
                writer.copy(entry.name)
            if entry.name not in plan.items or writer.finished(entry.name):
                yield Progress("quantize", entry.size, 0, entry.name)
        for items, found in _batches(plan, todo, recorder, writer.finished):
            left = [item.matrix.name for item in items if not writer.finished(item.matrix.name)]
            yield from writer.quantize(items, found)
            size = sum(plan.arch.checkpoint.entry(name).size for name in left)
            yield Progress("quantize", size, 0, items[0].matrix.name)


def _batches(
    plan: Plan, todo: list[Item], recorder: Recorder | None, finished: Callable[[str], bool]
) -> Iterator[tuple[list[Item], Found]]:
    """The matrices of a block with what calibration found; small ones with one input and one scheme go together.

    The columns of a batch are visited once for all its rows, and its Hessian is factorised once. A batch that was half
    written comes back whole: the last bit of a matrix product depends on how many rows go through it at once.
    """
    together: dict[Any, list[Item]] = {}
    for item in todo:
        leader = None if recorder is None else recorder.leader.get(item.matrix.name)
        alone = leader is None or item.layer.method not in CALIBRATED or item.scheme.format.block == "tensor"
        key = item.matrix.name if alone else (leader, item.scheme, item.layer)
        together.setdefault(key, []).append(item)
    for items in together.values():
        if all(finished(item.matrix.name) for item in items):
            continue
        found = _calibrate(plan, items[0], recorder)
        whole = sum(item.matrix.rows for item in items) <= piece_rows(items[0])
        for batch in [items] if whole else [[item] for item in items]:
            if not all(finished(item.matrix.name) for item in batch):
                yield batch, found


def _calibrate(plan: Plan, item: Item, recorder: Recorder | None) -> Found:
    """The record of a matrix's input and its factor, or the reason why a data-free method must do."""
    matrix, layer = item.matrix, item.layer
    nearest = "scales searched, rounded to nearest"
    if recorder is None:
        return Found(fallback=f"calibration does not reach it: {nearest}" if layer.method in CALIBRATED else None)
    stats = recorder.stats.get(recorder.leader.get(matrix.name, ""))
    seen = 0 if stats is None else stats.n
    least = plan.recipe.calibration.min_expert_tokens if matrix.expert is not None else 1
    if seen < max(least, 1):
        what = "never used" if matrix.expert is None else f"expert {matrix.expert} saw {seen} of {least} tokens needed"
        return Found(stats, fallback=f"{what}: {nearest}")
    if layer.method not in CALIBRATED:
        return Found(stats)
    assert stats is not None
    return Found(stats, gptq.factorise(stats, layer.options.damping, layer.options.order))


class Calibration:
    """Carries the calibration windows through the float model, block after block."""

    def __init__(self, plan: Plan, text: Text) -> None:
        self.plan = plan
        self.decoder = Decoder(plan.arch, device=plan.device)
        length = text.calibration.shape[1]
        self.hidden = Activations(plan.activation_budget(), plan.partial)
        for batch in batches(text.calibration, max(1, BATCH_TOKENS // length)):
            self.hidden.append(self.decoder.enter(batch))

    def through(self, block: int, matrices: list[Matrix]) -> Generator[Event, None, Recorder | None]:
        """Run all windows through one block; returns a Recorder of the inputs of `matrices` (None if there are none).

        Every matrix sees the float model's own inputs, so blocks do not depend on one another's codes: work done
        before an interruption is the same in any order.
        """
        arch = self.plan.arch
        if not matrices and block == arch.count - 1:
            return None
        weights = self.decoder.weights(block)
        for name, tensor in weights.items():
            require_finite(f"{arch.checkpoint.entry(name).path}: {name}", tensor)
        size = sum(tensor.nbytes for tensor in weights.values())
        with self.decoder.loaded(block, weights) as module:
            del weights
            recorder = Recorder(module, f"{arch.blocks}.{block}", matrices)
            for i in range(len(self.hidden)):
                with recorder if matrices else nullcontext():
                    self.hidden[i] = self.decoder.run(block, self.hidden[i])
                recorder.next_batch()
                yield Progress("quantize", size / len(self.hidden), 0, f"calibrating block {block + 1} of {arch.count}")
        for leader, stats in recorder.stats.items():
            require_finite(f"{leader}: second moment of its input", stats.moment)
        return recorder if matrices else None
