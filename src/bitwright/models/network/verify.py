"""Verifies the written network: every weight decodes as meant, and ONNX Runtime answers as our simulation does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from bitwright.core.measure import Error
from bitwright.errors import CertificationError
from bitwright.events import Event, Progress
from bitwright.files.layers import Layer, from_matrix, spared
from bitwright.files.onnx import decode_layers
from bitwright.models.model import Plan
from bitwright.models.network.graph import Graph
from bitwright.models.network.session import Session
from bitwright.models.network.sink import LayerSink
from bitwright.models.network.walk import simulate

Array = npt.NDArray[Any]
MARGIN = 3.0
"""dB by which the runtime must be nearer to our simulation of the integer network than to the float network; and by
which it may be farther from the float network than our simulation is, where it is not."""
SAME = 40.0
"""dB of SQNR at which the runtime's outputs and our simulation's are the same whatever the float network says."""


def verify(plan: Plan, graph: Graph, sink: LayerSink, stored: onnx.ModelProto) -> Iterator[Event]:
    """`onnx.checker` accepts the file and every weight decodes to what was meant, bit for bit.

    Raises CertificationError.
    """
    path = plan.partial / plan.out.name
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise CertificationError(
            f"onnx.checker refuses it ({str(error).splitlines()[0]})", where=str(path), fix="Please report this"
        ) from error
    check_weights(graph, sink, stored)
    yield Progress("certify", 1, 4, "comparing with our own simulation")


def check_weights(graph: Graph, sink: LayerSink, stored: onnx.ModelProto) -> None:
    """Raise CertificationError where a written weight does not decode to what was meant."""
    layers = _readers(graph, sink)
    found = decode_layers(stored, layers.values())
    for name, q in sink.weights.items():
        wanted = from_matrix(layers[name], np.asarray(q.decode()))
        back = found.get(name)
        if back is None or not np.array_equal(back, wanted):
            raise CertificationError(
                "its codes in the file do not decode to what was meant", where=name, fix="Please report this"
            )


def check_answers(plan: Plan, graph: Graph, sink: LayerSink, feeds: Sequence[dict[str, Array]]) -> dict[str, Any]:
    """ONNX Runtime on the written file against our simulation, output by output; raises where they part.

    Integer kernels round at other places than the simulation, so single codes differ; the network as a whole may not.
    """
    runtime, source = Session(plan.partial / plan.out.name), Session(plan.source)
    simulated = simulate(graph, sink.placement, sink.affines, twin(graph, sink), feeds)
    found = {}
    for name in runtime.outputs:
        near, far, promised = Error(), Error(), Error()
        for i, batch in enumerate(feeds):
            theirs, exact = runtime.run(batch, [name])[name], source.run(batch, [name])[name]
            if not theirs.shape == exact.shape == simulated[name][i].shape:
                continue  # as many rows as the values decide
            near += Error.between(simulated[name][i], theirs)
            far += Error.between(exact, theirs)
            promised += Error.between(exact, simulated[name][i])
        # A network may amplify single codes until both errors look independent; a faulty kernel adds to the error.
        apart = near.noise > 0 and near.sqnr < min(SAME, far.sqnr + MARGIN)
        if apart and far.sqnr < promised.sqnr - MARGIN:
            raise CertificationError(
                f"ONNX Runtime's outputs differ from our simulation ({near.sqnr:.1f} dB) and are worse: "
                f"{far.sqnr:.1f} dB to the float network, {promised.sqnr:.1f} in the simulation",
                where=name,
                fix="A kernel of this machine may saturate (no VNNI): try another target, and please report this",
            )
        found[name] = {"sqnr_db": near.sqnr, "float_sqnr_db": far.sqnr}
    return found


def twin(graph: Graph, sink: LayerSink) -> dict[str, Array]:
    """The constants of the quantized network: decoded weights in their stored shapes, and biases."""
    layers = _readers(graph, sink)
    found = {name: from_matrix(layers[name], np.asarray(q.decode())) for name, q in sink.weights.items()}
    return found | {
        layer.bias: sink.biases[layer.name] for layer in graph.layers if layer.bias and layer.name in sink.biases
    }


def _readers(graph: Graph, sink: LayerSink) -> dict[str, Layer]:
    """{weight: a layer that reads its codes}."""
    others = spared(graph.matrices, sink.placement)
    return {layer.weight: layer for layer in graph.matrices if layer.name not in others}
