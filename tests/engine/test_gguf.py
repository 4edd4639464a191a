"""From a folder, or a GGUF file, to a GGUF file: every family, mixes, resuming, reading back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, quants

from bitwright import library
from bitwright.engine.check import check
from bitwright.engine.run import run
from bitwright.errors import BitwrightError, ModelError, RecipeError
from bitwright.events import Finding, Finished, Row
from bitwright.files.containers.gguf import mixes
from bitwright.files.folder import open_checkpoint
from bitwright.files.gguf import MARK
from bitwright.models.language.arch import Architecture
from tests import jobs
from tests.files.containers.gguf import models, write

DEMO = Path(__file__).parents[2] / "src/bitwright/content/demo-model"
FEW = {"windows": 4, "length": 32, "heldout_windows": 2}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return jobs.text(tmp_path_factory.mktemp("text"))


def small(source: Path, out: Path, text: Path, type: str = "q4_k_m", **recipe: object) -> object:
    """The plan of a mix at little cost."""
    given = {"type": type, "effort": "fast", "calibration": jobs.words(text), **recipe}
    return jobs.made(source, out, **given)


@pytest.mark.parametrize("name", sorted(models.CONFIGS))
def test_every_family(name: str, tmp_path: Path) -> None:
    """Codes of 8 bits for every matrix; transformers reads the file back where it knows the family."""
    source = models.make(name, tmp_path / name)
    plan = jobs.made(source, tmp_path / f"{name}.gguf", type="q8_0", layer={"method": "rtn"})
    certificate = jobs.finish(plan)
    assert certificate["output"]["bytes"] == plan.sink.final_bytes == plan.out.stat().st_size
    reader = GGUFReader(plan.out)
    types = {tensor.name: tensor.tensor_type for tensor in reader.tensors}
    wanted = mixes.types("q8_0", {t.name: t.shape for t in plan.model.forms.places.targets},
                         mixes.Build.of(plan.model.forms.places.config))  # fmt: skip
    assert types == wanted
    assert set(types.values()) == {GGMLQuantizationType.Q8_0, GGMLQuantizationType.F32}
    loaded = certificate["loaded_by_transformers"]
    # transformers has no such files of two families, and no rotary embedding of such short waves comes in any release.
    assert loaded["checked"] == (name not in ("gptneox", "mixtral", "llama3", "phi3long")), loaded
    findings = [event for event in check(plan.out) if isinstance(event, Finding)]
    assert all(finding.good is not False for finding in findings), findings


def test_a_mix_of_a_real_model(text: Path, tmp_path: Path) -> None:
    plan = small(DEMO, tmp_path / "demo.gguf", text)
    certificate = jobs.finish(plan)
    places = plan.model.forms.places
    wanted = places.types("q4_k_m")
    found = {tensor.name: tensor for tensor in GGUFReader(plan.out).tensors}
    assert {name: tensor.tensor_type for name, tensor in found.items()} == wanted
    assert {GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q6_K} < set(wanted.values())
    written = open_checkpoint(plan.out)
    for row in certificate["rows"]:
        (target, piece), *_ = places.pieces[row["name"]]
        tensor = found[target.name]
        floats = quants.dequantize(tensor.data, tensor.tensor_type)
        order = np.arange(len(floats)) if piece.order is None else np.argsort(piece.order)
        assert torch.equal(written.read(row["name"]), torch.from_numpy(floats[order])), row["name"]
    assert certificate["verdict"]["kl"] < 0.05
    assert certificate["loaded_by_transformers"]["max_kl"] < 1e-5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo.README.md", "demo.certificate.json", "demo.gguf"]
    rows = [event for event in check(plan.out, DEMO) if isinstance(event, Row)]
    assert {row.name: round(row.sqnr, 3) for row in rows} == {
        row["name"]: round(row["sqnr"], 3) for row in certificate["rows"]
    }


@pytest.fixture(scope="module")
def whole(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    plan = small(DEMO, tmp_path_factory.mktemp("whole") / "whole.gguf", text)
    jobs.finish(plan)
    return plan.out


@pytest.mark.parametrize("point", [5, 12, 20])
def test_stopped_and_continued(point: int, whole: Path, text: Path, tmp_path: Path) -> None:
    plan = small(DEMO, tmp_path / "again.gguf", text)
    jobs.stop_after(plan, point)
    assert not plan.out.exists()
    assert isinstance([*run(small(DEMO, tmp_path / "again.gguf", text))][-1], Finished)
    assert plan.out.read_bytes() == whole.read_bytes()
    assert not plan.partial.exists()


def test_a_float_file_gives_what_its_folder_gives(text: Path, tmp_path: Path) -> None:
    write.floats(DEMO, tmp_path / "float.gguf")
    a = small(DEMO, tmp_path / "a.gguf", text, type="q5_k_m")
    b = small(tmp_path / "float.gguf", tmp_path / "b.gguf", text, type="q5_k_m")
    jobs.finish(a)
    jobs.finish(b)
    one, other = (GGUFReader(plan.out) for plan in (a, b))
    assert {item.format for item in a.items.values()} == {item.format for item in b.items.values()}
    mine, theirs = ({tensor.name: tensor.data for tensor in reader.tensors} for reader in (one, other))
    assert mine.keys() == theirs.keys()
    for name, data in mine.items():
        assert np.array_equal(data, theirs[name]), name
    own = {"GGUF.kv_count"}
    assert {k: f.contents() for k, f in one.fields.items() if k not in own} == {
        k: f.contents() for k, f in other.fields.items() if k not in own
    }


def test_a_quantized_file_is_a_source_that_says_so(text: Path, tmp_path: Path) -> None:
    first = jobs.made(DEMO, tmp_path / "first.gguf", type="q8_0", layer={"method": "rtn"})
    jobs.finish(first)
    again = small(first.out, tmp_path / "second.gguf", text, type="q4_0")
    assert any("quantized before" in note for note in again.notes)
    assert jobs.finish(again)["verdict"]["kl"] < 0.2
    assert Architecture.open(first.out).config.num_hidden_layers == Architecture.open(DEMO).config.num_hidden_layers


def test_a_format_for_all_and_rules_for_some(tmp_path: Path) -> None:
    rules = [{"match": "*.1.*", "format": "q6_k"}, {"match": "*.2.mlp.*", "format": "float"}]
    plan = jobs.made(
        DEMO, tmp_path / "x.gguf", output="gguf", layer={"format": "q4_0", "method": "rtn"}, rules=rules,
        max_float_percent=50,
    )  # fmt: skip
    jobs.finish(plan)
    types = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(plan.out).tensors}
    assert types["blk.0.attn_q.weight"] == "Q4_0"
    assert types["blk.1.attn_q.weight"] == "Q6_K"
    stored = open_checkpoint(DEMO).entry("model.layers.2.mlp.up_proj.weight").dtype
    assert types["blk.2.ffn_up.weight"] == {torch.bfloat16: "BF16", torch.float16: "F16"}.get(stored, "F32")
    assert types["output_norm.weight"] == "F32"


def test_rows_that_do_not_divide_get_what_llama_cpp_gives_them(tmp_path: Path) -> None:
    source = models.make("llama", tmp_path / "llama")
    plan = jobs.made(source, tmp_path / "x.gguf", type="q4_k_m", layer={"method": "rtn"})
    assert {item.format.name for item in plan.items.values()} == {"q5_0", "q8_0"}
    assert any("64 inputs do not divide by 256: Q5_0, as in llama.cpp" in note for note in plan.notes)
    jobs.finish(plan)


def test_rows_that_no_block_divides_stay_float_and_say_so(tmp_path: Path) -> None:
    import transformers

    source = models.make("llama", tmp_path / "llama")
    config = transformers.LlamaConfig(**models.BASE | {"intermediate_size": 80})
    transformers.AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(source)
    plan = jobs.made(source, tmp_path / "x.gguf", type="q4_k_m", layer={"method": "rtn"}, max_float_percent=50)
    name = "model.layers.0.mlp.down_proj.weight"
    assert plan.floats == {name: "left float: 80 inputs do not divide by 32: F16, as in llama.cpp"}
    jobs.finish(plan)
    types = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(plan.out).tensors}
    assert types["blk.0.ffn_down.weight"] == "BF16" and types["blk.0.ffn_up.weight"] == "Q5_0"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"bits": 4}, "--bits: contradicts the mix"),
        ({"format": "q6_k"}, "--format: contradicts the mix"),
        ({"group": 64}, "--group: contradicts the mix"),
        ({"symmetric": False}, "--asymmetric: contradicts the mix"),
        ({"recipe": {"layer": {"format": "q6_k"}}}, "recipe: layer.format: contradicts the mix"),
    ],
)
def test_a_mix_leaves_no_other_choice_of_formats(options: dict[str, object], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        library.plan(DEMO, type="q4_k_m", **options)


def test_a_folder_of_files_is_no_model(tmp_path: Path) -> None:
    for name in "ba":
        write.floats(DEMO, tmp_path / f"{name}.gguf")
    told = r"Give the GGUF file itself: .*a\.gguf"
    with pytest.raises(ModelError, match=f"no config.json. {told}"):
        jobs.made(tmp_path, tmp_path / "x.gguf", type="q8_0")
    (tmp_path / "config.json").write_bytes((DEMO / "config.json").read_bytes())
    with pytest.raises(ModelError, match=f"no .safetensors file. {told}"):
        jobs.made(tmp_path, tmp_path / "x.gguf", type="q8_0")
    config = json.loads((DEMO / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **MARK}))
    with pytest.raises(ModelError, match=f"2 GGUF files: which is the model is open. {told}"):
        jobs.made(tmp_path, tmp_path / "x.gguf", type="q8_0")


def test_what_chose_the_codes_of_a_source_is_not_said_of_its_copy(tmp_path: Path) -> None:
    write.floats(DEMO, tmp_path / "float.gguf", more={"quantize.imatrix.file": "theirs.dat"})
    plan = jobs.made(tmp_path / "float.gguf", tmp_path / "x.gguf", type="q8_0", layer={"method": "rtn"})
    jobs.finish(plan)
    keys = GGUFReader(plan.out).fields
    assert "tokenizer.ggml.tokens" in keys and "quantize.imatrix.file" not in keys


@pytest.mark.parametrize(
    ("recipe", "name", "told"),
    [
        ({"type": "q4_k_x"}, "x.gguf", "no mix is called 'q4_k_x'"),
        ({"type": "q4_k_m"}, "x", "the output is a single file"),
        ({"output": "gguf", "layer": {"format": "int4"}}, "x.gguf", "GGUF does not store int4"),
        ({"output": "compressed-tensors"}, "x.gguf", "this output is a folder"),
        ({"output": "gguf", "layer": {"format": "q4_k", "activations": "int8"}}, "x.gguf", "activations"),
        ({"type": "q4_k_m", "kv_cache": "fp8"}, "x.gguf", "keys and values"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(
    recipe: dict[str, object], name: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=told):
        jobs.made(DEMO, tmp_path / name, **recipe)
    assert not any(tmp_path.iterdir())


def test_a_network_that_there_are_no_such_files_of(tmp_path: Path) -> None:
    import transformers

    config = transformers.GPT2Config(n_embd=64, n_layer=1, n_head=4, vocab_size=290, n_positions=64)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(ModelError, match="no GGUF file can be written for the architecture 'gpt2'"):
        jobs.made(tmp_path / "gpt2", tmp_path / "x.gguf", type="q8_0", layer={"method": "rtn"})


@pytest.mark.parametrize("cut", [40, 2_000, -5])
def test_a_cut_file_is_no_source(cut: int, tmp_path: Path) -> None:
    plan = jobs.made(DEMO, tmp_path / "x.gguf", type="q8_0", layer={"method": "rtn"})
    jobs.finish(plan)
    (tmp_path / "cut.gguf").write_bytes(plan.out.read_bytes()[:cut])
    with pytest.raises(BitwrightError, match=r"truncated|header ends early"):
        jobs.made(tmp_path / "cut.gguf", tmp_path / "y.gguf", type="q4_0", layer={"method": "rtn"})
