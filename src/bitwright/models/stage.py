"""A float model that becomes another float model: pruned, distilled. The engine knows such jobs by these types alone.

A stage decides everything beforehand, works so that any interruption costs only what was under way, and says how the
output is read back and judged.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from bitwright import machine
from bitwright.events import Event, Row
from bitwright.models.kind import Kind
from bitwright.models.model import Estimate
from bitwright.stages import Settings


class Record(Protocol):
    """The journal of a stage: what is written, `done` by name with its {stored tensor: CRC-32}, and what is `kept`."""

    done: dict[str, dict[str, Any]]
    kept: dict[str, Any]

    def add(self, name: str, sums: dict[str, int], row: Row | None) -> None:
        """Record that the stored tensors of `name` are written."""

    def keep(self, name: str, value: Any) -> None:
        """Record a value, JSON-able."""


class Size(NamedTuple):
    """How large a model is: parameters of all its tensors, of them those in its blocks, bytes of its weight files."""

    parameters: int
    blocks: int
    bytes: int


@dataclass(frozen=True)
class Table:
    """What a stage did, part by part: rows of text under a head, for the report."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass
class Stage(ABC):
    """A stage on one model, decided. Open it anew for each run. `ceiling` is a limit of memory in bytes."""

    kind: Kind
    source: Path
    out: Path
    settings: Settings
    ceiling: int | None = None
    device: str = "cpu"
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The stage's name: `prune`."""
        return self.settings.stage

    @property
    def asked(self) -> str:
        """SHA-256 of the settings."""
        return self.settings.hash

    @property
    def partial(self) -> Path:
        """Where the work is done until it is certified."""
        return self.kind.partial(self.out)

    @property
    def room(self) -> int:
        """Bytes of memory that the job may take."""
        return self.ceiling or machine.default_ceiling()

    @property
    def memory(self) -> int:
        """Bytes at the heaviest moment, what is kept only where there is room for it included."""
        needed, _, spillable = self.estimate
        return needed + max(0, min(spillable, self.room - needed))

    # --- planning

    @property
    @abstractmethod
    def before(self) -> Size:
        """The source's size."""

    @property
    @abstractmethod
    def after(self) -> Size:
        """The output's size."""

    @property
    @abstractmethod
    def estimate(self) -> Estimate:
        """Memory and time."""

    @property
    def beside(self) -> int:
        """Bytes on disk that the work takes besides the output, until it is done."""
        return 0

    @property
    @abstractmethod
    def words(self) -> str:
        """What becomes of the model, in a few words: `pruned to 80 % of its blocks`."""

    @abstractmethod
    def lines(self) -> list[str]:
        """What becomes of each part, for the plan on one screen."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """The same for `--json`, and what the certificate records of it."""

    @abstractmethod
    def runtimes(self) -> list[str]:
        """Which runtimes load the output as it is."""

    @abstractmethod
    def usage(self) -> Mapping[str, tuple[str, str]]:
        """Language and program that load the output from within its folder, by runtime."""

    @abstractmethod
    def require_data(self) -> None:
        """Look at the data it needs, as far as it can be without reading it all. Raises DataError."""

    # --- running

    @abstractmethod
    def identity(self) -> Any:
        """What decides the output's bytes, besides the settings: JSON-able."""

    @abstractmethod
    def read_data(self) -> Generator[Event, None, Any]:
        """The data it learns from and is judged on."""

    @abstractmethod
    def data_hash(self, data: Any) -> str | None:
        """SHA-256 of what it learns from."""

    @abstractmethod
    def create(self) -> None:
        """Make room for the output on disk; what is there already stays."""

    @abstractmethod
    def intact(self, sums: Mapping[str, int]) -> bool:
        """Whether stored tensors still have these checksums."""

    @abstractmethod
    def work(self, data: Any, record: Record) -> Iterator[Event]:
        """All of it: every stored tensor is written and recorded; what is in the record already is not done again."""

    @abstractmethod
    def finish(self) -> list[Path]:
        """Make the output whole under its partial name; its weight files."""

    # --- judging

    @abstractmethod
    def source_files(self) -> list[Path]:
        """The weight files that it was made from, which the certificate hashes."""

    @abstractmethod
    def decoders(self) -> dict[str, str]:
        """The libraries that read the output back independently, and their versions."""

    @abstractmethod
    def verify(self, sums: Mapping[str, int]) -> Iterator[Event]:
        """Read the output back by other code than ours and compare. Raises CertificationError."""

    @abstractmethod
    def judge(self, data: Any) -> Generator[Event, None, dict[str, Any]]:
        """What the certificate says of this kind: "verdict" and whatever else was measured of the output."""

    @abstractmethod
    def tables(self, record: Record) -> list[Table]:
        """What was done, part by part."""

    @abstractmethod
    def clean(self) -> None:
        """Remove what only resuming needed."""
