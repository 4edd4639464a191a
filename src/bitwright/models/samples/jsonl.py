"""Samples that are lines of JSON."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.errors import DataError
from bitwright.files.plain import parse, require_regular
from bitwright.models.samples.arrays import LABELS, check_dtype, check_names, check_shape, fit, hash_file
from bitwright.models.samples.preprocess import Array, Axes, Feeds, Inputs, Notes, sample_shape


class JsonLines:
    """A `Source` of one JSON object per line: input name -> nested lists without batch axis, and perhaps "label".

    Inputs of `states` that the first line has not are carried; an input with one axis more there is one list per call.
    """

    kind = "jsonl"
    batched = False
    forward = True

    def __init__(self, path: Path, inputs: Inputs, axes: Axes, states: Collection[str] = ()) -> None:
        self.path, self.inputs, self.axes, self.dropped = path, inputs, axes, Notes()
        self.names: list[str] = []
        self._states, self.calls = states, 1
        self.carried: tuple[str, ...] = ()
        self.streamed: set[str] = set()
        self._places: list[int] = []
        labels, place = [], 0
        self._key = next((name for name in LABELS[::-1] if name not in inputs), None)
        try:
            require_regular(path)
            with path.open("rb") as stream:
                for number, line in enumerate(stream, 1):
                    if line.strip():
                        row = self._parse(line, number)
                        self.calls = max([self.calls, *(len(row[name]) for name in self.streamed)])
                        labels.append(row.get(self._key) if self._key else None)
                        self.names.append(f"line {number}")
                        self._places.append(place)
                    place += len(line)
        except OSError as error:
            raise DataError(f"cannot be read ({error.strerror})", where=str(path), fix="Check the path") from error
        bare = next((name for name, label in zip(self.names, labels, strict=True) if label is None), None)
        if bare is not None and any(label is not None for label in labels):
            raise DataError("it has no label, other lines have", where=f"{path} {bare}", fix="Label all lines, or none")
        self.labels: list[Any] | None = labels if labels and bare is None else None
        if self.labels and self.calls > 1:
            what = f"labels for samples of {self.calls} calls"
            raise DataError(what, where=str(path), fix="Leave them out: outputs are compared call by call")

    def _parse(self, line: bytes, number: int) -> dict[str, Any]:
        where = f"{self.path} line {number}"
        try:
            row = parse(line)
        except ValueError as error:
            raise DataError(f"not valid JSON ({error})", where=where, fix="Give one object per line") from error
        if not isinstance(row, dict):
            raise DataError("not a JSON object", where=where, fix="Give one object per line")
        if not self.names and not self.carried:
            self._find_calls(row)
        check_names([name for name in row if name != self._key], self.inputs, where)
        counts = {len(row[name]) if isinstance(row[name], list) else 0 for name in self.streamed}
        if 0 in counts or len(counts) > 1:
            what = f"inputs of {' and '.join(map(str, sorted(counts)))} calls"
            raise DataError(what, where=where, fix="Give a list for each call, as many of each input")
        return row

    def _find_calls(self, row: dict[str, Any]) -> None:
        """What the first line says: which states are carried, and which inputs have a list for each call."""
        self.carried = tuple(name for name in self.inputs if name in self._states and name not in row)
        self.inputs = {name: facts for name, facts in self.inputs.items() if name not in self.carried}
        for name, (_, shape) in self.inputs.items():
            value, rank = row.get(name), 0
            while isinstance(value, list):
                value, rank = value[0] if value else None, rank + 1
            if self.carried and rank == len(sample_shape(shape, self.axes[name])) + 1:
                self.streamed.add(name)

    def inspect(self, chosen: Sequence[int]) -> str:
        """See `Source`; the hash is that of the whole file."""
        return hash_file(self.path)

    def rows(self, chosen: Sequence[int], notes: Notes) -> Iterator[Feeds]:
        """See `Source`."""
        with self.path.open("rb") as stream:
            for index in chosen:
                stream.seek(self._places[index])
                where = f"{self.path} {self.names[index]}"
                row = self._parse(stream.readline(), int(self.names[index].split()[1]))
                yield {name: self._array(row[name], name, where, notes) for name in self.inputs}

    def _array(self, value: Any, name: str, where: str, notes: Notes) -> Array:
        dtype, shape = self.inputs[name]
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise DataError(f"input {name!r} is a ragged list", where=where, fix="Give rows of one length") from error
        if np.dtype(dtype).kind == "f" and array.dtype.kind in "iuf":  # JSON writes 1 for 1.0, and has no widths
            array = array.astype(np.float64)
        calls = (None,) if name in self.streamed else ()
        check_shape(array.shape, (*calls, *sample_shape(shape, self.axes[name])), name, where)
        check_dtype(array.dtype, dtype, name, where)
        return fit(array, dtype, name, where, Notes())

    def settings(self) -> dict[str, Any]:
        """See `Source`: arrays are given as they are."""
        return {}
