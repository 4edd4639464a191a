"""Labels of samples: class numbers, names of classes, words, boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bitwright.errors import DataError
from bitwright.models.samples.preprocess import whole
from bitwright.models.tasks.detection import Annotations


def number_classes(
    labels: Sequence[Any], declared: Sequence[str] | None, where: str
) -> tuple[list[int], tuple[str, ...] | None]:
    """Class numbers of labels that are all whole numbers or all names, and the names: declared, or found and sorted.

    Raises DataError for a label outside the declared classes, below zero, or of another type.
    """
    numbers = [whole(label) for label in labels]
    if all(number is not None for number in numbers):
        found = [number for number in numbers if number is not None]
        bad = next((n for n in found if n < 0 or (declared and n >= len(declared))), None)
        if bad is not None:
            what = f"label {bad} is outside the {len(declared)} classes" if declared else f"label {bad} is below 0"
            raise DataError(what, where=where, fix="Correct the labels, or data.classes")
        return found, tuple(declared) if declared else None
    if not all(isinstance(label, str) for label in labels):
        bad = next(label for label in labels if not isinstance(label, str))
        what = f"labels of several kinds, {bad!r} among them"
        raise DataError(what, where=where, fix="Label with class numbers, or with names; leave other files out")
    names = tuple(declared or sorted(set(labels)))
    place = {name: index for index, name in enumerate(names)}
    strange = next((label for label in labels if label not in place), None)
    if strange is not None:
        known = ", ".join(names[:12])
        raise DataError(f"label {strange!r} is not one of data.classes", where=where, fix=f"Known: {known}")
    return [place[label] for label in labels], names


def guess_task(labels: Sequence[Any] | None) -> str:
    """What labels are for, where the recipe does not say."""
    if not labels:
        return "none"
    first = labels[0][0] if isinstance(labels[0], tuple) and labels[0] else labels[0]
    return "detect" if isinstance(first, Annotations) else "classify"


def text_of(label: Any, classes: Sequence[str] | None, where: str) -> str:
    """A label as the words that are said."""
    if isinstance(label, str):
        return label
    number = whole(label)
    if number is None or (classes and not 0 <= number < len(classes)):
        raise DataError(f"label {label!r} is neither words nor a class", where=where, fix="Label with texts")
    return classes[number] if classes else str(number)
