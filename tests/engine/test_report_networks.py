"""Reports of ONNX networks: a real certificate of the engine, and variants of it for what a task may measure."""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path

import pytest

from bitwright.engine import report
from bitwright.errors import ModelError
from tests.engine.test_report import HOSTILE, Page, make

pytest.importorskip("onnxruntime")
np = pytest.importorskip("numpy")

SCORES = ("rows", "kl", "kl_interval", "top1_agreement", "top1_agreement_low", "top1_agreement_high")
"""What a verdict holds about outputs that are scores."""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A tiny residual network in integers, with its certificate beside it."""
    import onnx

    from bitwright.engine import plan, run
    from bitwright.recipe import Recipe
    from tests import networks

    folder = tmp_path_factory.mktemp("network")
    network = networks.residual()
    onnx.save(network, folder / "float.onnx")
    np.savez(folder / "data.npz", **networks.feeds(network, 64), labels=np.arange(64) % 10)
    recipe = {
        "layer": {"format": "int8", "group": "channel", "method": "rtn"},
        "data": {"source": str(folder / "data.npz"), "samples": 32},
    }
    planned = plan.make(folder / "float.onnx", folder / "small.onnx", Recipe.read(recipe, "test"))
    for _ in run.run(planned):
        pass
    return folder / "small.onnx"


@pytest.fixture
def real(made):
    """Its certificate, whose speed is stated: the machine's would differ from run to run."""
    certificate = report.load(made)
    certificate["speed"] |= {"float_ms": 2.0, "integer_ms": 1.0, "ratio": 2.0, "integer_share": 0.75, "conversions": 1}
    certificate["verdict"] |= {"kl": 0.01, "kl_interval": 0.001}
    return certificate


def slower(certificate):
    changed = copy.deepcopy(certificate)
    changed["speed"] |= {"float_ms": 1.0, "integer_ms": 1.6, "ratio": 0.625, "float_products": ["matmul3"]}
    return changed


def measuring(certificate, **measures):
    """The same with other measures than those of classes."""
    changed = copy.deepcopy(certificate)
    verdict = changed["verdict"]
    keep = {"samples", "sqnr_db", *(SCORES if "wer_float" in measures else ())}
    changed["verdict"] = {key: value for key, value in verdict.items() if key in keep} | measures
    return changed


def speech(certificate):
    rates = {"wer_float": 0.1, "wer_quantized": 0.125, "wer_increase": 0.025, "cer_float": 0.05, "cer_quantized": 0.06}
    counts = {"clips": 32, "words": 200, "same": 30, "wer_increase_interval": 0.02, "rows": 3200}
    return measuring(certificate, task="words", **rates, **counts)


def boxes(certificate, lost=0.005):
    found = {"images": 32, "objects": 99}
    for name, value in {"map": 0.4, "ap50": 0.6, "ap75": 0.45}.items():
        found |= {f"{name}_float": value, f"{name}_quantized": value - lost, f"{name}_change": -lost}
    return measuring(certificate, task="detect", **found)


def raw(certificate):
    """A raw detector with pictures, one of which somebody tampered with."""
    changed = boxes(certificate)
    changed["verdict"] |= {"boxes_float": 9, "boxes_quantized": 10, "boxes_same": 8, "boxes_agreement": 16 / 19}
    truth, best, worse = [
        [1.0, 2.0, 21.0, 12.0, "lynx"],
        [[1.5, 2.0, 21, 12, "dog", 0.9]],
        [[1.5, 2.5, 21, 12, "lynx", 0.3]],
    ]
    one = {"name": "a.png", "jpeg": "QUJD", "height": 20, "width": 40, "truth": [truth], "float": best + worse}
    two = one | {"name": "b.png", "jpeg": 'x" onload="alert(1)', "truth": None}
    return changed | {"pictures": {"score": 0.25, "shown": [part | {"quantized": []} for part in (one, two)]}}


def faces(certificate, cosine=0.9991):
    found = {
        "embeddings": 32,
        "width": 8,
        "cosine": cosine,
        "cosine_interval": 0.0002,
        "cosine_worst": 0.9954,
        "pairs": 600,
    }
    found |= {"match_float": 0.985, "match_float_low": 0.97, "match_quantized": 0.983, "match_change": -0.002}
    found |= {"match_change_interval": 0.004, "match_gained": 1, "match_lost": 2, "match_kept_threshold": 0.981}
    for name in ("eer", "tar"):
        found |= {f"{name}_float": 0.02, f"{name}_quantized": 0.03, f"{name}_change": 0.01}
    return measuring(certificate, task="match", **found)


