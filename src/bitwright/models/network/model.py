"""An ONNX network for the engine: its layers in order, each with its input from the quantized layers before it."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bitwright.core.lattice import found
from bitwright.core.measure import Usage
from bitwright.core.observe import Affine
from bitwright.core.qtensor import QTensor
from bitwright.errors import RecipeError, about
from bitwright.events import Event, Progress, Row, Started
from bitwright.files import sidecars
from bitwright.files.folder import sync
from bitwright.files.layers import Layer, Placement, to_matrix
from bitwright.files.onnx import decode_layers, files_of, parameters, read, write
from bitwright.files.plain import fingerprint
from bitwright.methods import registry
from bitwright.models import kinds
from bitwright.models.costs import lies
from bitwright.models.effort import EFFORTS, Effort
from bitwright.models.histogram import Pieces
from bitwright.models.model import Copy, Cost, Drop, Estimate, Fixed, Item, Model, Plan, Turn, alike
from bitwright.models.network import costs, estimate, sensitivity, verify
from bitwright.models.network.axes import opened
from bitwright.models.network.branches import CONSTANT
from bitwright.models.network.curvature import Curvature
from bitwright.models.network.forms import Forms
from bitwright.models.network.graph import Graph
from bitwright.models.network.observe import Observed, observe, quantizers
from bitwright.models.network.session import Session
from bitwright.models.network.settle import Settling, as_before
from bitwright.models.network.shared import later_uses, rounding, uses
from bitwright.models.network.sink import LayerSink
from bitwright.models.network.slopes import SCORED, counting
from bitwright.models.network.state import find_states
from bitwright.models.network.streams import find_streams
from bitwright.models.network.trial import attempt, require_same, require_signal
from bitwright.models.network.verdict import judge, rehearse
from bitwright.models.network.walk import Walk
from bitwright.models.samples.open import Batch, Samples, open_parts
from bitwright.models.samples.preprocess import Feeding, size_of
from bitwright.models.tasks.verdict import require_classes
from bitwright.recipe import Budget, Recipe
from bitwright.recipe import Layer as Settings
from bitwright.rewrites import Subject, chosen
from bitwright.words import megabytes, plural

Parts = tuple[Samples, ...]
"""Samples that calibrate, then those that judge, of each source."""


LEVELS = 256
"""Codes of a rounded activation: 8 bits."""
NODE = 230
"""Bytes of one QuantizeLinear or DequantizeLinear with its names and scalars, about."""


def sink_of(plan: Plan) -> LayerSink:
    """The plan's sink, as what it is."""
    assert isinstance(plan.sink, LayerSink)
    return plan.sink


def _restore(layer: Settling, sink: LayerSink, item: Item) -> None:
    layer.restore(*sink.read(item))


def _read(sink: LayerSink, item: Item) -> None:
    sink.read(item)


