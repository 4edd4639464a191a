"""Bias absorption: the part that a ReLU never cuts off moves from a layer's bias into those of the layers after it.

Source: Nagel et al. 2019, arXiv 1906.04721, section 4.1.3.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bitwright.core.array import Array, namespace
from bitwright.core.observe import Channels
from bitwright.rewrites.equalize import multiply_columns
from bitwright.rewrites.rewrite import Rewrite, Subject


def absorbable(shift: Array, scale: Array) -> Array:
    """c = max(0, beta - 3 |gamma|) [channels]: what a pre-activation N(beta, gamma^2) exceeds 99.865 % of the time.

    From calibration instead: c = max(0, the channel's minimum before ReLU), which is exact on what was seen.
    """
    xp = namespace(shift)
    return xp.clip(shift - 3 * xp.abs(scale), 0.0, None)


def absorb(bias: Array, c: Array, w: Array, next_bias: Array, groups: int = 1) -> tuple[Array, Array]:
    """Biases b1 - c [channels] and b2 + W2 c [out] that narrow the activation between two layers by `c` [channels].

    relu(z - c) + c = relu(z) wherever z >= c >= 0 (section 4.1.3 of the paper). Exact there for a next layer
    `w` [out, in / groups * kernel] without zero padding; with padding its border outputs move, as the padded zeros
    stand for c then: absorb only where that is acceptable, or where the padding is c.
    """
    xp = namespace(w)
    taken = xp.sum(multiply_columns(w, c, groups), axis=1)
    return bias - c, next_bias + taken


def axes(subject: Subject) -> dict[str, int]:
    """{pre-activation: channel axis} of the layers that `apply` looks at."""
    layers = subject.graph.layers
    return {layer.raw: 1 for layer in layers if layer.activation == "Relu" and layer.op != "MatMul"}


def apply(subject: Subject, channels: Mapping[str, Channels]) -> list[str]:
    """Absorb what ReLU never cut off on the samples; notes.

    c = the smallest pre-activation of a channel, where positive. Only where the ReLU's output goes to layers alone, and
    none of them pads it with zeros: a padded 0 would come to stand for c.
    """
    graph, notes = subject.graph, []
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


REWRITE = Rewrite(
    name="absorb",
    title="Bias absorption",
    source="Nagel et al. 2019, arXiv 1906.04721",
    asked=lambda settings: bool(settings.absorb),
    axes=axes,
    apply=apply,
    after=("equalize", "smooth"),
)
