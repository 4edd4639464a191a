"""Several sources of held-out text, the first of which judges, and of calibration text, which are mixed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bitwright import library
from bitwright.cli.app import app
from bitwright.engine import report
from bitwright.engine.options import make_recipe
from bitwright.errors import RecipeError
from bitwright.models import kind_of
from bitwright.recipe import Recipe
from tests import jobs, tiny

RTN = {"format": "int4", "method": "rtn", "group": 32}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make("llama", tmp_path_factory.mktemp("sources") / "llama")


def other(folder: Path, name: str = "other.txt") -> Path:
    """Text of another kind."""
    path = folder / name
    path.write_text(" ".join(f"{i} {i * i % 97}" for i in range(20_000)))
    return path


def test_each_source_has_its_measures_and_the_first_one_judges(llama: Path, tmp_path: Path) -> None:
    text, second = jobs.text(tmp_path), other(tmp_path)
    words = jobs.words(text) | {"heldout": [str(second), str(text)], "heldout_windows": 4}
    certificate = jobs.finish(jobs.made(llama, tmp_path / "out", layer=RTN, calibration=words))
    verdict = certificate["verdict"]
    (beside,) = verdict["others"]
    assert beside["source"] == "some.txt" and {"kl", "top1_agreement", "perplexity_quantized"} <= beside.keys()
    for source, found in ((second, verdict), (text, beside)):
        alone = library.measure(llama, tmp_path / "out", str(source), windows=4, length=32, watch=False).summary
        assert found["kl"] == pytest.approx(alone["kl"], rel=1e-3)
        assert found["perplexity_float"] == pytest.approx(alone["perplexity_float"], rel=1e-3)
    parts = certificate["text"]
    assert [parts[name]["source"] for name in ("calibration", "heldout", "heldout 2")] == [
        "some.txt", "other.txt", "some.txt",
    ]  # fmt: skip
    # Whether calibration has seen it is said of each.
    assert (parts["heldout"]["seen"], parts["heldout 2"]["seen"]) == (0.0, 1.0)
    assert "Flattered: calibration has 100 % of some.txt's 16-token runs." in report.cautions(certificate)
    lines = report.verdict_lines(certificate)
    told = [line for line in lines if line.startswith("On ")]
    assert [line.partition(":")[0] for line in told] == ["On other.txt", "On some.txt"]
    assert all("Mean KL " in line and "Top-1 " in line and "Perplexity" in line for line in told)
    found = library.report(tmp_path / "out")
    assert "Mean KL on some.txt" in found.markdown and "Mean KL on some.txt" in found.html
    assert "Held-out, beside it" in found.html


def test_named_text_is_what_the_verdict_uses_where_the_model_writes_its_own(llama: Path, tmp_path: Path) -> None:
    words = {"heldout": str(other(tmp_path)), "heldout_windows": 2, "length": 32, "windows": 2}
    free = jobs.finish(jobs.made(llama, tmp_path / "free", layer=RTN, calibration=words))
    assert {name: part["source"] for name, part in free["text"].items()} == {"heldout": "other.txt"}
    layer = RTN | {"method": "gptq"}
    seen = jobs.finish(jobs.made(llama, tmp_path / "seen", layer=layer, calibration=words))
    assert {name: part["source"] for name, part in seen["text"].items()} == {
        "calibration": "self", "heldout": "other.txt",
    }  # fmt: skip
    assert seen["text"]["calibration"]["windows"] == 2


def test_a_network_is_judged_on_each_source(tmp_path: Path) -> None:
    source, data = jobs.network("residual", tmp_path)
    samples = dict(np.load(data))
    paths = [tmp_path / "near.npz", tmp_path / "far.npz"]
    for path, scale in zip(paths, (1.0, 3.0), strict=True):
        np.savez(path, **{name: x * scale for name, x in samples.items()})
    recipe = {"data": {"source": str(data), "heldout": list(map(str, paths))}, "layer": {"method": "rtn"}}
    result = library.quantize(source, tmp_path / "out.onnx", recipe=recipe, watch=False)
    (far,) = result.verdict["others"]
    assert far["source"] == "far.npz" and far["sqnr_db"]["t17"] < result.verdict["sqnr_db"]["t17"] - 10
    assert [line[:11] for line in str(result).splitlines() if line.startswith("On ")] == ["On near.npz", "On far.npz:"]
    assert set(result.certificate["data"]) == {"calibration", "heldout", "heldout 2"}


def heldout(value: Any) -> Recipe:
    return Recipe.read({"calibration": {"heldout": value}}, "test")


def test_a_recipe_takes_one_source_or_a_list() -> None:
    assert heldout("a.txt").hash == heldout(["a.txt"]).hash != heldout(["a.txt", "b.txt"]).hash
    assert 'heldout = ["a.txt", "b.txt"]' in heldout(["a.txt", "b.txt"]).dumps()
    assert Recipe.loads(heldout(["a.txt", "b.txt"]).dumps()).hash == heldout(["a.txt", "b.txt"]).hash
    for wrong, why in ((["a", "a"], "'a' is given twice"), ([], "at least 1 item"), (3, "valid list")):
        with pytest.raises(RecipeError, match=why) as caught:
            heldout(wrong)
        assert caught.value.key == "calibration.heldout"


def test_the_option_may_be_repeated(llama: Path, tmp_path: Path) -> None:
    sources = [str(other(tmp_path, name)) for name in ("a.txt", "b.txt")]
    options = [word for source in sources for word in ("--heldout", source)]
    few = ["--length", "32", "--heldout-windows", "2", "--method", "rtn", "--group", "32"]
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["quantize", str(llama), "-o", str(out), *few, *options])
    assert done.exit_code == 0, done.output
    assert "On a.txt: " in done.output and "On b.txt: " in done.output
    words = ["measure", str(llama), str(out), "--windows", "2", "--length", "32", "--json", *options]
    done = CliRunner().invoke(app, words)
    told = [json.loads(line) for line in done.output.splitlines()]
    assert [event["source"] for event in told if event["event"] == "comparison"] == ["a.txt", "b.txt"]


FITTED = RTN | {"method": "mse"}  # it looks at calibration text


def mixed(folder: Path, *shares: str, **words: Any) -> dict[str, Any]:
    """The recipe's table for a mixture of two kinds of text."""
    sources = [f"{path}{share}" for path, share in zip((jobs.text(folder), other(folder)), shares, strict=True)]
    return {"source": sources, "windows": 16, "length": 32, "heldout_windows": 2} | words