def _blank(item: Item) -> QTensor:
    """What takes as many bytes as an item's codes and scales will."""
    codes = np.zeros((item.rows, item.columns), np.uint8)
    blocks = item.format.block_count(item.rows, item.columns)
    shape = (1, 1) if item.format.block == "tensor" else (item.rows, blocks // item.rows)
    return QTensor(item.format, codes, np.ones(shape, np.float32))


class NetworkModel(Model):
    """A float ONNX file, prepared. Rewrites change its graph: it serves the attempts of one job."""

    spread = costs.SPREAD

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.kind, self.path = kinds.get("network"), path
        self.network = recipe.network
        bind, batch = opened(self.network.bind, "any"), opened(self.network.batch, "none")
        learned = registry.get(recipe.layer.method).scope == "model"  # which would have nothing to learn there
        wide = self.network.activations != "none" and self.network.target != "gpu" and not learned
        self.graph = Graph.open(path, bind, batch, self.network.constant, wide)
        self.forms = Forms(self.graph, recipe)
        self.notes = list(self.graph.notes)
        self.notes += [
            f"input {name} counts as {x.flat[0]:g} whatever it is fed" for name, x in self.graph.fixed.items()
        ]
        self.samples: Parts | None = None
        self.states: dict[str, str] = {}
        self._observed: Observed | None = None
        self._curvature: Curvature | None = None
        self._batches: list[Batch] = []
        self._recovered: dict[str, dict[str, QTensor]] = {}
        """Codes that weights were decoded from, by weight and format."""
        self._rewritten = False

    @property
    def files(self) -> list[Path]:
        return self._files

    @cached_property
    def _files(self) -> list[Path]:
        return files_of(self.path)

    @property
    def source_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)

    @cached_property
    def parameters(self) -> int:
        return parameters(read(self.path))

    def identity(self) -> Any:
        return {"source": fingerprint(self.files), "threads": torch.get_num_threads()}

    # --- planning

    def container(self, container: Any, recipe: Recipe) -> Any:
        self.forms.require_spendable(container, recipe)
        return container

    def names(self, part: Any) -> tuple[str, ...]:
        return self.forms.names(part)

    def layer(self, part: Any, recipe: Recipe) -> Settings:
        return self.forms.layer(part, recipe)

    def leave(self, chosen: Mapping[str, Settings], recipe: Recipe, container: Any) -> dict[str, str]:
        """Layers at the entrance, and those that no integer kernel takes."""
        return self.forms.left(chosen, recipe, container)

    def item(self, part: Any, layer: Settings, plan: Plan) -> Item | str:
        return self.forms.item(part, layer, plan)

    def choices(self, plan: Plan) -> dict[str, list[Item]]:
        return self.forms.choices(plan)

    def together(self, plan: Plan) -> list[list[str]]:
        return self.forms.together(plan)

    def require(self, plan: Plan) -> None:
        self.forms.require(plan)

    def placement(self, plan: Plan) -> Placement:
        """Where integers flow in the plan."""
        return self.forms.placement(plan)

    def parts(self, recipe: Recipe) -> list[Layer]:
        return self.graph.matrices

    def tensor(self, part: Any) -> str:
        return str(part.weight)

    def known(self) -> Sequence[str]:
        return [name for layer in self.graph.matrices for name in self.names(layer)]

    def costs(
        self, plan: Plan, data: Parts | None, choices: Mapping[str, list[Item]], known: Callable[[str], bool]
    ) -> Generator[Event | Cost | Fixed, None, None]:
        assert data is not None
        yield from self._begin(plan, data)
        if all(map(known, plan.items)):
            return
        feeds = [batch.feeds for batch in self._batches]
        walk = Walk(self.graph, self.placement(plan), self._quantizers(plan), feeds, plan.out.parent)

        def exact(item: Item) -> bool:
            return self._known(item) is not None

        asked = costs.Costs(plan, self.graph, data[0].task, feeds, choices, known, exact)
        yield from asked.measure(walk, data[0].first()[0], self._lacking(plan, data[0]))

    def _lacking(self, plan: Plan, samples: Samples) -> str | None:
        """Why it cannot be learnt how much outputs count; None where it can."""
        if (needed := estimate.weighing(plan, self.graph, samples)) <= plan.room:
            return None
        return f"that needs {megabytes(needed)} of memory, and the limit is {megabytes(plan.room)}"

    def open_data(self, plan: Plan) -> None:
        budget = plan.recipe.budget
        data_free = not plan.container.integer and not plan.calibrated and plan.recipe.data.source is None
        if data_free and budget is not None:
            raise RecipeError(
                "a budget is spent by what formats cost on samples, and there are none", where="budget",
                fix="Give --calib DATA", key="budget",
            )  # fmt: skip
        if data_free:
            return
        graph = self.graph
        Session(self.path)  # what ONNX Runtime refuses cannot be compared with
        self.states = find_states(graph.inputs, graph.outputs, self.network.state, graph.where)
        step = Session(graph.model, where=graph.where).run if self.states else None
        feeding = Feeding(graph.axes, graph.fixed, self.states, step)
        self.samples = open_parts(plan.recipe.data, graph.inputs, feeding)
        self._require_classes()
        first = self.samples[0]
        if budget is not None:
            self._spends(budget, first)
        with about("data.source"):
            floats = [name for name, (dtype, _) in first.inputs.items() if dtype.startswith("float")]
            signals = [name for name in floats if first.axes[name] is not None and name not in self.states]
            require_signal((batch.feeds for batch in first), signals, first.name)
        layers = [item.part for item in plan.items.values()]
        rounded = self.placement(plan).activations
        feeds, count = first.first()
        attempt(self.graph, layers, rounded, feeds, count)
        require_same(self.graph, self.path, feeds)
        with about("data.heldout"):
            for part in self.samples[1:]:
                rehearse(part, plan.recipe.data, self.path)
        judged = first.task != "none" and (first.task not in ("detect", "match") or first.labelled)
        if plan.recipe.max_drop is not None and not judged:
            raise RecipeError(
                f"{first.name} has no labels to measure a drop with", where="max_drop",
                fix='Give labels, or set data.task = "classify" for the agreement on the best class, or leave it out',
                key="max_drop",
            )  # fmt: skip
        if plan.recipe.max_drop is not None and first.paired:
            with about("data.source"):
                _ = first.pairs
        plan.notes += plan.effort.notes

    def _spends(self, budget: Budget, samples: Samples) -> None:
        """Note what costs count on such samples. Raises RecipeError where a KL is bounded that there is not."""
        scored = samples.task in SCORED
        if budget.kl is not None and not scored:
            raise RecipeError(
                f"bounds the KL of class scores, and samples of task {samples.task!r} are not judged by any",
                where="--max-kl", key="budget.kl",
                fix='Give --size or --bpw; or set data.task = "classify" where the first output holds scores',
            )  # fmt: skip
        if not scored:
            self.measure, self.judged = "noise", counting(self.graph, samples.task)

    def _require_classes(self) -> None:
        """Raise DataError for labels that the network has no class for, where its scores are [samples, classes]."""
        name, (_, shape) = next(iter(self.graph.outputs.items()))
        if len(shape) < 2 or shape[1] is None or any(size != 1 for size in shape[2:]):
            return
        for part in self.samples or ():
            if part.task == "classify":
                require_classes(part.labels, part.classes or (), shape[1], name, part.name)

    def effort(self, plan: Plan) -> Effort:
        """What the recipe's effort means for this network, as far as samples and memory allow."""
        asked, samples, methods = EFFORTS[plan.recipe.effort], self.samples, [i.method for i in plan.items.values()]
        if samples is None or any(method.scope == "model" for method in methods):
            return Effort()
        if not asked.weighing or not any(method.weighs for method in methods):
            return replace(asked, weighing=0)
        if (what := self._lacking(plan, samples[0])) is not None:
            note = f"all outputs count alike, as weighing them does not fit: {what}"
            return replace(asked, weighing=0, notes=(note,))
        return replace(asked, weighing=len(samples[0]))

    def sink(self, plan: Plan) -> LayerSink:
        folder = plan.partial / f"layers{plan.label}"
        return LayerSink(plan, folder, self._about(plan) if plan.recipe.budget is None else self._size(plan))

    def _size(self, plan: Plan) -> int:
        """Bytes of the output, whatever its codes: to the byte once its graph has been rewritten and looked at."""
        blank = {item.part.weight: _blank(item) for item in plan.items.values()}
        return int(self._made(plan, blank, self._quantizers(plan)).ByteSize())

    def _about(self, plan: Plan) -> int:
        """Bytes of the output, about."""
        size, quantized = self.graph.model.ByteSize(), uses(plan.items)
        # A weight that others read, too, or that is returned stays beside its codes.
        readers, pinned = self.graph.consumers, self.graph.pinned
        alone = {w for w, items in quantized.items() if w not in pinned and len(readers[w]) == len(items)}
        saved = sum(4 * i.rows * i.columns * (i.part.weight in alone) - plan.stored(i) // 8 for i in plan.matrices)
        added = NODE * 2 * (len(self.placement(plan).activations) + len(plan.items))
        return int(size - saved + added)

    def estimate(self, plan: Plan) -> Estimate:
        return estimate.estimate(plan, self.graph, self.samples, self.placement(plan))

    def input_levels(self, plan: Plan, item: Item) -> int | None:
        placement = self.placement(plan)
        given = item.name in placement.nodes and item.part.input in placement.activations
        return LEVELS if given or item.part.node in placement.dynamic else None

    def _inputs(self, layer: Layer, sink: LayerSink) -> Usage | None:
        """How the codes of a layer's rounded input are used on the samples; None where it stays float."""
        affine, seen = rounding(layer, sink.placement, sink.affines), self._observed
        return None if affine is None or seen is None else seen.values[layer.input].usage(affine)

    def lines(self, plan: Plan) -> list[str]:
        lines = []
        if plan.container.integer:
            placement = self.placement(plan)
            kind = "uint8" if self.network.target == "x86" else "int8"
            lines.append(f"{estimate.share(self.graph, placement):.0%} of the multiply-accumulates run in integers")
            if placement.dynamic:
                told = "as DynamicQuantizeLSTM, which rounds what it reads and its state when it runs"
                lines.append(f"{plural(len(placement.dynamic), 'LSTM')} {told}")
            count = plural(len(placement.activations), "activation tensor")
            lines.append(f"{count} as {kind}, {LEVELS} levels, ranges by {self.network.observer}")
            reasons = Counter(self._floats(plan).values())
            lines += [
                f"{f'{count} nodes stay' if count > 1 else '1 node stays'} float: {why}"
                for why, count in reasons.most_common(6)
            ]
        else:
            lines.append("activations stay float")
        if self.samples:
            first, *held = self.samples
            lines += [f"state: {name} is {output} of the call before" for name, output in first.states.items()]
            judged = sum(map(len, held))
            calls = f" of up to {first.calls} calls" if first.calls > 1 else ""
            lines.append(f"{len(first):,} samples{calls} to calibrate, {judged:,} for the verdict ({first.kind})")
            if held[0].paired:
                pairs = held[0].pairs
                same = sum(pair.same for pair in pairs)
                lines.append(f"verified on {same:,} pairs of one identity and {len(pairs) - same:,} of two")
            effort = plan.effort
            done = [
                *(["errors of earlier layers are made up for"] if effort.corrects else []),
                *([f"outputs weighed on {plural(effort.weighing, 'sample')}"] if effort.weighing else []),
            ]
            lines.append(f"effort {plan.recipe.effort}: {', '.join(done) or 'each layer rounded for its own inputs'}")
        return lines

    def runtimes(self, plan: Plan) -> list[str]:
        found = super().runtimes(plan)
        if self.placement(plan).dynamic:  # an operator of ONNX Runtime alone
            return [f"{found[0]} (DynamicQuantizeLSTM is its own operator)"]
        return found

    def _floats(self, plan: Plan) -> dict[str, str]:
        """Every node that computes in float, and why."""
        matrices = {layer.name for layer in self.graph.recurrent}
        kept = {name: why for name, why in plan.floats.items() if name not in matrices}
        return {**self.placement(plan).floats, **kept}

    def facts(self, plan: Plan) -> dict[str, Any]:
        placement = self.placement(plan)
        return {
            "activations": list(placement.activations),
            "float": self._floats(plan),
            "integer_share": estimate.share(self.graph, placement),
        }

    # --- running

    def read_data(self, plan: Plan) -> Generator[Event, None, Parts | None]:
        yield from ()
        return self.samples

    def data_hash(self, data: Parts | None) -> str | None:
        return None if data is None else data[0].hash

    def turns(self, plan: Plan, data: Parts | None, finished: Callable[[str], bool]) -> Iterator[Event | Turn | Copy]:
        yield from self._begin(plan, data)
        sink = sink_of(plan)
        sink.placement, sink.affines = self.placement(plan), self._quantizers(plan)
        if any(item.method.scope == "model" for item in plan.items.values()):
            yield from self._learned(plan, sink)
        else:
            if self._curvature is None and plan.effort.weighing and not all(map(finished, plan.items)):
                yield from self._weigh(plan)
            yield from self._walk(plan, sink, finished)

    def _begin(self, plan: Plan, data: Parts | None) -> Iterator[Event]:
        """Rewrite the graph and look at the values between its layers, once for all that is done with it."""
        if self._observed is None:
            yield from self.rewrite(plan, data)
            self._observed = yield from self._observe(plan)

    def _quantizers(self, plan: Plan) -> dict[str, Affine]:
        """How tensors between layers are rounded; before they were looked at, as good as any."""
        placement = self.placement(plan)
        if not plan.container.integer:
            return {}
        if self._observed is None:
            signed = self.network.target != "x86"
            # So fine that it saturates where a Relu or Clip does.
            return dict.fromkeys(placement.activations, Affine(2.0**-10, -LEVELS // 2 if signed else 0, signed=signed))
        return quantizers(placement, self._observed.values, self.network)

    def rewrite(self, plan: Plan, data: Parts | None) -> Iterator[Event]:
        """Read the samples and rewrite the graph as the recipe says: its matrices are then those that are rounded."""
        if self._rewritten:
            return
        self._rewritten, self._batches = True, list(data[0]) if data else []
        self._recover(plan)
        graph, feeds = self.graph, [batch.feeds for batch in self._batches]
        yield Started("calibrate", f"{sum(size_of(f, self.graph.axes) for f in feeds)} samples")
        bits = {item.name: item.format.bits for item in plan.items.values()}
        for rewrite in chosen(self.network):
            if rewrite.apply is None:
                continue
            streams = [stream for stream in find_streams(graph) if stream.weights.isdisjoint(self._recovered)]
            subject = Subject(graph, streams, self.network, bits)
            axes, seen = rewrite.axes(subject), Observed()
            if axes:
                yield from observe(graph, feeds, [], axes, seen)
            plan.notes += rewrite.apply(subject, seen.channels)
        # Every layer whose bias may be corrected gets one; a product without one would need a node more.
        if any(rewrite.correct for rewrite in chosen(self.network)):
            for layer in graph.layers:
                if layer.name in plan.items and layer.bias is None and layer.op != "MatMul":
                    graph.set_bias(layer, np.zeros(layer.outputs, np.float32))

    def _recover(self, plan: Plan) -> None:
        """Find the codes that weights were decoded from: no rewrite may then take them off their lattice."""
        trained = any(item.method.scope == "model" for item in plan.items.values())  # all of them, together
        forms = [*plan.items.values()]
        if plan.unspent:
            forms = [form for each in self.choices(plan).values() for form in each]
        for item in [] if trained else forms:
            known = self._recovered.get(item.part.weight, {})
            begun = lies(plan, item) if plan.unspent else item.name in plan.recoverable
            if item.format.name in known or not begun:
                continue
            q = found(self.graph.matrix(item.part), item.format)
            if q is not None:
                self._recovered[item.part.weight] = {**known, item.format.name: q}
            elif not plan.unspent:
                plan.items[item.name] = item.off_lattice

    def _known(self, item: Item) -> QTensor | None:
        """The codes that an item's weight was decoded from, if it was."""
        return self._recovered.get(item.part.weight, {}).get(item.format.name)

    def _observe(self, plan: Plan) -> Generator[Event, None, Observed]:
        """The values of all tensors that are rounded."""
        found = Observed()
        placement = self.placement(plan)
        tensors = placement.activations or [item.part.input for item in plan.items.values()]
        yield from observe(self.graph, [batch.feeds for batch in self._batches], tensors, {}, found)
        return found

    def _weigh(self, plan: Plan) -> Iterator[Event]:
        """How much the outputs of layers count for what the verdict measures: once for all attempts."""
        assert self.samples is not None
        first, items = self.samples[0], (plan.attempt_of or plan).items.values()
        weighing = [item for item in items if item.method.weighs and self._known(item) is None]
        self._curvature = Curvature(self.graph, weighing, first.task, plan.recipe.data.seed)
        yield from self._curvature.compute([batch.feeds for batch in self._batches], first.first()[0])

    def _walk(self, plan: Plan, sink: LayerSink, finished: Callable[[str], bool]) -> Iterator[Event | Turn]:
        """Layer after layer, each with its input as the quantized layers before it give it."""
        corrections = [rewrite for rewrite in chosen(self.network) if rewrite.correct]
        feeds = [batch.feeds for batch in self._batches]
        walk, done = Walk(self.graph, sink.placement, sink.affines, feeds, plan.out.parent), 0
        passages = list(accumulate(not batch.goes_on for batch in self._batches))
        later = later_uses(self.graph, plan.items, sink.placement, sink.affines, feeds, passages, plan.effort.corrects)
        firsts = {weight: items[0].name for weight, items in uses(plan.items).items()}
        for step in walk.steps():
            item = plan.items.get(step.layer.name)
            if item is None:
                continue
            weight, affine = step.layer.weight, rounding(step.layer, sink.placement, sink.affines)
            known = self._known(item)
            if known is not None:
                item = item.recovered
            if (first := firsts[weight]) == item.name:
                layer = Settling(self.graph, step, self.network, affine, corrections, later.get(weight, ()), passages)
                needs, block = item.method.needs, item.format.block
                blind = finished(item.name) or known is not None
                seen, fallback = ((), None) if blind else layer.seen(needs, block, plan.effort.corrects)
                restore, inputs = partial(_restore, layer, sink), self._inputs(step.layer, sink)
                weigh = alike if self._curvature is None else self._curvature.of
                yield Turn([item], seen, fallback, layer.settle, restore, known, inputs, layer.aim, weigh)
            else:
                layer = Settling(self.graph, step, self.network, affine, corrections)
                settle, restore = as_before(layer, first), partial(_restore, layer, sink)
                inputs = self._inputs(step.layer, sink)
                yield Turn([item], (), None, settle, restore, sink.weights[weight], inputs)
            done += 1
            yield Progress("quantize", done, len(plan.items), item.name)

    def _learned(self, plan: Plan, sink: LayerSink) -> Iterator[Event | Turn]:
        """All layers together, with a method that trains the whole network."""
        from bitwright.models.network.finetune import finetune
        from bitwright.models.network.settle import as_trained

        first = next(iter(plan.items.values()))
        classes = self.samples is not None and self.samples[0].task == "classify" and self.samples[0].labelled
        lessons = [(b.feeds, np.array(b.labels, np.int64) if classes else None) for b in self._batches]
        losses: list[float] = []
        made = finetune(
            self.graph, sink.placement, lessons, first.format.bits, options=first.options, solve=first.method.solve,
            report=lambda epoch: losses.append(epoch.loss),
        )  # fmt: skip
        sink.affines = dict(made.activations)
        for item in plan.items.values():
            q = made.weights[item.part.weight]
            settle, inputs = as_trained(made.biases.get(item.name)), self._inputs(item.part, sink)
            yield Turn([item], (), None, settle, partial(_read, sink), q, inputs)
        yield Progress("quantize", len(plan.items), len(plan.items), f"loss {losses[0]:.4f} to {losses[-1]:.4f}")

    def piece_rows(self, plan: Plan, item: Item) -> int:
        return item.rows

    def rows(self, item: Item, start: int, stop: int) -> torch.Tensor:
        return torch.from_numpy(np.array(self.graph.matrix(item.part)[start:stop]))

    def graph_of(self, plan: Plan) -> Any:
        """The ONNX model of what the plan's turns made; the new biases stand in the graph only while it is written."""
        sink, graph = sink_of(plan), self.graph
        before = {name: graph.bias(graph.layer(name)) for name in sink.biases}
        try:
            for name, bias in sink.biases.items():
                graph.set_bias(graph.layer(name), bias)
            return self._made(plan, sink.weights, sink.affines)
        finally:
            for name, bias in before.items():
                graph.set_bias(graph.layer(name), bias)

    def _made(self, plan: Plan, weights: Mapping[str, QTensor], affines: Mapping[str, Affine]) -> Any:
        """The ONNX model that holds these weights."""
        made = plan.container.write(self.graph, self.placement(plan), weights, affines, self.network)
        if plan.recipe.budget is not None:
            # Raising its operator set for 4 bits adds the shapes of all tensors, which runtimes infer.
            del made.graph.value_info[:]
        for name, number in self.network.constant.items():
            made.metadata_props.add(key=f"{CONSTANT}{name}", value=repr(number))
        return made

    def finish(self, plan: Plan) -> list[Path]:
        return write(self.graph_of(plan), plan.partial / plan.out.name)

    def seal(self, plan: Plan, certificate: str, card: str) -> None:
        network = plan.partial / plan.out.name
        self.kind.certificate(network).write_text(certificate, "utf-8")
        self.kind.card(network).write_text(card, "utf-8")
        for paper in sidecars.papers(self.path):
            shutil.copyfile(paper, plan.partial / f"{plan.out.stem}.{paper.name}")
        sync(self._written(plan))

    def publish(self, plan: Plan) -> None:
        for path in self._written(plan):
            path.rename(plan.out.with_name(path.name))
        shutil.rmtree(plan.partial)

    def _written(self, plan: Plan) -> list[Path]:
        """The files of the output: the network comes last, so that it never has its name without the others."""
        network = plan.partial / plan.out.name
        return sorted(self.kind.shelved(network).values(), key=lambda path: path == network)

    # --- judging

    def verify(self, plan: Plan, rows: Mapping[str, Row], sums: Mapping[str, int]) -> Iterator[Event]:
        return verify.verify(plan, self.graph, sink_of(plan), read(plan.partial / plan.out.name))

    def judge(self, plan: Plan, data: Parts | None) -> Generator[Event, None, dict[str, Any]]:
        seen = self._observed.values if self._observed is not None else {}
        return judge(plan, self.graph, sink_of(plan), data, seen)

    def pair(self, plan: Plan, name: str) -> Pieces:
        for _ in self.rewrite(plan, self.samples):
            pass
        item, layer = plan.items[name], self.graph.layer(name)
        if plan.out.exists():
            decoded = to_matrix(layer, decode_layers(read(plan.out), [layer])[layer.weight])
        else:
            decoded = np.asarray(sink_of(plan).read(item)[0].decode())
        yield self.graph.matrix(layer), decoded

    def drop(self, plan: Plan, data: Parts) -> Generator[Event, None, Drop]:
        yield from ()
        return sensitivity.drop(self.graph, self.graph_of(plan), data[0], plan.recipe.data, self._batches)

    def rank(self, plan: Plan, data: Parts) -> Generator[Event, None, list[str]]:
        def without(name: str) -> Placement:
            return self.forms.placement(plan, besides=(name,))

        return sensitivity.rank(plan, self.graph, sink_of(plan), self.graph_of(plan), self._batches, without)
