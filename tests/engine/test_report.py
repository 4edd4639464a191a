"""Reports: what they say is what the certificate holds, and a page stands alone and cannot be talked into anything."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import bitwright as bw
from bitwright.engine import report
from bitwright.engine.check import certified
from bitwright.errors import ModelError

HOSTILE = "<script>alert(1)</script>|`*\x1b[2J\nnext"
COUNTS = {"before": [1, 9, 4, 0], "after": [0, 14, 0, 0]}
VOID = {"meta", "br", "hr", "img", "input", "link", "line", "rect", "circle", "path"}


def row(name, *, sqnr=18.0, output_error=0.002, mse=1e-4, notes=(), format="int4 g128", method="gptq"):
    return {
        "event": "row",
        "name": name,
        "format": format,
        "method": method,
        "rows": 128,
        "columns": 256,
        "stored_bits": 128 * 256 * 4 + 128 * 2 * 16,
        "mse": mse,
        "psnr": 30.0,
        "sqnr": sqnr,
        "cosine": 0.99,
        "output_error": output_error,
        "tokens": 4096,
        "seconds": 0.5,
        "notes": list(notes),
    }


def make(*, kl=0.0125, size=30_000_000, rows=None, notes=(), **changes):
    """A certificate as `engine.certify` writes it."""
    text = {"source": "self", "sha256": "a" * 64, "windows": 16, "length": 256, "seed": 0}
    rows = rows or [
        row("model.layers.0.self_attn.q_proj.weight", sqnr=12.5, output_error=0.001),
        row("model.layers.0.mlp.down_proj.weight", sqnr=17.25, output_error=0.0345),
        row("model.layers.1.mlp.down_proj.weight"),
    ]
    return {
        "bitwright": "0.1.0",
        "decoder": {"compressed-tensors": "0.17.1", "transformers": "5.23.0"},
        "source": {"folder": "tiny", "sha256": {"model.safetensors": "b" * 64}, "bytes": 100_000_000},
        "output": {"sha256": {"model.safetensors": "c" * 64}, "bytes": size},
        "recipe": {"sha256": "d" * 64, "output": "compressed-tensors"},
        "text": {"calibration": text, "heldout": text},
        "stored_bits_per_weight": 4.125,
        "quantized_weights": 98304,
        "verdict": {
            "tokens": 4096,
            "kl": kl,
            "kl_interval": kl / 10,
            "top1_agreement": 0.934,
            "top1_interval": 0.011,
            "perplexity_float": 20.0,
            "perplexity_quantized": 21.0,
            "loss_increase": math.log(1.05),
            "loss_increase_interval": 0.002,
        },
        "loaded_by_transformers": {"checked": True, "max_kl": 2.25e-5},
        "peak_memory_bytes": 512_000_000,
        "notes": list(notes),
        "rows": rows,
        "histogram": {"name": rows[0]["name"], "low": -0.5, "high": 0.5, **COUNTS},
        **changes,
    }


class Page(HTMLParser):
    """What a test wants to know of a page; `stack` must be empty at its end."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.tags, self.drawings, self.hidden = [], [], [], 0
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)
        if tag == "svg":
            self.drawings.append(dict(attrs))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack[-1:] == [tag], f"</{tag}> closes {self.stack[-3:]}"
        self.stack.pop()

    def handle_data(self, data):
        self.text += data


MANY = [
    make(kl=0.003, size=60_000_000, folder="eight"),
    make(folder="four"),
    make(kl=0.9, size=20_000_000, folder="two"),
]
SINGLE = {
    "plain": make(),
    "no verdict": make(verdict=None, text=None, rows=[row("a.0.b.weight", output_error=None)]),
    "exact": make(rows=[row("model.layers.0.x.weight", sqnr=None, mse=0.0, output_error=0.0)]),
    "no histogram": make(histogram={"name": "a", "low": 0.0, "high": 0.0, "before": [0], "after": [0]}),
    "not loaded": make(loaded_by_transformers={"checked": False, "why": "the model does not fit"}),
    "some uncalibrated": make(rows=[row("a.0.b.weight"), row("lm_head.weight", output_error=None)]),
}
PAGES = {**{name: [c] for name, c in SINGLE.items()}, "many": MANY, "one unmeasured": [*MANY, SINGLE["no verdict"]]}


