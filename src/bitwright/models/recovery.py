"""Matrices whose weights lie on the lattice of their format already: they keep those codes, whatever the method is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bitwright.core.array import Array
from bitwright.core.format import Format
from bitwright.core.lattice import found, looked_for
from bitwright.core.qtensor import QTensor
from bitwright.errors import TensorError
from bitwright.methods import Method, Seen

FIRST = 1 << 13
"""Weights of which it is said whether they lie on a lattice."""


class OffLatticeError(Exception):
    """Weights lie on no lattice of their format: their own method has to solve them."""


def _solve(w: Array, format: Format, seen: Seen, options: Any) -> QTensor:
    """The codes from which `w` [rows, columns] was decoded. Raises OffLatticeError where there are none."""
    q = found(w, format)
    if q is None:
        raise OffLatticeError
    return q


RECOVERY = Method(
    "lattice recovery",
    "The codes from which the weights were decoded",
    "What a file decodes to names its codes; see core.lattice.",
    _solve,
)
"""What solves such matrices; nobody asks for it by name."""


def begins(rows: Callable[[int, int], Array], shape: tuple[int, int], format: Format) -> bool:
    """Whether the first rows of a matrix lie on the lattice of `format`: hardly any other than those that lie on it do.

    `rows` gives its rows from the first number to the second.
    """
    if not looked_for(format):
        return False
    try:
        w = rows(0, min(shape[0], max(1, FIRST // shape[1])))
    except TensorError:
        return False  # said when all of it is read
    return found(w.cpu().numpy(), format) is not None  # quicker for so few
