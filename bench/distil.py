"""What a teacher is worth: a student of half its size taught by it, and the same student on the text's own next tokens.

    python bench/distil.py [--tokens 32768] [--seeds 3] [-o FILE]

The student is docs18m without three of its five blocks, so that it begins with knowledge that it cannot use yet. Both
ways it learns from the same tokens in the same order, with the same rate; a seed decides the order and what is drawn
for the cache. Figures are those of the best look, on 32 windows of documentation that nothing was learned from. Then
come the bytes of the caches, how far the mean of many drawn caches is from the whole, and the time that a cache saves.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bitwright.core import distillation
from bitwright.core.array import float32
from bitwright.files.folder import load_in_transformers, without_bars
from bitwright.models.language.compare import decoder_of
from bitwright.models.language.data import cut, load_texts
from bitwright.models.language.distillation.lessons import Judge, Lessons, Objective
from bitwright.models.language.distillation.state import Keeper
from bitwright.models.language.distillation.student import Student
from bitwright.models.language.distillation.teacher import Teacher, make
from bitwright.models.language.distillation.training import Course, train
from bitwright.models.language.evaluate import hidden_states
from bitwright.models.language.text import load_tokenizer

BLOCKS = (0, 4)
"""Of the teacher that the student begins with."""
DRAWS = 512
"""Caches of one window whose mean is compared with the whole distribution."""


def finish(steps: Any) -> Any:
    """What a generator returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` returns, and the seconds of processor time that it took."""
    before = time.process_time()
    return work(), time.process_time() - before


def student_of(folder: Path) -> Student:
    """The teacher's network with BLOCKS alone."""
    with without_bars():
        network = load_in_transformers(folder)
    network.model.layers = torch.nn.ModuleList(network.model.layers[i] for i in BLOCKS)
    for number, layer in enumerate(network.model.layers):
        layer.self_attn.layer_idx = number
    network.config.num_hidden_layers = len(BLOCKS)
    return Student(network, "model.layers", short=False)


@torch.no_grad()
def perplexity(student: Student, windows: torch.Tensor) -> float:
    """exp of the mean loss of the next tokens of windows [count, length]."""
    losses = [torch.nn.functional.cross_entropy(student(ids[None])[0][0, :-1], ids[1:]) for ids in windows]
    return float(torch.stack(losses).mean().exp())


@dataclass
class School:
    """A teacher, what it teaches from, and where its caches lie."""

    teacher: Teacher
    windows: torch.Tensor
    held: torch.Tensor
    judges: torch.Tensor
    folder: Path

    def cache(self, name: str, header: Any, windows: torch.Tensor) -> Any:
        """A cache of windows, made unless it is there."""
        made = make(self.teacher, header, windows, self.folder / name, budget=1 << 30, spill=self.folder, phase="teach")
        return finish(made)

    def learn(self, model: Path, objective: Objective, cache: Any, course: Course, judge: Judge) -> dict[str, Any]:
        """Train a student; its figures."""
        student = student_of(model)
        lessons = Lessons(self.windows, cache, self.teacher.decoder.logits, objective)
        keeper = Keeper(self.folder)
        record = finish(train(student, lessons, judge, course, keeper))
        keeper.remove()
        return {"kl": judge_all(self, student), "perplexity": perplexity(student, self.held), "looks": record.looks}


def judge_all(school: School, student: Student) -> float:
    """KL(teacher || student) on the held-out windows, in nats per token."""
    cache = school.cache("held", school.teacher.exact(school.held), school.held)
    return Judge(school.held, cache, school.teacher.decoder.logits).kl(student)


def bias(school: School, seed: int) -> tuple[float, float, float]:
    """Mean difference of drawn caches' cross-entropy from the whole one, its standard error, and that of one token.

    Of one window, with the distributions that a uniform one would have to learn: nats per token.
    """
    teacher, window = school.teacher, school.windows[:1]
    hidden = finish(hidden_states(teacher.decoder, window, batch=1, budget=1 << 30, folder=None))[0]
    logits = float32(teacher.decoder.logits(hidden)[0])
    p, other = logits.softmax(-1), logits.roll(1, 0)  # a student that is one position late
    whole = distillation.forward(logits, other) + distillation.entropy(logits)
    chance, gaps = np.random.default_rng(seed), []
    for _ in range(DRAWS):
        words, weights = distillation.draw(p, 12, torch.from_numpy(chance.random(len(p))))
        shares = float32(distillation.in_units(weights, torch.from_numpy(chance.random(len(p)))) / distillation.UNITS)
        gaps.append(distillation.cross_entropy(words, shares, other) - whole)
    found = torch.stack(gaps)
    return float(found.mean()), float(found.std() / found.numel() ** 0.5), float(found.std())


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


def main() -> None:
    """Run everything and print the tables."""
    parser = argparse.ArgumentParser(description="Distillation against hard labels, on docs18m.")
    parser.add_argument("--model", type=Path, default=Path("../shared/models/docs18m"))
    parser.add_argument("--text", default="../shared/data/text/docs-calibration.jsonl")
    parser.add_argument("--heldout", default="../shared/data/text/docs-heldout.jsonl")
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-o", "--out", type=Path, help="also write the tables to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer, length = load_tokenizer(options.model), 256
    texts, count = load_texts(options.text), options.tokens // length
    every = cut(texts, tokenizer, count=count + 8, length=length).ids
    held = cut(load_texts(options.heldout), tokenizer, count=32, length=length).ids
    with tempfile.TemporaryDirectory() as folder:
        teacher = Teacher.of(decoder_of(options.model), tokenizer)
        school = School(teacher, every[:count], held, every[count:], Path(folder))
        judged = school.cache("judges", teacher.exact(school.judges), school.judges)
        judge = Judge(school.judges, judged, teacher.decoder.logits)
        lines, curves = [], []
        begun = student_of(options.model)
        with without_bars():
            taught = Student(load_in_transformers(options.model), "model.layers", short=False)
        lines += [
            f"{sum(p.numel() for p in begun.parameters()) / 1e6:.1f} M parameters, {count * length:,} tokens",
            "",
            "| learned from | KL to the teacher | perplexity | CPU s |",
            "|---|---|---|---|",
            f"| (the teacher) | 0 | {perplexity(taught, held):.2f} | |",
            f"| nothing yet | {judge_all(school, begun):.3f} | {perplexity(begun, held):.2f} | |",
        ]
        made: dict[str, float] = {}
        ways = {"next tokens": Objective(labels=1.0), "teacher, 12 words": Objective(), "teacher, exact": Objective()}
        seconds: dict[str, float] = {}
        for name, objective in ways.items():
            found, spent = [], []
            for seed in range(options.seeds if name != "teacher, exact" else 1):
                headers = {
                    "teacher, 12 words": teacher.drawn(school.windows, 1.0, seed),
                    "teacher, exact": teacher.exact(school.windows),
                }
                cache = None
                if name in headers:
                    header = headers[name]
                    cache, made[name] = timed(lambda h=header: school.cache(f"{h.kind}{h.seed}", h, school.windows))
                    made[f"{name} bytes"] = header.total / (count * length)
                course = Course(count // options.batch, options.batch, options.rate, seed=seed)
                result, took = timed(lambda o=objective, c=cache, r=course: school.learn(options.model, o, c, r, judge))
                found.append(result)
                spent.append(took)
                print(name, seed, {k: v for k, v in result.items() if k != "looks"}, f"{took:.0f} s", flush=True)
            seconds[name] = float(np.mean(spent))
            values = [spread([one[key] for one in found]) for key in ("kl", "perplexity")]
            lines.append(f"| {name} | {values[0]} | {values[1]} | {seconds[name]:.0f} |")
            looks = np.array([[kl for _, kl in one["looks"]] for one in found])
            curves.append((name, looks[:, ::4]))
        share = [f"{s:.0%}" for s in np.linspace(0, 1, curves[0][1].shape[1])]
        lines += [
            "",
            "| KL after this share of the tokens | " + " | ".join(share) + " |",
            "|---" * (len(share) + 1) + "|",
        ]
        for name, looks in curves:
            lines.append(f"| {name} | " + " | ".join(spread(list(column)) for column in looks.T) + " |")
        mean, error, single = np.mean([bias(school, seed) for seed in range(options.seeds)], 0)
        error /= options.seeds**0.5

        def per(name: str, of: dict[str, float]) -> str:
            return f"{1e3 * of[name] / (count * length):.2f}"

        lines += [
            "",
            f"cache: {made['teacher, 12 words bytes']:.1f} bytes a token drawn, {made['teacher, exact bytes']:.0f} "
            f"exact; all logits would be {4 * teacher.decoder.vocabulary:,}",
            f"bias of what is drawn: {mean:+.5f} ± {error:.5f} nats per token ({single:.2f} for one token)",
            f"CPU ms a token: the teacher reads in {per('teacher, 12 words', made)}, the student learns in "
            f"{per('teacher, 12 words', seconds)} from the cache and in {per('next tokens', seconds)} from labels",
        ]
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
