"""Estimates for an ONNX network's plan: memory, time, and layers that are not worth rounding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import torch

from bitwright import machine
from bitwright.files.layers import Layer, Placement
from bitwright.models.model import Estimate, Plan
from bitwright.models.network.graph import Graph
from bitwright.models.network.walk import BUDGET
from bitwright.models.samples.open import Samples

SLOPES = 256
"""Slopes that are drawn under a budget, at least as many as there are samples: of few samples, several each."""
ENTRANCE = 0.05
"""Share of a network's products up to which a layer at its entrance stays float."""
BASE = 392 * machine.MIB
"""Resident memory of Python, torch and ONNX Runtime with hardly a network: fresh processes that quantized the bundled
digits network peaked at 391 MiB."""
SECONDS = 4.0
"""Seconds that a hardly busy processor takes for a network of no size: imports, sessions, latency and profile."""
HELD = 16
"""Copies of the widest tensor of all samples that are alive in a walk, sessions' arenas included (measured on
ResNet-20)."""
KEPT = 2
"""Copies of all values of a batch that are alive on the way back."""
COPIES = 7
"""Copies of a network in memory at once: as read, prepared, with outputs, in sessions, written and read back."""


def positions(graph: Graph, layer: Layer) -> int:
    """How often the matrix of `layer` is used for one sample; open dimensions count once where there was no trial."""
    if layer.recurrent:
        inputs = (graph.values.get(graph.producers[layer.raw].input[1], ("", None))[1] or (1,))[-1]
        return _numbers(graph, layer.input) // (inputs or 1) or 1
    return _numbers(graph, layer.raw) // layer.outputs or 1


def work(graph: Graph) -> dict[str, int]:
    """Multiply-accumulates of each node with layers for one sample; open dimensions count once."""
    found: dict[str, int] = {}
    for layer in graph.matrices:
        found[layer.node] = found.get(layer.node, 0) + positions(graph, layer) * layer.rows * layer.columns
    return found


def share(graph: Graph, placement: Placement) -> float:
    """The share of all multiply-accumulates that `placement` does in integers, 0 to 1.

    Besides the layers, products of two activations count, which may stay float.
    """
    cost = {node.name: _product(graph, node) for node in graph.model.graph.node} | work(graph)
    integer = placement.nodes | placement.dynamic
    return sum(each for name, each in cost.items() if name in integer) / (sum(cost.values()) or 1)


def _product(graph: Graph, node: onnx.NodeProto) -> int:
    """Multiply-accumulates of a node that is no layer, for one sample; open dimensions count once."""
    if node.op_type in ("LSTM", "GRU", "RNN"):
        steps = (graph.values.get(node.input[0], ("", None))[1] or (1,))[0] or 1
        shapes = [graph.values.get(name, ("", None))[1] or () for name in node.input[1:3]]
        return steps * sum(int(np.prod([n or 1 for n in shape], dtype=np.int64)) for shape in shapes)
    if node.op_type in ("MatMul", "Gemm", "Conv", "ConvTranspose"):
        shapes = [graph.values.get(name, ("", None))[1] or () for name in (node.output[0], node.input[0])]
        inner = (shapes[1][-1] if node.op_type in ("MatMul", "Gemm") and shapes[1] else 1) or 1
        return inner * int(np.prod([n or 1 for n in shapes[0][1:]], dtype=np.int64))
    return 0


def entrance(graph: Graph, keep: Sequence[str]) -> list[str]:
    """The layers that read the network's inputs and do at most ENTRANCE of its products.

    Rounding an input costs every layer behind it, and a layer of few input channels gains little from integers.
    """
    cost = work(graph)
    least = ENTRANCE * sum(cost.values())
    first = [layer for layer in graph.layers if layer.input in graph.inputs and layer.name not in keep]
    return [layer.name for layer in first if cost[layer.name] <= least]


