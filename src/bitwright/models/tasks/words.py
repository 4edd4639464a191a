"""Speech to words: greedy CTC decoding and error rates by edit distance, of two networks over the same clips."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitwright.errors import DataError
from bitwright.models.samples.preprocess import Array
from bitwright.models.tasks.estimate import Ratio

SPECIAL = re.compile(r"<.*>|\[[A-Z]+\]")
"""Entries of an alphabet that are no text: <s>, </s>, <unk>, [PAD] ..."""


@dataclass(frozen=True)
class Edits:
    """Insertions, deletions and substitutions that turn a hypothesis into a reference of `length`; adds up."""

    errors: int = 0
    length: int = 0

    def __add__(self, other: Edits) -> Edits:
        return Edits(self.errors + other.errors, self.length + other.length)

    @property
    def rate(self) -> float:
        """errors / length; of an empty reference 0 without errors, else infinite."""
        if self.length:
            return self.errors / self.length
        return float("inf") if self.errors else 0.0


def edits(reference: Sequence[Any], hypothesis: Sequence[Any]) -> Edits:
    """Levenshtein's distance of two sequences, in memory of one row.

    >>> edits("kitten", "sitting")
    Edits(errors=3, length=6)
    """
    row = list(range(len(hypothesis) + 1))
    for i, wanted in enumerate(reference, 1):
        corner, row[0] = row[0], i
        for j, found in enumerate(hypothesis, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (wanted != found))
    return Edits(row[-1], len(reference))


def word_edits(reference: str, hypothesis: str) -> Edits:
    """Edits in words, which white space separates; upper and lower case differ."""
    return edits(reference.split(), hypothesis.split())


def character_edits(reference: str, hypothesis: str) -> Edits:
    """Edits in characters; any white space is one space."""
    return edits(" ".join(reference.split()), " ".join(hypothesis.split()))


def wer(reference: str, hypothesis: str) -> float:
    """Word error rate; may exceed 1.

    >>> wer("turn the light on", "turn light on please")
    0.5
    """
    return word_edits(reference, hypothesis).rate


def cer(reference: str, hypothesis: str) -> float:
    """Character error rate."""
    return character_edits(reference, hypothesis).rate


def ctc_decode(
    logits: Array, vocabulary: Sequence[str], blank: int = 0, lengths: Sequence[int] | None = None
) -> list[str]:
    """The texts of frames [clips, frames, symbols]: the best symbol of each frame, repeats merged, blanks removed.

    (Graves et al. 2006, best path decoding.) "|" and "▁" in `vocabulary` mean a space; entries like <s> are left out.
    `lengths` counts the frames of each clip that are not padding. Raises DataError where the vocabulary does not fit.
    """
    if logits.ndim != 3 or logits.shape[2] != len(vocabulary):
        what = f"outputs of shape {list(logits.shape)} for an alphabet of {len(vocabulary)}"
        raise DataError(
            what,
            where="data.classes",
            fix="Name every symbol, CTC's blank too, in the network's order",
            key="data.classes",
        )
    if not 0 <= blank < len(vocabulary):
        what = f"{blank} is outside the alphabet of {len(vocabulary)}"
        raise DataError(what, where="data.blank", fix="Give the place of the blank", key="data.blank")
    symbols = [re.sub("[|▁]", " ", "" if SPECIAL.fullmatch(symbol) else symbol) for symbol in vocabulary]
    symbols[blank] = ""
    texts = []
    for clip, path in enumerate(logits.argmax(axis=2)):
        path = path[: lengths[clip]] if lengths is not None else path
        first = np.append(True, path[1:] != path[:-1])[: len(path)]
        texts.append(" ".join("".join(symbols[symbol] for symbol in path[first]).split()))
    return texts


def hypotheses(output: Array, classes: Sequence[str], blank: int, clips: int) -> list[str]:
    """The texts of a network's output for `clips` clips: one word each [clips, classes], or CTC's frames.

    Frames are [clips, frames, symbols], or [frames, clips, symbols] where only the second axis fits.
    """
    if output.ndim == 2 and output.shape == (clips, len(classes)):
        return [classes[place] for place in output.argmax(axis=1)]
    if output.ndim == 3 and output.shape[0] != clips and output.shape[1] == clips:
        output = output.swapaxes(0, 1)
    if output.ndim != 3 or output.shape[0] != clips:
        what = f"an output of shape {list(output.shape)} for {clips} clips and {len(classes)} words or symbols"
        raise DataError(
            what,
            where="data.classes",
            fix="Name the network's words, or the symbols of its alphabet",
            key="data.classes",
        )
    return ctc_decode(output, classes, blank)


@dataclass(frozen=True)
class Words:
    """Word and character errors of a float and another network over the same clips; adds over batches."""

    before: Ratio
    after: Ratio
    change: Ratio
    characters_before: Ratio
    characters_after: Ratio
    same: int
    """Clips on which both hear the same text."""

    @classmethod
    def between(cls, references: Sequence[str], before: Sequence[str], after: Sequence[str]) -> Words:
        """From the true texts and those of the two networks."""
        rows = list(zip(references, before, after, strict=True))
        word = [(word_edits(true, a), word_edits(true, b)) for true, a, b in rows]
        character = [(character_edits(true, a), character_edits(true, b)) for true, a, b in rows]
        sizes = [a.length for a, _ in word]
        lengths = [a.length for a, _ in character]
        return cls(
            Ratio.of([a.errors for a, _ in word], sizes),
            Ratio.of([b.errors for _, b in word], sizes),
            Ratio.of([b.errors - a.errors for a, b in word], sizes),
            Ratio.of([a.errors for a, _ in character], lengths),
            Ratio.of([b.errors for _, b in character], lengths),
            sum(a == b for _, a, b in rows),
        )

    def __add__(self, other: Words) -> Words:
        return Words(
            self.before + other.before,
            self.after + other.after,
            self.change + other.change,
            self.characters_before + other.characters_before,
            self.characters_after + other.characters_after,
            self.same + other.same,
        )

    def summary(self) -> dict[str, float | int]:
        """Plain numbers for JSON."""
        found: dict[str, float | int] = {"clips": self.before.count, "words": int(self.before.size), "same": self.same}
        names = ("wer_float", "wer_quantized", "wer_increase", "cer_float", "cer_quantized")
        ratios = (self.before, self.after, self.change, self.characters_before, self.characters_after)
        for name, ratio in zip(names, ratios, strict=True):
            found |= {name: ratio.estimate.value, f"{name}_interval": ratio.estimate.interval}
        return found

    def lines(self) -> list[str]:
        """The same in words."""
        before, after, change = self.before.estimate, self.after.estimate, self.change.estimate
        characters = self.characters_before.estimate.value, self.characters_after.estimate.value
        return [
            f"  word error rate     {before.value:.2%} -> {after.value:.2%} "
            f"({change.value:+.2%} ± {change.interval:.2%}, {int(self.before.size):,} words)",
            f"  character errors    {characters[0]:.2%} -> {characters[1]:.2%}",
            f"  same text           {self.same:,} of {self.before.count:,} clips",
        ]
