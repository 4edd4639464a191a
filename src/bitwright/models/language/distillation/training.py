"""A student in training: steps, looks at what it has not learned from, and the best weights at the end.

Nothing has a random state: what is random comes from the seed and the number of the step. So training that goes on from
a kept state does what it would have done, to the last digit where sums are made in one order (on one thread).
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch

from bitwright.core.schedule import warmed_cosine
from bitwright.errors import TensorError, TrainingError
from bitwright.models.language.distillation.lessons import Judge, Lessons
from bitwright.models.language.distillation.state import BEST, Keeper, Record
from bitwright.models.language.distillation.student import Student

LOOKS = 20
"""How often it is judged which weights were the best so far."""
CLIP = 1.0
"""Length to which the slope of a step is cut."""
BETAS, DECAY = (0.9, 0.95), 0.01
"""Of AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101)."""
KEPT = 300.0
"""Seconds after which the state is kept between looks, too."""


@dataclass(frozen=True)
class Course:
    """How long and how fast: `batch` windows a step; the rate rises over a share `warmup` of the steps, then falls.

    With `patience`, training ends after so many of the LOOKS looks in a row that are no better than the best one.
    """

    steps: int
    batch: int = 8
    rate: float = 3e-4
    warmup: float = 0.05
    patience: int = 0
    seed: int = 0

    def rate_at(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        return self.rate * warmed_cosine(step, self.steps, min(self.steps - 1, math.ceil(self.warmup * self.steps)))

    def looks_after(self, step: int) -> bool:
        """Whether it is judged after so many steps: at first, at last, and evenly between."""
        return step == 0 or step * LOOKS // self.steps > (step - 1) * LOOKS // self.steps

    def windows(self, step: int, count: int) -> list[int]:
        """The windows of a step, of `count` there are: all come once, in a drawn order, before one comes again."""
        places = range(step * self.batch, (step + 1) * self.batch)
        orders = {epoch: self._order(epoch, count) for epoch in {place // count for place in places}}
        return [int(orders[place // count][place % count]) for place in places]

    def _order(self, epoch: int, count: int) -> np.ndarray:
        return np.random.Generator(np.random.Philox(key=[self.seed, epoch])).permutation(count)


@dataclass(frozen=True)
class Step:
    """Steps done, the loss of the last one in nats per token, and the KL on windows that are not learned from.

    A loss of None is that of no step yet, a KL of None one that was not looked at.
    """

    number: int
    loss: float | None
    kl: float | None


def train(
    student: Student, lessons: Lessons, judge: Judge, course: Course, keeper: Keeper
) -> Generator[Step, None, Record]:
    """Train `student` in place, or go on with it; yields what is kept already, then every step. It ends as its best.

    Raises TrainingError, which names the step, where a loss or its slope is not finite: the best weights stay kept.
    Raises TensorError where the student's answers are not finite from the first.
    """
    optimizer = torch.optim.AdamW(student.parameters(), lr=course.rate, betas=BETAS, weight_decay=DECAY)
    record = keeper.load(student, optimizer)
    yield from _told(record)
    if not record.looks:
        record.looks.append((0, _finite(judge.kl(student), 0, course, keeper, record)))
        keeper.save_best(student)
        yield Step(0, None, record.looks[0][1])
    saved = time.monotonic()
    while record.step < course.steps and not (course.patience and record.since >= course.patience):
        loss, step = _learn(student, lessons, optimizer, course, keeper, record), record.step + 1
        record.losses.append(loss)
        kl = None
        if course.looks_after(step):
            kl = _finite(judge.kl(student), step, course, keeper, record)
            record.looks.append((step, kl))
            if record.best == (step, kl):
                keeper.save_best(student)
        if kl is not None or time.monotonic() - saved > KEPT:
            keeper.save(student, optimizer, record)
            saved = time.monotonic()
        yield Step(step, loss, kl)
    keeper.load_best(student)
    return record


def _told(record: Record) -> Generator[Step, None, None]:
    """The steps that were done before."""
    looks = dict(record.looks)
    if looks:
        yield Step(0, None, looks[0])
    for number, loss in enumerate(record.losses, 1):
        yield Step(number, loss, looks.get(number))


def _learn(
    student: Student, lessons: Lessons, optimizer: torch.optim.Optimizer, course: Course, keeper: Keeper, record: Record
) -> float:
    """One step; its loss."""
    numbers, total = course.windows(record.step, len(lessons.windows)), 0.0
    for group in optimizer.param_groups:
        group["lr"] = course.rate_at(record.step)
    optimizer.zero_grad()
    with torch.enable_grad():
        for piece in lessons.pieces(numbers, student.words):
            loss = lessons.loss(student, piece) * (len(piece) / len(numbers))
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
    length = torch.nn.utils.clip_grad_norm_(student.parameters(), CLIP)
    _finite(total + float(length), record.step + 1, course, keeper, record)
    optimizer.step()
    return total


def _finite(value: float, step: int, course: Course, keeper: Keeper, record: Record) -> float:
    """`value`, or an error where it is not finite: TensorError before the first step, TrainingError after it."""
    if math.isfinite(value):
        return value
    if not record.looks:
        what = "what the student answers is not finite, before any training"
        raise TensorError(what, where="distil", fix="Repair or download its weights again")
    best, kl = record.best
    raise TrainingError(
        f"the loss or its slope is {'NaN' if math.isnan(value) else 'infinite'} at step {step} of {course.steps}",
        where="distil",
        fix=f"Lower --rate, now {course.rate:g}; {keeper.folder / BEST} holds the weights of step {best} (KL {kl:.4f})",
        key="rate",
    )
