"""compressed-tensors: what transformers and vLLM load as it stands. The bytes are `layout`'s, `reader` reads them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitwright.core.format import Format
from bitwright.core.measure import Usage
from bitwright.core.qtensor import QTensor
from bitwright.files.container import Place, Stored, TensorContainer
from bitwright.files.containers.compressed_tensors.rules import (
    GROUPS,
    installed,
    packed,
    reads_zeros,
    require,
    require_cache,
    require_table,
    require_together,
    unpacked,
)
from bitwright.files.containers.compressed_tensors.runtimes import UNPACKING, runtimes
from bitwright.files.held import Held, Module
from bitwright.files.usage import in_transformers, in_vllm

if TYPE_CHECKING:
    import torch

    from bitwright.files.containers.compressed_tensors.layout import Scheme
    from bitwright.files.quantized import QuantizedCheckpoint
    from bitwright.files.safetensors import Spec


class CompressedTensors(TensorContainer):
    """Packed integers and FP8 in safetensors files, described in config.json."""

    name = "compressed-tensors"
    title = "compressed-tensors, for transformers and vLLM"
    groups = GROUPS
    ladder = ("int4", "int8")
    unpacking = UNPACKING

    def require(self, format: Format, activations: str = "none") -> None:
        require(format, activations)

    def step(self, format: Format) -> int:
        from bitwright.files.containers.compressed_tensors.layout import Scheme

        return Scheme(format).rows_per_word

    def require_table(self, format: Format) -> None:
        require_table(format)

    def together(self, modules: Sequence[Module]) -> list[list[str]]:
        from bitwright.files.containers.compressed_tensors.vllm import units

        return [[member.name for member in unit.members] for unit in units(modules)]

    def require_together(self, modules: Sequence[Module], network: bool) -> None:
        require_together(modules, network)
        if self.cache is not None:
            require_cache(self.cache, modules, network)

    def unpacks(self, modules: Sequence[Module], network: bool) -> bool:
        return unpacked(modules, network) is not None

    def specs(self, format: Format, place: Place) -> list[Spec]:
        specs = _scheme(format, place).specs(place.module, place.rows, place.columns)
        scale = next(spec for spec in specs if spec.name.endswith(".weight_scale"))
        return [*specs, *(replace(scale, name=name) for name in _scales(format, place))]

    def pack(self, q: QTensor, start: int, place: Place) -> list[Stored]:
        parts = _scheme(q.format, place).pack(place.module, q, place.rows, start)
        scale = next(part for part in parts if part.name.endswith(".weight_scale"))
        return [*parts, *(scale._replace(name=name) for name in _scales(q.format, place))]

    def unpack(self, stored: Mapping[str, torch.Tensor], format: Format, place: Place) -> torch.Tensor:
        from bitwright.files.containers.compressed_tensors.layout import unpack

        parts = {name.rpartition(".")[2]: tensor for name, tensor in stored.items()}
        decoded: torch.Tensor = unpack(parts, _scheme(format, place)).decode()
        return decoded

    def cached(self, format: str, network: Any, heads: bool = True) -> CompressedTensors:
        from bitwright.files.containers.compressed_tensors.cache import find

        found = CompressedTensors()
        found.cache = find(format, network, heads)
        return found

    def round_cache(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        from bitwright.files.containers.compressed_tensors.cache import describe, round_kept

        assert self.cache is not None
        return round_kept(x, scale, describe(self.cache.format, self.cache.heads))

    def config(self, modules: Sequence[Module]) -> dict[str, Any]:
        from bitwright.files.containers.compressed_tensors.layout import Scheme, quantization_config

        schemes: dict[Scheme, list[str]] = {}
        for module in modules:
            if module.held:
                scheme = Scheme.of(module.held, module.role == "embedding")
                schemes.setdefault(scheme, []).append(module.target)
        floats = [module.target for module in modules if not module.held]
        found = quantization_config(schemes, floats, version("compressed-tensors"))
        if self.cache is not None:
            from bitwright.files.containers.compressed_tensors.cache import SCHEME, describe

            found[SCHEME] = describe(self.cache.format, self.cache.heads)
        return {"quantization_config": found}

    def claims(self, config: Mapping[str, Any]) -> bool:
        found = config.get("quantization_config")
        return isinstance(found, dict) and found.get("quant_method") == self.name

    def open(self, folder: Path, config: Mapping[str, Any]) -> QuantizedCheckpoint:
        from bitwright.files.containers.compressed_tensors.reader import Reader

        return Reader(folder, config["quantization_config"])

    def decoders(self) -> dict[str, str]:
        return {self.name: version(self.name), "transformers": version("transformers")}

    def load(self, folder: Path, unpack: bool) -> Any | None:
        from bitwright.files.folder import load_in_transformers

        if not reads_zeros(installed()) and not _symmetric(folder):
            return None
        if not unpack:
            return load_in_transformers(folder)
        from transformers import CompressedTensorsConfig

        with warnings.catch_warnings():
            # "You passed quantization_config, but the model has one": that is how `dequantize` is asked for.
            warnings.simplefilter("ignore", UserWarning)
            return load_in_transformers(folder, quantization_config=CompressedTensorsConfig(dequantize=True))

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

    def round_inputs(self, x: torch.Tensor, format: Format, activations: str) -> torch.Tensor:
        from bitwright.files.containers.compressed_tensors.layout import Scheme, round_by_library

        return round_by_library(x, Scheme(format, activations))  # type: ignore[arg-type]

    def runtimes(self, modules: Sequence[Module], unpack: bool = False) -> list[str]:
        return runtimes(self.config(modules) if modules else {}, modules, unpack)


def _scheme(format: Format, place: Place) -> Scheme:
    from bitwright.files.containers.compressed_tensors.layout import Scheme

    return Scheme.of(Held(format, place.activations), place.lookup)


def _scales(format: Format, place: Place) -> list[str]:
    """The scales that are stored again for modules which share an embedding's codes: transformers ties the codes alone.

    Packed ones are decoded before anything is tied.
    """
    again = () if packed(Held(format, place.activations), place.lookup) else place.shared
    return [f"{module}.weight_scale" for module in again]


def _symmetric(folder: Path) -> bool:
    """Whether nothing in a folder has zero points."""
    config = json.loads((folder / "config.json").read_text("utf-8"))["quantization_config"]
    return all(group["weights"]["symmetric"] for group in config["config_groups"].values())


CONTAINER = CompressedTensors()
