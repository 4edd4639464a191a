"""What a lesson's figures are made of: a kind, controls, and one view for every position of the controls.

`numbers.py` of a lesson computes views with the engine; the page only draws them. A view is a plain table, checked here
against its kind's shape, so that a figure that cannot be drawn is found by `bitwright content check`, not by a reader.
Colours carry meaning (`Tone`): float values are blue, quantized orange, error crimson, good green.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bitwright.errors import InputError

Tone = Literal["float", "quant", "error", "good", "warn", "mute", "ink"]
Number = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]


class Part(BaseModel):
    """Base of all parts: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Kind = TypeVar("Kind", bound=Part)


def read_part(kind: type[Kind], given: dict[str, Any], where: str) -> Kind:
    """`given` as a part; InputError names `where` and the first key that does not fit."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(key) for key in first["loc"])
        what = f"{first['msg'].lower()} (got {str(first['input'])[:80]!r})"
        fix = f"Known keys: {', '.join(kind.model_fields)}"
        raise InputError(what, where=f"{where}: {path}", fix=fix) from error


class Readout(Part):
    """A figure below the drawing: `value` is ready to be read, with its unit."""

    label: Text
    value: Text
    tone: Tone = "ink"


class View(Part):
    """What every view has: `say` tells in a sentence what this state shows, for those who cannot see it."""

    say: Text
    readouts: tuple[Readout, ...] = ()


class Histogram(View):
    """Counts in equal bins between `low` and `high`, with levels a file can store and the error each bin adds.

    `second` are counts in the same bins of another array (what came back); `clip` shades what lies outside [lo, hi].
    """

    low: Number
    high: Number
    counts: tuple[Number, ...]
    second: tuple[Number, ...] | None = None
    levels: tuple[Number, ...] = ()
    errors: tuple[Number, ...] | None = None
    clip: tuple[Number, Number] | None = None
    scale: Literal["sqrt", "linear", "log"] = "sqrt"
    x: Text = "weight"
    labels: tuple[str, ...] = ("original weights", "levels the file can store", "where the squared error comes from")
    """Direct labels: of the counts, of the levels (or of `second`), of the errors."""


class Dot(Part):
    """A value on a number line; `to` is where it is moved (an arrow whose length is the error)."""

    id: Text
    at: Number
    to: Number | None = None
    label: str = ""
    tone: Tone = "float"


class Tick(Part):
    """A level on a number line, with its code below."""

    at: Number
    label: str = ""
    code: str = ""
    tone: Tone = "quant"


class Span(Part):
    """A shaded stretch of a number line: a rounding cell, a clipped region."""

    low: Number
    high: Number
    label: str = ""
    tone: Tone = "mute"


class NumberLine(View):
    """One axis from `low` to `high` with levels, values and where they are rounded to."""

    low: Number
    high: Number
    levels: tuple[Tick, ...] = ()
    dots: tuple[Dot, ...] = ()
    spans: tuple[Span, ...] = ()
    x: str = ""


class Mark(Part):
    """An outline around rows [row, row + rows) and columns [column, column + columns) of a heat map."""

    row: int
    column: int
    rows: int = 1
    columns: int = 1
    label: str = ""
    tone: Tone = "quant"


class HeatMap(View):
    """A matrix [rows][columns]; `diverging` colours are symmetric about 0 up to `peak`, `sequential` run from 0.

    `text` writes the numbers into the cells (small matrices only).
    """

    values: tuple[tuple[Number, ...], ...]
    peak: Annotated[float, Field(gt=0)]
    colours: Literal["diverging", "sequential"] = "diverging"
    tone: Tone = "float"
    text: bool = False
    digits: int = 2
    marks: tuple[Mark, ...] = ()
    row_labels: tuple[str, ...] = ()
    column_labels: tuple[str, ...] = ()
    rows_name: str = "output"
    columns_name: str = "input"


class Field_(Part):
    """Bits of one meaning in a word."""

    label: str
    bits: Annotated[str, Field(pattern="^[01]+$")]
    tone: Tone = "ink"


class Word(Part):
    """A row of bits, most significant first, and what they mean."""

    id: Text
    fields: tuple[Field_, ...]
    label: str = ""
    value: str = ""


class Bits(View):
    """Words drawn bit by bit."""

    words: tuple[Word, ...]


class Point(Part):
    """A point of a scatter plot; `id` keeps its identity from view to view."""

    id: Text
    x: Number
    y: Number
    label: str = ""


class Series(Part):
    """Points of one meaning; `line` joins them in order, `front` marks those that no other beats on both axes."""

    name: Text
    points: tuple[Point, ...]
    tone: Tone = "quant"
    shape: Literal["circle", "square", "triangle", "diamond"] = "circle"
    line: bool = False
    front: bool = False


class Axis(Part):
    """`low` and `high` fix the range over all views, so that nothing jumps."""

    label: Text
    low: Number
    high: Number
    log: bool = False
    unit: str = ""


class Scatter(View):
    """Two measures against each other, or curves."""

    x: Axis
    y: Axis
    series: tuple[Series, ...]


class Bar(Part):
    """A length with its name; `text` is the value as read."""

    id: Text
    label: Text
    value: Number
    text: Text
    tone: Tone = "error"


class Bars(View):
    """Lengths compared, from 0 to `high` (or from `low` on a log axis)."""

    bars: tuple[Bar, ...]
    high: Annotated[float, Field(gt=0)]
    low: float = 0.0
    log: bool = False
    x: str = ""


class Stage(Part):
    """One stop of a process."""

    id: Text
    label: Text
    detail: str = ""
    state: Literal["todo", "now", "done", "error"] = "todo"


class Timeline(View):
    """A process told in stages; `text` says what happens now, `tone` colours it."""

    stages: tuple[Stage, ...]
    text: Text
    tone: Tone = "ink"


class Node(Part):
    """A box of a network at a column and row of the drawing (0, 0 is top left)."""

    id: Text
    label: Text
    column: Number
    row: Number
    value: str = ""
    tone: Tone = "ink"


class Link(Part):
    """An arrow between two nodes; `weight` 0 to 1 is its thickness."""

    source: Text
    target: Text
    label: str = ""
    weight: Annotated[float, Field(ge=0, le=1)] = 0.3
    tone: Tone = "mute"


class Flow(View):
    """Values flowing through a network."""

    nodes: tuple[Node, ...]
    links: tuple[Link, ...]


class Picture(Part):
    """A matrix drawn as an image, for before/after."""

    label: Text
    values: tuple[tuple[Number, ...], ...]
    tone: Tone = "float"


class Compare(View):
    """Two matrices of one shape under a slider that uncovers one or the other."""

    before: Picture
    after: Picture
    peak: Annotated[float, Field(gt=0)]
    colours: Literal["diverging", "sequential"] = "diverging"


class Term(Part):
    """A symbol of a formula with its colour, its meaning and its value now."""

    symbol: Text
    meaning: Text
    value: str = ""
    tone: Tone = "ink"


class Formula(View):
    """TeX with coloured terms: write `\\tone{quant}{s}`; `html` is filled in when the lesson is compiled."""

    tex: Text
    terms: tuple[Term, ...] = ()
    html: str = ""


class Code(View):
    """A program that ran: `line` (1-based) is executed in this view, `variables` are what it left, `output` so far.

    `source` and its `html` are the same in every view; `run_code` makes the views.
    """

    source: Text
    html: str = ""
    line: int = 0
    variables: tuple[Term, ...] = ()
    output: str = ""


Spot = tuple[Number, Number]


class Pick(Part):
    """A pair of codes that a way of rounding takes."""

    id: Text
    at: Spot
    tone: Tone


class Lattice(View):
    """Two weights in steps, `at`, among pairs of codes: sliders named `x` and `y` move them, and so does a drag.

    Their errors e cost a e0^2 + 2 b e0 e1 + c e1^2, `metric` being (a, b, c). `cell` are the corners of the region of
    weights that the pick `owner` sends to the codes (0, 0), `path` the way that error feedback goes.
    """

    at: Spot
    metric: tuple[Number, Number, Number]
    cell: tuple[Spot, ...]
    owner: Text
    picks: tuple[Pick, ...]
    path: tuple[Spot, ...]
    x: Text
    y: Text


KINDS: dict[str, type[View]] = {
    "histogram": Histogram,
    "numberline": NumberLine,
    "heatmap": HeatMap,
    "bits": Bits,
    "scatter": Scatter,
    "bars": Bars,
    "timeline": Timeline,
    "flow": Flow,
    "compare": Compare,
    "formula": Formula,
    "code": Code,
    "lattice": Lattice,
}


class Slider(Part):
    """A range control with named positions; `start` is one of `values`; the last label wins over the number."""

    label: Text
    values: tuple[float | int | str, ...] = Field(min_length=2)
    start: float | int | str
    unit: str = ""
    labels: tuple[str, ...] = ()


class Choice(Part):
    """A segmented control: value -> label."""

    label: Text
    options: dict[str, str] = Field(min_length=2)
    start: str


class Steps(Part):
    """Play, step and scrub through a story; `captions`, one per step, say what happens."""

    captions: tuple[str, ...] = Field(min_length=2)
    label: str = "Step"


Control = Slider | Choice | Steps


class Figure(Part):
    """Views for all positions of the controls, in row-major order of the controls as given.

    Each view is `base` with the keys of its state laid over it. `compute` names a function of the page that makes views
    from `base` and the control values in place of `states`; `twin` is the same function in Python, which tests compare.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    controls: dict[str, Control] = {}
    base: dict[str, Any] = {}
    states: tuple[dict[str, Any], ...] = ()
    compute: str = ""
    twin: Callable[..., dict[str, Any]] | None = Field(None, exclude=True)


