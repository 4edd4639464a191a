"""What each matrix of a language model becomes: its format and its method, by recipe, mix or budget."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import torch

from bitwright.core import formats
from bitwright.core.format import Format
from bitwright.core.formats import named
from bitwright.core.scaling import Block
from bitwright.errors import InputError, RecipeError, TensorError
from bitwright.files.containers import registry as containers
from bitwright.files.held import Module
from bitwright.methods import Method, registry
from bitwright.models import ladder
from bitwright.models.language.arch import Architecture, Matrix
from bitwright.models.language.importance import Importance
from bitwright.models.language.memory import SOLVE
from bitwright.models.language.targets import Places
from bitwright.models.model import Item, Plan
from bitwright.recipe import Layer, Recipe, Rule, matches

FLOAT = "float"
"""The format of what is left as it is."""
FINE_TYPE = 6
"""Bits from which on the embedding of a GGUF file is fitted for itself, not for its inputs."""
FINE = 8
"""Bits from which on an embedding is rounded to nearest unless a rule says otherwise: on SmolLM2 that alone costs a KL
of 0.0004, and its head has the weights of all blocks (docs/log.md)."""
HALF = 2.0**15
"""Weights up to here decode in float16, with room for rounding."""


class Forms:
    """What the matrices of one network become under a recipe."""

    def __init__(self, arch: Architecture, recipe: Recipe) -> None:
        self.arch, self._pre, self._imatrix = arch, recipe.tokenizer_pre, recipe.imatrix
        self._known_peaks: dict[str, tuple[float, float]] = {}

    @cached_property
    def places(self) -> Places:
        """Where its tensors go in a GGUF file. Raises ModelError for a network that there are no such files of."""
        return Places(self.arch, self._pre)

    @cached_property
    def weighing(self) -> Importance | None:
        """The imatrix that the recipe names. Raises FileError where it cannot be read, or is another network's."""
        return None if self._imatrix is None else Importance(Path(self._imatrix).expanduser(), self.places)

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

    def names(self, part: Matrix) -> tuple[str, ...]:
        if part.lookup:
            return part.name, part.param
        return (f"{self.arch.head_module}.weight" if part.block is None else part.name,)

    def known(self) -> Sequence[str]:
        arch = self.arch
        outside = [*(self.names(arch.table) if arch.table else ()), *([arch.head_module] if arch.head_module else [])]
        return [*(m.name for m in arch.quantizable()), *outside]

    def layer(self, part: Matrix, recipe: Recipe) -> Layer:
        if part.block is None and recipe.embedding != FLOAT:
            fine = recipe.embedding in formats.families() and named(recipe.embedding).bits >= FINE
            method = "rtn" if fine else None
            asked = Rule(match="*", format=recipe.embedding, symmetric=True, activations="none", method=method)
            recipe = recipe.model_copy(update={"rules": (asked, *recipe.rules)})
        if recipe.type is not None:
            recipe = self._ruled(part, recipe, self.places.format(recipe.type, part.name)[0])
        elif recipe.budget is not None and (part.block is not None or self._typed(recipe)):
            recipe = self._ruled(part, recipe, next(iter(ladder.of(recipe, part.columns)), FLOAT))
        return self._settled(part, recipe)

    def _settled(self, part: Matrix, recipe: Recipe) -> Layer:
        return recipe.layer_for(*self.names(part))[0]

    def _typed(self, recipe: Recipe) -> bool:
        """Whether everything gets a format, the embedding and the head among it."""
        budgeted = recipe.budget is not None and recipe.output is not None
        return recipe.type is not None or (budgeted and bool(containers.get(str(recipe.output)).ending))

    def _ruled(self, part: Matrix, recipe: Recipe, format: str) -> Recipe:
        """The recipe in which a part gets this format, unless a rule says otherwise."""
        fine = part.block is None and format in formats.families() and named(format).bits >= FINE_TYPE
        chosen = Rule(match="*", format=format, method="mse" if fine else None)
        return recipe.model_copy(update={"rules": (chosen, *recipe.rules)})

    def left(self, chosen: Mapping[str, Layer], recipe: Recipe) -> dict[str, str]:
        if recipe.type is None:
            return {}
        mixed = {name: self.places.format(recipe.type, name) for name in chosen}
        return {
            name: f"left float: {note}"
            for name, (format, note) in mixed.items()
            if chosen[name].format == format and format not in formats.families() and note is not None
        }

    def choices(self, plan: Plan) -> dict[str, list[Item]]:
        """See `Model.choices`."""

        def make(part: Matrix, format: str) -> Item | str:
            return self.item(part, self._settled(part, self._ruled(part, plan.recipe, format)), plan)

        return ladder.choices(plan, make, lambda part: part.block is not None or self._typed(plan.recipe))

    def together(self, plan: Plan, modules: Sequence[Module]) -> list[list[str]]:
        if self._typed(plan.recipe):
            return self.places.together(list(plan.items))
        names = {item.part.param.removesuffix(".weight"): item.name for item in plan.items.values()}
        fused = [[names[module] for module in unit if module in names] for unit in plan.container.together(modules)]
        inside = {name for unit in fused for name in unit}
        return [*filter(None, fused), *([name] for name in plan.items if name not in inside)]

    def item(self, part: Matrix, layer: Layer, plan: Plan) -> Item | str:
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
            peaks = torch.cat([self.arch.rows(part, i, i + step).abs().amax(dim=1) for i in starts])
            least = peaks[peaks > 0].min() if bool(peaks.any()) else torch.tensor(math.inf)
            self._known_peaks[part.name] = float(least), float(peaks.max())
        return self._known_peaks[part.name]


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


def _reaches(method: Method, part: Matrix) -> bool:
    """Whether a method sees what it needs of a matrix: nothing multiplies a table, and samples are of blocks alone."""
    return part.multiplied and (method.needs != "samples" or part.block is not None)


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
