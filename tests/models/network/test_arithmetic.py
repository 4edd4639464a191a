"""Arithmetic with constants, however it is spelled, costs nothing or runs in integers; the function stays the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx
import pytest

from bitwright.models.network.graph import Graph
from bitwright.models.network.placement import place
from bitwright.models.network.session import Session
from tests import networks
from tests.networks import Net


def scalar(n: Net, x: float) -> str:
    return n.value(np.float32(x))


def relu6(n: Net, x: str) -> str:
    return str(n.add("Clip", x, scalar(n, 0), scalar(n, 6)))


def clamped(n: Net, x: str) -> str:
    return str(n.add("Min", scalar(n, 6), n.add("Max", x, scalar(n, 0))))


SWISHES: dict[str, Callable[[Net, str], str]] = {
    "operator": lambda n, x: n.add("HardSwish", x),
    "hard sigmoid": lambda n, x: n.add("Mul", n.add("HardSigmoid", x, alpha=1 / 6), x),
    "paddle": lambda n, x: n.add("Div", n.add("Mul", x, relu6(n, n.add("Add", x, scalar(n, 3)))), scalar(n, 6)),
    "commuted": lambda n, x: n.add("Mul", scalar(n, 1 / 6), n.add("Mul", relu6(n, n.add("Add", scalar(n, 3), x)), x)),
    "gate first": lambda n, x: n.add("Mul", n.add("Div", relu6(n, n.add("Add", x, scalar(n, 3))), scalar(n, 6)), x),
    "value first": lambda n, x: n.add("Mul", n.add("Div", x, scalar(n, 6)), relu6(n, n.add("Add", x, scalar(n, 3)))),
    "subtracted": lambda n, x: n.add("Mul", n.add("Div", relu6(n, n.add("Sub", x, scalar(n, -3))), scalar(n, 6)), x),
    "line first": lambda n, x: n.add("Mul", x, n.add("Clip", n.add("Add", n.add("Mul", x, scalar(n, 1 / 6)),
                                                                  scalar(n, 0.5)), scalar(n, 0), scalar(n, 1))),
    "min and max": lambda n, x: n.add("Div", n.add("Mul", x, clamped(n, n.add("Add", x, scalar(n, 3)))), scalar(n, 6)),
}  # fmt: skip


def between(build: Callable[[Net, str], str], channels: int = 16, outputs: int = 8) -> onnx.ModelProto:
    """A network with `build` between a convolution and one that pads."""
    n = Net()
    x = build(n, n.conv("x", 3, channels))
    return n.model(networks.IMAGE, [n.conv(x, channels, outputs)])


def prepared(model: onnx.ModelProto) -> tuple[Graph, Counter[str]]:
    """The prepared graph, whose answers are the model's, and its operators."""
    feeds = networks.feeds(model)
    before = Session(model, optimize=False).run(feeds)
    graph = Graph(model)
    onnx.checker.check_model(graph.model, full_check=True)
    for name, after in Session(graph.model, optimize=False).run(feeds).items():
        assert np.abs(np.subtract(before[name], after)).max() < 1e-5 * np.abs(before[name]).max()
    return graph, Counter(node.op_type for node in graph.model.graph.node)


@pytest.mark.parametrize("spelling", SWISHES)
def test_hard_swish_runs_in_integers_however_it_is_spelled(spelling: str) -> None:
    graph, operators = prepared(between(SWISHES[spelling]))
    assert operators == {"Conv": 3, "Clip": 1, "Mul": 1}
    assert not place(graph).floats


def gate(n: Net, x: str) -> str:
    line = n.add("Add", n.conv(n.add("GlobalAveragePool", x), 16, 16, 1), scalar(n, 3))
    return str(n.add("Mul", x, n.add("Div", relu6(n, line), scalar(n, 6))))


def channels(n: Net, x: str) -> str:
    scaled = n.add("Mul", x, n.weight(16, 1, 1, scale=0.3, shift=1))
    return str(n.add("Add", scaled, n.weight(1, 16, 1, 1, scale=1)))


