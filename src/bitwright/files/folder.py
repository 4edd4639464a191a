"""A model folder, float or in any container, read as float tensors under their original names."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from bitwright.core.array import float32
from bitwright.errors import CertificationError, ModelError, TensorError
from bitwright.files import gguf
from bitwright.files.container import TensorContainer
from bitwright.files.containers import registry
from bitwright.files.containers.gguf.config import config_of
from bitwright.files.plain import parse, read_text, why
from bitwright.files.safetensors import INDEX, SINGLE, Checkpoint


def read_config(folder: Path) -> dict[str, Any]:
    """config.json as a table, or what a GGUF file says instead; ModelError where it is absent or not JSON."""
    if gguf.is_gguf(folder):
        return config_of(gguf.read(folder))
    path = folder / "config.json"
    if not folder.is_dir():
        Checkpoint(folder)  # raises, naming the nearest folder
    _require_files(folder)
    if not path.is_file():
        fix = gguf.hint(folder) or "Give a Hugging Face model folder"
        raise ModelError("not a model: no config.json", where=str(folder), fix=fix)
    try:
        config = parse(read_text(path))
    except (OSError, ValueError) as error:
        what = f"config.json cannot be read ({why(error)})"
        raise ModelError(what, where=str(path), fix="Download it again") from error
    if not isinstance(config, dict):
        raise ModelError("config.json is not a table", where=str(path), fix="Download it again")
    return config


def _require_files(folder: Path) -> None:
    """ModelError where a pipe, a device or a link to nothing lies in a model's folder: libraries would wait for it."""
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(".") and not path.is_file() and not path.is_dir():
            what = "a link to nothing" if path.is_symlink() and not path.exists() else "not a regular file"
            raise ModelError(what, where=str(path), fix="Remove it, or download the file again")
        if path.name == "generation_config.json":  # copied into the output, which then could not be loaded
            try:
                parse(read_text(path))
            except (OSError, ValueError) as error:
                what = f"cannot be read ({why(error)})"
                raise ModelError(what, where=str(path), fix="Remove it, or download it again") from error


ADAPTER = "adapter_config.json"
"""What makes transformers load more than the model's own weights."""


def open_checkpoint(folder: Path) -> Checkpoint:
    """The folder's tensors: a plain `Checkpoint`, or a `QuantizedCheckpoint` where a container claims it.

    Raises ModelError where transformers would load something else, or where that is open.
    """
    config = read_config(folder)
    if (folder / ADAPTER).is_file():
        raise ModelError(
            "an adapter lies beside the model: transformers loads both, Bitwright would drop it",
            where=str(folder / ADAPTER),
            fix="Merge it into the weights first (peft: merge_and_unload), or move its files out of the folder",
            foreign=True,
        )
    if config.get("transformers_weights") is not None:
        raise ModelError(
            f"transformers_weights names {config['transformers_weights']!r} as the weights, which is not followed",
            where=str(folder / "config.json"),
            fix=f"Give a folder whose weights are {SINGLE}, or shards with {INDEX}",
            foreign=True,
        )
    inner = [key for key, table in config.items() if isinstance(table, dict) and table.get("quantization_config")]
    if inner:
        raise ModelError(
            f"quantization_config stands in {inner[0]}, where readers disagree about it",
            where=str(folder / "config.json"),
            fix="Give the float model, or move it to the top of config.json where the weights are quantized",
            foreign=True,
        )
    quantization = config.get("quantization_config")
    if quantization is not None and not isinstance(quantization, dict):
        raise ModelError(
            "quantization_config is not a table", where=str(folder / "config.json"), fix="Download it again"
        )
    container = container_of(config)
    if container is not None:
        return container.open(folder, config)
    if quantization:
        names = ", ".join(container.name for container in registry.all() if isinstance(container, TensorContainer))
        missing = "".join(f"; {fault.what}" for fault in registry.faults().values())
        raise ModelError(
            f"quantized with {quantization.get('quant_method')!r}, which Bitwright does not read{missing}",
            where=str(folder),
            fix=f"Supported: {names}",
            foreign=True,
        )
    return Checkpoint(folder)


def container_of(config: dict[str, Any]) -> TensorContainer | None:
    """The container that a folder with this config.json is in; None for float weights, or what is not known."""
    known = (container for container in registry.all() if isinstance(container, TensorContainer))
    return next((container for container in known if container.claims(config)), None)


