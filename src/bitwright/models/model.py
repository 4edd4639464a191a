"""A float model and the decisions about it: its parts, the plan, and the turns in which they are solved.

The engine knows models by these types alone. A kind of model says which parts it has and in what order they come, what
it can show of their inputs, where finished parts are kept, and how the whole is judged.
"""

from __future__ import annotations

import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from bitwright import machine
from bitwright.core import formats
from bitwright.core.array import Array
from bitwright.core.format import Format
from bitwright.core.measure import Usage
from bitwright.core.qtensor import QTensor
from bitwright.events import Event, Row
from bitwright.files.held import Held, Module
from bitwright.methods import Method, Options, Seen
from bitwright.models.effort import EFFORTS, Effort
from bitwright.models.histogram import Pieces, histogram
from bitwright.models.kind import Kind
from bitwright.models.recovery import RECOVERY, begins
from bitwright.recipe import Layer, Recipe


class Part(Protocol):
    """One weight matrix of a model: `rows` outputs, `columns` inputs. `name` is its identity everywhere."""

    @property
    def name(self) -> str: ...
    @property
    def rows(self) -> int: ...
    @property
    def columns(self) -> int: ...


@dataclass(frozen=True)
class Item:
    """One matrix and what becomes of it; `note` records a fallback that the recipe allowed."""

    part: Any
    format: Format
    method: Method
    options: Options
    activations: str = "none"
    note: str | None = None

    @property
    def name(self) -> str:
        """The part's."""
        return str(self.part.name)

    @property
    def rows(self) -> int:
        """Outputs."""
        return int(self.part.rows)

    @property
    def columns(self) -> int:
        """Inputs."""
        return int(self.part.columns)

    @property
    def words(self) -> str:
        """Its format: `int4 g128 asym`, `int8 channel + int8 activations`."""
        return self.held.words

    @property
    def held(self) -> Held:
        """How it is stored."""
        return Held(self.format, self.activations)

    @property
    def lattice(self) -> str:
        """Where its weights lie once they are rounded: `int4 g128 asym lattice`."""
        return f"{Held(self.format).words} lattice"

    @property
    def recovered(self) -> Item:
        """The same, to keep the codes from which its weights were decoded."""
        return replace(self, method=RECOVERY, options=RECOVERY.options())

    @property
    def off_lattice(self) -> Item:
        """The same, whose weights lie on their lattice no further than they begin."""
        note = f"begins on the {self.lattice}, and does not lie on it"
        return replace(self, note="; ".join(filter(None, [self.note, note])))


def levels_of(activations: str) -> int | None:
    """Levels of inputs that are rounded as it runs: `activations` is the name of a format, or "none"."""
    return None if activations == "none" else formats.named(activations).code.levels


class Estimate(NamedTuple):
    """What a job costs on this machine: bytes of memory at the heaviest moment, and seconds.

    `needed` bytes must be there; `spillable` more are used where there is room, or else go to disk.
    """

    needed: int
    seconds: float
    spillable: int = 0


@dataclass(frozen=True)
class Cost:
    """What formats of one part cost, by name and in the unit of its model; None where nothing was seen of the part."""

    name: str
    loss: Mapping[str, float] | None


@dataclass(frozen=True)
class Fixed:
    """What the output loses whatever formats its parts have, in the unit of `Cost`: rounded tensors between them."""

    loss: float


@dataclass(frozen=True)
class Outcome:
    """A solved piece: `q` as it is stored, what else is stored with it, and its error at the output."""

    q: QTensor
    noise: float = 0.0
    """Power of the output's error, summed over outputs; 0 without samples."""
    power: float = 0.0
    """Power of the float output."""
    extras: Mapping[str, Array] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    correction: str | None = None
    """How far the target made up for earlier errors, in words."""


def as_given(item: Item, start: int, w: Array) -> Array:
    """The target of a matrix that is rounded as it stands."""
    return w


def alike(item: Item, start: int, stop: int) -> Array | None:
    """The curvature of a matrix whose outputs all count alike."""
    return None


