"""A tiny teacher, a student that has lost something, and what passes between them, for tests."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch

from bitwright.files.folder import load_in_transformers, without_bars
from bitwright.models.language.compare import decoder_of
from bitwright.models.language.distillation.lessons import Judge, Lessons, Objective
from bitwright.models.language.distillation.student import Student
from bitwright.models.language.distillation.teacher import Teacher, make
from bitwright.models.language.text import load_tokenizer
from tests import tiny


def finish(steps: Generator[Any, None, Any]) -> Any:
    """What a generator returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


class School:
    """A teacher in `folder` and its caches of some windows: 120 to learn from, 4 to judge by."""

    def __init__(self, folder: Path, objective: Objective, *, exact: bool = False) -> None:
        self.path, self.objective = tiny.make("llama", folder / "teacher", dtype=torch.float32), objective
        decoder = decoder_of(self.path)
        teacher = Teacher.of(decoder, load_tokenizer(self.path))
        drawn = torch.randint(0, 1024, (124, 12), generator=torch.Generator().manual_seed(1))
        windows, held = drawn[:120], drawn[120:]
        header = teacher.exact(windows) if exact else teacher.drawn(windows, objective.temperature, 0)
        options: dict[str, Any] = {"budget": 1 << 28, "spill": None, "phase": "teach"}
        cache = finish(make(teacher, header, windows, folder / "lessons", **options))
        judges = finish(make(teacher, teacher.exact(held), held, folder / "judges", **options))
        self.lessons = Lessons(windows, cache, decoder.logits, objective)
        self.judge = Judge(held, judges, decoder.logits)

    def student(self) -> Student:
        """The teacher with noise on its matrices."""
        with without_bars():
            network = load_in_transformers(self.path)
        noise = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for param in network.parameters():
                if param.dim() == 2:
                    param.add_(torch.randn(param.shape, generator=noise) * param.std() * 0.5)
        width = 64 if self.objective.hidden else None
        return Student(network, "model.layers", short=False, width=width)
