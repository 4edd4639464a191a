"""GGUF: one file that llama.cpp, and all that is built on it, loads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.core.format import Format
from bitwright.core.formats import named
from bitwright.core.qtensor import QTensor
from bitwright.files.container import Place, Stored, TensorContainer, refuse
from bitwright.files.gguf import ENDING, MARK, TYPES
from bitwright.files.held import Module

if TYPE_CHECKING:
    import torch

    from bitwright.files.quantized import QuantizedCheckpoint
    from bitwright.files.safetensors import Spec

BLOCKS = {kind.name.lower(): kind for kind in TYPES.values()}
"""Types by the names that formats have."""


class GgufContainer(TensorContainer):
    """Rows of blocks, each with its scales; where a tensor of the file comes from, `files.gguf.names` says."""

    name = "gguf"
    title = "GGUF for llama.cpp and what is built on it"
    ending = ENDING
    ladder = ("q2_k", "q3_k", "q4_k", "q4_0", "q4_1", "q5_k", "q5_0", "q5_1", "q6_k", "q8_0")

    def require(self, format: Format, activations: str = "none") -> None:
        from bitwright.files.containers.gguf.blocks import LAYOUTS

        if format.name not in LAYOUTS or format != named(format.name):
            raise refuse(f"GGUF does not store {format.name}", f"Choose one of: {', '.join(LAYOUTS)}; or --type q4_k_m")
        if activations != "none":
            raise refuse("its runtimes round activations as they see fit", "Leave activations alone",
                         "layer.activations")  # fmt: skip

    def require_table(self, format: Format) -> None:
        self.require(format)

    def specs(self, format: Format, place: Place) -> list[Spec]:
        import torch

        from bitwright.files.safetensors import Spec

        kind = BLOCKS[format.name]
        return [Spec(place.module, torch.uint8, (place.rows, place.columns // kind.weights * kind.size))]

    def pack(self, q: QTensor, start: int, place: Place) -> list[Stored]:
        from bitwright.files.containers.gguf.blocks import pack

        return [Stored(place.module, pack(q), start)]

    def unpack(self, stored: Mapping[str, torch.Tensor], format: Format, place: Place) -> torch.Tensor:
        from bitwright.files.containers.gguf.blocks import unpack

        decoded: torch.Tensor = unpack(stored[place.module], format.name).decode()
        return decoded

    def config(self, modules: Sequence[Module]) -> dict[str, Any]:
        return MARK

    def claims(self, config: Mapping[str, Any]) -> bool:
        return config.get("quantization_config") == MARK["quantization_config"]

    def open(self, folder: Path, config: Mapping[str, Any]) -> QuantizedCheckpoint:
        from bitwright.files.containers.gguf.checkpoint import GgufCheckpoint, file_in, shapes_of

        return GgufCheckpoint(file_in(folder), config, shapes_of(config))

    def load(self, folder: Path, unpack: bool) -> Any | None:
        from bitwright.files.containers.gguf.loading import load

        return load(folder)

    @property
    def unread(self) -> str:
        return "transformers does not read GGUF files of this architecture"

    def decoders(self) -> dict[str, str]:
        return {"gguf-py": version("gguf"), "transformers": version("transformers")}

    def runtimes(self, modules: Sequence[Module], unpack: bool = False) -> list[str]:
        return ["llama.cpp, and what is built on it (Ollama, LM Studio, llama-cpp-python)"]

    def usage(self, name: str, unpack: bool = False) -> dict[str, tuple[str, str]]:
        return {
            "llama.cpp": ("bash", f"llama-cli -m {json.dumps(name)} -p 'Hello'"),
            "llama-cpp-python": (
                "python",
                f"from llama_cpp import Llama\n\nprint(Llama({json.dumps(name)})('Hello')['choices'][0]['text'])",
            ),
        }


CONTAINER = GgufContainer()
