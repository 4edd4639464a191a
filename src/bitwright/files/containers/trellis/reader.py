"""Reads folders of the trellis container, tensor by tensor or as a network of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bitwright.core import bits
from bitwright.core.array import float32
from bitwright.core.format import Format
from bitwright.core.formats import named, names
from bitwright.core.qtensor import QTensor
from bitwright.errors import FileError, ModelError
from bitwright.files.containers.trellis import VERSION, decoder
from bitwright.files.folder import load_in_transformers, open_checkpoint
from bitwright.files.held import Held
from bitwright.files.quantized import QuantizedCheckpoint
from bitwright.files.safetensors import Entry

PARTS = ("weight_trellis", "weight_scale", "weight_shape")


class Reader(QuantizedCheckpoint):
    """Matrices appear as one float32 tensor each, decoded when read."""

    library = "the container's reference decoder"

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        """Open `folder` under its `quantization_config`; FileError or ModelError where they disagree."""
        super().__init__(folder)
        if config.get("version") != VERSION:
            raise ModelError(
                f"version {config.get('version')!r} of the trellis container, and {VERSION} is read here",
                where=str(folder),
                fix="Install the release of Bitwright that wrote it, or quantize again",
                foreign=True,
            )
        self.stored = dict(self.tensors)
        self.quantized: dict[str, Held] = {}
        found = {name.rpartition(".")[0] for name in self.stored if name.rpartition(".")[2] in PARTS}
        for module in sorted(found):
            self._adopt(module)

    def _adopt(self, module: str) -> None:
        where, fix = f"{self.folder}: {module}", "The file is incomplete or damaged: write it again"
        parts = {part: self.tensors.pop(f"{module}.{part}", None) for part in PARTS}
        codes, scale, shape = parts.values()
        if codes is None or scale is None or shape is None:
            missing = next(part for part, entry in parts.items() if entry is None)
            raise FileError(f"no {missing} beside its other parts", where=where, fix=fix)
        numbers = [int(n) for n in self.read_entry(shape).reshape(-1)] if shape.shape == (3,) else []
        rows, columns, width = numbers or (0, 0, 0)
        if f"trellis{width}" not in names() or rows < 1 or columns < 1:
            raise FileError(f"weight_shape is {numbers}, not rows, columns and 2 to 4 bits", where=where, fix=fix)
        expected: tuple[tuple[Entry, torch.dtype, tuple[int, ...]], ...] = (
            (codes, torch.uint8, (rows, bits.packed_size(columns, width))),
            (scale, torch.float16, (rows, 1)),
            (shape, torch.int64, (3,)),
        )
        for entry, dtype, wanted in expected:
            if (entry.dtype, entry.shape) != (dtype, wanted):
                told = f"{list(wanted)} {str(dtype).removeprefix('torch.')}"
                raise FileError(f"{entry.name.rpartition('.')[2]} is {list(entry.shape)} of {entry.dtype}, not {told}",
                                where=where, fix=fix)  # fmt: skip
        name = f"{module}.weight"
        self.tensors[name] = replace(
            codes, name=name, dtype=torch.float32, shape=(rows, columns), size=4 * rows * columns, offset=-1
        )
        self.quantized[name] = Held(named(f"trellis{width}"))

    def step(self, name: str) -> int:
        return self.quantized[name].format.code.rows

    def parts(self, name: str, start: int = 0, stop: int | None = None) -> dict[str, torch.Tensor]:
        """Codes and scales of rows [start, stop) of a matrix, and its whole shape."""
        codes, scale, shape = (self.stored[f"{name.removesuffix('.weight')}.{part}"] for part in PARTS)
        read = (self.read_entry(codes, start, stop), self.read_entry(scale, start, stop), self.read_entry(shape))
        return dict(zip(PARTS, read, strict=True))

    def qtensor(self, name: str, start: int = 0, stop: int | None = None) -> QTensor:
        return unpack(self.parts(name, start, stop), self.quantized[name].format, self.tensors[name].shape[1])

    def by_library(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        codes, scale, shape = (part.numpy() for part in self.parts(name, start, stop).values())
        return torch.from_numpy(decoder.decode(codes, scale, int(shape[1]), int(shape[2])))

    def round_inputs(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return x


def unpack(parts: Mapping[str, torch.Tensor], format: Format, columns: int) -> QTensor:
    """Rows of a matrix as codes and scales."""
    codes = bits.unpack(parts["weight_trellis"], format.bits, columns)
    return QTensor(format, codes, float32(parts["weight_scale"]))


def load(folder: Path) -> Any:
    """See `bitwright.files.containers.trellis.load`."""
    from transformers import GenerationConfig

    checkpoint = open_checkpoint(folder)
    if not isinstance(checkpoint, Reader):
        raise ModelError("not in the trellis container", where=str(folder), fix="Load it with transformers alone")
    model = load_in_transformers(folder, {name: checkpoint.read(name) for name in checkpoint.tensors})
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model
