"""The torch definitions of the bundled demo networks: one place for training, learned steps and tests.

All are small on purpose and yet hold what an integer converter has to master: batch norm after every convolution (to
fold), residual sums (two scales meet), depthwise layers (channel ranges that differ widely), pooling and a linear head.
The bundled ONNX files have this module's parameter names, so `load` puts their weights back into a module.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from bitwright.errors import ModelError

Network = TypeVar("Network", bound=nn.Module)


def convolution(inputs: int, outputs: int, size: int = 3, *, groups: int = 1, stride: int = 1, flat: bool = False,
                relu: bool = True) -> nn.Sequential:  # fmt: skip
    """Convolution without bias, batch norm and (unless `relu` is False) ReLU; 1-D where `flat`, else 2-D."""
    kind: type[nn.Conv1d] | type[nn.Conv2d] = nn.Conv1d if flat else nn.Conv2d
    norm: type[nn.BatchNorm1d] | type[nn.BatchNorm2d] = nn.BatchNorm1d if flat else nn.BatchNorm2d
    layers: list[nn.Module] = [
        kind(inputs, outputs, size, stride=stride, padding=size // 2, groups=groups, bias=False),
        norm(outputs),
    ]
    return nn.Sequential(*layers, *([nn.ReLU()] if relu else []))


class Residual(nn.Module):
    """relu(x + body(x)) for a body that keeps the shape and ends in batch norm."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, ...] -> [N, C, ...]."""
        out: Tensor = self.relu(x + self.body(x))
        return out


class Digits(nn.Module):
    """Handwritten digits: pixels [N, 1, 8, 8] in 0 .. 1 -> logits [N, 10]; 18.6 k parameters.

    A residual block of full convolutions (ResNet, arXiv 1512.03385), max pooling, a depthwise-separable layer and a
    residual block of two more (MobileNet, arXiv 1704.04861), the mean over the image, a linear head.
    """

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        wide = 2 * width
        self.stem = convolution(1, width)
        self.block = Residual(convolution(width, width), convolution(width, width, relu=False))
        self.pool = nn.MaxPool2d(2)
        self.widen = nn.Sequential(convolution(width, width, groups=width), convolution(width, wide, 1))
        self.separable = Residual(
            convolution(wide, wide, groups=wide),
            convolution(wide, wide, 1),
            convolution(wide, wide, groups=wide),
            convolution(wide, wide, 1, relu=False),
        )
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(wide, 10)

    def forward(self, image: Tensor) -> Tensor:
        """[N, 1, 8, 8] -> [N, 10]."""
        x = self.widen(self.pool(self.block(self.stem(image))))
        logits: Tensor = self.head(self.mean(self.separable(x)).flatten(1))
        return logits


class Words(nn.Module):
    """Spoken words: log-mel features [N, mels, frames] -> logits [N, 10]; 51.7 k parameters.

    The frequency bands are the channels of 1-D convolutions over time: a residual network of depthwise-separable
    layers (Hello Edge's DS-CNN, arXiv 1711.07128; MatchboxNet, arXiv 2004.08531), the mean over time, a linear head.
    """

    def __init__(self, mels: int = 40, width: int = 64) -> None:
        super().__init__()
        self.stem = convolution(mels, width, 5, stride=2, flat=True)
        self.first = self._block(width, 9)
        self.pool = nn.MaxPool1d(2)
        self.second = self._block(width, 7)
        self.third = self._block(width, 7)
        self.wide = convolution(width, 2 * width, 1, flat=True)
        self.mean = nn.AdaptiveAvgPool1d(1)
        self.head = nn.Linear(2 * width, 10)

    @staticmethod
    def _block(width: int, size: int) -> Residual:
        return Residual(
            convolution(width, width, size, groups=width, flat=True),
            convolution(width, width, 1, flat=True),
            convolution(width, width, size, groups=width, flat=True),
            convolution(width, width, 1, flat=True, relu=False),
        )

    def forward(self, features: Tensor) -> Tensor:
        """[N, mels, frames] -> [N, 10]."""
        x = self.third(self.second(self.pool(self.first(self.stem(features)))))
        logits: Tensor = self.head(self.mean(self.wide(x)).flatten(1))
        return logits


