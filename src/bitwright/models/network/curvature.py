"""Output-side curvature of an ONNX network: what an error at the outputs of its layers costs.

Of every layer G = E[g g^T] over positions is gathered, g = the gradient at its answer [outputs], of the random slopes
at the network's own answers that `slopes` tells; squared errors of several outputs count in shares of their own power.
An error E of the layer costs about tr(G E H E^T) / 2 (Martens and Grosse 2015, https://arxiv.org/abs/1503.05671; of
convolutions Grosse and Martens 2016, https://arxiv.org/abs/1602.01407). Convolutions of several groups have a G for
each; one output alone needs none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch

from bitwright.core.stats import add_gram, mirror
from bitwright.events import Event, Note, Progress
from bitwright.files.layers import Layer
from bitwright.models.model import Item
from bitwright.models.network.backward import Backward, Tensors
from bitwright.models.network.graph import Graph
from bitwright.models.network.session import Feeds, Session
from bitwright.models.network.slopes import SCORED, counting, scored, signs
from bitwright.models.network.unfold import outputs_as_rows


class Curvature:
    """G of the layers of `items`, by weight; `absent` names layers without one, and why."""

    def __init__(self, graph: Graph, items: Sequence[Item], task: str, seed: int) -> None:
        """`task` is that of the samples; `seed` decides the signs."""
        self.absent: dict[str, str] = {}
        self._graph, self._seed = graph, seed
        self._layers = [item.part for item in items if item.part.outputs > item.part.groups]
        self._names = {layer.name for layer in self._layers}
        self._scored = task in SCORED
        self._outputs = counting(graph, task)
        self._sums: dict[str, list[torch.Tensor]] = {}
        self._counts: dict[str, int] = {}
        self._found: dict[str, list[torch.Tensor]] = {}

    def compute(self, batches: Sequence[Feeds], few: Feeds) -> Iterator[Event]:
        """Gather from `batches`; `few` are the samples on which it is tried how to go back."""
        # Always from all layers, so that numbers are the same to the bit whichever of them are asked for.
        backward = Backward(self._graph, self._graph.matrices, self._outputs, few)
        self.absent = {name: why for name, why in backward.absent.items() if name in self._names}
        powers, generator = self._powers(batches), torch.Generator().manual_seed(self._seed)
        for i, feeds in enumerate(batches if len(self.absent) < len(self._layers) else ()):
            backward.run(feeds, partial(self._slopes, powers, generator), self._add)
            yield Progress("calibrate", i + 1, len(batches), "output curvature")
        for layer in self._layers:
            self.absent |= {} if layer.name in self.absent else self._wrong(layer)
        gone = {layer.weight for layer in self._layers if layer.name in self.absent}  # for all uses of a weight
        for weight in [*self._sums]:
            sums = self._sums.pop(weight)
            if weight not in gone:
                self._found[weight] = [mirror(part).div_(self._counts[weight]) for part in sums]
        yield from self._notes()

    def of(self, item: Item, start: int, stop: int) -> torch.Tensor | None:
        """G [rows, rows] of the rows of one group of a layer."""
        found = self._found.get(item.part.weight)
        return None if found is None else found[start // (stop - start)]

    def _add(self, layer: Layer, g: torch.Tensor) -> None:
        if layer.name not in self._names:
            return
        rows = outputs_as_rows(layer, g.numpy())
        parts = rows.reshape(len(rows), layer.groups, -1).transpose(0, 1)
        sums: Sequence[torch.Tensor | None] = self._sums.get(layer.weight) or [None] * layer.groups
        self._sums[layer.weight] = [add_gram(part, upper) for part, upper in zip(parts, sums, strict=True)]
        self._counts[layer.weight] = self._counts.get(layer.weight, 0) + len(rows)

    def _wrong(self, layer: Layer) -> dict[str, str]:
        """{its name: what is wrong with what was gathered of a layer}; empty where it is sound."""
        sums = self._sums.get(layer.weight, [])
        if not all(bool(torch.isfinite(part).all()) for part in sums):
            return {layer.name: "its gradient is not finite"}
        return {} if any(bool(part.any()) for part in sums) else {layer.name: "its gradient is zero"}

    def _slopes(self, powers: Mapping[str, float], generator: torch.Generator, answers: Tensors) -> Tensors:
        found = {}
        for name, x in answers.items():
            v = signs(x, generator)
            if self._scored:
                found[name] = scored(x, v)
            elif powers.get(name, 1.0) > 0:
                found[name] = v / powers.get(name, 1.0) ** 0.5
        return found

    def _powers(self, batches: Sequence[Feeds]) -> dict[str, float]:
        """The mean square of each output, where there are several."""
        if len(self._outputs) < 2:
            return {}
        session = Session(self._graph.model, where=self._graph.where)
        sums = dict.fromkeys(self._outputs, 0.0)
        sizes = dict.fromkeys(self._outputs, 0)
        for feeds in batches:
            for name, x in session.run(feeds, self._outputs).items():
                sums[name] += float(np.square(x, dtype=np.float64).sum())
                sizes[name] += x.size
        return {name: sums[name] / max(sizes[name], 1) for name in self._outputs}

    def _notes(self) -> Iterator[Note]:
        """What is absent, a note for each reason."""
        for why in dict.fromkeys(self.absent.values()):
            names = [name for name, reason in self.absent.items() if reason == why]
            yield Note(f"no output curvature for {len(names)} of {len(self._layers)} layers, first {names[0]}: {why}")
