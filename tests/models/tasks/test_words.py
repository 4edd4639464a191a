"""Words from CTC outputs, and their errors."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.models.tasks.words import (
    Edits,
    Words,
    cer,
    character_edits,
    ctc_decode,
    edits,
    hypotheses,
    wer,
    word_edits,
)
from tests.models.samples.sources import fails

short = st.text("abc ", max_size=7)


@given(short, short)
def test_edits_by_definition(a: str, b: str) -> None:
    @cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        swap = distance(i - 1, j - 1) + (a[i - 1] != b[j - 1])
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, swap)

    assert edits(a, b) == Edits(distance(len(a), len(b)), len(a))
    assert edits(a, b).errors == edits(b, a).errors


def test_rates() -> None:
    assert wer("turn the light on", "turn the light on") == 0
    assert wer("turn  the light\non", "turn light on please") == 0.5
    assert wer("yes", "no no no") == 3
    assert cer("abc", "abd") == pytest.approx(1 / 3)
    assert wer("", "") == 0 and wer("", "noise") == float("inf")
    total = word_edits("a b c", "a b") + word_edits("d", "e f")
    assert total == Edits(3, 4) and total.rate == 0.75
    assert character_edits("a  b", "a b") == Edits(0, 3)


def frames(*paths: list[int], symbols: int = 5) -> Any:
    return np.eye(symbols, dtype=np.float32)[np.array(paths)]


def test_ctc() -> None:
    alphabet = ["<pad>", "|", "a", "b", "<s>"]
    paths = [2, 2, 0, 2, 1, 3, 3, 0], [0, 4, 0, 3, 0, 3, 3, 2], [0, 0, 0, 0, 0, 0, 0, 0]
    assert ctc_decode(frames(*paths), alphabet) == ["aa b", "bba", ""]
    assert ctc_decode(frames(*paths), alphabet, lengths=[3, 4, 0]) == ["a", "b", ""]
    assert ctc_decode(frames([2, 4, 2]), ["a", "b", "c", "d", "-"], blank=4) == ["cc"]
    fails(lambda: ctc_decode(frames([1]), ["a", "b"]), "data.classes")
    fails(lambda: ctc_decode(frames([1]), alphabet, blank=5), "data.blank")


@given(st.text("ab", max_size=6), st.integers(0, 10**6))
def test_any_alignment_decodes_to_its_text(text: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path: list[int] = [0] * int(rng.integers(0, 3))
    for place, letter in enumerate(text):
        again = place and text[place - 1] == letter
        path += [0] * int(rng.integers(1 if again else 0, 3)) + [1 + "ab".index(letter)] * int(rng.integers(1, 4))
    assert ctc_decode(frames([*path, 0], symbols=3), ["-", "a", "b"]) == [text]


def test_outputs_of_two_kinds_of_network() -> None:
    assert hypotheses(frames([1, 0], symbols=2)[0], ["no", "yes"], 0, 2) == ["yes", "no"]
    clips = frames([1, 1, 0, 2], [2, 0, 0, 1], symbols=3)
    assert hypotheses(clips, ["-", "a", "b"], 0, 2) == ["ab", "ba"]
    assert hypotheses(clips.swapaxes(0, 1), ["-", "a", "b"], 0, 2) == ["ab", "ba"], "frames first"
    fails(lambda: hypotheses(clips, ["-", "a", "b"], 0, 3), "data.classes", "3 clips")


def test_paired_errors_add_up() -> None:
    true, before, after = ["a b c", "d", "e f"], ["a b c", "x", "e f"], ["a b", "x", "e e f"]
    whole = Words.between(true, before, after)
    assert whole == Words.between(true[:1], before[:1], after[:1]) + Words.between(true[1:], before[1:], after[1:])
    found = whole.summary()
    assert (found["clips"], found["words"], found["same"]) == (3, 6, 1)
    assert (found["wer_float"], found["wer_quantized"]) == (pytest.approx(1 / 6), pytest.approx(3 / 6))
    assert found["wer_increase"] == pytest.approx(2 / 6) and found["wer_increase_interval"] > 0
    assert "16.67% -> 50.00%" in whole.lines()[0]
