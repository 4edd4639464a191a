"""Measures: of errors between arrays and between distributions, and of how codes are used.

`x` is the original, `y` what came back; the error is always x - y, never x - code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np

from bitwright.core.array import Array, absmax, float32, namespace
from bitwright.core.code import Code


@dataclass(frozen=True)
class Error:
    """Sums that give every error measure, and add over pieces of a tensor: count, sum x^2, sum y^2, sum xy, max|x|."""

    count: int = 0
    signal: float = 0.0
    decoded: float = 0.0
    noise: float = 0.0
    peak: float = 0.0

    @classmethod
    def between(cls, x: Array, y: Array) -> Error:
        """The sums for two arrays of one shape."""
        xp = namespace(x)
        x, y = xp.reshape(float32(x), (-1,)), xp.reshape(float32(y), (-1,))
        return cls(int(x.shape[0]), _power(x), _power(y), _power(x - y), float(absmax(x)))

    def __add__(self, other: Error) -> Error:
        return Error(
            self.count + other.count,
            self.signal + other.signal,
            self.decoded + other.decoded,
            self.noise + other.noise,
            max(self.peak, other.peak),
        )

    @property
    def mse(self) -> float:
        """Mean squared error, mean (x - y)^2."""
        return self.noise / max(self.count, 1)

    @property
    def sqnr(self) -> float:
        """Signal to quantization noise ratio in dB, 10 log10(sum x^2 / sum (x - y)^2); inf without error."""
        return _decibel(self.signal, self.noise)

    def psnr(self, peak: float | None = None) -> float:
        """Peak signal to noise ratio in dB, 10 log10(peak^2 / MSE); `peak` is max|x| unless given."""
        top = self.peak if peak is None else peak
        return _decibel(top * top, self.mse)

    @property
    def cosine(self) -> float:
        """Cosine of the angle between x and y, from the sums: xy = (x^2 + y^2 - (x - y)^2) / 2; 1 for two zeros."""
        product = (self.signal + self.decoded - self.noise) / 2
        length = math.sqrt(self.signal * self.decoded)
        return product / length if length else float(self.signal == self.decoded)


COUNTED = 1 << 18
"""Codes that are counted at a time: NumPy makes indices of 8 bytes of them first."""
PLENTY = 8
"""Weights for each level below which unused levels say little: so few cannot use them all."""


@dataclass(frozen=True, eq=False)
class Usage:
    """How often each level was chosen, over a whole matrix or tensor; adds over its pieces.

    A level is one of the different values that a code can mean, before scale, zero and shift; that of all blocks counts
    as one. `counts` is a NumPy array [levels there], of whole numbers, or of fractions where a histogram was spread.

    >>> from bitwright.core.grid import INT
    >>> u = Usage.of(np.array([0, 0, 1, 3], np.uint8), INT[2])
    >>> u.used, u.levels, u.entropy
    (3, 4, 1.5)
    """

    counts: Any

    @classmethod
    def of(cls, codes: Array, code: Code) -> Usage:
        """The record of `codes` (uint8, any shape), which mean values of `code`."""
        xp = namespace(codes)
        flat, sums = xp.reshape(codes, (-1,)), np.zeros(1 << code.bits, np.int64)
        for start in range(0, int(flat.shape[0]), COUNTED):
            found = xp.bincount(flat[start : start + COUNTED], minlength=len(sums))
            sums += np.asarray(found.cpu() if array_api_compat.is_torch_array(found) else found)
        if code.level_of is None:
            return cls(sums[: code.levels])
        places = np.array(code.level_of)
        known = places >= 0
        return cls(np.bincount(places[known], sums[: len(places)][known], code.levels).astype(np.int64))

    @classmethod
    def whole(cls, values: Any, low: int, high: int) -> Usage:
        """The record of integers (NumPy, any shape) between `low` and `high`, each of which is a level."""
        return cls(np.bincount((values.ravel().astype(np.int64) - low), minlength=high - low + 1))

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.counts + other.counts)

    @property
    def total(self) -> float:
        """How many codes were counted."""
        return float(self.counts.sum())

    @property
    def levels(self) -> int:
        """Levels there."""
        return len(self.counts)

    @property
    def used(self) -> int:
        """Levels that were chosen at all, unique values; of a spread histogram those that hold half a value or more."""
        return int((self.counts >= 0.5).sum())

    @property
    def entropy(self) -> float:
        """-sum p log2 p of the pooled codes, in bits per weight.

        Shannon 1948, "A mathematical theory of communication". No code that stores each weight by itself takes fewer
        bits on average. 0 for no codes.
        """
        p = self.counts[self.counts > 0] / max(self.total, 1.0)
        return max(0.0, float(-(p * np.log2(p)).sum()))

    @property
    def needed(self) -> int:
        """Bits of a code for the levels in use alone."""
        return _width(self.used)

    @property
    def spare(self) -> int:
        """Bits of each code that the levels in use do not need; 0 where there are too few weights to use them all."""
        if self.total < PLENTY * self.levels:
            return 0
        return _width(self.levels) - self.needed


def _width(levels: int) -> int:
    """Bits of a code with so many levels."""
    return max(levels - 1, 0).bit_length()


def _power(x: Array) -> float:
    """Sum of squares; in float64 where float32 would lose it at either end of its range."""
    with np.errstate(over="ignore"):  # NumPy warns
        found = float(x @ x)
    if 1e-30 < found < math.inf:
        return found
    wide = namespace(x).astype(x, namespace(x).float64)
    return float(wide @ wide)


def _decibel(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def mse(x: Array, y: Array) -> float:
    """Mean squared error."""
    return Error.between(x, y).mse


def psnr(x: Array, y: Array, peak: float | None = None) -> float:
    """Peak signal to noise ratio in dB; the peak is max|x| unless given."""
    return Error.between(x, y).psnr(peak)


def sqnr(x: Array, y: Array) -> float:
    """Signal to quantization noise ratio in dB."""
    return Error.between(x, y).sqnr


def cosine(x: Array, y: Array) -> float:
    """Cosine similarity."""
    return Error.between(x, y).cosine


def log_softmax(logits: Array) -> Array:
    """log p over the last axis, float32."""
    xp = namespace(logits)
    shifted = float32(logits) - xp.max(float32(logits), axis=-1, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))


def kl(logits: Array, other: Array) -> Array:
    """KL(p || q) in nats for each row, p and q the softmax of `logits` and `other` [..., classes].

    A class that p never takes (a masked logit, -inf) adds nothing; one that only q never takes makes it infinite.
    """
    xp = namespace(logits)
    log_p, log_q = log_softmax(logits), log_softmax(other)
    p = xp.exp(log_p)
    none = xp.zeros_like(p)
    return xp.sum(p * (xp.where(p > 0, log_p, none) - xp.where(p > 0, log_q, none)), axis=-1)


def layer_error(error: Array, hessian: Array) -> float:
    """tr(E H E^T): mean squared output error of a layer, summed over outputs, for E = W - W^ and H = E[x x^T]."""
    xp = namespace(error)
    return float(xp.sum(xp.matmul(error, hessian) * error))


def unique_values(x: Array) -> int:
    """How many different values an array holds."""
    return int(namespace(x).unique_values(x).shape[0])


def bit_width(x: Array) -> int:
    """Bits needed to tell the array's different values apart, ceil(log2(unique values))."""
    return max(1, math.ceil(math.log2(unique_values(x))))
