"""One sample through the float network while it is planned: whether it runs, repeats itself, and how large it gets.

What fails here would fail in the run, after the plan had said that all is well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx

from bitwright.core.measure import Error
from bitwright.errors import DataError, ModelError, TensorError
from bitwright.files.layers import Layer, attribute
from bitwright.files.opset import OLDEST
from bitwright.models.network.graph import Graph
from bitwright.models.network.observe import require_finite
from bitwright.models.network.session import Feeds, Session

LARGEST = 1e15
"""Magnitude up to which the squares of a layer's values can be summed in float32, which ends at 3.4e38."""
SAME = 20.0
"""dB of SQNR that preparing must keep: float16 networks come near to it, another function does not."""
MARGIN = 6.0
"""dB by which it may lie below what ONNX Runtime's optimizations keep."""
RANDOM = (
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
)  # fmt: skip
EVALUATION = "Export it in evaluation mode (network.eval() in PyTorch)"


def attempt(graph: Graph, layers: Sequence[Layer], rounded: Sequence[str], feeds: Feeds, count: int) -> None:
    """Run `graph` on `feeds` (`count` samples) and note its tensors' sizes in it; `layers` and `rounded` are quantized.

    Raises ModelError where ONNX Runtime refuses the network, where it trains or draws random numbers, DataError where
    the feeds do not fit, TensorError where values of a quantized tensor are not finite or too large to be squared.
    """
    require_evaluation(graph.model.graph, graph.where)
    session = Session(graph.with_outputs(list(graph.producers)), optimize=False, where=graph.where)
    found = session.run(feeds)
    graph.sizes = {name: int(np.size(x)) // count for name, x in found.items() if isinstance(x, np.ndarray)}
    seen = {**feeds, **found}
    require_finite(graph, feeds, {name: seen[name] for name in rounded if name in seen})
    for layer in layers:
        for name in (layer.input, layer.raw):
            require_square(seen[name], layer.name, "values")
    again = session.run(feeds, list(graph.outputs))
    if any(not np.array_equal(found[name], x, equal_nan=x.dtype.kind == "f") for name, x in again.items()):
        node = next((node for node in graph.model.graph.node if node.op_type in RANDOM), None)
        why = f": {node.op_type} draws new numbers" if node else ""
        raise ModelError(
            f"it answers differently each time it runs{why}, so nothing can be compared",
            where=f"{graph.where}: {node.name}" if node else graph.where,
            fix="Feed the noise as an input, or " + EVALUATION[0].lower() + EVALUATION[1:],
        )


def require_same(graph: Graph, source: Path, feeds: Feeds) -> None:
    """Raise ModelError where the prepared network answers `feeds` otherwise than the file `source` it came from.

    Answers that are rounding noise alone differ between ONNX Runtime's own optimizations, too: they say nothing.
    """
    found, wanted = Session(graph.model, where=graph.where).run(feeds), Session(source).run(feeds)
    # Indices that flip, and sizes that depend on them, say little; what is not finite is named elsewhere.
    floats = [name for name, x in wanted.items() if x.dtype.kind == "f" and np.isfinite(x).all()]
    numbers = [name for name in floats if wanted[name].shape == found[name].shape]
    apart = {name: level for name in numbers if (level := Error.between(wanted[name], found[name]).sqnr) < SAME}
    if not apart:
        return
    plain = Session(source, optimize=False).run(feeds, list(apart))
    for name, level in apart.items():
        if level < Error.between(wanted[name], plain[name]).sqnr - MARGIN:
            raise ModelError(
                "preparing it changed what it computes", where=f"{graph.where}: {name}",
                fix=f"Export it with opset {OLDEST} or newer, in float32, and please report this",
            )  # fmt: skip


def require_evaluation(graph: onnx.GraphProto, where: str) -> None:
    """Raise ModelError for a node in training mode: Dropout that drops, batch norm by the batch's own statistics."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.domain:
            continue
        training = False
        if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2] in stored:
            training = bool(onnx.numpy_helper.to_array(stored[node.input[2]]).item())
        if node.op_type == "BatchNormalization":
            training = bool(attribute(node, "training_mode", 0)) or sum(1 for name in node.output if name) > 1
        if training:
            raise ModelError(f"{node.op_type} in training mode", where=f"{where}: {node.name}", fix=EVALUATION)


def require_square(x: np.ndarray, name: str, what: str) -> None:  # type: ignore[type-arg]
    """Raise TensorError where numbers of layer `name` are so large that sums of their squares overflow float32."""
    largest = float(np.abs(x).max(initial=0))
    if largest > LARGEST:
        raise TensorError(
            f"{what} up to {largest:.2g}: no network works with such numbers, and their squares overflow float32",
            where=name, fix="Look for huge weights in it and before it: they are damaged",
        )  # fmt: skip


def require_signal(batches: Iterable[Feeds], names: Sequence[str], where: str) -> None:
    """Raise DataError where the inputs `names` are zero in all samples; reads as far as to the first that is not."""
    if names and not any(np.any(feeds[name]) for feeds in batches for name in names):
        what = f"input {' and '.join(map(repr, names))} {'is' if len(names) == 1 else 'are'} zero in every sample"
        raise DataError(what, where=where, fix="Calibrate on samples as the network meets them", key="data.source")
