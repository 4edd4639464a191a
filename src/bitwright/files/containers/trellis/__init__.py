"""Bitwright's own container, for trellis codes: nothing else reads it. The bytes are described in `decoder`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.core import bits
from bitwright.core.format import Format
from bitwright.core.formats import named
from bitwright.core.qtensor import QTensor
from bitwright.core.trellis import Trellis
from bitwright.files.container import Place, Stored, TensorContainer, refuse
from bitwright.files.held import Module

if TYPE_CHECKING:
    import torch

    from bitwright.files.quantized import QuantizedCheckpoint
    from bitwright.files.safetensors import Spec

VERSION = 1
"""Of the layout; another is refused."""


class TrellisContainer(TensorContainer):
    """Codes of 2, 3 or 4 bits and a scale per row in safetensors files, and one line in config.json."""

    name = "trellis"
    title = "Trellis codes, which only Bitwright's own loader reads"

    def require(self, format: Format, activations: str = "none") -> None:
        if not isinstance(format.code, Trellis) or format != named(format.name):
            raise refuse(f"the trellis container does not store {format.name}", "Use --format trellis2, trellis3 or "
                         "trellis4, or another --to")  # fmt: skip
        if activations != "none":
            raise refuse("its loader does not round activations", "Leave activations alone", "layer.activations")

    def step(self, format: Format) -> int:
        return format.code.rows

    def specs(self, format: Format, place: Place) -> list[Spec]:
        import torch

        from bitwright.files.safetensors import Spec

        size = bits.packed_size(place.columns, format.bits)
        return [
            Spec(f"{place.module}.weight_trellis", torch.uint8, (place.rows, size)),
            Spec(f"{place.module}.weight_scale", torch.float16, (place.rows, 1)),
            Spec(f"{place.module}.weight_shape", torch.int64, (3,)),
        ]

    def pack(self, q: QTensor, start: int, place: Place) -> list[Stored]:
        import torch

        parts = [
            Stored(f"{place.module}.weight_trellis", bits.pack(q.codes, q.format.bits), start),
            Stored(f"{place.module}.weight_scale", q.scale.to(torch.float16), start),
        ]
        if start == 0:
            shape = torch.tensor([place.rows, place.columns, q.format.bits])
            parts.append(Stored(f"{place.module}.weight_shape", shape, 0))
        return parts

    def unpack(self, stored: Mapping[str, torch.Tensor], format: Format, place: Place) -> torch.Tensor:
        from bitwright.files.containers.trellis.reader import unpack

        parts = {name.rpartition(".")[2]: tensor for name, tensor in stored.items()}
        decoded: torch.Tensor = unpack(parts, format, place.columns).decode()
        return decoded

    def config(self, modules: Sequence[Module]) -> dict[str, Any]:
        return {"quantization_config": {"quant_method": "bitwright-trellis", "version": VERSION}}

    def claims(self, config: Mapping[str, Any]) -> bool:
        found = config.get("quantization_config")
        return isinstance(found, dict) and found.get("quant_method") == "bitwright-trellis"

    def open(self, folder: Path, config: Mapping[str, Any]) -> QuantizedCheckpoint:
        from bitwright.files.containers.trellis.reader import Reader

        return Reader(folder, config["quantization_config"])

    def decoders(self) -> dict[str, str]:
        return {"the container's reference decoder": str(VERSION), "transformers": version("transformers")}

    def load(self, folder: Path, unpack: bool) -> Any:
        return load(folder)

    def usage(self, name: str, unpack: bool = False) -> dict[str, tuple[str, str]]:
        program = (
            "from bitwright.files.containers.trellis import load\n"
            "from transformers import AutoTokenizer\n\n"
            f"model = load({json.dumps(name)})\n"
            f"tokenizer = AutoTokenizer.from_pretrained({json.dumps(name)})"
        )
        return {"transformers": ("python", program)}

    def runtimes(self, modules: Sequence[Module], unpack: bool = False) -> list[str]:
        return [
            "transformers by Bitwright's own loader, which decodes to floats",
            "not vLLM, llama.cpp or transformers by itself: only Bitwright reads this container",
        ]


def load(folder: str | Path) -> Any:
    """A folder in this container as a network of transformers, its weights decoded to float32.

    What is in memory is as large as the float model: this is for use and for study, no fast kernel. Raises ModelError
    and FileError where the folder is not whole, CertificationError where transformers does not take its weights.
    """
    from bitwright.files.containers.trellis.reader import load as load_folder

    return load_folder(Path(folder))


CONTAINER = TrellisContainer()
