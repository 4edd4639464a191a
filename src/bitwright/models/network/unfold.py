"""A layer's input as the rows its matrix is multiplied by: convolution written as a product of matrices (im2col)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from bitwright.files.layers import Layer

Array = npt.NDArray[Any]


def unfold(layer: Layer, x: Array) -> torch.Tensor | None:
    """`x` (the input of `layer`) as float32 [groups, positions, inputs per group * kernel], padding included.

    `matrix[g] @ row` for each row is then the layer's product. None for a ConvTranspose, whose inputs overlap in its
    outputs instead.
    """
    if layer.op == "ConvTranspose":
        return None
    t = torch.from_numpy(np.ascontiguousarray(x, np.float32))
    if layer.recurrent:  # `x` are its rows
        return t
    if layer.op != "Conv":
        return t.reshape(1, -1, t.shape[-1])
    rank = len(layer.kernel)
    strides = layer.strides or (1,) * rank
    dilations = layer.dilations or (1,) * rank
    t = functional.pad(t, padding(layer, t.shape[2:], strides, dilations))
    for i in range(rank):
        span = dilations[i] * (layer.kernel[i] - 1) + 1
        t = t.unfold(2 + i, span, strides[i])
    # Now [N, C, positions..., spans...]: of each span every dilation-th element belongs to the kernel.
    for i in range(rank):
        if dilations[i] > 1:
            t = t.index_select(2 + rank + i, torch.arange(0, t.shape[2 + rank + i], dilations[i]))
    t = t.reshape(len(t), layer.groups, -1, *t.shape[2:])
    t = t.permute(1, 0, *range(3, 3 + rank), 2, *range(3 + rank, 3 + 2 * rank))
    return t.reshape(layer.groups, int(np.prod(t.shape[1 : 2 + rank])), -1)


def multiply(layer: Layer, matrix: Array, rows: torch.Tensor) -> torch.Tensor:
    """`rows` as of `unfold` times `matrix` [outputs, inputs per group * kernel]: [positions, outputs]."""
    w = torch.from_numpy(np.array(matrix)).reshape(layer.groups, -1, matrix.shape[1])
    return (rows @ w.mT).transpose(0, 1).reshape(-1, layer.outputs)


def outputs_as_rows(layer: Layer, y: Array) -> torch.Tensor:
    """The product of `layer` as float32 [positions, outputs], in the order of `unfold`'s rows."""
    t = torch.from_numpy(np.ascontiguousarray(y, np.float32))
    if layer.op in ("Conv", "ConvTranspose"):
        t = t.movedim(1, -1)
    return t.reshape(-1, layer.outputs)


def padding(layer: Layer, sizes: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> list[int]:
    """What torch's `pad` must add so that no padding is left to do: last axis first, (begin, end)."""
    rank = len(layer.kernel)
    pads = list(layer.pads) or [0] * (2 * rank)
    if layer.auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        for i in range(rank):
            span = dilations[i] * (layer.kernel[i] - 1) + 1
            total = max((-(-sizes[i] // strides[i]) - 1) * strides[i] + span - sizes[i], 0)
            less = total // 2
            pads[i], pads[rank + i] = (less, total - less) if layer.auto_pad == "SAME_UPPER" else (total - less, less)
    elif layer.auto_pad == "VALID":
        pads = [0] * (2 * rank)
    return [p for i in reversed(range(rank)) for p in (pads[i], pads[rank + i])]
