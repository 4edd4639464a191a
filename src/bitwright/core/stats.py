"""What calibration saw of one layer's input: additive, so that batches, shards and machines merge."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from bitwright.core.array import Array, absmax, float32, namespace


@dataclass(frozen=True)
class Stats:
    """Sums over `n` input vectors x of length d: `total` = sum x [d], `peak` = max|x| [d], `moment` = sum x x^T [d, d].

    `Stats.of(a) + Stats.of(b) == Stats.of(concat([a, b]))`, up to float rounding.
    """

    n: int
    total: Array
    peak: Array
    moment: Array

    @classmethod
    def of(cls, x: Array) -> Stats:
        """The record of `x` [tokens, d]; the products run in x's own dtype, the sums are float32."""
        xp = namespace(x)
        return cls(int(x.shape[0]), float32(xp.sum(x, axis=0)), float32(absmax(x, axis=0)), gram(x))

    def __add__(self, other: Stats) -> Stats:
        xp = namespace(self.total)
        return Stats(
            self.n + other.n,
            self.total + other.total,
            xp.maximum(self.peak, other.peak),
            self.moment + other.moment,
        )

    @property
    def mean(self) -> Array:
        """E[x], [d]."""
        return self.total / max(self.n, 1)

    @cached_property
    def hessian(self) -> Array:
        """E[x x^T], [d, d]: half the Hessian of the layer's squared output error."""
        return self.moment / max(self.n, 1)

    @cached_property
    def power(self) -> Array:
        """E[x^2], [d]: the Hessian's diagonal."""
        return namespace(self.moment).linalg.diagonal(self.moment) / max(self.n, 1)


def gram(x: Array) -> Array:
    """x^T x as float32 [d, d] for `x` [tokens, d]; the half below the diagonal is mirrored, not computed."""
    xp = namespace(x)
    d = int(x.shape[1])
    out = xp.zeros((d, d), dtype=xp.float32, device=x.device)
    step = max(128, -(-d // 4))
    for start in range(0, d, step):
        part = float32(x[:, start : start + step].T @ x[:, start:])
        out[start : start + step, start:] = part
        out[start:, start : start + step] = part.T
    return out
