"""Samples for a network with activations: from a folder, a file or Python to batches of feeds with labels.

    open_samples(source, inputs, recipe.data) -> Samples -> for batch in samples: session.run(batch.feeds)

Files are read when their turn comes, as often as the samples are walked, so memory holds one batch. What was chosen,
how it was prepared, and what was changed or left out stands in `Samples.summary`.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.errors import DataError, RecipeError, about
from bitwright.models.language.data import suggest
from bitwright.models.samples import audio, coco, folders, images
from bitwright.models.samples.arrays import Arrays
from bitwright.models.samples.given import Given
from bitwright.models.samples.jsonl import JsonLines
from bitwright.models.samples.labels import guess_task, number_classes, text_of
from bitwright.models.samples.pairs import MOST, Pair, draw_pairs, read_pairs
from bitwright.models.samples.preprocess import Feeding, Feeds, Inputs, Notes, Source, part, size_of, spread
from bitwright.models.tasks.detection import Annotations
from bitwright.recipe import Data

FEW = 16
"""Fewer samples than this get a remark: ranges and accuracies would be guesses."""
KINDS = "a folder of images or WAV files, a COCO .json, or a .npy, .npz or .jsonl file"


@dataclass(frozen=True, eq=False)
class Batch:
    """Feeds for one run of the network; `labels`: a class number, a text or `Annotations` per sample, or None."""

    feeds: Feeds
    labels: tuple[Any, ...] | None
    names: tuple[str, ...]
    goes_on: bool = False
    """Whether it is the next call of the batch before, with the state that the float network left."""


class Samples:
    """Chosen samples of one source; walk them as often as you like. Made by `open_samples`.

    `len` counts samples. `task` is "classify", "words", "detect", "match" or "none"; `classes` the names behind class
    numbers.
    `labelled` says whether batches carry labels.
    """

    def __init__(
        self, source: Source, name: str, inputs: Inputs, feeding: Feeding, data: Data, skip: int = 0,
        count: int | None = None,
    ) -> None:  # fmt: skip
        self.inputs, self.axes, self.name, self.kind = inputs, feeding.axes, name, source.kind
        self._source, self._data, self._notes, self._dropped = source, data, Notes(), Notes()
        self._feeding = feeding
        self.states: dict[str, str] = {name: feeding.states[name] for name in source.carried}
        """{input: output} of the state that is carried from call to call, because the source has none."""
        self._sizes: list[int] = source.sizes if isinstance(source, Given) else [1] * len(source.names)
        self.task = data.task or guess_task(source.labels)
        self._labels, self.classes = self._read_labels(source.labels)
        along = {name: axis for name, axis in self.axes.items() if axis is not None and name in inputs}
        sizes = {name: size for name, axis in along.items() if (size := inputs[name][1][axis]) is not None}
        if not source.batched and len(set(sizes.values())) > 1:
            listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise RecipeError(
                f"its inputs take different numbers of samples at once ({listed})", where="the network",
                fix='Say which axis of an input counts samples, or "none", in [network] batch', key="network.batch",
            )  # fmt: skip
        self.fixed = min(sizes.values()) if sizes else None if along else 1
        self.batch = self.fixed or data.batch
        self._chosen = self._choose(skip, count)
        if not self._chosen:
            total = f"{self.available} samples" if self.available else "no samples"
            what = f"{total}, none left after the first {skip}" if skip else total
            raise DataError(what, where=name, fix="Give more")
        self.hash = source.inspect(self._chosen)
        self.calls = source.calls
        self._remark()

    def __len__(self) -> int:
        return sum(self._sizes[index] for index in self._chosen)

    @property
    def labelled(self) -> bool:
        return self._labels is not None

    @property
    def sides(self) -> tuple[int, int] | None:
        """(height, width) of the pictures that the network sees; None where the source holds none."""
        reader = getattr(self._source, "reader", None)
        return reader.plan.size if isinstance(reader, folders.PictureReader) else None

    def picture(self, feeds: Feeds, place: int) -> tuple[str, tuple[int, int]]:
        """One sample of a batch as the network sees it: a JPEG file in base64, and (height, width) of the input.

        Only where there are `sides`.
        """
        assert isinstance(self._source, folders.Files) and isinstance(self._source.reader, folders.PictureReader)
        plan, entry = self._source.reader.plan, self._source.entry
        data = images.jpeg(feeds[entry].take(place, self.axes[entry] or 0), plan)
        assert plan.size is not None
        return base64.b64encode(data).decode("ascii"), plan.size

    @cached_property
    def pairs(self) -> list[Pair]:
        """Pairs of the chosen samples, by their places among them: those of the recipe's file, or drawn from labels.

        Raises DataError where there are too few of either kind, or the file names other samples.
        """
        names = self._chosen_names
        if self._data.match.pairs is not None:
            return read_pairs(Path(self._data.match.pairs).expanduser(), names)
        return draw_pairs(names, self.labels or [], self._data.seed, self.name)

    @property
    def paired(self) -> bool:
        """Whether the task judges pairs, and there is what says which are of one identity."""
        known = self.labelled or self._data.match.pairs is not None
        return self.task == "match" and known and self.calls == 1

    @property
    def _chosen_names(self) -> list[str]:
        """One per chosen sample; of feeds that hold several, with a number."""
        found = []
        for index in self._chosen:
            name, size = self._source.names[index], self._sizes[index]
            found += [name] if size == 1 else [f"{name} row {row}" for row in range(size)]
        return found

    @property
    def available(self) -> int:
        """Samples the source holds (of a Python iterable: as far as it was walked)."""
        return sum(self._sizes)

    def __iter__(self) -> Iterator[Batch]:
        """Batches in the order of choice; a batch ends early where the next sample has another shape or shared value.

        Raises DataError, naming the file or row, for a sample that cannot be read or used.
        """
        group: list[tuple[int, Feeds]] = []
        for index, feeds in zip(self._chosen, self._source.rows(self._chosen, self._notes), strict=True):
            if self._source.batched:
                labels = self._labels[index] if self._labels else None
                yield Batch(feeds | self._feeding.fixed, labels, (self._source.names[index],))
                continue
            if group and not self._stackable(group[0][1], feeds):
                yield from self._batches(group)
                group = []
            group.append((index, feeds))
            if len(group) == self.batch:
                yield from self._batches(group)
                group = []
        if group:
            yield from self._batches(group)

    @property
    def summary(self) -> dict[str, Any]:
        """For the certificate: JSON-able, and everything that decides the values. Remarks grow while samples are read.

        `sha256` is over the bytes of the chosen files in order (images, WAV), of the whole file (arrays, .jsonl) or of
        the feeds; `dropped` and `notes` are rows of {what, count, first}.
        """
        data = self._data
        order = {"order": "given"} if self._source.batched else {"order": data.order, "seed": data.seed}
        labels = self.labels
        classes = list(self.classes) if self.classes is not None else None
        counts = None
        if self.task == "classify" and labels is not None:
            found = Counter(labels)
            counts = {self.classes[key] if self.classes else str(key): found[key] for key in sorted(found)}
        return {
            "source": self.name,
            "kind": self.kind,
            "task": self.task,
            "samples": len(self),
            "available": self.available,
            "batch": self.batch,
            **({"calls": self.calls, "state": self.states} if self.states else {}),
            **order,
            "labelled": self.labelled,
            "classes": classes,
            "per_class": counts,
            **(self._told_pairs() if "pairs" in self.__dict__ else {}),
            "inputs": {name: [str(np.dtype(dtype)), list(shape)] for name, (dtype, shape) in self.inputs.items()},
            "preprocessing": self._source.settings(),
            "sha256": self.hash,
            "dropped": self._source.dropped.rows() + self._dropped.rows(),
            "notes": self._notes.rows(),
        }

    def _told_pairs(self) -> dict[str, Any]:
        """What the verdict's pairs are."""
        file, same = self._data.match.pairs, sum(pair.same for pair in self.pairs)
        told = {"pairs": {"same": same, "different": len(self.pairs) - same, "file": file, "most": MOST}}
        return told | ({"identities": len(set(self.labels))} if self.labels is not None else {})

    def _read_labels(self, raw: Sequence[Any] | None) -> tuple[list[Any] | None, tuple[str, ...] | None]:
        """Labels as the task needs them, and the names of classes."""
        declared = tuple(self._data.classes) or None
        if raw is None or self.task == "none":
            return None, declared
        rows = [label if self._source.batched else (label,) for label in raw]
        flat = [label for row in rows for label in row]
        if self.task == "detect":
            if not all(isinstance(label, Annotations) for label in flat):
                raise DataError("no boxes to detect", where=self.name, fix="Give a COCO folder, or another data.task")
            names = declared or getattr(self._source, "classes", None)
            return list(raw), tuple(names) if names else None
        if self.task == "words":
            texts = [tuple(text_of(label, declared, self.name) for label in row) for row in rows]
            return list(texts) if self._source.batched else [text for (text,) in texts], declared
        if self.task == "match":  # any labels that tell one from another will do
            place = {label: number for number, label in enumerate(dict.fromkeys(flat))}
            flat, declared = [place[label] for label in flat], None
        numbers, names = number_classes(flat, declared, self.name)
        if (
            names
            and declared is None
            and all(name.isdecimal() for name in names)
            and list(names) != sorted(names, key=int)
        ):
            self._notes.add("class numbers sorted as text (1, 10, 2): data.classes says otherwise", names[1])
        found = iter(numbers)
        if self._source.batched:
            return [tuple(next(found) for _ in row) for row in rows], names
        return list(found), names

    def _choose(self, skip: int, count: int | None) -> list[int]:
        """Numbers of the chosen samples (or feeds) in the order of reading."""
        source = self._source
        stop = None if count is None else skip + count
        if source.batched:
            starts = accumulate(self._sizes[:-1], initial=0) if self._sizes else iter(())
            return [i for i, start in enumerate(starts) if skip <= start and (stop is None or start < stop)]
        order = list(range(len(source.names)))
        if self._data.order == "spread":
            order = spread(source.names, None if self.task == "detect" else self._labels, self._data.seed)
        chosen = order[skip:stop]
        if self.fixed and len(chosen) % self.fixed:
            spare = len(chosen) % self.fixed
            if spare == len(chosen):
                what = f"{spare} samples, the network takes {self.fixed} at once"
                raise DataError(what, where=self.name, fix="Give more, or a network with a dynamic batch axis")
            for index in chosen[-spare:]:
                self._dropped.add(f"beyond the last full batch of {self.fixed}", source.names[index])
            chosen = chosen[:-spare]
        return sorted(chosen) if source.forward else chosen

    def _remark(self) -> None:
        """What makes the choice weak."""
        if len(self) < FEW:
            self._notes.add(f"only {len(self)} samples: ranges and accuracies are guesses", self.name)
        labels = self.labels
        if labels is None and self.task != "none":
            self._notes.add("no labels: agreement is measured, accuracy is not", self.name)
        elif labels is not None and self.task == "classify" and len(set(labels)) == 1:
            self._notes.add("all samples are of one class", self.classes[labels[0]] if self.classes else str(labels[0]))

    @property
    def labels(self) -> list[Any] | None:
        """The labels of the chosen samples."""
        if self._labels is None:
            return None
        if self._source.batched:
            return [label for index in self._chosen for label in self._labels[index]]
        return [self._labels[index] for index in self._chosen]

    def first(self) -> tuple[Feeds, int]:
        """The smallest batch that the network takes, and its number of samples."""
        feeds = next(iter(self)).feeds
        count = self.fixed or 1
        return part(feeds, self.axes, count) if size_of(feeds, self.axes) >= count else feeds, count

    def _stackable(self, one: Feeds, other: Feeds) -> bool:
        """Whether two samples can be in one batch."""
        shared = [name for name, axis in self.axes.items() if axis is None and name in one]
        return all(one[name].shape == other[name].shape for name in one) and all(
            np.array_equal(one[name], other[name]) for name in shared
        )

    def _batches(self, group: list[tuple[int, Feeds]]) -> Iterator[Batch]:
        """One batch; or as many as its samples have calls, the first of which begins with a state of zeros."""
        if not self.states:
            yield self._stack(group)
            return
        step = self._feeding.step
        assert step is not None
        streamed = self._source.streamed
        calls = next((len(group[0][1][name]) for name in streamed), 1)
        state = {name: self._zeros(name, len(group)) for name in self.states}
        for call in range(calls):
            now = [(i, {name: x[call] if name in streamed else x for name, x in feeds.items()}) for i, feeds in group]
            batch = self._stack(now)
            feeds = batch.feeds | state
            yield Batch(feeds, batch.labels, batch.names, goes_on=call > 0)
            if call + 1 < calls:
                outputs = step(feeds)
                state = {name: np.asarray(outputs[output]) for name, output in self.states.items()}

    def _zeros(self, name: str, count: int) -> Any:
        """The state before the first call: an open axis that counts no samples begins empty."""
        dtype, shape = self.inputs[name]
        sizes = [count if axis == self.axes[name] else size or 0 for axis, size in enumerate(shape)]
        return np.zeros(sizes, dtype)

    def _stack(self, group: list[tuple[int, Feeds]]) -> Batch:
        if self.fixed and len(group) != self.fixed:
            what = f"samples of different shapes in a network that takes {self.fixed} at once"
            where = f"{self.name}: {self._source.names[group[-1][0]]}"
            raise DataError(what, where=where, fix="Give samples of one shape (data.image.size, data.audio.length)")
        feeds = {
            name: group[0][1][name] if axis is None else np.stack([feeds[name] for _, feeds in group], axis)
            for name, axis in self.axes.items()
            if name in group[0][1]
        }
        for name, array in feeds.items():
            if any(wanted not in (None, side) for wanted, side in zip(self.inputs[name][1], array.shape, strict=True)):
                what = f"input {name!r} takes {images.show(self.inputs[name][1])}, samples are {list(array.shape)}"
                raise DataError(
                    what, where=self.name, fix="Set data.image.size or data.audio.length as the network needs"
                )
        labels = tuple(self._labels[index] for index, _ in group) if self._labels is not None else None
        return Batch(feeds | self._feeding.fixed, labels, tuple(self._source.names[index] for index, _ in group))