@pytest.mark.parametrize(
    ("kl", "words"),
    [
        (0.005, "practically the float model"),
        (0.0051, "close to the float model"),
        (0.1, "noticeably worse"),
        (0.11, "clearly damaged"),
        (0.6, "broken"),
        (math.nan, "broken"),
        (math.inf, "broken"),
    ],
)
def test_judgement_follows_the_mean_kl(kl, words):
    certificate = make(kl=kl)
    assert report.judge(certificate).words == words
    assert report.verdict_lines(certificate)[0].lower().startswith(words)
    assert words in Page(report.to_html([certificate])).text.lower()


def test_verdict_holds_the_figures():
    lines = "\n".join(report.verdict_lines(make()))
    for text in (
        "Close to the float model: mean KL 0.0125 ± 0.0013 nats per token",
        "100.0 MB -> 30.0 MB (70 % smaller), 4.125 stored bits",
        "int4 g128 by gptq (3 matrices)",
        "93.4 ± 1.1 %",
        "20.00 -> 21.00 (+5.00 ± 0.21 %)",
        "3.5 % output error, 17.2 dB SQNR: layers.0.mlp.down_proj",
        "12.5 dB, 0.10 % output error: layers.0.self_attn.q_proj",
        "compressed-tensors 0.17.1",
        "transformers 5.23.0",
    ):
        assert text in lines


LONG = make(rows=[row("x." * 99 + f"{i}.w", notes=[HOSTILE]) for i in range(5)])


@pytest.mark.parametrize("certificate", [*SINGLE.values(), LONG])
def test_verdict_fits_a_screen(certificate):
    lines = report.verdict_lines(certificate)
    assert len(lines) <= 12
    assert all(len(line) <= report.WIDTH and line.isprintable() for line in lines)


def test_notes_of_a_kind_are_one_line():
    same = [row(f"a.{i}.b.weight", notes=["groups of 64: 576 inputs do not divide by 128"]) for i in range(200)]
    line = "200 matrices, groups of 64: 576 inputs do not divide by 128 (first a.0.b.weight)"
    assert report.fallbacks(make(rows=same, notes=[line])) == [line]
    experts = [row(f"e.{i}.weight", notes=[f"expert {i} saw {i} of 64 tokens needed"]) for i in range(200)]
    assert report.fallbacks(make(rows=experts)) == ["200 matrices, as e.0.weight: expert 0 saw 0 of 64 tokens needed"]
    assert len(report.fallbacks(make(rows=experts[:3]))) == 3


def test_verdict_counts_fallbacks_and_names_the_first():
    rows = [row("a.0.b.weight", notes=["one scale per row"]), row("a.1.b.weight", notes=["damping raised", "other"])]
    certificate = make(rows=rows, notes=["a.0.b.weight: one scale per row"])
    assert report.fallbacks(certificate) == [
        "a.0.b.weight: one scale per row",
        "a.1.b.weight: damping raised",
        "a.1.b.weight: other",
    ]
    assert "3 fallbacks and notes, first: a.0.b.weight: one scale per row" in "\n".join(
        report.verdict_lines(certificate)
    )


def test_unmeasured_quality_is_said_with_the_remedy():
    certificate = SINGLE["no verdict"]
    lines = report.verdict_lines(certificate)
    assert lines[0] == "Quality on text was not measured."
    outputs = ["\n".join(lines), report.to_markdown([certificate]), Page(report.to_html([certificate])).text]
    for text in outputs:
        assert "Quality on text was not measured" in text
        assert "bitwright measure FLOAT OUT --heldout FILE" in text
        assert "Perplexity" not in text


def test_study_output_is_not_said_to_be_decoded_by_a_library():
    read = {"transformers": "5.23.0"}  # as the container of decoded floats says
    certificate = make(recipe={"sha256": "d" * 64, "output": "float"}, size=100_000_000, decoder=read)
    lines = "\n".join(report.verdict_lines(certificate))
    assert "compressed-tensors" not in lines
    assert "(no smaller)" in lines


def test_cost_of_rounded_activations_is_told_apart_from_the_weights():
    loaded = {"checked": True, "max_kl": 0.0, "activations_kl": 0.0123}
    rows = [row("a.0.b.weight", format="int8 channel + int8 activations")]
    certificate = make(loaded_by_transformers=loaded, rows=rows)
    lines = report.verdict_lines(certificate)
    assert "weights only" in lines[0]
    assert "Rounding activations alone costs about 0.012 nats" in lines[-1]
    assert "weights alone" in Page(report.to_html([certificate])).text
    assert "weights only" not in report.headline(make())
    certificate["verdict"]["rounded_inputs"] = True  # as every release since says
    assert "weights only" not in report.headline(certificate)
    assert "weights alone" not in Page(report.to_html([certificate])).text


