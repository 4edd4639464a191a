"""Distilling as a stage: its plan, and its work from the teacher's cache to the student's best weights."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from bitwright import machine
from bitwright.errors import ModelError, RecipeError
from bitwright.events import Event, Learned, Progress, Started
from bitwright.files import hub
from bitwright.files.folder import load_in_transformers, without_bars
from bitwright.files.plain import fingerprint
from bitwright.files.safetensors import Spec
from bitwright.models.language import text
from bitwright.models.language.arch import Architecture
from bitwright.models.language.compare import compare_folders, decoder_of
from bitwright.models.language.distillation import cost
from bitwright.models.language.distillation.cache import Cache, Header, read_header
from bitwright.models.language.distillation.lessons import Judge, Lessons, Objective
from bitwright.models.language.distillation.state import Keeper, Record
from bitwright.models.language.distillation.student import Student
from bitwright.models.language.distillation.teacher import COUNT, Teacher, make, words_hash
from bitwright.models.language.distillation.training import Course, train
from bitwright.models.language.stage import FolderStage, copy_rest
from bitwright.models.language.text import Text
from bitwright.models.model import Estimate
from bitwright.models.stage import Record as Journal
from bitwright.models.stage import Size, Table
from bitwright.stages import Distil
from bitwright.words import megabytes

JUDGES = 16
"""Windows that say which weights are the best so far, or an eighth of them where there are few."""
LESSONS, HELD = "teacher.cache", "judges.cache"
"""Names of what the teacher says of the windows to learn from, and of those that judge."""
CURVE, BEGUN = "curve", "begun"
"""What the journal keeps: how training went, and how far the student was from the teacher before it."""


@dataclass
class Distilling(FolderStage):
    """A language model, the student, that learns the next-word distributions of its teacher."""

    settings: Distil

    def __post_init__(self) -> None:
        super().__post_init__()
        from bitwright.models import find

        given = self.settings.calibration.model_fields_set
        if "windows" in given:
            fix = "Leave it out: the number of windows follows from tokens and length"
            raise RecipeError("windows of calibration text", where=self.name, fix=fix, key="calibration.windows")
        if "source" not in given:
            fix = "Give --text with a file, a folder or a dataset, or --text self: the teacher writes it then"
            raise RecipeError("no text to learn from", where=self.name, fix=fix, key="calibration.source")
        self.teacher = find(self.settings.teacher)
        self.teaching = Architecture.open(self.teacher)
        if self.teaching.vocabulary != self.arch.vocabulary:
            raise ModelError(
                f"vocabularies differ: the teacher has {self.teaching.vocabulary:,} words, the student "
                f"{self.arch.vocabulary:,}",
                where=str(self.source), fix="Give a teacher and a student that share a tokenizer", key="teacher",
            )  # fmt: skip
        if self.settings.cache is not None and Path(self.settings.cache).exists():
            read_header(Path(self.settings.cache))
        self._curve: dict[str, Any] | None = None
        self._begun: dict[str, Any] | None = None
        self._hash: str | None = None

    @cached_property
    def trained(self) -> dict[str, str]:
        """Stored tensors that training changes, and the parameters that they become, one to one."""
        arch = self.arch
        params = {name: tuple(param.shape) for name, param in arch.model.named_parameters(remove_duplicate=False)}
        found = {name: param for name, param in arch.targets.items() if param in params}
        joined = [name for name, param in found.items() if arch.checkpoint.entry(name).shape != params[param]]
        if joined or arch.merged or arch.stacks or len({*found.values()}) < len(found):
            first = next(iter([*joined, *arch.merged]), next(iter(found)))
            raise ModelError(
                "transformers joins or divides stored tensors of this network, which training does not write back yet",
                where=f"{self.source}: {first}", fix="Give a dense model as the student", foreign=True,
            )  # fmt: skip
        return found

    # --- the plan

    def specs(self) -> list[Spec]:
        assert self.trained
        return [Spec(entry.name, entry.dtype, entry.shape) for entry in self.arch.checkpoint.tensors.values()]

    def config(self) -> dict[str, Any]:
        return {}

    @cached_property
    def after(self) -> Size:
        return self.before._replace(bytes=self.layout.total_bytes)

    @property
    def reference(self) -> Path:
        return self.teacher

    @property
    def course(self) -> Course:
        """Steps, rates and order."""
        s, c = self.settings, self.settings.calibration
        steps = max(1, s.tokens // (s.batch * c.length))
        return Course(steps, s.batch, s.rate, s.warmup, s.patience, c.seed)

    @property
    def windows(self) -> int:
        """Windows of text to learn from, where the text has so many."""
        return self.course.steps * self.settings.batch

    @property
    def _taught(self) -> bool:
        """Whether anything is learned from the teacher, and not from labels alone."""
        return self.settings.labels < 1 or self.settings.hidden > 0

    def _size(self, windows: int, exact: bool) -> int:
        """Bytes of a cache."""
        width = self.teaching.config.get_text_config(decoder=True).hidden_size
        length, words = self.settings.calibration.length, self.arch.vocabulary
        size = width if exact else min(COUNT, words)
        return Header("exact" if exact else "drawn", "", "", "", "", windows, length, words, size).total

    @property
    def beside(self) -> int:
        cache = self._size(self.windows, self.settings.exact) if self._taught else 0
        return cache + self._size(JUDGES, exact=True) + 4 * cost.STATE * self.before.parameters

    @property
    def words(self) -> str:
        return f"distilled from {hub.title(self.teacher)}"

    def lines(self) -> list[str]:
        s, c, course = self.settings, self.settings.calibration, self.course
        tokens = self.windows * c.length
        found = [
            f"{tokens:,} tokens in {course.steps:,} steps of {s.batch} windows of {c.length}, at a rate of up to "
            f"{s.rate:g}"
        ]
        if self._begun is not None:
            found.append(
                f"before: KL {self._begun['kl']:.4f} to the teacher, perplexity "
                f"{self._begun['perplexity_quantized']:.3f}"
            )
        parts = [f"{s.loss} KL at temperature {s.temperature:g}"] if s.labels < 1 else []
        parts += [f"{s.labels:.0%} next tokens"] if s.labels else []
        parts += [f"{s.hidden:g} x error of the last hidden states"] if s.hidden else []
        found.append(f"loss: {', '.join(parts)}; judged 20 times on {JUDGES} windows that are not learned from")
        if self._taught:
            size = self._size(self.windows, s.exact)
            what = "all that the teacher says" if s.exact else f"{COUNT} words drawn from the teacher at a position"
            found.append(f"cache: {what}, {size / tokens:.1f} bytes a token, {megabytes(size)}")
        return found

    def facts(self) -> dict[str, Any]:
        s = self.settings
        found = {
            "teacher": {"folder": hub.title(self.teacher), "sha256": self._hash},
            "tokens": self.windows * s.calibration.length, "steps": self.course.steps,
            "cache_bytes": self._size(self.windows, s.exact) if self._taught else 0,
        }  # fmt: skip
        return found | {"begun": self._begun, CURVE: self._curve}

    @cached_property
    def estimate(self) -> Estimate:
        c, course = self.settings.calibration, self.course
        job = cost.Job(
            self.arch, self.teaching, self.device, c.length, course.steps * course.batch, self.settings.exact
        )
        seconds = cost.seconds(job, JUDGES, course.batch, self._taught, self.room)
        verdict = c.heldout_windows * c.length * len(c.heldout or c.source)
        seconds += 2 * verdict * cost.forward(job, self.before.parameters + job.teacher)
        return Estimate(cost.memory(job, self.before.parameters, course.batch), seconds)

    # --- data

    @property
    def order(self) -> text.Order:
        """The text, of which windows are asked for by the number of tokens."""
        count = self.windows + min(JUDGES, max(1, self.windows // 8))
        c = self.settings.calibration.model_copy(update={"windows": count})
        judged = c.heldout_windows if c.own and c.heldout is None else 0
        return text.Order(c, count if c.own else 0, judged, {}, self.partial, self.room)

    def require_data(self) -> None:
        super().require_data()
        length = self.settings.calibration.length
        text.require_length(self.teaching.config.get_text_config(), self.teacher, length)
        ours, theirs = (words_hash(text.load_tokenizer(path)) for path in (self.source, self.teacher))
        if ours != theirs:
            raise ModelError(
                f"its tokenizer has other words than that of the teacher {hub.title(self.teacher)}",
                where=str(self.source), fix="Give a teacher and a student that share a tokenizer", key="teacher",
            )  # fmt: skip

    def read_data(self) -> Generator[Event, None, Text]:
        return (yield from text.gather(self.order, self.teaching, self.device))

    def identity(self) -> Any:
        checkpoint = self.teaching.checkpoint
        files = [*checkpoint.files, *filter(Path.is_file, [checkpoint.folder / "config.json"])]
        return {**super().identity(), "teacher": fingerprint(files)}

    # --- the work

    def work(self, data: Text, record: Journal) -> Iterator[Event]:
        teacher = self._teacher()
        self._hash, self._curve, self._begun = teacher.hash, record.kept.get(CURVE), record.kept.get(BEGUN)
        yield from copy_rest(self, record, {*self.trained})
        if any(name not in record.done for name in self.trained):
            student, found = yield from self._learn(teacher, data.calibration)
            self._curve = curve(found)
            record.keep(CURVE, self._curve)
            params = dict(student.network.named_parameters(remove_duplicate=False))
            for name, param in self.trained.items():
                if name not in record.done:
                    record.add(name, self.write({name: params[param]}), None)
        teacher.decoder.close()
        if self._begun is None:
            self._begun = yield from self._compare(data)
            record.keep(BEGUN, self._begun)

    def _teacher(self) -> Teacher:
        """The teacher, its blocks not loaded."""
        return Teacher.of(decoder_of(self.teacher, device=self.device), text.load_tokenizer(self.teacher))

    def _learn(self, teacher: Teacher, windows: Tensor) -> Generator[Event, None, tuple[Student, Record]]:
        """The student at its best, and how it became so."""
        s, c, course = self.settings, self.settings.calibration, self.course
        learned, judging = divide(windows)
        yield Started("teach", f"{teacher.name} reads {learned.numel():,} tokens")
        cache: Cache | None = None
        if self._taught:
            path = Path(s.cache) if s.cache is not None else self.partial / LESSONS
            header = teacher.exact(learned) if s.exact else teacher.drawn(learned, s.temperature, c.seed)
            cache = yield from self._cache(teacher, header, learned, path)
        held = yield from self._cache(teacher, teacher.exact(judging), judging, self.partial / HELD)
        goal = Objective(s.loss, s.temperature, s.labels, s.hidden)
        with without_bars():
            network = load_in_transformers(self.source).to(self.device)
        width = self.teaching.config.get_text_config(decoder=True).hidden_size if s.hidden else None
        student = Student(network, self.arch.blocks, short=s.mixed, width=width, seed=c.seed)
        yield Started("learn", f"{course.steps:,} steps")
        lessons, judge = (
            Lessons(learned, cache, teacher.decoder.logits, goal),
            Judge(judging, held, teacher.decoder.logits),
        )
        steps = train(student, lessons, judge, course, Keeper(self.partial))
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                return student, end.value
            yield Learned(step.number, course.steps, step.loss, step.kl)
            told = "" if step.loss is None else f", loss {step.loss:.4f}"
            yield Progress("learn", step.number, course.steps, f"step {step.number} of {course.steps:,}{told}")

    def _cache(self, teacher: Teacher, header: Header, windows: Tensor, path: Path) -> Generator[Event, None, Cache]:
        budget = max(16 * machine.MIB, self.room - self.estimate.needed)
        return (yield from make(teacher, header, windows, path, budget=budget, spill=self.partial, phase="teach"))

    def _compare(self, data: Text) -> Generator[Event, None, dict[str, Any]]:
        """How far the student was from the teacher before it learned, on the held-out text of the verdict."""
        budget = max(16 * machine.MIB, (self.room - self.estimate.needed) // 2)
        steps = compare_folders(
            self.teacher, self.source, data.heldout, budget=budget, spill=self.partial, phase="compare"
        )
        return (yield from steps).summary()

    # --- the report

    def tables(self, record: Journal) -> list[Table]:
        found = record.kept[CURVE]
        rows = [
            (f"{look['step']:,}", "" if look["loss"] is None else f"{look['loss']:.4f}", f"{look['kl']:.4f}",
             "the best: written" if look["step"] == found["best"] else "")
            for look in found["looks"]
        ]  # fmt: skip
        head = ("Step", "Mean loss since the last look", "KL on text not learned from", "")
        return [Table("How training went, in nats per token", head, tuple(rows))]

    def clean(self) -> None:
        super().clean()
        Keeper(self.partial).remove()
        for name in (LESSONS, HELD):
            (self.partial / name).unlink(missing_ok=True)


def divide(windows: Tensor) -> tuple[Tensor, Tensor]:
    """Windows to learn from, and the last ones, which judge; a single one does both.

    Windows between those that are learned from would be of the same documents, and KL falls there first.
    """
    count = len(windows)
    judges = min(JUDGES, max(1, count // 9))
    return windows[: max(1, count - judges)], windows[-judges:]


def curve(record: Record) -> dict[str, Any]:
    """How training went, as plain data: at each look the step, the mean loss since the last one, and the KL."""
    looks, before = [], 0
    for step, kl in record.looks:
        losses = record.losses[before:step]
        looks.append({"step": step, "loss": sum(losses) / len(losses) if losses else None, "kl": kl})
        before = step
    return {"looks": looks, "best": record.best[0], "steps": record.step}
