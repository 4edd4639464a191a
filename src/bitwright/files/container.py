"""What a container is: which formats it stores, how a finished matrix is laid out in it, and who reads it back.

Nothing here imports torch or onnx; a container imports them when it works.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from bitwright.core import formats
from bitwright.core.format import Format
from bitwright.core.measure import Usage
from bitwright.core.qtensor import QTensor
from bitwright.core.scaling import Block
from bitwright.errors import RecipeError
from bitwright.files.held import Cache, Module

if TYPE_CHECKING:
    import torch

    from bitwright.files.quantized import QuantizedCheckpoint
    from bitwright.files.safetensors import Spec


class Stored(NamedTuple):
    """Some rows of a stored tensor, the first of which is its row `first`."""

    name: str
    tensor: torch.Tensor
    first: int


class Counted(NamedTuple):
    """How finely a constant of a graph is stored: the words for its codes and scales, their bits, the levels in use.

    `shape` is that of the decoded constant.
    """

    words: str
    shape: tuple[int, ...]
    bits: int
    usage: Usage


class Place(NamedTuple):
    """Where a matrix [rows, columns] goes: its module's name, how its inputs are rounded, and how its source had it."""

    module: str
    rows: int
    columns: int
    activations: str
    dtype: torch.dtype
    transposed: bool = False
    """The source stores it as [columns, rows]."""
    lookup: bool = False
    """Rows are looked up: it is an embedding."""
    shared: tuple[str, ...] = ()
    """Modules that multiply by the same tensor."""


class Container(ABC):
    """One container; a file of `files/containers`, or an entry point `bitwright.containers`, provides it."""

    name: ClassVar[str]
    title: ClassVar[str]
    holds: ClassVar[Literal["tensors", "graph"]]
    """Single tensors of a model folder, or a whole ONNX graph."""
    groups: ClassVar[tuple[int, ...]] = (128, 64, 32, 16)
    """Weights per scale that its runtimes read, the best choice by default first."""
    ladder: ClassVar[tuple[str, ...]] = ()
    """Formats that a budget is spent on, by bits; none: it takes no budget."""
    ending: ClassVar[str] = ""
    """How the name of an output must end, where it is a single file although the kind of model has folders."""
    study: ClassVar[bool] = False
    """Whether it holds decoded weights, so that nothing gets smaller."""

    def format(
        self,
        name: str,
        *,
        group: Block | None = None,
        symmetric: bool = True,
        scale: str = "fp16",
        activations: str = "none",
        where: str = "format",
    ) -> Format:
        """The format that a recipe's words mean here; RecipeError, about `where`, for one it does not store."""
        found = formats.named(name, group=group, symmetric=symmetric, scale=scale)
        self.require(found, activations)
        return found

    @abstractmethod
    def require(self, format: Format, activations: str = "none") -> None:
        """Raise RecipeError where `format`, with such activations, has no place in it."""

    def stored(self, format: Format, recipe: Any) -> Format:
        """`format` as the file holds it: codes of few bits may take more room than they need."""
        return format

    @abstractmethod
    def decoders(self) -> dict[str, str]:
        """The libraries that read it back independently, and their versions."""

    @abstractmethod
    def runtimes(self, modules: Sequence[Module], unpack: bool = False) -> list[str]:
        """Which runtimes load an output with these weight matrices as it stands, and what limits them.

        What does not is said with `not` before it. `unpack`: transformers loads the network only by unpacking it.
        """

    def unpacks(self, modules: Sequence[Module], network: bool) -> bool:
        """Whether transformers loads these weight matrices only by unpacking them; `network`: whatever they are."""
        return False

    def usage(self, name: str, unpack: bool = False) -> dict[str, tuple[str, str]]:
        """Language and program that load what lies at `name`, by runtime; `runtimes` says which of them do."""
        return {}


