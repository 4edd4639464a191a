"""The shortest road from a float network to an integer one, for tests: ranges of one batch, rounding to nearest."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx

from bitwright.core.format import Format
from bitwright.core.observe import Affine, affine
from bitwright.files.containers.qdq.writer import to_qdq, weight_format
from bitwright.files.layers import Placement
from bitwright.methods import rtn
from bitwright.models.network.graph import Graph
from bitwright.models.network.placement import place
from bitwright.models.network.session import Session

Feeds = dict[str, Any]


def ranges(
    graph: Graph, placement: Placement, feeds: Feeds, *, signed: bool = False, symmetric: bool = False
) -> dict[str, Affine]:
    """An Affine for every activation of `placement` from the extremes of `feeds`."""
    seen = {**feeds, **Session(graph.with_outputs(placement.activations), threads=1).run(feeds)}
    low = {name: float(seen[name].min()) for name in placement.activations}
    high = {name: float(seen[name].max()) for name in placement.activations}
    for group in placement.shared:
        least, most = min(low[name] for name in group), max(high[name] for name in group)
        low.update(dict.fromkeys(group, least))
        high.update(dict.fromkeys(group, most))
    return {name: affine(low[name], high[name], signed=signed, symmetric=symmetric) for name in low}


def quantized(
    graph: Graph, feeds: Feeds, *, target: Any = "x86", format: Format | None = None, keep: Collection[str] = (),
    signed: bool = False, symmetric: bool = False, **options: Any,
) -> onnx.ModelProto:  # fmt: skip
    """`graph` as a QDQ model."""
    placement = place(graph, target, keep=keep)
    weights = {
        layer.weight: rtn.quantize(graph.matrix(layer), format or weight_format(8))
        for layer in graph.layers
        if layer.name in placement.nodes
    }
    return to_qdq(
        graph, placement, weights, ranges(graph, placement, feeds, signed=signed, symmetric=symmetric), **options
    )


def sqnr(x: Any, y: Any) -> float:
    """10 log10(sum x^2 / sum (x - y)^2) in dB."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return float(10 * np.log10((x**2).sum() / max(((x - y) ** 2).sum(), 1e-300)))
