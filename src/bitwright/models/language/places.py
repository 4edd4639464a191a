"""Where the matrices of a block lie in its loaded module: others can be put in their place, with a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from bitwright.errors import ModelError
from bitwright.models.language.arch import Matrix


class Places:
    """The parameters of a loaded block that hold some matrices."""

    def __init__(
        self, prefix: str, module: torch.nn.Module, matrices: Mapping[str, Matrix], known: Callable[[str], torch.Tensor]
    ) -> None:
        """`prefix` is the block's name with a dot, `known(name)` what it was loaded with as a matrix [rows, columns].

        Raises ModelError where a parameter is not that.
        """
        self.module, self._matrices, self._held = module, matrices, dict[str, list[str]]()
        for name, matrix in matrices.items():
            param = matrix.param.removeprefix(prefix)
            whole = module.get_parameter(param).detach()
            held, wanted = place(matrix, whole), known(name).to(whole.dtype)
            if held.shape != wanted.shape or not torch.equal(held, wanted):
                raise ModelError(
                    "its network holds it in another form than the file, so that it cannot be learned with its block",
                    where=name, fix="Give it another method by a rule, or all: --method descent",
                )  # fmt: skip
            self._held.setdefault(param, []).append(name)

    @contextmanager
    def holding(self, decoded: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Within, the block computes with these matrices [rows, columns] in the place of its own."""
        there = [(self._owner(param), param.rpartition(".")[2]) for param in self._held]
        own = [owner._parameters[leaf] for owner, leaf in there]
        try:
            for (owner, leaf), (param, names) in zip(there, self._held.items(), strict=True):
                owner._parameters[leaf] = self._joined(param, {name: decoded[name] for name in names})
            yield
        finally:
            for (owner, leaf), tensor in zip(there, own, strict=True):
                owner._parameters[leaf] = tensor

    def _owner(self, param: str) -> torch.nn.Module:
        return self.module.get_submodule(param.rpartition(".")[0])

    def _joined(self, param: str, decoded: Mapping[str, torch.Tensor]) -> Any:
        """A parameter of the block made of the matrices that it holds."""
        joined = self.module.get_parameter(param).detach().clone()
        for name, w in decoded.items():
            place(self._matrices[name], joined).copy_(w)
        return joined


def place(matrix: Matrix, whole: torch.Tensor) -> torch.Tensor:
    """Where a matrix [rows, columns] lies in a block's parameter, as a view."""
    part = whole if matrix.expert is None else whole[matrix.expert]
    part = part.T if matrix.transposed else part
    return part if len(part) == matrix.rows else part[matrix.nth * matrix.rows : (matrix.nth + 1) * matrix.rows]