class TensorContainer(Container):
    """Stores single matrices as tensors of a model folder."""

    holds = "tensors"
    transposes: ClassVar[bool] = False
    """Whether matrices that the source stores as [inputs, outputs] have a place in it."""
    unpacking: ClassVar[str | None] = None
    """How transformers is told to unpack it while loading, where it would hold it packed."""
    slack: ClassVar[float] = 1e-3
    """Relative change of SQNR that reading back may show: codes are exact, floats are rounded once more."""

    def require_table(self, format: Format) -> None:
        """Raise RecipeError where an embedding in `format` has no place in it."""
        raise refuse(f"{self.name} does not hold embeddings", "Leave the embedding float", "embedding")

    def require_together(self, modules: Sequence[Module], network: bool) -> None:
        """Raise RecipeError where no runtime reads an embedding among these matrices; `network` as for `unpacks`."""

    def together(self, modules: Sequence[Module]) -> list[list[str]]:
        """The names of matrices that its runtimes make one layer of, so that they must have one format."""
        return []

    def step(self, format: Format) -> int:
        """A piece of a matrix must begin at a multiple of so many rows."""
        return 1

    @abstractmethod
    def specs(self, format: Format, place: Place) -> list[Spec]:
        """The tensors that store a matrix."""

    @abstractmethod
    def pack(self, q: QTensor, start: int, place: Place) -> list[Stored]:
        """The stored tensors of `q`, which are rows [start, ...) of the matrix that goes to `place`."""

    @abstractmethod
    def unpack(self, stored: Mapping[str, torch.Tensor], format: Format, place: Place) -> torch.Tensor:
        """The matrix whose stored tensors, by name, were packed for `place`: decoded, as its source had it."""

    def config(self, modules: Sequence[Module]) -> dict[str, Any]:
        """What config.json must say of the output's weight matrices, those that stay float among them."""
        return {}

    def claims(self, config: Mapping[str, Any]) -> bool:
        """Whether a folder with this config.json is in this container."""
        return False

    def open(self, folder: Path, config: Mapping[str, Any]) -> QuantizedCheckpoint:
        """A folder that it claims, read back."""
        raise NotImplementedError

    def load(self, folder: Path, unpack: bool) -> Any | None:
        """The folder as a user loads it in transformers, in float32; unpacked on the way where it must be.

        None where no runtime here reads it. Raises CertificationError where it cannot be loaded.
        """
        return None

    @property
    def unread(self) -> str:
        """Why `load` gives None."""
        return f"no runtime here reads {self.name}"

    def count_inputs(self, x: torch.Tensor, format: Format, activations: str) -> Usage:
        """How often each code occurs where inputs `x` [..., columns] of a matrix are rounded as its runtime does."""
        raise NotImplementedError

    def round_inputs(self, x: torch.Tensor, format: Format, activations: str) -> torch.Tensor:
        """Inputs `x` [..., columns] of a matrix, rounded as its runtime does."""
        raise NotImplementedError

    def keep_inputs(self, model: Any) -> None:
        """Have a loaded model no longer round its activations, nor keys and values."""
        raise NotImplementedError

    cache: Cache | None = None
    """How an output says that keys and values are held; None where it says nothing."""

    def cached(self, format: str, network: Any, heads: bool = True) -> TensorContainer:
        """This container, whose outputs say that keys and values of `network` are held in `format`.

        Without `heads` all heads share a scale, whatever the format. RecipeError where no runtime would hold them so.
        """
        raise refuse(f"{self.name} cannot say how keys and values are rounded", "Leave --kv-cache out", "kv_cache")

    def round_cache(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Keys or values `x` [batch, heads, tokens, width] as runtimes of `cached` round them."""
        raise NotImplementedError


class GraphContainer(Container):
    """Stores a whole ONNX network."""

    holds = "graph"
    integer: ClassVar[bool]
    """Whether its products run on integers, so that activations are quantized too."""

    @abstractmethod
    def write(
        self, graph: Any, placement: Any, weights: Mapping[str, QTensor], activations: Mapping[str, Any], network: Any
    ) -> Any:
        """The ONNX model of a float graph with these weights and activations; `network` is the recipe's table."""

    @abstractmethod
    def decode(self, model: Any) -> dict[str, Any]:
        """The float32 values of every constant that an ONNX model stores in this container, by the weight's name."""

    def count(self, model: Any) -> dict[str, Counted]:
        """How finely every constant that it would decode is stored, under the same names."""
        return {}

    def decoders(self) -> dict[str, str]:
        return {"onnx": version("onnx"), "onnxruntime": version("onnxruntime")}


def refuse(what: str, fix: str, key: str = "layer.format", where: str | None = None) -> RecipeError:
    """The error of a container that does not store something."""
    return RecipeError(what, where=where or key.rpartition(".")[2], fix=fix, key=key)
