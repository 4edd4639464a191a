"""The written folder, read back by others and held against what was meant."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from bitwright import machine
from bitwright.core.measure import Error, kl
from bitwright.errors import CertificationError
from bitwright.events import Event, Progress, Row
from bitwright.files.folder import require_finite, without_bars
from bitwright.files.quantized import QuantizedCheckpoint
from bitwright.files.safetensors import Checkpoint
from bitwright.models.language.arch import Architecture
from bitwright.models.language.blocks import Decoder, Passage, Unchained, release, running
from bitwright.models.language.cache import aside
from bitwright.models.language.compare import decoder_of
from bitwright.models.language.memory import CACHED, LOAD_LIMIT, checked_rows, loading_memory
from bitwright.models.language.sink import FolderSink, sink_of
from bitwright.models.language.text import Text
from bitwright.models.model import Item, Plan
from bitwright.parallel import in_order

LOGIT_TOLERANCE = 1e-5
"""Largest KL (nats) between our decode and the runtime's own, both in float32: above rounding, below any change."""


SHARE = 0.1
"""Largest mean KL between the runtime's answers and ours with rounded inputs, keys or values, as a share of what that
rounding costs: a number at the border of two codes may fall either way, and no more."""


def verify(
    plan: Plan, arch: Architecture, sink: FolderSink, rows: Mapping[str, Row], sums: Mapping[str, int]
) -> Iterator[Event]:
    """Hold the folder against what was meant, by the container's independent decoder; raises CertificationError.

    1. Every stored tensor has the CRC-32 it was written with. 2. Every quantized matrix decodes as by us, to the bit,
    is finite, and has the error that was measured when it was written. 3. Every other tensor equals its source.
    """
    sink.require_intact(sums)
    written = sink.open(sink.folder)
    for done, item in enumerate(plan.items.values(), 1):
        check_matrix(plan, arch.checkpoint, written, f"{sink.module(item)}.weight", item, rows[item.name])
        yield Progress("certify", done, len(plan.items), f"decoding {item.name}")
    for entry in sink.copies:
        if not sink.same(written, entry.name):
            raise CertificationError(
                "does not read back as it was", where=entry.name, fix="Remove the partial output, run again"
            )