def positions(control: Control) -> Sequence[Any]:
    """The values a control can take, in order."""
    if isinstance(control, Slider):
        return control.values
    if isinstance(control, Choice):
        return list(control.options)
    return range(len(control.captions))


def start_of(control: Control) -> int:
    """Index of the position a control starts at; a story starts at its beginning."""
    return 0 if isinstance(control, Steps) else list(positions(control)).index(control.start)


def still(**view: Any) -> Figure:
    """A figure with one view and no controls."""
    return Figure(states=(plain(view),))


def explore(draw: Callable[..., dict[str, Any]], **controls: Control) -> Figure:
    """A figure whose view is `draw(**values)` for every combination of the controls' values, all computed now.

    >>> figure = explore(lambda bits: {"say": f"{bits} bits"}, bits=Slider(label="Bits", values=(1, 2), start=2))
    >>> [state["say"] for state in figure.states]
    ['1 bits', '2 bits']
    """
    names = list(controls)
    views = [
        plain(draw(**dict(zip(names, values, strict=True))))
        for values in itertools.product(*(positions(c) for c in controls.values()))
    ]
    shared = {key for key in views[0] if all(key in v and v[key] == views[0][key] for v in views)}
    base = {key: views[0][key] for key in views[0] if key in shared}
    states = tuple({key: value for key, value in view.items() if key not in shared} for view in views)
    return Figure(controls=controls, base=base, states=states)


