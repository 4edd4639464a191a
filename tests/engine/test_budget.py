"""Budgets: the formats that fit and lose the least, what is predicted of them, and what cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader
from typer.testing import CliRunner

from bitwright.cli import app
from bitwright.engine import report
from bitwright.engine.options import make_recipe
from bitwright.engine.run import run
from bitwright.errors import RecipeError, ResourceError
from bitwright.events import Event, Progress
from bitwright.models.language import KIND
from bitwright.models.model import Plan
from tests import jobs, tiny

pytestmark = pytest.mark.slow

DEMO = Path(__file__).parents[2] / "src/bitwright/content/demo-model"


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return jobs.text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of 256: every type of GGUF divides them."""
    size = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2}
    return tiny.make("llama", tmp_path_factory.mktemp("models") / "llama", **size)


FEW = ["q3_k", "q5_k", "q8_0"]


def planned(source: Path, out: Path, text: Path, effort: str = "fast", **recipe: Any) -> Plan:
    return jobs.made(source, out, effort=effort, calibration=jobs.words(text), **recipe)


def test_a_size_is_kept_to_and_used(llama: Path, text: Path, tmp_path: Path) -> None:
    ends = planned(llama, tmp_path / "a.gguf", text, budget={"bpw": 8}).ends
    least, most = (end.sink.final_bytes for end in ends)
    size = (least + most) // 2
    found = jobs.finish(planned(llama, tmp_path / "out.gguf", text, "default", budget={"size": size}))
    written = (tmp_path / "out.gguf").stat().st_size
    assert 0.97 * size < written <= size
    assert found["output"]["bytes"] == written == found["budget"]["bytes"]
    assert len({row["format"] for row in found["rows"]}) > 1
    assert {tensor.name for tensor in GGUFReader(tmp_path / "out.gguf").tensors} >= {"token_embd.weight"}
    spent = found["budget"]
    assert spent["predicted"]["kl"] >= spent["bound"] > 0
    chosen = {row["name"]: row["format"].split(" ")[0] for row in found["rows"]}
    assert spent["predicted"]["kl"] == pytest.approx(sum(spent["costs"][n][f] for n, f in chosen.items()))
    sizes, losses = zip(*spent["frontier"], strict=True)
    assert sizes[0] == least and list(sizes) == sorted(sizes) and list(losses) == sorted(losses, reverse=True)
    assert any("KL predicted" in line for line in report.verdict_lines({**found, "folder": "out"}))
    page = report.to_html([{**found, "folder": "out"}])
    assert "What the budget bought" in page and "KL predicted" in page


def test_more_bits_cost_less_and_are_predicted_to(llama: Path, text: Path, tmp_path: Path) -> None:
    found = [
        jobs.finish(planned(llama, tmp_path / f"{bpw}.gguf", text, budget={"bpw": bpw, "formats": FEW}))
        for bpw in (4.0, 6.5)
    ]
    assert [c["bits_per_parameter"] <= bpw for c, bpw in zip(found, (4.0, 6.5), strict=True)] == [True] * 2
    predicted, measured = ([c[a][b] for c in found] for a, b in (("verdict", "kl"), ("verdict", "kl")))
    assert predicted == sorted(predicted, reverse=True)
    assert measured == sorted(measured, reverse=True)
    assert found[0]["budget"]["costs"] == found[1]["budget"]["costs"]  # they do not depend on the budget


def test_a_loss_is_kept_to_by_the_smallest_output(llama: Path, text: Path, tmp_path: Path) -> None:
    wide = jobs.finish(planned(llama, tmp_path / "wide.gguf", text, budget={"bpw": 4.5, "formats": FEW}))
    limit = wide["budget"]["predicted"]["high"]
    found = jobs.finish(planned(llama, tmp_path / "out.gguf", text, budget={"kl": limit, "formats": FEW}))
    assert found["budget"]["predicted"]["high"] <= limit
    assert found["output"]["bytes"] <= wide["output"]["bytes"]
    with pytest.raises(RecipeError, match=r"the finest formats may lose .* Give at least"):
        list(run(planned(llama, tmp_path / "none.gguf", text, budget={"kl": 1e-12, "formats": FEW})))
    assert sorted(path.name for path in tmp_path.glob("none*")) == []


