"""Experts that a checkpoint stores in one 3-D tensor: each slice is a matrix of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch


class Stack(NamedTuple):
    """How the 3-D tensor `name`, which becomes `param`, is divided: the names and shapes of its matrices, in order."""

    name: str
    param: str
    parts: list[tuple[str, tuple[int, int]]]
    converter: Any | None
    """The conversion that makes one tensor of them again; None where transformers has one for these names."""


def divide(
    name: str, param: str, shape: Sequence[int], converters: Sequence[Any], rename: Callable[[str], str]
) -> Stack:
    """The stack of experts in a tensor of [experts, a, b].

    Where transformers reads the experts of such a model one by one, too, they get those names: that is how packed ones
    are stored. Else they are called after the tensor, and the tensor stays one in what is written.
    `rename` is what transformers calls a stored tensor.
    """
    from transformers.core_model_loading import MergeModulelist, WeightConverter

    experts, rows, columns = shape
    for converter in converters:
        apart = _names(name, param, converter)
        if apart and rows % len(apart) == 0:
            one = (rows // len(apart), columns)
            return Stack(
                name, param, [(part.replace("*", str(e)), one) for e in range(experts) for part in apart], None
            )
    base = name.removesuffix(".weight")
    stored = _tail(rename(f"{base}.0.weight")).replace(".0.", ".*.")  # names are changed before tensors are joined
    back = WeightConverter([stored], [_tail(param)], [MergeModulelist(dim=0)])
    return Stack(name, param, [(f"{base}.{e}.weight", (rows, columns)) for e in range(experts)], back)


def _tail(name: str) -> str:
    """What follows the number of the block."""
    return re.sub(r"^.*?\.\d+\.", "", name)


def _names(name: str, param: str, converter: Any) -> list[str]:
    """What a conversion that stacks experts, and joins their rows, calls an expert's matrices: with * for a number."""
    from transformers.core_model_loading import Concatenate, MergeModulelist

    kinds = [type(operation) for operation in converter.operations]
    stacks = kinds[:1] == [MergeModulelist] and kinds[1:] in ([], [Concatenate])
    joined = stacks and all(operation.dim == 1 for operation in converter.operations[1:])
    [target, *more] = [_plain(pattern) for pattern in converter.target_patterns]
    if not joined or more or not (name.endswith(target) and param.endswith(target)):
        return []
    return [name.removesuffix(target) + _plain(pattern) for pattern in converter.source_patterns]


def _plain(pattern: str) -> str:
    """A pattern as the text that it stands for."""
    return pattern.replace("\\", "").removeprefix("^").removesuffix("$")


def transposed(
    stacks: Sequence[Stack], modules: Mapping[str, Any], shapes: Mapping[str, Sequence[int]], width: int
) -> set[str]:
    """The names of stacks that hold matrices as [inputs, outputs]; `width` is that of the hidden states.

    transformers says so of most modules (`is_transposed`, by `use_experts_implementation`). Of others the first tensor
    [experts, a, b] of a layer of experts takes hidden states in, and the last gives them out.
    """
    layers: dict[str, list[Stack]] = {}
    for param in shapes:  # the order in which modules are made
        owner = param.removesuffix(".weight").rpartition(".")[0]
        layers.setdefault(owner, []).extend(stack for stack in stacks if stack.param == param)
    found: set[str] = set()
    for owner, held in layers.items():
        if not held:
            continue
        said = getattr(modules.get(owner), "is_transposed", None)
        first, last = shapes[held[0].param], shapes[held[-1].param]
        if first[1] == width and (first[2] != width or last[1] != width) if said is None else said:
            found |= {stack.name for stack in held}
    return found


def counts(config: Mapping[str, Any]) -> set[int]:
    """The numbers of experts that a config may mean, by its keys.

    >>> sorted(counts({"num_experts": 8, "ffn_config": {"moe_num_experts": 4}, "hidden_size": 64}))
    [4, 8]
    """
    found = {value for key, value in config.items() if "expert" in str(key) and type(value) is int}
    return found.union(*(counts(inner) for inner in config.values() if isinstance(inner, Mapping)))


def holds_experts(module: Any, param: Any, numbers: set[int]) -> bool:
    """Whether a tensor [experts, a, b] of a network holds a matrix for each expert; `numbers` are those of `counts`.

    Kernels of convolutions have three axes, too, and so do tables, which are no parameters.
    """
    experts = isinstance(param, torch.nn.Parameter) and param.dim() == 3 and param.shape[0] in numbers
    return experts and not isinstance(module, torch.nn.modules.conv._ConvNd)
