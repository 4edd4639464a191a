"""Error measures: between arrays and between distributions.

`x` is the original, `y` what came back; the error is always x - y, never x - code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bitwright.core.array import Array, absmax, float32, namespace


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
