"""Measured numbers and how sure they are: 95 % intervals from sums that add over batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

Z95 = 1.959964


@dataclass(frozen=True)
class Estimate:
    """A mean over independent samples and the half-width of its 95 % confidence interval (normal)."""

    value: float
    interval: float

    @classmethod
    def of(cls, samples: Any) -> Estimate:
        """From one number per sample (a list or an array on the CPU)."""
        return Mean.of(samples).estimate


@dataclass(frozen=True)
class Mean:
    """Sums that give a mean and its interval: `count`, sum x, and sum (x - mean)^2.

    The squares are kept about the mean and merged as Chan, Golub and LeVeque (1979) do, so that a small spread about
    a large mean is not lost to rounding.
    """

    count: int = 0
    total: float = 0.0
    square: float = 0.0

    @classmethod
    def of(cls, samples: Any) -> Mean:
        """From one number per sample."""
        x = np.asarray(samples, np.float64).reshape(-1)
        return cls(x.size, float(x.sum()), float(((x - x.mean()) ** 2).sum())) if x.size else cls()

    def __add__(self, other: Mean) -> Mean:
        if not self.count or not other.count:
            return self if self.count else other
        gap = other.total / other.count - self.total / self.count
        count = self.count + other.count
        between = gap * gap * self.count * other.count / count
        return Mean(count, self.total + other.total, self.square + other.square + between)

    @property
    def estimate(self) -> Estimate:
        """The mean; the interval of fewer than two samples is infinite."""
        if self.count < 2:
            return Estimate(self.total / max(self.count, 1), math.inf)
        return Estimate(self.total / self.count, Z95 * math.sqrt(self.square / (self.count - 1) / self.count))


@dataclass(frozen=True)
class Share:
    """A proportion, `hits` of `count`; adds over batches.

    `low` and `high` bound it with 95 % confidence after Wilson (1927), which holds near 0 and 1, where the normal
    interval of an agreement of 2,000 in 2,000 would have no width.

    >>> found = Share(2000, 2000)
    >>> f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}]"
    '1.0000 [0.9981, 1.0000]'
    """

    hits: int = 0
    count: int = 0

    @classmethod
    def of(cls, hits: Any) -> Share:
        """From one truth value per sample."""
        found = np.asarray(hits, bool)
        return cls(int(found.sum()), found.size)

    def __add__(self, other: Share) -> Share:
        return Share(self.hits + other.hits, self.count + other.count)

    @property
    def value(self) -> float:
        return self.hits / self.count if self.count else math.nan

    @property
    def low(self) -> float:
        return self._bounds()[0]

    @property
    def high(self) -> float:
        return self._bounds()[1]

    def _bounds(self) -> tuple[float, float]:
        if not self.count:
            return 0.0, 1.0
        n, p, z = self.count, self.value, Z95 * Z95
        centre, width = p + z / (2 * n), Z95 * math.sqrt(p * (1 - p) / n + z / (4 * n * n))
        return max(0.0, (centre - width) / (1 + z / n)), min(1.0, (centre + width) / (1 + z / n))

    def __str__(self) -> str:
        return f"{self.value:.2%} [{self.low:.2%}, {self.high:.2%}]"


@dataclass(frozen=True)
class Change:
    """A paired difference of two proportions over the same samples: `gained` only right after, `lost` only before."""

    gained: int = 0
    lost: int = 0
    count: int = 0

    @classmethod
    def between(cls, before: Any, after: Any) -> Change:
        """From one truth value per sample, before and after."""
        a, b = np.asarray(before, bool), np.asarray(after, bool)
        return cls(int((b & ~a).sum()), int((a & ~b).sum()), a.size)

    def __add__(self, other: Change) -> Change:
        return Change(self.gained + other.gained, self.lost + other.lost, self.count + other.count)

    @property
    def estimate(self) -> Estimate:
        """(gained - lost) / count; the interval counts half a sample more in each of the four cells.

        That of Agresti and Min (2005, Statistics in Medicine 24:729), which has a width even where nothing changed; it
        is centred here on the observed difference.
        """
        if not self.count:
            return Estimate(math.nan, math.inf)
        n, changed, net = self.count + 2, self.gained + self.lost + 1, self.gained - self.lost
        return Estimate((self.gained - self.lost) / self.count, Z95 * math.sqrt(changed - net * net / n) / n)


@dataclass(frozen=True)
class Ratio:
    """A ratio of sums over samples, sum e / sum n, as an error rate is: sums that add over batches.

    `count` samples; `errors` = sum e, `size` = sum n, and sums of e^2, e n, n^2 for the interval.
    """

    count: int = 0
    errors: float = 0.0
    size: float = 0.0
    ee: float = 0.0
    en: float = 0.0
    nn: float = 0.0

    @classmethod
    def of(cls, errors: Any, sizes: Any) -> Ratio:
        """From e and n of each sample."""
        e, n = np.asarray(errors, np.float64), np.asarray(sizes, np.float64)
        return cls(e.size, float(e.sum()), float(n.sum()), float(e @ e), float(e @ n), float(n @ n))

    def __add__(self, other: Ratio) -> Ratio:
        return Ratio(
            self.count + other.count,
            self.errors + other.errors,
            self.size + other.size,
            self.ee + other.ee,
            self.en + other.en,
            self.nn + other.nn,
        )

    @property
    def estimate(self) -> Estimate:
        """The ratio R with variance sum (e - R n)^2 k / (k - 1) / (sum n)^2 over k samples (Cochran 1977, 6.3)."""
        if self.size <= 0:
            return Estimate(math.nan, math.inf)
        ratio = self.errors / self.size
        if self.count < 2:
            return Estimate(ratio, math.inf)
        spread = max(0.0, self.ee - 2 * ratio * self.en + ratio * ratio * self.nn)
        return Estimate(ratio, Z95 * math.sqrt(spread * self.count / (self.count - 1)) / self.size)