def estimate(plan: Plan, graph: Graph, samples: tuple[Samples, ...] | None, placement: Placement) -> Estimate:
    """Memory at the heaviest moment, and wall time from this machine's measured rate of matrix products."""
    if samples is None:
        return Estimate(BASE + plan.libraries + COPIES * plan.model.source_bytes, SECONDS)
    calibration, *heldout = samples
    count, judged = len(calibration) * calibration.calls, sum(len(part) * part.calls for part in heldout)
    batch = min(calibration.batch, count)
    values = _values(graph)
    inputs = sum(values[name] for name in graph.inputs if name in values)
    observed = sum(values.get(name, 0) for name in placement.activations)
    widest = max(values.values(), default=0)
    items = [(item, positions(graph, item.part)) for item in plan.items.values()]
    unfolded = max((each * item.columns * 4 for item, each in items), default=0)
    # Observing holds all observed tensors of a batch; the walk holds tensors of all batches, up to its budget each,
    # the unfolded input of one layer for one batch, and its moments: of two halves, about their means, and factored.
    square = max((4 * item.columns * (item.part.groups * item.columns + item.rows) for item, _ in items), default=0)
    walk = HELD * min(BUDGET, widest * count) + 3 * batch * unfolded + plan.effort.corrects * 6 * square
    memory = BASE + plan.libraries + COPIES * plan.model.source_bytes + inputs * count + max(2 * batch * observed, walk)
    if plan.effort.weighing:
        memory = max(memory + grams(plan), weighing(plan, graph, calibration))
    forward = 2 * sum(work(graph).values())
    asking = [(item, each) for item, each in items if plan.effort.corrects or item.method.needs != "nothing"]
    moments = sum(2 * each * item.columns * (item.columns + plan.effort.corrects * item.rows) for item, each in asking)
    solve = sum(2 * item.rows * item.columns**2 * item.method.work(item.options) for item, _ in items)
    rate = machine.matmul_rate(torch.float32, "cpu")
    # Two passes observe, six look at each layer; convolutions run at about two thirds of a product's rate.
    passes = forward * (8 * count + 2 * judged) + moments * count
    # A pass forward, another by torch's functions, and one back.
    passes += 3 * forward * min(plan.effort.weighing, count)
    if plan.unspent:
        forms = max(map(len, plan.model.choices(plan).values()))
        # What each form loses; a walk, a pass with each form's errors, and for each slope one forward and one back.
        needed = weighing(plan, graph, calibration)
        memory = (max(memory, needed) if needed <= plan.room else memory) + 4 * forms * plan.weights
        passes += forward * (3 + forms + 3 * draws(count)) * count
    seconds = SECONDS + passes / (rate / 1.5) + solve / (rate / 4)
    return Estimate(memory, seconds)


def draws(count: int) -> int:
    """Slopes that are drawn for each of `count` samples under a budget."""
    return max(1, SLOPES // count)


def weighing(plan: Plan, graph: Graph, samples: Samples) -> int:
    """Bytes of memory that learning how much outputs count takes: all values of one batch, with a way back."""
    values, batch = _values(graph), min(samples.batch, len(samples))
    inputs = sum(values[name] for name in graph.inputs if name in values) * len(samples) * samples.calls
    passing = batch * (KEPT * sum(values.values()) + 4 * max(values.values(), default=0))
    return BASE + plan.libraries + COPIES * plan.model.source_bytes + inputs + passing + grams(plan)


def grams(plan: Plan) -> int:
    """Bytes of the output-side curvature of all layers."""
    parts = [item.part for item in plan.matrices if item.method.weighs]
    return sum(4 * part.rows * (part.rows // part.groups) for part in parts)


def _values(graph: Graph) -> dict[str, int]:
    """Bytes of each tensor for one sample."""
    return {name: 4 * _numbers(graph, name) for name in graph.values if name not in graph.constants}


def _numbers(graph: Graph, name: str) -> int:
    """Numbers in a tensor for one sample."""
    shape = graph.values.get(name, ("", None))[1] or ()
    return graph.sizes.get(name) or int(np.prod([n or 1 for n in shape[1:]], dtype=np.int64))
