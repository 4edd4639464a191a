"""A method: round to nearest, with scales for the inner part of each block's range."""

from typing import Any

from pydantic import Field

from bitwright.core.array import Array, float32
from bitwright.core.format import Format
from bitwright.core.qtensor import QTensor, encode
from bitwright.methods import Method, Options, Seen
from bitwright.methods.rtn import ranges


class Clip(Options):
    """What a recipe may say under [layer.options]."""

    share: float = Field(0.9, gt=0, le=1)
    """Part of the range that the codes reach; weights beyond it get the last code."""


def solve(w: Array, format: Format, seen: Seen, options: Any) -> QTensor:
    """Quantize `w` [rows, columns]. Scales are rounded as they will be stored before codes are chosen."""
    scale, zero = ranges(format.blocks(float32(w)), format, options.share)
    outer = format.scale.fit(scale)
    return encode(w, format, format.scale.round(scale, outer), zero, outer=outer)


METHOD = Method(
    name="clipped",
    title="Round to nearest, clipped",
    source="An example",
    solve=solve,
    options=Clip,
)