def signals(certificate, sqnr=30.0):
    return measuring(certificate, task="none", sqnr_db={"mask": sqnr, "depth": 40.0})


def unmeasured(certificate):
    """As of weights that were rounded without data."""
    changed = copy.deepcopy(certificate)
    for row in changed["rows"]:
        row["output_error"] = None
    return changed | {"verdict": None, "speed": None, "simulation": None, "data": None, "activations": {}}


def mixed(certificate):
    """With layers kept float for the task's sake, and others for want of a kernel."""
    changed = copy.deepcopy(certificate)
    changed["recipe"]["max_drop"] = 0.5
    changed["kept_float"] = {"conv0": "so sensitive that float was kept, to lose at most 0.5 points"}
    floats = {"conv0": "kept float on request", "softmax": "no integer Softmax", "exp": "no integer Exp", "e": ""}
    return changed | {"float_nodes": floats | {"e": "no integer Exp"}}


def lost(certificate):
    """Numbers that JSON cannot hold came back as nothing."""
    changed = boxes(certificate)
    changed["verdict"] |= {key: None for key in changed["verdict"] if key.startswith(("map", "ap"))}
    return changed


def hostile(certificate):
    changed = copy.deepcopy(certificate)
    changed["verdict"]["sqnr_db"] = {HOSTILE: 30.0}
    changed["speed"] |= {"kernels": {HOSTILE: 1}, "float_products": [HOSTILE]}
    changed["data"]["heldout"] |= {"source": HOSTILE, "dropped": [{"what": HOSTILE, "count": 1, "first": HOSTILE}]}
    return changed | {
        "kept_float": {HOSTILE: HOSTILE},
        "float_nodes": {HOSTILE: HOSTILE},
        "simulation": {HOSTILE: {"sqnr_db": None}},
    }


VARIANTS = (dict, slower, speech, boxes, raw, faces, signals, unmeasured, mixed, lost, hostile)
variants = pytest.mark.parametrize("variant", VARIANTS, ids=lambda f: f.__name__)


def words(html: str) -> str:
    return re.sub(r"\s+", " ", Page(html).text)


def test_load_finds_the_certificate_beside_the_file(made, tmp_path):
    found = report.load(made)
    assert found["folder"] == "small.onnx"
    assert report.certificate_path(made).parent == made.parent
    other = tmp_path / "other.onnx"
    for what in ("is not there", "has no other.certificate.json"):
        with pytest.raises(ModelError, match=rf"{re.escape(what)}\. Give an output of bitwright quantize"):
            report.load(other)
        other.write_bytes(b"a network without a certificate")


@variants
def test_verdict_fits_a_screen(real, variant):
    lines = report.verdict_lines(variant(real))
    assert len(lines) <= report.LINES == 16
    assert all(len(line) <= report.WIDTH and line.isprintable() for line in lines)


def test_verdict_holds_the_figures(real):
    verdict, lines = real["verdict"], "\n".join(report.verdict_lines(real))
    output = real["simulation"]["t17"]["sqnr_db"]
    for text in (
        "Close to the float model: mean KL 0.0100 ± 0.0010 nats per sample",
        f"{real['stored_bits_per_weight']:.3f} per quantized weight",
        f"int8_narrow channel by rtn (6 layers), uint8 activations ({len(real['activations'])} tensors)",
        f"{verdict['top1_gained']} gained, {verdict['top1_lost']} lost of 32",
        f"{100 * verdict['top1_agreement']:.2f} % of 32 samples have the same best class",
        f"{verdict['sqnr_db']['t17']:.1f} dB in t17",
        "2.00 -> 1.00 ms (2.00 times the speed; batch 1, 1 thread, median of 50 runs)",
        "75 % of the time in integer kernels; 1 conversion and 0 float products left",
        f"answers as our own simulation does: SQNR {output:.1f} dB (t17)",
    ):
        assert text in lines
    assert "Slower" not in lines


