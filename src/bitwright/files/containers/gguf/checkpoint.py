"""A GGUF file read as the model it was made of: tensors under the network's own names, rows in its order."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bitwright.core.formats import named
from bitwright.core.qtensor import QTensor
from bitwright.errors import FileError, ModelError
from bitwright.files import gguf
from bitwright.files.containers.gguf import names
from bitwright.files.containers.gguf.blocks import LAYOUTS, unpack
from bitwright.files.containers.gguf.names import Piece, Shape, Target
from bitwright.files.containers.gguf.reader import rows
from bitwright.files.folder import network_of
from bitwright.files.gguf_shards import is_later
from bitwright.files.held import Held
from bitwright.files.quantized import QuantizedCheckpoint
from bitwright.files.safetensors import Entry


def file_in(path: Path) -> Path:
    """The file that is meant: `path` itself, or the only one in that folder; ModelError where that is not clear.

    Of a model in shards it is the first.
    """
    if gguf.is_gguf(path):
        return path
    files = sorted(file for file in path.glob(f"*{gguf.ENDING}") if not is_later(file))
    if len(files) != 1:
        what = f"{len(files)} GGUF files: which is the model is open"
        raise ModelError(what, where=str(path), fix=gguf.hint(path) or "Download it again")
    return files[0]


def shapes_of(config: Mapping[str, Any]) -> dict[str, Shape]:
    """The parameters of the network that a config describes, with their shapes, in its order."""
    from transformers import AutoConfig

    values = {key: value for key, value in config.items() if key not in gguf.MARK}
    with torch.device("meta"):
        found = AutoConfig.for_model(values.pop("model_type"), **values)
        network = network_of(found).from_config(found)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


FLOATS = {"f16": torch.float16, "bf16": torch.bfloat16}
"""Types that tensors keep; all others appear as float32."""


class GgufCheckpoint(QuantizedCheckpoint):
    """Tensors of one GGUF file, or of all shards of a model, decoded where they have codes."""

    again = True
    library = "gguf-py"

    def __init__(self, path: Path, config: Mapping[str, Any], shapes: Mapping[str, Shape]) -> None:
        """Open `path`, the file or first shard of a network with this config, of tensors of these names and shapes.

        Raises FileError for a damaged file, ModelError where its tensors are not those of the network.
        """
        self.folder = path
        self.gguf = gguf.read(path)
        self.files, self.index, self.metadata = self.gguf.files, None, {}
        self.tensors: dict[str, Entry] = {}
        held: dict[str, Held] = {}
        self.places: dict[str, list[tuple[Target, Piece]]] = {}
        stored = {tensor.name: tensor for tensor in self.gguf.tensors}
        for target in names.targets(config, shapes):
            if target.values is not None:
                continue
            tensor = stored.get(target.name)
            if tensor is None:
                raise ModelError("the file holds no such tensor", where=f"{path}: {target.name}", fix=gguf.AGAIN)
            if tensor.shape[::-1] != target.shape:
                raise ModelError(
                    f"its metadata makes it {list(target.shape)}, the file holds {list(tensor.shape[::-1])}",
                    where=f"{path}: {target.name}", fix=gguf.AGAIN,
                )  # fmt: skip
            for piece in target.pieces:
                self.places.setdefault(piece.source, []).append((target, piece))
        for name, parts in self.places.items():
            shape, first = shapes[name], stored[parts[0][0].name]
            kinds = [stored[target.name].type for target, _ in parts]
            words = {"" if kind is None else kind.name.lower() for kind in kinds}
            dtype = FLOATS.get(min(words), torch.float32) if len(words) == 1 else torch.float32
            self.tensors[name] = Entry(name, dtype, shape, first.path, 0, dtype.itemsize * prod(shape))
            if len(words) == 1 and words <= LAYOUTS.keys():
                held[name] = Held(named(words.pop()))
        self.stored, self.quantized = stored, held

    @property
    def size(self) -> int:  # type: ignore[override]
        """Bytes of all tensors as the file holds them."""
        return sum(tensor.size for tensor in self.gguf.tensors)

    def divide(self, name: str, parts: Any) -> None:
        super().divide(name, parts)
        if name in self.quantized:
            held = {**self.quantized}
            whole = held.pop(name)
            self.quantized = held | {part: whole for part, _ in parts}

    def step(self, name: str) -> int:
        return 1

    def parts(self, name: str, start: int = 0, stop: int | None = None) -> dict[str, torch.Tensor]:
        """The blocks of rows [start, stop) of a quantized matrix, uint8 [rows, bytes]."""
        found: torch.Tensor | None = None
        for target, at, take in self._taken(name, start, stop):
            tensor = self.stored[target.name]
            assert tensor.type is not None
            per = tensor.columns // tensor.type.weights
            first = int(take.min())
            count = int(take.max()) + 1 - first
            raw = torch.from_numpy(self.gguf.raw(tensor, first * per, count * per).reshape(count, -1))
            if found is None:
                found = torch.empty(self._count(name, start, stop), raw.shape[1], dtype=torch.uint8)
            found[torch.from_numpy(at)] = raw[torch.from_numpy(take - first)]
        assert found is not None
        return {"blocks": found}

    def qtensor(self, name: str, start: int = 0, stop: int | None = None) -> QTensor:
        return unpack(self.parts(name, start, stop)["blocks"], self.quantized[name].format.name)

    def by_library(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        from gguf import GGMLQuantizationType, quants

        raw, kind = self.parts(name, start, stop)["blocks"], self.quantized[name].format.name.upper()
        decoded: torch.Tensor = torch.from_numpy(quants.dequantize(raw.numpy(), GGMLQuantizationType[kind]))
        return decoded

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        entry = self.entry(name)
        if name in self.quantized:
            found: torch.Tensor = self.qtensor(name, start, stop).decode()
            return found.reshape(-1, *entry.shape[1:])
        if len(entry.shape) < 2:
            target, piece = self.places[name][0]
            values = rows(self.gguf, self.stored[target.name], 0, 1)[0]
            order = torch.from_numpy(piece.places(0, len(values)))
            return (values[order] - target.shift)[start:stop].to(entry.dtype)
        found = torch.empty(self._count(name, start, stop), entry.shape[-1])
        for target, at, take in self._taken(name, start, stop):
            first = int(take.min())
            read = rows(self.gguf, self.stored[target.name], first, int(take.max()) + 1)
            found[torch.from_numpy(at)] = read[torch.from_numpy(take - first)] - target.shift
        return found.reshape(-1, *entry.shape[1:]).to(entry.dtype)

    def read_entry(self, entry: Entry, start: int = 0, stop: int | None = None) -> torch.Tensor:
        return self.read(entry.name, start, stop)

    def _count(self, name: str, start: int, stop: int | None) -> int:
        """Rows, over all axes but the last, of runs [start, stop) along the first."""
        shape = self.entry(name).shape
        return len(range(shape[0])[start:stop]) * prod(shape[1:-1])

    def _taken(self, name: str, start: int, stop: int | None) -> list[tuple[Target, Any, Any]]:
        """Where runs [start, stop) of a tensor lie: of each tensor of the file the rows of the answer, and its own."""
        entry = self.entry(name)
        whole = entry.part_of or entry
        base, inner = entry.offset // (entry.dtype.itemsize * entry.shape[-1]), prod(entry.shape[1:-1])
        begin = base + start * inner
        found = []
        for target, piece in self.places[whole.name]:
            places = piece.places(begin, begin + self._count(name, start, stop))
            at = np.flatnonzero(places >= 0)
            if len(at):
                found.append((target, at, places[at]))
        if not found:
            raise FileError("holds no such rows", where=f"{self.folder}: {name}", fix=gguf.AGAIN)
        return found

    def round_inputs(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return x
