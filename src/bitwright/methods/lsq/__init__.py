"""Learned step sizes (LSQ): weights and steps learn together, in training. The work is in `training`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from bitwright.core.format import Format
from bitwright.methods import adaround, method
from bitwright.methods.method import Method

if TYPE_CHECKING:
    from bitwright.methods.lsq.training import Epoch, Subject


class Options(method.Options):
    """Options of the training."""

    epochs: int = Field(10, ge=1)
    """Passes over the calibration samples."""
    rate: float | None = Field(None, ge=0)
    """Of the weights: networks 0.001 by default. Language models 0: their weights stay as another method rounded them.
    There the unit is the first step size."""
    step_rate: float | None = Field(None, ge=0)
    """Of the step sizes: a tenth of `rate` where that is given. Language models 0.0003, in shares of the first step."""
    penalty: float = Field(0.0, ge=0)
    """Coefficient at which the quantization-error penalty begins; it learns. 0 for none."""

    @model_validator(mode="after")
    def _learns(self) -> Self:
        if self.rate == 0 and self.step_rate == 0:
            raise ValueError("rate and step_rate of 0 leave nothing to learn: give one of them more")
        return self


def fits(format: Format) -> str | None:
    """Why it cannot take a format; None where it can."""
    if format.zero is not None or format.shift is not None:
        return f"learns no zero points, which {format.name} has: choose symmetric = true"
    return adaround.fits(format)


def solve(subject: Subject, options: Options) -> Iterator[Epoch]:
    """Train `subject`, a model whose weights and activations are rounded, in place; yields after each epoch."""
    from bitwright.methods.lsq import training

    own, own_step = subject.rates
    rate = own if options.rate is None else options.rate
    step_rate = rate / 10 if options.rate else own_step
    step_rate = step_rate if options.step_rate is None else options.step_rate
    return training.learn(subject, options.epochs, rate, step_rate, options.penalty)


METHOD = Method(
    name="lsq",
    title="Learned step sizes",
    source="Esser et al. 2020, arXiv 1902.08153",
    solve=solve,
    options=Options,
    needs="samples",
    scope="model",
    weighs=True,
    fits=fits,
    passes=lambda options: float(options.epochs),
    fallback="descent",
)
