"""A model folder or GGUF file as a user loads it in transformers, float or in any container."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bitwright.errors import CertificationError, ModelError
from bitwright.files.folder import container_of, load_in_transformers, read_config, without_bars
from bitwright.files.quantized import QuantizedCheckpoint
from bitwright.models.language.arch import Architecture
from bitwright.models.language.modules import modules


def load(path: Path) -> Any:
    """The network in float32. Raises ModelError where transformers does not read it, and what opening it raises."""
    try:
        with without_bars():
            return _load(path)
    except CertificationError as error:
        fix = "Try another release of transformers, or the runtime that it was written for"
        raise ModelError(error.what, where=error.where, fix=fix) from error


def _load(path: Path) -> Any:
    container = container_of(read_config(path))
    if container is None:
        return load_in_transformers(path)
    arch = Architecture.open(path)
    held = arch.checkpoint.quantized if isinstance(arch.checkpoint, QuantizedCheckpoint) else {}
    unpack = container.unpacks(modules(arch, held), arch.unpacks)
    model = container.load(path, unpack)
    if model is None:
        what = f"nothing at hand runs it: {container.unread}"
        raise ModelError(what, where=str(path), fix="Install a runtime that reads it")
    return model.float() if unpack else model
