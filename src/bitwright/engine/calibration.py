"""What the layers' inputs say: calibration text carried through the float model, block after block."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from bitwright.core.stats import Stats
from bitwright.engine.plan import BATCH_TOKENS, Item, Plan, piece_rows
from bitwright.engine.text import Text
from bitwright.events import Event, Progress
from bitwright.files.folder import require_finite
from bitwright.methods import gptq
from bitwright.models.language.arch import Matrix
from bitwright.models.language.blocks import Activations, Decoder, Recorder
from bitwright.models.language.evaluate import batches
from bitwright.recipe import CALIBRATED


@dataclass(frozen=True)
class Found:
    """What calibration found out about a matrix: its input's record, the factor of it, and a reason to fall back."""

    stats: Stats | None = None
    factor: gptq.Factor | None = None
    fallback: str | None = None


def group(
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
        found = _find(plan, items[0], recorder)
        whole = sum(item.matrix.rows for item in items) <= piece_rows(items[0])
        for batch in [items] if whole else [[item] for item in items]:
            if not all(finished(item.matrix.name) for item in batch):
                yield batch, found
        del found


def _find(plan: Plan, item: Item, recorder: Recorder | None) -> Found:
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
