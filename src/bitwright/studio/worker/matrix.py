"""One matrix before and after: where its weights lie, and where the error comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.core.measure import Error
from bitwright.engine.report import certificate_path
from bitwright.errors import InputError
from bitwright.events import plain
from bitwright.libraries import load
from bitwright.studio.worker.jobs import recipe_of

BINS = 96
LEVELS = 64
"""Values up to which a decoded matrix is said to have levels."""
PIECE = 1 << 20
"""Weights read at once."""

Pair = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


def matrix(
    model: str, out: str, name: str, recipe: dict[str, Any], format: str, bundled: str | None = None
) -> dict[str, Any]:
    """Histograms of matrix `name` over BINS bins of its float weights' range, also of a run that is still going.

    "counts" of the float weights, "second" of the decoded ones, "errors": the share of the squared error that comes
    from the weights in each bin; "levels" where the decoded values are few, else None.
    """
    target = Path(out)
    if target.suffix == ".onnx":
        return _network(target, name, format)
    load()
    read = _finished if target.exists() else _partial
    pieces = list(read(Path(model), target, name, recipe, bundled))
    low = min(float(before.min()) for before, _ in pieces)
    high = max(float(before.max()) for before, _ in pieces)
    if not low < high:
        low, high = low - 1e-6, high + 1e-6
    counts, second = (np.zeros(BINS, np.int64) for _ in range(2))
    errors, error, levels = np.zeros(BINS), Error(), set[float]()
    for before, after in pieces:
        w, decoded = before.ravel(), after.ravel()
        counts += np.histogram(w, BINS, (low, high))[0]
        second += np.histogram(np.clip(decoded, low, high), BINS, (low, high))[0]
        lost = (w.astype(np.float64) - decoded) ** 2
        errors += np.histogram(w, BINS, (low, high), weights=lost)[0]
        error += Error.between(before, after)
        if len(levels) <= LEVELS:
            levels.update(np.unique(decoded[:PIECE]).tolist())
    total = float(errors.sum())
    rows = sum(before.shape[0] for before, _ in pieces)
    return plain(  # type: ignore[no-any-return]
        {
            "name": name, "rows": rows, "columns": pieces[0][0].shape[1], "format": format, "low": low, "high": high,
            "counts": counts.tolist(), "second": second.tolist(),
            "errors": (errors / total if total else errors).tolist(), "sqnr": error.sqnr, "mse": error.mse,
            "levels": sorted(levels) if len(levels) <= LEVELS else None,
        }
    )  # fmt: skip


def _finished(source: Path, out: Path, name: str, recipe: dict[str, Any], bundled: str | None) -> Iterator[Pair]:
    """Pieces of the matrix in the source, and as the finished folder's tensors decode."""
    from bitwright.files.folder import QuantizedCheckpoint, open_checkpoint

    before, after = open_checkpoint(source), open_checkpoint(out)
    stored = name
    if name not in after.tensors:  # a head that was stored apart from its embedding
        stored = next((other for other in after.tensors if other.endswith("lm_head.weight")), name)
    entry, step = before.entry(name), 1
    if isinstance(after, QuantizedCheckpoint) and stored in after.quantized:
        step = after.quantized[stored][1].rows_per_word
    rows = max(1, PIECE // entry.shape[1] // step) * step
    for start, piece in before.chunks(name, rows):
        yield piece.float().numpy(), after.read(stored, start, start + rows).float().numpy()


def _partial(source: Path, out: Path, name: str, recipe: dict[str, Any], bundled: str | None) -> Iterator[Pair]:
    """The same of a run that is still going: the plan knows what config.json will say."""
    from bitwright.engine import plan as planning
    from bitwright.files.containers.compressed_tensors.layout import unpack
    from bitwright.files.safetensors import Checkpoint

    plan = planning.make(source, out, recipe_of(recipe, bundled), check_out=False)
    if name not in plan.items:
        raise InputError("is not a matrix that this run quantizes", where=name, fix="Choose one of the rows")
    item, written = plan.items[name], Checkpoint(plan.partial)
    module = planning.output_module(plan, item)
    original = plan.arch.checkpoint.read(name).float().numpy()
    if plan.recipe.output == "float":
        yield original, written.read(f"{module}.weight").float().numpy()
        return
    parts = item.scheme.specs(module, item.matrix.rows, item.matrix.columns)
    stored = {spec.name.rpartition(".")[2]: written.read(spec.name) for spec in parts}
    yield original, unpack(stored, item.scheme).decode().numpy()


def _network(out: Path, name: str, format: str) -> dict[str, Any]:
    """What the certificate holds of an ONNX network's worst layer."""
    certificate = json.loads(certificate_path(out).read_text("utf-8"))
    found = certificate["histogram"]
    row = next((row for row in certificate["rows"] if row["name"] == name), None)
    if row is None or found["name"] != name:
        raise InputError(
            "folding and equalization change a network's weights before they are rounded, so the file does not hold "
            "what to compare them with",
            where=name,
            fix=f"The certificate keeps both for the worst layer, {found['name']}",
        )
    return {
        "name": name, "rows": row["rows"], "columns": row["columns"], "format": format, "low": found["low"],
        "high": found["high"], "counts": found["before"], "second": found["after"], "errors": [],
        "sqnr": row["sqnr"], "mse": row["mse"], "levels": None,
    }  # fmt: skip
