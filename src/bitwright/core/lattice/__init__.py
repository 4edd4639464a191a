"""Weights that already lie on a quantization lattice: the codes and scales that they were decoded from.

A file that was decoded and stored again holds w = round(d q), round(d (q - z)), round(d q + m) or
round(d sc q - dmin m), where `round` is that of the stored type. Each weight says between which borders the number
before rounding lay. From a guess of what the extreme weights' codes are follow all codes; the borders then leave a
range for d, once m (or dmin) is given, of which the nearest numbers to a least-squares fit are tried. What is found is
checked by decoding it.
"""

from __future__ import annotations

from dataclasses import replace

from bitwright.core.array import Array, float32, namespace
from bitwright.core.format import Format
from bitwright.core.lattice.borders import DIGITS, Borders
from bitwright.core.lattice.nested import nested
from bitwright.core.lattice.plain import plain
from bitwright.core.lattice.sieve import possible
from bitwright.core.qtensor import QTensor
from bitwright.core.scaling import NUMBERS

FIRST, PIECE = 1 << 9, 1 << 17
"""Weights that are looked at at first, where most matrices end, and at most; in between 16 times as many each time."""


def recover(w: Array, format: Format, source: str = "bf16") -> QTensor | None:
    """The matrix whose `decode()`, rounded to the type `source`, is `w` [rows, columns]; None where none is found.

    `source` is the type in which the weights were stored: "bf16", "fp16" or "fp32". Where several matrices have this
    decode, it is one of them. None is no proof: factors around small scales are those that encoders choose, of which
    the largest small scale or shift is a likely multiple, and those of shifts are negative.
    Raises ValueError for formats that are not looked for: those with codebooks, rotations, or one scale for the whole
    tensor.
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
        start, size = stop, min(16 * size, PIECE)
    return QTensor.stack(parts)


def found(w: Array, format: Format) -> QTensor | None:
    """As `recover`, whichever type the weights were stored in: of those that hold them all the finest that will do.

    A note says so where the decode is not the weights until it is rounded.
    """
    xp = namespace(w)
    for source in DIGITS:
        if bool(xp.all(NUMBERS[source].round(w) == w)) and (q := recover(w, format, source)) is not None:
            exact = bool(xp.all(q.decode() == w))
            return q if exact else replace(q, notes=(f"decodes to its weights once rounded to {source}",))
    return None


def looked_for(format: Format) -> bool:
    """Whether `recover` knows such a format."""
    levels = format.scale.levels
    known = len(levels) == 1 or (len(levels) == 2 and levels[0].type[0] in "iu" and isinstance(levels[1].block, int))
    fixed = not format.rotated and not format.code.table_bits and format.code.rows == 1
    return known and fixed and format.block != "tensor"


def _part(w: Array, format: Format, source: str) -> QTensor | None:
    """As `recover`, for a few rows."""
    xp, rows = namespace(w), w.shape[0]
    if not bool(xp.all(xp.isfinite(w))):
        return None
    outermost = format.scale.levels[-1].block
    width = outermost if isinstance(outermost, int) else w.shape[1]
    b = Borders.of(xp.reshape(w, (-1, width)), source)
    if not bool(xp.all(possible(b.split(width // format.block_size(w.shape[1])), format.grid))):
        return None
    solved = (plain if len(format.scale.levels) == 1 else nested)(b, format)
    if solved is None:
        return None
    codes, scale, zero, shift, *around = (None if x is None else xp.reshape(x, (rows, -1)) for x in solved)
    factors = [() if x is None else (x,) for x in around]
    q = QTensor(format, codes, scale, zero, shift, outer=factors[0], shift_outer=factors[1])
    return q if bool(xp.all(NUMBERS[source].round(q.decode()) == w)) else None
