"""Passes back through an ONNX network: the gradient at the answers of its layers.

ONNX Runtime's inference build has no gradients. What lies between the layers and the outputs is run by torch's
functions (`replay.OPERATORS`), as far as they answer what ONNX Runtime answers; all before it by ONNX Runtime. A layer
whose answer passes an operator that has no such function gets no gradient, and the reason is said: a gradient along
some of its ways only would be a wrong one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper

from bitwright.errors import ModelError
from bitwright.files.layers import Layer
from bitwright.machine import exhausted
from bitwright.models.network.graph import Graph
from bitwright.models.network.prepare import captured
from bitwright.models.network.replay import OPERATORS, attributes_of
from bitwright.models.network.session import Feeds, Session

Tensors = dict[str, torch.Tensor]
CLOSE = 1e-3
"""How far torch's answer of a node may be from ONNX Runtime's, in its largest values."""


class Backward:
    """The way back from `outputs` to the answers (`Layer.raw`) of `layers`; those of them that have none: `absent`."""

    def __init__(self, graph: Graph, layers: Sequence[Layer], outputs: Sequence[str], feeds: Feeds) -> None:
        """`feeds` are a few samples, on which the nodes' functions are tried."""
        self._graph, self._outputs = graph, list(outputs)
        self._constants: Tensors = {}
        unknown = self._try(feeds)
        reached, broken = self._ways(unknown)
        self.absent: dict[str, str] = {}
        """Layers without a gradient, and why."""
        for layer in layers:
            if layer.recurrent:
                self.absent[layer.name] = f"no derivative of {layer.op}"
            elif layer.raw in broken:
                self.absent[layer.name] = broken[layer.raw]
            elif layer.raw not in reached:
                self.absent[layer.name] = "no output depends on it"
        self.layers = [layer for layer in layers if layer.name not in self.absent]
        live = {layer.raw for layer in self.layers}
        self._nodes: list[onnx.NodeProto] = []
        for node in graph.model.graph.node:
            if live & set(node.input) and reached & set(node.output):
                self._nodes.append(node)
                live |= set(node.output)
        made = {name for node in self._nodes for name in node.output}
        self._leaves = [layer.raw for layer in self.layers if layer.raw not in made]
        read = [name for node in self._nodes for name in node.input if name and name not in made]
        self._given = [name for name in dict.fromkeys([*read, *self._leaves]) if name not in graph.constants]
        self._session: Session | None = None

    def run(
        self,
        feeds: Feeds,
        slopes: Callable[[Tensors], Tensors],
        found: Callable[[Layer, torch.Tensor], None],
    ) -> None:
        """One batch: `slopes` makes the gradients at the outputs of what they are, `found` takes those at layers."""
        known = {name: torch.from_numpy(np.array(x)) for name, x in self._values(feeds).items()}
        for name in self._leaves:
            known[name].requires_grad_()
        answers = {layer.raw: layer for layer in self.layers}

        def watch(name: str) -> None:
            if name in answers:
                hooked: Any = known[name]
                hooked.register_hook(lambda g: found(answers[name], g))

        with torch.enable_grad():
            for name in self._leaves:
                watch(name)
            for node in self._nodes:
                for name, x in zip(node.output, self._compute(node, known), strict=False):
                    known[name] = x
                    watch(name)
        outputs = {name: known[name] for name in self._outputs if name in known and known[name].requires_grad}
        given = slopes({name: x.detach() for name, x in outputs.items()})
        ends, starts = [outputs[name] for name in given], [known[name] for name in self._leaves]
        torch.autograd.grad(ends, starts, list(given.values()), allow_unused=True)

    def _values(self, feeds: Feeds) -> dict[str, Any]:
        """What the nodes on the way read from elsewhere."""
        wanted = [name for name in self._given if name not in feeds]
        if wanted and self._session is None:
            self._session = Session(self._graph.with_outputs(wanted), optimize=False, where=self._graph.where)
        found = self._session.run(feeds, wanted) if self._session is not None else {}
        return {name: feeds[name] for name in self._given if name in feeds} | found

    def _compute(self, node: onnx.NodeProto, known: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        values = [known[name] if name in known else self._constant(name) for name in node.input]
        found = OPERATORS[node.op_type](attributes_of(node), *values)
        return found if isinstance(found, tuple) else (found,)

    def _constant(self, name: str) -> torch.Tensor | None:
        if not name:
            return None
        if name not in self._constants:
            self._constants[name] = torch.from_numpy(np.array(self._graph.constant(name)))
        return self._constants[name]

    def _carries(self, name: str) -> bool:
        """Whether a tensor may change a little: integers and truths do not, and constants are not asked."""
        kind = self._graph.values.get(name, ("float32",))[0] or "float32"
        return bool(name) and name not in self._graph.constants and kind.startswith(("float", "bfloat", "double"))

    def _try(self, feeds: Feeds) -> dict[str, str]:
        """{node: why it has no derivative here}, of nodes that write numbers."""
        nodes = [n for n in self._graph.model.graph.node if any(self._carries(name) for name in n.output)]
        unknown = {node.name: _unknown(node) for node in nodes}
        tried = [node for node in nodes if unknown[node.name] is None]
        names = [name for node in tried for name in (*node.input, *node.output) if name]
        names = [name for name in dict.fromkeys(names) if name not in self._graph.constants and name not in feeds]
        values: dict[str, Any] = dict(feeds)
        if names:
            values |= Session(self._graph.with_outputs(names), optimize=False, where=self._graph.where).run(
                feeds, names
            )
        known = {n: torch.from_numpy(np.array(x)) for n, x in values.items() if getattr(x, "dtype", "O") != "O"}
        for node in tried:
            unknown[node.name] = self._differs(node, known)
        return {name: why for name, why in unknown.items() if why is not None}

    def _differs(self, node: onnx.NodeProto, known: Mapping[str, torch.Tensor]) -> str | None:
        """Why torch's function cannot stand for a node, where it cannot."""
        try:
            with torch.no_grad():
                found = self._compute(node, known)
        except (ModelError, RuntimeError) as error:
            if exhausted(error):
                raise
            return f"no derivative of {node.op_type} as it is used here"
        wanted = [known[name] for name in node.output if name]
        same = len(wanted) == len(found) and all(map(_alike, wanted, found))
        return None if same else f"torch answers otherwise at {node.op_type}"

    def _ways(self, unknown: Mapping[str, str]) -> tuple[set[str], dict[str, str]]:
        """The tensors that the outputs depend on, and {tensor: why some way from it to them has no derivative}."""
        reached, broken = set(self._outputs), dict[str, str]()
        for node in reversed(self._graph.model.graph.node):
            outputs = [name for name in node.output if name in reached and self._carries(name)]
            if not outputs:
                continue
            why = unknown.get(node.name) or next((broken[name] for name in outputs if name in broken), None)
            for name in filter(self._carries, _read(node)):
                reached.add(name)
                if why is not None:
                    broken.setdefault(name, why)
        return reached, broken


def _unknown(node: onnx.NodeProto) -> str | None:
    """Why no function of torch's is known for a node; None where one is."""
    known = node.domain in ("", "ai.onnx") and node.op_type in OPERATORS
    return None if known else f"no derivative of {node.op_type}"


def _alike(wanted: torch.Tensor, found: torch.Tensor) -> bool:
    """Whether two answers are the same, but for rounding."""
    if wanted.shape != found.shape or wanted.dtype != found.dtype:
        return False
    scale = CLOSE * float(wanted.abs().nan_to_num(0, 0, 0).max()) if wanted.numel() else 0.0
    return torch.allclose(wanted, found, rtol=0, atol=scale, equal_nan=True)


def _read(node: onnx.NodeProto) -> Iterable[str]:
    """The tensors that a node reads, its branches included."""
    return {*node.input, *captured(helper.make_graph([node], "shell", [], []))} - {""}