def live(compute: str, base: dict[str, Any], twin: Callable[..., dict[str, Any]], **controls: Control) -> Figure:
    """A figure whose views the page computes by `compute(base, values)` (web/src/compute/NAME.ts).

    `twin(base, **values)` gives the same view in Python from the engine's arithmetic.
    """
    return Figure(controls=controls, base=plain(base), compute=compute, twin=twin)


def views(figure: Figure) -> list[dict[str, Any]]:
    """Every view of a figure as a whole table; for a live figure the one its controls start at, by its twin."""
    if figure.compute:
        assert figure.twin is not None
        values = {name: positions(c)[start_of(c)] for name, c in figure.controls.items()}
        return [plain(figure.twin(figure.base, **values))]
    return [figure.base | state for state in figure.states]


def plain(value: Any, digits: int = 6) -> Any:
    """`value` as JSON can say it: arrays to lists, floats to `digits` significant digits, parts to tables."""
    if isinstance(value, BaseModel):
        return plain(value.model_dump(exclude_defaults=True), digits)
    if isinstance(value, dict):
        return {key: plain(item, digits) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return plain(np.asarray(value).tolist(), digits)
    if isinstance(value, (list, tuple, range)):
        return [plain(item, digits) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} cannot be drawn")
        return float(f"{value:.{digits}g}")
    return value
