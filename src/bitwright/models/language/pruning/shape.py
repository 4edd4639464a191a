"""The shape that a pruned network has: width of the MLP, groups of heads, number of blocks, for a number of parameters.

All blocks have the same shape, as config.json has one number for all; which channels and heads they are, each block
decides by itself.
"""

from __future__ import annotations

from typing import NamedTuple

from bitwright.errors import RecipeError
from bitwright.models.language.pruning.anatomy import Anatomy
from bitwright.stages import Prune
from bitwright.words import millions


class Shape(NamedTuple):
    """Channels of the MLP, groups of heads, blocks."""

    width: int
    groups: int
    layers: int


COSTS = Shape(1, 8, 13)
"""What each kind of cut costs, times the square of the share that it takes of its kind.

Measured on docs18m after fitting: .6 of the channels .053 nats per token, half of the groups of heads .29, two of five
blocks .30. Per square of the share that is .15, 1.2 and 1.9.
"""


def whole(anatomy: Anatomy) -> Shape:
    """The source's."""
    return Shape(anatomy.width, anatomy.groups, anatomy.arch.count)


def parameters(anatomy: Anatomy, shape: Shape) -> int:
    """Parameters of all blocks of this shape."""
    block = anatomy.per_block - (anatomy.width - shape.width) * anatomy.per_channel
    block -= (anatomy.groups - shape.groups) * anatomy.per_group
    return block * shape.layers


def target(anatomy: Anatomy, settings: Prune, outside: int) -> int:
    """Parameters that the blocks may have, where `outside` are those of the rest. RecipeError where that is nothing."""
    most = parameters(anatomy, whole(anatomy))
    if settings.keep is not None:
        return int(settings.keep * most)
    assert settings.params is not None
    if settings.params >= outside + most:
        raise RecipeError(
            f"the model has {millions(outside + most)} parameters, no more than asked for", where="--params",
            fix=f"Give less than {outside + most}", key="params",
        )  # fmt: skip
    if settings.params <= outside:
        raise RecipeError(
            f"{millions(outside)} parameters lie outside the blocks, which are not cut", where="--params",
            fix=f"Give more than {outside}", key="params",
        )  # fmt: skip
    return settings.params - outside


def choose(anatomy: Anatomy, settings: Prune, most: int) -> Shape:
    """The shape with at most `most` parameters in its blocks that costs least by `COSTS`.

    Channels fill up what groups and blocks leave. RecipeError where a layer would be left empty, with the shapes that
    there are.
    """
    full, found = whole(anatomy), []
    for layers in range(1, full.layers + 1) if "layers" in settings.cut else [full.layers]:
        for groups in anatomy.legal if "heads" in settings.cut else [full.groups]:
            width = full.width
            if "width" in settings.cut:
                over = parameters(anatomy, Shape(width, groups, layers)) - most
                width -= max(0, -(-over // (anatomy.per_channel * layers)))
                width -= width % settings.multiple if width < full.width else 0
            shape = Shape(width, groups, layers)
            if width >= settings.multiple and shape != full and parameters(anatomy, shape) <= most:
                found.append(shape)
    if not found:
        raise _none(anatomy, settings, most)
    return min(found, key=lambda shape: (cost(shape, full), -parameters(anatomy, shape)))


def cost(shape: Shape, full: Shape) -> float:
    """What a shape is taken to cost, in units of losing all channels."""
    return sum(per * (1 - part / of) ** 2 for per, part, of in zip(COSTS, shape, full, strict=True))


def _none(anatomy: Anatomy, settings: Prune, most: int) -> RecipeError:
    """What is said where nothing that may be cut gives so few parameters, or so many."""
    full = whole(anatomy)
    least = Shape(
        settings.multiple if "width" in settings.cut else full.width,
        min(anatomy.legal) if "heads" in settings.cut else full.groups,
        1 if "layers" in settings.cut else full.layers,
    )
    low = parameters(anatomy, least) / parameters(anatomy, full)
    heads = ", ".join(str(groups * anatomy.sharing) for groups in anatomy.legal)
    told = {
        "width": f"the width is a multiple of {settings.multiple} up to {full.width}",
        "heads": f"the network takes {heads} heads",
        "layers": f"there are {full.layers} layers",
    }
    where = "--keep" if settings.keep is not None else "--params"
    what = "; ".join(told[name] for name in told if name in settings.cut)
    return RecipeError(
        f"no shape has {millions(most)} parameters in its blocks and something left of every layer: {what}",
        where=where, fix=f"Keep at least {low:.3f} of the blocks, or let --cut take more", key=where[2:],
    )  # fmt: skip
