"""Weights that already lie on a quantization lattice: the codes and scales that they were decoded from.

A file that was decoded and stored again holds w = round(d q), round(d q + m) or round(d sc q - dmin m), where `round`
is that of the stored type. Each weight says between which borders the number before rounding lay. From a guess of what
the extreme weights' codes are follow all codes; the borders then leave a range for d, once m (or dmin) is given, of
which the nearest numbers to a least-squares fit are tried. What is found is checked by decoding it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from bitwright.core.array import Array, float32, like, namespace
from bitwright.core.format import Format
from bitwright.core.qtensor import QTensor, divisor
from bitwright.core.scaling import NUMBERS, Number

PIECE = 1 << 19
"""Weights that are looked at at once; of the first piece, `FIRST`: most matrices end there."""
FIRST = 1 << 13
DIGITS = {"fp32": (23, -126), "fp16": (10, -14), "bf16": (7, -126)}
"""Bits after the leading one of a stored weight, and the least exponent."""
NEAR = 16
"""Half steps between stored numbers, on either side of a fitted shift, that are tried; half, because below a power of
two numbers are twice as close."""
HOPE = 8
"""Guesses after which a matrix is no lattice where not one of its first blocks, if there are more, is."""
RANKS = 12
"""Factors around small scales that are tried."""
PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31)
SLACK = 3.0
"""Borders' distance from a weight, in which a fit must lie that is not yet of stored numbers."""


