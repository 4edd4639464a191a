"""Learned rounding of all matrices of one block: what falls is the error of what the block answers. Torch only.

Sources: the objective is that of BRECQ (Li et al. 2021, arXiv 2102.05426); offsets within half a cell and scales, both
with the slope of rounding taken as 1, are SignRound's (Cheng et al. 2023, arXiv 2309.05516). Here learning begins at
codes that another method has found already, not at the nearest ones. Against such codes the sign of a slope is too
coarse (docs/log.md), so the steps are Adam's (Kingma and Ba 2015, arXiv 1412.6980).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from bitwright.core.qtensor import QTensor, divisor
from bitwright.errors import TensorError

EDGE = 0.49
"""How far from its code a weight may begin, in cells: one that belongs to another cell begins just within this one."""
REACH = 0.5
"""How far a weight may move, in cells, and a scale, as a share of it."""
LOOKS = 10
"""How often it is judged which codes were the best so far."""


class Block(Protocol):
    """A block of a model as its kind hands it over."""

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """What the matrices should become, each by itself: float32 [rows, columns]."""

    @property
    def start(self) -> Mapping[str, QTensor]:
        """Their codes so far."""

    @property
    def batches(self) -> int:
        """How many batches of calibration text there are."""

    def error(self, decoded: Mapping[str, Tensor], batch: int) -> Tensor:
        """E|block(x_hat) - float block(x)|^2 over a batch with these matrices; a graph where they have one."""


@dataclass(frozen=True)
class Step:
    """One step: its number from 1, and the error before it on the batch that it saw."""

    number: int
    error: float


class _Nearest(torch.autograd.Function):
    """The nearest values of a grid; the slope is 1 as far as the grid reaches, and 0 beyond."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, grid: Any) -> Tensor:
        ctx.save_for_backward((u >= grid.low - REACH) & (u <= grid.high + REACH))
        found: Tensor = grid.round(u)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors
        return grads[0] * inside, None


class Rounded:
    """One matrix in learning: code = nearest(place + offset), scale = stored(first scale * (1 + change))."""

    def __init__(self, w: Tensor, start: QTensor) -> None:
        self.start, format = start, start.format
        self.zero = 0.0 if start.zero is None else start.zero[..., None]
        code = format.grid.decode(format.blocks(start.codes))
        place = format.blocks(w.float()) / divisor(start.scale)[..., None] + self.zero
        self.place = code + (place - code).clamp(-EDGE, EDGE)
        self.offset = torch.zeros_like(self.place, requires_grad=True)
        self.change = torch.zeros_like(start.scale, requires_grad=True)

    @property
    def scale(self) -> Tensor:
        """As it is stored, with the slope of what it was before that."""
        wanted: Tensor = self.start.scale * (1 + self.change)
        stored: Tensor = self.start.format.scale.round(wanted.detach(), self.start.outer)
        return wanted + (stored - wanted).detach()

    def decode(self) -> Tensor:
        """What it means [rows, columns], with a graph."""
        value: Tensor = _Nearest.apply(self.place + self.offset, self.start.format.grid)  # type: ignore[no-untyped-call]
        found: Tensor = (value - self.zero) * self.scale[..., None]
        rows, columns = self.start.shape
        return found.reshape(rows, columns)

    @torch.no_grad()
    def hold(self) -> None:
        """Bring what has moved too far back within reach."""
        for part in (self.offset, self.change):
            part.clamp_(-REACH, REACH)

    @torch.no_grad()
    def quantized(self) -> QTensor:
        """The codes and scales now."""
        format = self.start.format
        codes = format.grid.nearest(self.place + self.offset).reshape(self.start.shape)
        scale = format.scale.round(self.start.scale * (1 + self.change), self.start.outer)
        return replace(self.start, codes=codes, scale=scale)


def learn(
    block: Block, steps: int, rate: float, scale_rate: float, seed: int
) -> Generator[Step, None, dict[str, QTensor]]:
    """Codes and scales of all matrices of `block` with which its answers err less; yields every step.

    A weight begins where it lies in the cell of its code and may move half a cell either way: so its code may become a
    neighbour. Scales move by shares of themselves, rounded as they are stored; zero points stay. The steps are Adam's,
    with rates that fall to 0 in a straight line. Batches come in an order that `seed` draws, all once before one comes
    again.

    A block has more weights than calibration has tokens, and would learn these by heart. So every fourth batch, and
    at least one, is not learned from but judges: of `LOOKS` looks on the way, the one with the least error there is
    returned, or `start` with a note where none is better. With a single batch it both teaches and judges. Raises
    TensorError where the error is not finite.
    """
    lessons, judges = divide(block.batches)
    matrices = {name: Rounded(block.weights[name], start) for name, start in block.start.items()}
    optimizer = torch.optim.Adam(
        [
            {"params": [matrix.offset for matrix in matrices.values()], "rate": rate},
            {"params": [matrix.change for matrix in matrices.values()], "rate": scale_rate},
        ],
        betas=(0.9, 0.95),
    )
    best, least = dict(block.start), judged(block, block.start, judges)
    learned = False
    generator, order = torch.Generator().manual_seed(seed), list[int]()
    for i in range(steps):
        order = order or [lessons[k] for k in torch.randperm(len(lessons), generator=generator).tolist()]
        error = block.error({name: matrix.decode() for name, matrix in matrices.items()}, order.pop())
        if not bool(torch.isfinite(error)):
            raise TensorError("what its block answers is not finite", where=next(iter(matrices)))
        error.backward()  # type: ignore[no-untyped-call]
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * (1 - i / steps)
        optimizer.step()
        optimizer.zero_grad()
        for matrix in matrices.values():
            matrix.hold()
        if (i + 1) * LOOKS // steps > i * LOOKS // steps:
            found = {name: matrix.quantized() for name, matrix in matrices.items()}
            now = judged(block, found, judges)
            if now < least:
                best, least, learned = found, now, True
        yield Step(i + 1, float(error.detach()))
    if not learned:
        note = "learning did not lower its block's error: as it began"
        return {name: replace(start, notes=(*start.notes, note)) for name, start in best.items()}
    return best


def divide(batches: int) -> tuple[list[int], list[int]]:
    """The batches that are learned from, and those that judge.

    >>> divide(9), divide(2), divide(1)
    (([0, 1, 2, 4, 5, 6, 8], [3, 7]), ([0], [1]), ([0], [0]))
    """
    judges = list(range(3, batches, 4)) or [batches - 1]
    return [i for i in range(batches) if i not in judges] or judges, judges


@torch.no_grad()
def judged(block: Block, found: Mapping[str, QTensor], batches: Sequence[int]) -> float:
    """The mean error of the block over some batches with these codes."""
    decoded = {name: q.decode() for name, q in found.items()}
    return sum(float(block.error(decoded, i)) for i in batches) / len(batches)