def test_what_loads_the_output_is_said_and_why_not():
    loads = ["transformers with compressed-tensors", "not vLLM 0.33: it fuses what differs"]
    certificate = make(runtimes=loads)
    lines = report.verdict_lines(certificate)
    assert lines[-2:] == [f"Loads in    {loads[0]}", f"            {loads[1]}"]
    for text in (report.to_markdown([certificate]), Page(report.to_html([certificate])).text):
        assert all(f"Loads in: {line}" in text for line in loads)
    assert "Loads in" not in "\n".join(report.verdict_lines(make()))


def test_markdown_holds_the_figures():
    text = report.to_markdown([make()])
    for figure in ("100.0 → 30.0 MB", "70 % smaller", "0.0125 nats", "20.00 → 21.00", "3.5 %", "12.5 dB", "b" * 64):
        assert figure in text
    for table in re.findall(r"(?:^\|.*\|\n?)+", text, re.M):
        assert len({line.count("|") for line in table.strip().split("\n")}) == 1


def test_markdown_escapes():
    text = report.to_markdown([make(rows=[row(HOSTILE, notes=[HOSTILE], format=HOSTILE)])])
    assert "<script" not in text
    assert "\x1b" not in text
    for line in text.split("\n"):
        if line.startswith("| &lt;script"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 10
            break
    else:
        pytest.fail("no row of the matrix")


@pytest.mark.parametrize("name", PAGES)
def test_page_stands_alone(name):
    text = report.to_html(PAGES[name])
    page = Page(text)
    assert not page.stack
    assert not re.search(r"https?:|//[a-z]|url\(|@import|src=", text)
    names = [tag for tag, _ in page.tags]
    assert "script" not in names
    assert "link" not in names
    assert names.count("h1") == 1
    assert names.count("title") == 1
    assert dict(page.tags)["html"]["lang"] == "en"
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    targets = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert len(ids) == len(set(ids))
    assert {t.removeprefix("#") for t in targets} <= set(ids)
    assert page.drawings
    for attrs in page.drawings:
        assert attrs.get("aria-hidden") == "true" or (attrs["role"] == "img" and attrs["aria-label"].strip())
    assert all(attrs.get("scope") for tag, attrs in page.tags if tag == "th")
    assert not re.search(r"\b(nan|inf|None|Undefined)\b", page.text)


def test_page_holds_the_figures():
    text = re.sub(r"\s+", " ", Page(report.to_html([make()])).text)
    for figure in ("100.0 to 30.0 MB", "0.0125 nats", "20.00 to 21.00", "93.4 %", "3.5 %", "12.5 dB", "b" * 64):
        assert figure in text
    assert "layers.0.self_attn.q_proj, is only number 3 of 3 by output error" in text


def test_page_escapes():
    rows = [row(f"model.layers.0.{HOSTILE}.weight", notes=[HOSTILE])]
    certificate = make(rows=rows, notes=[HOSTILE], folder=HOSTILE)
    certificate["source"]["folder"] = '"><img src=x onerror=alert(1)>'
    certificate["text"]["heldout"] = certificate["text"]["heldout"] | {"source": HOSTILE}
    for certificates in ([certificate], [certificate, make(folder="b")]):
        text = report.to_html(certificates)
        page = Page(text)
        assert not {"script", "img"} & {tag for tag, _ in page.tags}
        assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
        assert "<script>alert(1)</script>" in page.text


def test_bars_are_in_proportion_and_grouped():
    chart = report.bars(make())
    assert [group["title"] for group in chart["groups"]] == ["Block 0", "Block 1"]
    widths = {line["title"]: line["width"] for group in chart["groups"] for line in group["lines"]}
    assert widths["layers.0.mlp.down_proj"] / widths["layers.0.self_attn.q_proj"] == pytest.approx(34.5)
    assert max(widths.values()) <= 100


def test_bars_of_a_large_model_are_the_worst_ones_and_the_rest_is_counted():
    rows = [row(f"model.layers.{i}.mlp.up_proj.weight", output_error=i / 1000) for i in range(200)]
    chart = report.bars(make(rows=rows))
    drawn = [line["title"] for group in chart["groups"] for line in group["lines"]]
    assert drawn == [f"layers.{i}.mlp.up_proj" for i in range(200 - report.MAX_BARS, 200)]
    assert chart["left_out"] == 200 - report.MAX_BARS
    assert f"{report.MAX_BARS} worst of 200 matrices" in Page(report.to_html([make(rows=rows)])).text


def test_bars_without_calibration_show_the_weight_error():
    chart = report.bars(make(rows=[row("a.0.b.weight", sqnr=20.0, output_error=None)]))
    assert not chart["outputs"]
    assert chart["groups"][0]["lines"][0]["value"] == "1.0 %"


def test_sqnr_without_error_is_exact_and_never_the_worst():
    exact, dead = row("a.0.b.weight", sqnr=None, mse=0.0), row("a.0.c.weight", sqnr=None, mse=1e-3)
    certificate = make(rows=[exact, row("a.0.d.weight", sqnr=9.0)])
    assert report.decibel(exact) == "exact"
    assert report.worst(certificate, "sqnr")["name"] == "a.0.d.weight"
    assert report.decibel(dead) == "-∞ dB"
    assert report.worst(make(rows=[exact, dead]), "sqnr") is dead


def test_histogram_heights_are_square_roots():
    chart = report.histogram(make())
    tops = [1000 - float(v) for v in re.findall(r"V([\d.]+)H", chart["area"])]
    assert tops[1] / tops[0] == pytest.approx(3, rel=1e-3)  # counts 9 and 1
    assert chart["strokes"].count("M") == 1
    assert chart["filled"] == (3, 1)


def test_scatter_places_by_size_and_logarithm():
    chart = report.scatter(MANY)
    points = {p["name"]: p for p in chart["points"]}
    assert points["eight"]["x"] / points["two"]["x"] == pytest.approx(3)
    span = math.log10(0.9 / 0.003) / math.log10(0.0125 / 0.003)
    heights = {name: p["y"] for name, p in points.items()}
    assert (heights["eight"] - heights["two"]) / (heights["eight"] - heights["four"]) == pytest.approx(span)
    assert all(0 <= p[axis] <= 100 for p in chart["points"] for axis in "xy")
    assert "logarithmic scale" in re.sub(r"\s+", " ", Page(report.to_html(MANY)).text)
    assert report.scatter(MANY[:1]) is None


def test_scatter_survives_models_without_any_loss_or_interval():
    same = make(kl=0.0, folder="same")
    alone = make(folder="alone")
    alone["verdict"]["kl_interval"] = math.inf
    chart = report.scatter([same, alone])
    assert all(math.isfinite(p[key]) for p in chart["points"] for key in ("x", "y", "top", "bottom"))
    assert "0.013 ± ∞ nats" in report.headline(alone)
    Page(report.to_html([same, alone]))


def test_ranking_prefers_the_smallest_close_one():
    assert report.ranking(MANY).startswith("The smallest that stays close to the float model is four: ")
    assert report.ranking([MANY[2], make(kl=0.3, folder="three")]).startswith("None stays close")
    assert report.ranking([SINGLE["no verdict"]] * 2).startswith("Quality on text was not measured")


def test_what_cannot_be_compared_is_said():
    assert report.comparability(MANY) == []
    other = copy.deepcopy(MANY[0])
    other["text"]["heldout"]["sha256"] = "e" * 64
    assert any("different held-out text" in line for line in report.comparability([MANY[1], other]))
    other["source"]["sha256"] = {"model.safetensors": "f" * 64}
    lines = report.comparability([MANY[1], other])
    assert len(lines) == 2
    assert all(line in Page(report.to_html([MANY[1], other])).text for line in lines)


@pytest.mark.parametrize(
    ("value", "interval", "text"),
    [
        (0.005548, 0.001111, "0.0055 ± 0.0011"),
        (95.0683, 1.0892, "95.1 ± 1.1"),
        (3.1e-5, 6.2e-6, "0.0000310 ± 0.0000062"),
        (0.0, 0.0, "0 ± 0"),
    ],
)
def test_decimals_follow_the_interval(value, interval, text):
    assert report.measured(value, interval) == text


def test_json_is_valid_and_complete():
    certificate = make(kl=math.inf)
    found = json.loads(report.to_json([certificate]), parse_constant=lambda word: pytest.fail(word))
    assert found[0]["verdict"]["kl"] is None
    assert found[0]["rows"] == certificate["rows"]


def test_load(tmp_path: Path):
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(ModelError, match=r"has no certificate.json. Give an output of bitwright quantize"):
        report.load(folder)
    for content in ("{", "[]", '{"rows": []}', "\udcff"):
        (folder / "certificate.json").write_bytes(content.encode("utf-8", "surrogateescape"))
        with pytest.raises(ModelError, match="Give an output of bitwright quantize"):
            report.load(folder)
    (folder / "certificate.json").write_text(json.dumps(make()))
    assert report.load(folder) == {**make(), "folder": "out"}


def outputs(folder: Path, **changes: Any) -> Path:
    """An output of one file, with a certificate that names it."""
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    certificate = make() | {"output": {"sha256": {"model.safetensors": digest}, "bytes": 7}} | changes
    (folder / "certificate.json").write_text(json.dumps(certificate))
    return folder


def test_a_report_says_that_nothing_was_measured_again(tmp_path: Path):
    told = bw.report(outputs(tmp_path / "out"))
    for text in (told.markdown, told.html):
        assert text.count("not re-measured") == 1
        assert "Stale" not in text


def test_a_report_names_files_that_are_not_as_certified(tmp_path: Path):
    folder = outputs(tmp_path / "out")
    (folder / "model.safetensors").write_bytes(b"others!")
    told = bw.report(folder)
    for text in (told.markdown, told.html):
        assert "Stale: model.safetensors is not the certified file" in text
    assert json.loads(told.json)[0]["stale"] == ["model.safetensors is not the certified file: its SHA-256 differs"]
    [finding] = certified(folder)
    assert (finding.good, "not re-measured" in finding.detail) == (False, True)
    (folder / "model.safetensors").unlink()
    assert "Stale: model.safetensors is certified but missing" in bw.report(folder).markdown


def test_a_certificate_names_files_of_its_own_folder_alone(tmp_path: Path):
    (tmp_path / "secret").write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    folder = outputs(tmp_path / "out", output={"sha256": {"../secret": digest}, "bytes": 7})
    assert "../secret is certified but missing" in bw.report(folder).markdown


@pytest.mark.parametrize(
    "changes", [{"verdict": {"kl": "much"}}, {"verdict": {}}, {"text": 5}, {"histogram": 5}], ids=str
)
def test_a_forged_certificate_is_no_traceback(changes: dict[str, Any], tmp_path: Path):
    told = bw.report(outputs(tmp_path / "out", **changes))
    for form in ("markdown", "html"):
        try:
            text = getattr(told, form)
        except ModelError as error:
            assert str(error).startswith("out: a part of the certificate is missing")
        else:
            assert form == "markdown" and "histogram" in changes, text  # Markdown shows none


def test_text_keeps_its_contrast_in_light_and_dark():
    styles = report.to_html([make()])
    light, dark = re.findall(r":root \{(.*?)\}", styles, re.S)
    for block in (light, dark):
        colours = dict(re.findall(r"--([\w-]+): (#\w{6})", block))
        for name in ("ink", "ink-2", "ink-3", "float", "quant", "error", "good", "warn"):
            for ground in ("bg", "surface"):
                assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)


