"""What each format of each layer costs, to second order, found before anything is solved.

An error E of a layer changes what it answers to a sample by e = E x at every position. The loss (`slopes.Loss`) grows
by the square of the sum of g e over all positions and outputs, on average over random slopes g of it: the Gauss-Newton
form of all samples, without taking the positions of a convolution for independent as tr(G E H E^T) does. E is that of
scale search, of which methods that look at samples leave a part; where a bias is corrected, e is taken about its mean.
Layers that no gradient is known of are measured: the network runs with each of them alone rounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

import numpy as np
import onnx
import torch

from bitwright.core.qtensor import QTensor
from bitwright.events import Event, Note, Progress, Started
from bitwright.files.layers import Layer, from_matrix
from bitwright.methods import Seen
from bitwright.models.costs import searched
from bitwright.models.model import Cost, Fixed, Item, Plan
from bitwright.models.network.backward import Backward
from bitwright.models.network.estimate import draws
from bitwright.models.network.graph import Graph
from bitwright.models.network.session import Feeds, Session
from bitwright.models.network.settle import Settling
from bitwright.models.network.shared import rounding, uses
from bitwright.models.network.slopes import Answers, Loss
from bitwright.models.network.unfold import multiply, outputs_as_rows, unfold
from bitwright.models.network.walk import Walk
from bitwright.models.samples.preprocess import size_of
from bitwright.rewrites import chosen
from bitwright.words import plural

TOGETHER = 8
"""Samples that go back at once, where the network takes any number."""
LOOK = 64
"""Samples on which a layer is measured that has no gradient."""

CORRECTED, LOOKED = 0.28, 0.38
"""What is left of the cost of scale search once a method that looks at samples has solved a layer, with earlier errors
made up for and without: fitted to the KL of ResNet-20 under budgets (docs/log.md)."""

SPREAD = 2.0
"""The factor within which a loss was that was predicted so: ResNet-20 within 1.1, O-Net of MTCNN 1.5. PP-OCR's
direction classifier, of which 32 samples were drawn, is beyond it: 3.4 (docs/log.md)."""

Errors = dict[str, torch.Tensor]
"""{format: what a weight loses [rows, columns]}; formats that lose nothing are left out."""


class Costs:
    """What the forms among `choices` cost, of layers whose weights are not known."""

    def __init__(
        self, plan: Plan, graph: Graph, task: str, feeds: Sequence[Feeds], choices: Mapping[str, Sequence[Item]],
        known: Callable[[str], bool], exact: Callable[[Item], bool],
    ) -> None:  # fmt: skip
        """`exact` says whether a weight loses nothing in a form."""
        self.plan, self.graph, self.task, self.feeds, self.exact = plan, graph, task, feeds, exact
        self.layers = {layer.name: layer for layer in graph.matrices}
        users = uses(plan.items).items()
        self.users = {weight: items for weight, items in users if not all(known(item.name) for item in items)}
        self.forms = {weight: choices[items[0].name] for weight, items in self.users.items()}
        self.errors: dict[str, Errors] = {}
        self.corrections = [rewrite for rewrite in chosen(plan.recipe.network) if rewrite.correct]

    def measure(self, walk: Walk, few: Feeds, lacking: str | None) -> Generator[Event | Cost | Fixed, None, None]:
        """All of them; `walk` rounds what lies between layers and leaves their weights alone.

        `few` are the samples on which it is tried how to go back; `lacking` says why there can be no gradients.
        """
        yield Started("measure", f"what formats of {plural(len(self.users), 'weight')} cost")
        pairs = yield from self._walk(walk)
        both = [[{name: each[i][k] for name, each in pairs.items()} for i in range(len(self.feeds))] for k in (0, 1)]
        loss = Loss(self.graph, self.task, both[0])
        yield Fixed(sum(loss.between(x, y) for x, y in zip(*both, strict=True)))
        absent = dict.fromkeys((item.name for items in self.users.values() for item in items), lacking or "")
        lost: dict[str, dict[str, float]] = {}
        if lacking is None:
            absent = yield from self._slopes(loss, few, lost)
        left = {weight for weight, items in self.users.items() if any(item.name in absent for item in items)}
        yield from self._notes(absent)
        for weight, items in self.users.items():
            if weight not in left:
                yield from self._told(items, lost[weight])
        yield from self._alone([weight for weight in self.users if weight in left])

    def _walk(self, walk: Walk) -> Generator[Event, None, Mapping[str, list[tuple[Answers, Answers]]]]:
        """Find what scale search loses of each weight; the answers of the float network and of the rounded one."""
        steps, done = walk.steps(), 0
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                found: Mapping[str, list[tuple[Answers, Answers]]] = end.value
                return found
            weight = step.layer.weight
            if step.layer.name in self.plan.items and weight in self.users and weight not in self.errors:
                affine = rounding(step.layer, walk.placement, walk.affines)
                settling = Settling(self.graph, step, self.plan.recipe.network, affine, self.corrections)
                seen, _ = settling.seen("moments", self.forms[weight][0].format.block)
                self.errors[weight] = self._lost(self.forms[weight], seen)
                done += 1
                yield Progress("measure", done, len(self.users), "errors of scale search")

    def _lost(self, forms: Sequence[Item], seen: Sequence[Seen]) -> Errors:
        found = {}
        for form in forms:
            if self.exact(form):
                continue
            w = self.plan.model.rows(form, 0, form.rows)
            size = len(w) // len(seen)
            parts = [_rounded(w[i * size : (i + 1) * size], form, each) for i, each in enumerate(seen)]
            found[form.format.name] = w - torch.cat(parts)
        return found

    def _slopes(
        self, loss: Loss, few: Feeds, lost: dict[str, dict[str, float]]
    ) -> Generator[Event, None, dict[str, str]]:
        """Find by slopes what each format of each weight loses; {layer: why nothing is known of it}."""
        # Always from all layers, so that numbers are the same to the bit whichever of them are asked for.
        backward = Backward(self.graph, self.graph.matrices, loss.outputs, few)
        asked = {item.name for items in self.users.values() for item in items}
        absent = {name: why for name, why in backward.absent.items() if name in asked}
        absent |= {n: "a transposed convolution" for n in asked if self.layers[n].op == "ConvTranspose"}
        layers = [self.layers[item.name] for items in self.users.values() for item in items if item.name not in absent]
        parts = [part for feeds in self.feeds for part in self._split(feeds)] if layers else []
        means = self._means(parts, [layer for layer in layers if self.corrections and layer.bias is not None])
        generator = torch.Generator().manual_seed(self.plan.recipe.data.seed)
        count = draws(sum(samples for _, samples in parts) or 1)
        for done, ((feeds, samples), inputs) in enumerate(zip(parts, self._inputs(parts, layers), strict=True), 1):
            # Where a bias is corrected, the mean of e costs nothing.
            changes = {la.name: self._changes(la, _rows(la, inputs) - means.get(la.name, 0.0)) for la in layers}
            for _ in range(count):
                for weight, found in self._products(backward, loss, generator, feeds, samples, changes).items():
                    sums = lost.setdefault(weight, dict.fromkeys(self.errors[weight], 0.0))
                    for label, products in found.items():
                        sums[label] += float(products.double().square().sum()) / count
            yield Progress("measure", done, len(parts), "slopes")
        for layer in layers:
            if not all(map(math.isfinite, lost.setdefault(layer.weight, {"": math.nan}).values())):
                absent[layer.name] = "its gradient is not finite"
        return absent

    def _products(
        self, backward: Backward, loss: Loss, generator: torch.Generator, feeds: Feeds, samples: int,
        changes: Mapping[str, Errors],
    ) -> dict[str, Errors]:  # fmt: skip
        """The sums of g e over all uses of each weight, by format, of every sample, with slopes that are drawn anew."""
        products: dict[str, list[Errors]] = {}

        def found(layer: Layer, g: torch.Tensor) -> None:
            if layer.name in changes:
                rows = outputs_as_rows(layer, g.numpy())
                # Where the first axis is another, samples are taken together: random signs keep them apart.
                count = samples if g.shape[0] % samples == 0 else 1
                sums = {label: (rows * e).reshape(count, -1).sum(dim=1) for label, e in changes[layer.name].items()}
                products.setdefault(layer.weight, []).append(sums)

        backward.run(feeds, lambda answers: loss.slopes(answers, generator), found)
        return {weight: {label: _total([one[label] for one in each]) for label in each[0]}
                for weight, each in products.items()}  # fmt: skip

    def _inputs(self, parts: Sequence[tuple[Feeds, int]], layers: Sequence[Layer]) -> Iterator[Feeds]:
        """What the layers are fed in the float network, part by part, by the tensor's name."""
        inner = sorted({layer.input for layer in layers} - set(self.graph.inputs))
        session = Session(self.graph.with_outputs(inner), optimize=False, where=self.graph.where)
        for feeds, _ in parts:
            yield {**feeds, **(session.run(feeds, inner) if inner else {})}

    def _means(self, parts: Sequence[tuple[Feeds, int]], layers: Sequence[Layer]) -> dict[str, torch.Tensor]:
        """The mean of what the matrix of each of these layers multiplies, [groups, 1, columns]."""
        sums, counts = dict[str, torch.Tensor](), dict.fromkeys((layer.name for layer in layers), 0)
        for inputs in self._inputs(parts, layers):
            for layer in layers:
                rows = _rows(layer, inputs)
                sums[layer.name] = sums.get(layer.name, 0.0) + rows.sum(dim=1, keepdim=True)
                counts[layer.name] += rows.shape[1]
        return {name: total / counts[name] for name, total in sums.items()}

    def _split(self, feeds: Feeds) -> Iterator[tuple[Feeds, int]]:
        """A batch in parts that take little memory, and the samples of each."""
        axes = {name: axis for name, axis in self.graph.axes.items() if axis is not None and name in feeds}
        samples = size_of(dict(feeds), self.graph.axes)
        sizes = [self.graph.inputs[name][1][axis] for name, axis in axes.items() if name in self.graph.inputs]
        step = samples if any(size is not None for size in sizes) else TOGETHER
        for start in range(0, samples, step):
            chosen = range(start, min(start + step, samples))
            yield {n: x.take(chosen, axes[n]) if n in axes else x for n, x in feeds.items()}, len(chosen)

    def _changes(self, layer: Layer, rows: torch.Tensor) -> Errors:
        """e of each format where the matrix of a layer multiplies `rows`, [positions, outputs]."""
        return {label: multiply(layer, e.numpy(), rows) for label, e in self.errors[layer.weight].items()}

    def _told(self, items: Sequence[Item], lost: Mapping[str, float]) -> Iterator[Cost]:
        """The costs of a weight are those of its first layer."""
        forms = self.forms[items[0].part.weight]
        for item in items:
            of = lost if item is items[0] else {}
            yield Cost(item.name, {f.format.name: self._left(f) * of.get(f.format.name, 0.0) for f in forms})

    def _left(self, form: Item) -> float:
        """What a layer's method leaves of the cost of scale search."""
        if form.method.needs == "nothing":
            return 1.0
        return CORRECTED if self.plan.effort.corrects else LOOKED

    def _notes(self, absent: Mapping[str, str]) -> Iterator[Note]:
        """What is measured instead, a note for each reason."""
        for why in dict.fromkeys(absent.values()):
            names = [name for name, reason in absent.items() if reason == why]
            yield Note(f"{plural(len(names), 'layer')} measured alone, first {names[0]}: {why}")

    def _alone(self, weights: Sequence[str]) -> Generator[Event | Cost, None, None]:
        """Costs of weights, each from the network with it alone rounded."""
        if not weights:
            return
        few = self.feeds[: max(1, LOOK // max(1, size_of(dict(self.feeds[0]), self.graph.axes)))]
        plain = Session(self.graph.model, where=self.graph.where)
        exact = [plain.run(feeds) for feeds in few]
        loss, session = Loss(self.graph, self.task, exact), Session(_fed(self.graph.model, weights))
        stored = {weight: self.graph.constant(weight) for weight in weights}
        for done, weight in enumerate(weights, 1):
            items, lost = self.users[weight], {}
            layer = self.layers[items[0].name]
            for label, e in self.errors[weight].items():
                rounded = from_matrix(layer, self.graph.matrix(layer) - e.numpy())
                given = {**stored, weight: np.ascontiguousarray(rounded, np.float32)}
                answers = [session.run({**feeds, **given}) for feeds in few]
                lost[label] = sum(loss.between(x, y) for x, y in zip(exact, answers, strict=True))
            yield from self._told(items, lost)
            yield Progress("measure", done, len(weights), items[0].name)


def _rows(layer: Layer, inputs: Feeds) -> torch.Tensor:
    """What the matrix of a layer multiplies, [groups, positions, columns]."""
    rows = unfold(layer, inputs[layer.input])
    assert rows is not None  # transposed convolutions are measured
    return rows


def _total(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The products of all uses of a weight: of each sample, or of all where one use takes them together."""
    alike = len({len(part) for part in parts}) == 1
    return torch.stack([part if alike else part.sum() for part in parts]).sum(dim=0).reshape(-1)


def _rounded(w: torch.Tensor, form: Item, seen: Seen) -> torch.Tensor:
    """Some rows as the method makes them that needs nothing, or else as scale search does."""
    if form.method.needs == "nothing":
        q: QTensor = form.method.solve(w, form.format, Seen(), form.options)
        return torch.as_tensor(q.decode())
    return torch.as_tensor(searched(w, form, seen.stats))


def _fed(model: onnx.ModelProto, weights: Sequence[str]) -> onnx.ModelProto:
    """A copy of a network that is fed these of its weights."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    stored = {tensor.name: tensor for tensor in made.graph.initializer}
    for name in weights:
        tensor = stored[name]
        kind = onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)
        made.graph.input.append(kind)
        made.graph.initializer.remove(tensor)
    return made
