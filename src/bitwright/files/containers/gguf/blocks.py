"""A quantized matrix as GGUF's blocks of bytes, and back.

Layouts: llama.cpp, `ggml-common.h` (block_q4_0 ... block_nvfp4) and `dequantize_row_*` of `ggml-quants.c`. What they
come down to is said once, in `LAYOUTS`: where codes, small scales and fp16 factors lie in a block, and in which order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from bitwright.core.array import Array, contiguous, float32, like, namespace
from bitwright.core.formats import named
from bitwright.core.grid import E4M3, FP4
from bitwright.core.qtensor import QTensor, divisor
from bitwright.files.gguf import TYPES


class Field(Protocol):
    """Numbers that lie in blocks: uint8 [rows, blocks, bytes] -> [rows, blocks, count], and back into such blocks."""

    def read(self, blocks: Array) -> Array:
        """The numbers."""

    def write(self, blocks: Array, numbers: Array) -> None:
        """Store numbers in place."""


@dataclass(frozen=True)
class Plane:
    """Some bits of `count` codes, from byte `at` on.

    Bytes lie in runs: their lowest `bits` are those of the first `run` codes, the next `bits` those of the next, and so
    on until the bytes are full.
    """

    at: int
    bits: int
    run: int
    count: int

    def read(self, blocks: Array) -> Array:
        """uint8 [..., count], below 2^bits."""
        xp = namespace(blocks)
        size, lead = self.count * self.bits // 8, blocks.shape[:-1]
        held = xp.reshape(blocks[..., self.at : self.at + size], (*lead, size // self.run, self.run))
        parts = [held >> shift & (1 << self.bits) - 1 for shift in range(0, 8, self.bits)]
        return xp.reshape(xp.stack(parts, axis=-2), (*lead, self.count))

    def write(self, blocks: Array, numbers: Array) -> None:
        """Store the lowest bits of `numbers` (uint8 [..., count])."""
        xp = namespace(blocks)
        size, lead, per = self.count * self.bits // 8, blocks.shape[:-1], 8 // self.bits
        parts = xp.reshape(numbers & (1 << self.bits) - 1, (*lead, size // self.run, per, self.run))
        held = parts[..., 0, :]
        for i in range(1, per):
            held = held | parts[..., i, :] << i * self.bits
        blocks[..., self.at : self.at + size] = xp.reshape(held, (*lead, size))


@dataclass(frozen=True)
class Codes:
    """Codes in planes, the lowest bits first; `flip` says which bits are stored inverted."""

    planes: tuple[Plane, ...]
    flip: int = 0

    def read(self, blocks: Array) -> Array:
        """uint8 [..., count]."""
        first, *higher = self.planes
        codes, known = first.read(blocks), first.bits
        for plane in higher:
            codes, known = codes | plane.read(blocks) << known, known + plane.bits
        return codes ^ self.flip if self.flip else codes

    def write(self, blocks: Array, numbers: Array) -> None:
        """Store codes (uint8)."""
        codes = numbers ^ self.flip if self.flip else numbers
        for plane in self.planes:
            plane.write(blocks, codes)
            codes = codes >> plane.bits if plane.bits < 8 else codes


@dataclass(frozen=True)
class Base3:
    """Five trits t0 ... t4 to a byte, which is their number in base 3, t0 first, as a fraction of 256 rounded up.

    So a byte times 3^i keeps in its lower eight bits what follows t0 ... t(i-1), and three times that has t(i) on top.
    """

    runs: tuple[tuple[int, int, int], ...] = ((0, 32, 5), (32, 16, 5), (48, 4, 4))
    """(first byte, bytes, trits in each): the first trits of all bytes of a run are the first codes."""

    def read(self, blocks: Array) -> Array:
        """uint8 [..., 256], 0 to 2."""
        xp = namespace(blocks)
        parts = []
        for at, size, trits in self.runs:
            held = xp.astype(blocks[..., at : at + size], xp.int16)
            parts += [xp.astype((held * 3**i & 255) * 3 >> 8, xp.uint8) for i in range(trits)]
        return xp.concat(parts, axis=-1)

    def write(self, blocks: Array, numbers: Array) -> None:
        """Store codes (uint8 [..., 256], 0 to 2)."""
        xp = namespace(blocks)
        done = 0
        for at, size, trits in self.runs:
            held = 0
            for i in range(trits):
                held = held + xp.astype(numbers[..., done : done + size], xp.int32) * 3 ** (4 - i)
                done += size
            blocks[..., at : at + size] = xp.astype((held * 256 + 242) // 243, xp.uint8)


@dataclass(frozen=True)
class Whole:
    """Small whole numbers as float32: codes less `bias`."""

    codes: Codes
    bias: int = 0

    def read(self, blocks: Array) -> Array:
        """float32 [..., count]."""
        return float32(self.codes.read(blocks)) - self.bias

    def write(self, blocks: Array, numbers: Array) -> None:
        """Store them (float32, whole)."""
        self.codes.write(blocks, _bytes(numbers + self.bias))


@dataclass(frozen=True)
class Sixes:
    """Eight scales, then eight minimums, of six bits in the twelve bytes from `at` on.

    The first four of each lie in the lower bits of bytes 0 to 7. Of the others, bytes 8 to 11 hold the lowest four
    bits, and the two bits left over in bytes 0 to 7 the highest.
    """

    at: int

    def read(self, blocks: Array) -> Array:
        """float32 [..., 16]."""
        xp = namespace(blocks)
        eight, lead = blocks[..., self.at : self.at + 8], blocks.shape[:-1]
        later = Plane(self.at + 8, 4, 4, 8).read(blocks) | eight >> 6 << 4
        both = xp.stack([eight & 63, later], axis=-2)
        return float32(xp.reshape(_swapped(xp.reshape(both, (*lead, 2, 2, 4))), (*lead, 16)))

    def write(self, blocks: Array, numbers: Array) -> None:
        """Store them (float32, whole)."""
        xp = namespace(blocks)
        lead = blocks.shape[:-1]
        both = xp.reshape(_swapped(xp.reshape(_bytes(numbers), (*lead, 2, 2, 4))), (*lead, 2, 8))
        first, later = both[..., 0, :], both[..., 1, :]
        blocks[..., self.at : self.at + 8] = first | later >> 4 << 6
        Plane(self.at + 8, 4, 4, 8).write(blocks, later)


def _swapped(x: Array) -> Array:
    """[rows, blocks, 2, 2, 4] with the two axes of 2 in the other order."""
    return namespace(x).permute_dims(x, (0, 1, 3, 2, 4))


@dataclass(frozen=True)
class Half:
    """One fp16 number."""

    at: int

    def read(self, blocks: Array) -> Array:
        """float32 [..., 1]."""
        return float32(contiguous(blocks[..., self.at : self.at + 2]).view(namespace(blocks).float16))

    def write(self, blocks: Array, numbers: Array) -> None:
        """Store it (float32 [..., 1])."""
        xp = namespace(blocks)
        blocks[..., self.at : self.at + 2] = contiguous(xp.astype(numbers, xp.float16)).view(xp.uint8)


@dataclass(frozen=True)
class Exponent:
    """One power of two as a byte (E8M0): e means 2^(e - 127), and 255 is no number."""

    at: int

    def read(self, blocks: Array) -> Array:
        """float32 [..., 1]."""
        xp = namespace(blocks)
        byte = blocks[..., self.at : self.at + 1]
        power = (xp.astype(byte, xp.int32) << 23).view(xp.float32)
        power = xp.where(byte == 0, like(2.0**-127, blocks), power)
        return xp.where(byte == 255, like(float("nan"), blocks), power)

    def write(self, blocks: Array, numbers: Array) -> None:
        """Store it (float32 [..., 1])."""
        xp = namespace(blocks)
        blocks[..., self.at : self.at + 1] = xp.astype(contiguous(numbers).view(xp.int32) >> 23 & 255, xp.uint8)


@dataclass(frozen=True)
class Small:
    """`count` floats of 8 bits (E4M3) without a sign, which is not read; all ones mean 0, as llama.cpp reads them."""

    at: int
    count: int

    def read(self, blocks: Array) -> Array:
        """float32 [..., count]."""
        xp = namespace(blocks)
        half = [value if value == value else 0.0 for value in E4M3.values[:128]]
        table = like([*half, *half[:-1], 480.0], blocks)  # 255 is not among what is read as 0
        flat = xp.reshape(blocks[..., self.at : self.at + self.count], (-1,))
        return xp.reshape(xp.take(table, xp.astype(flat, xp.int64), axis=0), (*blocks.shape[:-1], self.count))

    def write(self, blocks: Array, numbers: Array) -> None:
        """Store them (float32)."""
        blocks[..., self.at : self.at + self.count] = E4M3.nearest(numbers)


def _bytes(numbers: Array) -> Array:
    """Whole numbers from 0 to 255 as uint8; by way of int16, as torch turns floats into bytes one at a time."""
    xp = namespace(numbers)
    return xp.astype(xp.astype(numbers, xp.int16), xp.uint8)


@dataclass(frozen=True)
class Layout:
    """Where the parts of a block lie.

    `factor` is the outermost scale stored in a block, `least` what is beside it for shifts: the minimum itself, or what
    multiplies small ones and is subtracted then. `small` are the numbers per sub-block: scales, then as many minimums.
    """

    codes: Field
    factor: Field
    least: Field | None = None
    small: Field | None = None


def _planes(count: int, *planes: tuple[int, int, int], flip: int = 0) -> Codes:
    """`count` codes in planes of (first byte, bits, run)."""
    return Codes(tuple(Plane(*plane, count) for plane in planes), flip)


LAYOUTS = {
    "q4_0": Layout(_planes(32, (2, 4, 16)), Half(0)),
    "q4_1": Layout(_planes(32, (4, 4, 16)), Half(0), Half(2)),
    "q5_0": Layout(_planes(32, (6, 4, 16), (2, 1, 1)), Half(0)),
    "q5_1": Layout(_planes(32, (8, 4, 16), (4, 1, 1)), Half(0), Half(2)),
    "q8_0": Layout(_planes(32, (2, 8, 32), flip=128), Half(0)),
    "iq4_nl": Layout(_planes(32, (2, 4, 16)), Half(0)),
    "mxfp4": Layout(_planes(32, (1, 4, 16)), Exponent(0)),
    "nvfp4": Layout(_planes(64, (4, 4, 8)), Small(0, 4)),
    "q2_k": Layout(_planes(256, (16, 2, 32)), Half(80), Half(82), Whole(_planes(32, (0, 4, 16)))),
    "q3_k": Layout(
        _planes(256, (32, 2, 32), (0, 1, 32)), Half(108), None, Whole(_planes(16, (96, 4, 8), (104, 2, 4)), 32)
    ),
    "q4_k": Layout(_planes(256, (16, 4, 32)), Half(0), Half(2), Sixes(4)),
    "q5_k": Layout(_planes(256, (48, 4, 32), (16, 1, 32)), Half(0), Half(2), Sixes(4)),
    "q6_k": Layout(
        _planes(256, (0, 4, 64), (128, 2, 32)), Half(208), None, Whole(_planes(16, (192, 8, 16), flip=128), 128)
    ),
    "iq4_xs": Layout(_planes(256, (8, 4, 16)), Half(0), None, Whole(_planes(8, (4, 4, 1), (2, 2, 1)), 32)),
    "tq1_0": Layout(Base3(), Half(52)),
    "tq2_0": Layout(_planes(256, (0, 2, 32)), Half(64)),
}
"""Each type whose weights have a code each, by its format's name."""
SIZES = {kind.name.lower(): kind for kind in TYPES.values() if kind.name.lower() in LAYOUTS}
"""Weights and bytes of their blocks."""