def test_stopped_while_it_measures_it_goes_on_to_the_same_bytes(llama: Path, text: Path, tmp_path: Path) -> None:
    def job(name: str) -> Plan:
        return planned(llama, tmp_path / name, text, "default", budget={"bpw": 4.5, "formats": FEW})

    def costs(name: str) -> int:
        journal = tmp_path / f"{name}.partial" / "journal.jsonl"
        return journal.read_text().count('"cost:') if journal.exists() else 0

    list(run(whole := job("whole.gguf")))
    solving: Callable[[Event], bool] = lambda event: isinstance(event, Progress) and event.phase == "quantize"  # noqa: E731
    for name, when in (("early.gguf", lambda event: costs("early.gguf") >= 5), ("late.gguf", solving)):
        jobs.stop_after(job(name), when)
        found = costs(name)
        assert 5 <= found < 16 if name == "early.gguf" else found == 16
        list(run(job(name)))
        assert (tmp_path / name).read_bytes() == whole.out.read_bytes()


def test_a_rule_decides_before_the_budget_does(llama: Path, text: Path, tmp_path: Path) -> None:
    rules = [{"match": "*.down_proj", "format": "q8_0"}, {"match": "*.o_proj", "format": "float"}]
    plan = planned(llama, tmp_path / "out.gguf", text, budget={"bpw": 6.0}, rules=rules)
    forms = plan.model.choices(plan)
    assert {len(items) for name, items in forms.items() if "down_proj" in name} == {1}
    assert {len(items) for name, items in forms.items() if "down_proj" not in name} == {8}
    found = jobs.finish(plan)
    assert {r["format"].split(" ")[0] for r in found["rows"] if "down_proj" in r["name"]} == {"q8_0"}
    assert len([name for name in found["kept_float"] if "o_proj" in name]) == 2


def test_what_runtimes_fuse_has_one_format(llama: Path, text: Path, tmp_path: Path) -> None:
    found = jobs.finish(planned(llama, tmp_path / "out", text, budget={"bpw": 11.5}, layer={"group": 32}))
    formats = {row["name"]: row["format"] for row in found["rows"]}
    assert set(formats.values()) == {"int4 g32", "int8 g32"}
    for block in range(2):
        for names in (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("mlp.gate_proj", "mlp.up_proj")):
            assert len({formats[f"model.layers.{block}.{name}.weight"] for name in names}) == 1
    assert any(line.startswith("vLLM") for line in found["runtimes"])


def test_a_rule_for_one_of_what_is_fused_is_one_for_all(llama: Path, text: Path, tmp_path: Path) -> None:
    rules = [{"match": "*.0.self_attn.q_proj", "format": "int8"}]
    given = {"budget": {"bpw": 11.5}, "layer": {"group": 32}}
    found = jobs.finish(planned(llama, tmp_path / "out", text, rules=rules, **given))
    formats = {row["name"]: row["format"] for row in found["rows"]}
    assert {formats[f"model.layers.0.self_attn.{name}_proj.weight"] for name in "qkv"} == {"int8 g32"}
    rules.append({"match": "*.0.self_attn.v_proj", "format": "int4"})
    with pytest.raises(RecipeError, match=r"rules leave no format that .*q_proj.* can share.*v_proj"):
        list(run(planned(llama, tmp_path / "none", text, rules=rules, **given)))


