"""Rewrites before quantization that leave the network's function as it is: scales move between neighbouring layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from bitwright.core.observe import Channels
from bitwright.models.network.graph import Graph
from bitwright.models.network.streams import Stream
from bitwright.rewrites.equalize import absorb, balance_activations, column_ranges, noise
from bitwright.rewrites.smooth import factors

Array = npt.NDArray[Any]
ALPHAS = (0.25, 0.5, 0.75, 1.0)
LEAST = 4.0
"""How many times less noise a rescaling must promise: smaller gains are taken by ranges that clip (measured)."""


def channel_axes(graph: Graph, smooth: float, equalize: bool) -> dict[str, int]:
    """{tensor: channel axis} of every tensor whose channels `rescale` will ask for."""
    axes: dict[str, int] = {}
    for stream in chosen(graph, smooth, equalize):
        axes |= {name: axis for name, (axis, _) in stream.tensors.items()}
    return axes


def chosen(graph: Graph, smooth: float, equalize: bool) -> list[Stream]:
    """The streams the recipe wants to rescale: behind a normalisation (smooth), or between layers (equalize)."""
    return [stream for stream in graph.streams() if (smooth if normalised(stream) else equalize)]


def normalised(stream: Stream) -> bool:
    """Whether a LayerNormalization writes to the stream."""
    return any(layer.op == "LayerNormalization" for layer, _ in stream.producers)


def rescale(
    graph: Graph, channels: Mapping[str, Channels], smooth: float, equalize: bool, bits: Mapping[str, int]
) -> list[str]:
    """Rescale the chosen streams of `graph` in place by what activations (`channels`) and their readers ask for; notes.

    The rows of a producer have scales of their own, so dividing them costs nothing: the trade is between the step that
    a whole activation tensor shares and the columns of the layers that read it. Behind a normalisation its exponent is
    `smooth`; elsewhere the one of ALPHAS that promises least noise, given the `bits` of the readers' weights.
    """
    notes = []
    for stream in chosen(graph, smooth, equalize):
        found = [(channels[name], index) for name, (_, index) in stream.tensors.items() if name in channels]
        readers = [(graph.matrix(layer), layer, index) for layer, index in stream.consumers if layer.groups == 1]
        if not found or not readers:
            continue
        peaks = [_spread(np.maximum(seen.high, -seen.low), index, stream.size) for seen, index in found]
        columns = [_spread(column_ranges(w, layer.inputs), index, stream.size) for w, layer, index in readers]
        if normalised(stream):
            tried = [factors(np.max(peaks, axis=0), [c[None] for c in columns], smooth)]
        else:
            tried = [balance_activations(peaks, columns, alpha) for alpha in ALPHAS]
        plain = _noise(np.ones(stream.size, np.float32), graph, stream, channels, bits)
        gain, best = max(
            ((plain / _noise(np.asarray(s), graph, stream, channels, bits), np.asarray(s)) for s in tried),
            key=lambda pair: pair[0],
        )
        if gain < LEAST and not normalised(stream):
            continue
        graph.apply(stream, 1 / best.astype(np.float64))
        names = ", ".join(layer.name for layer, _ in stream.producers[:2])
        notes.append(
            f"{stream.size} channels written by {names} rescaled by {best.min():.3g} to {best.max():.3g}: "
            f"{gain:.1f} times less noise expected"
        )
    return notes


def absorb_biases(graph: Graph, channels: Mapping[str, Channels]) -> list[str]:
    """Move what ReLU never cut off on the samples from a layer's bias into those of the layers that read it; notes.

    c = the smallest pre-activation of a channel, where positive. Only where the ReLU's output goes to layers alone, and
    none of them pads it with zeros: a padded 0 would come to stand for c.
    """
    notes = []
    for layer in graph.layers:
        seen, readers = channels.get(layer.raw), graph.consumers.get(layer.output, [])
        if layer.activation != "Relu" or seen is None or layer.output in graph.pinned or layer.bias is None:
            continue
        next_ = [other for other in graph.layers if other.input == layer.output]
        if len(next_) != len(readers) or any(any(n.pads) or n.bias is None or n.op == "ConvTranspose" for n in next_):
            continue
        c = np.clip(np.asarray(seen.low, np.float32), 0, None)
        if not c.any():
            continue
        for other in next_:
            graph.set_bias(other, absorb(graph.bias(layer), c, graph.matrix(other), graph.bias(other), other.groups)[1])
        graph.set_bias(layer, graph.bias(layer) - c)
        notes.append(f"{layer.name}: {np.count_nonzero(c)} channels never reach 0, up to {c.max():.3g} absorbed")
    return notes


def absorb_axes(graph: Graph) -> dict[str, int]:
    """{pre-activation: channel axis} of the layers `absorb_biases` looks at."""
    return {layer.raw: 1 for layer in graph.layers if layer.activation == "Relu" and layer.op != "MatMul"}


def _noise(s: Array, graph: Graph, stream: Stream, channels: Mapping[str, Channels], bits: Mapping[str, int]) -> float:
    """The noise expected at the outputs of the stream's readers with factors `s`."""
    total = 1e-30
    for layer, index in stream.consumers:
        seen = channels.get(layer.input)
        if seen is not None and layer.groups == 1:
            peak = np.maximum(seen.high, -seen.low)
            w = graph.matrix(layer)
            total += noise(s[index], [(w, 1)], peak, seen.power, weight_bits=bits.get(layer.name, 8))
    return total


def _spread(ranges: Array, index: Array, size: int) -> Array:
    """The largest of `ranges` [channels of a tensor] for each of the stream's `size` channels."""
    out = np.zeros(size, np.float32)
    np.maximum.at(out, index, np.asarray(ranges, np.float32))
    return out
