"""Every kind of figure in Chromium, by itself: what is drawn, what moves, who can read it, and how long it takes."""

from __future__ import annotations

import functools
import html
import http.server
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from bitwright.authoring.compile import check_figure, payload
from bitwright.authoring.figures import KINDS, Choice, Figure, Slider, Steps, explore, still
from bitwright.authoring.trace import run_code
from bitwright.studio.shell.templates import BUILT
from tests.studio.browser import NARROW, WIDE, Look, needs_chromium

pytestmark = needs_chromium

FRAME = 16.0
"""Milliseconds in which a figure answers."""
RUNS = 25
"""Drawings of which the quickest counts: what a loaded machine adds is not the figure's."""


# --- figures to look at, small and with everything their kinds have


def _histogram() -> Figure:
    w = np.random.default_rng(1).normal(0, 0.1, 2048)

    def draw(bits: int) -> dict[str, Any]:
        step = 0.7 / 2**bits
        back = step * np.clip(np.round(w / step), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        levels = step * np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1))
        return {
            "low": -0.45,
            "high": 0.45,
            "counts": np.histogram(w, 96, (-0.45, 0.45))[0],
            "errors": np.histogram(w, 96, (-0.45, 0.45), weights=(w - back) ** 2)[0],
            "levels": levels,
            "clip": [levels[0] - step / 2, levels[-1] + step / 2],
            "say": f"{bits} bits.",
        }

    return explore(draw, bits=Slider(label="Bits", values=(2, 3, 4, 8), start=3))


def _numberline() -> Figure:
    def draw(step: int) -> dict[str, Any]:
        levels = [{"at": 0.25 * k, "label": f"{0.25 * k:g}", "code": f"{k & 7:03b}"} for k in range(-4, 4)]
        at = [-0.92, -0.6, -0.1, 0.06, 0.3, 0.95]
        to = [-1, -0.5, 0, 0, 0.25, 0.75]
        moved = [{"to": t} if step else {} for t in to]
        return {
            "low": -1.1,
            "high": 1.1,
            "x": "weight",
            "levels": levels,
            "dots": [
                {"id": f"w{i}", "at": a, "label": f"{a}", **m} for i, (a, m) in enumerate(zip(at, moved, strict=True))
            ],
            "spans": [
                {"low": 0.875, "high": 1.1, "label": "cut back to 0.75", "tone": "error"},
                {"low": 0.125, "high": 0.375, "label": "all of this is 0.25"},
            ],
            "say": f"Step {step}.",
        }

    return explore(draw, step=Steps(captions=("Six weights.", "Rounded.")))


def _heatmap() -> Figure:
    values = np.array([[0.5, -0.25, 0.0], [-0.04, 1.0, -1.0]])

    def draw(show: str) -> dict[str, Any]:
        return {
            "values": values if show == "float" else np.round(values),
            "peak": 1.0,
            "text": True,
            "tone": show,
            "row_labels": ["first", "second"],
            "column_labels": ["a", "b", "c"],
            "marks": [
                {"row": 1, "column": 1, "columns": 2, "label": "largest"},
                {"row": 0, "column": 0, "label": "first block"},
            ],
            "say": show,
        }

    return explore(draw, show=Choice(label="Show", options={"float": "Weights", "quant": "Codes"}, start="float"))


def _bits() -> Figure:
    codes = (3, 9, 12, 5)

    def field(i: int) -> dict[str, Any]:
        return {"label": f"q{i}", "bits": f"{codes[i]:04b}", "tone": "quant" if i % 2 else "float"}

    def draw(step: int) -> dict[str, Any]:
        if step == 0:
            words = [
                {"id": f"c{i}", "label": f"code {i}", "value": f"{codes[i]}", "fields": [field(i)]} for i in range(4)
            ]
        else:
            pairs = ((1, 0), (3, 2))
            words = [
                {"id": f"b{j}", "label": f"byte {j}", "value": "0x00", "fields": [field(i) for i in p]}
                for j, p in enumerate(pairs)
            ]
        return {"words": words, "say": f"Step {step}."}

    return explore(draw, step=Steps(captions=("Four codes.", "Two bytes.")))


