"""Learned step sizes (LSQ): weights and steps learn together, in training. The work is in `training`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from bitwright.methods import method
from bitwright.methods.method import Method

if TYPE_CHECKING:
    from bitwright.methods.lsq.training import Epoch, Subject


class Options(method.Options):
    """Options of the training."""

    epochs: int = Field(10, ge=1)
    """Passes over the calibration samples."""
    rate: float = Field(1e-3, gt=0)
    penalty: float = Field(0.0, ge=0)
    """Coefficient at which the quantization-error penalty begins; it learns. 0 for none."""


def solve(subject: Subject, options: Options) -> Iterator[Epoch]:
    """Train `subject`, a model whose weights and activations are rounded, in place; yields after each epoch."""
    from bitwright.methods.lsq import training

    return training.learn(subject, options.epochs, options.rate, options.penalty)


METHOD = Method(
    name="lsq",
    title="Learned step sizes",
    source="Esser et al. 2020, arXiv 1902.08153",
    solve=solve,
    options=Options,
    needs="samples",
    scope="model",
)
