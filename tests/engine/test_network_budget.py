"""Budgets for networks: layers of 4 and of 8 bits in one file, what is predicted of them, and what cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from bitwright.cli import app
from bitwright.engine import report
from bitwright.engine.options import make_recipe
from bitwright.engine.run import run
from bitwright.errors import RecipeError
from bitwright.events import Event, Note, Progress
from bitwright.files.onnx import counted, read
from bitwright.models.model import Cost, Plan
from bitwright.models.network import KIND
from bitwright.models.network.session import Session
from tests import jobs, networks
from tests.models.network import test_recovery, test_shared

CLASSES = ("conv_bn_relu", "mobile", "mlp", "residual")
"""Networks that return a row of class scores for each sample."""


def planned(
    folder: Path, kind: Any = "residual", share: float | None = 0.5, out: str = "out.onnx", samples: int = 24,
    **recipe: Any,
) -> Plan:  # fmt: skip
    """A plan whose output may take this share of what lies between the smallest and the largest one."""
    source, data = jobs.network(kind, folder, samples, labels=kind in CLASSES)
    recipe = {"data": {"source": str(data), "batch": 8}, **recipe}
    if share is None:
        return jobs.made(source, folder / out, **recipe)
    formats = recipe.pop("formats", None)
    ends = jobs.made(source, folder / out, **recipe, budget={"bpw": 99, "formats": formats}).ends
    least, most = (end.sink.final_bytes for end in ends)
    size = round(least + share * (most - least))
    return jobs.made(source, folder / out, **recipe, budget={"size": size, "formats": formats})


def formats_of(certificate: dict[str, Any]) -> dict[str, str]:
    return {row["name"]: row["format"].split(" ")[0] for row in certificate["rows"]}


def test_a_size_is_kept_to_by_formats_that_cost_the_least(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    certificate = jobs.finish(plan)
    spent, size, formats = certificate["budget"], plan.recipe.budget.size, formats_of(certificate)  # type: ignore[union-attr]
    assert certificate["output"]["bytes"] == (tmp_path / "out.onnx").stat().st_size == spent["bytes"]
    assert spent["bytes"] <= size  # type: ignore[operator]
    assert set(formats.values()) == {"int4_narrow", "int8_narrow"}
    chosen = sum(spent["costs"][name][format] for name, format in formats.items())
    assert spent["predicted"]["kl"] == pytest.approx(spent["fixed"] + chosen)
    assert spent["fixed"] > 0
    assert spent["bound"] <= spent["predicted"]["kl"] + 1e-12
    sizes, losses = zip(*spent["frontier"], strict=True)
    assert sizes[0] < spent["bytes"] < sizes[-1] and list(losses) == sorted(losses, reverse=True)
    bits = {found.words.split(" ")[0] for found in counted(read(tmp_path / "out.onnx")).values()}
    assert {"int4", "int8"} <= bits


def test_what_was_predicted_is_told_everywhere(tmp_path: Path) -> None:
    certificate = {**jobs.finish(planned(tmp_path)), "folder": "out"}
    line = next(line for line in report.verdict_lines(certificate) if line.startswith("Budget"))
    assert "KL predicted" in line and "; activations " in line and ", measured " in line
    page = report.to_html([certificate])
    assert "What the budget bought" in page and "in nats per sample" in page
    assert "Budget: KL predicted" in report.to_markdown([certificate])
    card = (tmp_path / "out.README.md").read_text("utf-8").replace("\\", "")
    assert "int4_narrow channel" in card and "int8_narrow channel" in card


@pytest.mark.parametrize(
    ("kind", "target"),
    [*((kind, "x86") for kind in ("conv_bn_relu", "dense", "upsample", "transformer")),
     *((kind, "arm") for kind in ("mobile", "mlp", "recurrent"))],
)  # fmt: skip
def test_bytes_are_known_before_anything_is_solved(kind: str, target: str, tmp_path: Path) -> None:
    """To the byte once samples have been seen; and nearly so in the plan."""
    plan = planned(tmp_path, kind, 0.5, network={"target": target, "entrance": "int8"}, layer={"method": "rtn"})
    found = jobs.finish(plan)
    written = (tmp_path / "out.onnx").stat().st_size
    assert found["budget"]["bytes"] == written <= plan.recipe.budget.size  # type: ignore[union-attr,operator]
    least = found["budget"]["frontier"][0][0]
    assert plan.ends[0].sink.final_bytes == pytest.approx(least, abs=600)


def test_more_bytes_lose_less(tmp_path: Path) -> None:
    found = [jobs.finish(planned(tmp_path, share=share, out=f"{share}.onnx", samples=96)) for share in (0.0, 1.0)]
    assert found[0]["budget"]["costs"] == found[1]["budget"]["costs"], "they do not depend on the budget"
    predicted = [certificate["budget"]["predicted"]["kl"] for certificate in found]
    measured = [certificate["verdict"]["kl"] for certificate in found]
    assert predicted == sorted(predicted, reverse=True) and measured == sorted(measured, reverse=True)


def test_a_loss_is_kept_to_by_the_smallest_output(tmp_path: Path) -> None:
    wide = jobs.finish(planned(tmp_path, out="wide.onnx"))
    source, data = tmp_path / "residual.onnx", tmp_path / "samples.npz"
    given = {"data": {"source": str(data), "batch": 8}}
    limit = wide["budget"]["predicted"]["high"]
    found = jobs.finish(jobs.made(source, tmp_path / "out.onnx", **given, budget={"kl": limit}))
    assert found["budget"]["predicted"]["high"] <= limit
    assert found["output"]["bytes"] <= wide["output"]["bytes"]
    with pytest.raises(RecipeError, match=r"--max-kl: the finest formats may lose .* nats per sample already\. Give"):
        list(run(jobs.made(source, tmp_path / "none.onnx", **given, budget={"kl": 1e-9})))
    assert sorted(path.name for path in tmp_path.glob("none*")) == []


def test_stopped_anywhere_it_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    def job(name: str) -> Plan:
        return planned(tmp_path, out=name)

    def costs(name: str) -> int:
        journal = tmp_path / f"{name}.partial" / "journal.jsonl"
        return journal.read_text().count('"cost:') if journal.exists() else 0

    list(run(whole := job("whole.onnx")))
    count = len(whole.items)
    solving: Callable[[Event], bool] = lambda event: isinstance(event, Progress) and event.phase == "quantize"  # noqa: E731
    measuring: Callable[[Event], bool] = lambda event: isinstance(event, Progress) and event.phase == "measure"  # noqa: E731
    for name, when, known in (("early", measuring, 0), ("late", solving, count)):
        jobs.stop_after(job(f"{name}.onnx"), when)
        assert costs(name) == known
        list(run(job(f"{name}.onnx")))
        assert (tmp_path / f"{name}.onnx").read_bytes() == whole.out.read_bytes()


def measured(plan: Plan, known: Callable[[str], bool] = lambda name: False) -> dict[str, Any]:
    """What the formats of a plan's layers cost, and what is said meanwhile."""
    plan.partial.mkdir(exist_ok=True)
    model: Any = plan.model
    events = list(model.costs(plan, model.samples, model.choices(plan), known))
    found = {event.name: event.loss for event in events if isinstance(event, Cost)}
    return {**found, "notes": [event.text for event in events if isinstance(event, Note)]}