def sync(files: Iterable[Path]) -> None:
    """Have the disk hold what was written to these files."""
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())


def write_config(source: Path, out: Path, changes: dict[str, Any]) -> None:
    """config.json of an output: the source's with `changes`."""
    config = read_config(source)
    if source.is_file():
        del config["quantization_config"]
    config |= changes
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")


@contextmanager
def without_bars() -> Iterator[None]:
    """No bars on stderr meanwhile: compressed-tensors draws them until a model first runs, and has no switch."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    kept = tqdm.__init__

    def quiet(self: Any, *args: Any, **options: Any) -> None:
        kept(self, *args, **options | {"disable": True})

    tqdm.__init__ = quiet
    try:
        yield
    finally:
        tqdm.__init__ = kept


def network_of(config: Any) -> Any:
    """The class of transformers that builds or loads what `config` describes: language alone, or images and text."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    language = type(config) in AutoModelForCausalLM._model_mapping
    images = type(config) in AutoModelForImageTextToText._model_mapping
    return AutoModelForImageTextToText if images and not language else AutoModelForCausalLM


def load_in_transformers(folder: Path, weights: dict[str, torch.Tensor] | None = None, **options: Any) -> Any:
    """The folder as a user loads it, in float32 and without running its code; CertificationError where that fails.

    `weights` are float tensors under the files' names, where transformers cannot read them itself.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        network = network_of(config)
        if weights is not None:
            del config.quantization_config
            options |= {"config": config, "state_dict": weights}
        chosen = network if weights is None else network._model_mapping[type(config)]  # it chooses by a folder's name
        model, found = chosen.from_pretrained(
            folder if weights is None else None,
            dtype=torch.float32, local_files_only=True, trust_remote_code=False, output_loading_info=True,
            experts_implementation="eager",  # as ours: sums in another order flip routers' near ties
            **options,
        )  # fmt: skip
    except (AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CertificationError(
            f"transformers {version('transformers')} cannot load the folder "
            f"({type(error).__name__}: {str(error).splitlines()[0]})",
            where=str(folder),
            fix="The bytes are right, and this release does not load such a network packed: try another release of "
            "transformers or compressed-tensors, or --to float to study it",
        ) from error
    if missing := found["missing_keys"] and found["missing_keys"] - _computed(network, config):
        first = min(missing)
        layer = first.removesuffix(".weight").rpartition(".")[2]
        raise CertificationError(
            f"transformers {version('transformers')} does not find {len(missing)} of its weights, first "
            f"{first}, and draws them at random",
            where=str(folder),
            fix=f'Leave them float with a rule of the recipe: match = "*{layer}", format = "float"',
        )
    return model.eval()


def _computed(network: Any, config: Any) -> set[str]:
    """Buffers that no file holds, and that the network computes: what quantizes an embedding loses sight of that."""
    with torch.device("meta"):
        model = network.from_config(config, trust_remote_code=False)
    return {name for name, _ in model.named_non_persistent_buffers()}


LARGEST = 2.0**64
"""Weights from here on overflow float32 when they are squared: no norm, second moment or error can be computed."""


def require_finite(name: str, tensor: torch.Tensor, first_row: int = 0) -> None:
    """Raise TensorError naming the first NaN, Inf or weight of `LARGEST` in `tensor`, whose first row is `first_row`.

    `first_row` counts in `name`.
    """
    if not tensor.is_floating_point() or not tensor.numel():
        return
    values = tensor if tensor.dtype.itemsize > 1 else float32(tensor)
    low, high = (float(x) for x in torch.aminmax(values))
    if low > -LARGEST and high < LARGEST:  # neither holds where there is a NaN
        return
    bad = ~(values.abs() < LARGEST)
    index = [int(i) for i in bad.nonzero()[0]]
    value = float(values[tuple(index)])
    if index:
        index[0] += first_row
    what = "too large: squares overflow" if math.isfinite(value) else "not finite"
    count = int(bad.sum())
    raise TensorError(
        f"{count} {'value is' if count == 1 else 'values are'} {what}, first {value:.6g} at {index}",
        where=name,
        fix="Repair or download the weights again: no quantizer can encode them",
    )
