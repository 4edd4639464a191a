"""What each layer of a network becomes: its format and its method, by recipe or budget; and where integers flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bitwright.core import formats
from bitwright.errors import RecipeError
from bitwright.files.layers import Layer, Placement
from bitwright.methods import registry
from bitwright.models import ladder
from bitwright.models.model import Item, Plan
from bitwright.models.network import estimate
from bitwright.models.network.branches import require_open
from bitwright.models.network.graph import Graph
from bitwright.models.network.placement import place
from bitwright.models.network.shared import require_alike, turned, uses
from bitwright.models.network.trial import require_square
from bitwright.recipe import Layer as Settings
from bitwright.recipe import Recipe, Rule


class Forms:
    """What the layers of one network become under a recipe."""

    def __init__(self, graph: Graph, recipe: Recipe) -> None:
        self.graph, self.network = graph, recipe.network
        self._placements: dict[frozenset[str], Placement] = {}
        self._unplaced: set[str] = set()
        """Layers that no integer kernel takes wherever the others are."""

    def require_spendable(self, container: Any, recipe: Recipe) -> None:
        """Raise RecipeError where a budget has nothing to choose in a container, or names what it does not store."""
        if recipe.budget is None:
            return
        if container.integer and self.network.target == "gpu":
            raise RecipeError(
                "integer layers of TensorRT hold 8 bits per weight, so that a budget has nothing to choose",
                where="network.target", fix='Leave the budget out, or set target = "x86" or "arm"',
                key="network.target",
            )  # fmt: skip
        if container.integer and self.network.storage != "int4":
            raise RecipeError(
                "every code takes a byte, so that a budget has nothing to choose", where="network.storage",
                fix='Leave it out, or set storage = "int4"', key="network.storage",
            )  # fmt: skip
        group, symmetric = recipe.layer.group or "channel", recipe.layer.symmetric
        for name in recipe.budget.formats or ():
            try:
                container.format(name, group=group, symmetric=symmetric, scale="fp32", where="budget.formats")
            except RecipeError as error:
                if error.key == "layer.format" and name in formats.families():
                    error.key = "budget.formats"
                    raise

    def names(self, part: Layer) -> tuple[str, ...]:
        """See `Model.names`."""
        return tuple(dict.fromkeys((part.weight, part.name, part.node)))

    def left(self, chosen: Mapping[str, Settings], recipe: Recipe, container: Any) -> dict[str, str]:
        """Layers at the entrance, and those that no integer kernel takes."""
        require_open(self.graph.model.graph, self.graph.where)
        integer = bool(container.integer)
        learned = any(registry.get(layer.method).scope == "model" for layer in chosen.values())
        kept = [layer.name for layer in self.graph.matrices if layer.name not in chosen]
        if learned and (kept or not integer or recipe.max_drop is not None):
            raise RecipeError(
                "learned step sizes train every layer in integers", where="method lsq",
                fix="Leave out max_drop, float layers and activations = none, or choose another method",
                key="layer.method",
            )  # fmt: skip
        if learned and recipe.budget is not None:
            raise RecipeError(
                "learned step sizes train every layer at one bit width, and a budget gives each its own",
                where="method lsq", fix="Choose another --method, or --bits instead of the budget", key="layer.method",
            )  # fmt: skip
        if learned and self.graph.recurrent:
            first = self.graph.recurrent[0]
            raise RecipeError(
                f"learned step sizes train every layer in integers, but {first.op} cannot learn", where=first.node,
                fix="Choose another method", key="layer.method",
            )  # fmt: skip
        if not integer:
            why = "MatMulNBits holds matrix products only"
            return {layer.name: why for layer in self.graph.matrices if layer.op != "MatMul"}
        found = turned([layer for layer in self.graph.layers if layer.name in chosen])
        if found and learned:
            name, why = next(iter(found.items()))
            raise RecipeError(
                f"learned step sizes train every layer in integers, but {why}", where=name,
                fix="Choose another method", key="layer.method",
            )  # fmt: skip
        if self.network.entrance == "float" and not learned:
            why = "at the input: rounding it harms all layers"
            found |= dict.fromkeys(estimate.entrance(self.graph, kept), why)
        placement = self._place([*kept, *found])
        taken = placement.nodes | placement.small | set(found)
        self._unplaced = {name for name in chosen if name not in taken}
        reasons = {layer.name: placement.floats.get(layer.node, "") for layer in self.graph.matrices}
        return found | {name: reasons[name] for name in chosen if name in self._unplaced}

    def _place(self, floats: Sequence[str]) -> Placement:
        # Packed codes are for size alone: integer kernels take one byte each.
        return place(self.graph, self.network.target, keep=floats, dynamic=self.network.storage != "int4")

    def placement(self, plan: Plan, besides: Sequence[str] = ()) -> Placement:
        """Where integers flow in the plan, with layers `besides` left float."""
        if not plan.container.integer:
            return Placement(self.network.target, ())
        kept = (frozenset(plan.floats) - self._unplaced).union(besides)
        if kept not in self._placements:
            self._placements[kept] = self._place(sorted(kept))
        return self._placements[kept]

    def layer(self, part: Layer, recipe: Recipe) -> Settings:
        """The settings of a part; under a budget with the first of its formats, unless a rule names one."""
        if recipe.budget is not None:
            recipe = _ruled(recipe, ladder.of(recipe, part.columns)[0])
        return self._settled(part, recipe)

    def _settled(self, part: Layer, recipe: Recipe) -> Settings:
        return recipe.layer_for(*self.names(part))[0]

    def choices(self, plan: Plan) -> dict[str, list[Item]]:
        """See `Model.choices`."""

        def make(part: Layer, format: str) -> Item:
            return self.item(part, self._settled(part, _ruled(plan.recipe, format)), plan)

        return ladder.choices(plan, make)

    def together(self, plan: Plan) -> list[list[str]]:
        """Layers of one weight, which is stored once."""
        return [[item.name for item in items] for items in uses(plan.items).values()]

    def item(self, part: Layer, layer: Settings, plan: Plan) -> Item:
        """See `Model.item`."""
        if layer.activations != "none":
            raise RecipeError(
                "rounding activations at run time is for language models", where=part.name,
                fix="Set [network] activations instead", key="layer.activations",
            )  # fmt: skip
        format = plan.container.format(
            layer.format, group=layer.group or "channel", symmetric=layer.symmetric, scale="fp32", where=part.name
        )
        if not format.fits(part.columns):
            raise RecipeError(
                f"{part.inputs} inputs do not divide by groups of {format.block}", where=part.name,
                fix='Choose a smaller --group, or format = "float" for it in [[rules]]', key="layer.group",
            )  # fmt: skip
        require_square(self.graph.matrix(part), part.name, "weights")
        return Item(part, format, registry.get(layer.method), layer.options)

    def require(self, plan: Plan) -> None:
        """See `Model.require`."""
        if plan.recipe.max_drop is not None and not plan.container.integer:
            raise RecipeError(
                "layers can be kept float only in integer networks", where="max_drop",
                fix='Leave it out where activations = "none"', key="max_drop",
            )  # fmt: skip
        require_alike(plan.items, formats=plan.recipe.budget is None)
        methods = {item.method.name for item in plan.items.values() if item.method.scope == "model"}
        if methods and (len({(i.method.name, i.format, i.options) for i in plan.items.values()}) > 1):
            raise RecipeError(
                "learned step sizes train the whole network at one bit width", where=f"method {methods.pop()}",
                fix="Use it for all layers or none", key="layer.method",
            )  # fmt: skip


def _ruled(recipe: Recipe, format: str) -> Recipe:
    """The recipe in which every layer gets this format, unless a rule says otherwise."""
    return recipe.model_copy(update={"rules": (Rule(match="*", format=format), *recipe.rules)})