def test_a_mixture_is_recorded_and_each_source_is_judged(llama: Path, tmp_path: Path) -> None:
    plan = jobs.made(llama, tmp_path / "out", layer=FITTED, calibration=mixed(tmp_path, ":3", ":1"))
    told = str(library.Planned(plan))
    assert f"calibration windows: {tmp_path / 'some.txt'} 12, {tmp_path / 'other.txt'} 4" in told
    # 16 windows of 32 tokens for matrices of 64 and 128 inputs; 25 x 128 tokens are 100 windows.
    few = "512 tokens, per input column 8 of the narrowest (64) and 4 of the widest (128) matrix: under 25"
    assert few in told and "100 windows reach that" in told
    certificate = jobs.finish(plan)
    seen = certificate["text"]["calibration"]
    assert (seen["source"], seen["windows"]) == ("some.txt (75%), other.txt (25%)", 16)
    facts = [(one["source"], one["share"], one["windows"], one["used"]) for one in seen["sources"]]
    assert facts == [("some.txt", 0.75, 12, 12 * 32), ("other.txt", 0.25, 4, 4 * 32)]
    assert seen["per_column"] == {
        "narrowest": {"inputs": 64, "tokens": 8.0}, "widest": {"inputs": 128, "tokens": 4.0},
    }  # fmt: skip
    assert any(line.startswith(few) for line in seen["warnings"])
    # Without --heldout a part of each that calibration has not seen.
    held = [certificate["text"][name] for name in ("heldout", "heldout 2")]
    assert [(part["source"], part["domain"]) for part in held] == [
        (name, {"in": True, "nearest": name}) for name in ("some.txt", "other.txt")
    ]
    assert max(part["seen"] for part in held) < 0.05
    lines = report.verdict_lines(certificate)
    assert [line.split(": ")[0] for line in lines if line.startswith("In ")] == [
        "In domain, some.txt", "In domain, other.txt",
    ]  # fmt: skip
    assert all(len(line) <= 100 for line in lines)
    found = library.report(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    for text in (found.markdown, found.html, card):
        assert "in domain" in text
    assert few in found.html and "other.txt, 25 %: 4 windows of 32 tokens" in card


def test_text_of_another_kind_is_told_apart(llama: Path, tmp_path: Path) -> None:
    text = jobs.text(tmp_path)
    whole = text.read_text()
    like = tmp_path / "like.txt"
    like.write_text(whole[len(whole) // 2 :])
    text.write_text(whole[: len(whole) // 2])
    words = {"source": str(text), "heldout": [str(other(tmp_path)), str(like), str(text)], "windows": 32}
    words |= {"length": 32, "heldout_windows": 8}
    certificate = jobs.finish(jobs.made(llama, tmp_path / "out", layer=FITTED, calibration=words))
    parts = [certificate["text"][name] for name in ("heldout", "heldout 2", "heldout 3")]
    assert [part["domain"]["in"] for part in parts] == [False, True, True]
    assert parts[0]["domain"]["excess"] > parts[0]["domain"]["spread"] > parts[1]["domain"]["excess"]
    assert "Out of domain: calibration saw other text than other.txt." in report.cautions(certificate)
    lines = [line.split(":")[0] for line in report.verdict_lines(certificate)]
    assert {"Out of domain, other.txt", "In domain, like.txt", "In domain, some.txt"} <= {*lines}
    card = (tmp_path / "out" / "README.md").read_text()
    assert (
        "out of domain: its tokens are less likely by" in card
        and "in domain: of a source that was calibrated on" in card
    )
    assert "Mean KL on like.txt" in library.report(tmp_path / "out").markdown
    # What no method looks at makes nothing in or out of domain.
    free = jobs.finish(jobs.made(llama, tmp_path / "free", layer=RTN, calibration=words))
    assert "domain" not in free["text"]["heldout"] and free["text"]["calibration"]["per_column"] == {}


def test_a_source_too_short_for_its_share_is_said(llama: Path, tmp_path: Path) -> None:
    words = mixed(tmp_path, "", "", length=16, heldout=str(tmp_path / "some.txt"))
    Path(words["source"][1]).write_text(" ".join(map(str, range(200, 225))))
    certificate = jobs.finish(jobs.made(llama, tmp_path / "out", layer=FITTED, calibration=words))
    seen = certificate["text"]["calibration"]
    count = seen["sources"][1]["windows"]
    assert 0 < count < 8 and seen["windows"] == 8 + count and seen["wanted"] == 16
    assert seen["sources"][1]["share"] == count / (8 + count)
    said = [line for line in seen["warnings"] if line.startswith("other.txt: ")]
    assert any(f"8 windows were wanted and the text has tokens for {count}" in line for line in said)
    assert any(f"it is {count / (8 + count):.0%} of the mixture instead of 50%" in line for line in said)


def test_a_mixture_is_interleaved_and_one_source_is_as_ever(llama: Path, tmp_path: Path) -> None:
    def windows(**words: Any) -> Any:
        plan = jobs.made(llama, tmp_path / "out", layer=FITTED, calibration=words)
        steps = plan.model.read_data(plan)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value.calibration

    words = mixed(tmp_path, ":2", "")
    few = {"windows": 12, "length": 32}
    both = windows(source=words["source"], heldout=str(tmp_path / "some.txt"), **few)
    text, numbers = (
        windows(source=str(tmp_path / name), heldout=str(tmp_path / "some.txt"), windows=count, length=32)
        for name, count in (("some.txt", 8), ("other.txt", 4))
    )
    rows = iter(text), iter(numbers)
    assert both.tolist() == [next(rows[i]).tolist() for i in (0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0)]
    alone = windows(source=[str(tmp_path / "some.txt")], heldout=str(tmp_path / "some.txt"), windows=8, length=32)
    assert alone.tolist() == text.tolist()


def test_calib_may_be_repeated_and_what_is_wrong_is_one_line(llama: Path, tmp_path: Path) -> None:
    text, second = jobs.text(tmp_path), other(tmp_path)
    few = ["--length", "32", "--heldout-windows", "2", "--method", "mse", "--group", "32", "--windows", "8"]
    words = ["quantize", str(llama), "-o", str(tmp_path / "out"), *few]
    done = CliRunner().invoke(app, [*words, "--calib", f"{text}:3", "--calib", f"{second}:1"])
    assert done.exit_code == 0, done.output
    assert "In domain, some.txt: " in done.output and "In domain, other.txt: " in done.output
    for sources, said in (
        ([f"{text}:0"], "'0' is not a share"),
        ([str(text), f"{text}:2"], "some.txt is given twice"),
        ([f"{tmp_path}/smoe.txt:2"], "Did you mean some.txt"),
        ([f"{text}:100", str(second)], "--windows 202 or more"),
        ([""], "a source without a name"),
    ):
        named = [word for source in sources for word in ("--calib", source)]
        bad = CliRunner().invoke(app, ["quantize", str(llama), "-o", str(tmp_path / "bad"), *few, *named])
        assert bad.exit_code == 2 and said in bad.output and not (tmp_path / "bad").exists()


def test_samples_come_from_one_source(tmp_path: Path) -> None:
    source, data = jobs.network("residual", tmp_path)
    with pytest.raises(RecipeError, match="2 sources of samples") as caught:
        library.plan(source, calib=[str(data), "more.npz"])
    assert caught.value.key == "data.source"
    one, same = (make_recipe(kind_of(source), None, {"calib": given}) for given in ([str(data)], str(data)))
    assert one.hash == same.hash and one.data.source == str(data)


def test_a_recipe_takes_shares() -> None:
    recipe = Recipe.loads('[calibration]\nsource = ["docs.jsonl:3", "other.txt"]')
    assert 'source = ["docs.jsonl:3", "other.txt"]' in recipe.dumps()
    assert Recipe.loads(recipe.dumps()) == recipe
    one = Recipe.loads('[calibration]\nsource = "docs.jsonl"')
    assert one.hash == Recipe.loads('[calibration]\nsource = ["docs.jsonl"]').hash != recipe.hash
    assert 'source = "docs.jsonl"' in one.dumps()
    for wrong, why in (('["a", "a"]', "'a' is given twice"), ("[]", "at least 1 item"), ("3", "valid list")):
        with pytest.raises(RecipeError, match=why) as caught:
            Recipe.loads(f"[calibration]\nsource = {wrong}")
        assert caught.value.key == "calibration.source"
