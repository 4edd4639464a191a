"""Where the layers of a network are kept until all are solved: one small file each, so that work can go on."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.core.formats import named
from bitwright.core.observe import Affine
from bitwright.core.qtensor import QTensor
from bitwright.files.layers import Placement
from bitwright.models.model import Item, Outcome, Plan, Sink


class LayerSink(Sink):
    """Codes, scales and biases below `folder`, by layer; `weights` and `biases` are those of this run,

    `placement` and `affines` where and how activations are rounded in it."""

    def __init__(self, plan: Plan, folder: Path, final_bytes: int) -> None:
        self.plan, self.folder, self._final = plan, folder, final_bytes
        self.placement = Placement("", ())
        self.affines: Mapping[str, Affine] = {}
        self.weights: dict[str, QTensor] = {}
        self.biases: dict[str, npt.NDArray[np.float32]] = {}

    @property
    def final_bytes(self) -> int:
        return self._final

    def create(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """The file of a layer."""
        return self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.npz"

    def write(self, item: Item, packed: Outcome, sums: dict[str, int]) -> None:
        q = packed.q
        # Training may give a layer another width than it was asked for.
        arrays: dict[str, Any] = {
            "format": np.asarray(q.format.name),
            "codes": np.asarray(q.codes),
            "scale": np.asarray(q.scale),
        }
        arrays |= packed.extras
        if q.zero is not None:
            arrays["zero"] = np.asarray(q.zero)
        path = self.path(item.name)
        with path.open("wb") as file:
            np.savez(file, **arrays)
        sums[path.name] = zlib.crc32(path.read_bytes())
        self.keep(item, q, packed.extras.get("bias"))

    def read(self, item: Item) -> tuple[QTensor, npt.NDArray[np.float32] | None]:
        """What an earlier run made of a layer: its weight and its bias."""
        asked = item.format
        with np.load(self.path(item.name), allow_pickle=False) as kept:
            zero, bias = kept.get("zero"), kept.get("bias")
            name, codes, scale = str(kept["format"]), kept["codes"], kept["scale"]
        q = QTensor(named(name, group=asked.block, symmetric=zero is None, scale=asked.scale.type), codes, scale, zero)
        self.keep(item, q, bias)
        return q, bias

    def keep(self, item: Item, q: QTensor, bias: npt.NDArray[np.float32] | None) -> None:
        """Take a layer up into what the network is written from."""
        self.weights[item.part.weight] = q
        if bias is not None:
            self.biases[item.name] = bias

    def intact(self, sums: Mapping[str, int]) -> bool:
        return all(
            (self.folder / name).is_file() and zlib.crc32((self.folder / name).read_bytes()) == crc
            for name, crc in sums.items()
        )
