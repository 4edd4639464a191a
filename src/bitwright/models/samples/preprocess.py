"""What the readers of samples share: the record of what they changed, and the choice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Feeds = dict[str, Array]
"""Input name -> array, with the batch axis first."""
Shape = tuple[int | None, ...]
Inputs = Mapping[str, tuple[Any, Shape]]
"""Input name -> (dtype, shape with None for a dynamic axis), batch axis first, as `Graph.inputs` gives it."""


Axes = Mapping[str, int | None]
"""Input name -> the axis that counts samples; None: all samples of a batch share one value."""


@dataclass(frozen=True)
class Feeding:
    """How a network is fed what a source does not hold by itself.

    `axes`: where an input counts samples; `fixed`: inputs that always have one value; `states`: {input: output} of what
    is carried from call to call, which `step`, the float network, makes (feeds -> outputs by name).
    """

    axes: Axes
    fixed: Feeds = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    step: Callable[[Feeds], Mapping[str, Array]] | None = None

    @classmethod
    def of(cls, inputs: Inputs) -> Feeding:
        """Samples along the first axis of every input that has one."""
        return cls({name: 0 if shape else None for name, (_, shape) in inputs.items()})


def sample_shape(shape: Shape, axis: int | None) -> Shape:
    """The shape of one sample of an input."""
    return shape if axis is None else (*shape[:axis], *shape[axis + 1 :])


def part(feeds: Feeds, axes: Axes, count: int) -> Feeds:
    """The first `count` samples of a batch."""
    return {name: x if (axis := axes[name]) is None else x.take(range(count), axis) for name, x in feeds.items()}


def size_of(feeds: Feeds, axes: Axes) -> int:
    """Samples in a batch."""
    return next((feeds[name].shape[axis] for name, axis in axes.items() if axis is not None), 1)


class Notes:
    """What was done to samples, or why some were left out: remark -> the samples it concerns, each counted once."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, None]] = {}

    def add(self, remark: str, name: str) -> None:
        """Record `remark` about the sample (or file) `name`; the same one twice counts once."""
        self._seen.setdefault(remark, {})[name] = None

    def rows(self) -> list[dict[str, Any]]:
        """One {what, count, first} per remark, in order of appearance, for JSON."""
        return [{"what": what, "count": len(names), "first": next(iter(names))} for what, names in self._seen.items()]


class Source(Protocol):
    """Where samples come from: they are counted and labelled at once, and read when their turn comes."""

    kind: str
    names: list[str]
    """One per sample, for messages and for the choice."""
    labels: list[Any] | None
    batched: bool
    """Whether a row is a batch already (and is passed on as it is), or one sample without batch axis."""
    forward: bool
    """Whether samples can only be read in ascending order."""
    dropped: Notes

    @property
    def carried(self) -> Sequence[str]:
        """Inputs that it has no values for, because they are state that is carried from call to call."""
        ...

    @property
    def streamed(self) -> Collection[str]:
        """Inputs whose rows hold one array per call, [calls, ...]."""
        ...

    @property
    def calls(self) -> int:
        """Most calls of a sample, as far as it was looked at."""
        ...

    def inspect(self, chosen: Sequence[int]) -> str:
        """Check what can be checked without decoding; return the SHA-256 of the chosen samples' bytes in order."""
        ...

    def rows(self, chosen: Sequence[int], notes: Notes) -> Iterator[Feeds]:
        """Read the chosen samples, one at a time."""
        ...

    def settings(self) -> dict[str, Any]:
        """The preprocessing as it is really done, for JSON."""
        ...


def spread(names: Sequence[str], labels: Sequence[Hashable] | None, seed: int) -> list[int]:
    """All samples in the order of choice: one of each class in turn, inside a class as `seed` decides.

    The order inside a class is that of SHA-256(seed, name): it depends neither on a random generator nor on other
    samples, so the same files give the same choice on every machine. Any first part has classes within one of each
    other in size, as far as there are samples; the rest is as good a choice, disjoint from it.
    """

    def key(index: int) -> tuple[bytes, int]:
        return hashlib.sha256(f"{seed}/{names[index]}".encode("utf-8", "surrogateescape")).digest(), index

    groups: dict[Hashable, list[int]] = {}
    for index in range(len(names)):
        groups.setdefault(labels[index] if labels is not None else None, []).append(index)
    columns = [sorted(groups[label], key=key) for label in sorted(groups, key=lambda label: (str(type(label)), label))]
    return [index for turn in zip_longest(*columns) for index in turn if index is not None]


def whole(value: Any) -> int | None:
    """`value` as an int where it is a whole number (not a bool), else None."""
    return int(value) if isinstance(value, int | np.integer) and not isinstance(value, bool) else None
