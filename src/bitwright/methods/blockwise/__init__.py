"""Rounding and scales of all matrices of a decoder block, learned together. The work is in `learning`."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from pydantic import Field

from bitwright.core.qtensor import QTensor
from bitwright.methods import method
from bitwright.methods.adaround import fits
from bitwright.methods.descent import LIBRARIES
from bitwright.methods.method import Method

if TYPE_CHECKING:
    from bitwright.methods.blockwise.learning import Block, Step


class Options(method.Options):
    """Options of the learning."""

    steps: int = Field(60, ge=1)
    """Steps; each sees one batch of calibration text."""
    rate: float = Field(0.0005, ge=0, le=0.5)
    """How far a step moves a weight at most, in cells of its grid; 0 leaves the codes alone."""
    scale_rate: float = Field(0.001, ge=0, le=0.1)
    """How far a step moves a scale at most, as a share of it; 0 leaves the scales alone."""
    seed: int = Field(0, ge=0)
    """Of the order in which batches come."""


def solve(block: Block, options: Options) -> Generator[Step, None, dict[str, QTensor]]:
    """The matrices of `block`, learned together; yields each step. See `learning.learn`."""
    from bitwright.methods.blockwise import learning

    return learning.learn(block, options.steps, options.rate, options.scale_rate, options.seed)


METHOD = Method(
    name="blockwise",
    title="Rounding and scales of a block, learned together",
    source="Li et al. 2021, arXiv 2102.05426; Cheng et al. 2023, arXiv 2309.05516",
    solve=solve,
    options=Options,
    needs="samples",
    scope="block",
    libraries=LIBRARIES,
    weighs=True,
    fits=fits,
    passes=lambda options: float(options.steps),
    fallback="descent",
)