class Scenes(nn.Module):
    """Digits in drawn scenes: pixels [N, 1, 96, 96] in 0 .. 1 -> boxes [N, 14, 144], one per cell of 8 x 8 pixels.

    A raw head as YOLOv8's (columns of cx, cy, width, height in pixels, then a probability for each of ten classes),
    decoded as in YOLOX (arXiv 2107.08430): a centre from the cell's corner, the exponential of a size. Two branches,
    for boxes and classes, stand on residual and depthwise-separable layers.
    """

    grid: Tensor

    def __init__(self, width: int = 16, cells: int = 12, step: int = 8) -> None:
        super().__init__()
        wide, self.step = 3 * width, step
        self.stem = nn.Sequential(convolution(1, width, stride=2), convolution(width, 2 * width, stride=2))
        self.fine = Residual(
            convolution(2 * width, 2 * width, groups=2 * width),
            convolution(2 * width, 2 * width, 1),
            convolution(2 * width, 2 * width, relu=False),
        )
        self.narrow = convolution(2 * width, wide, stride=2)
        self.coarse = nn.Sequential(*(self._block(wide) for _ in range(3)))
        self.boxes = nn.Sequential(self._branch(wide), nn.Conv2d(wide, 4, 1))
        self.classes = nn.Sequential(self._branch(wide), nn.Conv2d(wide, 10, 1))
        y, x = torch.meshgrid(torch.arange(cells), torch.arange(cells), indexing="ij")
        self.register_buffer("grid", torch.stack([x, y]).flatten(1)[None].float(), persistent=False)

    @staticmethod
    def _block(wide: int) -> Residual:
        return Residual(
            convolution(wide, wide, 5, groups=wide),
            convolution(wide, wide, 1),
            convolution(wide, wide, 5, groups=wide),
            convolution(wide, wide, 1, relu=False),
        )

    @staticmethod
    def _branch(wide: int) -> nn.Sequential:
        return nn.Sequential(convolution(wide, wide, groups=wide), convolution(wide, wide, 1))

    def raw(self, scene: Tensor) -> tuple[Tensor, Tensor]:
        """[N, 1, 96, 96] -> boxes [N, 4, 144] in pixels (cx, cy, width, height) and class logits [N, 10, 144]."""
        x = self.coarse(self.narrow(self.fine(self.stem(scene))))
        boxes, logits = self.boxes(x).flatten(2), self.classes(x).flatten(2)
        return torch.cat([boxes[:, :2] + self.grid, boxes[:, 2:].exp()], 1) * self.step, logits

    def forward(self, scene: Tensor) -> Tensor:
        """[N, 1, 96, 96] -> [N, 14, 144]."""
        boxes, logits = self.raw(scene)
        return torch.cat([boxes, logits.sigmoid()], 1)


def load(network: Network, path: Path) -> Network:
    """Fill `network` with the initializers of the ONNX file at `path` that was exported from it; eval mode.

    Raises ModelError where names or shapes differ.
    """
    import onnx

    stored = {i.name: onnx.numpy_helper.to_array(i) for i in onnx.load(str(path)).graph.initializer}
    state = network.state_dict()
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            continue  # a counter of training steps, which no inference file holds
        found = stored.get(name)
        if found is None or found.shape != tuple(value.shape):
            raise ModelError(f"holds no {name} of shape {tuple(value.shape)}", where=str(path), fix="Export it again")
        state[name] = torch.from_numpy(found.copy())
    network.load_state_dict(state)
    return network.eval()


def export(network: nn.Module, example: Tensor, path: Path, inputs: str, outputs: str = "logits") -> None:
    """Write `network` as a float ONNX file, opset 17, with batch norm kept as nodes of its own.

    `example` is a batch of the input called `inputs`; only the size of the batch stays open. The classic exporter needs
    no further package and keeps the parameters' names; PRESERVE keeps it from folding batch norm, which is our work.
    """
    import warnings

    import onnx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "legacy", and that the module is exported as it stands
        torch.onnx.export(
            network.eval(),
            (example,),
            str(path),
            input_names=[inputs],
            output_names=[outputs],
            dynamic_axes={name: {0: "batch"} for name in (inputs, outputs)},
            opset_version=17,
            dynamo=False,
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
        )
    model = onnx.load(str(path))
    for node in model.graph.node:
        node.ClearField("doc_string")  # source lines with the paths of this machine
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
