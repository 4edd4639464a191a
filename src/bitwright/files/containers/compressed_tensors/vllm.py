"""What vLLM loads of a compressed-tensors folder, and on what: the rules of its loader, not a run of it.

Read off release 0.33.0 (pypi.org/project/vllm; below vllm/model_executor). Names, `ignore` and targets:
layers/quantization/compressed_tensors/utils.py and utils/config_utils.py. Schemes: compressed_tensors.py beside the
first, `_get_scheme_from_parts`; experts: compressed_tensors_moe/*.py. Kernels:
kernels/linear/__init__.py (`_POSSIBLE_KERNELS`) and each kernel's `can_implement`. Needs no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import gcd
from typing import Any, NamedTuple

from bitwright.files.held import Module

RELEASE = "0.33"
NVIDIA, AMD, INTEL, CPU = "NVIDIA GPUs", "AMD GPUs", "Intel GPUs", "CPUs"
TABLE = "it reads embeddings only packed, of few architectures, and none that a head shares: leave {it} float"
"""Packed where the architecture hands its quantization on to its embedding, which has no product (the class in
compressed_tensors_embedding.py, at 055e47c2)."""
FUSED = {
    ("q_proj", "k_proj", "v_proj"): "qkv_proj",
    ("query", "key", "value"): "qkv_proj",
    ("gate_proj", "up_proj"): "gate_up_proj",
    ("w1", "w3"): "gate_up_proj",
    ("c_fc_0", "c_fc_1"): "gate_up_proj",
    ("q_a_proj", "kv_a_proj_with_mqa"): "fused_qkv_a_proj",
    ("in_proj_qkv", "in_proj_z"): "in_proj_qkvz",
    ("in_proj_b", "in_proj_a"): "in_proj_ba",
}
"""Layers of one parent that become one -> its name (`packed_modules_mapping` in models/*.py)."""
ROUTERS = ("qwen3_moe", "lfm2_moe", "gemma4", "k2_horizon")
"""How the model types begin whose routers are layers like any other (`quant_config` of `gate` in models/*.py)."""
EXPERT = re.compile(r"(.*\.experts)\.(\d+)\.(\w+)")


class Unit(NamedTuple):
    """What vLLM makes one layer of: a matrix, several that it fuses, or all experts of a block."""

    name: str
    members: list[Module]
    shards: list[str]
    """The names that its scheme is looked up by where its own says nothing."""


def verdict(config: Mapping[str, Any], modules: Sequence[Module]) -> str:
    """Where vLLM loads a folder with this config.json and these weight matrices; or `not vLLM`, why, and the fix.

    `modules` are all linear layers, quantized or not, routers and what else may be one to vLLM; and embeddings
    where they are quantized.
    """
    quantization = config.get("quantization_config") or {}
    wrong: dict[str, list[str]] = {why: [] for why in _unread(quantization)}
    if tables := [module.name for module in modules if module.role == "embedding"]:
        wrong[TABLE] = tables
    where = [NVIDIA, AMD, INTEL, CPU]
    for unit in units(modules, str(config.get("model_type"))):
        found = _load(unit, quantization)
        if isinstance(found, str):
            wrong.setdefault(found, []).append(unit.name)
        else:
            where = [platform for platform in where if platform in found]
    if wrong:
        return f"not vLLM {RELEASE}: {'; '.join(_counted(why, names) for why, names in wrong.items())}"
    if not where:
        return f"not vLLM {RELEASE}: nothing runs all of these formats"
    return f"vLLM {RELEASE} on {_listed(where)}"


def _counted(why: str, names: list[str]) -> str:
    """A reason, with the first of the layers that it holds for, and how many more there are."""
    more = f" (and {len(names) - 1:,} more)" if len(names) > 1 else ""
    return why.replace("{it}", f"{names[0]}{more}") if names else why


def _listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _unread(config: Mapping[str, Any]) -> Iterator[str]:
    """What a `quantization_config` may say that vLLM refuses whatever the layers are."""
    groups = (config.get("config_groups") or {}).values()
    if any((group.get("weights") or {}).get("actorder") in ("group", "dynamic") for group in groups):
        yield "it no longer reads groups in the order of activations (actorder): quantize again without"
    if (config.get("sparsity_config") or {}).get("targets"):
        yield "it no longer reads sparse folders (sparsity_config)"
    cache = config.get("kv_cache_scheme") or {}
    if cache and (cache.get("type"), cache.get("num_bits"), cache.get("symmetric")) != ("float", 8, True):
        yield "it holds keys and values in symmetric fp8 only (kv_cache_scheme)"


def units(modules: Sequence[Module], model_type: str = "") -> list[Unit]:
    """The layers that vLLM makes of these matrices."""
    siblings: dict[str, dict[str, Module]] = {}
    experts: dict[str, dict[str, list[Module]]] = {}
    for module in modules:
        parent, _, leaf = module.name.rpartition(".")
        expert = EXPERT.fullmatch(module.name)
        if expert and module.role != "outside":
            experts.setdefault(expert[1], {}).setdefault(expert[3], []).append(module)
        elif module.role in ("linear", "head") or (module.role == "router" and model_type.startswith(ROUTERS)):
            siblings.setdefault(parent, {})[leaf] = module
    found = []
    for parent, leaves in siblings.items():
        for names, fused in FUSED.items():
            if all(name in leaves for name in names):
                shards = [f"{parent}.{name}".removeprefix(".") for name in names]
                members = [leaves.pop(name) for name in names]
                found.append(Unit(f"{parent}.{fused}".removeprefix("."), members, shards))
        found += [Unit(module.name, [module], []) for module in leaves.values()]
    for parent, kinds in experts.items():
        members = [module for held in kinds.values() for module in held]
        found.append(Unit(parent, members, [f"{parent}.0.{leaf}" for leaf in kinds]))
    return found


def _load(unit: Unit, config: Mapping[str, Any]) -> str | Sequence[str]:
    """The platforms whose kernels run a layer; or why it is not loaded, `{it}` standing for where."""
    expert = EXPERT.fullmatch(unit.members[0].name) is not None
    if len({module.words for module in unit.members}) > 1:
        return _unlike(unit, expert)
    ignore = config.get("ignore") or ()
    shards = [_matches(name, ignore) for name in unit.shards]
    whole = not expert and _matches(unit.name, ignore)
    if not whole and any(shards) and not all(shards):
        return "{it} is in ignore in part: name all of what is fused there, or nothing"
    ignored = whole or (bool(shards) and all(shards))
    scheme = None if ignored else _scheme(unit, config, expert)
    stored = unit.members[0].held
    if scheme is None:
        if stored is None:
            return (NVIDIA, AMD, INTEL, CPU)
        if ignored:
            return "{it} is quantized, and stands in ignore: take it out"
        return "{it} is quantized, and no target of config_groups means it: name it there"
    if stored is None:
        return "{it} is stored in float, and vLLM looks for codes: name it in ignore"
    weights, block = scheme.get("weights") or {}, stored.format.block
    size = weights.get("group_size") if weights.get("strategy") == "group" else weights.get("strategy")
    if (weights.get("num_bits"), size) != (stored.format.bits, block):
        return f"{{it}} is {stored.words}, and vLLM finds another scheme for it: name it in one config group"
    return _experts(unit, scheme) if expert else _dense(unit, scheme)


def _unlike(unit: Unit, expert: bool) -> str:
    """Why members in several formats are no layer, and how they become one."""
    first: dict[str, str] = {}
    for module in unit.members:
        first.setdefault(module.words, module.name.rpartition(".")[2])
    kinds = _listed([f"{leaf} in {words}" for words, leaf in first.items()])
    leaves = list(dict.fromkeys(module.name.rpartition(".")[2] for module in unit.members))
    rules = _listed([f'"*.{leaf}"' for leaf in leaves])
    fix = f"give them one format, by rules for {rules} alike"
    sizes = [m.held.format.block_size(m.columns) for m in unit.members if m.held]
    codes = {
        (m.held.format.code, m.held.format.zero is None, m.held.activations) if m.held else None for m in unit.members
    }
    if len(codes) == 1:
        fix = f"give them one group, such as --group {gcd(*sizes)}"
    return f"it fuses {'all experts of a block' if expert else _listed(leaves)}, and {{it}} has {kinds}: {fix}"


def _matches(name: str, targets: Iterable[str]) -> bool:
    """Whether a target is this name, or `re:` and an expression that it begins with."""
    return any(re.match(t[3:], name) is not None if t.startswith("re:") else t == name for t in targets)


def _scheme(unit: Unit, config: Mapping[str, Any], expert: bool) -> dict[str, Any] | None:
    """The config group that vLLM takes for a layer: by its own name, by all that it fuses, by its class."""
    schemes: dict[str, dict[str, Any]] = {}  # a target that stands in two groups means the last
    for group in (config.get("config_groups") or {}).values():
        whole = {**group, "format": group.get("format") or config.get("format")}
        schemes |= dict.fromkeys(group.get("targets") or (), whole)

    def named(name: str) -> dict[str, Any] | None:
        return next((scheme for target, scheme in schemes.items() if _matches(name, [target])), None)

    if not expert and (found := named(unit.name)) is not None:
        return found
    by_name = [named(name) for name in unit.shards]
    if by_name and all(scheme is not None for scheme in by_name):
        return by_name[0]
    kind = "ParallelLMHead" if unit.members[0].role == "head" else "Linear"
    return next((scheme for target, scheme in schemes.items() if _of_class(kind, target)), None)


def _of_class(kind: str, target: str) -> bool:
    """Whether a target is part of the names that vLLM's classes have: all linear ones end in Linear, experts count."""
    return not target.startswith("re:") and target.lower() in kind.lower()


def _dense(unit: Unit, scheme: Mapping[str, Any]) -> str | Sequence[str]:
    """Platforms with a kernel for a linear layer of this scheme, or why there is none."""
    weights, inputs, packing = scheme.get("weights") or {}, scheme.get("input_activations"), scheme.get("format")
    bits, strategy, symmetric = weights.get("num_bits"), weights.get("strategy"), weights.get("symmetric", True)
    words = unit.members[0].words
    if weights.get("type") == "float":
        if bits != 8 or strategy not in ("channel", "tensor", "block") or not symmetric:
            return f"{{it}} is {words}, and there is no kernel for it: use one scale per channel"
        return (NVIDIA, AMD, CPU) if inputs else (NVIDIA, INTEL)
    if packing == "pack-quantized" and not inputs:
        return _packed(unit, weights)
    if packing == "pack-quantized":
        return (NVIDIA,)
    if not inputs or bits != 8 or strategy not in ("channel", "tensor") or not symmetric:
        return f"{{it}} is {words} as {packing}, and there is no kernel for it: use symmetric int8 per channel"
    return (NVIDIA, AMD, INTEL, CPU)


def _packed(unit: Unit, weights: Mapping[str, Any]) -> str | Sequence[str]:
    """Platforms that multiply packed integers by float inputs (schemes/compressed_tensors_wNa16.py), or why not."""
    columns, rows = unit.members[0].columns, sum(module.rows for module in unit.members)
    bits, group = int(weights["num_bits"]), weights.get("group_size") or -1
    if why := _words_cut(unit, weights):
        return why
    found = []
    marlin = (bits == 4 or (bits == 8 and weights.get("symmetric", True))) and group in (-1, 32, 64, 128)
    # Marlin pads what its tiles do not divide; Humming takes the rest.
    if marlin or group == -1 or _nests(group):
        found.append(NVIDIA)
    if bits == 4 and rows % 8 == 0 and group in (-1, 32, 64, 128, 256, columns):
        found.append(AMD)
    if bits == 4 and columns % 32 == 0 and (group == -1 or group % 32 == 0):
        found.append(INTEL)
    if bits == 4 and columns % 32 == rows % 32 == 0 and group % 2 == (1 if group == -1 else 0):
        found.append(CPU)
    return found or f"no kernel takes groups of {group} ({{it}}): use 128, 64, 32 or 16, or whole rows"


def _words_cut(unit: Unit, weights: Mapping[str, Any]) -> str | None:
    """Why codes or zero points do not lie in words as vLLM slices them."""
    columns, bits, group = unit.members[0].columns, int(weights["num_bits"]), weights.get("group_size")
    if weights.get("strategy") not in ("channel", "group") or not 2 <= bits <= 8:
        return f"{{it}} is {unit.members[0].words}: it takes 2 to 8 bits, in groups or per channel"
    if columns * bits % 32:
        return f"the codes of {columns} inputs at {bits} bits ({{it}}) fill no whole words of 32: keep them float"
    if group and columns % group:
        return f"{columns} inputs ({{it}}) do not divide by the group of {group}: use a smaller one"
    odd = next((module.rows for module in unit.members if module.rows * bits % 32), None)
    if odd and not weights.get("symmetric", True):
        return f"the zero points of {odd} outputs at {bits} bits ({{it}}) fill no whole words of 32: use symmetric ones"
    return None


def _experts(unit: Unit, scheme: Mapping[str, Any]) -> str | Sequence[str]:
    """NVIDIA GPUs, of which alone the rules for fused experts were read; or why there is no kernel."""
    weights, inputs, packing = scheme.get("weights") or {}, scheme.get("input_activations"), scheme.get("format")
    bits, symmetric, words = weights.get("num_bits"), weights.get("symmetric", True), unit.members[0].words
    channel = weights.get("strategy") == "channel"
    if weights.get("type") == "float" or inputs:
        fitting = bits == 8 and symmetric and inputs and weights.get("strategy") in ("channel", "tensor", "block")
        return (NVIDIA,) if fitting else f"experts as {words} ({{it}}) have no kernel: use int4, int8 or fp8 with fp8"
    if packing != "pack-quantized":
        return f"experts are taken in 2 to 8 packed bits, and {{it}} is {words} as {packing}"
    for module in unit.members:
        if why := _words_cut(Unit(unit.name, [module], []), weights):
            return why
    group = weights.get("group_size") or -1
    if group != -1 and not _nests(group):
        return f"no kernel takes groups of {group} ({{it}}): use 128, 64, 32 or 16"
    down = ("down_proj", "w2")
    hidden = next((m.columns for m in unit.members if m.name.rpartition(".")[2] not in down), 0)
    marlin = bits == 4 or (bits == 8 and symmetric)
    if channel and not (marlin and hidden % 128 == 0):
        return f"experts of {hidden} inputs as {words} ({{it}}) have no kernel: use groups"
    return (NVIDIA,)


def _nests(group: int) -> bool:
    """Whether a group lies in the blocks of Humming's kernels, or they in it: powers of two, from 16 on."""
    return group >= 16 and group & (group - 1) == 0