def test_a_study_copy_may_have_any_integers(llama: Path, text: Path, tmp_path: Path) -> None:
    plan = planned(
        llama, tmp_path / "out", text, output="float", budget={"kl": 0.5, "formats": ["int3", "nf4", "int6"]}
    )
    assert {item.format.name for forms in plan.model.choices(plan).values() for item in forms} == {
        "int3",
        "nf4",
        "int6",
    }


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"budget": {"size": 1000}}, RecipeError, r"--size: the budget is .*, and the smallest output takes .*"),
        ({"budget": {"bpw": 1.0}}, RecipeError, r"--bpw: the budget is .*1\.00 bits per parameter"),
        ({"budget": {"bpw": 4.0, "formats": ["q9_k"]}}, RecipeError, "no format is called 'q9_k'"),
        ({"budget": {"bpw": 4.0}, "layer": {"method": "rtn"}}, RecipeError, "nothing looks at any"),
        ({"budget": {"bpw": 4.0}, "output": "trellis"}, RecipeError, "trellis has no formats to choose from"),
        ({"budget": {"bpw": 4.0, "size": 9}}, RecipeError, r"2 limits.*Give exactly one"),
        ({"budget": {}}, RecipeError, r"0 limits.*Give exactly one"),
    ],
    ids=str,
)
def test_what_cannot_be_is_said_before_anything_runs(
    given: dict[str, Any], error: type[Exception], words: str, llama: Path, text: Path, tmp_path: Path
) -> None:
    out = tmp_path / ("out" if "output" in given else "out.gguf")
    with pytest.raises(error, match=words):
        planned(llama, out, text, **given)


def test_too_little_memory_to_measure_is_said(llama: Path, text: Path, tmp_path: Path, monkeypatch: Any) -> None:
    from bitwright.models.language import memory

    monkeypatch.setattr(memory, "curvature_mode", lambda *given: "the limit is 1 byte")
    with pytest.raises(ResourceError, match=r"a budget needs to know how much outputs count: .*the limit is 1 byte"):
        planned(llama, tmp_path / "out.gguf", text, budget={"bpw": 4.0})


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"size": "5MB", "bits": 4}, "--bits"),
        ({"bpw": 4.0, "format": "q4_k"}, "--format"),
        ({"bpw": 4.0, "type": "q4_k_m"}, "--type"),
        ({"max_kl": 0.1, "max_drop": 1.0}, "--max-drop"),
    ],
    ids=str,
)
def test_options_that_contradict_a_budget(options: dict[str, Any], where: str) -> None:
    with pytest.raises(RecipeError, match=f"{where}: contradicts the budget"):
        make_recipe(KIND, None, options)


def test_a_size_in_words() -> None:
    assert make_recipe(KIND, None, {"size": "180MB"}).budget.size == 180_000_000  # type: ignore[union-attr]
    with pytest.raises(RecipeError, match="--size: 'small' is not a size"):
        make_recipe(KIND, None, {"size": "small"})


def test_the_command_line_says_what_is_possible(tmp_path: Path) -> None:
    words = [
        "plan",
        str(DEMO),
        "--to",
        "gguf",
        "--size",
        "2MB",
        "--calib",
        "stdlib",
        "--windows",
        "4",
        "--length",
        "32",
    ]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "in formats chosen by what they cost on text: q2_k, q3_k" in result.output
    assert "bits per parameter) are possible" in result.output
    assert "-> 2.0 MB" in result.output


def test_the_lattice_that_weights_lie_on_costs_nothing(llama: Path, text: Path, tmp_path: Path) -> None:
    decoded = tmp_path / "decoded"
    jobs.finish(planned(llama, decoded, text, output="float", layer={"format": "q4_0", "method": "rtn"}))
    found = jobs.finish(planned(decoded, tmp_path / "out.gguf", text, budget={"bpw": 8.0, "formats": ["q4_0", "q8_0"]}))
    inside = [row for row in found["rows"] if ".layers." in row["name"]]
    assert {(row["format"], row["method"]) for row in inside} == {("q4_0 g32", "lattice recovery")}
    assert {found["budget"]["costs"][row["name"]]["q4_0"] for row in inside} == {0.0}