def _scatter() -> Figure:
    def draw(clip: float) -> dict[str, Any]:
        x = np.arange(1, 9)
        fall = [0.6, 0.9, 0.1, 0.04, 0.05, 0.004, 0.002, 0.0007]
        points = [
            {"id": f"p{i}", "x": a, "y": f * clip, "label": f"{a} bits"}
            for i, (a, f) in enumerate(zip(x, fall, strict=True))
        ]
        line = [{"id": f"l{i}", "x": a, "y": float(2.0 ** -(1.2 * a)) * clip} for i, a in enumerate(x)]
        return {
            "x": {"label": "bits per weight", "low": 0.5, "high": 8.5},
            "y": {"label": "KL", "low": 1e-4, "high": 2, "log": True, "unit": "nats"},
            "series": [
                {"name": "measured", "points": points, "tone": "error", "shape": "diamond", "front": True},
                {"name": "the rule", "points": line, "tone": "mute", "line": True},
            ],
            "say": f"Clip {clip}.",
        }

    return explore(draw, clip=Slider(label="Clip", values=(0.5, 1.0, 1.5), start=1.0))


def _bars() -> Figure:
    values = {"q_proj": 3.0, "gate_proj": 7.5, "a matrix with a rather long name": 0.4}

    def draw(order: str) -> dict[str, Any]:
        items = sorted(values.items(), key=lambda item: -item[1] if order == "size" else 0)
        bars = [{"id": name, "label": name, "value": v * 1e-4, "text": f"{v:.1f} × 10⁻⁴"} for name, v in items]
        return {"bars": bars, "high": 8e-4, "x": "mean squared error", "say": order}

    return explore(draw, order=Choice(label="Order", options={"name": "As is", "size": "By size"}, start="name"))


def _timeline() -> Figure:
    names = ("Read", "Quantize", "Certify")

    def draw(step: int) -> dict[str, Any]:
        states = ["done" if i < step else "error" if step == 2 else "now" if i == step else "todo" for i in range(3)]
        stages = [{"id": n, "label": n, "detail": "some words", "state": s} for n, s in zip(names, states, strict=True)]
        return {
            "stages": stages,
            "text": f"Stage {step} of the work.",
            "tone": "error" if step == 2 else "ink",
            "say": f"Stage {step}.",
        }

    return explore(draw, step=Steps(captions=("Read.", "Quantize.", "A byte differs.")))


def _flow() -> Figure:
    def draw(step: int) -> dict[str, Any]:
        tone = ("float", "quant")[step]
        nodes = [
            {"id": "x", "label": "input", "column": 0, "row": 1, "value": "0.82"},
            *(
                {"id": n, "label": f"{n} projection", "column": 1, "row": i, "value": f"{step}.1", "tone": tone}
                for i, n in enumerate(("query", "key", "value"))
            ),
            {"id": "o", "label": "output", "column": 2, "row": 1, "tone": "good"},
        ]
        links = [
            {"source": a, "target": b, "weight": 0.2 + 0.5 * step}
            for n in ("query", "key", "value")
            for a, b in (("x", n), (n, "o"))
        ]
        links += [
            {"source": "x", "target": "o", "label": "residual"},
            {"source": "o", "target": "x", "label": "again", "tone": "error"},
        ]
        return {"nodes": nodes, "links": links, "say": tone}

    return explore(draw, step=Steps(captions=("Float.", "Quantized.")))


def _compare() -> Figure:
    w = np.random.default_rng(2).normal(0, 0.1, (24, 32))

    def draw(bits: int) -> dict[str, Any]:
        after = np.round(w * 2**bits) / 2**bits
        return {
            "before": {"label": "original", "values": w},
            "after": {"label": f"{bits} bits", "values": after, "tone": "quant"},
            "peak": 0.3,
            "say": f"{bits} bits.",
        }

    return explore(draw, bits=Slider(label="Bits", values=(2, 3, 4), start=2))


def _formula() -> Figure:
    def draw(x: float) -> dict[str, Any]:
        q = round(x / 0.08)
        terms = [
            {"symbol": "x", "meaning": "the value", "value": f"{x}", "tone": "float"},
            {"symbol": r"\hat x_i", "meaning": "what comes back", "value": f"{0.08 * q:.2f}", "tone": "quant"},
        ]
        return {
            "tex": r"\tone{quant}{\hat x} = s\,\mathrm{round}(\tone{float}{x} / s)",
            "terms": terms,
            "say": f"x is {x}.",
        }

    return explore(draw, x=Slider(label="x", values=(-0.5, 0.11, 12.34), start=0.11))


