"""Labels: numbers, names, words."""

from __future__ import annotations

import numpy as np

from bitwright.models.samples.labels import guess_task, number_classes, text_of
from bitwright.models.tasks.detection import Annotations
from tests.models.samples.sources import fails


def test_numbers_and_names() -> None:
    assert number_classes([2, np.int64(0)], None, "d") == ([2, 0], None)
    assert number_classes([2, 0], "abc", "d") == ([2, 0], ("a", "b", "c"))
    assert number_classes(["b", "a", "b"], None, "d") == ([1, 0, 1], ("a", "b"))
    assert number_classes(["b", "a"], ["b", "c", "a"], "d") == ([0, 2], ("b", "c", "a"))


def test_labels_outside_the_classes() -> None:
    fails(lambda: number_classes([3], "abc", "d"), "d: label 3", "3 classes")
    fails(lambda: number_classes([-1], None, "d"), "label -1")
    fails(lambda: number_classes(["z"], "abc", "d"), "'z'", "a, b, c")
    fails(lambda: number_classes(["a", None], None, "d"), "None among them")
    fails(lambda: number_classes([1.5], None, "d"), "1.5")


def test_words() -> None:
    assert text_of("go on", None, "d") == "go on"
    assert text_of(1, ["no", "yes"], "d") == "yes" and text_of(7, None, "d") == "7"
    fails(lambda: text_of(2, ["no", "yes"], "d"), "label 2")
    fails(lambda: text_of(1.5, None, "d"), "label 1.5")


def test_what_labels_are_for() -> None:
    boxes = Annotations.of([], [])
    assert [guess_task(x) for x in (None, [], [1], ["a"], [(1, 2)], [boxes], [(boxes,)])] == [
        "none", "none", "classify", "classify", "classify", "detect", "detect",
    ]  # fmt: skip
