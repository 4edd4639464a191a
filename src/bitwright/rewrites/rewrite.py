"""What a rewrite is: a change of the float network, or of what rounding does to it, that costs nothing when it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from bitwright.core.array import Array
from bitwright.core.observe import Channels


class Subject(NamedTuple):
    """A float network to be rewritten in place, as its kind hands it over.

    `graph` has layers, their matrices and biases, and `apply(stream, factors)`; `streams` are channels whose scale can
    be moved; `settings` is the recipe's table; `bits` are those of each layer's weight.
    """

    graph: Any
    streams: Sequence[Any]
    settings: Any
    bits: Mapping[str, int]


class Rounded(Protocol):
    """A layer whose weight has been rounded, for a rewrite that makes up for it."""

    @property
    def groups(self) -> int: ...
    @property
    def batches(self) -> int: ...
    @property
    def error(self) -> Array:
        """W^ - W, [rows, columns]."""

    def means(self) -> tuple[Array, Array]:
        """The mean of each output, [rows], in the float network and in the quantized one."""

    def expected(self) -> Array | None:
        """E[x] of each input channel where the network itself says so, without data."""


def nothing(subject: Subject) -> dict[str, int]:
    """No tensor needs to be seen."""
    return {}


@dataclass(frozen=True)
class Rewrite:
    """One rewrite; a file of this folder provides it.

    Before quantization `apply` changes a network whose function stays as it is, given the ranges of the channels of
    `axes(subject)` ({tensor: channel axis}), and returns notes. After a layer is rounded `correct` gives what to add
    to its bias, or why it cannot, or nothing. `asked` says whether a recipe's table wants it.
    """

    name: str
    title: str
    source: str
    asked: Callable[[Any], bool]
    axes: Callable[[Subject], dict[str, int]] = nothing
    apply: Callable[[Subject, Mapping[str, Channels]], list[str]] | None = None
    correct: Callable[[Rounded, Any], Array | str | None] | None = None
    after: Sequence[str] = field(default=())
    """Rewrites that come before it where both are asked for."""