def contrast(a, b):
    """WCAG 2 contrast ratio of two #rrggbb colours."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_a_certificate_of_the_engine_reads(tmp_path: Path):
    pytest.importorskip("transformers")
    from bitwright.engine import plan, run
    from bitwright.recipe import Recipe
    from tests import tiny

    recipe = Recipe.loads('[layer]\nformat = "int8"\ngroup = "channel"\nmethod = "rtn"')
    for _ in run.run(plan.make(tiny.make("llama", tmp_path / "float"), tmp_path / "small", recipe)):
        pass
    certificate = report.load(tmp_path / "small")
    assert "int8 channel by rtn (14 matrices)" in "\n".join(report.verdict_lines(certificate))
    assert len(re.findall('<tr role="row">', report.to_html([certificate]))) == 15
    assert "int8 channel" in report.to_markdown([certificate])


def test_held_out_text_that_calibration_has_seen_is_said():
    certificate = make()
    assert not any("Flattered" in line for line in report.verdict_lines(certificate))
    certificate["text"] = {
        "calibration": certificate["text"]["calibration"],
        "heldout": {**certificate["text"]["heldout"], "seen": 0.97},
    }
    assert any("Flattered: calibration has 97 %" in line for line in report.verdict_lines(certificate))
    assert "Flattered" in Page(report.to_html([certificate])).text
