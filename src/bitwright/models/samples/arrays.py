"""Samples that are arrays in .npy and .npz files, and what makes an array fit an input."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import IO, Any

import numpy as np

from bitwright.errors import DataError
from bitwright.files.plain import require_regular
from bitwright.models.samples.images import show
from bitwright.models.samples.preprocess import Array, Axes, Feeds, Inputs, Notes, Shape, sample_shape

LABELS = ("labels", "label")
CHUNK = 1 << 24  # bytes read at once
BROKEN = (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error)  # what NumPy and zipfile raise for bad files


# ---- one array against one input --------------------------------------------------------


def check_shape(found: tuple[int, ...], wanted: Shape, name: str, where: str) -> None:
    """Raise DataError where an array's shape is not the input's, naming both."""
    if len(found) != len(wanted) or any(w not in (None, f) for f, w in zip(found, wanted, strict=True)):
        what = f"input {name!r} takes {show(wanted)}, the array is {show(found)}"
        raise DataError(what, where=where, fix="Give arrays as the network takes them")


def check_dtype(found: Any, wanted: Any, name: str, where: str) -> None:
    """Raise DataError where numbers of one kind would have to become another: pixels float, floats whole, ..."""
    found, wanted = np.dtype(found), np.dtype(wanted)
    kind = {"i": "integer", "u": "integer", "f": "float", "b": "bool"}
    if kind.get(found.kind) != kind.get(wanted.kind) or wanted.kind not in kind:
        fix = "Convert the array as in training" if (found.kind, wanted.kind) == ("u", "f") else "Convert the array"
        raise DataError(f"input {name!r} takes {wanted}, the array is {found}", where=where, fix=fix)


def fit(array: Array, wanted: Any, name: str, where: str, notes: Notes) -> Array:
    """`array` in the input's dtype, kinds being equal; raises DataError for NaN, infinity or a number too large.

    A wider or narrower type of the same kind is converted, and noted.
    """
    wanted = np.dtype(wanted)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        place = np.argwhere(~np.isfinite(array))[0].tolist()
        raise DataError(
            f"input {name!r} is {array[tuple(place)]} at {place}", where=where, fix="Remove it, or correct it"
        )
    if array.dtype == wanted:
        return array
    with np.errstate(over="ignore"):
        found = array.astype(wanted)
    if (wanted.kind == "f" and not np.isfinite(found).all()) or (wanted.kind != "f" and (found != array).any()):
        raise DataError(f"input {name!r} has numbers that {wanted} cannot hold", where=where, fix="Correct the array")
    notes.add(f"input {name!r} converted from {array.dtype} to {wanted}", where)
    return found


# ---- .npy and .npz ----------------------------------------------------------------------


class Column:
    """The rows of one array in a .npy file or a member of an .npz archive, read in ascending order."""

    def __init__(self, path: Path, member: str | None) -> None:
        self.path, self.member = path, member
        with self._open() as stream:
            self.shape, self.fortran, self.dtype = self._header(stream)

    def rows(self, chosen: Sequence[int]) -> Iterator[Array]:
        """The rows of ascending numbers `chosen`; raises DataError where the file ends early."""
        if self.fortran:  # its rows lie scattered: the array is read whole
            with self._open() as stream:
                yield from np.lib.format.read_array(stream, allow_pickle=False)[list(chosen)]
            return
        size = self.dtype.itemsize * int(np.prod(self.shape[1:]))
        with self._open() as stream:
            self._header(stream)
            place = 0
            for index in chosen:
                self._skip(stream, (index - place) * size)
                data = self._read(stream, size)
                if len(data) < size:
                    raise self._broken(f"the file ends in row {index}")
                yield np.frombuffer(data, self.dtype).reshape(self.shape[1:])
                place = index + 1

    def whole(self) -> Array:
        """The array in memory."""
        with self._open() as stream:
            try:
                return np.lib.format.read_array(stream, allow_pickle=False)
            except BROKEN as error:
                raise self._broken(str(error)) from error

    def _open(self) -> IO[bytes]:
        try:
            require_regular(self.path)
            if self.member is None:
                return self.path.open("rb")
            with zipfile.ZipFile(self.path) as archive:  # the file itself stays open until the member is closed
                return archive.open(self.member)
        except BROKEN as error:
            raise self._broken(str(error)) from error

    def _header(self, stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        try:
            version = np.lib.format.read_magic(stream)
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = reader(stream)
        except BROKEN as error:
            raise self._broken(str(error)) from error
        if dtype.hasobject:
            raise DataError(
                "it holds Python objects", where=self.where, fix="Save plain numbers (dtype=object is code)"
            )
        return shape, fortran and len(shape) > 1, dtype

    def _skip(self, stream: IO[bytes], count: int) -> None:
        while count > 0:
            step = len(self._read(stream, min(count, CHUNK)))
            if not step:
                return  # the next read says so
            count -= step

    def _read(self, stream: IO[bytes], size: int) -> bytes:
        try:
            return stream.read(size)
        except BROKEN as error:
            raise self._broken(str(error)) from error

    @property
    def where(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}: {self.member.removesuffix('.npy')}"

    def _broken(self, detail: str) -> DataError:
        return DataError(f"damaged array ({detail})", where=self.where, fix="Save it again with numpy.save or savez")


class Framed:
    """Rows of an array whose first axis counts samples, for an input that takes one at a time, [1, ...]."""

    def __init__(self, column: Column) -> None:
        self._column = column

    def rows(self, chosen: Sequence[int]) -> Iterator[Array]:
        """The rows of ascending numbers `chosen`, [1, ...] each."""
        return (row[None] for row in self._column.rows(chosen))


class Repeated:
    """One array for all samples."""

    def __init__(self, column: Column) -> None:
        self._column = column

    def rows(self, chosen: Sequence[int]) -> Iterator[Array]:
        """It, for each of `chosen`."""
        return repeat(self._column.whole(), len(chosen))


def _rows_of(column: Column, shape: Shape, axis: int | None, name: str) -> Column | Framed | Repeated:
    """What gives one sample after the other for an input of `shape`; raises DataError where it does not fit."""
    if axis is None and shape[:1] == (1,) and len(column.shape) == len(shape) and column.shape[0] != 1:
        check_shape(column.shape, (None, *shape[1:]), name, column.where)
        return Framed(column)
    if axis is None and len(column.shape) == len(shape):
        check_shape(column.shape, shape, name, column.where)
        return Repeated(column)
    check_shape(column.shape, (None, *sample_shape(shape, axis)), name, column.where)
    return column


class Arrays:
    """A `Source` of arrays whose first axis counts the samples, one for each input, and perhaps `labels`.

    The array of an input that all samples of a batch share may be that value alone. Inputs of `states` may be absent:
    they are `carried`. A sample is then several calls where arrays have them on their second axis: those of `streamed`.
    """

    batched = False
    forward = True

    def __init__(self, path: Path, inputs: Inputs, axes: Axes, states: Collection[str] = ()) -> None:
        self.path, self.inputs, self.kind = path, inputs, path.suffix[1:].lower()
        self.dropped, self._remarks = Notes(), Notes()
        columns = self._columns()
        spare = [name for name in LABELS if name in columns and name not in inputs]
        labels = columns.pop(spare[0]) if spare else None
        if len(inputs) == 1 and len(columns) == 1 and not set(columns) & set(inputs):
            (name,), (entry,) = columns, inputs
            if self.kind == "npz":
                self._remarks.add(f"array {name!r} taken for input {entry!r}, the only one", path.name)
            columns = {entry: columns[name]}
        self.carried = tuple(name for name in inputs if name in states and name not in columns)
        check_names(columns, {name: inputs[name] for name in inputs if name not in self.carried}, str(path))
        self.columns: dict[str, Column | Framed | Repeated] = {}
        self.streamed: set[str] = set()
        for name, column in columns.items():
            dtype, shape = inputs[name]
            if self.carried and len(column.shape) == len(sample_shape(shape, axes[name])) + 2:
                self.streamed.add(name)
                check_shape(column.shape, (None, None, *sample_shape(shape, axes[name])), name, column.where)
            self.columns[name] = column if name in self.streamed else _rows_of(column, shape, axes[name], name)
            check_dtype(column.dtype, dtype, name, column.where)
        calls = {columns[name].shape[1] for name in self.streamed}
        if len(calls) > 1 or 0 in calls:
            what = f"arrays of {' and '.join(map(str, sorted(calls)))} calls"
            raise DataError(what, where=str(path), fix="Give as many rows of each for every sample")
        self.calls = max(calls, default=1)
        lengths = {
            name: column.shape[:1] for name, column in columns.items() if not isinstance(self.columns[name], Repeated)
        }
        if not lengths:
            raise DataError("it holds one sample", where=str(path), fix="Give arrays whose first axis counts samples")
        if labels is not None:
            lengths["labels"] = labels.shape[:1]
        if len(set(lengths.values())) > 1:
            text = ", ".join(f"{name} {list(length)}" for name, length in lengths.items())
            raise DataError(
                f"arrays of different lengths: {text}", where=str(path), fix="Give one row of each per sample"
            )
        count = next(iter(lengths.values()))[0]
        self.names = [f"row {index}" for index in range(count)]
        if labels is not None and self.calls > 1:
            what = f"labels for samples of {self.calls} calls"
            raise DataError(what, where=labels.where, fix="Leave them out: outputs are compared call by call")
        self.labels = _label_list(labels.whole(), labels.where) if labels is not None else None

    def _columns(self) -> dict[str, Column]:
        if self.kind == "npy":
            if len(self.inputs) > 1:
                names = ", ".join(map(repr, self.inputs))
                raise DataError(
                    f"one array for the inputs {names}", where=str(self.path), fix="Give an .npz by input names"
                )
            return {next(iter(self.inputs)): Column(self.path, None)}
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = [name for name in archive.namelist() if name.endswith(".npy")]
        except BROKEN as error:
            raise DataError(f"damaged .npz ({error})", where=str(self.path), fix="Save it again") from error
        return {name.removesuffix(".npy"): Column(self.path, name) for name in members}

    def inspect(self, chosen: Sequence[int]) -> str:
        """See `Source`; the hash is that of the whole file."""
        return hash_file(self.path)

    def rows(self, chosen: Sequence[int], notes: Notes) -> Iterator[Feeds]:
        """See `Source`."""
        for row in self._remarks.rows():
            notes.add(row["what"], row["first"])
        streams = {name: column.rows(chosen) for name, column in self.columns.items()}
        for index in chosen:
            where = f"{self.path} {self.names[index]}"
            yield {name: fit(next(rows), self.inputs[name][0], name, where, notes) for name, rows in streams.items()}

    def settings(self) -> dict[str, Any]:
        """See `Source`: arrays are given as they are."""
        return {}


# ---- shared -----------------------------------------------------------------------------


def check_names(found: Iterable[str], inputs: Inputs, where: str) -> None:
    """Raise DataError where names are not exactly those of the inputs."""
    found = list(found)
    missing, spare = [name for name in inputs if name not in found], [name for name in found if name not in inputs]
    if missing or spare:
        text = " and ".join(
            f"{what} {', '.join(map(repr, names))}"
            for what, names in (("no array for input", missing), ("unknown", spare))
            if names
        )
        raise DataError(text, where=where, fix=f"The network's inputs are {', '.join(map(repr, inputs))}")


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _label_list(array: Array, where: str) -> list[Any]:
    """One label per sample, whole numbers or strings; raises DataError for anything else."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "iuU":
        what = f"labels of shape {list(array.shape)} and type {array.dtype}"
        raise DataError(what, where=where, fix="Give one whole number or name per sample")
    return list(array.tolist())