def read_codes(raw: Array, name: str) -> Array:
    """The codes alone, uint8 [rows, columns], of blocks (uint8 [rows, bytes]); see `unpack`."""
    codes = LAYOUTS[name].codes.read(_blocks(raw, name))
    if named(name).code is FP4:
        codes = namespace(raw).where(codes == 8, codes ^ 8, codes)  # llama.cpp reads -0 as 0
    return namespace(raw).reshape(codes, (raw.shape[0], -1))


def unpack(raw: Array, name: str) -> QTensor:
    """The matrix that blocks mean: uint8 [rows, bytes of a row] of the type called `name`, such as "q4_k".

    It decodes to llama.cpp's floats, bit for bit. A number that is not finite stays so. NVFP4 blocks have no factor per
    tensor: llama.cpp reads it from a tensor beside them, and it is 1 here.
    """
    scale, shift, outer, shift_outer = _scales(_blocks(raw, name), name)
    return QTensor(named(name), read_codes(raw, name), scale, shift=shift, outer=outer, shift_outer=shift_outer)


def pack(q: QTensor) -> Array:
    """The blocks of a matrix, uint8 [rows, bytes of a row]; NVFP4 without the factor per tensor.

    What they mean is what `q` means, bit for bit. Raises ValueError where they cannot: for another format, for rows
    that are no whole blocks, and for scales that are not of the format.
    """
    name, xp = q.format.name, namespace(q.codes)
    if name not in LAYOUTS:
        raise ValueError(f"GGUF has no type for {name}")
    layout, kind = LAYOUTS[name], SIZES[name]
    rows, columns = q.shape
    if columns % kind.weights:
        raise ValueError(f"{columns} weights per row are no whole blocks of {kind.weights} ({kind.name})")
    blocks = xp.zeros((rows, columns // kind.weights, kind.size), dtype=xp.uint8, device=q.codes.device)

    def per_block(x: Array) -> Array:
        return xp.reshape(x, (rows, blocks.shape[1], -1))

    layout.codes.write(blocks, per_block(q.codes))
    if layout.small is None:
        layout.factor.write(blocks, per_block(q.scale / q.outer[0] if q.outer else q.scale))
        if layout.least is not None:
            layout.least.write(blocks, per_block(q.shift))
    else:
        factor = per_block(q.outer[0])
        small = [_multiples(per_block(q.scale), factor, q.format.scale.signed)]
        layout.factor.write(blocks, factor)
        if layout.least is not None:
            least = per_block(q.shift_outer[0])
            small.append(_multiples(per_block(q.shift), least, False))
            layout.least.write(blocks, -least)
        layout.small.write(blocks, xp.concat(small, axis=-1))
    scale, shift, _, _ = _scales(blocks, name)
    back = scale if layout.small or not q.outer else scale * q.outer[0]
    if not (back == q.scale).all() or not (shift is None or (shift == q.shift).all()):
        raise ValueError(f"scales or shifts that {kind.name} cannot hold")
    return xp.reshape(blocks, (rows, -1))


def _blocks(raw: Array, name: str) -> Array:
    """[rows, blocks, bytes]. Raises ValueError for rows that are no whole blocks."""
    size = SIZES[name].size
    if raw.shape[1] % size:
        raise ValueError(f"{raw.shape[1]} bytes per row are no whole blocks of {size} ({SIZES[name].name})")
    return namespace(raw).reshape(raw, (raw.shape[0], -1, size))


def _scales(blocks: Array, name: str) -> tuple[Array, Array | None, tuple[Array, ...], tuple[Array, ...]]:
    """Scale and shift (float32 [rows, groups]) of blocks [rows, blocks, bytes], and their factors, as in a QTensor."""
    xp, layout = namespace(blocks), LAYOUTS[name]

    def per_row(x: Array) -> Array:
        return xp.reshape(x, (blocks.shape[0], -1))

    factor = layout.factor.read(blocks)
    least = None if layout.least is None else layout.least.read(blocks)
    if layout.small is None:
        outer = tuple(like([[1.0]], blocks) for _ in named(name).scale.levels[1:])
        return per_row(factor), None if least is None else per_row(least), outer, ()
    small = layout.small.read(blocks)
    if least is None:
        return per_row(factor * small), None, (per_row(factor),), ()
    half = small.shape[-1] // 2
    scale, shift = factor * small[..., :half], -least * small[..., half:]
    return per_row(scale), per_row(shift), (per_row(factor),), (per_row(-least),)


def _multiples(numbers: Array, factor: Array, signed: bool) -> Array:
    """Which multiples of `factor` [..., 1] the `numbers` are. Of 0 any is one: -1 gives the other sign."""
    xp = namespace(numbers)
    found = xp.round(numbers / divisor(factor))
    if not signed:
        return found
    other = (factor == 0) & (xp.signbit(numbers) != xp.signbit(factor))
    return xp.where(other, -xp.ones_like(found), found)
