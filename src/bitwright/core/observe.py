"""Statistics of an activation tensor, the range chosen from them, and the affine quantizer of a range."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import array_api_compat
import numpy as np

from bitwright.core.array import Array, float32, namespace
from bitwright.core.measure import Usage
from bitwright.errors import RecipeError

BINS = 2048
"""Most bins of a histogram."""
CHUNK = 1 << 15
"""Values counted at a time: all passes over them stay in cache."""
FINEST = -100
"""Exponent of the narrowest bin; values below it in size are all counted in two bins."""


# --- the affine quantizer ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Affine:
    """k = clamp(round(x / scale) + zero, qmin, qmax), x^ = scale (k - zero): one scale and zero for a whole tensor.

    Rounds half to even, saturates, in float32: bit for bit ONNX QuantizeLinear and DequantizeLinear. `scale` is a
    positive float32 value and `zero` a code, so that 0 is always exact. Codes are uint8 or int8 (16 bits above 8).

    >>> a = affine(-1.0, 3.0, 8, signed=False, symmetric=False)
    >>> a.zero, float(a.fake(np.float32(0))), round(a.low, 3), round(a.high, 3)
    (64, 0.0, -1.004, 2.996)
    """

    scale: float
    zero: int
    bits: int = 8
    signed: bool = False

    @property
    def qmin(self) -> int:
        """The smallest code."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def qmax(self) -> int:
        """The largest code."""
        return self.qmin + (1 << self.bits) - 1

    @property
    def low(self) -> float:
        """The smallest value a code means."""
        return self.scale * (self.qmin - self.zero)

    @property
    def high(self) -> float:
        """The largest value a code means."""
        return self.scale * (self.qmax - self.zero)

    def _whole(self, x: Array) -> Array:
        """round(x / scale) as float32, saturated: the code less `zero`."""
        xp = namespace(x)
        x = float32(x) / np.float32(self.scale).item()  # a Python scalar keeps the array's float32
        return xp.clip(xp.round(x), float(self.qmin - self.zero), float(self.qmax - self.zero))

    def quantize(self, x: Array) -> Array:
        """The codes of `x`, any shape."""
        xp = namespace(x)
        kind = f"{'' if self.signed else 'u'}int{8 if self.bits <= 8 else 16}"
        return xp.astype(self._whole(x) + float(self.zero), getattr(xp, kind))

    def decode(self, codes: Array) -> Array:
        """The float32 values that `codes` mean."""
        xp = namespace(codes)
        return (xp.astype(codes, xp.float32) - float(self.zero)) * self.scale

    def fake(self, x: Array) -> Array:
        """x^, what `x` becomes: `decode(quantize(x))` without the codes."""
        return self._whole(x) * self.scale


def affine(low: float, high: float, bits: int = 8, *, signed: bool = False, symmetric: bool = False) -> Affine:
    """The quantizer of `bits` bits for values in [low, high], a range that is widened to hold 0.

    `symmetric` puts zero at the middle code (0, or 2^(bits-1) unsigned) and the larger of |low| and |high| at the top.
    Otherwise the range is moved by up to half a step, so that 0 is a code. A range [0, 0] gets scale 1.

    Raises RecipeError for a range that is not finite, or for less than 2 or more than 16 bits.
    """
    if not 2 <= bits <= 16:
        raise RecipeError(f"{bits} bits", where="activations", fix="Choose 2 to 16 bits (8 for ONNX Runtime)")
    if not (math.isfinite(low) and math.isfinite(high)) or high < low:
        raise RecipeError(f"cannot quantize to the range [{low}, {high}]", where="activations")
    scale, zero = _grids(np.array([low]), np.array([high]), bits, signed, symmetric)
    return Affine(float(scale[0]), int(zero[0]), bits, signed)


def _grids(low: Any, high: Any, bits: int, signed: bool, symmetric: bool) -> tuple[Any, Any]:
    """`scale` (rounded to float32) and `zero` of many ranges at once, float64 [n]."""
    qmin = -(2 ** (bits - 1)) if signed else 0
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    if symmetric:
        scale, zero = np.maximum(high, -low) / (2 ** (bits - 1) - 1), np.full(np.shape(low), qmin + 2.0 ** (bits - 1))
    else:
        scale = high / (2**bits - 1) - low / (2**bits - 1)
        zero = qmin - np.round(low / np.where(scale > 0, scale, 1.0))
    scale = np.where(scale > 0, np.maximum(scale, 2.0**-126), 1.0)
    return scale.astype(np.float32).astype(np.float64), zero


