"""A quantized model folder, whatever its container, read as float tensors under their original names."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch

from bitwright.core.qtensor import QTensor
from bitwright.files.held import Cache, Module
from bitwright.files.safetensors import Checkpoint

PIECE = 1 << 18
"""Bytes that are compared at once."""


class QuantizedCheckpoint(Checkpoint):
    """A folder whose quantized matrices appear as one float tensor each, decoded when read.

    `quantized` says how each is held. A container's reader fills it, and takes the stored parts out of `tensors`.
    """

    library: str
    """Whose code `by_library` is, with its name in words."""

    @abstractmethod
    def step(self, name: str) -> int:
        """A run of rows of a matrix must begin at a multiple of so many, and end at one or with the matrix."""

    @abstractmethod
    def parts(self, name: str, start: int = 0, stop: int | None = None) -> dict[str, torch.Tensor]:
        """The stored tensors of rows [start, stop) of a quantized matrix, by what they are."""

    @abstractmethod
    def qtensor(self, name: str, start: int = 0, stop: int | None = None) -> QTensor:
        """Rows [start, stop) of a quantized matrix as codes, scales and zeros: our own decoder."""

    @abstractmethod
    def by_library(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Rows [start, stop) of a quantized matrix as an independent decoder gives them."""

    def runtimes(self, modules: Sequence[Module], unpack: bool = False) -> list[str]:
        """What loads the folder with these weight matrices, and what does not and why; nothing where it is unknown."""
        return []

    def unmarked(self, modules: Sequence[Module]) -> list[str]:
        """The linear layers among these that are stored in float, and that config.json says are quantized."""
        return []

    @property
    def rounds(self) -> bool:
        """Whether any matrix takes rounded inputs."""
        return any(held.activations != "none" for held in self.quantized.values())

    @abstractmethod
    def round_inputs(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Inputs `x` [..., columns] of a quantized matrix as its runtime rounds them: unchanged where it does not."""

    def cache(self, network: Any) -> Cache | None:
        """How keys and values of its network are held, as the runtime understands the folder; None for floats.

        FileError where it cannot be understood.
        """
        return None

    def cache_scale(self, name: str) -> torch.Tensor | None:
        """What keys or values are divided by, as it is stored; None where it is not."""
        raise NotImplementedError

    def round_cache(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Keys or values `x` [batch, heads, tokens, width] as the runtime rounds them, by the scale called `name`."""
        raise NotImplementedError

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Rows [start, stop) of a tensor; a quantized matrix comes decoded, in the dtype of its entry."""
        if name not in self.quantized:
            return super().read(name, start, stop)
        rows, step = self.tensors[name].shape[0], self.step(name)
        stop = rows if stop is None else min(stop, rows)
        first = start - start % step
        decoded: torch.Tensor = self.qtensor(name, first, min(-(-stop // step) * step, rows)).decode()
        return decoded.to(self.tensors[name].dtype)[start - first : stop - first]


def same_bytes(a: Checkpoint, b: Checkpoint, name: str) -> bool:
    """Whether two folders store the very same tensor under this name; compares a few rows at a time."""
    one, other = a.entry(name), b.tensors.get(name)
    if isinstance(b, QuantizedCheckpoint) and name in b.quantized:
        return False
    if other is None or (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    rows = max(1, PIECE // max(one.row_size, 1))
    return all(
        torch.equal(_bytes(piece), _bytes(b.read_entry(other, start, start + rows)))
        for start, piece in a.chunks(name, rows)
    )


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1).view(torch.uint8)
