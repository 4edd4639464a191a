"""How far one model is from another on the same tokens: KL, top-1 agreement, perplexity, each with an interval."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import torch

from bitwright.models.language.activations import Activations
from bitwright.models.language.blocks import Decoder, Passage
from bitwright.models.language.scores import score
from bitwright.models.tasks.estimate import Estimate

Steps = Generator[tuple[int, int], None, Activations]
"""Yields (steps done, steps in all), returns hidden states."""


@dataclass(frozen=True)
class Comparison:
    """A float model P and a quantized one Q over the same tokens.

    `kl` is mean KL(P || Q) in nats per token, `top1` the share of positions where both rank the same token first,
    `perplexity` is exp of the mean next-token loss; `loss_increase` the paired difference Q - P of that loss in nats.
    """

    tokens: int
    kl: Estimate
    top1: Estimate
    perplexity: tuple[float, float]
    loss_increase: Estimate
    vocabulary: int
    """Tokens that the models choose among."""

    def summary(self) -> dict[str, float | int]:
        """Plain numbers for JSON."""
        return {
            "tokens": self.tokens,
            "kl": self.kl.value,
            "kl_interval": self.kl.interval,
            "top1_agreement": self.top1.value,
            "top1_interval": self.top1.interval,
            "perplexity_float": self.perplexity[0],
            "perplexity_quantized": self.perplexity[1],
            "loss_increase": self.loss_increase.value,
            "loss_increase_interval": self.loss_increase.interval,
            "vocabulary": self.vocabulary,
        }

    def lines(self) -> list[str]:
        """The same in words."""
        before, after = self.perplexity
        return [
            f"  KL(float || other)  {self.kl.value:.5f} ± {self.kl.interval:.5f} nats per token "
            f"({self.tokens:,} tokens)",
            f"  top-1 agreement     {self.top1.value:.2%} ± {self.top1.interval:.2%}",
            f"  perplexity          {before:.3f} -> {after:.3f} ({after / before - 1:+.2%})",
        ]


def batches(windows: torch.Tensor, size: int) -> list[torch.Tensor]:
    """`windows` [count, length] in runs of `size` rows, the last perhaps shorter."""
    return [windows[start : start + size] for start in range(0, len(windows), size)]


def hidden_states(decoder: Decoder, windows: torch.Tensor, *, batch: int, budget: int, folder: Path | None) -> Steps:
    """Run `windows` [count, length] through every block; returns the final hidden states, `batch` windows each."""
    store = Activations(budget, folder)
    passages = [Passage(piece) for piece in batches(windows, batch)]
    total, done = decoder.arch.count * len(passages), 0
    for passage in passages:
        store.append(decoder.enter(passage))
    for block in range(decoder.arch.count):
        with decoder.loaded(block):
            for i, passage in enumerate(passages):
                store[i] = decoder.run(block, store[i], passage)
                done += 1
                yield done, total
    return store


def compare(
    p: Decoder, q: Decoder, windows: torch.Tensor, *, batch: int = 4, budget: int = 1 << 28, folder: Path | None = None
) -> Generator[tuple[int, int], None, Comparison]:
    """Compare float model `p` with `q` over `windows` (token ids [count, length]); yields (steps done, steps in all).

    Each model passes through memory one block at a time. Raises DataError where vocabularies differ or a model
    answers with NaN.
    """
    pieces = batches(windows, batch)
    steps = len(pieces) * (p.arch.count + q.arch.count + 1)
    hidden_p = yield from _scaled(hidden_states(p, windows, batch=batch, budget=budget, folder=folder), 0, steps)
    first = len(pieces) * p.arch.count
    hidden_q = yield from _scaled(hidden_states(q, windows, batch=batch, budget=budget, folder=folder), first, steps)
    rows: list[tuple[torch.Tensor, ...]] = []
    for i, piece in enumerate(pieces):
        rows.append(score(p, q, hidden_p[i], hidden_q[i], piece))
        yield steps - len(pieces) + i + 1, steps
    kl, top1, loss_p, loss_q = (torch.cat(column) for column in zip(*rows, strict=True))
    return Comparison(
        windows.numel(),
        Estimate.of(kl),
        Estimate.of(top1),
        (math.exp(float(loss_p.mean())), math.exp(float(loss_q.mean()))),
        Estimate.of(loss_q - loss_p),
        p.arch.vocabulary,
    )


def _scaled(steps: Steps, first: int, total: int) -> Steps:
    """The same steps, counted from `first` of `total`."""
    while True:
        try:
            done, _ = next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        yield first + done, total