# --- what was seen ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Histogram:
    """A histogram of one activation tensor: at most 2048 bins and a few exact sums, for any number of values.

    Bin i holds the values of [(first + i) w, (first + i + 1) w) with w = 2^exponent, which is the narrowest power of
    two whose bins between `low` and `high` are not more than BINS. So `w` follows from the range alone and wider bins
    are whole unions of narrower ones: `Histogram.of(a) + Histogram.of(b)` has exactly the bins of
    `Histogram.of(concat([a, b]))`, in any order of any pieces. `Histogram()` is the neutral element.

    `count` finite values, of which `zeros` are exactly 0 (they cost nothing in any affine quantizer); `bad` values are
    NaN or infinite and are in nothing else. `total`, `square`: sums of x and x^2. `batches` records were added, whose
    minima and maxima sum to `lows` and `highs`.
    """

    count: int = 0
    low: float = math.inf
    high: float = -math.inf
    exponent: int = FINEST
    first: int = 0
    counts: Any = field(default_factory=lambda: np.zeros(0, np.int64))
    zeros: int = 0
    total: float = 0.0
    square: float = 0.0
    batches: int = 0
    lows: float = 0.0
    highs: float = 0.0
    bad: int = 0

    @classmethod
    def of(cls, x: Array) -> Histogram:
        """The record of one batch, any shape, NumPy or torch."""
        x = _flat(x)
        if not x.size:
            return cls()
        low, high, bad = float(x.min()), float(x.max()), 0
        if not (math.isfinite(low) and math.isfinite(high)):
            seen = x[np.isfinite(x)]
            x, bad = seen, x.size - seen.size
            if not x.size:
                return cls(bad=bad)
            low, high = float(x.min()), float(x.max())
        exponent = _exponent(low, high)
        first, last = _bin(low, exponent), _bin(high, exponent)
        counts = np.zeros(last - first + 1, np.int64)
        zeros, total, square = 0, 0.0, 0.0
        # float32 is exact here, but where a tiny value would underflow in units of a very wide bin.
        kind = np.float32 if exponent <= 0 else np.float64
        unit, scaled, index = kind(2.0**-exponent), np.empty(CHUNK, kind), np.empty(CHUNK, np.intp)
        for start in range(0, x.size, CHUNK):
            part = x[start : start + CHUNK]
            u, i = scaled[: part.size], index[: part.size]
            np.floor(np.multiply(part, unit, out=u), out=u)
            np.subtract(u, first, out=i, casting="unsafe")
            counts += np.bincount(i, minlength=len(counts))
            zeros += part.size - int(np.count_nonzero(part))
            total += float(part.sum(dtype=np.float64))
            square += float(np.einsum("i,i", part, part, dtype=np.float64))
        return cls(x.size, low, high, exponent, first, counts, zeros, total, square, 1, low, high, bad)

    def __add__(self, other: Histogram) -> Histogram:
        if not self.count or not other.count:
            empty, full = (self, other) if not self.count else (other, self)
            return Histogram(**{**vars(full), "bad": empty.bad + full.bad})
        low, high = min(self.low, other.low), max(self.high, other.high)
        exponent = _exponent(low, high)
        first = _bin(low, exponent)
        counts = np.zeros(_bin(high, exponent) - first + 1, np.int64)
        for part in (self, other):
            index = np.arange(part.first, part.first + len(part.counts)) >> (exponent - part.exponent)
            np.add.at(counts, index - first, part.counts)
        sums = {
            name: getattr(self, name) + getattr(other, name)
            for name in ("count", "zeros", "total", "square", "batches", "lows", "highs", "bad")
        }
        return Histogram(low=low, high=high, exponent=exponent, first=first, counts=counts, **sums)

    @property
    def finite(self) -> bool:
        """Whether no value was NaN or infinite."""
        return self.bad == 0

    @property
    def width(self) -> float:
        """Of a bin."""
        return 2.0**self.exponent

    @property
    def edges(self) -> Any:
        """The borders of the bins, float64 [bins + 1]."""
        return np.arange(self.first, self.first + len(self.counts) + 1) * self.width

    @property
    def mean(self) -> float:
        """E[x]."""
        return self.total / max(self.count, 1)

    @property
    def power(self) -> float:
        """E[x^2]."""
        return self.square / max(self.count, 1)

    def quantile(self, share: float) -> float:
        """The value below which `share` (0 to 1) of all values lie, to within one bin."""
        below = np.concatenate([[0], np.cumsum(self.counts)])
        return float(np.clip(np.interp(share * self.count, below, self.edges), self.low, self.high))

    def usage(self, affine: Affine) -> Usage:
        """How often each code of `affine` is chosen, if values spread evenly within a bin; exact zeros apart."""
        counts = self.counts.astype(np.float64)
        if self.zeros:
            counts[-self.first] -= self.zeros
        mass = np.zeros(affine.qmax - affine.qmin + 1)
        if counts.any():
            edges = self.edges
            edges[0], edges[-1] = max(edges[0], self.low), min(edges[-1], self.high)
            borders = (np.arange(affine.qmin, affine.qmax) - affine.zero + 0.5) * affine.scale
            below = np.interp(borders, edges, np.concatenate([[0.0], np.cumsum(counts)]))
            mass += np.diff(below, prepend=0.0, append=counts.sum())
        mass[affine.zero - affine.qmin] += self.zeros
        return Usage(mass)

    def noise(self, affine: Affine) -> float:
        """E[(x - x^)^2], rounding and clipping together, if values spread evenly within a bin."""
        return float(
            _noise(self, np.array([affine.scale]), np.array([float(affine.zero)]), affine.qmin, affine.qmax)[0]
        )


