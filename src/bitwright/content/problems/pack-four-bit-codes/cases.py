import numpy as np


def _case(codes, words, count):
    return np.array(codes, dtype=np.int8), np.array(words, dtype=np.uint32), count


def samples():
    return [
        (
            "eight codes",
            _case([-8, -7, -6, -5, 0, 1, 6, 7], [0x76543210], 8),
            "Stored as 0 1 2 3 8 9 14 15, first code lowest: the word is 0xFE983210. The other one holds 0 to 7.",
        ),
        (
            "an odd count",
            _case([7, -8, 1], [0xFFFFF8A1], 3),
            "The word is 0x90F, and its upper bits are zero. The F above the third code is padding.",
        ),
    ]


def hidden():
    return [
        ("nothing to pack", _case([], [0x12345678], 5)),
        ("nothing to unpack", _case([3, -2], [], 0)),
        ("one code", _case([-1], [0xF], 1)),
        ("nine codes", _case([1, 2, 3, 4, 5, 6, 7, -8, -3], [0x89ABCDEF, 0x00000003], 9)),
        ("top bit set", _case([0, 0, 0, 0, 0, 0, 0, 7], [0xF0000000], 8)),
        ("all lowest", _case([-8] * 16, [0, 0], 16)),
        ("all highest", _case([7] * 16, [0xFFFFFFFF, 0xFFFFFFFF], 16)),
        ("zeros", _case([0] * 8, [0x88888888], 8)),
        ("count of zero", _case([5] * 7, [0xCAFEBABE], 0)),
        ("different lengths", _case([-4, 4], [0xDEADBEEF, 0x0BADF00D, 0xFEEDFACE], 21)),
    ]


def generate(rng, size):
    codes = rng.integers(-8, 8, int(rng.integers(1, 2 * size + 8)), dtype=np.int8)
    words = rng.integers(0, 2**32, int(rng.integers(1, size + 2)), dtype=np.uint32)
    return codes, words, int(rng.integers(8 * len(words) - 7, 8 * len(words) + 1))