def open_samples(
    source: str | Path | Iterable[Any], inputs: Inputs, data: Data, *, feeding: Feeding | None = None, skip: int = 0,
    count: int | None = None,
) -> Samples:  # fmt: skip
    """Open a source for a network with `inputs`, prepared as the recipe's `data` says; its headers are checked at once.

    `source`: a folder of images or WAV files, a COCO folder or .json, a .npy, .npz or .jsonl file, or any iterable of
    feeds, (feeds, label) or arrays. `count` samples at most are taken (None: all) after the first `skip` in the order
    of choice, so that (count=n) and (skip=n) have none in common.

    Raises DataError for what cannot be used, naming the file; RecipeError for a setting that fits neither the data nor
    the network; ResourceError where Pillow is needed and absent.
    """
    if count is not None and count < 1:
        raise RecipeError(f"{count} samples", where="data.samples", fix="Ask for at least one", key="data.samples")
    feeding = feeding or Feeding.of(inputs)
    inputs = {name: facts for name, facts in inputs.items() if name not in feeding.fixed}
    if not isinstance(source, str | Path):
        limit = None if count is None else skip + count
        return Samples(Given(source, inputs, feeding.axes, limit), "Python", inputs, feeding, data, skip, count)
    path = Path(source).expanduser()
    return Samples(_open(path, inputs, feeding, data), str(source), inputs, feeding, data, skip, count)