def test_part_of_the_costs_is_measured_to_the_same_numbers(tmp_path: Path) -> None:
    first = measured(planned(tmp_path))
    names = [name for name in first if name != "notes"]
    later = measured(planned(tmp_path), names[::2].__contains__)
    assert later == {name: first[name] for name in [*names[1::2], "notes"]}


@pytest.mark.parametrize("kind", ["residual", "mlp", "dense"])
def test_slopes_say_what_running_with_one_layer_rounded_says(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Costs by slopes and by running the network, at 4 bits without bias correction, agree where noise averages out."""
    given: dict[str, Any] = {"network": {"bias": "none"}, "layer": {"method": "rtn"}, "samples": 256}
    slopes = measured(planned(tmp_path, kind, **given))
    plan = planned(tmp_path, kind, **given)
    monkeypatch.setattr(type(plan.model), "_lacking", lambda *given: "nothing fits")
    monkeypatch.setattr("bitwright.models.network.costs.LOOK", 256)
    alone = measured(plan)
    assert slopes.pop("notes") == []
    assert alone.pop("notes") == [f"{len(slopes)} layers measured alone, first {next(iter(slopes))}: nothing fits"]
    ratio = [slopes[name]["int4_narrow"] / alone[name]["int4_narrow"] for name in slopes]
    assert np.median(ratio) == pytest.approx(1, abs=0.25)
    assert all(0.4 < each < 2.5 for each in ratio)


def test_a_layer_without_a_gradient_is_measured_alone(tmp_path: Path) -> None:
    found = measured(planned(tmp_path, "recurrent"))
    assert any("measured alone" in note and "no derivative of LSTM" in note for note in found["notes"])
    matrices = [loss for name, loss in found.items() if name.endswith((".W", ".R"))]
    assert len(matrices) == 2 and all(loss["int4_narrow"] > loss["int8_narrow"] > 0 for loss in matrices)


def test_layers_of_one_weight_have_one_format(tmp_path: Path) -> None:
    found = jobs.finish(planned(tmp_path, test_shared.head, 0.3, network={"entrance": "int8"}))
    plan = planned(tmp_path, test_shared.head, None, "plain.onnx", network={"entrance": "int8"})
    weights: dict[str, list[str]] = {}
    for name, item in plan.items.items():
        weights.setdefault(item.part.weight, []).append(name)
    formats, costs = formats_of(found), found["budget"]["costs"]
    shared = [names for names in weights.values() if len(names) > 1]
    assert len(shared) == 1 and len({formats[name] for name in shared[0]}) == 1
    assert costs[shared[0][0]]["int4_narrow"] > 0 == costs[shared[0][1]]["int4_narrow"]


def test_a_rule_decides_before_the_budget_does(tmp_path: Path) -> None:
    names = list(planned(tmp_path).items)
    rules = [{"match": names[0], "format": "int8"}, {"match": names[1], "format": "float"}]
    found = jobs.finish(planned(tmp_path, share=0.1, rules=rules))
    assert formats_of(found)[names[0]] == "int8_narrow" and names[1] in found["kept_float"]
    assert "int4_narrow" in formats_of(found).values()


def test_a_rule_for_one_use_of_a_weight_is_one_for_all(tmp_path: Path) -> None:
    given: dict[str, Any] = {"network": {"entrance": "int8"}}
    plan = planned(tmp_path, test_shared.head, 0.1, rules=[{"match": "conv4", "format": "int8"}], **given)
    formats = formats_of(jobs.finish(plan))
    assert formats["conv4"] == formats["conv5"] == "int8_narrow"
    rules = [{"match": "conv4", "format": "int8"}, {"match": "conv5", "format": "int4"}]
    with pytest.raises(RecipeError, match="rules leave no format that conv4 and what goes with it can share"):
        planned(tmp_path, test_shared.head, 0.5, "none.onnx", rules=rules, **given)


def test_outputs_that_are_no_scores_are_judged_by_their_noise(tmp_path: Path) -> None:
    certificate = {**jobs.finish(planned(tmp_path, "detector")), "folder": "out"}
    spent, levels = certificate["budget"], certificate["verdict"]["sqnr_db"]
    assert spent["outputs"] == list(levels) and len(levels) == 2
    noise = np.mean([10 ** (-level / 10) for level in levels.values()])
    assert spent["predicted"]["noise"] == pytest.approx(noise, rel=0.9)
    line = next(line for line in report.verdict_lines(certificate) if line.startswith("Budget"))
    assert f"SQNR predicted {-10 * np.log10(spent['predicted']['noise']):.1f} dB" in line
    assert f"measured {-10 * np.log10(noise):.1f} dB" in line
    assert "as a share of the outputs' power" in report.to_html([certificate]).replace("&#39;", "'")


def test_weights_only_mix_4_and_8_bits(tmp_path: Path) -> None:
    network = {"activations": "none"}
    found = jobs.finish(planned(tmp_path, "transformer", network=network, layer={"group": 16}))
    assert {name.split("_")[0] for name in formats_of(found).values()} == {"int4", "int8"}
    assert found["budget"]["fixed"] == 0 and found["container"] == "nbits"
    bits = {a.i for node in read(tmp_path / "out.onnx").graph.node for a in node.attribute if a.name == "bits"}
    assert bits == {4, 8}
    Session(tmp_path / "out.onnx").run(networks.feeds(onnx.load(tmp_path / "transformer.onnx")))


def test_other_formats_may_be_named(tmp_path: Path) -> None:
    plan = planned(tmp_path, share=0.5, formats=["int3", "int4", "int6", "int8"])
    stored = {form.format.name: plan.stored(form) for form in next(iter(plan.model.choices(plan).values()))}
    assert stored["int3_narrow"] == stored["int4_narrow"] < stored["int6_narrow"] == stored["int8_narrow"]
    assert set(formats_of(jobs.finish(plan)).values()) == {"int4_narrow", "int8_narrow"}, "3 and 6 bits save nothing"


def test_the_lattice_that_weights_lie_on_costs_nothing(tmp_path: Path) -> None:
    source, data = jobs.network("mlp", tmp_path, labels=True)
    codes = test_recovery.on_lattice(source)
    plan = jobs.made(source, tmp_path / "out.onnx", data={"source": str(data)}, budget={"bpw": 99})
    found = jobs.finish(plan)
    assert {row["method"] for row in found["rows"]} == {"lattice recovery"} and len(codes) == len(found["rows"])
    assert {loss["int8_narrow"] for loss in found["budget"]["costs"].values()} == {0.0}
    assert all(loss["int4_narrow"] > 0 for loss in found["budget"]["costs"].values())


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"budget": {"size": 1000}}, r"--size: the budget is .*, and the smallest output takes .*\. Give at least"),
        ({"budget": {"bpw": 0.5}}, r"--bpw: the budget is .*0\.50 bits per parameter"),
        ({"budget": {"bpw": 6, "formats": ["nf4"]}}, r"budget\.formats: nf4 does not run in an integer layer"),
        ({"budget": {"bpw": 6, "formats": ["int4", "nf4"]}}, r"budget\.formats: nf4 does not run in an integer layer"),
        ({"budget": {"bpw": 6, "formats": ["int44"]}}, r"no format is called 'int44'\. Did you mean int4"),
        ({"budget": {"bpw": 6}, "layer": {"method": "lsq"}}, "method lsq: .*one bit width, and a budget"),
        ({"budget": {"bpw": 6}, "network": {"storage": "int8"}}, r"network\.storage: every code takes a byte"),
        ({"budget": {"bpw": 6}, "network": {"target": "gpu"}}, r"network\.target: integer layers of TensorRT hold 8"),
        ({"budget": {"bpw": 6, "size": 9}}, "2 limits.*Give exactly one"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_is_said_before_anything_runs(recipe: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=words):
        planned(tmp_path, share=None, **recipe)


def test_a_kl_is_bounded_for_class_scores_only(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"--max-kl: bounds the KL of class scores.*Give --size or --bpw"):
        planned(tmp_path, "detector", None, budget={"kl": 0.1})


def test_a_budget_needs_samples(tmp_path: Path) -> None:
    source, _ = jobs.network("transformer", tmp_path)
    given = {"network": {"activations": "none"}, "layer": {"group": 16, "method": "rtn"}, "budget": {"bpw": 99}}
    with pytest.raises(RecipeError, match=r"cost on samples, and there are none.*Give --calib"):
        jobs.made(source, tmp_path / "out.onnx", **given)


@pytest.mark.parametrize(
    ("options", "where"),
    [({"size": "1MB", "bits": 4}, "--bits"), ({"bpw": 5.0, "max_drop": 1.0}, "--max-drop")],
    ids=str,
)
def test_options_that_contradict_a_budget(options: dict[str, Any], where: str) -> None:
    with pytest.raises(RecipeError, match=f"{where}: contradicts the budget"):
        make_recipe(KIND, None, options)


def test_the_command_line(tmp_path: Path) -> None:
    source, data = jobs.network("residual", tmp_path, labels=True)
    words = [str(source), "--calib", str(data)]
    shown = CliRunner().invoke(app, ["plan", *words, "--bpw", "18"])
    assert shown.exit_code == 0, shown.output
    assert "6 layers in formats chosen by what they cost on data: int4_narrow, int8_narrow" in shown.output
    assert "bits per parameter) are possible" in shown.output
    out = tmp_path / "out.onnx"
    small = CliRunner().invoke(app, ["quantize", *words, "--size", "1kB", "-o", str(out)])
    assert small.exit_code == 2 and small.stderr.count("\n") == 1 and "the smallest output takes" in small.stderr
    assert not list(tmp_path.glob("out*"))
    done = CliRunner().invoke(app, ["quantize", *words, "--bpw", "18", "-o", str(out), "--json"])
    assert done.exit_code == 0, done.output
    certificate = json.loads(done.stdout.splitlines()[-1])["certificate"]
    assert certificate["bits_per_parameter"] <= 18 and certificate["recipe"]["network"]["storage"] == "int4"