def _flat(x: Array) -> Any:
    """`x` as a flat float32 NumPy array, a view where possible."""
    if array_api_compat.is_torch_array(x):
        x = float32(x.detach()).cpu().numpy()
    return np.ravel(float32(np.asarray(x)))


def _bin(x: float, exponent: int) -> int:
    """floor(x / 2^exponent)."""
    return math.floor(math.ldexp(x, -exponent))


def _exponent(low: float, high: float) -> int:
    """The least exponent for which [low, high] has at most BINS bins whose index is exact in float32."""
    peak = max(-low, high)
    exponent = max(math.frexp(peak)[1] - 24, FINEST) if peak else FINEST  # frexp: peak < 2^its second result
    spread = math.frexp(high - low)[1] - 1 if high > low else FINEST  # high - low >= 2^spread, which needs 2^11 bins
    exponent = max(exponent, spread - BINS.bit_length() + 1)
    while _bin(high, exponent) - _bin(low, exponent) >= BINS:
        exponent += 1
    return exponent


@dataclass(frozen=True)
class Channels:
    """Of each channel: `n` values, their `low`, `high`, `total` = sum x and `square` = sum x^2 [channels].

    Adds like `Histogram`, up to the rounding of the sums. NaN and infinities show in `low` and `high`.
    """

    n: int
    low: Array
    high: Array
    total: Array
    square: Array

    @classmethod
    def of(cls, x: Array, axis: int = 1) -> Channels:
        """The record of `x`, whose axis `axis` counts the channels ([batch, channels, height, width]: 1)."""
        xp = namespace(x)
        axis %= x.ndim
        others = tuple(i for i in range(x.ndim) if i != axis)
        x = float32(x)
        n = math.prod(int(x.shape[i]) for i in others)
        low, high = (xp.min(x, axis=others), xp.max(x, axis=others)) if others else (x, x)
        return cls(n, low, high, xp.sum(x, axis=others, dtype=xp.float64), xp.sum(x * x, axis=others, dtype=xp.float64))

    def __add__(self, other: Channels) -> Channels:
        xp = namespace(self.total)
        return Channels(
            self.n + other.n,
            xp.minimum(self.low, other.low),
            xp.maximum(self.high, other.high),
            self.total + other.total,
            self.square + other.square,
        )

    @property
    def mean(self) -> Array:
        """E[x], float32 [channels]."""
        return float32(self.total / max(self.n, 1))

    @property
    def power(self) -> Array:
        """E[x^2], float32 [channels]."""
        return float32(self.square / max(self.n, 1))

    @property
    def peak(self) -> Array:
        """max|x|, [channels]."""
        return namespace(self.low).maximum(self.high, -self.low)


# --- from what was seen to a range ------------------------------------------------------------------------------------


