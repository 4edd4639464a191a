"""Matrices whose weights lie on the lattice of their format already: they keep those codes, whatever the method is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bitwright.core.array import Array
from bitwright.core.format import Format
from bitwright.core.lattice import found, looked_for
from bitwright.core.qtensor import QTensor
from bitwright.errors import TensorError
from bitwright.files.held import Held
from bitwright.methods import Method, Seen

if TYPE_CHECKING:
    from bitwright.models.model import Item, Model


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


def recovered(item: Item) -> Item:
    """The item as one that is to be recovered."""
    return replace(item, method=RECOVERY, options=RECOVERY.options())


def begins(model: Model, item: Item) -> bool:
    """Whether an item's first rows lie on the lattice of its format: hardly any other than those that lie on it do."""
    if not looked_for(item.format):
        return False
    try:
        w = model.rows(item, 0, min(item.rows, max(1, FIRST // item.columns))).cpu().numpy()  # quicker for so few
    except TensorError:
        return False  # said when all of it is read
    return found(w, item.format) is not None


def lattice(item: Item) -> str:
    """The lattice of an item's format in words: `int4 g32 lattice`."""
    return f"{Held(item.format).words} lattice"


def leaves(item: Item) -> Item:
    """The item with a note that it lies on the lattice no further than it begins."""
    note = f"begins on the {lattice(item)}, and does not lie on it"
    return replace(item, note="; ".join(filter(None, [item.note, note])))
