"""What the plan for a language model says in words, besides formats, sizes, memory and time."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from bitwright.errors import InputError
from bitwright.files import sidecars
from bitwright.models.language import cache, memory
from bitwright.models.language.arch import Architecture
from bitwright.models.language.data import tell_columns
from bitwright.models.language.forms import FLOAT, Forms
from bitwright.models.language.mixture import shares_of
from bitwright.models.language.modules import modules_of, unties
from bitwright.models.language.sink import sink_of
from bitwright.models.model import Item, Plan
from bitwright.words import megabytes

LARGE = 0.3
"""Share of the output from which on a float embedding is remarked upon."""


def notes(arch: Architecture, code: bool) -> list[str]:
    """What a folder holds besides the network; `code` says whether it is copied with its code."""
    found: list[str] = []
    if arch.beyond:
        found.append(
            f"{len(arch.beyond)} tensors of blocks beyond the {arch.count} that config.json counts are no part of the "
            f"network, and kept float, first {next(iter(arch.beyond))}"
        )
    if others := [name for name in arch.outside if name not in arch.beyond]:
        found.append(f"{len(others)} tensors outside the network are kept as they are, first {others[0]}")
    if still := arch.elsewhere():
        share = 100 * sum(m.rows * m.columns for m in still) / arch.weights
        found.append(
            f"{len(still)} matrices outside the decoder's blocks stay float ({share:.1f} % of all weights), first "
            f"{still[0].name}"
        )
    if arch.checkpoint.quantized:
        kinds = Counter(held.format.name for held in arch.checkpoint.quantized.values())
        told = ", ".join(f"{count} as {name}" for name, count in kinds.most_common())
        found.append(f"its matrices have been quantized before ({told}): what that cost is not counted here")
    if arch.checkpoint.folder.is_file():
        return found
    if files := sidecars.unread(arch.checkpoint.folder, arch.checkpoint.files):
        found.append(f"not read, as transformers does not: {', '.join(files)}")
    return [*found, *sidecars.left(arch.checkpoint.folder, code)]


def lines(plan: Plan, arch: Architecture, forms: Forms) -> list[str]:
    """What becomes of the rest, of text and of keys and values, and how the output could be smaller."""
    copies = sink_of(plan).copies
    kept, names = sum(e.size for e in copies), {e.name for e in copies}
    what = [
        word
        for word, there in (
            ("embedding", arch.embedding in names),
            ("norms", True),
            ("head", arch.head in names and not unties(plan, arch)),
        )
        if there
    ]
    lines = [f"{len(copies)} tensors kept as they are ({kept / 1e6:,.1f} MB: {', '.join(what)})"]
    return lines + _shards(plan) + _text(plan) + _effort(plan) + _kept(plan, arch) + _hint(plan, arch, forms)


def _shards(plan: Plan) -> list[str]:
    """How many files an output comes in, where their size is limited, and which are larger all the same."""
    most = plan.recipe.max_shard_bytes
    if most is None:
        return []
    plans = plan.ends if plan.unspent else (plan,)
    counts = list(dict.fromkeys(len(sink_of(each).layout.files) for each in plans))
    told = f"{' to '.join(map(str, counts))} file{'s' * (counts != [1])} of at most {megabytes(most)} each"
    return [told, *(() if plan.unspent else sink_of(plan).larger)]


def _kept(plan: Plan, arch: Architecture) -> list[str]:
    """How keys and values are held, of which blocks, and how much that saves."""
    found, kept = cached(plan).get("cache"), sink_of(plan).attentions
    if not found:
        return []
    sizes = f"{megabytes(found['bytes_float'])} -> {megabytes(found['bytes'])} per {found['tokens']:,} tokens"
    blocks = len({one.block for one in kept})
    which = "" if blocks == arch.count else f", in {blocks} of {arch.count} blocks: others keep none"
    return [f"keys and values as {found['held']}: {sizes}{which}"]


def _effort(plan: Plan) -> list[str]:
    """What is done for quality beside rounding, where text is looked at."""
    if not memory.looks(plan):
        return []
    effort, c = plan.effort, plan.recipe.calibration
    told = [
        *(["errors of earlier matrices are made up for"] if effort.corrects else []),
        *([f"outputs weighed on {effort.weighing * c.length:,} tokens"] if effort.weighing else []),
    ]
    return [f"effort {plan.recipe.effort}: {', '.join(told) or 'each matrix rounded for its own inputs'}"]


def _text(plan: Plan) -> list[str]:
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


def _hint(plan: Plan, arch: Architecture, forms: Forms) -> list[str]:
    """What an int8 embedding would make of the output, where the float one is much of it."""
    size = sum(e.size for e in sink_of(plan).copies if e.name in (arch.embedding, arch.head))
    whole = plan.sink.final_bytes
    if plan.container.study or arch.table is None or size < LARGE * whole:
        return []
    try:
        smaller = _with_table(plan, arch, forms).sink.final_bytes
    except InputError:
        return []  # it cannot be stored beside the rest
    return [f"embedding and head are {size / whole:.0%} of the output: --embedding int8 makes it {megabytes(smaller)}"]


def _with_table(plan: Plan, arch: Architecture, forms: Forms) -> Plan:
    """The same plan with an int8 embedding. Raises InputError where that cannot be."""
    recipe, items = plan.recipe.model_copy(update={"embedding": "int8"}), dict(plan.items)
    other = replace(plan, recipe=recipe, items=items)
    for part in forms.parts(recipe):
        layer = forms.layer(part, recipe)
        if part.block is None and part.name not in items and layer.format != FLOAT:
            found = forms.item(part, layer, other)
            if isinstance(found, Item):
                items[part.name] = found
    other.container.require_together(modules_of(other, arch), arch.unpacks)
    return other


def cached(plan: Plan) -> dict[str, Any]:
    """How keys and values are held, and their size, where they are rounded."""
    held, kept = plan.container.cache, sink_of(plan).attentions
    if held is None:
        return {}
    sizes = {"bytes_float": cache.size(kept, None), "bytes": cache.size(kept, held.format)}
    return {"cache": {"held": held.words, "tokens": cache.TOKENS, **sizes}}