def choose(
    seen: Histogram,
    rule: str = "mse",
    bits: int = 8,
    *,
    signed: bool = False,
    symmetric: bool = False,
    percentile: float = 99.99,
) -> tuple[float, float]:
    """The range (low, high) to quantize a tensor to, by one of RULES; hand it to `affine`. It always holds 0.

    - minmax: all that was seen.
    - average: the mean of the batches' minima and maxima. (A plain mean, where other tools take an exponential moving
      average: that would depend on the order of the batches, and records would not merge.)
    - percentile: from the (100 - percentile)-th to the percentile-th; symmetric: the percentile-th of |x|.
    - mse: the least E[(x - x^)^2], rounding and clipping together, both ends searched together.
    - entropy: the least KL divergence of the quantized from the clipped distribution (see `_entropy`).

    A tensor without negative values (after ReLU) keeps low = 0. Nothing seen, or zeros only: (0, 0).
    Raises RecipeError for an unknown rule or a percentile outside (50, 100].
    """
    if rule not in RULES:
        fix = f"Choose one of: {', '.join(RULES)}"
        raise RecipeError(f"no rule is called {rule!r}", where="observer", fix=fix, key="network.observer")
    if not 50 < percentile <= 100:
        fix = "Give more than 50 and at most 100"
        raise RecipeError(f"percentile {percentile}", where="percentile", fix=fix, key="network.percentile")
    if not seen.count:
        return 0.0, 0.0
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    if rule == "average":
        low, high = min(seen.lows / seen.batches, 0.0), max(seen.highs / seen.batches, 0.0)
    elif rule == "percentile":
        share = percentile / 100
        if symmetric:
            high = _quantile_of_size(seen, share)
            low = -high if low < 0 else 0.0
        else:
            low, high = min(seen.quantile(1 - share), 0.0), max(seen.quantile(share), 0.0)
    elif rule in SEARCHES and high > low:
        loss, fineness = SEARCHES[rule]
        low, high = search(lambda a, b: loss(seen, a, b, bits, signed, symmetric), low, high, symmetric, fineness)
    return low, high


def _quantile_of_size(seen: Histogram, share: float) -> float:
    """The quantile of |x|, to within a bin."""
    if seen.low >= 0:
        return max(seen.quantile(share), 0.0)
    index = np.arange(seen.first, seen.first + len(seen.counts))
    folded = np.bincount(np.where(index < 0, -index - 1, index), weights=seen.counts)
    below = np.concatenate([[0], np.cumsum(folded)])
    top = max(seen.high, -seen.low)
    return float(min(np.interp(share * seen.count, below, np.arange(len(below)) * seen.width), top))


Loss = Callable[[Any, Any], Any]


def search(loss: Loss, low: float, high: float, symmetric: bool, fineness: int) -> tuple[float, float]:
    """The pair below (low, high) in size with the least `loss`; both ends shrink on their own unless `symmetric`.

    First factors of 2^(-j / fineness) down to 1/32, all pairs (or, where one number is sought, eight times as many
    factors), then three rounds of finer steps around the best.
    """
    one_sided = symmetric or low == 0 or high == 0
    fineness *= 8 if one_sided else 1
    centre, step = np.zeros(2), 1 / fineness
    offsets = -np.arange(5 * fineness + 1) * step
    best = (math.inf, low, high)
    for _ in range(4):
        a, b = (offsets + centre[0], offsets + centre[1])
        pairs = np.stack([a, a], 1) if one_sided else np.stack(np.meshgrid(a, b, indexing="ij"), -1).reshape(-1, 2)
        pairs = np.minimum(pairs, 0.0)
        lows, highs = low * 2.0 ** pairs[:, 0], high * 2.0 ** pairs[:, 1]
        losses = loss(lows, highs)
        i = int(np.argmin(losses))
        if losses[i] < best[0]:
            best, centre = (float(losses[i]), float(lows[i]), float(highs[i])), pairs[i]
        step /= 3
        offsets = np.arange(-3, 4) * step
    return best[1], best[2]


def _mse(seen: Histogram, low: Any, high: Any, bits: int, signed: bool, symmetric: bool) -> Any:
    """E[(x - x^)^2] for each range (low, high), float64 [n]."""
    qmin = -(2 ** (bits - 1)) if signed else 0
    scale, zero = _grids(low, high, bits, signed, symmetric)
    return _noise(seen, scale, zero, qmin, qmin + 2**bits - 1)


