"""What the library's functions return: plans that can be run, outputs, findings, figures and reports.

`print` of each says it in words; a notebook shows a table.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from bitwright.engine import report as reports
from bitwright.errors import InputError, ModelError
from bitwright.events import Event, Finding, Member, Precision, Row, plain
from bitwright.files.plain import require_new
from bitwright.models import kind_of
from bitwright.words import aligned

if TYPE_CHECKING:
    from bitwright.engine.speed import Speed
    from bitwright.engine.sweep.plan import Sweep
    from bitwright.models.model import Plan
    from bitwright.models.stage import Stage

Source = str | Path


class _Shown:
    """What a notebook shows as it prints."""

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


@dataclass(frozen=True)
class Planned(_Shown):
    """A planned quantization: everything is decided, nothing is written. `run` does the work."""

    job: Plan

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Plain data: every matrix, sizes in bytes, memory in bytes, time in seconds, runtimes, notes."""
        from bitwright.engine.plan import summary

        found: dict[str, Any] = plain(summary(self.job))
        return found

    def run(self, *, restart: bool = False) -> Iterator[Event]:
        """Run the plan, event by event; the last is `Finished`. Stop at any event: the same call continues from there.

        `restart` removes unfinished work of another recipe or model in the same place instead of refusing it.
        """
        from bitwright.engine.run import run

        return run(self.job, restart=restart)

    def __str__(self) -> str:
        from bitwright.engine.plan import lines

        return "\n".join(lines(self.job))


@dataclass(frozen=True)
class PlannedSweep:
    """A planned sweep, of which `workers` members run at once."""

    job: Sweep
    workers: int

    @property
    def summary(self) -> dict[str, Any]:
        """Plain data: every member with its output, size in bytes, memory in bytes and time in seconds."""
        from bitwright.engine.sweep.plan import summary

        return summary(self.job)

    def run(self) -> Generator[Event, None, Swept]:
        """Run what is not there yet; what came of all. Stop at any event: the same call continues from there."""
        from bitwright.engine.sweep.run import run

        failed = {}
        for event in run(self.job, self.workers):
            if isinstance(event, Member) and event.of["event"] == "error":
                failed[event.name] = event.of["text"]
            yield event
        outs = {member.name: member.out for member in self.job.members if member.name not in failed}
        return Swept({name: kind_of(out).standing(out) for name, out in outs.items()}, failed)

    def __str__(self) -> str:
        from bitwright.engine.sweep.plan import lines

        return "\n".join(lines(self.job))


@dataclass(frozen=True)
class Swept:
    """What came of a sweep: outputs by the names of their recipes, and why there is none of the others."""

    outs: dict[str, Path]
    failed: dict[str, str]

    @cached_property
    def report(self) -> Report:
        """The report on all outputs, by size and quality."""
        return Report.of(*self.outs.values())

    @property
    def best(self) -> list[str]:
        """The names of those that no other beats in both size and quality."""
        marks = reports.front(self.report.certificates) if self.outs else []
        return [name for name, best in zip(self.outs, marks, strict=True) if best]

    def __str__(self) -> str:
        lines = []
        if self.outs:
            head, rows = reports.summary(self.report.certificates)
            rows = [
                ("*" if name in self.best else "", name, *row[1:]) for name, row in zip(self.outs, rows, strict=True)
            ]
            lines = [*aligned([("", *head), *rows]), "* none of the others is as small and as good"]
            lines += [reports.ranking(self.report.certificates), *reports.comparability(self.report.certificates)]
        return "\n".join([*lines, *(f"failed: {name}: {why}" for name, why in self.failed.items())])


@dataclass(frozen=True)
class Staged(_Shown):
    """A planned stage: everything is decided, nothing is written. `run` does the work."""

    job: Stage

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Plain data: what becomes of the model, sizes in bytes, memory in bytes, time in seconds, runtimes, notes."""
        from bitwright.engine.stages.plan import summary

        found: dict[str, Any] = plain(summary(self.job))
        return found

    def run(self, *, restart: bool = False) -> Iterator[Event]:
        """Run it, event by event; the last is `Finished`. See `Planned.run`."""
        from bitwright.engine.stages.run import run

        return run(self.job, restart=restart)

    def __str__(self) -> str:
        from bitwright.engine.stages.plan import lines

        return "\n".join(lines(self.job))


@dataclass(frozen=True)
class Result:
    """A quantized model, or what a stage made: its path, of one in shards that of the first, and its certificate."""

    out: Path
    certificate: dict[str, Any]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The measures of every matrix."""
        found: list[dict[str, Any]] = self.certificate["rows"]
        return found

    @property
    def verdict(self) -> dict[str, Any]:
        """What was measured on held-out data; empty if nothing was."""
        return self.certificate["verdict"] or {}

    def __str__(self) -> str:
        return "\n".join(reports.verdict_lines(self.certificate))

    def _repr_html_(self) -> str:
        return _table(reports.headline(self.certificate), reports.facts(self.certificate))


