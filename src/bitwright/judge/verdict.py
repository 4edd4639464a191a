"""What a submission gets."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """The verdicts; only IE is our fault, and it is never counted."""

    AC = "AC"
    WA = "WA"
    RTE = "RTE"
    TLE = "TLE"
    MLE = "MLE"
    OLE = "OLE"
    CE = "CE"
    IE = "IE"

    @property
    def words(self) -> str:
        """As a person says it."""
        return _WORDS[self]


_WORDS = {
    Verdict.AC: "accepted",
    Verdict.WA: "wrong answer",
    Verdict.RTE: "error while running",
    Verdict.TLE: "too slow",
    Verdict.MLE: "too much memory",
    Verdict.OLE: "too much output",
    Verdict.CE: "does not compile",
    Verdict.IE: "our fault, not counted",
}


@dataclass(frozen=True)
class Difference:
    """The first place where expected and yours part, and all that is known of it. Texts are as a person types them."""

    kind: str
    """value, nan, shape, dtype, length, type, keys, order, count or custom."""
    text: str
    """One sentence."""
    place: str = ""
    """Where: `[2, 3]`, `result 1 [0]`; empty for the whole."""
    expected: str = ""
    yours: str = ""
    absolute: float | None = None
    relative: float | None = None
    tolerance: float | None = None
    wrong: int | None = None
    """How many places differ, where that can be said."""
    places: int | None = None


@dataclass(frozen=True)
class Case:
    """One test, judged. `input`, `expected` and `yours` are cut to what can be shown."""

    name: str
    kind: str
    """sample, hidden, random, own or growth."""
    verdict: Verdict
    cpu: float
    memory: int
    wall: float = 0.0
    arguments: list[Any] = field(default_factory=list, repr=False)
    """As they were given, encoded (see `values`)."""
    input: str = ""
    expected: str = ""
    yours: str = ""
    output: str = ""
    """What it printed."""
    difference: Difference | None = None
    error: dict[str, Any] | None = None
    """The exception: phase, type, text, line, stack."""
    reason: str = ""
    """One sentence on a verdict that is neither accepted nor a difference."""

    def json(self) -> dict[str, Any]:
        """As plain data; the arguments stay here."""
        found = asdict(self)
        del found["arguments"]
        return {**found, "words": self.verdict.words}


@dataclass(frozen=True)
class Result:
    """A submission's verdict: that of the first test that is not accepted, after which none was run."""

    verdict: Verdict
    sentence: str
    """The state in a sentence: "Wrong answer on test 4 of 16: a row of zeros"."""
    cases: list[Case]
    total: int
    """Tests there are; fewer were run where one failed."""
    cpu: float
    memory: int
    tier: str
    reason: str = ""
    line: int = 0
    """The line that the reason is about, where there is one."""
    growth: dict[str, Any] | None = None
    """Measured CPU time over input sizes: sizes, seconds, exponent, allowed."""

    @property
    def failed(self) -> Case | None:
        """The test that decided, None where all were accepted or none was run."""
        return next((case for case in self.cases if case.verdict is not Verdict.AC), None)

    def json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "verdict": self.verdict.value, "words": self.verdict.words, "sentence": self.sentence,
            "cases": [case.json() for case in self.cases], "total": self.total, "cpu": self.cpu, "memory": self.memory,
            "tier": self.tier, "reason": self.reason, "line": self.line, "growth": self.growth,
        }  # fmt: skip
