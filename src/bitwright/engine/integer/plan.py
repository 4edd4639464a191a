"""What will become of an ONNX network, known before anything runs: formats, places of integers, bytes, notes."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.core.format import Format
from bitwright.errors import RecipeError, ResourceError
from bitwright.files.onnx import Layer, Placement
from bitwright.files.qdq import weight_format
from bitwright.models.network.graph import Graph
from bitwright.models.samples.open import Samples, open_parts
from bitwright.models.tasks.verdict import require_classes
from bitwright.recipe import Layer as Settings
from bitwright.recipe import Network, Recipe, matches, nearest

BITS = re.compile(r"int([2-8])")
ENTRANCE = 0.05
"""Share of a network's products up to which a layer at its entrance stays float."""
GROUPS = (16, 32, 64, 128, 256)
"""Weights per scale that MatMulNBits knows."""


@dataclass(frozen=True)
class Item:
    """One layer and what becomes of its weight."""

    layer: Layer
    settings: Settings
    format: Format


@dataclass
class Plan:
    """A job on one ONNX file. `items` by layer name; `keep`: layers left float by a rule or at the entrance."""

    source: Path
    out: Path
    recipe: Recipe
    graph: Graph
    samples: tuple[Samples, Samples] | None
    items: dict[str, Item] = field(default_factory=dict)
    keep: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)

    @property
    def partial(self) -> Path:
        """Where the output is written until it is certified: under its own name, in a folder."""
        return self.out.with_name(f"{self.out.stem}.partial") / self.out.name

    @property
    def weights_only(self) -> bool:
        """Whether activations stay float."""
        return self.recipe.network.activations == "none"

    def placement(self, keep: tuple[str, ...] = ()) -> Placement:
        """Where integers flow, with the nodes of `keep` and of the recipe's float layers left out."""
        return self.graph.quantizable(self.recipe.network.target, keep=(*self.keep, *keep))

    @property
    def source_bytes(self) -> int:
        """Bytes of the float weights."""
        return sum(4 * self.graph.matrix(layer).size for layer in self.graph.layers)

    @property
    def final_bytes(self) -> int:
        """Bytes of the weights afterwards: stored codes (a byte each where codes are held in int8) and scales."""
        total = 0
        for layer in self.graph.layers:
            size = self.graph.matrix(layer).shape
            item = self.items.get(layer.name)
            if item is None:
                total += 4 * size[0] * size[1]
            else:
                total += stored(item.format, self.recipe.network).stored_bits(*size) // 8
        return total

    def summary(self) -> dict[str, Any]:
        """The plan as plain data for `--json`."""
        placement = self.placement() if not self.weights_only else None
        return {
            "source": str(self.source),
            "out": str(self.out),
            "quantized": [
                {
                    "name": i.layer.weight, "node": name, "op": i.layer.op, "rows": i.layer.outputs,
                    "format": describe(i.format), "method": i.settings.method,
                }
                for name, i in self.items.items()
            ],
            "activations": list(placement.activations) if placement else [],
            "float": dict(placement.floats) if placement else {},
            "source_bytes": self.source_bytes,
            "final_bytes": self.final_bytes,
            "notes": self.notes,
        }  # fmt: skip

    def lines(self) -> list[str]:
        """The plan in words."""
        kinds = Counter((describe(i.format), i.settings.method) for i in self.items.values())
        lines = [f"  {count} layers as {form} by {method}" for (form, method), count in kinds.items()]
        network = self.recipe.network
        if self.weights_only:
            lines.append("  activations stay float")
        else:
            placement = self.placement()
            kind = "uint8" if network.target == "x86" else "int8"
            lines.append(f"  {len(placement.activations)} activation tensors as {kind}, ranges by {network.observer}")
            reasons = Counter(placement.floats.values())
            lines += [
                f"  {f'{count} nodes stay' if count > 1 else '1 node stays'} float: {why}"
                for why, count in reasons.most_common(6)
            ]
        before, after = self.source_bytes, self.final_bytes
        lines.append(f"  weights {before / 1e6:,.2f} MB -> {after / 1e6:,.2f} MB ({after / max(before, 1):.0%})")
        if self.samples:
            first, second = self.samples
            lines.append(f"  {len(first):,} samples to calibrate, {len(second):,} for the verdict ({first.kind})")
        return lines + [f"  note: {note}" for note in self.notes[:8]]