def recover(w: Array, format: Format, source: str = "bf16") -> QTensor | None:
    """The matrix whose `decode()`, rounded to the type `source`, is `w` [rows, columns]; None where none is found.

    `source` is the type in which the weights were stored: "bf16", "fp16" or "fp32". Where several matrices have this
    decode, it is one of them. None is no proof: factors around small scales are those that encoders choose, of which
    the largest small scale or shift is a likely multiple, and those of shifts are negative.
    Raises ValueError for formats that are not looked for: those with zero points, codebooks, rotations, or one scale
    for the whole tensor.
    """
    if not looked_for(format):
        raise ValueError(f"{format.name} is no lattice that is looked for")
    rows, columns = w.shape
    if not format.fits(columns):
        return None
    parts: list[QTensor] = []
    start, size = 0, FIRST
    while start < rows:
        stop = min(rows, start + max(1, size // columns))
        part = _part(float32(w[start:stop]), format, source)
        if part is None:
            return None
        parts.append(part)
        start, size = stop, PIECE
    return QTensor.stack(parts)


def looked_for(format: Format) -> bool:
    """Whether `recover` knows such a format."""
    levels = format.scale.levels
    known = len(levels) == 1 or (len(levels) == 2 and levels[0].type[0] in "iu" and isinstance(levels[1].block, int))
    plain = format.zero is None and not format.rotated and not format.code.table_bits and format.code.rows == 1
    return known and plain and format.block != "tensor"


def _part(w: Array, format: Format, source: str) -> QTensor | None:
    """As `recover`, for a few rows."""
    xp, rows = namespace(w), w.shape[0]
    if not bool(xp.all(xp.isfinite(w))):
        return None
    around = format.scale.levels[-1].block
    size = around if isinstance(around, int) else w.shape[1]
    blocks = xp.reshape(w, (-1, size))
    found = (_plain if len(format.scale.levels) == 1 else _nested)(Borders.of(blocks, source), format)
    if found is None:
        return None
    codes, scale, shift, outer, shift_outer = found

    def per_row(x: Array) -> Array:
        return xp.reshape(x, (rows, -1))

    q = QTensor(format, per_row(codes), per_row(scale))
    if shift is not None:
        q = replace(q, shift=per_row(shift))
    if outer is not None:
        q = replace(q, outer=(per_row(outer),))
    if shift_outer is not None:
        q = replace(q, shift_outer=(per_row(shift_outer),))
    return q if bool(xp.all(NUMBERS[source].round(q.decode()) == w)) else None


@dataclass(frozen=True)
class Borders:
    """Weights `w` float32 [blocks, size], and the range float64 `low` ... `high` that is rounded to each."""

    w: Array
    low: Array
    high: Array
    source: str

    @classmethod
    def of(cls, w: Array, source: str) -> Borders:
        """Half way to the neighbours, which are nearer towards zero where a weight is a power of two."""
        xp = namespace(w)
        digits, least = DIGITS[source]
        size = xp.abs(xp.astype(w, xp.float64))
        mantissa, exponent = xp.frexp(size)
        exponent = xp.where(size == 0, like(least, size, size.dtype), xp.astype(exponent, xp.float64) - 1)
        exponent = xp.clip(exponent, float(least), None)
        half = 2.0 ** (exponent - digits - 1)
        inner = xp.where((mantissa == 0.5) & (exponent > least), half / 2, half)
        # What float32 arithmetic adds to the sum of a product and a shift.
        error = xp.max(size, axis=-1, keepdims=True) * 2.0**-24
        up, down = xp.where(w < 0, inner, half), xp.where(w < 0, half, inner)
        value = xp.astype(w, xp.float64)
        return cls(w, value - down - error, value + up + error, source)

    def __getitem__(self, chosen: Array) -> Borders:
        """Some of the blocks."""
        return Borders(self.w[chosen], self.low[chosen], self.high[chosen], self.source)

    def split(self, count: int) -> Borders:
        """Each block as `count` of their own."""
        xp = namespace(self.w)
        low, high, w = (xp.reshape(x, (x.shape[0] * count, -1)) for x in (self.low, self.high, self.w))
        return Borders(w, low, high, self.source)

    def without(self, hidden: Array) -> Borders:
        """The same with no borders where `hidden` [blocks, size] says so."""
        xp, far = namespace(self.w), float("inf")
        return Borders(self.w, xp.where(hidden, -far, self.low), xp.where(hidden, far, self.high), self.source)

    def met(self, value: Array) -> Array:
        """Whether all floats of a block round to its weights (where there are borders), bool [blocks]."""
        xp = namespace(value)
        return xp.all((NUMBERS[self.source].round(value) == self.w) | ~xp.isfinite(self.low), axis=-1)


Guess = tuple[float | None, float]
"""What the extreme weights mean: the lowest and the highest, or (None, what the one of the largest size means)."""


def _guesses(format: Format) -> list[Guess]:
    """Guesses in the order in which encoders choose: llama.cpp's let the largest weight mean the lowest value, whatever
    its sign, and the largest of 8 bits 127."""
    grid = format.grid
    values = sorted({value for value in grid.values if value == value and value}, key=abs, reverse=True)
    if format.shift is not None:
        spans: list[Guess] = [(0.0, high) for high in values]
        spans += [(None, high) for high in values]
        spans += [(low, high) for high in values for low in values if low < high]
        if len(format.scale.levels) > 1:
            return spans
        return spans + [(high, low) for low, high in spans if low is not None]  # by a negative scale
    if _positive(format):
        up: list[Guess] = [(None, value) for value in values if value > 0]
        return up if grid.low == -grid.high else [up[0], (None, grid.low), *up[1:]]
    return [(None, value) for value in values if value < 0 or not grid.uniform]


def _positive(format: Format) -> bool:
    """Whether scales are positive, unless the largest weight means a value that has no opposite."""
    return format.grid.bits == 8 or format.grid.low == -format.grid.high


def _guessed(b: Borders, format: Format, guess: Guess) -> Iterator[Array]:
    """Codes (uint8 [blocks, size]) by a guess; where that is too rough, by each stored scale near it.

    Weights of bfloat16 are known to 1 in 256, which is half a step of the largest of 8 bits.
    """
    xp, w = namespace(b.w), b.w
    low, high = xp.min(w, axis=-1)[:, None], xp.max(w, axis=-1)[:, None]
    if guess[0] is None:
        scale, start = xp.where(high >= -low, high, low) / guess[1], xp.zeros_like(low)
        if format.shift is None and guess[1] > 0 and _positive(format):
            scale = xp.abs(scale)
    else:
        scale = (high - low) / (guess[1] - guess[0])
        start = low - guess[0] * scale
    number, *several = (level.number for level in format.scale.levels)
    if several or format.shift is not None or abs(guess[1]) < 2.0 ** (DIGITS[b.source][0] - 2):
        yield format.grid.nearest((w - start) / divisor(scale))
        return
    for away in sorted(range(-8, 9), key=abs):
        exact = number.round(scale * (1 + away * 2.0**-11))
        yield format.grid.nearest(w / divisor(exact))


def _range(b: Borders, x: Array, shift: Array | float) -> tuple[Array, Array]:
    """Between which factors (float64 [blocks]) factor * x + shift stays within all borders; none where low > high.

    1 to 1 where no weight says anything about it.
    """
    xp = namespace(x)
    low, high = b.low - shift, b.high - shift
    safe, far = xp.where(x == 0, xp.ones_like(x), x), xp.full_like(x, float("inf"))
    one, other = low / safe, high / safe
    used = (x != 0) & xp.isfinite(low)
    least = xp.max(xp.where(used, xp.minimum(one, other), -far), axis=-1)
    most = xp.min(xp.where(used, xp.maximum(one, other), far), axis=-1)
    unmet = xp.any((x == 0) & ((low > 0) | (high < 0)), axis=-1)
    free, unit = xp.isinf(least), xp.ones_like(least)
    least, most = xp.where(free, unit, least), xp.where(free, unit, most)
    return least, xp.where(unmet, least - 1, most)


def _least_squares(b: Borders, x: Array, z: Array, most: float | None = None) -> tuple[Array, Array]:
    """d and e <= `most` (float64 [blocks]) of the least sum of squares of d x + e z - w over the borders' distance."""
    xp = namespace(x)
    seen = xp.isfinite(b.low)
    distance = xp.where(seen, b.high - b.low, xp.zeros_like(b.low))
    widest = xp.max(distance, axis=-1)[:, None]
    weight = xp.where(seen, widest / xp.maximum(distance, 1e-6 * widest), xp.zeros_like(distance)) ** 2
    w = xp.astype(b.w, xp.float64)
    xx, xz, zz, xw, zw = (xp.sum(weight * product, axis=-1) for product in (x * x, x * z, z * z, x * w, z * w))
    det = xx * zz - xz * xz
    alone = det <= 1e-12 * xx * zz
    e = xp.where(alone, zw / divisor(zz), (xx * zw - xz * xw) / xp.where(alone, xp.ones_like(det), det))
    e = e if most is None else xp.clip(e, None, most)
    return (xw - e * xz) / divisor(xx), e


def _fit(b: Borders, q: Array, small: Array | None, z: Array | None, number: Number) -> tuple[Array, Array, Array]:
    """d and e, as `number` holds them, and whether d * small * q + e * z, in float32, rounds to the weights: [blocks].

    `q`, `small` and `z` float32 [blocks, size]; without `z` e is 0, without `small` that is 1.
    """
    xp = namespace(q)
    x = xp.astype(q if small is None else q * small, xp.float64)
    d, e = xp.ones_like(q[:, 0]), xp.zeros_like(q[:, 0])
    ok = xp.zeros(q.shape[:1], dtype=xp.bool, device=q.device)
    left = xp.arange(q.shape[0], device=q.device)
    fitted, step = xp.zeros_like(d), xp.zeros_like(d)
    if z is not None:
        _, best = _least_squares(b, x, xp.astype(z, xp.float64))
        best = xp.where(xp.all(z == 0, axis=-1), -xp.ones_like(best), best)
        fitted = xp.astype(number.round(float32(best)), xp.float64)
        digits, least = DIGITS[number.name]
        exponent = xp.clip(xp.astype(xp.frexp(fitted)[1], xp.float64) - 1, float(least), None)
        step = 2.0 ** (exponent - digits - 1)
    for near in range(1 if z is None else 2 * NEAR + 1):
        if not left.shape[0]:
            break
        every = left.shape[0] == q.shape[0]
        here = b if every else b[left]
        xs, qs = (x, q) if every else (x[left], q[left])
        shift, added = 0.0, 0.0
        if z is not None:
            away = (near + 1) // 2 * (1 if near % 2 else -1)
            tried = number.round(float32(fitted[left] + away * step[left]))
            added = tried[:, None] * z[left]
            shift = xp.astype(added, xp.float64)
            e[left] = tried
        low, high = _range(here, xs, shift)
        done = xp.zeros_like(ok[left])
        for point in (0.5, 0.0, 1.0):  # a number on a border may round to the neighbour
            factor = number.round(float32(low + point * (high - low)))
            scale = factor[:, None] if small is None else factor[:, None] * small[left]
            good = here.met(qs * scale + added) & ~done
            d[left[good]] = factor[good]
            done = done | good
            if xp.all(done | (low > high)):
                break
        ok[left] = done
        left = left[~done]
    return d, e, ok


def _plain(b: Borders, format: Format) -> tuple[Any, ...] | None:
    """Codes, scales and shifts of blocks with one scale each; None where one block has none."""
    xp, number = namespace(b.w), format.scale.levels[0].number
    codes = xp.zeros(b.w.shape, dtype=xp.uint8, device=b.w.device)
    scale, shift = xp.ones_like(b.w[:, 0]), xp.zeros_like(b.w[:, 0])
    left = xp.arange(b.w.shape[0], device=b.w.device)
    for count, guess in enumerate(_guesses(format)):
        if count == HOPE and left.shape[0] == b.w.shape[0] > HOPE:
            return None
        here = b[left]
        open = xp.ones(left.shape, dtype=xp.bool, device=left.device)
        for tried in _guessed(here, format, guess):
            z = None if format.shift is None else xp.ones_like(here.w)
            d, e, ok = _fit(here, format.grid.decode(tried), None, z, number)
            ok = ok & open
            won = left[ok]
            codes[won], scale[won], shift[won] = tried[ok], d[ok], e[ok]
            open = open & ~ok
            if not xp.any(open):
                break
        left = left[open]
        if not left.shape[0]:
            return codes, scale, None if format.shift is None else shift, None, None
    return None


@dataclass
class Parts:
    """Small blocks: codes, wanted scale and shift (float64 [blocks]), and whether no coarser lattice holds them."""

    codes: Array
    scale: Array
    shift: Array
    sure: Array

    @classmethod
    def of(cls, b: Borders, format: Format) -> Parts | None:
        """By the first guess that fits each block, scales not yet as stored; None where one block has none."""
        xp = namespace(b.w)
        codes = xp.zeros(b.w.shape, dtype=xp.uint8, device=b.w.device)
        scale = xp.astype(xp.zeros_like(b.w[:, 0]), xp.float64)
        shift = xp.zeros_like(scale)
        left = xp.arange(b.w.shape[0], device=b.w.device)
        for guess in _guesses(format):
            here = b[left]
            tried = next(_guessed(here, format, guess))
            x = xp.astype(format.grid.decode(tried), xp.float64)
            low, high = _range(here, x, 0.0)
            d, e, ok = (low + high) / 2, xp.zeros_like(low), low <= high
            if guess[0] is not None:
                slope, start = _least_squares(here, x, xp.ones_like(x), most=0.0)
                off = xp.abs(slope[:, None] * x + start[:, None] - xp.astype(here.w, xp.float64))
                d, e = xp.where(ok, d, slope), xp.where(ok, e, start)
                ok = ok | xp.all(off <= SLACK * (here.high - here.low) / 2, axis=-1)
            won = left[ok]
            codes[won], scale[won], shift[won] = tried[ok], d[ok], e[ok]
            left = left[~ok]
            if not left.shape[0]:
                break
        else:
            return None
        empty = xp.all(b.w == 0, axis=-1)
        scale = xp.where(empty, xp.zeros_like(scale), scale)
        return cls(codes, scale, xp.where(empty, xp.zeros_like(shift), shift), empty | _finest(codes, format))


def _finest(codes: Array, format: Format) -> Array:
    """Whether the values of a block [blocks, size] have no common divisor; of other grids, whether they differ."""
    xp = namespace(codes)
    if not format.grid.uniform:
        return xp.any(codes != codes[:, :1], axis=-1)
    values = xp.astype(xp.astype(codes, xp.int16) + int(format.grid.low), xp.int16)
    found = xp.any(values != 0, axis=-1)
    for prime in PRIMES:
        found = found & xp.any(values % prime != 0, axis=-1)
    return found


def _nested(b: Borders, format: Format) -> tuple[Any, ...] | None:
    """Codes, scales, shifts and their factors of blocks with small scales; None where one block has none."""
    xp, inner = namespace(b.w), format.scale.levels[0]
    n, size = b.w.shape[0], int(inner.block)
    count = b.w.shape[1] // size
    parts = Parts.of(b.split(count), format)
    if parts is None:
        return None
    wanted = xp.reshape(parts.scale, (n, count))
    lowered = xp.reshape(parts.shift, (n, count))
    sure = xp.reshape(parts.sure, (n, count))
    codes = xp.reshape(parts.codes, (n, count, size))
    small, least = xp.ones_like(float32(wanted)), xp.zeros_like(float32(wanted))
    d, e = xp.ones_like(b.w[:, 0]), xp.zeros_like(b.w[:, 0])
    left = xp.arange(n, device=b.w.device)
    shifts = None if format.shift is None else format.shift.levels[0].number
    # Where not all of a grid is used, its lowest value may not be: at second sight nothing of such blocks is sure.
    used = (xp.max(codes, axis=-1) == len(format.grid.values) - 1) | (format.shift is None)
    largest = xp.abs(wanted) == xp.max(xp.abs(wanted), axis=-1)[:, None]
    for scales, depths in ((sure, xp.ones_like(sure)), (sure & used, sure & used)):
        if not left.shape[0]:
            break
        certain = scales | (largest & ~xp.any(scales & (wanted != 0), axis=-1)[:, None])
        factors = _factors(wanted, certain, inner.number)
        below = None if shifts is None else _factors(lowered, depths, shifts)
        for i, j in _pairs(shifts is not None):
            factor = factors[left, i], None if below is None else below[left, j]
            tried = _tried(b[left], format, *factor, codes[left], wanted[left], lowered[left], certain[left])
            ok = tried[-1]
            won = left[ok]
            codes[won], small[won], least[won], d[won], e[won] = (found[ok] for found in tried[:-1])
            left = left[~ok]
            if not left.shape[0]:
                break
    if left.shape[0]:
        return None
    if not format.scale.zeros:
        small = xp.where(small == 0, xp.ones_like(small), small)  # of a block of zeros
    if format.shift is None:
        return codes, d[:, None] * small, None, d, None
    return codes, d[:, None] * small, e[:, None] * least, d, e


def _pairs(shifted: bool) -> list[tuple[int, int]]:
    """Which of the likeliest factors of scales and of shifts are tried together."""
    if not shifted:
        return [(i, 0) for i in range(RANKS)]
    return [(i, total - i) for total in range(RANKS) for i in range(total + 1)]


def _factors(wanted: Array, sure: Array, number: Number) -> Array:
    """The likeliest factors (float64 [blocks, RANKS]) of which `wanted` [blocks, count] are whole multiples.

    The largest of those that are sure is one of the numbers of its type. In eighths of how far the others are from
    whole multiples then; of equals first the factor by which all of the type's range is used, then the largest ones.
    """
    xp = namespace(wanted)
    known = xp.where(sure, wanted, xp.zeros_like(wanted))
    high, low = xp.max(known, axis=-1), xp.min(known, axis=-1)
    most = int(max(number.high, -number.low))
    signs = (-1, 1) if number.low < 0 else (1,)
    values = [float(sign * size) for size in range(1, most + 1) for sign in signs]
    order = [0 if value == signs[0] * most else abs(value) for value in values]
    factor = divisor(xp.where(high >= -low, high, low))[:, None] / like(values, wanted, xp.float64)
    multiple = known[:, None, :] / factor[:, :, None]
    off = xp.max(xp.abs(multiple - xp.round(multiple)), axis=-1)
    rank = xp.floor(8 * off) * 2 * most + like(order, wanted, xp.float64)
    return xp.take_along_axis(factor, xp.argsort(rank, axis=-1, stable=True)[:, :RANKS], axis=-1)


def _tried(
    b: Borders,
    format: Format,
    factor: Array,
    below: Array | None,
    codes: Array,
    wanted: Array,
    lowered: Array,
    sure: Array,
) -> tuple[Array, ...]:
    """Codes, small scales, small shifts, the factors of both and whether they mean the weights, of some blocks.

    `codes` [blocks, count, size]; `wanted` scales and `lowered` shifts [blocks, count] are about multiples of `factor`
    and `below` [blocks].
    """
    xp = namespace(codes)
    size = codes.shape[-1]
    inner, number = format.scale.levels[0].number, format.scale.levels[1].number
    multiple = xp.round(wanted / factor[:, None])
    if inner.low < 0 and format.grid.uniform:
        # One more small scale is negative than positive: signs of codes and scale may be both the other way round.
        over = (multiple > inner.high) & xp.all(codes > 0, axis=-1)
        multiple = xp.where(over, -multiple, multiple)
        codes = xp.where(over[..., None], -2 * int(format.grid.low) - codes, codes)
    small = float32(multiple.clip(inner.low, inner.high))
    least = xp.zeros_like(small)
    if below is not None:
        least = float32(xp.round(lowered / below[:, None]).clip(0.0, inner.high))

    def fit(b: Borders, codes: Array, small: Array, least: Array) -> tuple[Array, Array, Array]:
        q = format.grid.decode(xp.reshape(codes, (codes.shape[0], -1)))
        z = None if format.shift is None else xp.repeat(least, size, axis=-1)
        return _fit(b, q, xp.repeat(small, size, axis=-1), z, number)

    hidden = xp.repeat(~sure, size, axis=-1)
    d, e, ok = fit(b.without(hidden), codes, small, least)
    again = xp.nonzero(ok & xp.any(~sure, axis=-1))[0]
    if again.shape[0]:
        chosen = tuple(x[again] for x in (codes, small, least, sure))
        filled = _filled(b[again].split(codes.shape[1]), format, d[again], e[again], *chosen)
        codes[again], small[again], least[again] = filled
        d[again], e[again], ok[again] = fit(b[again], *filled)
    return codes, small, least, d, e, ok


def _filled(
    b: Borders, format: Format, d: Array, e: Array, codes: Array, small: Array, least: Array, sure: Array
) -> tuple[Array, Array, Array]:
    """Codes, small scales and small shifts, where those that are not sure are the best of all that there are."""
    xp = namespace(codes)
    n, count, size = codes.shape
    scales, shifts = _all(format.scale.levels[0].number, small), like([0.0], small)
    if format.shift is not None:
        shifts = _all(format.shift.levels[0].number, small)
    unsure = xp.nonzero(~xp.reshape(sure, (-1,)))[0]
    codes, small, least = xp.reshape(codes, (-1, size)), xp.reshape(small, (-1,)), xp.reshape(least, (-1,))
    step = max(1, PIECE // (size * scales.shape[0] * shifts.shape[0]))
    for start in range(0, unsure.shape[0], step):
        here = unsure[start : start + step]
        part = b[here]
        scale = (d[here // count][:, None] * scales)[:, :, None, None]
        shift = (e[here // count][:, None] * shifts)[:, None, :, None]
        found = format.grid.nearest((part.w[:, None, None, :] - shift) / divisor(scale))
        value = xp.astype(format.grid.decode(found) * scale + shift, xp.float64)
        middle, half = (part.low + part.high) / 2, (part.high - part.low) / 2
        off = xp.max(xp.abs(value - middle[:, None, None, :]) / half[:, None, None, :], axis=-1)
        best = xp.argmin(xp.reshape(off, (here.shape[0], -1)), axis=-1)
        found = xp.reshape(found, (here.shape[0], -1, size))
        codes[here] = found[xp.arange(here.shape[0], device=best.device), best]
        small[here], least[here] = scales[best // shifts.shape[0]], shifts[best % shifts.shape[0]]
    return xp.reshape(codes, (n, count, size)), xp.reshape(small, (n, count)), xp.reshape(least, (n, count))


def _all(number: Number, x: Array) -> Array:
    """All whole numbers of a type, float32, the largest first."""
    return like([float(i) for i in range(int(number.high), int(number.low) - 1, -1)], x)
