"""One decoder block as methods of scope "block" get it: other matrices can be put in, and it says how far it is off."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from bitwright.core.qtensor import QTensor
from bitwright.errors import ModelError
from bitwright.models.language.activations import Activations
from bitwright.models.language.arch import Matrix
from bitwright.models.language.blocks import Decoder, Passage
from bitwright.models.model import Item, Turn


@dataclass(frozen=True)
class Draft:
    """Where learning begins with one matrix: the codes `q` that were found for `target` in its own `turn`.

    `correction` says how far that target makes up for earlier errors.
    """

    target: torch.Tensor
    q: QTensor
    turn: Turn
    correction: str | None = None


@dataclass
class Whole:
    """A block that is loaded with what was found of its matrices so far, and whose `items` are to be learned together.

    `inputs` are what the quantized network feeds it, `answers` what the float network answers there, batch by batch
    with `passages`. `watch` makes the watcher of one pass: it rounds inputs of matrices, and routes to experts, as the
    quantized network does.
    """

    items: list[Item]
    decoder: Decoder
    number: int
    module: torch.nn.Module
    inputs: Activations
    answers: Activations
    passages: list[Passage]
    watch: Callable[[], Any]
    drafts: Mapping[str, Draft] = field(default_factory=dict)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """What the items should become, each by itself: float32 [rows, columns]."""
        return {name: draft.target for name, draft in self.drafts.items()}

    @property
    def start(self) -> dict[str, QTensor]:
        """Their codes so far."""
        return {name: draft.q for name, draft in self.drafts.items()}

    @property
    def batches(self) -> int:
        """Batches of calibration text."""
        return len(self.inputs)

    def error(self, decoded: Mapping[str, torch.Tensor], batch: int) -> torch.Tensor:
        """E|block(x_hat) - float block(x)|^2 over a batch, float32; with a graph where `decoded` have one."""
        x, passage = self.inputs[batch], Passage(**vars(self.passages[batch]))
        learning = any(w.requires_grad for w in decoded.values())
        if learning:
            x = x.detach().requires_grad_().clone()  # what asks `run` for a graph; blocks may write over it
        with torch.set_grad_enabled(learning), self._with(decoded), self.watch().on(batch):
            answer = self.decoder.run(self.number, x, passage)
        return (answer.float() - self.answers[batch].float()).square().mean()

    @contextmanager
    def _with(self, decoded: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Within, the block computes with these matrices in the place of its own."""
        there = [(self._owner(param), param.rpartition(".")[2]) for param in self._places]
        own = [owner._parameters[leaf] for owner, leaf in there]
        try:
            for (owner, leaf), (param, names) in zip(there, self._places.items(), strict=True):
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

    @cached_property
    def _matrices(self) -> dict[str, Matrix]:
        return {item.name: item.part for item in self.items}

    @cached_property
    def _places(self) -> dict[str, list[str]]:
        """The matrices in each parameter. Raises ModelError where one is not what it was loaded with."""
        prefix = f"{self.decoder.arch.blocks}.{self.number}."
        found: dict[str, list[str]] = {}
        for name, matrix in self._matrices.items():
            param = matrix.param.removeprefix(prefix)
            whole = self.module.get_parameter(param).detach()
            held, known = place(matrix, whole), self.drafts[name].q.decode().to(whole.dtype)
            if held.shape != known.shape or not torch.equal(held, known):
                raise ModelError(
                    "its network holds it in another form than the file, so that it cannot be learned with its block",
                    where=name, fix="Give it another method by a rule, or all: --method descent",
                )  # fmt: skip
            found.setdefault(param, []).append(name)
        return found


def place(matrix: Matrix, whole: torch.Tensor) -> torch.Tensor:
    """Where a matrix [rows, columns] lies in a block's parameter, as a view."""
    part = whole if matrix.expert is None else whole[matrix.expert]
    part = part.T if matrix.transposed else part
    return part if len(part) == matrix.rows else part[matrix.nth * matrix.rows : (matrix.nth + 1) * matrix.rows]
