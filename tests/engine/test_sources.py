"""Several held-out sources: the first is judged by, the others are told beside it."""

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
from bitwright.errors import RecipeError
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
    assert all("Mean KL " in line and "Top-1 agreement" in line and "Perplexity" in line for line in told)
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
