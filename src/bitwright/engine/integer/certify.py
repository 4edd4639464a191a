"""Nothing gets its final name before its bytes were read back, run by ONNX Runtime and compared with our simulation."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

import bitwright
from bitwright.core.measure import Error
from bitwright.engine import machine
from bitwright.engine.certify import hashes
from bitwright.engine.integer.plan import Plan
from bitwright.engine.integer.quantize import Quantized
from bitwright.engine.integer.verdict import measure
from bitwright.engine.report import certificate_path
from bitwright.errors import CertificationError
from bitwright.events import Event, Progress, Started
from bitwright.files.onnx import decode, from_matrix, read, side_file, write
from bitwright.models.network.session import Session, latency, profile
from bitwright.models.network.walk import simulate
from bitwright.models.samples.open import Batch

Array = npt.NDArray[Any]
MARGIN = 3.0
"""dB by which the runtime must be nearer to our simulation of the integer network than to the float network."""
SAME = 40.0
"""dB of SQNR at which the runtime's outputs and our simulation's are the same whatever the float network says."""
LOOK = 2
"""Batches that are run by both."""


def certify(
    plan: Plan, made: Quantized, kept: list[str], batches: Sequence[Batch]
) -> Generator[Event, None, dict[str, Any]]:
    """Write the network under its partial name, read it back, and compare; returns the certificate.

    1. `onnx.checker` accepts the file and every weight decodes to what was meant, bit for bit. 2. ONNX Runtime, with
    all its integer kernels, answers as our own simulation does. 3. The verdict: both networks on held-out samples, in
    ONNX Runtime. 4. What really runs in integers, and how fast, against the float file. Raises CertificationError.
    """
    yield Started("certify", str(plan.partial))
    files = write(made.model, plan.partial)
    stored = read(plan.partial)
    try:
        onnx.checker.check_model(str(plan.partial), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CertificationError(
            f"onnx.checker refuses it ({str(error).splitlines()[0]})", where=str(plan.partial), fix="Please report this"
        ) from error
    check_weights(plan, made, stored)
    yield Progress("certify", 1, 4, "comparing with our own simulation")
    simulated = check_answers(plan, made, [batch.feeds for batch in batches[:LOOK]]) if batches else None
    yield Progress("certify", 2, 4, "measuring on held-out samples")
    verdict = None
    if plan.samples:
        verdict = measure(plan.samples[1], plan.recipe.data, plan.source, plan.partial, batches).summary()
    yield Progress("certify", 3, 4, "profiling")
    speed = _speed(plan, batches[0]) if batches else None
    certificate = {
        "bitwright": bitwright.__version__,
        "kind": "network",
        "decoder": {"onnx": version("onnx"), "onnxruntime": version("onnxruntime")},
        "source": {"folder": plan.source.name, "sha256": hashes([plan.source]), "bytes": plan.source.stat().st_size},
        "output": {
            "sha256": hashes(files),
            "bytes": sum(file.stat().st_size for file in files),
        },
        "recipe": {"sha256": plan.recipe.hash, **plan.recipe.model_dump(mode="json")},
        "data": None if plan.samples is None else dict(
            zip(("calibration", "heldout"), (part.summary for part in plan.samples), strict=True)
        ),
        "stored_bits_per_weight": sum(row.stored_bits for row in made.rows)
        / max(sum(row.rows * row.columns for row in made.rows), 1),
        "quantized_weights": sum(row.rows * row.columns for row in made.rows),
        "activations": {n: {"scale": a.scale, "zero": a.zero, "low": a.low, "high": a.high}
                        for n, a in made.activations.items()},
        "verdict": verdict,
        "simulation": simulated,
        "speed": speed,
        "kept_float": kept,
        "float_nodes": dict(made.placement.floats),
        "peak_memory_bytes": machine.resident("VmHWM"),
        "notes": plan.notes,
        "rows": [row.json() for row in made.rows],
        "histogram": histogram(plan, made),
    }  # fmt: skip
    yield Progress("certify", 4, 4, "done")
    return certificate


def check_weights(plan: Plan, made: Quantized, stored: onnx.ModelProto) -> None:
    """Raise CertificationError where a written weight does not decode to what was meant."""
    found = decode(stored)
    layers = {layer.weight: layer for layer in plan.graph.layers}
    for name, q in made.weights.items():
        wanted = from_matrix(layers[name], np.asarray(q.decode()))
        back = found.get(name, found.get(f"{name}_packed"))  # MatMulNBits stores it under a name of its own
        if back is None or not np.array_equal(back, wanted):
            raise CertificationError(
                "its codes in the file do not decode to what was meant", where=name, fix="Please report this"
            )


def check_answers(plan: Plan, made: Quantized, feeds: Sequence[dict[str, Array]]) -> dict[str, Any]:
    """ONNX Runtime on the written file against our simulation, output by output; raises where they part.

    Integer kernels round at other places than the simulation, so single codes differ; the network as a whole may not.
    """
    runtime, source = Session(plan.partial), Session(plan.source)
    simulated = simulate(plan.graph, made.placement, made.activations, made.twin, feeds)
    found = {}
    for name in runtime.outputs:
        near, far = Error(), Error()
        for i, batch in enumerate(feeds):
            theirs = runtime.run(batch, [name])[name]
            near += Error.between(simulated[name][i], theirs)
            far += Error.between(source.run(batch, [name])[name], theirs)
        if near.sqnr < min(SAME, far.sqnr + MARGIN) and near.noise > 0:
            raise CertificationError(
                f"ONNX Runtime answers unlike our simulation ({near.sqnr:.1f} dB; the float network: {far.sqnr:.1f})",
                where=name,
                fix="A kernel of this machine may saturate (no VNNI): try another target, and please report this",
            )
        found[name] = {"sqnr_db": near.sqnr, "float_sqnr_db": far.sqnr}
    return found


def _speed(plan: Plan, batch: Batch) -> dict[str, Any]:
    """Latency of one sample (or the smallest batch) in both networks, one thread, and where the integer one's goes."""
    size = plan.samples[1].fixed or 1 if plan.samples else 1
    feeds = {name: array[:size] for name, array in batch.feeds.items()}
    pair, where = latency(plan.source, plan.partial, feeds), profile(plan.partial, feeds)
    return {
        "batch": size, "float_ms": pair.float_ms, "integer_ms": pair.integer_ms, "ratio": pair.ratio,
        "threads": pair.threads, "runs": pair.runs, "kernels": where.counts, "conversions": where.conversions,
        "integer_share": where.integer_share, "conversion_share": where.conversion_share,
        "float_products": list(where.float_products),
    }  # fmt: skip


def histogram(plan: Plan, made: Quantized) -> dict[str, Any]:
    """Counts of the worst layer's weights before and after, over 96 bins of its range."""
    row = min(made.rows, key=lambda r: r.sqnr)
    layer = plan.graph.layer(row.name)
    before, after = plan.graph.matrix(layer), np.asarray(made.weights[layer.weight].decode())
    low, high = float(before.min()), float(before.max())
    bins = 96
    return {
        "name": row.name, "low": low, "high": high,
        "before": np.histogram(before, bins, (low, high))[0].tolist(),
        "after": np.histogram(np.clip(after, low, high), bins, (low, high))[0].tolist(),
    }  # fmt: skip


def publish(plan: Plan, certificate: dict[str, Any]) -> None:
    """Give the network and its certificate their final names, durably; external data moves along."""
    text = json.dumps(certificate, indent=1, allow_nan=False, default=float)
    certificate_path(plan.partial).write_text(text + "\n")
    for path in parts(plan.partial):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.rename(plan.out.with_name(path.name))


def parts(out: Path) -> list[Path]:
    """The files that an output has so far: the network comes last."""
    return [path for path in (certificate_path(out), side_file(out), out) if path.exists()]
