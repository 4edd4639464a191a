"""What a student learns from: token windows, what the teacher says of each, and how far the student is from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bitwright.core import distillation
from bitwright.models.language.distillation.cache import Cache
from bitwright.models.language.distillation.student import Student
from bitwright.models.language.memory import LOGITS

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
            total = total + (1 - goal.labels) * self._apart(self.head(known).float(), logits)
        if goal.hidden:
            error = (student.mapped(hidden) - known).square().sum() / known.square().sum()
            total = total + goal.hidden * error
        return total

    def _apart(self, known: Tensor, logits: Tensor) -> Tensor:
        """The mean divergence of logits [windows, length, words]; what its slope needs is made anew, slice by slice."""
        total = torch.zeros((), device=logits.device)
        for p, q in slices(known, logits):
            total = total + checkpoint(self._sum, p, q, use_reentrant=False)
        mean: Tensor = total / logits[..., 0].numel()
        return mean

    def _sum(self, known: Tensor, logits: Tensor) -> Tensor:
        return DIVERGENCES[self.objective.divergence](known, logits, self.objective.temperature).sum()

    def pieces(self, numbers: list[int], words: int) -> list[list[int]]:
        """The same windows in runs whose logits exist at once: a student of `words` words."""
        size = at_once(self.windows.shape[1], words)
        return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def at_once(length: int, words: int) -> int:
    """How many windows of `length` tokens a student of `words` words reads at once."""
    return max(1, AT_ONCE // (length * words))


def slices(known: Tensor, logits: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits of teacher and student [windows, length, words] at so many positions at once [positions, words]."""
    step = max(1, LOGITS // logits.shape[-1])
    return zip(torch.split(known.flatten(0, 1), step), torch.split(logits.flatten(0, 1), step), strict=True)


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
            known = self.head(torch.from_numpy(self.cache.hidden(numbers)).to(student.device)).float()
            total += sum(float(distillation.forward(p, q).double().sum()) for p, q in slices(known, logits))
        return total / self.windows.numel()