def _noise(seen: Histogram, scale: Any, zero: Any, qmin: int, qmax: int) -> Any:
    """E[(x - x^)^2] for each scale and zero [n], exact for values spread evenly within bins, exact zeros apart.

    In units of the scale the error is (u - n)^2 with n = clamp(round(u)), whose integral is n / 12 + (u - n)^3 / 3: it
    is continuous from cell to cell and holds in the clipped tails too, so that each bin costs two of its values.
    """
    counts = seen.counts.astype(np.float64)
    if seen.zeros:
        counts[-seen.first] -= seen.zeros
    used = np.flatnonzero(counts)
    if not len(used):
        return np.zeros(len(scale))
    span = slice(used[0], used[-1] + 1)
    edges = seen.edges[span.start : span.stop + 1]
    # The outermost values are known exactly: no value lies in the outermost bins beyond them.
    edges[0], edges[-1] = max(edges[0], seen.low), min(edges[-1], seen.high)
    size = np.diff(edges)
    density = counts[span] / np.where(size > 0, size, 1.0) / seen.count
    points = [] if size[0] > 0 and size[-1] > 0 else [i for i in {0, len(size) - 1} if size[i] <= 0]
    out = np.empty(len(scale))
    step = max(1, (1 << 18) // len(edges))
    for i in range(0, len(scale), step):
        s, z = scale[i : i + step, None], zero[i : i + step, None]
        u = edges / s
        n = np.clip(np.round(u), qmin - z, qmax - z)
        u -= n
        n /= 12
        n += u * u * u / 3
        out[i : i + step] = np.diff(n, axis=1) @ density * s[:, 0] ** 3
        for at in points:  # a bin cut down to a single value
            out[i : i + step] += (u[:, at] * s[:, 0]) ** 2 * counts[span][at] / seen.count
    return out


def _entropy(seen: Histogram, low: Any, high: Any, bits: int, signed: bool, symmetric: bool) -> Any:
    """KL(P || Q) in nats for each range, float64 [n]; inf where a code would be narrower than a bin.

    P is the histogram with all that lies beyond the range added to its outermost bins, Q is the histogram without that
    after quantization: the mass of each code spread evenly over its bins that are not empty (the procedure of TensorRT,
    Migacz 2017, "8-bit inference with TensorRT"). A code that only clipped values fall into counts as half a value in
    Q, or it would rule out nearly all ranges that end in a thin tail. Exact zeros are left out: every range has them.

    With running sums of c, of c log c and of non-empty bins, a range costs one look-up a code, not one a bin.
    """
    qmin = -(2 ** (bits - 1)) if signed else 0
    scale, zero = _grids(low, high, bits, signed, symmetric)
    counts = seen.counts.astype(np.float64)
    if seen.zeros:
        counts[-seen.first] -= seen.zeros
    everything = counts.sum()
    if everything <= 0:
        return np.zeros(len(scale))
    bins = len(counts)

    def running(values: Any) -> Any:
        return np.concatenate([[0.0], np.cumsum(values)])

    logs = counts * np.log(np.maximum(counts, 1.0))
    mass, own, filled = running(counts), running(logs), running(counts > 0)
    out = np.full(len(scale), math.inf)
    fine = np.flatnonzero(scale >= seen.width)
    step = max(1, (1 << 18) // 2**bits)
    for i in range(0, len(fine), step):
        part = fine[i : i + step]
        s, z = scale[part, None], zero[part, None]
        # The bins of code k are those whose middle lies in [(k - z - 1/2) s, (k - z + 1/2) s).
        border = (np.arange(qmin, qmin + 2**bits + 1) - z - 0.5) * s / seen.width - 0.5
        ends = np.clip(np.ceil(border).astype(np.int64) - seen.first, 0, bins)
        a, b = ends[:, 0], ends[:, -1]
        left, right = mass[a], everything - mass[b]
        inside = np.diff(mass[ends], axis=1)
        spread = np.diff(filled[ends], axis=1)
        # The clipped tails fall into the outermost bins of the range, and so into the codes that hold them.
        rows = np.arange(len(part))
        first, last = np.minimum(a, bins - 1), np.maximum(b - 1, 0)
        head = np.argmax(np.diff(ends, axis=1) > 0, axis=1)
        tail = 2**bits - 1 - np.argmax(np.diff(ends, axis=1)[:, ::-1] > 0, axis=1)
        target = inside.copy()
        target[rows, head] += left
        target[rows, tail] += right
        spread[rows, head] += (left > 0) & (counts[first] == 0)
        spread[rows, tail] += (right > 0) & (counts[last] == 0) & ~((first == last) & (left > 0))
        known = own[b] - own[a]
        for end, more in ((first, left), (last, right)):
            grown = counts[end] + more
            known += grown * np.log(np.maximum(grown, 1.0)) - logs[end]
        total = inside.sum(axis=1)
        inside[(target > 0) & (inside == 0)] = 0.5
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.log(inside) - np.log(spread)
            cross = np.where(target > 0, target * share, 0.0).sum(axis=1)
            divergence = (known - cross) / everything - math.log(everything) + np.log(total)
        out[part] = np.where((b > a) & (total > 0) & (first < last), divergence, math.inf)
    return out


SEARCHES = {"mse": (_mse, 4), "entropy": (_entropy, 8)}  # the divergence is the rougher of the two
RULES = ("minmax", "average", "percentile", "mse", "entropy")
