"""What a student learns from: token windows, what the teacher says of each, and how far the student is from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bitwright.core import distillation
from bitwright.models.language.distillation.cache import Cache
from bitwright.models.language.distillation.student import Student

Divergence = Callable[[Tensor, Tensor, float], Tensor]
"""How far a student's logits are from a teacher's [..., words], at a temperature."""
DIVERGENCES: Mapping[str, Divergence] = {
    "forward": distillation.forward,
    "reverse": distillation.reverse,
    "jensen-shannon": distillation.jensen_shannon,
}
"""By name. Drawn words stand for the first alone: the others ask for the teacher's p at every word."""
AT_ONCE = 1 << 24
"""Logits that a student gives at once, or those of one window."""


@dataclass(frozen=True)
class Objective:
    """What falls: (1 - labels) divergence + labels (loss of the text's own next tokens) + hidden (error of states).

    The error of hidden states is |A h - t|^2 / |t|^2 of those after the last block, h the student's, t the teacher's,
    and A is learned too (Romero et al. 2015, arXiv 1412.6550).
    """

    divergence: str = "forward"
    temperature: float = 1.0
    labels: float = 0.0
    hidden: float = 0.0

    @property
    def taught(self) -> bool:
        """Whether the teacher's words count at all."""
        return self.labels < 1


@dataclass(frozen=True)
class Lessons:
    """Token windows int64 [count, length], the teacher's cache of them, and its head: hidden states to logits.

    Without a cache only labels count. The head is for exact caches.
    """

    windows: Tensor
    cache: Cache | None
    head: Callable[[Tensor], Tensor]
    objective: Objective

    def loss(self, student: Student, numbers: list[int]) -> Tensor:
        """The mean objective over all positions of some windows, with a graph; in nats per token."""
        goal, device = self.objective, student.device
        apart: Tensor
        ids = self.windows[numbers].to(device)
        logits, hidden = student(ids)
        total = torch.zeros((), device=device)
        if goal.labels:
            said, following = logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()
            total = total + goal.labels * nn.functional.cross_entropy(said, following)
        if self.cache is None:
            return total
        if self.cache.header.kind == "drawn":
            drawn = self.cache.drawn(numbers)
            words, shares = torch.from_numpy(drawn.words).to(device), torch.from_numpy(drawn.shares).to(device)
            entropy = float(drawn.entropy.mean(dtype="float64"))
            apart = distillation.cross_entropy(words, shares, logits, goal.temperature).mean() - entropy
            return total + (1 - goal.labels) * apart
        known = torch.from_numpy(self.cache.hidden(numbers)).to(device)
        if goal.taught:
            apart = DIVERGENCES[goal.divergence](self.head(known).float(), logits, goal.temperature).mean()
            total = total + (1 - goal.labels) * apart
        if goal.hidden:
            error = (student.mapped(hidden) - known).square().sum() / known.square().sum()
            total = total + goal.hidden * error
        return total

    def pieces(self, numbers: list[int], words: int) -> list[list[int]]:
        """The same windows in runs whose logits exist at once: a student of `words` words."""
        size = at_once(self.windows.shape[1], words)
        return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def at_once(length: int, words: int) -> int:
    """How many windows of `length` tokens a student of `words` words reads at once."""
    return max(1, AT_ONCE // (length * words))


@dataclass(frozen=True)
class Judge:
    """Windows that are not learned from, and the teacher's exact cache of them."""

    windows: Tensor
    cache: Cache
    head: Callable[[Tensor], Tensor]

    @torch.no_grad()
    def kl(self, student: Student) -> float:
        """Mean KL(teacher || student) over all positions, in nats per token."""
        total, count = 0.0, len(self.windows)
        step = at_once(self.windows.shape[1], student.words)
        for start in range(0, count, step):
            numbers = [*range(start, min(start + step, count))]
            logits, _ = student(self.windows[numbers].to(student.device))
            known: Any = self.head(torch.from_numpy(self.cache.hidden(numbers)).to(student.device))
            total += float(distillation.forward(known.float(), logits).double().sum())
        return total / self.windows.numel()
