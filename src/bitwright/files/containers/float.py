"""Decoded float weights in the model's own dtype: any format can be studied, and nothing gets smaller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.core.format import Format
from bitwright.core.qtensor import QTensor
from bitwright.files.container import Place, Stored, TensorContainer, refuse
from bitwright.files.held import Module
from bitwright.files.usage import in_transformers, in_vllm

if TYPE_CHECKING:
    import torch

    from bitwright.files.safetensors import Spec


class Float(TensorContainer):
    """Writes what the codes decode to, each matrix under its own name and in its own shape."""

    name = "float"
    title = "Decoded float weights, for study"
    study = True
    ladder = ("int2", "int3", "int4", "int5", "int6", "int8")
    transposes = True
    slack = 0.05

    def require(self, format: Format, activations: str = "none") -> None:
        """Every format decodes to floats; nothing tells a runtime to round activations."""
        if activations != "none":
            raise refuse("decoded weights cannot say how activations are rounded", "Leave activations alone",
                         "layer.activations")  # fmt: skip

    def require_table(self, format: Format) -> None:
        """Every format decodes to floats."""

    def specs(self, format: Format, place: Place) -> list[Spec]:
        from bitwright.files.safetensors import Spec

        shape = (place.columns, place.rows) if place.transposed else (place.rows, place.columns)
        return [Spec(f"{place.module}.weight", place.dtype, shape)]

    def pack(self, q: QTensor, start: int, place: Place) -> list[Stored]:
        decoded = q.decode()
        value = decoded.T.contiguous() if place.transposed else decoded
        return [Stored(f"{place.module}.weight", value.to(place.dtype), start)]

    def unpack(self, stored: Mapping[str, torch.Tensor], format: Format, place: Place) -> torch.Tensor:
        return stored[f"{place.module}.weight"]

    def decoders(self) -> dict[str, str]:
        return {"transformers": version("transformers")}

    def load(self, folder: Path, unpack: bool) -> Any:
        from bitwright.files.folder import load_in_transformers

        return load_in_transformers(folder)

    def usage(self, name: str, unpack: bool = False) -> dict[str, tuple[str, str]]:
        return {"transformers": ("python", in_transformers(name)), "vLLM": in_vllm(name)}

    def runtimes(self, modules: Sequence[Module], unpack: bool = False) -> list[str]:
        return ["transformers and vLLM (float weights: a study copy, nothing gets smaller)"]


CONTAINER = Float()
