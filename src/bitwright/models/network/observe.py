"""Statistics from samples: the values of every tensor, and the range of each channel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.core.observe import Affine, Channels, Histogram, affine, choose
from bitwright.errors import TensorError
from bitwright.events import Event, Progress
from bitwright.files.layers import Placement
from bitwright.models.network.graph import Graph
from bitwright.models.network.session import Session
from bitwright.recipe import Network

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]


@dataclass
class Observed:
    """`values`: a histogram of each tensor; `channels`: sums of each channel, where the channel axis was given."""

    values: dict[str, Histogram] = field(default_factory=dict)
    channels: dict[str, Channels] = field(default_factory=dict)
    batches: int = 0


def observe(
    graph: Graph, feeds: Sequence[Feeds], tensors: Sequence[str], axes: Mapping[str, int], seen: Observed
) -> Iterator[Event]:
    """Run the float network on `feeds`; record `tensors` (histograms) and those of `axes` (channel axis) in `seen`.

    One batch of activations is in memory at a time. Raises TensorError for values that are not finite.
    """
    names = list(dict.fromkeys([*tensors, *axes]))
    session = Session(graph.with_outputs(names), optimize=False, where=graph.where)
    wanted = [name for name in names if name not in graph.inputs]
    for batch in feeds:
        found = {name: batch[name] for name in names if name in batch}
        if wanted:  # an empty list would mean all outputs
            found |= session.run(batch, wanted)
        require_finite(graph, batch, found)
        for name in tensors:
            seen.values[name] = seen.values.get(name, Histogram()) + Histogram.of(found[name])
        for name, axis in axes.items():
            now = Channels.of(found[name], axis)
            seen.channels[name] = seen.channels[name] + now if name in seen.channels else now
        seen.batches += 1
        yield Progress("calibrate", seen.batches, len(feeds), f"batch {seen.batches}")


def require_finite(graph: Graph, batch: Feeds, found: Feeds) -> None:
    """Raise TensorError where `found` holds NaN or infinity, naming the tensor of the float network where that begins.

    `found` are tensors of the float network on `batch`.
    """
    if all(np.isfinite(x).all() for x in found.values()):
        return
    nodes = {out: node.op_type for node in graph.model.graph.node for out in node.output if out}
    names = [name for name in nodes if graph.values.get(name, ("",))[0].startswith("float")]
    values = Session(graph.with_outputs(names), optimize=False, where=graph.where).run(batch, names) | {**found}
    # Masks may be infinite on purpose: NaN comes first.
    bad = [(name, np.isnan(x).sum()) for name, x in values.items()]
    bad += [(name, np.isinf(x).sum()) for name, x in values.items()]
    name, count = next(pair for pair in bad if pair[1])
    raise TensorError(
        f"{count} values of {nodes.get(name, 'the input')} are NaN or infinite when the float network runs on the "
        "calibration samples",
        where=name,
        fix="Repair the network or the samples' preprocessing ([data] in the recipe)",
    )


def quantizers(placement: Placement, seen: Mapping[str, Histogram], network: Network) -> dict[str, Affine]:
    """The Affine of every tensor of `placement`: by the recipe's observer, one for each group that must share."""
    signed, symmetric = network.target != "x86", network.target == "gpu"
    groups = [*placement.shared]
    together = {name for group in groups for name in group}
    groups += [(name,) for name in placement.activations if name not in together]
    found: dict[str, Affine] = {}
    for group in groups:
        union = sum((seen[name] for name in group), Histogram())
        low, high = choose(
            union, network.observer, 8, signed=signed, symmetric=symmetric, percentile=network.percentile
        )
        found |= dict.fromkeys(group, affine(low, high, 8, signed=signed, symmetric=symmetric))
    return found
