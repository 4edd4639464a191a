"""Quantized embeddings and heads: stored once where they are one tensor, and read by transformers as by us."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from bitwright.core.formats import named
from bitwright.engine import plan as planning
from bitwright.engine.check import check
from bitwright.engine.journal import Journal
from bitwright.engine.report import text as told
from bitwright.engine.write import Writer
from bitwright.errors import FileError, RecipeError
from bitwright.events import Finding
from bitwright.files.containers import registry
from bitwright.files.folder import open_checkpoint, write_config
from bitwright.files.held import Held, Module
from bitwright.models.language import memory
from bitwright.models.language.compare import decoder_of
from bitwright.models.language.model import sink_of
from tests import jobs, tiny

IDS = torch.randint(1, 1000, (2, 24), generator=torch.Generator().manual_seed(1))
RTN = {"method": "rtn", "group": 32}
pytestmark = [
    # Said by transformers whenever `dequantize` is asked of a folder that names its own quantization.
    pytest.mark.filterwarnings("ignore:You passed `quantization_config`:UserWarning"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: tiny.make(kind, folder / kind) for kind in ("qwen2", "llama", "gemma3", "gpt2", "qwen3_moe")}


def quantize(source: Path, out: Path, **recipe: Any) -> dict[str, Any]:
    return jobs.finish(jobs.made(source, out, **recipe))


def answer(folder: Path, **options: Any) -> torch.Tensor:
    """Logits of the folder in transformers, as a user loads it."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options).eval()
    with torch.no_grad():
        return model(input_ids=IDS).logits


def ours(folder: Path, *, exact: bool = True) -> torch.Tensor:
    """The same by our own decoder."""
    return tiny.answer(decoder_of(folder, exact=exact, rounded=False), IDS)


