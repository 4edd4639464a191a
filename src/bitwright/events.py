"""The events of a run: plain values, one JSON object per line for machines."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Event:
    """Base of all events; `json()` adds the kind under "event"."""

    def json(self) -> dict[str, Any]:
        """The event as a JSON-able table; infinities become null."""
        return {"event": type(self).__name__.lower(), **plain(asdict(self))}


def drain(events: Generator[Event, None, T], hear: Callable[[Event], None]) -> T:
    """Hear all events of a generator; its return value."""
    while True:
        try:
            hear(next(events))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@dataclass(frozen=True)
class Started(Event):
    """A phase begins: `read`, `calibrate`, `quantize`, `certify`; `resumed` tensors were already written."""

    phase: str
    detail: str = ""
    resumed: int = 0


@dataclass(frozen=True)
class Progress(Event):
    """`done` of `total` units of work in a phase; `label` says what is under way."""

    phase: str
    done: float
    total: float
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Precision(Event):
    """How finely one matrix is stored: its size in bits, how many values its weights have, and their entropy.

    `name` is its identity: the same in the plan, the journal, the certificate, the report and a later check. A code can
    mean `levels` values, of which weights of the matrix have `levels_used`; `entropy` is that of its codes, in bits per
    weight (`core.measure.Usage`). The others are the same of its rounded inputs on calibration data, `input_entropy` in
    bits per value. None: float, or not known; of inputs that nothing was seen of, the codes are chosen as it runs.
    """

    name: str
    format: str
    rows: int
    columns: int
    stored_bits: int
    levels: int | None = None
    levels_used: int | None = None
    entropy: float | None = None
    input_levels: int | None = None
    input_levels_used: int | None = None
    input_entropy: float | None = None


@dataclass(frozen=True, kw_only=True)
class Row(Precision):
    """One matrix, written: its precision, errors against the original, and every fallback it took.

    `output_error` is tr(E H E^T) / tr(W H W^T), the share of the layer's output power that is error (None without
    calibration); `correction` is how far its target makes up for earlier errors (`core.drift.describe`; None where it
    does not); `tokens` is how many calibration tokens its input saw.
    """

    method: str
    mse: float
    psnr: float
    sqnr: float
    cosine: float
    output_error: float | None = None
    tokens: int | None = None
    seconds: float = 0.0
    correction: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Learned(Event):
    """Training has done `step` of `steps`: the loss of that step, and the KL on text that is not learned from.

    Both are in nats per token; None where there was no step yet, or nobody looked.
    """

    step: int
    steps: int
    loss: float | None
    kl: float | None


@dataclass(frozen=True)
class Note(Event):
    """Something the user should know: a fallback, a warning, or a choice made by default."""

    text: str


@dataclass(frozen=True)
class Finished(Event):
    """The output has its final name."""

    out: str
    certificate: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Member(Event):
    """What a run that is one of several says: `of` is its event as JSON, or an "error" with its kind and text."""

    name: str
    of: dict[str, Any]


@dataclass(frozen=True)
class Finding(Event):
    """One check and its result: `good`, or None where there is no verdict, and what was found."""

    what: str
    good: bool | None
    detail: str = ""

    @property
    def sign(self) -> str:
        """`ok`, `BAD`, or `?` for no verdict, in four columns."""
        return {True: "ok  ", False: "BAD ", None: "?   "}[self.good]