def as_it_is(item: Item, start: int, w: Array, q: QTensor) -> Outcome:
    """The outcome of a matrix that is left as it is."""
    return Outcome(q)


@dataclass
class Turn:
    """Matrices that are solved together: they share one input.

    `seen` has one record for each equal share of the rows: a convolution of several groups has as many. `fallback`
    says why a method that needs more must leave these to another. `aim(item, first row, w)` says what some rows should
    become, where that is not the float weights themselves; `curvature(item, first row, row after the last)` how much
    the outputs of these rows count, as `Seen.curvature` of them. `settle(item, first row, w, q)` tells the model what
    became of some rows, `restore` what an earlier run had made of all. `solved` are codes that are known already:
    those of methods that train a whole model.
    """

    items: list[Item]
    seen: tuple[Seen, ...] = (Seen(),)
    fallback: str | None = None
    settle: Callable[[Item, int, Array, QTensor], Outcome] = as_it_is
    restore: Callable[[Item], None] = lambda item: None
    solved: QTensor | None = None
    inputs: Usage | None = None
    """How often each code of their rounded input occurs in calibration; None where that was not looked at."""
    aim: Callable[[Item, int, Array], Array] = as_given
    curvature: Callable[[Item, int, int], Array | None] = alike


@dataclass(frozen=True)
class Copy:
    """A tensor whose turn it is to be written as it is."""

    name: str


@dataclass(frozen=True)
class Aside:
    """Tensors beside the matrices that are known now: by the names they are stored under; `name` is the journal's."""

    name: str
    tensors: Mapping[str, Array]


class Sink(ABC):
    """Where finished parts are kept until the output is whole, and how they are told from damaged ones."""

    @property
    @abstractmethod
    def final_bytes(self) -> int:
        """Bytes of the finished output's weight files."""

    @abstractmethod
    def create(self) -> None:
        """Make room on disk; what is there already stays."""

    def pack(self, item: Item, start: int, outcome: Outcome) -> Any:
        """What `write` keeps of some rows, from `start` on. Several threads may do this at once."""
        return outcome

    @abstractmethod
    def write(self, item: Item, packed: Any, sums: dict[str, int]) -> None:
        """Keep rows that were packed, in their order; `sums` {stored name: CRC-32} is carried on over their bytes."""

    @property
    def untouched(self) -> Sequence[str]:
        """Source tensors that are written as they are."""
        return ()

    def copy(self, name: str) -> dict[str, int]:
        """Write a source tensor as it is, checked; its {stored name: CRC-32}."""
        raise NotImplementedError(f"{type(self).__name__} copies nothing")

    @property
    def asides(self) -> Sequence[str]:
        """The names of what is written beside matrices and copies."""
        return ()

    def put(self, aside: Aside) -> dict[str, int]:
        """Write what is known now; its {stored name: CRC-32}."""
        raise NotImplementedError(f"{type(self).__name__} keeps nothing beside its parts")

    @abstractmethod
    def intact(self, sums: Mapping[str, int]) -> bool:
        """Whether what was kept still has these checksums."""


