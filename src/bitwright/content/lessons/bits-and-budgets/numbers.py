"""What each tensor of the model pays for its bits, and how a budget of bytes is spent where it buys most."""

from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bitwright.authoring import lab
from bitwright.authoring.figures import Axis, Choice, Figure, Point, Series, Slider, explore, still
from bitwright.authoring.filters import significant
from bitwright.core.allocation import Allocation, Option, allocate, frontier
from bitwright.core.formats import named
from bitwright.engine import plan
from bitwright.methods import Seen, registry
from bitwright.models.language import costs
from bitwright.models.language.arch import Architecture
from bitwright.models.language.targets import Places
from bitwright.recipe import Recipe

TYPES = ("q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "q8_0")
TABLE = "embed_tokens"
MIX = "q4_k_m"
"""The mix of types by hand that llama.cpp's users take most."""
HALVES = {"choose": slice(0, 16), "judge": slice(16, 32)}
"""Windows of the held-out text by which the embedding's types are weighed, and others that judge the result."""
BETWEEN = 4
"""Steps of the budget from one type for all to the next."""
ALONE = "q3_k"
"""The type in which single matrices are measured."""


def tensors() -> list[str]:
    """The embedding, which is also the output head, and all matrices of the blocks."""
    return [TABLE, *lab.names()]


def label(name: str) -> str:
    """`layers.1.mlp.down_proj` -> `1 down`."""
    return "embedding" if name == TABLE else f"{name.split('.')[1]} {name.split('.')[-1].removesuffix('_proj')}"


def word(type: str) -> str:
    """As GGUF calls it."""
    return type.upper()


@cache
def rounded(name: str, type: str) -> np.ndarray:
    """A tensor in a type, by scale search."""
    search = registry.get("mse")
    seen = Seen() if name == TABLE else Seen(lab.stats(name))
    return search.solve(lab.weight(name), named(type), seen, search.options()).decode()


@cache
def cost(name: str, type: str) -> float:
    """Nats per token that a tensor alone costs: of a matrix by the loss's curvature, of the embedding by a run."""
    if name == TABLE:
        return lab.quality({TABLE: rounded(TABLE, type)}, HALVES["choose"]).kl
    error = lab.weight(name) - rounded(name, type)
    return costs.second_order(error, lab.stats(name).hessian, lab.curvature()[name])


def bits(name: str, type: str) -> float:
    """Stored bits per weight."""
    rows, columns = lab.weight(name).shape
    return named(type).stored_bits(rows, columns) / (rows * columns)


def size(name: str, type: str) -> int:
    """Bytes of a tensor."""
    return named(type).stored_bits(*lab.weight(name).shape) // 8


@cache
def rest() -> int:
    """Bytes of a GGUF file beside these tensors: metadata, tokenizer, norms."""
    job = plan.make(lab.MODEL, Path("x.gguf"), Recipe(type="q8_0"), check_out=False, needs_data=False)
    return job.sink.final_bytes - sum(job.stored(item) for item in job.items.values()) // 8


@cache
def groups() -> dict[str, list[Option]]:
    """What each tensor takes and costs in each type."""
    return {name: [Option(type, size(name, type), cost(name, type)) for type in TYPES] for name in tensors()}


def within(file: int) -> Allocation:
    """The types that cost least in a file of so many bytes."""
    return allocate(groups(), file - rest())


def types_of(found: Allocation) -> dict[str, str]:
    """Tensor -> type."""
    return {name: option.label for name, option in found.chosen.items()}


def alike(type: str) -> dict[str, str]:
    """One type for all."""
    return dict.fromkeys(tensors(), type)


@cache
def by_hand() -> dict[str, str]:
    """What llama.cpp's mix gives each tensor."""
    places = Places(Architecture.open(lab.MODEL))
    return {name: places.format(MIX, f"model.{name}.weight")[0] for name in tensors()}


def file(types: dict[str, str]) -> int:
    """Bytes of the file."""
    return rest() + sum(size(name, type) for name, type in types.items())


def predicted(types: dict[str, str]) -> float:
    """The sum of what the tensors cost alone."""
    return sum(cost(name, type) for name, type in types.items())


def measured(types: dict[str, str]) -> lab.Quality:
    """The model with its tensors in these types, on text that nothing was chosen by."""
    return _measured(tuple(types.items()))


@cache
def _measured(types: tuple[tuple[str, str], ...]) -> lab.Quality:
    return lab.quality({name: rounded(name, type) for name, type in types}, HALVES["judge"])


def mean_bits(type: str) -> float:
    """Stored bits per weight over all tensors."""
    weights = sum(lab.weight(name).size for name in tensors())
    return 8 * sum(size(name, type) for name in tensors()) / weights


def curve() -> Figure:
    """KL of the whole model with one type for all, and a line that falls four times a bit."""
    found = {type: measured(alike(type)).kl for type in TYPES}
    points = tuple(Point(id=t, x=mean_bits(t), y=kl, label=word(t)) for t, kl in found.items())
    begin = found["q5_k"]
    rule = tuple(Point(id=f"r{t}", x=mean_bits(t), y=begin * 4.0 ** (mean_bits("q5_k") - mean_bits(t))) for t in TYPES)
    return still(
        x=Axis(label="stored bits per weight", low=2, high=9),
        y=Axis(label="KL", low=3e-5, high=0.4, log=True, unit="nats per token"),
        series=[
            Series(name="four times a bit", tone="mute", shape="diamond", line=True, points=rule),
            Series(name="measured", tone="error", line=True, points=points),
        ],
        say=f"KL falls from {found['q2_k']:.3f} nats in Q2_K to {significant(found['q8_0'], 2)} in Q8_0.",
    )


def worth(name: str, type: str) -> float:
    """Nats that each further byte saves when a tensor goes to the next type."""
    finer = TYPES[TYPES.index(type) + 1]
    return (cost(name, type) - cost(name, finer)) / (size(name, finer) - size(name, type))


def sensitivity() -> Figure:
    """What each tensor costs alone, in all, and what each kilobyte more would save."""

    def view(type: str, measure: str) -> dict[str, Any]:
        each = measure == "byte"
        values = {name: 1e3 * (worth(name, type) * 1000 if each else cost(name, type)) for name in tensors()}
        most = max(values, key=lambda name: values[name])
        told = "saved by each kB of the next type" if each else f"lost with this tensor alone in {word(type)}"
        return {
            "bars": [
                {
                    "id": label(name),
                    "label": label(name),
                    "value": value,
                    "text": significant(value, 2),
                    "tone": "good" if each else "error",
                }
                for name, value in values.items()
            ],
            "high": 1.15 * values[most],
            "x": f"KL {told}, thousandths of a nat",
            "say": f"{word(type)}: {label(most)} leads, {significant(values[most], 2)} thousandths of a nat {told}.",
        }

    options = {"all": "In all", "byte": "Saved by each kB more"}
    few = TYPES[:3]
    return explore(
        view,
        type=Choice(label="Type of that tensor", options={type: word(type) for type in few}, start=few[0]),
        measure=Choice(label="Cost", options=options, start="all"),
    )


def additive(mixed: dict[str, dict[str, str]]) -> tuple[list[float], list[float], Figure]:
    """What was predicted against what was measured: ratios of single matrices, ratios of sums, and the figure."""
    single = [
        Point(id=name, x=cost(name, ALONE), y=max(lab.quality({name: rounded(name, ALONE)}, HALVES["judge"]).kl, 1e-5))
        for name in lab.names()
    ]
    same = [Point(id=t, x=predicted(alike(t)), y=measured(alike(t)).kl, label=word(t)) for t in TYPES]
    mixes = [Point(id=f"m{key}", x=predicted(types), y=measured(types).kl) for key, types in mixed.items()]
    low, high = 2e-5, 0.4
    equal = (Point(id="e0", x=low, y=low), Point(id="e1", x=high, y=high))
    alone, sums = ([p.y / p.x for p in points] for points in (single, [*same, *mixes]))
    figure = still(
        x=Axis(label="predicted", low=low, high=high, log=True, unit="nats"),
        y=Axis(label="measured", low=low, high=high, log=True, unit="nats"),
        series=[
            Series(name="equal", tone="mute", line=True, points=equal),
            Series(name=f"one matrix in {word(ALONE)}", tone="float", shape="diamond", points=tuple(single)),
            Series(name="one type for all", tone="error", shape="square", points=tuple(same)),
            Series(name="mixed types", tone="good", points=tuple(mixes)),
        ],
        say=f"Whole models cost {min(sums):.2f} to {max(sums):.2f} times what was predicted, single matrices "
        f"{min(alone):.2f} to {max(alone):.2f} times.",
    )
    return alone, sums, figure


def spending() -> Figure:
    """The type of each tensor as the file may grow, beside one type for all."""
    same = {type: -(-file(alike(type)) // 1000) for type in TYPES}
    ends = list(same.values())
    budgets = [round(a + (b - a) * i / BETWEEN) for a, b in pairwise(ends) for i in range(BETWEEN)] + ends[-1:]

    def view(budget: int) -> dict[str, Any]:
        types = types_of(within(1000 * budget))
        uniform = [type for type in TYPES if same[type] <= budget][-1]
        whole, kl, other = file(types), predicted(types), predicted(alike(uniform))
        tones = {-1: "error", 0: "quant", 1: "good"}
        return {
            "bars": [
                {
                    "id": label(name),
                    "label": label(name),
                    "value": bits(name, type),
                    "text": word(type),
                    "tone": tones[int(np.sign(TYPES.index(type) - TYPES.index(uniform)))],
                }
                for name, type in types.items()
            ],
            "high": bits(TABLE, TYPES[-1]) + 1,
            "x": "stored bits per weight",
            "say": f"File of {whole / 1000:,.0f} kB: predicted KL {significant(kl)}. {word(uniform)} for all takes "
            f"{file(alike(uniform)) / 1000:,.0f} kB and costs {significant(other)}.",
            "readouts": [
                {"label": "File", "value": f"{whole / 1000:,.0f} kB", "tone": "quant"},
                {"label": "Predicted KL", "value": f"{significant(kl)} nats", "tone": "good"},
                {"label": f"{word(uniform)} for all: file", "value": f"{file(alike(uniform)) / 1000:,.0f} kB"},
                {"label": f"{word(uniform)} for all: KL", "value": f"{significant(other)} nats", "tone": "error"},
            ],
        }

    return explore(view, budget=Slider(label="Budget", values=tuple(budgets), start=same["q4_k"], unit="kB"))


def front(mixed: dict[str, dict[str, str]]) -> Figure:
    """Size against quality, measured: one type for all, a mix by hand, and types chosen by cost."""

    def points(name: str, found: dict[str, dict[str, str]]) -> tuple[Point, ...]:
        return tuple(Point(id=f"{name}{k}", x=file(t) / 1000, y=measured(t).kl) for k, t in found.items())

    path = [(rest() + found.size, found.loss) for found in frontier(groups())]
    line = tuple(Point(id=f"p{i}", x=size / 1000, y=loss) for i, (size, loss) in enumerate(path))
    hand = Point(id="hand", x=file(by_hand()) / 1000, y=measured(by_hand()).kl, label=word(MIX))
    return still(
        x=Axis(label="file", low=700, high=2000, unit="kB"),
        y=Axis(label="KL", low=4e-4, high=0.4, log=True, unit="nats per token"),
        series=[
            Series(name="predicted", tone="mute", line=True, points=tuple(p for p in line if p.x <= 2000)),
            Series(
                name="one type for all",
                tone="error",
                shape="square",
                points=points("u", {t: alike(t) for t in TYPES[:5]}),
            ),
            Series(name="a mix by hand", tone="quant", shape="triangle", points=(hand,)),
            Series(name="bits where they count", tone="good", points=points("m", mixed), front=True),
        ],
        say=f"At the bytes of Q4_K everywhere mixed types cost {measured(mixed['q4_k']).kl:.4f} nats in place of "
        f"{measured(alike('q4_k')).kl:.4f}; at those of {word(MIX)} {measured(mixed[MIX]).kl:.4f} in place of "
        f"{measured(by_hand()).kl:.4f}.",
    )


def numbers() -> dict[str, Any]:
    hand = by_hand()
    mixed = {type: types_of(within(file(alike(type)))) for type in TYPES[1:5]} | {MIX: types_of(within(file(hand)))}
    single, sums, adding = additive(mixed)
    same = {type: measured(alike(type)).kl for type in TYPES}
    kl = {type: measured(types).kl for type, types in mixed.items()}
    most = sorted(tensors(), key=lambda name: -cost(name, "q2_k"))
    each = [cost(name, "q4_k") / lab.weight(name).size for name in tensors()]
    raised = min((n for n, t in hand.items() if TYPES.index(t) > TYPES.index("q4_k")), key=lambda n: worth(n, "q4_k"))
    better = sum(worth(name, "q4_k") > worth(raised, "q4_k") for name in tensors())
    falls = [(same[a] / same[b]) ** (1 / (mean_bits(b) - mean_bits(a))) for a, b in pairwise(TYPES)]
    weights = sum(lab.weight(name).size for name in tensors())
    table = lab.weight(TABLE).size
    found = within(file(alike("q4_k")))
    assert all(kl[type] < same[type] for type in TYPES[1:5]) and kl[MIX] < measured(hand).kl
    assert file(mixed[MIX]) <= file(hand) and most[0] == TABLE and most[1].endswith("down_proj")
    outliers = {name: ratio for name, ratio in zip(lab.names(), single, strict=True) if ratio < 0.2}
    assert len(outliers) == 2 and all(name.endswith("k_proj") for name in outliers)
    assert TYPES.index(hand[TABLE]) > TYPES.index("q4_k")
    assert falls[0] > 4.5 and all(3 < fall < 4.5 for fall in falls[1:])
    assert better >= len(tensors()) - 5, "the mix by hand no longer raises a cheap tensor"
    return {
        "same": same,
        "fall": dict(zip(TYPES, falls, strict=False)),
        "bits": {type: mean_bits(type) for type in TYPES},
        "tensors": len(tensors()),
        "second": label(most[1]),
        "least": label(most[-1]),
        "spread": cost(most[0], "q2_k") / cost(most[-1], "q2_k"),
        "table_weights": table / weights,
        "table_cost": cost(TABLE, "q4_k") / predicted(alike("q4_k")),
        "single_middle": float(np.median(single)),
        "keys": max(outliers.values()),
        "ratio_low": min(sums),
        "ratio_high": max(sums),
        "spread_byte": max(each) / min(each),
        "widest": 0.5 * float(np.log2(max(each) / min(each))),
        "table_type": word(mixed["q4_k"][TABLE]),
        "coarse": sum(TYPES.index(type) < TYPES.index("q4_k") for type in mixed["q4_k"].values()),
        "gap": found.loss / found.bound - 1,
        "kl": kl,
        "saved": {type: 1 - kl[type] / same[type] for type in TYPES[1:5]},
        "worth": 0.5 * float(np.log2(same["q4_k"] / kl["q4_k"])),
        "hand": measured(hand).kl,
        "hand_saved": 1 - kl[MIX] / measured(hand).kl,
        "hand_file": file(hand),
        "raised": label(raised),
        "better": better,
        "left": costs.CORRECTED,
        "file": {type: file(alike(type)) for type in TYPES},
        "float_file": (lab.MODEL / "model.safetensors").stat().st_size,
        "rest": rest(),
        "effective": 8 * file(alike("q4_k")) / weights,
        "curve": curve(),
        "sensitivity": sensitivity(),
        "additive": adding,
        "spending": spending(),
        "pareto": front(mixed),
    }