FREE: dict[str, tuple[Callable[[Net, str], str], dict[str, int]]] = {
    "a gate behind its own layer": (gate, {"Conv": 3, "GlobalAveragePool": 1, "Clip": 1, "Mul": 1}),
    "a factor and a sum per channel": (channels, {"Conv": 2}),
    "one minus": (lambda n, x: n.add("Sub", scalar(n, 1), n.add("Neg", x)), {"Conv": 2}),
    "batch norm behind a sum": (lambda n, x: n.norm(channels(n, x), 16), {"Conv": 2}),
    "a factor behind relu": (lambda n, x: n.add("Mul", n.add("Relu", x), scalar(n, 2.5)), {"Conv": 2, "Relu": 1}),
    "a factor before a padded layer": (
        lambda n, x: n.add("Mul", n.add("Sigmoid", x), scalar(n, 2.5)), {"Conv": 2, "Sigmoid": 1}
    ),
    "a sum before one": (
        lambda n, x: n.add("Add", n.add("Sigmoid", x), scalar(n, -0.5)), {"Conv": 3, "Sigmoid": 1}
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FREE)
def test_constants_go_into_layers(case: str) -> None:
    build, wanted = FREE[case]
    graph, operators = prepared(between(build))
    assert operators == wanted and not place(graph).floats


def test_a_sum_goes_into_a_layer_that_does_not_pad() -> None:
    n = Net()
    x = n.add("Add", n.add("Mul", n.add("Sigmoid", n.conv("x", 3, 8)), scalar(n, 4)), scalar(n, -2))
    y = n.add("Flatten", n.add("GlobalAveragePool", n.conv(x, 8, 8, 1)))
    y = n.add("Add", n.add("Div", n.add("Sigmoid", y), scalar(n, 3)), scalar(n, 1))
    _, operators = prepared(n.model(networks.IMAGE, [n.add("Gemm", y, n.weight(8, 5), n.weight(5))]))
    assert operators == {"Conv": 2, "Sigmoid": 2, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1}


def test_what_others_read_stays() -> None:
    """A network output, a second reader, a weight that two layers share: none of them changes."""
    n = Net()
    x = n.conv("x", 3, 4)
    seen = n.add("Mul", x, scalar(n, 2))
    w = n.weight(4, 4, 3, 3)
    shared = [n.add("Conv", seen, w, pads=[1] * 4), n.add("Mul", n.add("Conv", x, w, pads=[1] * 4), scalar(n, 3))]
    _, operators = prepared(n.model(networks.IMAGE, [seen, n.add("Add", *shared), shared[1]]))
    assert operators == {"Conv": 3, "Mul": 2, "Add": 1}


def test_arithmetic_far_from_convolutions_is_left_as_it_is() -> None:
    n = Net()
    x = n.add("MatMul", "x", n.weight(8, 8))
    scores = n.add(
        "Softmax", n.add("Mul", n.add("MatMul", x, n.add("Transpose", x, perm=[0, 1, 3, 2])), scalar(n, 0.3))
    )
    y = n.add("Add", n.add("Mul", n.add("Tanh", n.add("MatMul", scores, x)), n.weight(8)), n.weight(8))
    model = n.model({"x": ["batch", 2, 4, 8]}, [y])
    wanted = [node.SerializeToString() for node in model.graph.node]
    graph, _ = prepared(model)
    assert [node.SerializeToString() for node in graph.model.graph.node] == wanted


@pytest.mark.parametrize("highest", [0.9, 1.5])
def test_prelu_runs_in_integers(highest: float) -> None:
    """Slopes above 1 make it concave, which takes one more convolution."""
    slopes = np.linspace(-0.5, highest, 16, dtype=np.float32).reshape(16, 1, 1)
    graph, operators = prepared(between(lambda n, x: n.add("PRelu", x, n.value(slopes))))
    assert operators == {"Conv": 3 + (highest > 1), "Relu": 1, "Add": 1}
    assert not place(graph).floats


def test_prelu_of_one_slope_is_leaky_relu() -> None:
    n = Net()
    x = n.add("PRelu", n.add("Gemm", "x", n.weight(6, 8)), n.value(np.full(8, 0.2, np.float32)))
    _, operators = prepared(n.model({"x": ["batch", 6]}, [n.add("Gemm", x, n.weight(8, 4))]))
    assert operators == {"Gemm": 2, "LeakyRelu": 1}