def open_parts(data: Data, inputs: Inputs, feeding: Feeding | None = None) -> tuple[Samples, ...]:
    """The samples to calibrate with, then others for the verdict, of each source, as the recipe's `data` says.

    Without `heldout` the verdict sees samples of `source` that calibration does not; of a source that is too small for
    that, calibration takes three in four. Raises as `open_samples`, and DataError where the two have other classes.
    """
    if data.source is None:
        fix = f"Give --calib: {KINDS}"
        raise RecipeError("no samples to calibrate with", where="data.source", fix=fix, key="data.source")
    # Pairs in a file are of the verdict's samples.
    plain = data.model_copy(update={"match": data.match.model_copy(update={"pairs": None})})
    if data.heldout is None:
        axes = (feeding or Feeding.of(inputs)).axes
        least = max([1, *(inputs[name][1][axis] or 1 for name, axis in axes.items() if axis is not None)])
        with about("data.source"):
            every = open_samples(data.source, inputs, data, feeding=feeding, count=least)
            count = data.samples if every.available > data.samples else max(1, every.available * 3 // 4)
            first = open_samples(data.source, inputs, plain, feeding=feeding, count=count)
            rest = data.heldout_samples
            return first, open_samples(data.source, inputs, data, feeding=feeding, skip=count, count=rest)
    held = {Path(source).expanduser().resolve() for source in data.heldout}
    if Path(data.source).expanduser().resolve() in held:
        fix = "Leave it out: the verdict then uses samples of data.source that calibration does not"
        what = "the verdict would use the calibration samples"
        raise RecipeError(what, where="data.heldout", fix=fix, key="data.heldout")
    with about("data.source"):
        first = open_samples(data.source, inputs, plain, feeding=feeding, count=data.samples)
    with about("data.heldout"):
        most = data.heldout_samples
        others = [open_samples(source, inputs, data, feeding=feeding, count=most) for source in data.heldout]
    for source, other in zip(data.heldout, others, strict=True):
        if first.classes and other.classes and first.classes != other.classes:
            spare = sorted(set(first.classes) ^ set(other.classes))
            counts = f"{len(first.classes)} classes in data.source, {len(other.classes)} in data.heldout"
            what = f"{counts} (not in both: {', '.join(spare[:4])})"
            raise DataError(what, where=source, fix="Name all classes of the network in data.classes",
                            key="data.classes")  # fmt: skip
    return first, *others


def _open(path: Path, inputs: Inputs, feeding: Feeding, data: Data) -> Source:
    """The source at a path, by what it is."""
    if not path.exists():
        if str(path) in ("stdlib", "self"):
            raise DataError("that is text, for language models", where=str(path), fix=f"Give {KINDS}")
        raise DataError("no such file or folder", where=str(path), fix=suggest(path))
    if path.is_dir():
        return _open_folder(path, inputs, feeding.states, data)
    kind = path.suffix.lower()
    if kind in (".npy", ".npz"):
        return Arrays(path, inputs, feeding.axes, feeding.states)
    if kind == ".jsonl":
        return JsonLines(path, inputs, feeding.axes, feeding.states)
    if kind == ".json":
        return _open_coco(path, inputs, data)
    raise DataError("samples are not read from files of this kind", where=str(path), fix=f"Give {KINDS}")


def _open_folder(path: Path, inputs: Inputs, states: Collection[str], data: Data) -> Source:
    files = folders.walk(path)
    kinds = [any(file.suffix.lower() in kind.SUFFIXES for file in files) for kind in (images, audio)]
    if all(kinds):
        raise DataError("it holds images and WAV files", where=str(path), fix="Name a folder of one kind")
    if not any(kinds):
        found = ", ".join(sorted({file.suffix for file in files if file.suffix})[:6])
        what = f"it holds no images or WAV files (but {found})" if found else "it holds no images or WAV files"
        raise DataError(what, where=str(path), fix=f"Give {KINDS}")
    carried = tuple(name for name in inputs if name in states)
    name, (dtype, shape) = _only({name: facts for name, facts in inputs.items() if name not in carried}, path)
    if kinds[1]:
        if data.audio.frame is not None and not carried:
            raise RecipeError(
                "frames for a network without state", where="data.audio.frame",
                fix="Leave it out, or say in [network] state what is carried from call to call", key="data.audio.frame",
            )  # fmt: skip
        plan = audio.resolve(data.audio, name, dtype, shape)
        return folders.sound_folder(path, files, plan, name, texts=data.task == "words", carried=carried)
    annotations = coco.find(path) if data.task in (None, "detect") else None
    if annotations is not None:
        return _open_coco(annotations, inputs, data)
    return folders.picture_folder(path, files, images.resolve(data.image, name, dtype, shape), name, carried)


def _open_coco(path: Path, inputs: Inputs, data: Data) -> Source:
    name, (dtype, shape) = _only(inputs, path)
    return coco.open_coco(path, images.resolve(data.image, name, dtype, shape), name, data.classes)


def _only(inputs: Inputs, path: Path) -> tuple[str, tuple[Any, Any]]:
    """The one input of a network that files can feed."""
    if len(inputs) != 1:
        names = ", ".join(map(repr, inputs))
        raise DataError(
            f"files for a network with the inputs {names}", where=str(path), fix="Give an .npz by input names"
        )
    return next(iter(inputs.items()))
