"""A language model for the engine: its matrices, block after block, each with calibration statistics of its input."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from bitwright import machine
from bitwright.core import formats
from bitwright.core.format import Format
from bitwright.core.formats import named
from bitwright.core.scaling import Block
from bitwright.errors import InputError, ModelError, RecipeError, ResourceError, TensorError, about
from bitwright.events import Event, Row
from bitwright.files import sidecars
from bitwright.files.containers import registry as containers
from bitwright.files.containers.gguf import families
from bitwright.files.folder import require_finite, sync, write_config
from bitwright.files.held import Module
from bitwright.files.plain import fingerprint
from bitwright.files.quantized import QuantizedCheckpoint
from bitwright.methods import Method, registry
from bitwright.models import kinds
from bitwright.models.effort import EFFORTS, Effort
from bitwright.models.histogram import Pieces
from bitwright.models.language import cache, costs, curvature, ladder, memory, sensitivity, text, verify
from bitwright.models.language.arch import Architecture, Matrix
from bitwright.models.language.calibration import Calibration
from bitwright.models.language.compare import compare_folders
from bitwright.models.language.data import tell_columns
from bitwright.models.language.evaluate import Comparison
from bitwright.models.language.importance import Importance, gather
from bitwright.models.language.memory import SOLVE
from bitwright.models.language.mixture import shares_of
from bitwright.models.language.modules import modules
from bitwright.models.language.sink import FolderSink, sink_of
from bitwright.models.language.targets import GgufSink, Places
from bitwright.models.language.text import Text
from bitwright.models.language.turns import Turns
from bitwright.models.model import Aside, Copy, Cost, Drop, Estimate, Item, Model, Plan, Turn
from bitwright.recipe import Layer, Recipe, Rule, matches
from bitwright.words import megabytes

TRIAL = "trial"
"""The folder below a partial output with all matrices quantized, used to find out which must stay float."""


FLOAT = "float"
"""The format of what is left as it is."""
FINE_TYPE = 6
"""Bits from which on the embedding of a GGUF file is fitted for itself, not for its inputs."""
FINE = 8
"""Bits from which on an embedding is rounded to nearest unless a rule says otherwise: on SmolLM2 that alone costs a KL
of 0.0004, and its head has the weights of all blocks (docs/log.md)."""
LARGE = 0.3
"""Share of the output from which on a float embedding is remarked upon."""
HALF = 2.0**15
"""Weights up to here decode in float16, with room for rounding."""


def free_disk(path: Path) -> int:
    """Bytes free where `path` is to be."""
    there = next(parent for parent in [path, *path.absolute().parents] if parent.exists())
    return shutil.disk_usage(there).free


def _joined(*notes: str | None) -> str:
    return "; ".join(note for note in notes if note)


@contextmanager
def about_table(part: Matrix, recipe: Recipe) -> Iterator[None]:
    """Within, an error in the format of an embedding or head says which key of the recipe asked for that."""
    try:
        yield
    except InputError as error:
        if part.block is None and recipe.embedding != FLOAT and error.key == "layer.format":
            error.key = error.where = "embedding"
        raise


def _decided(recipe: Recipe, names: tuple[str, ...]) -> bool:
    """Whether a rule gives a format to what is called so."""
    return any("format" in rule.given and any(matches(rule.match, name) for name in names) for rule in recipe.rules)


def _reaches(method: Method, part: Matrix) -> bool:
    """Whether a method sees what it needs of a matrix: nothing multiplies a table, and samples are of blocks alone."""
    return part.multiplied and (method.needs != "samples" or part.block is not None)


def _notes(arch: Architecture, code: bool) -> list[str]:
    """What a folder holds besides the network; `code` says whether it is copied with its code."""
    notes = []
    if arch.beyond:
        notes.append(
            f"{len(arch.beyond)} tensors of blocks beyond the {arch.count} that config.json counts are no part of the "
            f"network, and kept float, first {next(iter(arch.beyond))}"
        )
    if others := [name for name in arch.outside if name not in arch.beyond]:
        notes.append(f"{len(others)} tensors outside the network are kept as they are, first {others[0]}")
    if still := arch.elsewhere():
        share = 100 * sum(m.rows * m.columns for m in still) / arch.weights
        notes.append(
            f"{len(still)} matrices outside the decoder's blocks stay float ({share:.1f} % of all weights), first "
            f"{still[0].name}"
        )
    if arch.checkpoint.quantized:
        kinds = Counter(held.format.name for held in arch.checkpoint.quantized.values())
        told = ", ".join(f"{count} as {name}" for name, count in kinds.most_common())
        notes.append(f"its matrices have been quantized before ({told}): what that cost is not counted here")
    if arch.checkpoint.folder.is_file():
        return notes
    if files := sidecars.unread(arch.checkpoint.folder, arch.checkpoint.files):
        notes.append(f"not read, as transformers does not: {', '.join(files)}")
    return [*notes, *sidecars.left(arch.checkpoint.folder, code)]


def _require_diagonal(method: Method, part: Matrix) -> None:
    """Raise RecipeError for a method that must see more of a matrix's input than an imatrix has."""
    if method.diagonal or method.needs == "nothing":
        return
    able = ", ".join(m.name for m in registry.all() if m.diagonal)
    needed = "samples" if method.needs == "samples" else "all second moments"
    raise RecipeError(
        f"{method.name} needs {needed} of a matrix's inputs, and an imatrix has the mean square of each alone",
        where=part.name, fix=f"Choose one of: {able}; or give --calib TEXT instead of --imatrix", key="layer.method",
    )  # fmt: skip