@dataclass(frozen=True)
class Checked(_Shown):
    """The findings about a model; and rows of errors if a float model was given.

    `precision` says how finely each quantized weight is stored: its bits, levels and entropy.
    """

    path: Path
    findings: list[Finding]
    rows: list[Row]
    precision: list[Precision]

    @property
    def sound(self) -> bool | None:
        """Whether every finding is good; None where none is bad, and some have no verdict."""
        found = {finding.good for finding in self.findings}
        return False if False in found else None if None in found else True

    @property
    def words(self) -> str:
        """The verdict."""
        if self.sound is None:
            return "no verdict: what could be checked is good, the rest is not known here"
        return "sound" if self.sound else "not sound"

    def __str__(self) -> str:
        return "\n".join([*(f"{f.sign} {f.what}: {f.detail}" for f in self.findings), self.words])


@dataclass(frozen=True)
class Measured(_Shown):
    """How far one model is from another; `comparison` holds the estimates with their intervals.

    `baseless` is what shows that the float model itself predicts nothing, so that the comparison says little, or None.
    """

    comparison: Any
    baseless: str | None = None

    @property
    def summary(self) -> dict[str, Any]:
        """Plain numbers, and `baseless`."""
        found: dict[str, Any] = plain({**self.comparison.summary(), "baseless": self.baseless})
        return found

    def __str__(self) -> str:
        said = [] if self.baseless is None else [f"  {reports.NOTHING}: {self.baseless}"]
        return "\n".join([*said, *self.comparison.lines()])


@dataclass(frozen=True)
class Ran(_Shown):
    """How fast a model ran and in how much memory, and the float model beside it where there was one."""

    speed: Speed

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Plain data: figures of every turn, their medians, ratios, memory in bytes, texts, notes."""
        found: dict[str, Any] = plain(self.speed.summary())
        return found

    def __str__(self) -> str:
        return "\n".join(self.speed.lines())


@dataclass(frozen=True)
class Report:
    """A report on one or several certificates."""

    certificates: list[dict[str, Any]]

    @classmethod
    def of(cls, *outs: Source) -> Report:
        """The report on outputs. Raises ModelError without a certificate; files that are not as certified are named."""
        certificates = []
        for out in map(Path, outs):
            certificate = reports.load(out)
            stale = reports.stale(out, certificate)
            certificates.append(certificate | ({"stale": stale} if stale else {}))
        return cls(certificates)

    @property
    def markdown(self) -> str:
        """As Markdown, for a model card or a pull request."""
        return self._told(reports.to_markdown)

    @property
    def json(self) -> str:
        """As one JSON list of certificates."""
        return reports.to_json(self.certificates)

    @property
    def html(self) -> str:
        """As one self-contained HTML page."""
        return self._told(reports.to_html)

    def _told(self, tell: Callable[[list[dict[str, Any]]], str]) -> str:
        """What `tell` makes of the certificates; ModelError where one lacks a part, or has another in its place."""
        try:
            return tell(self.certificates)
        except (KeyError, TypeError, ValueError, AttributeError, TemplateError) as error:
            where = ", ".join(str(certificate["folder"]) for certificate in self.certificates)
            what = (
                f"a part of the certificate is missing, or is not what it should be ({type(error).__name__}: {error})"
            )
            raise ModelError(
                what, where=where, fix="Give an output of bitwright quantize, as it was written"
            ) from error

    def save(self, path: Source) -> Path:
        """Write it as .md, .json or .html, by the ending. InputError for another ending, or if the file exists."""
        target = Path(path)
        written = {".md": "markdown", ".json": "json", ".html": "html"}
        if target.suffix not in written:
            raise InputError("no report format has this ending", where=str(path), fix="Use .md, .json or .html")
        require_new(target, "Choose another name, or remove it")
        target.write_text(str(getattr(self, written[target.suffix])), "utf-8")
        return target

    def __str__(self) -> str:
        return self.markdown

    def _repr_html_(self) -> str:
        return "".join(_table(reports.headline(c), reports.facts(c)) for c in self.certificates)


def _table(headline: str, facts: list[Any]) -> str:
    """A headline and figures as HTML for a notebook."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(f.label)}</th>"
        f"<td>{html.escape(f'{f.before} → {f.value}' if f.before else f.value)}</td>"
        f"<td>{html.escape(f.detail)}</td></tr>"
        for f in facts
    )
    return f"<p><b>{html.escape(headline)}</b></p><table>{rows}</table>"