def test_slower_than_float_is_said_at_the_top_of_everything(real):
    certificate = slower(real)
    sentence = "Slower than the float network here: 0.62 times its speed, 75 % of the time in integer kernels."
    assert report.verdict_lines(certificate)[1] == sentence
    assert sentence in report.to_markdown([certificate]).split("| Figure")[0]
    text = words(report.to_html([certificate]))
    assert sentence in text.split("Stored bits")[0]
    assert "Products left in float: matmul3" in text
    assert "No matrix product is left in float" in words(report.to_html([real]))


@pytest.mark.parametrize(
    ("variant", "value", "expected"),
    [
        (boxes, 0.002, "Practically the float model: mAP 40.00 -> 39.80 % (-0.20 points, over 32 images)."),
        (boxes, 0.02, "Noticeably worse: mAP 40.00 -> 38.00 %"),
        (boxes, 0.2, "Broken: mAP"),
        (boxes, math.nan, "Broken: mAP"),
        (signals, None, "Practically the float model: output SQNR 40.0 dB in depth, the lowest of 2 outputs."),
        (signals, 35.0, "Practically the float model: output SQNR 35.0 dB in mask"),
        (signals, 34.9, "Close to the float model"),
        (signals, 5.0, "Clearly damaged"),
        (signals, -3.0, "Broken"),
        (
            faces,
            0.9991,
            "Practically the float model: mean cosine 0.99910 ± 0.0002 over 32 embeddings, 0.9954 at worst.",
        ),
        (faces, 0.9989, "Close to the float model"),
        (faces, 0.9, "Clearly damaged"),
        (faces, math.nan, "Broken: mean cosine"),
    ],
)
def test_without_scores_the_task_or_the_outputs_decide(real, variant, value, expected):
    assert report.headline(variant(real, value)).startswith(expected)


def test_faces_show_pairs_and_rates(real):
    certificate = faces(real)
    text = words(report.to_html([certificate]))
    assert "a mean cosine of 0.99910 (± 0.0002 over 32" in text and "went from 98.50 to 98.30 %" in text
    assert "At the old threshold 98.10 %" in text and "EER (equal error rate) 2.00 to 3.00 %" in text
    assert "at least 0.999" in text, "the limits of the words"
    lines = report.verdict_lines(certificate)
    assert "Accuracy    98.50 -> 98.30 % (-0.20 ± 0.40 points, 1 gained, 2 lost of 600 pairs)" in lines
    certificate["verdict"]["match_float_low"] = 0.48
    assert report.headline(certificate).startswith("The float model itself predicts nothing: it tells 98.5 %")


def test_pictures_carry_boxes_and_nothing_else(real):
    html = report.to_html([raw(real)])
    page = Page(html)
    images = [found for tag, found in page.tags if tag == "image"]
    assert [found.get("href") for found in images] == ["data:image/jpeg;base64,QUJD", None]
    assert "onload" not in html
    assert [found["href"] for tag, found in page.tags if tag == "use"] == [
        *[f"#{images[0]['id']}"] * 2, f"#{images[1]['id']}"
    ]  # fmt: skip
    places = [(found["x"], found["y"], found["width"]) for tag, found in page.tags if found.get("class") == "box true"]
    assert places == [("2.50%", "10.00%", "50.00%")]
    labels = [found["aria-label"] for found in page.drawings if "png" in found.get("aria-label", "")]
    assert [" ".join(label.split()) for label in labels[:3]] == [
        "a.png, annotated: lynx", "a.png, float: dog 0.90, lynx 0.30", "a.png, quantized: nothing"
    ]  # fmt: skip
    assert "dog" in page.text and page.text.count("lynx") == 1, "of two boxes in one place the better one is named"
    assert "What it finds" not in report.to_html([boxes(real)])


def test_speech_is_judged_by_frames_and_shows_its_word_errors(real):
    certificate = speech(real)
    assert "nats per frame" in report.headline(certificate)
    for text in ("\n".join(report.verdict_lines(certificate)), words(report.to_html([certificate]))):
        assert "10.00 -> 12.50 %" in text or "10.00 to 12.50 %" in text
        assert "+2.5 ± 2.0 points" in text