def stored(f: Format, network: Network) -> Format:
    """`f` as the file holds it: codes of integer kernels take a byte each, however few bits they use."""
    packed = isinstance(f.block, int) or (network.storage == "int4" and f.bits <= 4)
    return f if packed else weight_format(8, f.block)


def describe(f: Format) -> str:
    """A format in words: `int8 channel`, `int4 g32`."""
    return f"{f.name} {f'g{f.block}' if isinstance(f.block, int) else f.block}"


def make(source: Path, out: Path, recipe: Recipe, *, check_out: bool = True, needs_data: bool = True) -> Plan:
    """Decide everything about quantizing the ONNX file `source` into `out`; nothing is written.

    Raises FileError, ModelError, RecipeError, DataError or ResourceError for what could be known to fail.
    """
    bind = {name: None if size == "any" else size for name, size in recipe.network.bind.items()}
    graph = Graph.open(source, bind)
    plan = Plan(source, out, recipe, graph, None, notes=list(graph.notes))
    _require_patterns(plan)
    chosen = {layer.name: recipe.layer_for(layer.weight)[0] for layer in graph.layers}
    for layer in graph.layers:
        if not any(matches(rule.match, layer.weight) for rule in recipe.rules):
            chosen[layer.name] = recipe.layer_for(layer.name)[0]
    plan.keep = tuple(name for name, settings in chosen.items() if settings.format == "float")
    learned = any(settings.method == "lsq" for settings in chosen.values() if settings.format != "float")
    if learned and (plan.keep or plan.weights_only or recipe.network.max_drop is not None):
        raise RecipeError(
            "learned steps train every layer in integers", where="method lsq",
            fix="Leave out max_drop, float layers and activations = none, or choose another method",
        )  # fmt: skip
    if recipe.network.entrance == "float" and not plan.weights_only and not learned:
        plan.keep += entrance(graph, plan.keep)
    placement = None if plan.weights_only else plan.placement()
    integer = placement.nodes if placement else frozenset[str]()
    for layer in graph.layers:
        if layer.name in plan.keep:
            continue
        if plan.weights_only and layer.op != "MatMul":
            plan.notes.append(f"{layer.name}: left float, MatMulNBits holds matrix products only")
        elif plan.weights_only or layer.name in integer:
            plan.items[layer.name] = Item(layer, chosen[layer.name], _format(chosen[layer.name], layer, plan))
    if not plan.items:
        why = placement.floats if placement else {}
        reasons = "".join(f" ({layer.name}: {why[layer.name]})" for layer in graph.layers[:1] if layer.name in why)
        fix = "It needs Conv, Gemm or MatMul layers of constant weights, not all of them kept float"
        raise RecipeError(f"nothing would be quantized{reasons}", where=str(source), fix=fix)
    methods = {item.settings.method for item in plan.items.values()}
    data_free = plan.weights_only and methods <= {"rtn", "mse"} and recipe.data.source is None
    if needs_data and not data_free:
        plan.samples = open_parts(recipe.data, graph.inputs)
        _require_classes(plan)
    _require_measure(plan)
    if check_out:
        require_out(plan)
    return plan


def entrance(graph: Graph, keep: tuple[str, ...]) -> tuple[str, ...]:
    """The layers that read the network's inputs and do at most ENTRANCE of its products.

    Rounding an input costs every layer behind it, and a layer of few input channels gains little from integers.
    """
    work = {layer.name: _positions(graph, layer) * graph.matrix(layer).size for layer in graph.layers}
    least = ENTRANCE * sum(work.values())
    first = [layer for layer in graph.layers if layer.input in graph.inputs and layer.name not in keep]
    return tuple(layer.name for layer in first if work[layer.name] <= least)


def _positions(graph: Graph, layer: Layer) -> int:
    """How often the matrix of `layer` is used for one sample; open dimensions count once."""
    shape = graph.values.get(layer.raw, ("", None))[1] or ()
    return int(np.prod([n or 1 for n in shape[1:]], dtype=np.int64)) // layer.outputs or 1


