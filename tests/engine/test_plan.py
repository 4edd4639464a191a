"""The plan: everything is decided, or refused with its reason and the key at fault, before anything is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bitwright.engine import plan as planning
from bitwright.errors import BitwrightError, RecipeError, ResourceError, TensorError
from bitwright.models import kind_of
from bitwright.models.network.graph import Graph
from bitwright.recipe import Recipe
from tests import jobs, tiny

RTN = {"method": "rtn", "group": 32}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make("llama", tmp_path_factory.mktemp("plan") / "llama")


@pytest.fixture(scope="module")
def residual(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return jobs.network("residual", tmp_path_factory.mktemp("plan"))


def refused(error: type[BitwrightError], key: str | None, words: str, source: Path, **recipe: Any) -> str:
    """What is said of a recipe that cannot be planned."""
    name = "out.onnx" if source.suffix == ".onnx" else "out"
    with pytest.raises(error, match=words) as caught:
        jobs.made(source, source.parent / name, **recipe)
    assert caught.value.key == key
    assert caught.value.fix
    return str(caught.value)


@pytest.mark.parametrize(
    ("recipe", "ending"),
    [({"type": "q4_k_m"}, ".gguf"), ({"output": "gguf"}, ".gguf"), ({"output": "float"}, ""), ({}, "")],
)
def test_the_place_that_is_shown_is_one_that_could_be_given(recipe: dict[str, Any], ending: str, llama: Path) -> None:
    kind, made = kind_of(llama), Recipe.read(recipe, "test")
    out = planning.beside(kind, llama, made)
    assert out == Path(f"llama-small{ending}")
    kind.require_name(out, ending)


def test_tables_of_another_kind_are_refused(llama: Path, residual: tuple[Path, Path]) -> None:
    for key, table in (("data", {"samples": 7}), ("network", {"target": "arm"})):
        assert "ONNX networks" in refused(RecipeError, key, f"{key}: is for", llama, **{key: table})
    tables: dict[str, Any] = {
        "calibration": {"windows": 7}, "indivisible": "float", "untie": True, "max_float_percent": 5.0,
        "max_shard_bytes": 2_000_000,
    }  # fmt: skip
    for key, table in tables.items():
        assert "language models" in refused(RecipeError, key, f"{key}: is for", residual[0], **{key: table})


def test_a_recipe_written_out_in_full_is_taken_by_every_kind(llama: Path, residual: tuple[Path, Path]) -> None:
    for source, recipe in ((llama, {"layer": RTN}), (residual[0], {"data": {"source": str(residual[1])}})):
        out = source.parent / ("full.onnx" if source.suffix else "full")
        plan = jobs.made(source, out, **recipe)
        again = planning.make(source, out, Recipe.loads(plan.recipe.dumps()))
        assert again.recipe == plan.recipe and again.recipe.hash == plan.recipe.hash
        assert {n: (i.words, i.method.name) for n, i in again.items.items()} == {
            n: (i.words, i.method.name) for n, i in plan.items.items()
        }


def test_a_container_must_hold_the_kind(llama: Path, residual: tuple[Path, Path]) -> None:
    said = refused(RecipeError, "output", "qdq does not hold language models", llama, output="qdq")
    assert "compressed-tensors" in said and "float" in said and "nbits" not in said
    said = refused(RecipeError, "output", "does not hold ONNX networks", residual[0], output="compressed-tensors")
    assert "qdq" in said and "nbits" in said
    assert "Did you mean float?" in refused(RecipeError, "output", "no container is called", llama, output="flaot")


def test_patterns_that_mean_nothing(llama: Path, residual: tuple[Path, Path]) -> None:
    rules = [{"match": "*.down_proj", "format": "int8"}, {"match": "*.dwon_proj", "format": "int8"}]
    said = refused(
        RecipeError, "rules.1.match", "pattern '.*dwon_proj' matches no matrix", llama, layer=RTN, rules=rules
    )
    assert "down_proj" in said
    rules = [{"match": "Conv_*", "format": "float"}]
    refused(RecipeError, "rules.0.match", "matches no layer", residual[0], rules=rules)


def test_a_method_must_serve_the_kind(residual: tuple[Path, Path]) -> None:
    wrong = "method blockwise cannot be used on ONNX networks"
    said = refused(RecipeError, "layer.method", wrong, residual[0], layer={"method": "blockwise"})
    assert "adaround" in said and "blockwise" not in said.partition("Choose")[2]


def test_a_method_must_fit_the_format(llama: Path, residual: tuple[Path, Path]) -> None:
    layer = {"format": "codebook4", "method": "gptq"}
    said = refused(RecipeError, "layer.method", "cannot fit the codebook", llama, layer=layer, output="float")
    assert "Choose --method lloyd" in said
    said = refused(RecipeError, "layer.method", "no codebook|fit", residual[0], layer={"method": "lloyd"})
    assert "descent" in said


def test_indivisible_matrices(llama: Path) -> None:
    layer = {"method": "rtn", "group": 96}
    said = refused(TensorError, "layer.group", "128 inputs do not divide into groups of 96", llama, layer=layer)
    assert "Give group 64, the best that fits all 14 matrices" in said
    plan = jobs.made(llama, llama.parent / "out", layer=layer, indivisible="channel")
    assert {item.words for item in plan.items.values()} == {"int4 channel"}
    assert all("one scale per row" in str(item.note) for item in plan.items.values())
    assert plan.notes == [
        "2 matrices, one scale per row: 128 inputs do not divide by 96 (first model.layers.0.mlp.down_proj.weight)",
        "12 matrices, one scale per row: 64 inputs do not divide by 96 (first model.layers.0.mlp.gate_proj.weight)",
    ]
    layer = {"method": "rtn", "group": 128}  # 64 inputs for most, 128 for down_proj
    said = refused(RecipeError, "max_float_percent", "would stay float", llama, layer=layer, indivisible="float")
    assert "limit 10 %" in said
    plan = jobs.made(llama, llama.parent / "out", layer=layer, indivisible="float", max_float_percent=100)
    assert {name.split(".")[-2] for name in plan.items} == {"down_proj"}
    assert set(plan.floats.values()) == {"left float: 64 inputs do not divide by 128"}


def test_the_default_group_is_the_largest_that_fits(llama: Path, tmp_path: Path) -> None:
    plan = jobs.made(llama, llama.parent / "out", layer={"method": "rtn"})
    held = {name.split(".")[-2]: item.words for name, item in plan.items.items()}
    assert held.pop("down_proj") == "int4 g128" and set(held.values()) == {"int4 g64"}
    said = "12 matrices, groups of 64: 64 inputs do not divide by 128 (first model.layers.0.mlp.gate_proj.weight)"
    assert plan.notes == [said] and f"  note: {said}" in planning.lines(plan)
    # 96 divide by 32; of 80, vLLM's kernels take whole rows only, and decoded floats any group.
    odd = tiny.make("llama", tmp_path / "odd", intermediate_size=96)
    plan = jobs.made(odd, tmp_path / "out", layer={"method": "rtn"})
    assert {i.words for i in plan.items.values()} == {"int4 g64", "int4 g32"}
    odd = tiny.make("llama", tmp_path / "odder", intermediate_size=80)
    for output, words in ((None, "int4 channel"), ("float", "int4 g16")):
        plan = jobs.made(odd, tmp_path / "out", layer={"method": "rtn"}, output=output)
        assert {i.words for i in plan.items.values()} == {"int4 g64", words}
    plan = jobs.made(odd, tmp_path / "out", layer={"method": "rtn"}, indivisible="float", max_float_percent=100)
    assert {name.split(".")[-2] for name in plan.floats} == {"down_proj"}
    said = refused(TensorError, "layer.group", "80 inputs do not divide", odd, layer={"method": "rtn", "group": 32})
    assert "Give group channel, the best that fits all 14" in said


def test_runtimes_by_their_own_rules(llama: Path, tmp_path: Path) -> None:
    plan = jobs.made(llama, llama.parent / "out", layer=RTN)
    assert plan.model.runtimes(plan)[1] == "vLLM 0.33 on NVIDIA GPUs, AMD GPUs, Intel GPUs and CPUs"
    rules = [{"match": "*.1.*.k_proj", "format": "int8"}]
    plan = jobs.made(llama, llama.parent / "out", layer=RTN, rules=rules)
    line = next(line for line in planning.lines(plan) if "loads in: " in line)
    assert "not vLLM 0.33: it fuses q_proj, k_proj and v_proj, and model.layers.1.self_attn.qkv_proj has" in line
    assert planning.summary(plan)["runtimes"] == plan.model.runtimes(plan)
    # A router is a layer like any other to vLLM's Qwen3-MoE: it stands in ignore, which its config names by name.
    moe = tiny.make("qwen3_moe", tmp_path / "moe")
    plan = jobs.made(moe, tmp_path / "out", layer=RTN)
    assert plan.model.runtimes(plan)[1] == "vLLM 0.33 on NVIDIA GPUs"
    gates = [module.name for module in plan.model.modules(plan) if module.role == "router"]
    assert gates == ["model.layers.0.mlp.gate", "model.layers.1.mlp.gate"]
    certificate = jobs.finish(plan)
    assert certificate["runtimes"] == plan.model.runtimes(plan)
    said = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert set(gates) < set(said["ignore"])
    plan = jobs.made(tiny.make("mixtral", tmp_path / "mixtral"), tmp_path / "out2", layer=RTN)
    gate = next(module.name for module in plan.model.modules(plan) if module.role == "router")
    assert gate == "model.layers.0.block_sparse_moe.gate"


def test_what_stays_float_has_its_reason(llama: Path, residual: tuple[Path, Path]) -> None:
    rules = [{"match": "*.layers.0.*", "format": "float"}, {"match": "*.layers.0.mlp.*", "format": "int8"}]
    plan = jobs.made(llama, llama.parent / "out", layer=RTN, rules=rules)
    assert set(plan.floats) == {f"model.layers.0.self_attn.{n}_proj.weight" for n in "qkvo"}
    assert set(plan.floats.values()) == {planning.ASKED}
    source, data = residual
    layers = Graph.open(source).layers
    # By the node's name or by the weight's: both mean the layer, which is called by its node.
    rules = [{"match": layers[1].name, "format": "float"}, {"match": layers[2].weight, "format": "float"}]
    plan = jobs.made(source, source.parent / "out.onnx", rules=rules, data={"source": str(data)})
    assert plan.floats == dict.fromkeys((layers[1].name, layers[2].name), planning.ASKED)
    assert set(plan.items) == {layer.name for layer in layers} - set(plan.floats)
    everything = [{"match": "*", "format": "float"}]
    refused(RecipeError, "layer.format", "nothing would be quantized", source, rules=everything)
    refused(RecipeError, "layer.format", "nothing would be quantized", llama, layer={"format": "float"})


def test_both_kinds_say_the_same_of_themselves(llama: Path, residual: tuple[Path, Path]) -> None:
    source, data = residual
    plans = [
        jobs.made(llama, llama.parent / "out", layer=RTN),
        jobs.made(source, source.parent / "out.onnx", data={"source": str(data)}),
    ]
    for plan in plans:
        found = planning.summary(plan)
        assert {"kind", "container", "quantized", "kept_float", "final_bytes", "peak_memory_bytes", "seconds",
                "runtimes", "notes", "stored_bits_per_weight", "source_bytes"} <= set(found)  # fmt: skip
        assert found["peak_memory_bytes"] > 100e6 and found["seconds"] > 0
        assert 0 < found["final_bytes"] < found["source_bytes"]
        assert [part["name"] for part in found["quantized"]] == list(plan.items)
        assert all(part["rows"] * part["columns"] > 0 for part in found["quantized"])
        lines = planning.lines(plan)
        assert any("memory: about" in line for line in lines) and any("loads in: " in line for line in lines)
        assert f"{plan.stored_bits:.3f} per quantized weight" in "\n".join(lines)
        assert not plan.partial.exists() and not plan.out.exists()
    assert [planning.summary(plan)["kind"] for plan in plans] == ["language", "network"]
    # Codes of integer kernels take a byte each.
    four = jobs.made(source, source.parent / "out.onnx", layer={"format": "int4"}, data={"source": str(data)})
    assert four.stored_bits == plans[1].stored_bits > 8


def test_outputs_are_checked(llama: Path, residual: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is a folder"):
        jobs.made(llama, tmp_path / "out.onnx", layer=RTN)
    with pytest.raises(RecipeError, match="is a file"):
        jobs.made(residual[0], tmp_path / "out", data={"source": str(residual[1])})
    (tmp_path / "there").mkdir()
    with pytest.raises(RecipeError, match="the output exists"):
        jobs.made(llama, tmp_path / "there", layer=RTN)
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot be written"):
        jobs.made(llama, tmp_path / "file" / "out", layer=RTN)
    planning.make(llama, tmp_path / "there", Recipe.read({"layer": RTN}, "test"), check_out=False)
    with pytest.raises(ResourceError, match=r"--max-ram.*the memory limit is 1 MiB"):
        planning.make(llama, tmp_path / "out", Recipe.read({"layer": RTN}, "test"), max_ram=1 << 20)


def test_a_full_disk_is_known_before(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    monkeypatch.setattr(planning.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(ResourceError, match=r"the output needs .* MB, but only 0 MB are free"):
        jobs.made(llama, tmp_path / "out", layer=RTN)


def test_a_drop_needs_something_to_judge_it_by(llama: Path, tmp_path: Path) -> None:
    refused(RecipeError, "max_drop", "there is no text to measure a drop on", llama, layer=RTN, max_drop=1.0)
    source, data = jobs.network("residual", tmp_path)
    refused(RecipeError, "max_drop", "no labels to measure", source, data={"source": str(data)}, max_drop=1.0)
    source, data = jobs.network("transformer", tmp_path)
    recipe = {"layer": {"format": "int4", "group": 16}, "data": {"source": str(data)}, "max_drop": 1.0}
    refused(RecipeError, "max_drop", "only in integer networks", source, **recipe, network={"activations": "none"})


def test_learned_steps_are_for_a_whole_integer_network(residual: tuple[Path, Path]) -> None:
    source, data = residual
    recipe: dict[str, Any] = {"layer": {"format": "int4", "method": "lsq"}, "data": {"source": str(data)}}
    name = Graph.open(source).layers[2].name
    for more in (
        {"max_drop": 1.0},
        {"rules": [{"match": name, "format": "float"}]},
        {"network": {"activations": "none"}},
        {"rules": [{"match": name, "format": "int8"}]},
        {"rules": [{"match": name, "method": "mse"}]},
    ):
        refused(RecipeError, "layer.method", "learned step sizes train", source, **recipe, **more)
    assert len(jobs.made(source, source.parent / "out.onnx", **recipe).items) == len(Graph.open(source).layers)