def test_nothing_measured_is_said_with_the_remedy(real):
    certificate = unmeasured(real)
    assert report.judge(certificate) is None
    outputs = ["\n".join(report.verdict_lines(certificate)), report.to_markdown([certificate])]
    for text in [*outputs, words(report.to_html([certificate]))]:
        assert "Quality was not measured" in text
        assert "bitwright quantize FLOAT.onnx --calib DATA -o OUT.onnx" in text
        assert "there were no samples" in text


def test_what_stays_float_is_grouped_by_reason(real):
    certificate = mixed(real)
    assert report.floats(certificate) == [
        ("no integer Exp", ["exp", "e"]),
        ("so sensitive that float was kept, to lose at most 0.5 points", ["conv0"]),
        ("no integer Softmax", ["softmax"]),
    ]
    assert "Float       2 no integer Exp; 1 so sensitive" in "\n".join(report.verdict_lines(certificate))
    for text in (report.to_markdown([certificate]), words(report.to_html([certificate]))):
        assert "conv0" in text
        assert "no integer Exp" in text


def test_data_is_described(real):
    real["data"]["heldout"] |= {
        "dropped": [{"what": "silent", "count": 2, "first": "a.wav"}],
        "notes": [{"what": "few samples", "count": 1, "first": "b"}],
        "preprocessing": {"image": {"size": [32, 24], "fit": "none", "mean": [0.5], "short": None}},
    }
    part = real["data"]["heldout"]
    assert report.lint(real, part) == [
        "32 of 64 samples (npz), labelled",
        "10 classes, 3 to 4 samples each",
        "chosen spread over the classes, seed 0; 32 at once",
        "image: size 32 24, mean 0.5",
    ]
    assert report.remarks(part) == ["left out: silent (2, first a.wav)", "few samples (1, first b)"]
    for text in (report.to_markdown([real]), Page(report.to_html([real])).text):
        assert "silent (2, first a.wav)" in text
        assert part["sha256"] in text


def test_bars_and_histogram_are_of_layers(real):
    chart = report.bars(real)
    assert [group["title"] for group in chart["groups"]] == ["All layers"]
    assert len(chart["groups"][0]["lines"]) == 6
    for row, name in zip(
        real["rows"], ("layer1.0.conv1.weight", "layer1.0.conv2.weight", "/l2/l2.0/c/Conv"), strict=False
    ):
        row["name"] = name
    assert [group["title"] for group in report.bars(real)["groups"]][:2] == ["layer1.0", "l2/l2.0"]
    assert report.histogram(real)["filled"][0] > 20


def test_several_networks(real):
    small = copy.deepcopy(real) | {"folder": "small"}
    large = slower(real) | {"folder": "large", "output": real["output"] | {"bytes": 20_000}}
    large["verdict"]["kl"] = 0.001
    head, rows = report.summary([small, large])
    assert head == ("Name", "Size", "Bits per weight", "Mean KL", "Accuracy", "Latency", "Judgement")
    assert rows[1][5] == "1.60 ms (0.62 times the speed)"
    assert report.comparability([small, large]) == []
    assert report.ranking([small, large]).startswith("The smallest that stays close to the float model is small: ")
    assert report.scatter([small, large])["scale"] == "kl"


def test_outputs_without_scores_are_scattered_by_their_noise(real):
    chart = report.scatter([signals(real, 10.0), signals(real, 30.0), signals(real, None)])
    assert chart["scale"] == "sqnr"
    noise = sorted(p["y"] for p in chart["points"])
    assert noise[1] - noise[0] == pytest.approx(2 * (noise[2] - noise[1]))
    assert "output error" in words(report.to_html([signals(real), signals(real, 20.0)]))


def test_networks_and_language_models_are_not_compared(real):
    lines = report.comparability([real, make(), boxes(real)])
    assert any("different float models" in line for line in lines)
    assert any("judged by different measures" in line for line in lines)
    assert any("different held-out data or text" in line for line in lines)


@variants
@pytest.mark.parametrize("beside", [False, True])
def test_page_and_markdown_of_every_kind(real, variant, beside):
    certificates = [variant(real), make(folder="text")][: 1 + beside]
    html, markdown = report.to_html(certificates), report.to_markdown(certificates)
    page = Page(html)
    assert not page.stack
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert not re.search(r"\b(nan|inf|None|Undefined)\b", page.text)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|src=", html)
    assert "<script" not in markdown
    for table in re.findall(r"(?:^\|.*\|\n?)+", markdown, re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.strip().split("\n")}) == 1