def _code() -> Figure:
    source = "codes = np.array([3, 9])\nlow = codes[0]\nprint('low', low)\nlow = low + 1\ntext = 'a long value ' * 30"
    return run_code(source, watch=("codes", "low", "text"))


def _plane(cell: str = "square", x: float = -0.45, y: float = -0.45) -> dict[str, Any]:
    cells = {
        "square": [(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)],
        "sheared": [(-0.5, -0.1), (0.5, -0.9), (0.5, 0.1), (-0.5, 0.9)],
    }
    return {
        "at": (x, y),
        "metric": (1.0, 0.75, 0.9),
        "cell": cells[cell],
        "owner": "nearest" if cell == "square" else "feedback",
        "path": [(x, y), (0, y + 0.83 * x), (0, -1)],
        "picks": [
            {"id": "nearest", "at": (0, 0), "tone": "error"},
            {"id": "feedback", "at": (0, -1), "tone": "quant"},
            {"id": "best", "at": (0, -1), "tone": "ink"},
        ],
        "x": "first weight, in steps",
        "y": "second weight, in steps",
        "say": f"{cell}: {x}, {y}.",
    }


def _lattice() -> Figure:
    return explore(_plane, cell=Choice(label="Cells", options={"square": "Nearest", "sheared": "Fed"}, start="square"))


FIGURES = {
    "histogram": _histogram,
    "numberline": _numberline,
    "heatmap": _heatmap,
    "bits": _bits,
    "scatter": _scatter,
    "bars": _bars,
    "timeline": _timeline,
    "flow": _flow,
    "compare": _compare,
    "formula": _formula,
    "code": _code,
    "lattice": _lattice,
}


