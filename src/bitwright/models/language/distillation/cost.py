"""What distilling costs: bytes of memory, and seconds, of which those of a step are measured."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from bitwright import machine
from bitwright.files.folder import network_of
from bitwright.models.language.arch import Architecture
from bitwright.models.language.distillation.lessons import AT_ONCE, Lessons, Objective, at_once
from bitwright.models.language.distillation.student import Student
from bitwright.models.language.memory import BATCH_TOKENS, KEPT_PER_ROW, LOGITS, POSITIONS

STATE = 5
"""Numbers on disk per weight: weights, gradients' two means, and the best weights, which are written anew before the
old ones go."""
TRAINED = 20
"""Bytes in memory per weight: it, its gradient, two means, and what is read back at the end."""
COPIES = 6
"""Copies of a piece's logits: the student's and the teacher's, their logarithms, and slopes."""
DRAWN = 35e-9
"""Seconds per word of the vocabulary to draw from a position's distribution (measured on docs18m)."""
MEASURED = 1 << 29
"""Bytes of a student in float32 up to which a step of it is measured for the plan."""


@dataclass(frozen=True)
class Job:
    """A student and its teacher, and `windows` of `length` tokens that pass between them."""

    student: Architecture
    teaching: Architecture
    device: str
    length: int
    windows: int
    exact: bool

    @property
    def teacher(self) -> int:
        """Weights of the teacher."""
        return self.teaching.weights

    @property
    def width(self) -> int:
        """Numbers in a hidden state of the teacher."""
        return int(self.teaching.config.get_text_config(decoder=True).hidden_size)


def forward(job: Job, weights: int) -> float:
    """Seconds in which a token passes so many weights."""
    return 2 * 1.4 * weights / machine.matmul_rate(torch.float32, job.device)


def memory(job: Job, weights: int, batch: int) -> int:
    """Bytes at the heaviest moment: the teacher reads block by block, or a student of `weights` learns a piece."""
    words, teaching = job.student.vocabulary, job.teaching
    blocks = [sum(e.count for e in teaching.tensors_of(block)) for block in range(teaching.count)]
    head = 4 * sum(e.count for e in teaching.tensors_of(None))
    rows = sum(m.rows for m in job.student.quantizable())
    tokens = job.length * min(batch, at_once(job.length, words))
    heads = int(getattr(job.student.config.get_text_config(decoder=True), "num_attention_heads", 0))
    graph = 4 * tokens * (KEPT_PER_ROW * rows + job.student.count * heads * job.length)
    logits = 4 * tokens * words * COPIES + 10 * 4 * LOGITS
    reading = (
        8 * max(blocks)
        + 10 * 4 * max(LOGITS, min(AT_ONCE, POSITIONS * words))
        + 40 * BATCH_TOKENS * max((m.columns for m in teaching.quantizable()), default=0)
    )
    return machine.BASE + head + max(reading, TRAINED * weights + graph + logits)


def seconds(job: Job, judges: int, batch: int, taught: bool, room: int) -> float:
    """Seconds of the whole: the teacher reads what is learned from where it is `taught`, and what judges."""
    words, tokens = job.student.vocabulary, job.windows * job.length
    reading = forward(job, job.teacher) + (0 if job.exact else DRAWN * words)
    each = _measured(job, batch, room)
    looks = 21 * judges * job.length * (each / 3 + forward(job, words * job.width))
    return 8 + (tokens * reading if taught else 0) + tokens * each + looks


def _measured(job: Job, batch: int, room: int) -> float:
    """Seconds a token of a step: measured with weights as they come, or reckoned where the student is large."""
    weights = job.student.weights
    if 4 * weights > MEASURED or machine.BASE + TRAINED * weights > room // 2:
        return 3 * forward(job, weights)
    network = network_of(job.student.config).from_config(job.student.config, dtype=torch.float32)
    student = Student(network.to(job.device), job.student.blocks, short=False)
    size = min(batch, at_once(job.length, student.words))
    windows = torch.zeros(size, job.length, dtype=torch.int64)
    lessons = Lessons(windows, None, lambda hidden: hidden, Objective(labels=1.0))
    optimizer = torch.optim.AdamW(student.parameters())
    started = 0.0
    for _ in range(2):  # the first one also makes room
        started = time.perf_counter()
        lessons.loss(student, [*range(size)]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return (time.perf_counter() - started) / windows.numel()
