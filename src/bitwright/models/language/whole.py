"""One decoder block as methods of scope "block" get it: other matrices can be put in, and it says how far it is off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from bitwright.core.qtensor import QTensor
from bitwright.models.language.activations import Activations
from bitwright.models.language.blocks import Decoder, Passage
from bitwright.models.language.places import Places
from bitwright.models.model import Item, Turn


@dataclass(frozen=True)
class Draft:
    """Where learning begins with one matrix: the codes `q` that were found for `target` in its own `turn`.

    `correction` says how far that target makes up for earlier errors.
    """

    target: torch.Tensor
    q: QTensor
    turn: Turn
    correction: str | None = None


@dataclass
class Whole:
    """A block that is loaded with what was found of its matrices so far, and whose `items` are to be learned together.

    `inputs` are what the quantized network feeds it, `answers` what the float network answers there, batch by batch
    with `passages`. `watch` makes the watcher of one pass: it rounds inputs of matrices, and routes to experts, as the
    quantized network does.
    """

    items: list[Item]
    decoder: Decoder
    number: int
    module: torch.nn.Module
    inputs: Activations
    answers: Activations
    passages: list[Passage]
    watch: Callable[[], Any]
    drafts: Mapping[str, Draft] = field(default_factory=dict)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """What the items should become, each by itself: float32 [rows, columns]."""
        return {name: draft.target for name, draft in self.drafts.items()}

    @property
    def start(self) -> dict[str, QTensor]:
        """Their codes so far."""
        return {name: draft.q for name, draft in self.drafts.items()}

    @property
    def batches(self) -> int:
        """Batches of calibration text."""
        return len(self.inputs)

    def error(self, decoded: Mapping[str, torch.Tensor], batch: int) -> torch.Tensor:
        """E|block(x_hat) - float block(x)|^2 over a batch, float32; with a graph where `decoded` have one."""
        x, passage = self.inputs[batch], Passage(**vars(self.passages[batch]))
        learning = any(w.requires_grad for w in decoded.values())
        if learning:
            x = x.detach().requires_grad_().clone()  # what asks `run` for a graph; blocks may write over it
        with torch.set_grad_enabled(learning), self._places.holding(decoded), self.watch().on(batch):
            answer = self.decoder.run(self.number, x, passage)
        return (answer.float() - self.answers[batch].float()).square().mean()

    @cached_property
    def _places(self) -> Places:
        matrices = {item.name: item.part for item in self.items}
        prefix = f"{self.decoder.arch.blocks}.{self.number}."
        return Places(prefix, self.module, matrices, lambda name: self.drafts[name].q.decode())
