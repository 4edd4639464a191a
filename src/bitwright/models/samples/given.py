"""Samples that Python code hands over."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bitwright.errors import DataError
from bitwright.models.samples.arrays import check_dtype, check_names, check_shape, fit
from bitwright.models.samples.preprocess import Array, Axes, Feeds, Inputs, Notes, size_of

KEEP = 1 << 30  # bytes of a one-shot iterator's feeds held in memory at most


class Given:
    """A `Source` of feeds from Python: {input: array with batch axis}, (feeds, label or labels), or an array alone.

    Feeds are passed on as they come, in their order; an array without the batch axis is given one. An iterator that
    can be walked once only is kept in memory, up to KEEP bytes; anything else is walked again for every pass.
    """

    kind = "feeds"
    batched = True
    forward = True
    carried: Sequence[str] = ()
    streamed: Collection[str] = ()
    calls = 1

    def __init__(self, items: Iterable[Any], inputs: Inputs, axes: Axes, limit: int | None) -> None:
        self.inputs, self.axes, self.dropped, self._items = inputs, axes, Notes(), items
        once = isinstance(items, Iterator)
        kept: list[Any] = []
        labels: list[Any] = []
        self.names: list[str] = []
        self.sizes: list[int] = []
        size = 0
        for feeds, label in self._walk(Notes()):
            rows = size_of(feeds, axes)
            self.names.append(f"item {len(self.names)}")
            self.sizes.append(rows)
            labels.append(_label_row(label, rows, self.names[-1]))
            if once:
                size += sum(array.nbytes for array in feeds.values())
                if size > KEEP:
                    fix = "Give something that can be walked more than once, or ask for fewer samples"
                    raise DataError(f"an iterator of more than {KEEP:,} bytes", where="samples", fix=fix)
                kept.append((feeds, label))
            if limit is not None and sum(self.sizes) >= limit:
                break
        if once:
            self._items = kept
        bare = [label is None for label in labels]
        if any(bare) and not all(bare):
            name = self.names[bare.index(True)]
            raise DataError("it has no label, others have", where=name, fix="Label all feeds, or none")
        self.labels = labels if labels and not any(bare) else None

    def _walk(self, notes: Notes) -> Iterator[tuple[Feeds, Any]]:
        for number, item in enumerate(self._items):
            where = f"item {number}"
            feeds, label = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
            if not isinstance(feeds, Mapping):
                if len(self.inputs) > 1:
                    names = ", ".join(map(repr, self.inputs))
                    raise DataError(f"one array for the inputs {names}", where=where, fix="Give {name: array}")
                feeds = {next(iter(self.inputs)): feeds}
            check_names(feeds, self.inputs, where)
            yield {name: self._array(feeds[name], name, where, notes) for name in self.inputs}, label

    def _array(self, value: Any, name: str, where: str, notes: Notes) -> Array:
        dtype, shape = self.inputs[name]
        axis, array = self.axes[name], np.asarray(value)
        if axis is not None and array.ndim == len(shape) - 1:
            array = np.expand_dims(array, axis)
        check_shape(array.shape, shape, name, where)
        check_dtype(array.dtype, dtype, name, where)
        return fit(array, dtype, name, where, notes)

    def inspect(self, chosen: Sequence[int]) -> str:
        """See `Source`; the hash is over each input's bytes in the order of the network's inputs."""
        digest = hashlib.sha256()
        for feeds in self.rows(chosen, Notes()):
            for name in self.inputs:
                digest.update(np.ascontiguousarray(feeds[name]).data)
        return digest.hexdigest()

    def rows(self, chosen: Sequence[int], notes: Notes) -> Iterator[Feeds]:
        """See `Source`; raises DataError where fewer items come than the first time."""
        wanted, seen = set(chosen), 0
        if not wanted:
            return
        for index, (feeds, _) in enumerate(self._walk(notes)):
            if index in wanted:
                seen += 1
                yield feeds
            if seen == len(wanted):
                return
        fix = "Give a list, or an iterator"
        raise DataError(f"only {seen} of {len(wanted)} items came on another pass", where="samples", fix=fix)

    def settings(self) -> dict[str, Any]:
        """See `Source`: feeds are given as they are."""
        return {}


def _label_row(label: Any, rows: int, where: str) -> tuple[Any, ...] | None:
    """The labels of one feed of `rows` samples."""
    if label is None:
        return None
    if isinstance(label, Sequence) and not isinstance(label, str):
        found = list(label)
    elif hasattr(label, "tolist"):  # NumPy or torch
        found = np.asarray(label).reshape(-1).tolist()
    else:
        found = [label]
    if len(found) != rows:
        raise DataError(f"{len(found)} labels for {rows} samples", where=where, fix="Give one per sample")
    return tuple(found)
