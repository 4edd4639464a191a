"""Quantizes matrices, measures them, and writes each to its place in the output."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from bitwright.core.measure import Error, layer_error
from bitwright.core.qtensor import QTensor
from bitwright.engine.calibration import Found
from bitwright.engine.journal import Journal
from bitwright.engine.parallel import in_order
from bitwright.engine.plan import COPY_BYTES, Item, Plan, describe, output_module, piece_rows
from bitwright.events import Row
from bitwright.files.folder import require_finite
from bitwright.methods import descent, gptq, lloyd, mse, rtn
from bitwright.recipe import CALIBRATED


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
        if found.factor is None and plan.device == "cpu":
            in_order(work, starts, partial(self._write, tally))
            return
        for start in starts:
            self._write(tally, work(start))

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
