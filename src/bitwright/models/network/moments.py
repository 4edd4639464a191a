"""Second moments of what a layer is fed in the quantized network, and of what its answer has lost, in two halves.

The halves share no sample where that can be told, so that what is fitted on one can be judged on the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch

from bitwright.core.stats import Stats, add_gram, mirror
from bitwright.files.layers import Layer
from bitwright.models.network.unfold import unfold

Array = npt.NDArray[Any]


class Moments:
    """Sums over rows x [groups, positions, columns]: x x^T, x, and how many, for each group.

    With them may come parts of what the answer lost, each [groups, positions, outputs]; then these times x^T are
    summed as well, as far as all rows came with them.
    """

    def __init__(self, groups: int) -> None:
        self.count = 0
        self._upper: list[torch.Tensor | None] = [None] * groups
        self._total = torch.zeros(())
        self._products: list[torch.Tensor] = []
        self._totals: list[torch.Tensor] = []

    def add(self, rows: torch.Tensor, lost: Sequence[torch.Tensor] = ()) -> None:
        """Count some rows."""
        products, totals = [part.mT @ rows for part in lost], [part.sum(dim=1) for part in lost]
        self._products = _sums(self._products, products) if self.count else products
        self._totals = _sums(self._totals, totals) if self.count else totals
        self.count += rows.shape[1]
        self._total = self._total + rows.sum(dim=1)
        self._upper = [add_gram(part, upper) for part, upper in zip(rows, self._upper, strict=True)]

    def stats(self, centred: bool) -> list[Stats]:
        """The record of each group; `centred` about its mean."""
        found = [mirror(upper) for upper in self._upper if upper is not None]
        if centred:
            found = [m - torch.outer(total, total) / self.count for m, total in zip(found, self._total, strict=True)]
        return [Stats(self.count, moment) for moment in found]

    def lost(self, centred: bool) -> list[torch.Tensor]:
        """Each part of what was lost, times x^T, [groups, outputs, columns]; `centred` about both means."""
        if not centred:
            return self._products
        mean = (self._total / self.count)[:, None, :]
        return [p - total[:, :, None] * mean for p, total in zip(self._products, self._totals, strict=True)]

    def __add__(self, other: Moments) -> Moments:
        """The sums over the rows of both, without what was lost."""
        both = Moments(len(self._upper))
        both.count, both._total = self.count + other.count, self._total + other._total
        pairs = zip(self._upper, other._upper, strict=True)
        both._upper = [a if b is None else b if a is None else a + b for a, b in pairs]
        return both


def _sums(a: list[torch.Tensor], b: list[torch.Tensor]) -> list[torch.Tensor]:
    """The sums of those parts that both have."""
    return [one + other for one, other in zip(a, b, strict=False)]


@dataclass(frozen=True)
class Drifts:
    """What `core.drift.make_up` wants: the stats of both halves, and each part of what they lost, groups first."""

    stats: Sequence[Stats]
    lost: Sequence[Sequence[torch.Tensor]]

    def __add__(self, other: Drifts) -> Drifts:
        """Over the inputs of both."""
        stats = [a + b for a, b in zip(self.stats, other.stats, strict=True)]
        return Drifts(stats, [_sums(list(a), list(b)) for a, b in zip(self.lost, other.lost, strict=True)])


class Record:
    """What calibration saw of one layer's input, batch by batch.

    `passages` numbers the passage of each batch: calls that follow on one another are of one. Every other passage
    belongs to one half; of a single one the first positions do.
    """

    def __init__(self, layer: Layer, passages: Sequence[int]) -> None:
        self.layer, self._passages = layer, passages
        self._halves = Moments(layer.groups), Moments(layer.groups)

    def add(self, i: int, x_hat: Array, lost: Sequence[torch.Tensor] = ()) -> None:
        """Count batch `i`: the layer's input in the quantized network, and what its answer lost, if that is known.

        Each part of `lost` is [positions, outputs]. Where one batch comes without, nothing is said of it.
        """
        rows, groups = unfold(self.layer, x_hat), self.layer.groups
        assert rows is not None
        parts = [each.reshape(len(each), groups, -1).transpose(0, 1) for each in lost]
        if self._passages[-1] > self._passages[0]:
            self._halves[self._passages[i] % 2].add(rows, parts)
            return
        middle = rows.shape[1] // 2
        for half, some in zip(self._halves, (slice(middle), slice(middle, None)), strict=True):
            half.add(rows[:, some], [part[:, some] for part in parts])

    def stats(self, centred: bool) -> list[Stats]:
        """The record of each group's inputs in the quantized network; `centred` about its mean."""
        first, second = self._halves
        return (first + second if second.count else first).stats(centred)

    def drifts(self, centred: bool) -> Drifts | None:
        """What both halves lost; `centred` about the means, as a bias leaves it. None where a half saw nothing."""
        lost = list(zip(*(half.lost(centred) for half in self._halves if half.count), strict=False))
        if not lost or not all(half.count for half in self._halves):
            return None
        stacks = [torch.stack([stats.moment for stats in half.stats(centred)]) for half in self._halves]
        stats = [Stats(half.count, stack) for half, stack in zip(self._halves, stacks, strict=True)]
        return Drifts(stats, lost)