def _require_weighed(plan: Plan) -> None:
    """Raise RecipeError where an imatrix would be ignored, or calibration text asks for the same."""
    if "source" in plan.recipe.calibration.model_fields_set:
        what = "contradicts --calib: both say how columns are weighed"
        raise RecipeError(what, where="--imatrix", fix="Give one of them", key="imatrix")
    kept, spent = plan.container.cache is not None, plan.recipe.budget is not None
    if kept or spent:
        other = "--kv-cache, whose scales take" if kept else "a budget, for which costs are measured on"
        what = f"contradicts {other} calibration text"
        raise RecipeError(what, where="--imatrix", fix="Give --calib TEXT instead", key="imatrix")
    inside = [item for item in plan.items.values() if item.part.block is not None]
    if not any(item.method.diagonal for item in inside):
        what = f"is of no use to {', '.join(dict.fromkeys(item.method.name for item in inside))}"
        raise RecipeError(what, where="--imatrix", fix="Leave it out, or choose another --method", key="imatrix")


class LanguageModel(Model):
    """A folder that transformers understands, read tensor by tensor.

    With effort "fast" every matrix is solved with the float model's own inputs: codes depend on no other matrix.
    Otherwise they make up for those before them; where one of these stays float after all, they are kept as they are.
    """

    independent, spread = True, costs.SPREAD

    def __init__(self, path: Path, recipe: Recipe, device: str = "cpu") -> None:
        self.kind, self.path, self.device = kinds.get("language"), path, device
        self.arch = Architecture.open(path, machine.calibration_dtype(device))
        checkpoint = self.arch.checkpoint
        if checkpoint.quantized and not checkpoint.again:
            raise ModelError(
                "already quantized: quantizing twice only adds error", where=str(path), fix="Start from the float model"
            )
        if isinstance(checkpoint, QuantizedCheckpoint) and not checkpoint.again:
            raise ModelError(
                "config.json says how it is quantized, and no tensor is",
                where=str(path),
                fix="Remove quantization_config from config.json if these are the float weights",
            )
        self.unpacks = self.arch.unpacks
        self.notes, self.pre = _notes(self.arch, recipe.copy_code), recipe.tokenizer_pre
        self._imatrix = recipe.imatrix
        self._known_peaks: dict[str, tuple[float, float]] = {}

    @property
    def files(self) -> list[Path]:
        return self.arch.checkpoint.files

    @property
    def source_bytes(self) -> int:
        return self.arch.checkpoint.size

    @property
    def parameters(self) -> int:
        return sum(e.count for e in self.arch.checkpoint.tensors.values() if e.dtype.is_floating_point)

    def identity(self) -> Any:
        tensors = self.arch.checkpoint.tensors.values()
        return {
            "source": sorted((e.name, str(e.dtype), e.shape) for e in tensors),
            "files": fingerprint([*self.files, *([] if self.path.is_file() else [self.path / "config.json"])]),
            **({} if self.weighing is None else {"imatrix": self.weighing.sha256}),
            # Sums of a matrix product are taken in another order by another number of threads.
            "arithmetic": [self.device, str(machine.calibration_dtype(self.device)), torch.get_num_threads()],
        }

    # --- planning

    def container(self, container: Any, recipe: Recipe) -> Any:
        """As it is used here: where keys and values are to be rounded, it says how."""
        if recipe.kv_cache == FLOAT:
            return container
        found = container.cached(recipe.kv_cache, self.arch.model)
        kept = cache.attentions(self.arch, found.cache)
        if not kept:
            raise ModelError(
                "no attention of its decoder keeps keys and values", where=str(self.path),
                fix="Leave --kv-cache out", key="kv_cache",
            )  # fmt: skip
        shapes = found.cache.scales
        if found.cache.heads and any((one.heads, 1, 1) != shapes[s] for one in kept for s in one.scales):
            return container.cached(recipe.kv_cache, self.arch.model, heads=False)
        return found

    def parts(self, recipe: Recipe) -> list[Matrix]:
        """The matrices of the blocks, and the embedding and the head where the recipe asks for them."""
        arch, asked = self.arch, recipe.embedding != FLOAT or self._typed(recipe)
        table, head = arch.table, arch.head
        if asked and table is None:
            raise RecipeError(
                "this network has no embedding of its own (torch.nn.Embedding)",
                where="embedding", fix="Leave the embedding float", key="embedding",
            )  # fmt: skip
        chosen = arch.quantizable()
        looked_up = table is not None and (asked or self._named(recipe, self.names(table)))
        if table is not None and looked_up:
            chosen.append(table)
        if head is None or arch.head_module is None:
            return chosen
        apart = self._named(recipe, (arch.head_module,))
        if arch.tied and apart and (looked_up or not recipe.untie):
            raise RecipeError(
                "the head shares its tensor with the embedding, "
                + ("which is quantized for both" if looked_up else "so that quantizing it would quantize both"),
                where=head,
                fix='Give embedding = "int8" in the recipe (--embedding int8) for both and no rule for the head, or '
                "untie = true to store a quantized head beside the float embedding",
                key="untie",
            )
        if apart or (asked and not arch.tied):
            rows, columns = arch.checkpoint.entry(head).shape
            chosen.append(Matrix(head, f"{arch.head_module}.weight", rows, columns, None))
        return chosen

    def _named(self, recipe: Recipe, names: tuple[str, ...]) -> bool:
        """Whether a rule means what is called so, and not matrices of the blocks as well."""
        return any(
            any(matches(rule.match, name) for name in names)
            and not any(matches(rule.match, m.name) for m in self.arch.quantizable())
            for rule in recipe.rules
        )

    def names(self, part: Any) -> tuple[str, ...]:
        if part.lookup:
            return part.name, part.param
        return (f"{self.arch.head_module}.weight" if part.block is None else part.name,)

    def known(self) -> Sequence[str]:
        arch = self.arch
        outside = [*(self.names(arch.table) if arch.table else ()), *([arch.head_module] if arch.head_module else [])]
        return [*(m.name for m in arch.quantizable()), *outside]

    def layer(self, part: Any, recipe: Recipe) -> Layer:
        if part.block is None and recipe.embedding != FLOAT:
            fine = recipe.embedding in formats.families() and named(recipe.embedding).bits >= FINE
            method = "rtn" if fine else None
            asked = Rule(match="*", format=recipe.embedding, symmetric=True, activations="none", method=method)
            recipe = recipe.model_copy(update={"rules": (asked, *recipe.rules)})
        if recipe.type is not None:
            recipe = self._ruled(part, recipe, self.places.format(recipe.type, part.name)[0])
        elif recipe.budget is not None and (part.block is not None or self._typed(recipe)):
            recipe = self._ruled(part, recipe, next(iter(ladder.of(recipe, part.columns)), FLOAT))
        return super().layer(part, recipe)

    def _typed(self, recipe: Recipe) -> bool:
        """Whether everything gets a format, the embedding and the head among it."""
        budgeted = recipe.budget is not None and recipe.output is not None
        return recipe.type is not None or (budgeted and bool(containers.get(str(recipe.output)).ending))

    def _ruled(self, part: Matrix, recipe: Recipe, format: str) -> Recipe:
        """The recipe in which a part gets this format, unless a rule says otherwise."""
        fine = part.block is None and format in formats.families() and named(format).bits >= FINE_TYPE
        chosen = Rule(match="*", format=format, method="mse" if fine else None)
        return recipe.model_copy(update={"rules": (chosen, *recipe.rules)})

    def choices(self, plan: Plan) -> dict[str, list[Item]]:
        recipe, found = plan.recipe, {}
        for name, item in plan.items.items():
            part, names = item.part, [item.format.name]
            if not _decided(recipe, self.names(part)) and (part.block is not None or self._typed(recipe)):
                names = ladder.of(recipe, part.columns)
            layers = [super(LanguageModel, self).layer(part, self._ruled(part, recipe, format)) for format in names]
            forms = [item] if len(names) == 1 else [self.item(part, layer, plan) for layer in layers]
            found[name] = [form for form in forms if isinstance(form, Item)]
        return found

    def together(self, plan: Plan) -> list[list[str]]:
        if self._typed(plan.recipe):
            return self.places.together(list(plan.items))
        names = {item.part.param.removesuffix(".weight"): item.name for item in plan.items.values()}
        fused = [
            [names[module] for module in unit if module in names]
            for unit in plan.container.together(self.modules(plan))
        ]
        inside = {name for unit in fused for name in unit}
        return [*filter(None, fused), *([name] for name in plan.items if name not in inside)]

    def costs(
        self, plan: Plan, data: Text, choices: Mapping[str, list[Item]], known: Callable[[str], bool]
    ) -> Generator[Event | Cost, None, None]:
        return costs.measure(plan, self.arch, self.device, data, choices, known)

    def leave(self, chosen: Mapping[str, Layer], recipe: Recipe, container: Any) -> dict[str, str]:
        if recipe.type is None:
            return {}
        mixed = {name: self.places.format(recipe.type, name) for name in chosen}
        return {
            name: f"left float: {note}"
            for name, (format, note) in mixed.items()
            if chosen[name].format == format and format not in formats.families() and note is not None
        }

    @cached_property
    def places(self) -> Places:
        """Where its tensors go in a GGUF file. Raises ModelError for a network that there are no such files of."""
        return Places(self.arch, self.pre)

    @cached_property
    def weighing(self) -> Importance | None:
        """The imatrix that the recipe names. Raises FileError where it cannot be read, or is another network's."""
        return None if self._imatrix is None else Importance(Path(self._imatrix).expanduser(), self.places)

    def item(self, part: Any, layer: Layer, plan: Plan) -> Item | str:
        if plan.container.unpacking and not self.arch.finds_packed(part):
            return "left float: transformers would not find it packed"
        with about_table(part, plan.recipe):
            found = self._format(part, layer, plan)
            if isinstance(found, str):
                return found
            format, note = found
            if plan.recipe.type is not None:
                asked, why = self.places.format(plan.recipe.type, part.name)
                note = _joined(note, why if format.name == asked else None) or None
            if part.lookup:
                plan.container.require_table(format)
        if part.name in self.arch.inseparable and not plan.container.study:
            network = type(self.arch.model).__name__
            raise RecipeError(
                f"{network} has its experts in one tensor, and transformers reads no packed form of that",
                where=part.name,
                fix='Use --simulate (output = "float") to study it',
                key="output",
            )
        if part.transposed and not plan.container.transposes:
            raise TensorError(
                "no runtime reads packed Conv1D weights (stored inputs x outputs)",
                where=part.name,
                fix='Use --simulate (output = "float") to study it, or a GGUF or ONNX export once available',
                key="output",
            )
        method, activations = registry.get(layer.method), layer.activations
        if method.scope == "model" and activations != "none":
            raise RecipeError(
                f"{method.name} trains language models whose inputs stay float, not {activations}",
                where=part.name, fix="Choose another method, or no activations", key="layer.activations",
            )  # fmt: skip
        if part.lookup and activations != "none":
            activations, note = "none", _joined(note, "no inputs to round: tokens are looked up")
        options = layer.options
        absent = False
        if self.weighing is not None:
            _require_diagonal(method, part)
            absent = method.diagonal and part.multiplied and self.weighing.of(part) is None
            if not method.diagonal:
                note = _joined(f"{method.name} makes no use of the imatrix", note)
            elif absent:
                note = _joined("not in the imatrix, all its columns count alike", note)
        while method.fallback is not None and (absent or not _reaches(method, part)):
            method = registry.get(method.fallback)
            options = method.options()
        return Item(part, format, method, options, activations, note)

    def _format(self, part: Matrix, layer: Layer, plan: Plan) -> tuple[Format, str | None] | str:
        """The format of a part, with a note where its blocks are not those asked for; or why it stays float."""
        scale = "bf16" if self.arch.checkpoint.entry(part.name).dtype == torch.bfloat16 else "fp16"

        def blocks(group: Block | None) -> Format:
            return plan.container.format(  # type: ignore[no-any-return]
                layer.format, group=group, symmetric=layer.symmetric, scale=scale, activations=layer.activations
            )

        asked = blocks(layer.group)
        kept = None
        if not self._keeps(part, asked):
            scale, kept = "bf16", "bfloat16 scales: float16 does not hold them"
            asked = blocks(layer.group)
            self._require_kept(part, asked)
        if asked.fits(part.columns):
            return asked, kept
        why = f"{part.columns} inputs do not divide by {asked.block}"
        if layer.group is None:
            for size in plan.container.groups:
                smaller = blocks(size)
                if isinstance(asked.block, int) and size < asked.block and smaller.fits(part.columns):
                    return smaller, _joined(f"groups of {size}: {why}", kept)
        if plan.recipe.indivisible == "float":
            return f"left float: {why}"
        whole = blocks("channel")
        if not whole.fits(part.columns):
            raise TensorError(
                f"{part.columns} inputs do not divide into the blocks of {asked.name}, which are fixed",
                where=part.name, fix='Choose another format, or indivisible = "float"', key="layer.format",
            )  # fmt: skip
        if layer.group is not None and plan.recipe.indivisible == "error":
            recipe = plan.recipe
            parts = [p for p in self.parts(recipe) if recipe.layer_for(*self.names(p))[0].group == layer.group]
            best = next((g for g in plan.container.groups if all(blocks(g).fits(p.columns) for p in parts)), "channel")
            raise TensorError(
                f"{part.columns} inputs do not divide into groups of {asked.block}",
                where=part.name,
                fix=f"Give group {best}, the best that fits all {len(parts)} matrices, or none, for the largest that "
                'fits each; or set indivisible = "channel" or "float" in the recipe (--indivisible)',
                key="layer.group",
            )
        return whole, _joined(f"one scale per row: {why}", kept)

    def _keeps(self, part: Matrix, format: Format) -> bool:
        """Whether the scales of a format hold the weights of every row; read only where their dtype reaches further."""
        least, most = format.span
        if format.scale.type == "fp16":
            most = HALF  # runtimes multiply in the scale's type
        if torch.finfo(self.arch.checkpoint.entry(part.name).dtype).max <= 2 * most:
            return True
        low, high = self._peaks(part)
        return least <= low and high <= most

    def _require_kept(self, part: Matrix, format: Format) -> None:
        """Raise TensorError where some weights are beyond what a format can hold."""
        if not self._keeps(part, format):
            low, high = self._peaks(part)
            least, most = format.span
            raise TensorError(
                f"the largest weights of its rows are {low:.3g} to {high:.3g}; scales of {format.name} hold "
                f"{least:.3g} to {most:.3g}",
                where=part.name, fix="Choose a format whose scales are open, such as int4", key="layer.format",
            )  # fmt: skip

    def _peaks(self, part: Matrix) -> tuple[float, float]:
        """The smallest, zeros aside, and the largest of max|w| of each row. Raises TensorError as `rows` does."""
        if part.name not in self._known_peaks:
            step = part.rows if part.transposed else max(1, SOLVE // part.columns)
            starts = range(0, part.rows, step)
            peaks = torch.cat([self._stored(part, i, i + step).abs().amax(dim=1) for i in starts])
            least = peaks[peaks > 0].min() if bool(peaks.any()) else torch.tensor(math.inf)
            self._known_peaks[part.name] = float(least), float(peaks.max())
        return self._known_peaks[part.name]

    def _stored(self, part: Matrix, start: int, stop: int) -> torch.Tensor:
        """Rows [start, stop) of a matrix in their own dtype, checked to be finite."""
        checkpoint = self.arch.checkpoint
        if part.transposed:
            stored = checkpoint.read(part.name).T.contiguous()
        else:
            stored = checkpoint.read(part.name, start, stop)
        require_finite(f"{checkpoint.entry(part.name).path}: {part.name}", stored, start)
        return stored

    def require(self, plan: Plan) -> None:
        """Raise if too many weights of the blocks stay float although no rule says so."""
        if plan.container.unpacking and self.arch.merged:
            raise ModelError(
                f"transformers {version('transformers')} drops tensors that it joins while loading packed weights, "
                f"such as {self.arch.merged[0]}",
                where=str(self.path),
                fix="Use --to float to study it, or try another release of transformers",
                foreign=True,
            )
        plan.container.require_together(self.modules(plan), self.unpacks)
        if self.weighing is not None:
            _require_weighed(plan)
            plan.notes.append(self.weighing.note)
        plan.notes += plan.effort.notes
        if plan.recipe.budget is not None:
            self._require_measured(plan)
        if plan.container.ending:
            plan.notes += families.notes(self.places.config)
        if plan.container.cache is not None and memory.looks(plan) and not plan.effort.corrects:
            plan.notes.append("scales of keys and values are fitted to those of the float network, not of its copy")
        if plan.container.cache is not None and any(i.method.scope == "model" for i in plan.items.values()):
            plan.notes.append("scales of keys and values are fitted to those at which training begins")
        if self.untied(plan):
            added = sum(plan.stored(i) for i in plan.items.values() if self.arch.apart(i.part)) // 8
            plan.notes.append(
                f"a head of {megabytes(added)} is added to the float embedding: --embedding int8, and no untie, stores "
                "one table for both"
            )
        asked = {m.name for m in self.arch.quantizable() if plan.recipe.layer_for(m.name)[0].format == FLOAT}
        total = left = 0
        worst: tuple[int, str] = (0, "")
        for block in range(self.arch.count):
            for entry in self.arch.tensors_of(block):
                if len(entry.shape) < 2 or entry.name in asked or self.arch.is_buffer(entry.name):
                    continue
                total += entry.count
                if entry.name not in plan.items:
                    left += entry.count
                    worst = max(worst, (entry.count, entry.name))
        percent = 100 * left / max(total, 1)
        if percent > plan.recipe.max_float_percent:
            raise RecipeError(
                f"{percent:.1f} % of the decoder blocks' weights would stay float "
                f"(limit {plan.recipe.max_float_percent:g} %), the largest {worst[1]}",
                where=str(self.path),
                fix="Leave them float on purpose with a rule, or raise max_float_percent in the recipe",
                key="max_float_percent",
            )

    def _require_measured(self, plan: Plan) -> None:
        """Raise where it cannot be found out what formats cost."""
        if not memory.looks(plan):
            raise RecipeError(
                "a budget is spent by what formats cost on text, and nothing looks at any", where="budget",
                fix="Give --calib TEXT, and a method that looks at it (descent)", key="budget",
            )  # fmt: skip
        if not plan.effort.weighing:
            why = plan.effort.notes[-1] if plan.effort.notes else "no method weighs outputs"
            raise ResourceError(f"a budget needs to know how much outputs count: {why}", where="budget",
                                fix="Give more memory, or --type instead of a budget")  # fmt: skip

    def open_data(self, plan: Plan) -> None:
        with about("calibration.source"):
            shares_of(plan.recipe.calibration)
        if plan.recipe.max_drop is not None and not memory.evaluates(plan):
            raise RecipeError(
                "there is no text to measure a drop on", where="max_drop", fix="Give --calib TEXT", key="max_drop"
            )

    def sink(self, plan: Plan) -> FolderSink:
        if plan.attempt_of is not None and plan.trial:
            return sink_of(plan.attempt_of)  # its codes are there already
        folder = plan.partial / TRIAL if plan.trial else plan.partial
        if plan.container.ending:
            return GgufSink(plan, self.arch, folder, self.places, {} if self.weighing is None else self.weighing.facts)
        return FolderSink(plan, self.arch, folder)

    def effort(self, plan: Plan) -> Effort:
        """What the recipe's effort means where text is looked at, as far as memory and disk allow."""
        asked, room = EFFORTS[plan.recipe.effort], plan.room
        if not memory.looks(plan):
            return Effort()
        untied, c = self.untied(plan), plan.recipe.calibration
        learns = any(item.method.needs == "samples" for item in plan.items.values())  # of both streams
        least = costs.WEIGHING if plan.recipe.budget is not None else 0
        corrects, windows, notes = asked.corrects and not learns, min(max(asked.weighing, least), c.windows), []
        if not any(item.method.weighs for item in plan.items.values()):
            windows = 0
        if corrects and c.windows < 2:
            corrects = False
            notes.append("errors of earlier matrices are not made up for: that takes two windows of text")

        def lacking(effort: Effort) -> str | None:
            needed = memory.memory_of(plan, self.arch, self.device, untied, effort)
            limit = f"the limit is {megabytes(room)}"
            return f"that needs {megabytes(needed)} of memory, and {limit}" if needed > room else None

        if corrects and (why := lacking(Effort(corrects))):
            corrects = False
            notes.append(f"errors of earlier matrices are not made up for: {why}")
        if windows:
            cost = memory.curvature_cost(plan, self.arch, self.device, windows, c.length)
            free = free_disk(plan.partial) + curvature.kept(plan.partial)
            if why := memory.curvature_mode(plan, cost, free) or lacking(Effort(corrects or learns, windows)):
                notes.append(f"all outputs count alike, as weighing them does not fit: {why}")
                windows = 0
        return Effort(corrects or learns, windows, notes=tuple(notes))

    def estimate(self, plan: Plan) -> Estimate:
        found = memory.estimate(plan, self.arch, self.device, plan.sink.final_bytes, self.untied(plan))
        if plan.recipe.budget is None:
            return found
        return found._replace(seconds=found.seconds + costs.seconds(self.choices(plan)))

    def untied(self, plan: Plan) -> bool:
        """Whether the head is stored apart from the embedding it shared."""
        return any(self.arch.apart(item.part) for item in plan.items.values())

    def modules(self, plan: Plan) -> list[Module]:
        return modules(self.arch, {name: item.held for name, item in plan.items.items()}, self.untied(plan))

    def lines(self, plan: Plan) -> list[str]:
        copies = sink_of(plan).copies
        kept, names = sum(e.size for e in copies), {e.name for e in copies}
        what = [
            word
            for word, there in (
                ("embedding", self.arch.embedding in names),
                ("norms", True),
                ("head", self.arch.head in names and not self.untied(plan)),
            )
            if there
        ]
        lines = [f"{len(copies)} tensors kept as they are ({kept / 1e6:,.1f} MB: {', '.join(what)})"]
        return lines + self._text(plan) + self._effort(plan) + self._kept(plan) + self._hint(plan)

    def _kept(self, plan: Plan) -> list[str]:
        """How keys and values are held, of which blocks, and how much that saves."""
        found, kept = self._cache(plan).get("cache"), sink_of(plan).attentions
        if not found:
            return []
        sizes = f"{megabytes(found['bytes_float'])} -> {megabytes(found['bytes'])} per {found['tokens']:,} tokens"
        blocks = len({one.block for one in kept})
        which = "" if blocks == self.arch.count else f", in {blocks} of {self.arch.count} blocks: others keep none"
        return [f"keys and values as {found['held']}: {sizes}{which}"]

    def _effort(self, plan: Plan) -> list[str]:
        """What is done for quality beside rounding, where text is looked at."""
        if not memory.looks(plan):
            return []
        effort, c = plan.effort, plan.recipe.calibration
        told = [
            *(["errors of earlier matrices are made up for"] if effort.corrects else []),
            *([f"outputs weighed on {effort.weighing * c.length:,} tokens"] if effort.weighing else []),
        ]
        return [f"effort {plan.recipe.effort}: {', '.join(told) or 'each matrix rounded for its own inputs'}"]

    def _text(self, plan: Plan) -> list[str]:
        """How much calibration text the matrices see, where any does."""
        c, wide = plan.recipe.calibration, memory.widths(plan)
        if not wide:
            return []
        told = tell_columns(c.windows * c.length, wide, c.length)
        if any(item.part.expert is not None for item in plan.items.values()):
            told += "; an expert sees a part of them"
        counts = shares_of(c)
        each = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        return [*([f"calibration windows: {each}"] if len(counts) > 1 else []), f"calibration: {told}"]

    def _hint(self, plan: Plan) -> list[str]:
        """What an int8 embedding would make of the output, where the float one is much of it."""
        size = sum(e.size for e in sink_of(plan).copies if e.name in (self.arch.embedding, self.arch.head))
        whole = plan.sink.final_bytes
        if plan.container.study or self.arch.table is None or size < LARGE * whole:
            return []
        try:
            smaller = self._with_table(plan).sink.final_bytes
        except InputError:
            return []  # it cannot be stored beside the rest
        return [
            f"embedding and head are {size / whole:.0%} of the output: --embedding int8 makes it {megabytes(smaller)}"
        ]

    def _with_table(self, plan: Plan) -> Plan:
        """The same plan with an int8 embedding. Raises InputError where that cannot be."""
        recipe, items = plan.recipe.model_copy(update={"embedding": "int8"}), dict(plan.items)
        other = replace(plan, recipe=recipe, items=items)
        for part in self.parts(recipe):
            layer = self.layer(part, recipe)
            if part.block is None and part.name not in items and layer.format != FLOAT:
                found = self.item(part, layer, other)
                if isinstance(found, Item):
                    items[part.name] = found
        other.container.require_together(self.modules(other), self.unpacks)
        return other

    def facts(self, plan: Plan) -> dict[str, Any]:
        tokens = plan.recipe.calibration.windows * plan.recipe.calibration.length
        return {
            **self._cache(plan),
            **self._weighed,
            "copied": [e.name for e in sink_of(plan).copies],
            "calibration_tokens_per_column": {name: tokens / size for name, size in memory.widths(plan).items()},
        }

    # --- running

    def read_data(self, plan: Plan) -> Generator[Event, None, Text | None]:
        return (yield from text.prepare(plan, self.arch, self.device))

    def data_hash(self, data: Text | None) -> str | None:
        return None if data is None else data.calibration_hash

    def turns(
        self, plan: Plan, data: Text | None, finished: Callable[[str], bool]
    ) -> Iterator[Event | Turn | Copy | Aside]:
        """What is recovered comes first: the others are then calibrated with it, as with all that is written."""
        for name, item in list(plan.items.items()):
            if name in plan.recoverable and not finished(name):
                yield Turn([item.recovered])
                if not finished(name):
                    plan.items[name] = item.off_lattice
        yield from Turns(self.arch, self.device, plan, data, finished, self.weighing)

    def piece_rows(self, plan: Plan, item: Item) -> int:
        return memory.piece_rows(item, plan.container.step(item.format))

    def rows(self, item: Item, start: int, stop: int) -> torch.Tensor:
        return self._stored(item.part, start, stop).to(self.device).float()

    def adopt(self, plan: Plan, item: Item, trial: Plan) -> dict[str, int]:
        return sink_of(plan).adopt(item, sink_of(trial))

    def adopt_aside(self, plan: Plan, name: str, trial: Plan) -> dict[str, int]:
        return sink_of(plan).put(sink_of(trial).kept(name))

    def finish(self, plan: Plan) -> list[Path]:
        folder = sink_of(plan).folder
        curvature.clear(plan.partial)
        if not self.path.is_file():
            sidecars.copy(self.path, folder, plan.recipe.copy_code)
        elif not plan.container.ending:
            text.load_tokenizer(self.path).save_pretrained(folder)
        write_config(self.path, folder, self._config(plan))
        return [folder / file for file in sorted(sink_of(plan).layout.files)]

    def _config(self, plan: Plan) -> dict[str, Any]:
        """What the output's config.json says besides the source's."""
        changes: dict[str, Any] = {"tie_word_embeddings": False} if self.untied(plan) else {}
        config: dict[str, Any] = plan.container.config(self.modules(plan))
        return changes | config

    # --- judging

    def verify(self, plan: Plan, rows: Mapping[str, Row], sums: Mapping[str, int]) -> Iterator[Event]:
        return verify.verify(plan, self.arch, sink_of(plan), rows, sums)

    def judge(self, plan: Plan, data: Text | None) -> Generator[Event, None, dict[str, Any]]:
        verdict: dict[str, Any] | None = None
        if data is not None:
            rounded = any(item.activations != "none" for item in plan.items.values())
            comparison = yield from self._compare(plan, data.heldout)
            verdict = {**comparison.summary(), "rounded_inputs": rounded, **self._cache(plan)}
            others: list[dict[str, Any]] = []
            for source, windows in data.others.items():
                comparison = yield from self._compare(plan, windows)
                others.append({"source": source, **comparison.summary()})
            verdict |= {"others": others} if others else {}
        return {
            "text": data.summary if data else None,
            **self._weighed,
            "verdict": verdict,
            "loaded_by_transformers": verify.load_as_user(plan, self.arch, data),
        }

    @property
    def _weighed(self) -> dict[str, Any]:
        """What the imatrix was, where there is one."""
        return {} if self.weighing is None else {"imatrix": self.weighing.summary}

    def importance(self, plan: Plan, data: Any) -> Generator[Event, None, Any]:
        walk = Calibration(self.arch, self.device, data, memory.activation_budget(plan), plan.partial)
        try:
            dataset = data.summary["calibration"]["source"]
            length = plan.recipe.calibration.length
            return (yield from gather(self.places, walk, self.parts(plan.recipe), length, dataset))
        finally:
            walk.decoder.close()

    def _cache(self, plan: Plan) -> dict[str, Any]:
        """How keys and values are held, and their size, where they are rounded."""
        held, kept = plan.container.cache, sink_of(plan).attentions
        if held is None:
            return {}
        sizes = {"bytes_float": cache.size(kept, None), "bytes": cache.size(kept, held.format)}
        return {"cache": {"held": held.words, "tokens": cache.TOKENS, **sizes}}

    def _compare(self, plan: Plan, windows: torch.Tensor) -> Generator[Event, None, Comparison]:
        """The source and the partial output on held-out windows."""
        budget = memory.activation_budget(plan) // 2
        return (
            yield from compare_folders(
                self.path, plan.partial, windows, budget=budget, spill=plan.partial, phase="certify"
            )
        )

    def pair(self, plan: Plan, name: str) -> Pieces:
        sink, item, source = sink_of(plan), plan.items[name], self.arch.checkpoint
        if not plan.out.exists():
            yield source.read(name).float().numpy(), sink.read(item).float().numpy()
            return
        written, weight = sink.open(plan.out), f"{sink.module(item)}.weight"
        rows = memory.checked_rows(item, plan.container.step(item.format))
        for start, w in source.chunks(name, rows):
            yield w.float().numpy(), written.read(weight, start, start + rows).float().numpy()

    def drop(self, plan: Plan, data: Text) -> Generator[Event, None, Drop]:
        # A trial holds all matrices, whichever an attempt leaves float: its config says how they are read.
        write_config(self.path, sink_of(plan).folder, self._config(plan.attempt_of or plan))
        return sensitivity.drop(plan, self.arch, data)

    def rank(self, plan: Plan, data: Text) -> Generator[Event, None, list[str]]:
        return sensitivity.rank(plan, self.arch, data)

    def seal(self, plan: Plan, certificate: str, card: str) -> None:
        self.kind.certificate(plan.partial).write_text(certificate, "utf-8")
        self.kind.card(plan.partial).write_text(card, "utf-8")
        shutil.rmtree(plan.partial / TRIAL, ignore_errors=True)
        sync(path for path in plan.partial.rglob("*") if path.is_file())

    def publish(self, plan: Plan) -> None:
        for kept in plan.partial.glob(f"{Path(text.OWN).stem}.*"):  # a killed run may have left half of one
            kept.unlink()
        if not plan.container.ending:
            plan.partial.rename(plan.out)
            return
        for paper in sidecars.papers(plan.partial):
            paper.rename(sidecars.beside(plan.out, paper.name))
        for place in (self.kind.certificate, self.kind.card):
            place(plan.partial).rename(place(plan.out))
        (plan.partial / plan.out.name).rename(plan.out)
        shutil.rmtree(plan.partial)