@dataclass
class Plan:
    """A job, decided: `items` are quantized, `floats` stay float and why; everything else follows from these."""

    model: Model
    out: Path
    recipe: Recipe
    container: Any
    """A `files.container.Container`: of tensors or of a graph, as the kind of model wants it."""
    ceiling: int | None = None
    shared: Path | None = None
    """A folder where runs of several recipes on one model keep what they learn of it; None: each for itself."""
    items: dict[str, Item] = field(default_factory=dict)
    floats: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    ends: tuple[Plan, ...] = ()
    """Those with the smallest and the largest output that a budget can choose; empty without one."""
    spent: Mapping[str, Any] | None = None
    """How the recipe's budget was spent, JSON-able; None before, and where there is none."""
    decided: bool = False
    """Whether a largest drop of quality has been kept, so that the items are final."""
    attempt_of: Plan | None = None
    """The plan of which this one is an attempt with fewer parts quantized."""

    @cached_property
    def effort(self) -> Effort:
        """What is done beside rounding each matrix for its own inputs, as far as the model and the memory allow."""
        return self.model.effort(self) if self.attempt_of is None else self.attempt_of.effort

    @property
    def kind(self) -> Kind:
        """The model's."""
        return self.model.kind

    @property
    def asked(self) -> str:
        """SHA-256 of the recipe."""
        return self.recipe.hash

    @property
    def source(self) -> Path:
        """The float model's path."""
        return self.model.path

    @property
    def partial(self) -> Path:
        """Where the work is done until it is certified."""
        return self.model.kind.partial(self.out)

    @cached_property
    def sink(self) -> Sink:
        """Where its finished parts are kept."""
        return self.model.sink(self)

    @cached_property
    def estimate(self) -> Estimate:
        """Memory and time."""
        return self.model.estimate(self)

    @cached_property
    def recoverable(self) -> frozenset[str]:
        """The matrices that begin on the lattice of their format: they may have been decoded from it."""
        return frozenset(
            item.name
            for item in self.items.values()
            if begins(partial(self.model.rows, item), (item.rows, item.columns), item.format)
        )

    @property
    def memory(self) -> int:
        """Bytes at the heaviest moment, what is kept only where there is room for it included."""
        needed, _, spillable = self.estimate
        return needed + max(0, min(spillable, self.room - needed))

    @property
    def unspent(self) -> bool:
        """Whether formats are still to be chosen by what they cost."""
        return self.recipe.budget is not None and self.spent is None

    @property
    def trial(self) -> bool:
        """Whether what it makes is only looked at, to find out which parts must stay float."""
        return self.recipe.max_drop is not None and not self.decided

    def without(self, names: Sequence[str], why: str) -> Plan:
        """The same job with these parts left float."""
        gone = set(names)
        items = {name: item for name, item in self.items.items() if name not in gone}
        floats = self.floats | dict.fromkeys(names, why)
        return replace(self, items=items, floats=floats, attempt_of=self.attempt_of or self)

    @property
    def label(self) -> str:
        """What tells the work of this attempt from that of others in one partial output."""
        if self.attempt_of is None:
            return ""
        return f"-{zlib.crc32(json.dumps(sorted(self.floats)).encode()):08x}"

    @property
    def calibrated(self) -> bool:
        """Whether any method needs to see the layers' inputs."""
        return any(item.method.needs != "nothing" for item in self.items.values())

    @property
    def libraries(self) -> int:
        """Bytes of memory that libraries take which its methods and codes alone import."""
        return max((max(i.method.libraries, i.format.code.libraries) for i in self.items.values()), default=0)

    @property
    def matrices(self) -> list[Item]:
        """The items, of those that share one stored tensor only the first."""
        return list({self.model.tensor(item.part): item for item in reversed(self.items.values())}.values())[::-1]

    @property
    def unpacks(self) -> bool:
        """Whether transformers must unpack weights on loading."""
        found: bool = self.container.unpacks(self.model.modules(self), self.model.unpacks)
        return found

    @property
    def weights(self) -> int:
        """Weights that will be quantized, each counted once however many parts share it."""
        return sum(item.rows * item.columns for item in self.matrices)

    def stored(self, item: Item) -> int:
        """Bits on disk of a matrix: codes as the container holds them, scales, zero points."""
        held: Format = self.container.stored(item.format, self.recipe)
        return held.stored_bits(item.rows, item.columns)

    @property
    def stored_bits(self) -> float:
        """Bits on disk per quantized weight."""
        return sum(map(self.stored, self.matrices)) / max(self.weights, 1)

    @property
    def bits_per_parameter(self) -> float:
        """Bits of the output's weight files per parameter of the whole model, whatever stays float."""
        return 8 * self.sink.final_bytes / max(self.model.parameters, 1)

    @property
    def room(self) -> int:
        """Bytes of memory that the job may take."""
        return self.ceiling or machine.default_ceiling()


