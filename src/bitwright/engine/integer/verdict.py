"""How the integer network compares with the float one on samples: the task's measure, and what counts as a drop."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import onnx

from bitwright.errors import DataError
from bitwright.models.network.session import Session
from bitwright.models.samples.open import Batch, Samples
from bitwright.models.tasks.verdict import Verdict, compare
from bitwright.recipe import Data


class Measured(NamedTuple):
    """What a task is judged by: its name and how far it fell, in percentage points."""

    name: str
    value: float


def measure(
    samples: Samples,
    data: Data,
    before: onnx.ModelProto | Path,
    after: onnx.ModelProto | Path,
    batches: Iterable[Batch] | None = None,
) -> Verdict:
    """Both networks on the same samples (or `batches` of them), in ONNX Runtime as a user runs them."""
    sessions = [Session(model) for model in (before, after)]
    total: Verdict | None = None
    for batch in samples if batches is None else batches:
        outputs = [session.run(batch.feeds) for session in sessions]
        part = compare(
            samples.task, outputs[0], outputs[1], batch.labels,
            count=len(batch.names), classes=samples.classes or (), blank=data.blank,
        )  # fmt: skip
        total = part if total is None else total + part
    if total is None:
        raise DataError("no samples to judge by", where="data.heldout", fix="Give some")
    return total


def drop(verdict: Verdict) -> Measured:
    """The drop of the task's own measure; without labels, of the agreement on the best class.

    Raises DataError where the outputs allow neither.
    """
    if verdict.top1 is not None:
        return Measured("accuracy", 100 * (verdict.top1.before.value - verdict.top1.after.value))
    found = verdict.summary()
    for before, after, name, sign in (
        ("wer_float", "wer_quantized", "word error rate", -1),
        ("map_float", "map_quantized", "mAP", 1),
    ):
        if before in found:
            return Measured(name, 100 * sign * (float(found[before]) - float(found[after])))
    if verdict.scores is not None:
        return Measured("top-1 agreement", 100 * (1 - verdict.scores.agree.value))
    raise DataError("nothing to judge a drop by", where="network.max_drop", fix="Give labels, or leave it out")
