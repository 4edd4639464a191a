"""A container: a byte for each code, float32 scales, and the values of the codes in config.json."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bitwright.core import formats
from bitwright.core.format import Format
from bitwright.core.grid import Grid
from bitwright.core.qtensor import QTensor
from bitwright.files.container import Place, Stored, TensorContainer, refuse
from bitwright.files.held import Held, Module
from bitwright.files.quantized import QuantizedCheckpoint
from bitwright.files.safetensors import Spec

CODES, SCALES = "weight_codes", "weight_scales"


class PlainBytes(TensorContainer):
    """Stores any format of fixed values with one level of scales and no zero points."""

    name = "plain-bytes"
    title = "A byte for each code, for study"

    def require(self, format: Format, activations: str = "none") -> None:
        plain = isinstance(format.code, Grid) and len(format.scale.levels) == 1 and format.zero is format.shift is None
        if not plain or format.block == "tensor" or activations != "none":
            raise refuse(f"{self.name} does not store {format.name} like this", "Choose a symmetric format in groups")

    def stored(self, format: Format, recipe: Any) -> Format:
        """What it takes on disk: codes of few bits are no smaller here."""
        return formats.named("int8", group=format.block, scale="fp32")

    def specs(self, format: Format, place: Place) -> list[Spec]:
        groups = format.block_count(place.rows, place.columns) // place.rows
        return [
            Spec(f"{place.module}.{CODES}", torch.uint8, (place.rows, place.columns)),
            Spec(f"{place.module}.{SCALES}", torch.float32, (place.rows, groups)),
        ]

    def pack(self, q: QTensor, start: int, place: Place) -> list[Stored]:
        return [
            Stored(f"{place.module}.{CODES}", q.codes, start),
            Stored(f"{place.module}.{SCALES}", q.scale, start),
        ]

    def unpack(self, stored: Mapping[str, torch.Tensor], format: Format, place: Place) -> torch.Tensor:
        return QTensor(format, stored[f"{place.module}.{CODES}"], stored[f"{place.module}.{SCALES}"]).decode()

    def config(self, modules: Sequence[Module]) -> dict[str, Any]:
        named: dict[Format, list[str]] = {}
        for module in modules:
            if module.held:
                named.setdefault(module.held.format, []).append(module.target)
        kinds = [
            {"format": f.name, "group": f.block, "scale": f.scale.type, "values": f.grid.values, "modules": names}
            for f, names in named.items()
        ]
        return {"quantization_config": {"quant_method": self.name, "kinds": kinds}}

    def claims(self, config: Mapping[str, Any]) -> bool:
        return (config.get("quantization_config") or {}).get("quant_method") == self.name

    def open(self, folder: Path, config: Mapping[str, Any]) -> QuantizedCheckpoint:
        return Reader(folder, config["quantization_config"]["kinds"])

    def decoders(self) -> dict[str, str]:
        return {"NumPy": np.__version__}

    def runtimes(self, modules: Sequence[Module], unpack: bool = False) -> list[str]:
        return ["no runtime: this container is an example"]


class Reader(QuantizedCheckpoint):
    """A folder in this container, whose matrices appear as one float tensor each."""

    library = "NumPy"

    def __init__(self, folder: Path, kinds: list[dict[str, Any]]) -> None:
        super().__init__(folder)
        stored, self.quantized = self.tensors, {}
        self.tensors = dict(stored)
        self._parts = {}
        self._values = {}
        for kind in kinds:
            format = formats.named(kind["format"], group=kind["group"], scale=kind["scale"])
            for module in kind["modules"]:
                name = f"{module}.weight"
                codes, scales = (self.tensors.pop(f"{module}.{part}") for part in (CODES, SCALES))
                size = 4 * codes.count
                self.tensors[name] = replace(codes, name=name, dtype=torch.float32, size=size, offset=-1)
                self.quantized[name] = Held(format)
                self._parts[name] = {CODES: codes, SCALES: scales}
                self._values[name] = kind["values"]

    def step(self, name: str) -> int:
        return 1

    def parts(self, name: str, start: int = 0, stop: int | None = None) -> dict[str, torch.Tensor]:
        return {part: self.read_entry(entry, start, stop) for part, entry in self._parts[name].items()}

    def qtensor(self, name: str, start: int = 0, stop: int | None = None) -> QTensor:
        parts = self.parts(name, start, stop)
        return QTensor(self.quantized[name].format, parts[CODES], parts[SCALES])

    def by_library(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """By NumPy and the stored values alone: nothing here asks Bitwright what a code means."""
        parts = self.parts(name, start, stop)
        codes, scales = parts[CODES].numpy(), parts[SCALES].numpy()
        values = np.asarray(self._values[name], np.float32)[codes]
        return torch.from_numpy(values * scales.repeat(codes.shape[1] // scales.shape[1], axis=1))


CONTAINER = PlainBytes()
