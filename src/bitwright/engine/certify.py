"""Certified output: nothing gets its final name before its bytes were read back by others and found right."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import bitwright
from bitwright.core.measure import Error, kl
from bitwright.engine import journal, machine, text
from bitwright.engine.measure import decoder_of, measure_folders
from bitwright.engine.parallel import in_order
from bitwright.engine.plan import CACHED, COPY_BYTES, Plan, checked_rows, output_module
from bitwright.errors import CertificationError
from bitwright.events import Event, Progress, Row, Started
from bitwright.files.compressed_tensors import decode_by_library, quantization_config, unpack
from bitwright.files.folder import open_checkpoint, require_finite
from bitwright.files.safetensors import Checkpoint

CERTIFICATE = "certificate.json"
LOGIT_TOLERANCE = 1e-5
"""Largest KL (nats) between our decode and the runtime's own, both in float32: above rounding, below any change."""

LOAD_LIMIT = 1 << 30
"""Bytes of float32 weights up to which the whole folder is also loaded as a user would load it."""


def write_config(plan: Plan) -> None:
    """config.json of the output: the source's, with `quantization_config`, and untied where the head was."""
    config = json.loads((plan.source / "config.json").read_text("utf-8"))
    if plan.untied:
        config["tie_word_embeddings"] = False
    if plan.recipe.output == "compressed-tensors":
        schemes: dict[Any, list[str]] = {}
        for item in plan.items.values():
            module = item.matrix.module if item.matrix.expert is not None else item.matrix.param.removesuffix(".weight")
            schemes.setdefault(item.scheme, []).append(module)
        done = {item.matrix.param.removesuffix(".weight") for item in plan.items.values()}
        linear = {name for name, m in plan.arch.model.named_modules() if isinstance(m, torch.nn.Linear)}
        config["quantization_config"] = quantization_config(schemes, linear - done, version("compressed-tensors"))
    (plan.partial / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def certify(
    plan: Plan, rows: dict[str, Row], sums: dict[str, int], words: text.Text | None
) -> Generator[Event, None, dict[str, Any]]:
    """Read the written folder back and compare; returns the certificate, also written beside the weights.

    1. Every stored tensor must have the CRC-32 it was written with (`sums`). Every quantized matrix is decoded by the
    compressed-tensors library and must equal our own decode to the bit, be finite, and have the error that was measured
    when it was written. 2. Every other tensor must equal its source. 3. Held-out text runs through the float model and
    through the library's decode. 4. Where it fits in memory, transformers loads the folder as a user would, and its
    logits must agree. Raises CertificationError.
    """
    yield Started("certify", str(plan.partial))
    with ThreadPoolExecutor(1) as pool:
        # Hashing needs no interpreter lock: it runs beside the comparisons.
        sources = pool.submit(hashes, plan.arch.checkpoint.files)
        outputs = pool.submit(hashes, sorted(plan.partial.glob("*.safetensors")))
        _check_bytes(plan, sums)
        written = open_checkpoint(plan.partial)
        names = list(plan.items)
        for done, name in enumerate(names, 1):
            check_matrix(plan, written, name, rows[name])
            yield Progress("certify", done, len(names), f"decoding {name}")
        for entry in plan.copies:
            _check_copy(plan, written, entry.name)
        comparison = None
        if words is not None:
            comparison = yield from measure_folders(
                plan.source,
                plan.partial,
                words.heldout,
                budget=plan.activation_budget() // 2,
                spill=plan.partial,
                phase="certify",
            )
        loaded = _load_as_user(plan, words)
        yield Progress("certify", 1, 1, "hashing")
        certificate = {
            "bitwright": bitwright.__version__,
            "decoder": {"compressed-tensors": version("compressed-tensors"), "transformers": version("transformers")},
            "source": {"folder": plan.source.name, "sha256": sources.result(), "bytes": plan.source_bytes},
            "output": {"sha256": outputs.result(), "bytes": plan.layout.total_bytes},
            "recipe": {"sha256": plan.recipe.hash, **plan.recipe.model_dump(mode="json")},
            "text": words.summary if words else None,
            "stored_bits_per_weight": plan.stored_bits,
            "quantized_weights": plan.weights,
            "verdict": comparison.summary() if comparison else None,
            "loaded_by_transformers": loaded,
            "peak_memory_bytes": machine.resident("VmHWM"),
            "notes": plan.notes,
            "rows": [rows[name].json() for name in names],
            "histogram": _histogram(plan, written, rows),
        }
    (plan.partial / CERTIFICATE).write_text(json.dumps(certificate, indent=1) + "\n")
    return certificate


def hashes(files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of each file, by name."""
    found = {}
    for path in files:
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _check_bytes(plan: Plan, sums: dict[str, int]) -> None:
    """Raise CertificationError where a file's header or a tensor is not what was written."""
    damaged = [file for file in plan.layout.files if not plan.layout.intact(plan.partial, file)]
    damaged = damaged or [n for n in plan.layout.place if plan.layout.checksum(plan.partial, n) != sums.get(n)]
    if damaged:
        raise CertificationError(
            "the bytes on disk are not those that were written",
            where=damaged[0],
            fix="The disk or memory may be faulty; run the same command again: it writes them anew",
        )


def check_matrix(plan: Plan, written: Any, name: str, row: Row) -> None:
    """Raise CertificationError where a written matrix is not what was measured, or the library reads it differently."""
    item, entry = plan.items[name], plan.arch.checkpoint.entry(name)
    module = output_module(plan, item)
    # Stored rows: a transposed matrix is written as float, in the source's own order.
    step = max(1, CACHED // entry.shape[1]) if item.matrix.transposed else checked_rows(item)
    errors: list[Error] = []

    def work(start: int) -> Error:
        if plan.recipe.output == "float":
            decoded = written.read(f"{module}.weight", start, start + step).float()
            require_finite(name, decoded, start)
        else:
            decoded = _decode(written, f"{module}.weight", start, start + step, name)
        return Error.between(plan.arch.checkpoint.read(name, start, start + step), decoded)

    in_order(work, range(0, entry.shape[0], step), errors.append)
    error = sum(errors, Error())
    # Float output is rounded once more on storing; codes are not.
    slack = 0.05 if plan.recipe.output == "float" else 1e-3
    if row.sqnr != error.sqnr and not abs(error.sqnr - row.sqnr) <= slack * max(abs(row.sqnr), 1.0):
        raise CertificationError(
            f"reads back with SQNR {error.sqnr:.3f} dB, was written with {row.sqnr:.3f} dB",
            where=name,
            fix="The disk or memory may be faulty; remove the partial output and run again",
        )


def _decode(written: Any, weight: str, start: int, stop: int, name: str) -> torch.Tensor:
    """Rows [start, stop) of a written matrix, finite and decoded alike by us and by the library, or else an error."""
    parts, scheme = written.parts(weight, start, stop), written.quantized[weight][1]
    own: torch.Tensor = unpack(parts, scheme).decode()
    require_finite(name, own, start)
    theirs = decode_by_library(parts, scheme)
    if not torch.equal(own.to(theirs.dtype), theirs):
        worst = float((own - theirs.float()).abs().max())
        raise CertificationError(
            f"the compressed-tensors library decodes it differently (by up to {worst:g})",
            where=name,
            fix="Please report this; the partial output was kept",
        )
    return own


def _check_copy(plan: Plan, written: Any, name: str) -> None:
    rows = max(1, COPY_BYTES // max(plan.arch.checkpoint.entry(name).row_size, 1))
    for start, piece in plan.arch.checkpoint.chunks(name, rows):
        back = written.read(name, start, start + rows)
        if not torch.equal(piece.reshape(-1).view(torch.uint8), back.reshape(-1).view(torch.uint8)):
            raise CertificationError(
                "does not read back as it was", where=name, fix="Remove the partial output, run again"
            )


def _load_as_user(plan: Plan, words: text.Text | None) -> dict[str, Any]:
    """What happens when transformers loads the whole folder; skipped, and said so, where memory would not hold it."""
    whole = 4 * sum(e.count for e in plan.arch.checkpoint.tensors.values())
    if machine.resident() + whole > (plan.ceiling or machine.default_ceiling()):
        return {"checked": False, "why": "the whole model does not fit under the memory ceiling"}
    if whole > LOAD_LIMIT:
        return {"checked": False, "why": "every matrix was decoded instead: loading so large a model takes minutes"}
    from compressed_tensors.quantization import disable_quantization
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig

    experts = any(item.matrix.expert is not None for item in plan.items.values())
    options: dict[str, Any] = {}
    if experts and plan.recipe.output == "compressed-tensors":
        options["quantization_config"] = CompressedTensorsConfig(dequantize=True)
    try:
        with warnings.catch_warnings():
            # "You passed quantization_config, but the model has one": that is how `dequantize` is asked for.
            warnings.simplefilter("ignore", UserWarning)
            model = AutoModelForCausalLM.from_pretrained(
                plan.partial, dtype=torch.float32, local_files_only=True, trust_remote_code=False, **options
            ).eval()
    except (RuntimeError, ValueError) as error:
        raise CertificationError(
            f"transformers cannot load the folder ({str(error).splitlines()[0]})",
            where=str(plan.partial),
            fix="compressed-tensors 0.18 to 0.20 misread zero points: install compressed-tensors<0.18, or --symmetric",
        ) from error
    ids = words.heldout[:1, :64] if words is not None else torch.arange(1, 33)[None]
    found: dict[str, Any] = {"checked": True}
    with torch.no_grad():
        if options:
            # It leaves experts in the stored dtype, and would multiply in it: routers near a tie would then differ.
            model = model.float()
            found["dequantize"] = True
        theirs = model(input_ids=ids).logits
        if any(item.scheme.activations != "none" for item in plan.items.values()):
            # Rounded inputs are what was asked for, no fault of the bytes: their cost is told, then left out.
            rounded = theirs
            model.apply(disable_quantization)
            theirs = model(input_ids=ids).logits
            found["activations_kl"] = float(kl(theirs, rounded).mean())
    del model
    decoder = decoder_of(plan.partial, exact=not options)
    hidden = decoder.enter(ids)
    for block in range(decoder.arch.count):
        with decoder.loaded(block):
            hidden = decoder.run(block, hidden)
    divergence = float(kl(theirs, decoder.logits(hidden)).max())
    if not divergence <= LOGIT_TOLERANCE:
        raise CertificationError(
            f"transformers loads the folder but answers differently (KL {divergence:.2g} nats)",
            where=str(plan.partial),
            fix="Please report this; the partial output was kept",
        )
    return {**found, "max_kl": divergence}


def _histogram(plan: Plan, written: Any, rows: dict[str, Row]) -> dict[str, Any]:
    """Counts of the worst matrix's weights before and after, over 96 bins of its range."""
    name = min(rows, key=lambda n: rows[n].sqnr)
    source, bins = plan.arch.checkpoint, 96
    step = max(1, CACHED // source.entry(name).shape[1])
    ends = [torch.stack(torch.aminmax(w.reshape(-1).float())) for _, w in source.chunks(name, step)]
    low, high = float(torch.stack(ends).min()), float(torch.stack(ends).max())

    def count(checkpoint: Checkpoint, name: str) -> list[int]:
        parts = [torch.histc(w.float(), bins, low, high).long() for _, w in checkpoint.chunks(name, step)]
        counts: list[int] = torch.stack(parts).sum(0).tolist()
        return counts

    after = f"{output_module(plan, plan.items[name])}.weight"
    return {"name": name, "low": low, "high": high, "before": count(source, name), "after": count(written, after)}


def publish(plan: Plan) -> None:
    """Make the partial folder durable and give it its final name; the work files go last, for resuming until then."""
    for path in plan.partial.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    for name in (journal.NAME, text.OWN):
        (plan.partial / name).unlink(missing_ok=True)
    plan.partial.rename(plan.out)
