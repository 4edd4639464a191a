"""Watch a network as it multiplies: which inputs its matrices get, and what they are multiplied by instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from bitwright.core.measure import Usage
from bitwright.core.stats import Stats, add_gram, mirror
from bitwright.models.language.arch import Matrix

Rounding = Callable[[str, torch.Tensor], torch.Tensor]
"""(matrix, its inputs [..., columns]) -> those inputs as a runtime rounds them."""
Count = Callable[[str, torch.Tensor], Usage | None]
"""(matrix, its inputs [tokens, columns]) -> how their codes are used as a runtime rounds them; None for floats."""

_FIRST: dict[Any, int] = {
    torch.nn.functional.linear: 0, torch.addmm: 1, torch.matmul: 0, torch.Tensor.matmul: 0, torch.Tensor.__matmul__: 0
}  # fmt: skip
"""Products, and which argument is the input of the matrix that follows it."""


class Watch(TorchFunctionMode):
    """While active, sees the input and the output of every known matrix, wherever in the network it is multiplied.

    Watching the product itself (linear, addmm) rather than modules catches fused experts as well.
    """

    def __init__(self, names: Mapping[int, list[str]]) -> None:
        """`names`: the matrices whose values begin at each address."""
        super().__init__()
        self._names = names

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.bmm:
            return self._each(*args, **(kwargs or {}))
        at = _FIRST.get(func)
        names = self._names.get(args[at + 1].data_ptr()) if at is not None and args[at].numel() else None
        if at is None or names is None:
            return func(*args, **(kwargs or {}))
        x = self.see(args[at], names)
        y = func(*args[:at], x, *args[at + 1 :], **(kwargs or {}))
        self.answered(y, x, names)
        return y

    def _each(self, x: torch.Tensor, weight: torch.Tensor, **options: Any) -> torch.Tensor:
        """Inputs [experts, tokens, columns] by a stack [experts, columns, rows], each seen for its own matrix."""
        step = weight.stride(0) * weight.element_size()
        names = [self._names.get(weight.data_ptr() + i * step) for i in range(len(weight))]
        if weight.device.type == "meta" or not any(names):
            return torch.bmm(x, weight, **options)
        x = torch.stack([self.see(part, known, True) if known else part for part, known in zip(x, names, strict=True)])
        y = torch.bmm(x, weight, **options)
        for i, known in enumerate(names):
            if known:
                self.answered(y, x, known, i)
        return y

    def see(self, x: torch.Tensor, names: list[str], routed: bool = False) -> torch.Tensor:
        """Take note of an input [..., columns] of these matrices; what they are multiplied by.

        Where it is `routed`, rows of zeros stand for tokens that went to other experts.
        """
        return x

    def answered(self, y: torch.Tensor, x: torch.Tensor, names: list[str], at: int | None = None) -> None:
        """Take note of the output `y` [..., rows] for an input; slice `at` of both, where a stack of experts is."""


def addresses(block: torch.nn.Module, prefix: str, matrices: list[Matrix]) -> dict[int, list[str]]:
    """The matrices of a loaded block by the address of their values."""
    found: dict[int, list[str]] = {}
    for matrix in matrices:
        owner, _, leaf = matrix.param.removeprefix(prefix + ".").rpartition(".")
        weight: Any = block.get_submodule(owner)._parameters[leaf]  # in learning no Parameter, but what made it
        if matrix.expert is not None:
            weight = weight[matrix.expert]
        found.setdefault(weight.data_ptr(), []).append(matrix.name)
    return found


class Recorder(Watch):
    """Gathers `Stats` of the inputs of matrices.

    Matrices that multiply the very same input share one record: `leader[name]` is the first of them, `stats[leader]`
    the record. `usage[leader]` says how the codes of a rounded input are used, in the first batch that reaches it:
    `count` tells it by the name of a matrix.
    """

    def __init__(self, names: Mapping[int, list[str]], count: Count | None = None) -> None:
        super().__init__(names)
        self.leader: dict[str, str] = {}
        self.usage: dict[str, Usage | None] = {}
        self._count = count
        self._sums: dict[str, tuple[int, torch.Tensor]] = {}
        self._inputs: dict[tuple[int, ...], tuple[torch.Tensor, str]] = {}

    def see(self, x: torch.Tensor, names: list[str], routed: bool = False) -> torch.Tensor:
        """Add an input to the record of its matrices, once."""
        key = (x.data_ptr(), *x.shape, *x.stride())
        if key not in self._inputs:
            # Holding the tensor keeps its address from being used again within this forward.
            self._inputs[key] = (x, names[0])
            with torch._C.DisableTorchFunction():
                rows = x.detach().reshape(-1, x.shape[-1])
                if routed:
                    rows = rows[rows.any(dim=1)]
                if self._count is not None and names[0] not in self.usage:
                    self.usage[names[0]] = self._count(names[0], rows)
                seen, upper = self._sums.get(names[0], (0, None))
                self._sums[names[0]] = seen + len(rows), add_gram(rows, upper)
        for name in names:
            self.leader[name] = self._inputs[key][1]
        return x

    @cached_property
    def stats(self) -> dict[str, Stats]:
        """The records, by leader; to be read once all batches have passed."""
        return {name: Stats(seen, mirror(upper)) for name, (seen, upper) in self._sums.items()}

    def next_batch(self) -> None:
        """Forget which inputs were seen: a new forward begins."""
        self._inputs.clear()


class Squares(Watch):
    """Sums the squares of the inputs of matrices, column by column: `sums[name]` has tokens, and float64 [columns]."""

    def __init__(self, names: Mapping[int, list[str]]) -> None:
        super().__init__(names)
        self.sums: dict[str, tuple[int, torch.Tensor]] = {}

    def see(self, x: torch.Tensor, names: list[str], routed: bool = False) -> torch.Tensor:
        """Add an input to the sums of its matrices."""
        with torch._C.DisableTorchFunction():
            rows = x.detach().reshape(-1, x.shape[-1])
            if routed:
                rows = rows[rows.any(dim=1)]
            squares = rows.float().square().sum(dim=0).double().cpu()
            for name in names:
                seen, total = self.sums.get(name, (0, torch.zeros_like(squares)))
                self.sums[name] = seen + len(rows), total + squares
        return x


class Rounder(Watch):
    """Rounds the inputs of matrices as a runtime does that computes in 8 bits."""

    def __init__(self, names: Mapping[int, list[str]], rounding: Rounding) -> None:
        super().__init__(names)
        self._rounding = rounding

    def see(self, x: torch.Tensor, names: list[str], routed: bool = False) -> torch.Tensor:
        """The input, rounded."""
        with torch._C.DisableTorchFunction():
            return self._rounding(names[0], x)