def check_matrix(plan: Plan, source: Checkpoint, written: Checkpoint, weight: str, item: Item, row: Row) -> None:
    """Raise CertificationError where a written matrix is not what was measured, or others read it differently."""
    name, entry = item.name, source.entry(item.name)
    # Stored rows: a transposed matrix is written in the source's own order.
    least = plan.container.step(item.format)
    step = max(1, CACHED // entry.shape[1]) if item.part.transposed else checked_rows(item, least)
    errors: list[Error] = []

    def work(start: int) -> Error:
        decoded = _decode(written, weight, start, start + step, name)
        return Error.between(source.read(name, start, start + step), decoded)

    in_order(work, range(0, entry.shape[0], step), errors.append)
    error, slack = sum(errors, Error()), plan.container.slack
    exact = plan.container.study and error.noise == 0  # what was recovered becomes its weights as they are stored
    if row.sqnr != error.sqnr and not exact and not abs(error.sqnr - row.sqnr) <= slack * max(abs(row.sqnr), 1.0):
        raise CertificationError(
            f"reads back with SQNR {error.sqnr:.3f} dB, was written with {row.sqnr:.3f} dB",
            where=name,
            fix="The disk or memory may be faulty; remove the partial output and run again",
        )


def _decode(written: Checkpoint, weight: str, start: int, stop: int, name: str) -> torch.Tensor:
    """Rows [start, stop) of a written matrix, finite and decoded alike by us and by others, or else an error."""
    if not isinstance(written, QuantizedCheckpoint) or weight not in written.quantized:
        plain = written.read(weight, start, stop).float()
        require_finite(name, plain, start)
        return plain
    own: torch.Tensor = written.qtensor(weight, start, stop).decode()
    require_finite(name, own, start)
    theirs = written.by_library(weight, start, stop)
    if not torch.equal(own.to(theirs.dtype), theirs):
        worst = float((own - theirs.float()).abs().max())
        raise CertificationError(
            f"{written.library} decodes it differently (by up to {worst:g})",
            where=name,
            fix="Please report this; the partial output was kept",
        )
    return own


def load_as_user(plan: Plan, arch: Architecture, text: Text | None) -> dict[str, Any]:
    """What happens when transformers loads the whole folder; skipped, and said so, where memory would not hold it.

    Raises CertificationError where it cannot, or answers unlike our own decode.
    """
    if machine.resident() + loading_memory(plan, arch) > plan.room:
        return {"checked": False, "why": "the whole model does not fit under the memory ceiling"}
    if 4 * arch.weights > LOAD_LIMIT:
        return {"checked": False, "why": "every matrix was decoded instead: loading so large a model takes minutes"}
    with without_bars():
        dequantized = plan.unpacks
        model = plan.container.load(plan.partial, dequantized)
    if model is None:
        return {"checked": False, "why": plan.container.unread}
    ids = text.heldout[:1, :64] if text is not None else torch.arange(1, 33)[None]
    found: dict[str, Any] = {"checked": True}
    with torch.no_grad(), without_bars(), running(arch):
        if dequantized:
            # It leaves experts in the stored dtype, and would multiply in it: routers near a tie would then differ.
            model = model.float()
            found["dequantize"] = True
        theirs = model(input_ids=ids, use_cache=False).logits
        caches = plan.container.cache is not None and not dequantized
        if caches or any(item.activations != "none" for item in plan.items.values()):
            # Rounded inputs are what was asked for, no fault of the bytes: their cost is told apart.
            rounded = theirs
            plan.container.keep_inputs(model)
            theirs = model(input_ids=ids, use_cache=False).logits
            found["activations_kl"] = float(kl(theirs, rounded).mean())
        if caches:
            _require_scales(plan, model)
    del model
    gc.collect()  # a model refers to itself
    release()
    try:
        ours = answers(decoder_of(plan.partial, exact=not dequantized, rounded=False), ids)
        divergence = float(kl(theirs, ours).max())
        if caches:
            found["rounded"] = "keys and values"
            if any(item.activations != "none" for item in plan.items.values()):
                found["rounded"] = "activations, keys and values"
            apart = float(kl(rounded, answers(decoder_of(plan.partial, exact=True), ids)).mean())
            if not apart <= max(LOGIT_TOLERANCE, found["activations_kl"] * SHARE):
                raise CertificationError(
                    f"transformers rounds {found['rounded']} differently: its answers are {apart:.2g} nats off, and "
                    f"rounding costs {found['activations_kl']:.2g}",
                    where=str(plan.partial), fix="Please report this; the partial output was kept",
                )  # fmt: skip
    except Unchained as error:
        return {**found, "checked": False, "why": f"transformers loads it; answers were not compared: {error.what}"}
    if not divergence <= LOGIT_TOLERANCE:
        raise CertificationError(
            f"transformers loads the folder but answers differently (KL {divergence:.2g} nats)",
            where=str(plan.partial),
            fix="Please report this; the partial output was kept",
        )
    return {**found, "max_kl": divergence}


def answers(decoder: Decoder, ids: torch.Tensor) -> torch.Tensor:
    """The logits of a decoder, block by block."""
    passage = Passage(ids)
    hidden = decoder.enter(passage)
    for block in range(decoder.arch.count):
        with decoder.loaded(block):
            hidden = decoder.run(block, hidden, passage)
    return decoder.logits(hidden)


def _require_scales(plan: Plan, model: Any) -> None:
    """Raise CertificationError where a model that transformers loaded has other scales of keys and values than ours."""
    sink = sink_of(plan)
    for one in sink.attentions:
        held = sink.kept(aside(one)).tensors
        for scale in one.scales:
            if not torch.equal(model.get_parameter(scale).data, held[one.name_of(scale)].float()):
                raise CertificationError(
                    "transformers does not take it as it is stored", where=scale,
                    fix="Please report this; the partial output was kept",
                )  # fmt: skip
