"""Calibration statistics of one layer's input: additive, so that batches, shards and machines merge."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from bitwright.core.array import Array, float32, namespace, short_factors


@dataclass(frozen=True)
class Stats:
    """Sums over `n` input vectors x of length d: `moment` = sum x x^T [d, d].

    `Stats.of(a) + Stats.of(b) == Stats.of(concat([a, b]))`, up to float rounding. `apart`: of each input its own square
    alone is known, and what is off the diagonal of `moment` is 0.
    """

    n: int
    moment: Array
    apart: bool = False

    @classmethod
    def of(cls, x: Array) -> Stats:
        """The record of `x` [tokens, d]."""
        return cls(int(x.shape[0]), mirror(add_gram(x)))

    @classmethod
    def diagonal(cls, power: Array) -> Stats:
        """What `power` [d], E[x^2] of each input, says: the record of one vector with these squares."""
        xp = namespace(power)
        whole = xp.zeros((power.shape[0], power.shape[0]), dtype=xp.float32, device=power.device)
        place = xp.arange(power.shape[0], device=power.device)
        whole[place, place] = float32(power)
        return cls(1, whole, apart=True)

    def __add__(self, other: Stats) -> Stats:
        return Stats(self.n + other.n, self.moment + other.moment, self.apart or other.apart)

    @cached_property
    def hessian(self) -> Array:
        """E[x x^T], [d, d]: half the Hessian of the layer's squared output error."""
        return self.moment / max(self.n, 1)

    @cached_property
    def power(self) -> Array:
        """E[x^2], [d]: the Hessian's diagonal."""
        return namespace(self.moment).linalg.diagonal(self.moment) / max(self.n, 1)


def add_gram(x: Array, upper: Array | None = None) -> Array:
    """Add x^T x, for `x` [tokens, d], to float32 `upper` [d, d] (zeros unless given), on and above the diagonal only.

    Products and sums are float32: rounded to bfloat16, second moments of real layers are often indefinite. `mirror`
    makes the matrix whole when all were added.
    """
    xp = namespace(x)
    d = int(x.shape[1])
    if upper is None:
        upper = xp.zeros((d, d), dtype=xp.float32, device=x.device)
    with short_factors(x):
        wide = float32(x)
        for start, stop in strips(d):
            upper[start:stop, start:] += wide[:, start:stop].T @ wide[:, start:]
    return upper


def add_product(a: Array, b: Array, total: Array | None = None) -> Array:
    """Add a^T b, for `a` [tokens, rows] and `b` [tokens, columns], to float32 `total` [rows, columns]."""
    with short_factors(b):
        product = float32(a).T @ float32(b)
    if total is None:
        return product
    total += product
    return total


def mirror(upper: Array) -> Array:
    """Make `upper` [d, d] whole, in place, from what is above its diagonal."""
    for start, stop in strips(int(upper.shape[0])):
        upper[stop:, start:stop] = upper[start:stop, stop:].T
    return upper


def strips(d: int) -> list[tuple[int, int]]:
    """[start, stop) of eight strips of `d` rows, fewer where they would be too narrow to multiply at full speed."""
    step = max(128, -(-d // 8))
    return [(start, min(start + step, d)) for start in range(0, d, step)]