# --- a page that shows one figure


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def files() -> Iterator[str]:
    """The address of the built scripts and styles, without a studio."""
    handler = functools.partial(Quiet, directory=str(BUILT / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@dataclass
class Bench:
    """A tab to which figures are brought."""

    browser: Browser
    files: str
    faults: list[str]

    def show(self, kind: str, figure: Figure, size: Any = WIDE, **context: Any) -> Page:
        """A page with this figure alone."""
        check_figure(kind, figure, "test")
        names = json.loads((BUILT / "manifest.json").read_text("utf-8"))
        data = json.dumps(payload(figure)["page"]).replace("</", "<\\/")
        page = self.browser.new_context(viewport=size, **context).new_page()
        page.on("pageerror", lambda e: self.faults.append(f"error: {e}"))
        page.on("console", lambda m: self.faults.append(m.text) if m.type in ("error", "warning") else None)
        styles = "".join(f'<link rel="stylesheet" href="{names[n]}">' for n in ("main.css", "katex.css"))
        body = (
            f'<main class="page"><article class="lesson"><h1>A figure</h1><div class="prose"><figure class="figure">'
            f'<bw-figure kind="{kind}" name="one" alt="A figure of kind {html.escape(kind)}.">'
            f'<script type="application/json">{data}</script></bw-figure></figure></div></article></main>'
            '<dialog id="palette"><input aria-label="Find"><ul></ul></dialog><dialog id="keys"></dialog>'
        )
        text = (
            f'<!doctype html><html lang="en"><head><title>Figure</title>{styles}<link rel="icon" href="data:,">'
            f'<script type="module" src="{names["main.ts"]}"></script></head><body>{body}</body></html>'
        )
        page.route("**/figure", lambda route: route.fulfill(body=text, content_type="text/html; charset=utf-8"))
        page.goto(f"{self.files}/figure")
        page.wait_for_selector(".figure-stage > *")
        page.evaluate("() => document.fonts.ready")
        page.wait_for_timeout(50)
        return page


@pytest.fixture
def bench(chromium: Browser, files: str) -> Iterator[Bench]:
    """A tab for figures; the test fails where anything went wrong in it."""
    made = Bench(chromium, files, [])
    before = set(chromium.contexts)
    yield made
    for context in set(chromium.contexts) - before:
        context.close()
    assert made.faults == []


MOVE = "([control, place]) => { const f = document.querySelector('bw-figure'); f.move(control, place); }"
COUNT = "() => document.querySelector('bw-figure').payload.states.length"
SETTLED = """() => Promise.all(document.getAnimations().map((a) => {
  a.playbackRate = 20;  // every motion is gone through, quickly
  return a.finished;
})).then(() => true)"""


def move(page: Page, place: int) -> None:
    """Bring the only control to a place and wait until everything has arrived."""
    page.evaluate(MOVE, [0, place])
    page.evaluate(SETTLED)


def drawn(page: Page) -> str:
    """The drawing as markup; the two canvases of a heat map take turns."""
    found = page.locator(".figure-stage").inner_html()
    return re.sub(
        r' class="(pixels-(?:back|front)) pixels(?: shown)?"',
        r' class="\1"',
        found.replace("pixels-front shown pixels", "pixels-front pixels"),
    )


# --- all kinds


def test_every_kind_is_looked_at() -> None:
    assert set(FIGURES) == set(KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FIGURES)
def test_a_figure_is_the_same_however_one_came_to_it(bench: Bench, kind: str) -> None:
    page = bench.show(kind, FIGURES[kind]())
    move(page, 1)
    once = drawn(page)
    page.evaluate("() => { const f = document.querySelector('bw-figure'); f.draw(f.host, f.view()); }")
    page.evaluate(SETTLED)
    again = drawn(page)
    if kind == "code":  # what just changed is marked, and nothing did
        once, again = (text.replace("value changed", "value") for text in (once, again))
    assert again == once
    move(page, 0)
    assert drawn(page) != once, "the figure does not change with its control"
    move(page, 1)
    assert drawn(page).replace("value changed", "value") == once


READ = """() => {
  const found = [];
  const stage = document.querySelector('.figure-stage').getBoundingClientRect();
  const light = (c) => {
    const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = c.match(/[\\d.]+/g).map((v) => linear(Number(v) / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
  const surface = getComputedStyle(document.querySelector('.figure')).backgroundColor;
  const texts = [...document.querySelectorAll('.figure-stage svg text')].filter((t) => t.textContent);
  for (const t of texts) {
    const style = getComputedStyle(t);
    const cell = t.closest('.bit')?.querySelector('rect');
    const ground = cell && t.closest('[data-bit="1"]') ? getComputedStyle(cell).fill : surface;
    if (parseFloat(style.fontSize) < 12) found.push(`${t.textContent}: ${style.fontSize}`);
    if (style.fill.startsWith('rgb') && contrast(style.fill, ground) < 4.5) found.push(`${t.textContent}: pale`);
    const r = t.getBoundingClientRect();
    const across = r.left >= stage.left && r.right <= stage.right;
    const down = r.top >= stage.top - 1 && r.bottom <= stage.bottom + 1;
    if (!across || !down) found.push(`${t.textContent}: cut`);
  }
  const boxes = texts.map((t) => [t.textContent, t.getBoundingClientRect()]);
  boxes.forEach(([a, p], i) => boxes.slice(i + 1).forEach(([b, q]) => {
    const w = Math.min(p.right, q.right) - Math.max(p.left, q.left);
    const h = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
    if (w > 1.5 && h > 4) found.push(`${a} over ${b}`);
  }));
  if (document.documentElement.scrollWidth > innerWidth) found.push('the page scrolls sideways');
  for (const e of document.querySelectorAll('.figure-stage > *, .figure-stage .terms, .program > *, .compare > *'))
    if (e.getBoundingClientRect().right > stage.right) found.push(`${e.className} is cut`);
  for (const e of document.querySelectorAll('.figure-stage *')) {
    const scrolls = e instanceof HTMLElement && e.scrollWidth > e.clientWidth + 1;
    if (scrolls && /auto|scroll/.test(getComputedStyle(e).overflowX) && e.tabIndex < 0)
      found.push(`${e.className} scrolls but cannot be reached`);
  }
  return found;
}"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", FIGURES)
def test_everything_can_be_read_at_any_width(bench: Bench, kind: str) -> None:
    page = bench.show(kind, FIGURES[kind](), reduced_motion="reduce")
    for width in (1280, 390, 350):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_function(
            "() => document.querySelector('bw-figure').width === document.querySelector('.figure-stage').clientWidth"
        )
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            for place in range(page.evaluate(COUNT)):
                move(page, place)
                assert page.evaluate(READ) == [], f"{kind} in state {place} at {width} px, {scheme}"
            if width < 1280:
                assert Look(page, "").axe() == [], f"{kind} at {width} px, {scheme}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", FIGURES)
def test_nothing_below_a_figure_jumps_while_it_moves(bench: Bench, kind: str) -> None:
    for size in (WIDE, NARROW):
        page = bench.show(kind, FIGURES[kind](), size)
        heights = set()
        for place in range(page.evaluate(COUNT)):
            move(page, place)
            heights.add(page.evaluate("() => document.querySelector('.figure-stage').offsetHeight"))
        assert len(heights) == 1, size


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["numberline", "bits", "bars", "scatter", "histogram", "flow", "timeline"])
def test_a_move_is_seen_and_reduced_motion_shows_its_end(bench: Bench, kind: str) -> None:
    running = "() => document.getAnimations().filter((a) => a.effect.target.closest('.figure-stage')).length"
    page = bench.show(kind, FIGURES[kind]())
    page.evaluate(MOVE, [0, 1 if page.evaluate("() => document.querySelector('bw-figure').places[0]") != 1 else 0])
    assert page.evaluate(running) > 0
    page.evaluate(SETTLED)
    page.evaluate("() => document.querySelector('bw-figure').setAttribute('data-dragging', '')")
    page.evaluate(MOVE, [0, 2 if kind in ("scatter", "timeline", "histogram") else 0])
    page.evaluate(MOVE, [0, 1])
    assert page.evaluate(running) == 0, "it animates while it is dragged"
    calm = bench.show(kind, FIGURES[kind](), reduced_motion="reduce")
    for place in (1, 0):
        calm.evaluate(MOVE, [0, place])
        assert calm.evaluate(running) == 0


def _random(shape: Any, seed: int, scale: float = 0.1) -> Any:
    return np.round(np.random.default_rng(seed).normal(0, scale, shape), 3)


def _large_bits() -> Figure:
    fields = [{"label": "q", "bits": "0110", "tone": "quant"}] * 8
    words = [{"id": f"w{i}", "label": f"word {i}", "value": "0x0", "fields": fields} for i in range(8)]
    return still(words=words, say="Many.")


def _large_bars() -> Figure:
    bars = [{"id": f"b{i}", "label": f"layers.{i}.mlp", "value": i + 1, "text": f"{i + 1} dB"} for i in range(24)]
    return still(bars=bars, high=25, say="Many.")


def _large_scatter() -> Figure:
    def points(seed: int) -> list[dict[str, Any]]:
        places = np.random.default_rng(seed).uniform(0.1, 1, (60, 2)).tolist()
        return [
            {"id": f"{seed}/{i}", "x": x, "y": y, "label": "" if i % 10 else f"{i}"} for i, (x, y) in enumerate(places)
        ]

    tones = ("float", "quant", "error", "good")
    series = [{"name": f"series {i}", "tone": tone, "points": points(i)} for i, tone in enumerate(tones)]
    log = {"label": "y", "low": 1e-3, "high": 10, "log": True}
    return still(x={"label": "x", "low": 0, "high": 1}, y=log, series=series, say="Many.")


def _large_numberline() -> Figure:
    levels = [{"at": k / 8, "code": f"{k & 15:04b}"} for k in range(-8, 8)]
    at = np.random.default_rng(4).uniform(-1, 0.9, 32).tolist()
    dots = [{"id": f"w{i}", "at": x, "to": round(x * 8) / 8} for i, x in enumerate(at)]
    return still(low=-1.0, high=1.0, levels=levels, dots=dots, say="Many.")


def _large_histogram() -> Figure:
    counts = np.histogram(_random(9999, 3, 0.2), 96, (-1, 1))[0]
    return still(low=-1.0, high=1.0, counts=counts, levels=np.linspace(-1, 1, 256), errors=np.ones(96), say="Many.")


def _large_heatmap() -> Figure:
    marks = [{"row": 8 * i, "column": 0, "columns": 32, "label": f"block {i}"} for i in range(4)]
    return still(values=_random((64, 64), 5), peak=0.3, marks=marks, say="Many.")


def _large_compare() -> Figure:
    after = {"label": "b", "values": np.zeros((64, 64)), "tone": "quant"}
    return still(before={"label": "a", "values": _random((64, 64), 6)}, after=after, peak=0.3, say="Many.")


LARGE = {
    "histogram": _large_histogram,
    "numberline": _large_numberline,
    "heatmap": _large_heatmap,
    "bits": _large_bits,
    "scatter": _large_scatter,
    "bars": _large_bars,
    "compare": _large_compare,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FIGURES)
def test_a_figure_answers_within_a_frame(bench: Bench, kind: str) -> None:
    figure = LARGE[kind]() if kind in LARGE else FIGURES[kind]()
    page = bench.show(kind, figure)
    quickest = page.evaluate(
        """(runs) => {
          const f = document.querySelector('bw-figure');
          const { base, states } = f.payload;
          let best = Infinity;
          for (let i = 0; i < runs; i++) {
            const start = performance.now();
            f.draw(f.host, { ...base, ...states[i % states.length] });
            best = Math.min(best, performance.now() - start);
          }
          return best;
        }""",
        RUNS,
    )
    assert quickest < FRAME


# --- one kind at a time


def test_histogram_counts_levels_and_errors(bench: Bench) -> None:
    page = bench.show("histogram", _histogram())
    stage = page.locator(".figure-stage")
    expect(stage.locator("line.level")).to_have_count(8)
    assert stage.locator("path.error").get_attribute("d").count("M") == 96  # type: ignore[union-attr]
    expect(stage.locator("text.direct")).to_have_text(
        ["original weights", "levels the file can store", "where the squared error comes from"]
    )
    kept = stage.locator("line.level").nth(0).element_handle()
    move(page, 2)
    expect(stage.locator("line.level")).to_have_count(16)
    assert kept.evaluate("e => e.isConnected")
    move(page, 3)  # 256 levels: a rug, so that the weights stay visible
    rug = stage.locator("path.level")
    assert rug.get_attribute("d").count("M") == 256  # type: ignore[union-attr]
    assert rug.bounding_box()["height"] < 40  # type: ignore[index]


def test_numberline_arrows_are_as_long_as_the_errors(bench: Bench) -> None:
    page = bench.show("numberline", _numberline())
    expect(page.locator(".arrow")).to_have_count(0)
    move(page, 1)
    expect(page.locator(".arrow")).to_have_count(6)
    boxes = [page.locator(".dot circle").nth(i).bounding_box() for i in range(6)]
    centres = [box["x"] + box["width"] / 2 for box in boxes if box]
    px = (centres[5] - centres[0]) / (0.95 + 0.92)
    for i, (at, to) in enumerate(((-0.92, -1), (-0.6, -0.5), (-0.1, 0), (0.06, 0), (0.3, 0.25), (0.95, 0.75))):
        tip = page.locator(".arrow path").nth(i).evaluate("e => new DOMMatrix(getComputedStyle(e).transform).e")
        assert tip == pytest.approx((to - at) * px, abs=0.6)
    codes = page.locator(".code-label").all_text_contents()
    assert codes == [f"{k & 7:03b}" for k in range(-4, 4)]


def test_heatmap_paints_its_values_and_a_cursor_reads_them(bench: Bench) -> None:
    page = bench.show("heatmap", _heatmap())
    assert page.locator("text.number").all_text_contents() == ["0.50", "−0.25", "0.00", "−0.04", "1.00", "−1.00"]
    colours = page.evaluate(
        """() => {
          const shown = document.querySelector('.pixels-front.shown') ?? document.querySelector('.pixels-back');
          const data = shown.getContext('2d').getImageData(0, 0, 3, 2).data;
          return Array.from({ length: 6 }, (_, i) => [...data.slice(4 * i, 4 * i + 3)]);
        }"""
    )
    assert colours[2] == [255, 255, 255], "zero has the colour of the surface"
    assert colours[4][2] > colours[4][0] and colours[5][2] < colours[5][0], "the two signs have two colours"
    assert sum(colours[1]) > sum(colours[5]), "more is darker"
    line, box = page.locator(".reader-line"), page.locator(".reader")
    hint = line.text_content()
    box.focus()
    page.keyboard.press("ArrowRight")
    expect(line).to_have_text("first, a: 0.5")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    expect(line).to_have_text("second, b: 1")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    expect(line).to_have_text("second, c: −1")
    move(page, 1)
    expect(line).to_have_text("second, c: −1")
    page.keyboard.press("Escape")
    expect(line).to_have_text(hint or "")
    box.blur()
    cell = page.locator("text.number").nth(1).bounding_box()
    assert cell
    page.mouse.move(cell["x"] + 4, cell["y"] + 4)
    expect(line).to_have_text("first, b: 0")
    page.mouse.move(2, 2)
    expect(line).to_have_text(hint or "")


def test_heatmap_repaints_when_it_turns_dark(bench: Bench) -> None:
    page = bench.show("heatmap", _heatmap())
    # A copy is read: the browser warns of canvases that are read again and again.
    read = """() => {
      const pen = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
      pen.drawImage(document.querySelector('.pixels-front'), 0, 0);
      return [...pen.getImageData(2, 0, 1, 1).data].slice(0, 3);
    }"""
    assert page.evaluate(read) == [255, 255, 255]
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"() => ({read})()[0] < 60")


def test_bits_stay_themselves_when_fields_move_between_words(bench: Bench) -> None:
    page = bench.show("bits", _bits())
    assert page.locator(".bit text").all_text_contents() == list("0011100111000101")
    handles = page.locator(".bit").element_handles()
    move(page, 1)
    assert all(h.evaluate("e => e.isConnected") for h in handles)
    shown = page.evaluate(
        """() => [...document.querySelectorAll('.bit')].map((g) => [g.getBoundingClientRect(), g.textContent])
          .sort(([a], [b]) => a.top - b.top || a.left - b.left).map(([, text]) => text).join('')"""
    )
    assert shown == "1001001101011100"
    assert [h.text_content() for h in handles] == list("0011100111000101")


def test_scatter_marks_the_front_and_a_cursor_reads_points(bench: Bench) -> None:
    page = bench.show("scatter", _scatter())
    expect(page.locator("path.front")).to_have_count(1)
    expect(page.locator("path.curve")).to_have_count(1)
    expect(page.locator(".point.beaten")).to_have_count(2)  # three bits beat two, four beat five
    expect(page.locator(".title text.axis")).to_have_text("KL, nats, log scale")
    names = page.locator("text.direct:not(.small)").all_text_contents()
    assert sorted(names) == ["measured", "the rule"]
    line = page.locator(".reader-line")
    page.locator(".reader").focus()
    page.keyboard.press("ArrowRight")
    expect(line).to_contain_text("bits per weight 1; KL 0.")
    first = line.text_content()
    page.keyboard.press("ArrowDown")
    assert line.text_content() != first
    kept = page.locator(".point").nth(3).element_handle()
    move(page, 2)
    assert kept.evaluate("e => e.isConnected")


def test_bars_move_when_their_order_changes(bench: Bench) -> None:
    page = bench.show("bars", _bars())
    first = page.locator(".bar-row").nth(0).element_handle()
    assert "q_proj" in (first.text_content() or "")
    before = first.bounding_box()
    move(page, 1)
    after = first.bounding_box()
    assert before and after and after["y"] > before["y"] + 20
    widths = [page.locator("rect.bar").nth(i).bounding_box()["width"] for i in range(3)]  # type: ignore[index]
    assert sorted(widths)[2] / sorted(widths)[1] == pytest.approx(7.5 / 3, rel=0.02)
    assert "×10⁻⁴" in (page.locator("text.axis").text_content() or "")


def test_timeline_says_its_states(bench: Bench) -> None:
    page = bench.show("timeline", _timeline())
    expect(page.locator(".stops [aria-current=step]")).to_have_text("Read (now)some words")
    move(page, 2)
    expect(page.locator(".stops li")).to_have_text(
        ["Read (done)some words", "Quantize (done)some words", "Certify (failed)some words"]
    )
    expect(page.locator(".stops-text")).to_have_text("Stage 2 of the work.")
    assert page.locator(".stops.across").count() == 1
    assert bench.show("timeline", _timeline(), NARROW).locator(".stops.across").count() in (0, 1)


def test_flow_runs_down_on_a_phone_and_arrows_avoid_boxes(bench: Bench) -> None:
    for size in (WIDE, NARROW):
        page = bench.show("flow", _flow(), size)
        crossed = page.evaluate(
            """() => {
              const found = [];
              for (const path of document.querySelectorAll('path.link')) {
                const { source, target } = path.__data__.link;
                const matrix = path.getScreenCTM();
                for (const box of document.querySelectorAll('.node')) {
                  const { id } = box.__data__.node;
                  const r = box.querySelector('rect').getBoundingClientRect();
                  for (let i = 0; i <= 60 && id !== source && id !== target; i++) {
                    const { x, y } = path.getPointAtLength((path.getTotalLength() * i) / 60).matrixTransform(matrix);
                    const within = x > r.left && x < r.right && y > r.top && y < r.bottom;
                    if (within) found.push(`${source}-${target}: ${id}`);
                  }
                }
              }
              return found;
            }"""
        )
        assert crossed == []
        places = {h.text_content(): h.bounding_box() for h in page.locator(".node").element_handles()}
        start, end = places["input0.82"], places["output"]
        assert start and end
        assert (end["y"] > start["y"] + 100) if size is NARROW else (end["x"] > start["x"] + 100)


def test_compare_is_a_slider_for_keyboard_and_pointer(bench: Bench) -> None:
    page = bench.show("compare", _compare())
    slider = page.get_by_role("slider", name="Divider: original on its left, 2 bits on its right")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert slider.input_value() == "51"
    page.keyboard.press("Home")
    assert slider.input_value() == "0"
    box = page.locator(".compare-box").bounding_box()
    assert box
    page.mouse.move(box["x"] + 10, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 20)
    page.mouse.up()
    assert slider.input_value() == "70"
    uncovered = page.locator(".compare-box .after").evaluate("e => getComputedStyle(e).clipPath")
    assert uncovered == "inset(0px 0px 0px 70%)"
    page.evaluate(MOVE, [0, 2])
    slider = page.get_by_role("slider", name="Divider: original on its left, 4 bits on its right")
    assert slider.input_value() == "70", "the divider stays where the reader left it"
    expect(page.locator(".compare-after .name")).to_have_text("4 bits")


def test_formula_values_change_in_place(bench: Bench) -> None:
    page = bench.show("formula", _formula())
    place = "() => [...document.querySelectorAll('.terms .meaning')].map((e) => e.getBoundingClientRect().left)"
    expect(page.locator(".terms .value").nth(1)).to_have_text("0.08")
    before = page.evaluate(place)
    move(page, 2)
    expect(page.locator(".terms .value").nth(1)).to_have_text("12.32")
    assert page.evaluate(place) == before
    expect(page.locator(".formula-box .katex")).to_have_count(1)
    assert page.locator(".figure-stage").get_attribute("role") == "group"


def test_code_shows_the_line_its_values_and_its_output(bench: Bench) -> None:
    page = bench.show("code", _code())
    now = page.locator(".program-source [aria-current]")
    expect(now).to_contain_text("codes = np.array([3, 9])")
    expect(page.locator(".output-text")).to_have_text("")
    move(page, 2)
    expect(now).to_contain_text("print('low', low)")
    expect(page.locator(".output-text")).to_have_text("low 3\n")
    expect(page.locator(".terms .symbol")).to_have_text(["codes", "low"])
    move(page, 3)
    expect(page.locator(".value.changed")).to_have_count(1)
    assert "4" in (page.locator(".value.changed").text_content() or "")
    assert page.locator(".program-source").get_attribute("tabindex") == "0"


def test_lattice_is_dragged_and_its_sliders_follow(bench: Bench) -> None:
    axis = (-1.0, -0.5, 0.0, 0.5, 1.0)
    sliders = {name: Slider(label=name, values=axis, start=0.0) for name in ("x", "y")}
    page = bench.show("lattice", explore(_plane, **sliders))
    codes = {name: page.locator(f".ring >> nth={i}").bounding_box() for i, name in enumerate(("nearest", "feedback"))}
    step = codes["feedback"]["y"] - codes["nearest"]["y"]
    knob = page.locator(".knob")

    def middle() -> tuple[float, float]:
        box = knob.bounding_box()
        assert box
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    x, y = middle()
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 0.9 * step, y - 0.6 * step, steps=3)
    assert page.locator("bw-figure[data-dragging]").count() == 1
    assert middle() == pytest.approx((x + step, y - step / 2), abs=1), "it goes to the nearest places of its sliders"
    page.mouse.up()
    assert page.locator("bw-figure[data-dragging]").count() == 0
    expect(page.locator(".control-value")).to_have_text(["1", "0.5"])
    page.get_by_role("slider", name="x").press("ArrowLeft")
    page.evaluate(SETTLED)
    assert middle() == pytest.approx((x + step / 2, y - step / 2), abs=1)
    page.get_by_role("button", name="Reset").click()
    page.evaluate(SETTLED)
    assert middle() == pytest.approx((x, y), abs=1)