class Model(ABC):
    """A float model of one kind. Between `turns` of one plan it may hold state: open it anew for each run."""

    kind: Kind
    path: Path
    notes: Sequence[str] = ()
    """What opening it did."""
    independent: bool = False
    """Whether a part's codes stay what they are when another part stays float."""
    measure: Literal["kl", "noise"] = "kl"
    """What costs count: nats of KL divergence, or the noise of outputs as a share of their power."""
    judged: Sequence[str] = ()
    """The outputs whose noise costs count, each as much as any other."""
    spread: float = 1.0
    """The factor within which losses of outputs are that are predicted from `costs`."""
    unpacks: bool = False
    """Whether transformers can load the network's packed weights only by unpacking them."""

    @property
    @abstractmethod
    def files(self) -> list[Path]:
        """The weight files, which the certificate hashes."""

    @property
    @abstractmethod
    def source_bytes(self) -> int:
        """Bytes of the float model that the output is held against."""

    @property
    @abstractmethod
    def parameters(self) -> int:
        """Floating-point numbers that the float model stores."""

    @abstractmethod
    def identity(self) -> Any:
        """What decides the output's bytes, besides the recipe: JSON-able."""

    # --- planning

    def effort(self, plan: Plan) -> Effort:
        """What the recipe's effort means for this model."""
        return EFFORTS[plan.recipe.effort]

    def container(self, container: Any, recipe: Recipe) -> Any:
        """The container as it is used for this model and recipe. Raises RecipeError or ModelError."""
        return container

    @abstractmethod
    def parts(self, recipe: Recipe) -> Sequence[Part]:
        """The matrices that may be quantized, in order."""

    def names(self, part: Any) -> tuple[str, ...]:
        """The names by which a recipe's rules may mean a part."""
        return (part.name,)

    def layer(self, part: Any, recipe: Recipe) -> Layer:
        """The settings of a part."""
        return recipe.layer_for(*self.names(part))[0]

    def tensor(self, part: Any) -> str:
        """The stored tensor that holds a part's weights, which parts may share."""
        return str(part.name)

    def leave(self, chosen: Mapping[str, Layer], recipe: Recipe, container: Any) -> dict[str, str]:
        """Parts that stay float whatever the recipe says, and why; `chosen` are the others with their settings."""
        return {}

    @abstractmethod
    def item(self, part: Any, layer: Layer, plan: Plan) -> Item | str:
        """What becomes of a part under these settings; or why it stays float, where the recipe allows that."""

    @abstractmethod
    def require(self, plan: Plan) -> None:
        """Raise for what could be known to fail once all items are decided."""

    @abstractmethod
    def open_data(self, plan: Plan) -> None:
        """Look at the data the plan needs, as far as it can be without reading it all. Raises DataError."""

    @abstractmethod
    def sink(self, plan: Plan) -> Sink:
        """Where the plan's finished parts are kept."""

    @abstractmethod
    def estimate(self, plan: Plan) -> Estimate:
        """Memory and time."""

    def input_levels(self, plan: Plan, item: Item) -> int | None:
        """Levels that an item's inputs are rounded to; None where they stay float."""
        return levels_of(item.activations)

    @abstractmethod
    def lines(self, plan: Plan) -> list[str]:
        """What the plan on one screen says besides formats, sizes, memory and time."""

    def facts(self, plan: Plan) -> dict[str, Any]:
        """What the plan says of this kind alone, for `--json`."""
        return {}

    def modules(self, plan: Plan) -> list[Module]:
        """The output's weight matrices as runtimes meet them."""
        return [Module(item.name, item.rows, item.columns, item.held) for item in plan.items.values()]

    def runtimes(self, plan: Plan) -> list[str]:
        """Which runtimes load the plan's output as it is, and with what limits."""
        found: list[str] = plan.container.runtimes(self.modules(plan), plan.unpacks)
        return found

    # --- running

    @abstractmethod
    def read_data(self, plan: Plan) -> Generator[Event, None, Any]:
        """The calibration and held-out data; None for a job without any."""

    @abstractmethod
    def data_hash(self, data: Any) -> str | None:
        """SHA-256 of what calibration sees."""

    @abstractmethod
    def turns(self, plan: Plan, data: Any, finished: Callable[[str], bool]) -> Iterator[Event | Turn | Copy | Aside]:
        """All parts of the plan, in turn; those that are `finished` may be left out or come to be restored."""

    @abstractmethod
    def piece_rows(self, plan: Plan, item: Item) -> int:
        """Rows of a matrix that are solved at once."""

    @abstractmethod
    def rows(self, item: Item, start: int, stop: int) -> Array:
        """Rows [start, stop) of a matrix as float32, checked to be finite."""

    @abstractmethod
    def finish(self, plan: Plan) -> list[Path]:
        """Make the output whole under its partial name; the weight files."""

    def importance(self, plan: Plan, data: Any) -> Generator[Event, None, Any]:
        """The imatrix of calibration data; of kinds of models alone that have such."""
        raise NotImplementedError

    # --- judging

    @abstractmethod
    def verify(self, plan: Plan, rows: Mapping[str, Row], sums: Mapping[str, int]) -> Iterator[Event]:
        """Read the output back by other code than ours and compare. Raises CertificationError."""

    @abstractmethod
    def judge(self, plan: Plan, data: Any) -> Generator[Event, None, dict[str, Any]]:
        """What the certificate says of this kind: "verdict" and whatever else was measured of the output."""

    @abstractmethod
    def pair(self, plan: Plan, name: str) -> Pieces:
        """A finished matrix piece by piece: its rows as they were rounded, and as they decode.

        It may be that of a run which goes on elsewhere, or of an output that has its final name.
        """

    def histogram(self, plan: Plan, name: str, bins: int) -> dict[str, Any]:
        """How the weights of a finished matrix lie before and after, over `bins` bins of its range."""
        return {"name": name, **histogram(lambda: self.pair(plan, name), bins)}

    def choices(self, plan: Plan) -> dict[str, list[Item]]:
        """The forms that each part of the plan may have, by its name; one where a rule has decided."""
        raise NotImplementedError

    def together(self, plan: Plan) -> list[list[str]]:
        """All parts of the plan, those together that must have one format."""
        raise NotImplementedError

    def costs(
        self, plan: Plan, data: Any, choices: Mapping[str, list[Item]], known: Callable[[str], bool]
    ) -> Generator[Event | Cost | Fixed, None, None]:
        """What the formats among `choices` cost, of all parts that are not `known`; first what they all lose alike.

        Where all parts are known, so is that.
        """
        raise NotImplementedError

    @abstractmethod
    def drop(self, plan: Plan, data: Any) -> Generator[Event, None, Drop]:
        """How much of its quality the plan's output loses on calibration data, once its turns are over."""

    @abstractmethod
    def rank(self, plan: Plan, data: Any) -> Generator[Event, None, list[str]]:
        """The plan's parts, the one first whose rounding costs most, once its turns are over."""

    def known(self) -> Sequence[str]:
        """Every name that a rule can mean, for the nearest one to a mistyped pattern."""
        raise NotImplementedError

    def adopt(self, plan: Plan, item: Item, trial: Plan) -> dict[str, int]:
        """Take a matrix of a trial over into the final output; its {stored name: CRC-32}."""
        raise NotImplementedError

    def adopt_aside(self, plan: Plan, name: str, trial: Plan) -> dict[str, int]:
        """Take over what a trial wrote beside matrices and copies, by its name; its {stored name: CRC-32}."""
        raise NotImplementedError

    def written(self, plan: Plan) -> Path:
        """Where the finished output of a plan lies: of one in several files the first."""
        return plan.out

    @abstractmethod
    def seal(self, plan: Plan, certificate: str, card: str) -> None:
        """Put the certificate and the model card beside the partial output and make all of it durable."""

    @abstractmethod
    def publish(self, plan: Plan) -> None:
        """Give the output its final name; what only resuming needed goes."""


class Drop(NamedTuple):
    """A measure of quality and how much worse it became, in points (percent of it, for perplexity)."""

    name: str
    value: float
    unit: str = "points"
    verb: str = "drops"

    @property
    def words(self) -> str:
        """`accuracy drops by 0.42 points`."""
        return f"{self.name} {self.verb} by {self.value:.2f} {self.unit}"
