"""compressed-tensors: what transformers and vLLM load as it stands. The bytes are `layout`'s, `reader` reads them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.core.format import Format
from bitwright.core.measure import Usage
from bitwright.core.qtensor import QTensor
from bitwright.files.container import Place, Stored, TensorContainer
from bitwright.files.containers.compressed_tensors.rules import GROUPS, installed, reads_zeros, require
from bitwright.files.containers.compressed_tensors.runtimes import UNPACKING, runtimes
from bitwright.files.held import Module
from bitwright.files.usage import in_transformers, in_vllm

if TYPE_CHECKING:
    import torch

    from bitwright.files.quantized import QuantizedCheckpoint
    from bitwright.files.safetensors import Spec


class CompressedTensors(TensorContainer):
    """Packed integers and FP8 in safetensors files, described in config.json."""

    name = "compressed-tensors"
    title = "compressed-tensors, for transformers and vLLM"
    groups = GROUPS
    unpacking = UNPACKING

    def require(self, format: Format, activations: str = "none") -> None:
        require(format, activations)

    def step(self, format: Format) -> int:
        from bitwright.files.containers.compressed_tensors.layout import Scheme

        return Scheme(format).rows_per_word

    def specs(self, format: Format, place: Place) -> list[Spec]:
        from bitwright.files.containers.compressed_tensors.layout import Scheme

        scheme = Scheme(format, place.activations)  # type: ignore[arg-type]
        return scheme.specs(place.module, place.rows, place.columns)

    def pack(self, q: QTensor, start: int, place: Place) -> list[Stored]:
        from bitwright.files.containers.compressed_tensors.layout import Scheme

        return Scheme(q.format, place.activations).pack(place.module, q, place.rows, start)  # type: ignore[arg-type]

    def unpack(self, stored: Mapping[str, torch.Tensor], format: Format, place: Place) -> torch.Tensor:
        from bitwright.files.containers.compressed_tensors.layout import Scheme, unpack

        parts = {name.rpartition(".")[2]: tensor for name, tensor in stored.items()}
        decoded: torch.Tensor = unpack(parts, Scheme(format, place.activations)).decode()  # type: ignore[arg-type]
        return decoded

    def config(self, groups: Mapping[tuple[Format, str], list[str]], floats: Iterable[str]) -> dict[str, Any]:
        from bitwright.files.containers.compressed_tensors.layout import Scheme, quantization_config

        schemes = {Scheme(*key): modules for key, modules in groups.items()}  # type: ignore[arg-type]
        return {"quantization_config": quantization_config(schemes, floats, version("compressed-tensors"))}

    def claims(self, config: Mapping[str, Any]) -> bool:
        found = config.get("quantization_config")
        return isinstance(found, dict) and found.get("quant_method") == self.name

    def open(self, folder: Path, config: Mapping[str, Any]) -> QuantizedCheckpoint:
        from bitwright.files.containers.compressed_tensors.reader import Reader

        return Reader(folder, config["quantization_config"])

    def decoders(self) -> dict[str, str]:
        return {self.name: version(self.name), "transformers": version("transformers")}

    def load(self, folder: Path, unpack: bool) -> tuple[Any, bool] | None:
        from bitwright.files.folder import load_in_transformers

        if not reads_zeros(installed()) and not _symmetric(folder):
            return None
        if not unpack:
            return load_in_transformers(folder), False
        from transformers import CompressedTensorsConfig

        with warnings.catch_warnings():
            # "You passed quantization_config, but the model has one": that is how `dequantize` is asked for.
            warnings.simplefilter("ignore", UserWarning)
            return load_in_transformers(folder, quantization_config=CompressedTensorsConfig(dequantize=True)), True

    @property
    def unread(self) -> str:
        return f"transformers misreads zero points with {self.name} {installed()}"

    def keep_inputs(self, model: Any) -> None:
        from compressed_tensors.quantization import disable_quantization

        model.apply(disable_quantization)

    def usage(self, name: str, unpack: bool = False) -> dict[str, tuple[str, str]]:
        config = "from transformers import CompressedTensorsConfig\n" if unpack else ""
        options = {"quantization_config": UNPACKING} if unpack else {}
        return {"transformers": ("python", config + in_transformers(name, options)), "vLLM": in_vllm(name)}

    def count_inputs(self, x: torch.Tensor, format: Format, activations: str) -> Usage:
        from bitwright.files.containers.compressed_tensors.layout import Scheme, count_inputs

        return count_inputs(x, Scheme(format, activations))  # type: ignore[arg-type]

    def runtimes(self, modules: Sequence[Module], unpack: bool = False) -> list[str]:
        groups: dict[tuple[Format, str], list[str]] = {}
        for module in modules:
            if module.held:
                groups.setdefault((module.held.format, module.held.activations), []).append(module.target)
        config = self.config(groups, [module.target for module in modules if not module.held]) if modules else {}
        return runtimes(config, modules, unpack)


def _symmetric(folder: Path) -> bool:
    """Whether nothing in a folder has zero points."""
    config = json.loads((folder / "config.json").read_text("utf-8"))["quantization_config"]
    return all(group["weights"]["symmetric"] for group in config["config_groups"].values())


CONTAINER = CompressedTensors()
