"""COCO's average precision against cases computed by hand (and, when written, against pycocotools on random ones)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.models.tasks.detection import Annotations, Detections, Matches, iou, mean_average_precision
from tests.models.samples.sources import fails

BOX = [0, 0, 10, 10]
FAR = [100, 100, 110, 110]
NONE = Annotations.of([], [])
NOTHING = Detections.of([], [], [])


def test_overlap() -> None:
    boxes = np.array([BOX, [5, 0, 15, 10], [0, 0, 0, 0]], float)
    plain = np.zeros(3, bool)
    np.testing.assert_allclose(iou(boxes, boxes, plain), [[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 0]])
    crowd = np.array([False, True, False])
    np.testing.assert_allclose(iou(boxes[:1], boxes, crowd), [[1, 0.5, 0]])


def test_perfect_and_absent() -> None:
    true = Annotations.of([BOX, FAR], [0, 1])
    best = mean_average_precision([Detections.of([FAR, BOX], [0.3, 0.9], [1, 0])], [true])
    assert (best.map, best.ap50, best.ap75, best.images) == (1, 1, 1, 1)
    assert best.classes == {0: 1.0, 1: 1.0}
    worst = mean_average_precision([NOTHING], [true])
    assert worst.map == 0
    wrong = mean_average_precision([Detections.of([BOX, FAR], [0.9, 0.9], [1, 0])], [true])
    assert wrong.map == 0, "the right boxes of the wrong classes"


def test_thresholds() -> None:
    """An overlap of exactly .8 is found at .5 ... .8: seven thresholds of ten."""
    found = mean_average_precision([Detections.of([[0, 0, 10, 8]], [1], [0])], [Annotations.of([BOX], [0])])
    assert (found.map, found.ap50, found.ap75) == (pytest.approx(0.7), 1, 1)
    half = mean_average_precision([Detections.of([[0, 0, 10, 5]], [1], [0])], [Annotations.of([BOX], [0])])
    assert (half.map, half.ap50, half.ap75) == (pytest.approx(0.1), 1, 0)


def test_area_under_the_curve() -> None:
    """Right, wrong, right of three objects: precision 1 up to recall 1/3, 2/3 up to 2/3, then 0, at 101 recalls."""
    true = Annotations.of([BOX, [20, 20, 30, 30], [50, 50, 60, 60]], [0, 0, 0])
    found = Detections.of([BOX, FAR, [20, 20, 30, 30]], [0.9, 0.8, 0.7], [0, 0, 0])
    expected = (34 * 1 + 33 * 2 / 3) / 101  # recalls 0 ... .33, and .34 ... .66
    assert mean_average_precision([found], [true]).map == pytest.approx(expected)


def test_scores_rank_over_all_images() -> None:
    true = [Annotations.of([BOX], [0]), Annotations.of([BOX], [0])]
    sure = [Detections.of([BOX], [0.9], [0]), Detections.of([FAR, BOX], [0.1, 0.5], [0, 0])]
    assert mean_average_precision(sure, true).map == 1
    noisy = [Detections.of([BOX], [0.9], [0]), Detections.of([FAR, BOX], [0.95, 0.5], [0, 0])]
    assert mean_average_precision(noisy, true).map == pytest.approx(2 / 3)


def test_an_object_is_found_once() -> None:
    twice = Detections.of([BOX, BOX], [0.9, 0.8], [0, 0])
    true = Annotations.of([BOX, FAR], [0, 0])
    assert mean_average_precision([twice], [true]).map == pytest.approx(51 / 101)


def test_crowds_do_not_count() -> None:
    true = Annotations.of([BOX, [50, 0, 150, 100]], [0, 0], [False, True])
    found = Detections.of([[60, 10, 70, 20], [80, 10, 90, 20], BOX], [0.9, 0.8, 0.7], [0, 0, 0])
    assert mean_average_precision([found], [true]).map == 1
    # Classes that only crowds or only detections name do not count either.
    more = Annotations.of([BOX, FAR], [0, 1], [False, True])
    spare = Detections.of([BOX, BOX], [0.9, 0.9], [0, 2])
    assert mean_average_precision([spare], [more]).classes == {0: 1.0}


def test_a_hundred_detections_count() -> None:
    def late(rank: int) -> Detections:
        boxes = [FAR] * rank + [BOX]
        return Detections.of(boxes, np.linspace(1, 0.1, rank + 1), [0] * (rank + 1))

    assert mean_average_precision([late(99)], [Annotations.of([BOX], [0])]).map == pytest.approx(0.01)
    assert mean_average_precision([late(100)], [Annotations.of([BOX], [0])]).map == 0


@given(st.integers(0, 10**6))
def test_images_add_up_in_any_pieces(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def boxes(count: int) -> list[list[int]]:
        low = rng.integers(0, 5, (count, 2)) * 4
        return np.concatenate([low, low + rng.integers(1, 4, (count, 2)) * 4], axis=1).tolist()

    images = []
    for _ in range(6):
        n, m = rng.integers(1, 5, 2)
        true = Annotations.of(boxes(n), rng.integers(0, 3, n), rng.random(n) < 0.2)
        images.append((Detections.of(boxes(m), rng.random(m), rng.integers(0, 3, m)), true))
    parts = [Matches.of(*image) for image in images]
    left = sum(parts[:3], Matches()) + sum(parts[3:], Matches())
    assert left.images == 6
    if left.objects:
        whole = mean_average_precision(*zip(*images, strict=True))
        assert left.precision() == whole
        assert 0 <= whole.map <= whole.ap50 + 1e-12 <= 1 + 1e-11


def test_bad_input() -> None:
    fails(lambda: mean_average_precision([NOTHING], [NONE]), "no annotated objects")
    fails(lambda: mean_average_precision([NOTHING], []), "different numbers of images")
    fails(lambda: Detections.of([BOX], [0.5, 0.6], [0]), "different lengths")
    fails(lambda: Detections.of([BOX], [np.nan], [0]), "NaN")
    fails(lambda: Detections.of([[0, 0, np.inf, 1]], [1], [0]), "NaN or infinite")
    fails(lambda: Annotations.of([[0, 0, 1]], [0]), "[n, 4]")
    fails(lambda: Annotations.of([BOX], [0], [True, False]), "different lengths")
