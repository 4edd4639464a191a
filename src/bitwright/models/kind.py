"""A kind of model, described: what it claims, what its parts are called, what in a recipe is its own.

Nothing here imports torch: the command line, the report and the studio's web process read it. `open` gives the model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from bitwright.errors import RecipeError
from bitwright.methods.method import Method, Needs, Scope
from bitwright.models.running import Asked, Gauge, Runner, Task
from bitwright.recipe import Recipe
from bitwright.stages import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bitwright.events import Event


class Words(NamedTuple):
    """What the things in a certificate are called: a `whole` has `parts` and is judged on `sample`s of `data`."""

    whole: str
    part: str
    parts: str
    data: str
    sample: str
    drop: str
    """The unit of a drop of quality, where it has a limit."""
    unmeasured: str
    remedy: str


class Fact(NamedTuple):
    """One figure: `before` of the float model (or ""), `value` of the quantized one; `kind` names its colour."""

    label: str
    before: str
    value: str
    detail: str
    kind: str = "plain"

    @property
    def text(self) -> str:
        """In one line, without its label."""
        return f"{self.before} -> {self.value} ({self.detail})" if self.before else f"{self.value} {self.detail}"


class Kind(ABC):
    """One kind of model: a folder of `models` provides it, and everything that only this kind knows stands there."""

    name: ClassVar[str]
    title: ClassVar[str]
    """Models of this kind, in words that a user knows: `ONNX networks`."""
    words: ClassVar[Words]
    ending: ClassVar[str] = ""
    """How the name of an output must end; "" for a folder."""
    holds: ClassVar[Literal["tensors", "graph"]]
    """What a container must store for it: single tensors, or a graph."""
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")
    """Where its models can be worked on."""
    scopes: ClassVar[frozenset[Scope]] = frozenset({"matrix"})
    """Scopes of methods that it serves."""
    shows: ClassVar[frozenset[Needs]]
    """What it can show of a layer's input to a method."""
    tables: ClassVar[tuple[str, ...]]
    """Keys of a recipe that only this kind uses."""
    options: ClassVar[Mapping[str, str]]
    """Command-line options of this kind alone, and the recipe's keys that they set."""
    layer: ClassVar[Mapping[str, Any]] = {}
    """How its layers are stored unless the recipe says otherwise, where that is not the recipe's own default."""
    spending: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """What a budget takes for granted in its tables unless the recipe says otherwise."""

    library: ClassVar[str]
    """The library that loads its models, as the hub calls it."""
    pipeline: ClassVar[str] = ""
    """What all its models do, as the hub calls it; "" where they do different things."""
    writes: ClassVar[bool] = False
    """Whether its models write text, so that two of them can write side by side."""
    gauges: ClassVar[tuple[Gauge, ...]]
    """What is measured of a model that runs, the most telling first."""

    def serves(self, method: Method) -> bool:
        """Whether its models can be quantized by a method."""
        return method.scope in self.scopes and method.needs in self.shows

    @abstractmethod
    def load(self) -> None:
        """Import what its models stand on, in the quickest way."""

    @abstractmethod
    def claims(self, path: Path) -> bool:
        """Whether what lies, or would lie, at `path` is of this kind: by its name and kind of file alone."""

    @abstractmethod
    def lies_at(self, path: Path) -> bool:
        """Whether a whole model of this kind lies at `path`: by the names of files alone."""

    def checks(self, path: Path) -> bool:
        """Whether `check` reads what lies at `path`: by the names of files alone."""
        return self.lies_at(path)

    @abstractmethod
    def size(self, path: Path) -> int:
        """Bytes of the weights of the model at `path`."""

    @abstractmethod
    def open(self, path: Path, recipe: Recipe, device: str = "cpu") -> Any:
        """The float model at `path`, a `models.model.Model`. Raises ModelError, FileError or TensorError."""

    def stage(self, settings: Settings, source: Path, out: Path, ceiling: int | None, device: str) -> Any:
        """A stage on the float model at `source`, a `models.stage.Stage`; RecipeError where this kind has no such.

        `ceiling` is a limit of memory in bytes. Raises what `open` raises besides.
        """
        what = f"{self.title} have no stage {settings.stage!r} yet"
        raise RecipeError(what, where=str(source), fix="Give a language model")

    @abstractmethod
    def output(self, recipe: Recipe, out: Path | None = None) -> str:
        """The container that is written, at `out` if that is known, where the recipe names none."""

    def has_data(self, recipe: Recipe) -> bool:
        """Whether the recipe names all the data that planning looks at."""
        return True

    @abstractmethod
    def beside(self, source: Path, ending: str) -> Path:
        """Where an output might go whose container gives files that end in `ending`: what `plan` shows."""

    @abstractmethod
    def certificate(self, out: Path) -> Path:
        """Where the certificate of an output lies."""

    @abstractmethod
    def card(self, out: Path) -> Path:
        """Where the model card of an output lies."""

    @abstractmethod
    def source_card(self, source: Path) -> Path:
        """Where the model card of a float model lies, if it has one."""

    @abstractmethod
    def shelved(self, out: Path) -> dict[str, Path]:
        """The files of an output, by their names in a repository of its own."""

    @abstractmethod
    def partial(self, out: Path) -> Path:
        """Where an output is written until it has its final name."""

    def standing(self, out: Path) -> Path:
        """Where an output lies that was to be `out`: of one in several files the first."""
        return out

    @abstractmethod
    def require_name(self, out: Path, ending: str) -> None:
        """Raise RecipeError where an output cannot be called so whose container gives files that end in `ending`."""

    @abstractmethod
    def check(self, path: Path, against: Path | None) -> Iterator[Event]:
        """Findings about a model of this kind, ours or anyone's, and rows against the float model."""

    @abstractmethod
    def compare(self, a: Path, b: Path, heldout: str, recipe: Recipe) -> Iterator[Event]:
        """The events of measuring two models on the same data; the generator returns the comparison."""

    @abstractmethod
    def task(self, path: Path, asked: Asked, folder: Path) -> Task:
        """What the model at `path` does when it is run; `folder` is there for data. Raises InputError's kinds."""

    @abstractmethod
    def runner(self, path: Path, given: Mapping[str, Any]) -> Runner:
        """What runs the model at `path`, `given` what its task says; this process has loaded nothing yet."""

    @abstractmethod
    def measures(self, verdict: Mapping[str, Any]) -> list[Fact]:
        """What a verdict measured: what it is judged by first, then the task's own measure."""

    @abstractmethod
    def readers(self, certificate: Mapping[str, Any]) -> list[str]:
        """Whose code read the written bytes back, and what came of it."""

    @abstractmethod
    def sample(self, verdict: Mapping[str, Any]) -> str:
        """What KL is a mean over: a `token`, a `sample`, a `frame`."""

    def baseless(self, verdict: Mapping[str, Any]) -> str | None:
        """What shows that the float model itself predicts nothing, so that no copy can be judged by it; else None."""
        return None

    def cautions(self, certificate: Mapping[str, Any]) -> list[str]:
        """What makes the verdict less than it seems, in sentences."""
        return []

    @abstractmethod
    def describe(self, part: Mapping[str, Any]) -> list[str]:
        """What calibration or held-out data was made of, in sentences, from a certificate's record of it."""

    def placed(self, part: Mapping[str, Any]) -> str:
        """Whether held-out data are of the kind that calibration saw, in two or three words; "" where nobody knows."""
        return ""

    def activations(self, certificate: Mapping[str, Any]) -> str:
        """How tensors between layers are rounded, where the certificate says so as a whole; else ""."""
        return ""