def _format(settings: Settings, layer: Layer, plan: Plan) -> Format:
    """The weight format of a layer; RecipeError for what no ONNX operator stores."""
    found = BITS.fullmatch(settings.format)
    if found is None or not settings.symmetric:
        raise RecipeError(
            f"{settings.format}{'' if settings.symmetric else ' with zero points'} does not run in an integer layer",
            where=layer.name,
            fix="Choose int2 to int8, symmetric",
        )
    if settings.activations != "none":
        raise RecipeError(
            "run-time activations are of language models", where=layer.name, fix="Say it in [network] activations"
        )
    bits, block = int(found[1]), settings.group or "channel"
    if plan.weights_only:
        if isinstance(block, int) and layer.inputs % block:
            raise RecipeError(
                f"{layer.inputs} inputs do not divide by groups of {block}", where=layer.name,
                fix='Choose a smaller --group, or format = "float" for it in [[rules]]',
            )  # fmt: skip
        if not isinstance(block, int) or block not in GROUPS or bits not in (4, 8):
            raise RecipeError(
                f"MatMulNBits does not store {settings.format} per {block}",
                where=layer.name,
                fix="Use --bits 4 or 8 and --group 16, 32, 64, 128 or 256",
            )
    elif isinstance(block, int):
        raise RecipeError(
            f"groups of {block} weights do not run in integers", where=layer.name,
            fix='Use --group channel, or activations = "none" in [network] for weight-only MatMulNBits',
        )  # fmt: skip
    if settings.method == "lloyd":
        raise RecipeError("codebooks do not run in integers", where=layer.name, fix="Choose another --method")
    return weight_format(bits, block)


def _require_patterns(plan: Plan) -> None:
    known = [name for layer in plan.graph.layers for name in (layer.weight, layer.name)]
    for rule in plan.recipe.rules:
        if not any(matches(rule.match, name) for name in known):
            raise RecipeError(
                f"pattern {rule.match!r} matches no layer", where="recipe: rules", fix=nearest(rule.match, known)
            )


def _require_classes(plan: Plan) -> None:
    """Raise DataError for labels that the network has no class for, where its scores are [samples, classes]."""
    name, (_, shape) = next(iter(plan.graph.outputs.items()))
    if len(shape) < 2 or shape[1] is None or any(size != 1 for size in shape[2:]):
        return
    for part in plan.samples or ():
        if part.task == "classify":
            require_classes(part.labels, part.classes or (), shape[1], name, part.name)


def _require_measure(plan: Plan) -> None:
    """Raise where a largest drop was asked for that nothing can be judged by."""
    if plan.recipe.network.max_drop is None:
        return
    if plan.weights_only:
        raise RecipeError(
            "layers come back to float in integer networks only", where="network.max_drop",
            fix='Leave it out where activations = "none"',
        )  # fmt: skip
    first = plan.samples[0] if plan.samples else None
    if first is not None and (first.task == "none" or (first.task == "detect" and not first.labelled)):
        raise RecipeError(
            f"{first.name} has no labels to judge a drop by", where="network.max_drop",
            fix='Give labels, or set data.task = "classify" for the agreement on the best class, or leave it out',
        )  # fmt: skip


def require_out(plan: Plan) -> None:
    """Raise where the output cannot be written: it exists, is no .onnx, or the folder is read-only or full."""
    out = plan.out
    if out.suffix != ".onnx":
        raise RecipeError("the output of an ONNX network is a file", where=str(out), fix="Give -o NAME.onnx")
    if out.exists():
        raise RecipeError("the output exists", where=str(out), fix="Choose another -o, or remove it")
    base = out.parent
    while not base.exists():
        base = base.parent
    if not base.is_dir() or not os.access(base, os.W_OK | os.X_OK):
        raise ResourceError("the output folder cannot be written", where=str(base), fix="Choose another -o")
    free = shutil.disk_usage(base).free
    if plan.final_bytes > free:
        raise ResourceError(
            f"the output needs {plan.final_bytes / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free",
            where=str(base),
            fix="Free disk space or choose another -o",
        )