def files(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.safetensors"):
        found |= load_file(path)
    return found


@pytest.mark.parametrize("kind", ["qwen2", "gemma3", "gpt2"])
def test_a_tied_table_is_stored_once_and_read_by_head_and_embedding(
    kind: str, models: dict[str, Path], tmp_path: Path
) -> None:
    """transformers ties the codes; the scales, a hundredth of them, stand there for both."""
    out, source = tmp_path / "out", models[kind]
    blocks = {"format": "float"} if kind == "gpt2" else RTN  # no runtime reads packed Conv1D
    certificate = quantize(source, out, layer=blocks, embedding="int8")
    written = files(out)
    codes = [name for name, tensor in written.items() if tensor.dtype == torch.int8]
    [name] = codes
    scale = written[name.removesuffix(".weight") + ".weight_scale"]
    assert torch.equal(scale, written["lm_head.weight_scale"]) and "lm_head.weight" not in written
    # Nothing says so in config.json where tying is the network's own default.
    assert json.loads((out / "config.json").read_text()).get("tie_word_embeddings", True)
    torch.testing.assert_close(answer(out), ours(out), rtol=1e-5, atol=1e-5)
    assert certificate["loaded_by_transformers"]["max_kl"] < 1e-6
    assert all(finding.good for finding in check(out, source) if isinstance(finding, Finding))
    row = next(row for row in certificate["rows"] if row["name"] == name)
    assert row["format"].startswith("int8") and row["sqnr"] > 40


def test_a_table_of_four_bits_is_decoded_on_loading(models: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    certificate = quantize(models["qwen2"], out, layer=RTN, embedding="int4")
    assert certificate["loaded_by_transformers"]["dequantize"] is True
    dequantize = transformers.CompressedTensorsConfig(dequantize=True)
    theirs = answer(out, quantization_config=dequantize)
    torch.testing.assert_close(theirs, ours(out, exact=False), rtol=1e-4, atol=1e-4)
    assert not any("lm_head" in name for name in files(out))
    with pytest.raises(AttributeError):  # what the plan says of it is true
        answer(out)


def test_embedding_and_head_apart(models: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = jobs.made(models["llama"], out, layer=RTN, embedding="int8")
    assert {"lm_head.weight", "model.embed_tokens.weight"} <= set(plan.items)
    jobs.finish(plan)
    written = files(out)
    assert written["model.embed_tokens.weight"].dtype == torch.int8 and "lm_head.weight_packed" in written
    torch.testing.assert_close(answer(out), ours(out), rtol=1e-5, atol=1e-5)


def test_a_head_is_named_where_everything_has_one_format(models: dict[str, Path], tmp_path: Path) -> None:
    """vLLM finds no class for it."""
    out = tmp_path / "out"
    quantize(models["llama"], out, layer=RTN, rules=[{"match": "lm_head", "format": "int4"}])
    config = json.loads((out / "config.json").read_text())["quantization_config"]
    assert config["config_groups"]["group_0"]["targets"] == ["Linear", "lm_head"]
    torch.testing.assert_close(answer(out), ours(out), rtol=1e-5, atol=1e-5)


def test_a_rule_says_more(models: dict[str, Path], tmp_path: Path) -> None:
    rule = {"match": "model.embed_tokens", "format": "int8", "group": "channel"}
    plan = jobs.made(models["qwen2"], tmp_path / "out", layer=RTN, rules=[rule])
    item = plan.items["model.embed_tokens.weight"]
    assert item.words == "int8 channel" and item.method.name == "rtn"
    both = jobs.made(models["llama"], tmp_path / "out", layer=RTN, embedding="int8",
                     rules=[{"match": "lm_head", "format": "float"}])  # fmt: skip
    assert both.floats["lm_head.weight"] == planning.ASKED and "model.embed_tokens.weight" in both.items
    wide = jobs.made(models["qwen2"], tmp_path / "out", rules=[{"match": "*", "group": 32}], layer={"method": "rtn"})
    assert "model.embed_tokens.weight" not in wide.items, "a rule for the blocks is none for the embedding"


def test_eight_bits_are_rounded_and_four_are_solved(models: dict[str, Path], tmp_path: Path) -> None:
    text = jobs.words(jobs.text(tmp_path))
    methods = {}
    for name in ("int8", "int4"):
        tied = jobs.made(models["qwen2"], tmp_path / "out", layer={"group": 32}, embedding=name, calibration=text)
        apart = jobs.made(models["llama"], tmp_path / "out", layer={"group": 32}, embedding=name, calibration=text)
        table = "model.embed_tokens.weight"
        methods[name] = [
            plan.items[part].method.name for plan, part in ((tied, table), (apart, "lm_head.weight"), (apart, table))
        ]
    assert methods == {"int8": ["rtn"] * 3, "int4": ["descent", "descent", "mse"]}


def test_a_heads_input_is_seen(models: dict[str, Path], tmp_path: Path) -> None:
    """What a method makes of it is better than rounding by the very measure."""
    text, errors = jobs.words(jobs.text(tmp_path)), {}
    for kind, effort in (("qwen2", "default"), ("llama", "fast")):
        for method in ("mse", "descent"):
            certificate = quantize(models[kind], tmp_path / f"{kind}-{method}", layer={"method": method, "group": 32},
                                   embedding="int4", calibration=text, effort=effort)  # fmt: skip
            name = "model.embed_tokens.weight" if kind == "qwen2" else "lm_head.weight"
            row = next(row for row in certificate["rows"] if row["name"] == name)
            assert row["tokens"] == 4 * 32 and not row["notes"] and row["method"] == method
            errors[method] = row["output_error"]
        assert 0 < errors["descent"] < errors["mse"] < 0.1


def test_nothing_is_calibrated_for_what_is_only_looked_up(models: dict[str, Path], tmp_path: Path) -> None:
    text = jobs.words(jobs.text(tmp_path))
    rules = [{"match": "model.embed_tokens", "format": "int8", "method": "mse"}]
    plan = jobs.made(models["llama"], tmp_path / "out", layer=RTN, rules=rules, calibration=text)
    assert not memory.uses_text(plan) and memory.evaluates(plan)
    tied = jobs.made(models["qwen2"], tmp_path / "out", layer=RTN, rules=rules, calibration=text)
    assert memory.uses_text(tied), "the head multiplies by it"


def test_rounded_activations_leave_tokens_alone(models: dict[str, Path], tmp_path: Path) -> None:
    layer = {"format": "int8", "group": "channel", "activations": "int8", "method": "rtn"}
    rules = [{"match": "*embed_tokens", "format": "int8"}]
    plan = jobs.made(models["qwen2"], tmp_path / "out", layer=layer, rules=rules)
    item = plan.items["model.embed_tokens.weight"]
    assert item.activations == "none" and "tokens are looked up" in str(item.note)
    certificate = jobs.finish(plan)
    assert certificate["loaded_by_transformers"]["max_kl"] < 1e-5


def test_a_table_stored_under_both_names_is_stored_once(models: dict[str, Path], tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(models["qwen2"], source)
    tensors = files(source)
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()},
              source / "model.safetensors", {"format": "pt"})  # fmt: skip
    quantize(source, out, layer=RTN, embedding="int8")
    assert "lm_head.weight" not in files(out)
    torch.testing.assert_close(answer(out), ours(out), rtol=1e-5, atol=1e-5)
    untied = tmp_path / "untied"
    quantize(source, untied, layer=RTN, untie=True, rules=[{"match": "lm_head", "format": "int8"}])
    torch.testing.assert_close(answer(untied), ours(untied), rtol=1e-5, atol=1e-5)


def test_a_table_under_the_heads_name_alone(models: dict[str, Path], tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(models["qwen2"], source)
    tensors = files(source)
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    quantize(source, out, layer=RTN, embedding="int8")
    torch.testing.assert_close(answer(out), ours(out), rtol=1e-5, atol=1e-5)


def test_a_scale_that_belongs_to_no_codes_is_named(models: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    quantize(models["qwen2"], out, layer=RTN, embedding="int8")
    tensors = files(out)
    tensors["lm_head.weight_scale"] = 2 * tensors["lm_head.weight_scale"]
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    with pytest.raises(FileError, match=r"lm_head: a scale without codes"):
        open_checkpoint(out)


def test_resumed_bytes_are_those_of_an_uninterrupted_run(models: dict[str, Path], tmp_path: Path) -> None:
    recipe: dict[str, Any] = {
        "layer": {"group": 32},
        "embedding": "int4",
        "calibration": jobs.words(jobs.text(tmp_path)),
    }
    quantize(models["qwen2"], tmp_path / "whole", **recipe)
    plan = jobs.made(models["qwen2"], tmp_path / "out", **recipe)
    events = jobs.stop_after(plan, lambda event: getattr(event, "name", "") == "model.embed_tokens.weight")
    assert events and not plan.out.exists()
    jobs.finish(jobs.made(models["qwen2"], tmp_path / "out", **recipe))
    one, other = (folder / "model.safetensors" for folder in (tmp_path / "whole", tmp_path / "out"))
    assert one.read_bytes() == other.read_bytes()


def test_a_trial_measures_the_table_too(models: dict[str, Path], tmp_path: Path) -> None:
    """With a limit so high that nothing must stay float."""
    text = jobs.words(jobs.text(tmp_path))
    certificate = quantize(
        models["qwen2"], tmp_path / "out", layer=RTN, embedding="int8", calibration=text, max_drop=1e9
    )
    assert not certificate["kept_float"] and (tmp_path / "out" / "model.safetensors").exists()
    torch.testing.assert_close(answer(tmp_path / "out"), ours(tmp_path / "out"), rtol=1e-5, atol=1e-5)


def test_a_table_is_ranked_by_what_reaches_the_first_block(models: dict[str, Path], tmp_path: Path) -> None:
    text = jobs.words(jobs.text(tmp_path))
    recipe: dict[str, Any] = {
        "layer": RTN | {"format": "int8"},
        "output": "float",
        "calibration": text,
        "max_drop": 1e9,
    }
    rules = [{"match": "*embed_tokens", "format": "int2"}]
    plan = jobs.made(models["qwen2"], tmp_path / "out", **recipe, rules=rules)
    plan.partial.mkdir()
    list(Writer(plan, Journal(plan.partial, "job")).run(None))
    write_config(models["qwen2"], sink_of(plan).folder, {})
    steps = plan.model.rank(plan, SimpleNamespace(calibration=IDS))
    while True:
        try:
            next(steps)
        except StopIteration as end:
            assert end.value[0] == "model.embed_tokens.weight"
            break


def test_the_plan_says_what_all_of_it_takes(models: dict[str, Path], tmp_path: Path) -> None:
    source, out = models["qwen2"], tmp_path / "out"
    plan = jobs.made(source, out, layer=RTN)
    size, count = sink_of(plan).final_bytes, sum(t.numel() for t in files(source).values())
    summary, lines = planning.summary(plan), "\n".join(planning.lines(plan))
    assert summary["parameters"] == count and summary["bits_per_parameter"] == 8 * size / count
    assert f"{8 * size / count:.2f} bits per parameter, 4.500 per quantized weight" in lines
    smaller = sink_of(jobs.made(source, out, layer=RTN, embedding="int8")).final_bytes
    share = 2 * 1024 * 64 / size
    assert (
        f"embedding and head are {share:.0%} of the output: --embedding int8 makes it {smaller / 1e6:.2f} MB" in lines
    )
    assert "--embedding" not in "\n".join(planning.lines(jobs.made(source, out, layer=RTN, embedding="int8")))
    moe = jobs.made(models["qwen3_moe"], out, layer=RTN)
    assert "--embedding" not in "\n".join(planning.lines(moe)), "it could not be stored beside fused experts"
    certificate = quantize(source, out, layer=RTN)
    assert certificate["bits_per_parameter"] == summary["bits_per_parameter"]
    assert f"{certificate['bits_per_parameter']:.2f} bits per parameter" in "\n".join(told.verdict_lines(certificate))
    assert "bits per parameter" in told.to_markdown([certificate])


def test_a_larger_output_is_warned_of(models: dict[str, Path], tmp_path: Path) -> None:
    rules = [{"match": "*layers*", "format": "float"}, {"match": "lm_head", "format": "int8", "group": 32}]
    recipe: dict[str, Any] = {"layer": RTN, "rules": rules, "untie": True, "max_float_percent": 100}
    plan = jobs.made(models["qwen2"], tmp_path / "out", **recipe)
    notes = "\n".join(plan.notes)
    assert "the output is larger than the input" in notes and "a head of" in notes and "one table for both" in notes
    certificate = jobs.finish(plan)
    assert "Larger than the float model: " in "\n".join(told.verdict_lines(certificate))


def test_loading_a_shared_table_takes_memory_twice(models: dict[str, Path], tmp_path: Path) -> None:
    arch = jobs.made(models["qwen2"], tmp_path / "out", layer=RTN).model.arch  # type: ignore[attr-defined]
    plans = [jobs.made(models["qwen2"], tmp_path / "out", layer=RTN, embedding=name) for name in ("float", "int8")]
    before, after = (memory.loading_memory(plan, arch) for plan in plans)
    assert after - before == 5 * 1024 * 64


def test_runtimes_that_cannot_are_named() -> None:
    container = registry.get("compressed-tensors")
    int4, int8 = (Held(named(name, group=128)) for name in ("int4", "int8"))
    block = Module("model.layers.0.mlp.down_proj", 256, 256, int4)
    table = Module("model.embed_tokens", 1024, 256, int8, "embedding")
    tied = [block, table, table._replace(name="lm_head")]
    assert container.runtimes([block])[1].startswith("vLLM")
    assert container.runtimes([block, table._replace(name="lm_head", role="head", held=int4)])[1].startswith("vLLM")
    transformers_, vllm = container.runtimes(tied)
    assert "dequantize" not in transformers_ and not container.unpacks(tied, network=False)
    assert vllm.startswith("not vLLM") and "none that a head shares: leave model.embed_tokens (and 1 more)" in vllm
    packed = [block, table._replace(held=int4)]
    transformers_, vllm = container.runtimes(packed)
    assert transformers_.endswith("dequantize=True)") and container.unpacks(packed, network=False)
    assert vllm.startswith("not vLLM") and "embeddings only packed, of few architectures" in vllm
    container.require_together(tied, network=False)
    with pytest.raises(RecipeError, match=r"it cannot hold this network packed\), and all of it in one way"):
        container.require_together(tied, network=True)


@pytest.mark.parametrize(
    ("recipe", "key", "words"),
    [
        ({"embedding": "int9"}, "embedding", "int9"),
        ({"embedding": "fp8"}, "embedding", "holds embeddings as integers without zero points, not as fp8"),
        ({"embedding": "nf4"}, "embedding", "no stable packing for nf4"),
        ({"rules": [{"match": "*embed_tokens", "symmetric": False}]}, "embedding", "not as int4 with them"),
        ({"embedding": "int4", "layer": RTN | {"format": "int8"}}, "embedding", "not int8 and int4"),
        ({"embedding": "int4", "layer": RTN | {"symmetric": False}}, "embedding", "int4 with zero points and int4"),
        (
            {"embedding": "int8", "untie": True, "rules": [{"match": "lm_head", "format": "int8"}]},
            "untie", "which is quantized for both",
        ),
        ({"embedding": "int8", "rules": [{"match": "lm_head", "format": "int4"}]}, "untie", "--embedding int8"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said(
    recipe: dict[str, Any], key: str, words: str, models: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError) as caught:
        jobs.made(models["qwen2"], tmp_path / "out", **{"layer": RTN, **recipe})
    assert words in str(caught.value) and caught.value.key == key
    assert not list(tmp_path.iterdir())


def test_fused_experts_leave_room_for_one_way_of_decoding(models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"it fuses experts\), and all of it in one way, not int4 and int8"):
        jobs.made(models["qwen3_moe"], tmp_path / "out", layer=RTN, embedding="int8")
    certificate = quantize(models["qwen3_moe"], tmp_path / "out", layer=RTN, embedding="int4")
    assert certificate["loaded_by_transformers"]["dequantize"] is True
    studied = quantize(models["qwen3_moe"], tmp_path / "study", layer=RTN, embedding="nf4", output="float")
    assert any(row["format"].startswith("nf4") and "embed" in row["name"] for row in studied["rows"])
