"""Channels added until integer kernels run at full speed; the function stays the same.

ONNX Runtime's 8-bit depthwise convolution works on 16 channels at a time and takes several times as long where their
number is no multiple of 16 (measured: 200 channels 2.8 times as long as 208). Channels of weight zero are added to all
layers that share such channels; what reads them multiplies them by zero.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from bitwright.files.layers import Floats, attribute
from bitwright.models.network.arithmetic import Normals
from bitwright.models.network.store import Store

WIDTH = 16
"""Channels that a kernel takes at a time."""
MOST = 1.25
"""Times as many channels as before, at most (or WIDTH): what is added is computed and stored, too."""
KEEPING = {
    "Add", "AveragePool", "Clip", "GlobalAveragePool", "GlobalMaxPool", "LeakyRelu", "MaxPool", "Mul", "Relu", "Sigmoid"
}  # fmt: skip
"""Operators that take each channel for itself."""


def without_padding(w: Floats, shape: tuple[int, ...]) -> Floats | None:
    """The weight of `shape` that `w` is but for added channels of zero; None where it is another."""
    if w.ndim != len(shape) or w.shape[2:] != shape[2:] or any(a < b for a, b in zip(w.shape, shape, strict=True)):
        return None
    found = w[tuple(slice(size) for size in shape)]
    return found if np.count_nonzero(w) == np.count_nonzero(found) else None


class _Groups:
    """Tensors whose channels are the same, by union-find; those of `fixed` groups stay as they are."""

    def __init__(self) -> None:
        self.parent: dict[str, str] = {}
        self.fixed: set[str] = set()

    def root(self, name: str) -> str:
        """The name that stands for the group of `name`."""
        while (up := self.parent.setdefault(name, name)) != name:
            self.parent[name] = name = self.parent.setdefault(up, up)
        return name

    def tie(self, names: list[str]) -> None:
        """Put the groups of `names` together."""
        for name in names[1:]:
            self.parent[self.root(name)] = self.root(names[0])


def pad_channels(graph: onnx.GraphProto, pinned: set[str], normals: Normals) -> int:
    """Add channels in place; how many groups of tensors got some. `pinned` are tensors that others than nodes read.

    `normals`, what folded batch norms wrote, are kept true. Shapes must have been inferred before, and again after.
    """
    store, groups, slow = Store(graph), _Groups(), set[str]()
    fixed = pinned | {value.name for value in graph.input}
    used: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            used[name] = used.get(name, 0) + 1
    for node in graph.node:
        data = [name for name in node.input if name and name not in store.stored]
        kind = _kind(store, node, used)
        if kind == "keeps":
            groups.tie([*data, node.output[0]])
        elif kind == "depthwise":
            groups.tie([node.input[0], node.output[0]])
            slow.add(node.output[0])
        elif kind != "dense":
            fixed.update(data, node.output)
    frozen = {groups.root(name) for name in fixed}
    wanted: dict[str, int] = {}
    for name in slow:
        shape, root = store.shape(name), groups.root(name)
        channels = shape[1] if shape is not None else None
        more = -(channels or 0) % WIDTH
        if channels and more and root not in frozen and channels + more <= max(MOST * channels, WIDTH):
            wanted[root] = more
    for node in graph.node:
        if _kind(store, node, used) in ("dense", "depthwise"):
            _widen(store, node, wanted.get(groups.root(node.input[0]), 0), wanted.get(groups.root(node.output[0]), 0))
    for value in graph.value_info:
        if wanted.get(groups.root(value.name)):
            value.type.tensor_type.shape.dim[1].dim_value += wanted[groups.root(value.name)]
    for name, normal in normals.items():
        mean, deviation = (np.pad(x, (0, wanted.get(groups.root(name), 0))) for x in normal)
        normals[name] = mean, deviation
    return len(wanted)


def _kind(store: Store, node: onnx.NodeProto, used: dict[str, int]) -> str:
    """How `node` treats channels: keeps, dense, depthwise, or something else ("")."""
    shapes = [store.shape(name) for name in (node.input[:1] and [node.input[0], node.output[0]])]
    if node.domain not in ("", "ai.onnx") or len(node.output) != 1 or any(not s or len(s) < 3 for s in shapes):
        return ""
    channels = [shape[1] for shape in shapes if shape]
    if node.op_type == "Conv":
        weight, groups = store.stored.get(node.input[1]), attribute(node, "group", 1)
        own = all(name in store.stored and used[name] == 1 for name in node.input[1:] if name)
        if weight is None or not own or weight.data_type != onnx.TensorProto.FLOAT:
            return ""
        if groups == 1:
            return "dense"
        return "depthwise" if groups == channels[0] == channels[1] else ""
    if node.op_type not in KEEPING:
        return ""
    constants = [numpy_helper.to_array(store.stored[name]) for name in node.input if name in store.stored]
    same = all(
        (store.shape(name) or [0, 0])[1:2] == channels[:1] for name in node.input if name not in store.stored and name
    )
    return "keeps" if same and channels[0] == channels[1] and all(x.size == 1 for x in constants) else ""


def _widen(store: Store, node: onnx.NodeProto, before: int, after: int) -> None:
    """Give a convolution `before` more input channels and `after` more output channels, all of weight zero."""
    groups = attribute(node, "group", 1)
    assert isinstance(groups, int)
    w = store.value(node.input[1])
    sizes = [(0, after), (0, before if groups == 1 else 0)] + [(0, 0)] * (w.ndim - 2)
    store.set(node.input[1], np.pad(w, sizes))
    if len(node.input) > 2 and node.input[2]:
        store.set(node.input[2], np.pad(store.value(node.input[2]), (0, after)))
    for a in node.attribute:
        if a.name == "group" and groups > 1:
            a.i = groups + after
