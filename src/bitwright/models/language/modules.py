"""The weight matrices of a folder as runtimes meet them: linear layers, experts, routers and what lies outside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from bitwright.files.held import Held, Module, Role
from bitwright.models.language.arch import Architecture
from bitwright.models.model import Plan


def modules(arch: Architecture, held: Mapping[str, Held], untied: bool = False) -> list[Module]:
    """All matrices of layers, by the names that config.json calls them; `held` says how tensors are stored, by name.

    Those that are held come first, in their order. With `untied` the head of a tied pair is stored apart, and what
    `held` says of the shared tensor is about the head; else it is about both, as embeddings.
    """
    found: dict[str, Module] = {}
    for module in (*_matrices(arch, held, untied), *_without_tensor(arch), *_others(arch, held)):
        found.setdefault(module.name, module)
    return list(found.values())


def modules_of(plan: Plan, arch: Architecture) -> list[Module]:
    """Those of a plan's output."""
    return modules(arch, {name: item.held for name, item in plan.items.items()}, unties(plan, arch))


def unties(plan: Plan, arch: Architecture) -> bool:
    """Whether the head is stored apart from the embedding it shared."""
    return any(arch.apart(item.part) for item in plan.items.values())


def _role(arch: Architecture, name: str) -> Role:
    return "head" if name == arch.head_module else "linear"


def _matrices(arch: Architecture, held: Mapping[str, Held], untied: bool) -> Iterator[Module]:
    for tensor in dict.fromkeys([*held, *arch.matrices]):
        if tensor == arch.embedding and tensor in held:
            yield from _shared(arch, held[tensor], untied)
        matrix = arch.matrices.get(tensor)
        if matrix is None:
            continue
        if tensor in arch.inseparable:
            # What a runtime calls them that takes experts one by one: vLLM looks these names up, whatever is stored.
            owner = matrix.param.removesuffix(".weight").rpartition(".")[0]
            for leaf in ("gate_proj", "up_proj", "down_proj"):
                name = f"{owner}.{matrix.expert}.{leaf}"
                yield Module(name, matrix.rows, matrix.columns, held.get(tensor), "expert")
        elif matrix.expert is not None:
            yield Module(matrix.module, matrix.rows, matrix.columns, held.get(tensor), "expert")
        else:
            name = matrix.param.removesuffix(".weight")
            yield Module(name, matrix.rows, matrix.columns, held.get(tensor), _role(arch, name), matrix.module)


def _shared(arch: Architecture, held: Held, untied: bool) -> Iterator[Module]:
    """A quantized embedding and the heads that are one tensor with it; or the head alone that leaves it."""
    rows, columns = arch.checkpoint.entry(str(arch.embedding)).shape
    if untied:
        yield Module(str(arch.head_module), rows, columns, held, "head")
    elif (table := arch.table) is not None:
        yield Module(table.param.removesuffix(".weight"), rows, columns, held, "embedding", arch.written(table))
        for name in table.shared:
            yield Module(name, rows, columns, held, "embedding")


def _without_tensor(arch: Architecture) -> Iterator[Module]:
    """Linear layers that have no tensor of their own, and are float: a tied head."""
    for name, module in arch.model.named_modules():
        if isinstance(module, torch.nn.Linear):
            yield Module(name, module.out_features, module.in_features, None, _role(arch, name))


def _others(arch: Architecture, held: Mapping[str, Held]) -> Iterator[Module]:
    """Routers and what transformers leaves out, such as a draft head: by the names of other runtimes, the file's."""
    owners = dict(arch.model.named_modules())
    for tensor, entry in arch.checkpoint.tensors.items():
        if tensor in arch.matrices or not tensor.endswith(".weight") or len(entry.shape) < 2:
            continue
        name, inside = tensor.removesuffix(".weight"), arch.targets.get(tensor, "").removesuffix(".weight")
        if not inside:
            yield Module(name, entry.shape[0], entry.shape[1], held.get(tensor), "outside")
        elif len(entry.shape) == 2 and inside in owners and not isinstance(owners[inside], torch.nn.Embedding):
            yield Module(name, entry.shape[0], entry.shape[1], None, "router")
