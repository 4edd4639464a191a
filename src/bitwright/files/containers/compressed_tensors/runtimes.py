"""What loads a compressed-tensors folder, ours or anyone's, by its config.json and its matrices. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bitwright.files.containers.compressed_tensors import vllm
from bitwright.files.containers.compressed_tensors.rules import UNEVEN, installed, reads_zeros, unpacked
from bitwright.files.held import Module

UNPACKING = "CompressedTensorsConfig(dequantize=True)"


def runtimes(config: Mapping[str, Any], modules: Sequence[Module], unpack: bool) -> list[str]:
    """transformers and vLLM, each with what limits it, or why it does not load the folder.

    `unpack`: transformers can load the network's packed weights only by unpacking them.
    """
    return [_transformers(config, modules, unpack), vllm.verdict(config, modules)]


def _transformers(config: Mapping[str, Any], modules: Sequence[Module], unpack: bool) -> str:
    held = [module.held.format for module in modules if module.held]
    how = f" with {UNPACKING}" if unpacked(modules, unpack) else ""
    uneven = any(format.bits in UNEVEN for format in held)
    misread = any(format.zero is not None for format in held) and not reads_zeros(installed())
    if misread and uneven:
        return "not transformers: no release of compressed-tensors reads such zero points"
    if bare := unmarked(config, modules):
        return f"not transformers: it looks for codes of {bare[0]}, which is float and not in ignore"
    release = " before 0.18" if misread else " 0.18 or later" if uneven else ""
    return f"transformers with compressed-tensors{release}{how}{_cache(config, bool(how))}"


def _cache(config: Mapping[str, Any], unpacked: bool) -> str:
    """What transformers makes of keys and values: it rounds what it keeps, in its own dtype."""
    if not (config.get("quantization_config") or {}).get("kv_cache_scheme"):
        return ""
    return ", which leaves keys and values as they are" if unpacked else ", which rounds keys and values but packs none"


def unmarked(config: Mapping[str, Any], modules: Sequence[Module]) -> list[str]:
    """Linear layers that the config says are quantized, and that are stored in float.

    As transformers matches them: by name, by `re:` and an expression, or by class (compressed_tensors/utils/match.py
    at 0.17.1).
    """
    found = config.get("quantization_config") or {}
    targets = [target for group in (found.get("config_groups") or {}).values() for target in group.get("targets") or ()]
    floats = [m.name for m in modules if m.held is None and m.role in ("linear", "head")]
    return [name for name in floats if _meant(name, targets) and not _meant(name, found.get("ignore") or ())]


def _meant(name: str, targets: Iterable[str]) -> bool:
    return any(re.match(t[3:], name) is not None if t.startswith("re:") else t in (name, "Linear") for t in targets)
