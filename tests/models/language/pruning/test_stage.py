"""A pruned folder is the network that was meant, in plain transformers; what cannot be pruned is refused by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import bitwright as bw
from bitwright.engine.stages.plan import make
from bitwright.engine.stages.run import run
from bitwright.errors import BitwrightError, ModelError, RecipeError
from bitwright.events import Event, Finished
from bitwright.library import plan_stage
from bitwright.models.language.pruning.stage import Pruning
from bitwright.models.stage import Record
from bitwright.stages import Prune
from tests import jobs, tiny

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma3")
DEEP: dict[str, Any] = {"num_hidden_layers": 4}
IDS = torch.randint(1, 1000, (2, 24), generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return jobs.text(tmp_path_factory.mktemp("text"))


def options(text: Path, **given: Any) -> dict[str, Any]:
    return {"calib": str(text), "windows": 8, "length": 32, "heldout_windows": 2, "multiple": 32, **given}


def pruned(source: Path, out: Path, **given: Any) -> dict[str, Any]:
    return bw.prune(source, out, watch=False, **given).certificate


def answers(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS, use_cache=False).logits
    return found


def masked(source: Path, told: list[list[str]], certificate: dict[str, Any]) -> Any:
    """The source in transformers, without blocks that are gone, and with zeros for groups of heads that are."""
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    stage = certificate["stages"][0]
    blocks = [int(row[0].split(",")[0]) for row in told]
    model.model.layers = torch.nn.ModuleList([model.model.layers[block] for block in blocks])
    for row, layer in zip(told, model.model.layers, strict=True):
        groups = {int(group) for group in row[2].split(", ")}
        weight = layer.self_attn.o_proj.weight.data
        size = weight.shape[1] // stage["shape_before"]["groups"]
        for group in range(stage["shape_before"]["groups"]):
            if group not in groups:
                weight[:, group * size : (group + 1) * size] = 0
    return model


@pytest.mark.parametrize("kind", FAMILIES)
def test_heads_and_layers_go_as_if_they_were_zero(kind: str, tmp_path: Path, text: Path) -> None:
    changes = DEEP | ({"layer_types": ["sliding_attention", "full_attention"] * 2} if kind == "gemma3" else {})
    source = tiny.make(kind, tmp_path / "source", **changes)
    found = pruned(source, tmp_path / "out", keep=0.45, **options(text, cut=["heads", "layers"], repair=False))
    stage = found["stages"][0]
    assert stage["shape_after"] == {"width": 128, "groups": 1, "layers": 2}
    out = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert out.config.num_attention_heads == 2
    meant = masked(source, stage["tables"][0]["rows"], found)
    torch.testing.assert_close(answers(out), answers(meant), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", FAMILIES)
def test_channels_go_as_if_they_were_zero(kind: str, tmp_path: Path, text: Path) -> None:
    source = tiny.make(kind, tmp_path / "source")
    job = make(source, tmp_path / "out", Prune.model_validate(
        {"keep": 0.8, "cut": ["width"], "multiple": 32, "repair": False,
         "calibration": {"source": str(text), "windows": 8, "length": 32, "heldout_windows": 2}}
    ))  # fmt: skip
    kept: dict[int, list[int]] = {}
    assert isinstance(job, Pruning)
    done = job.tables

    def noted(record: Record) -> Any:
        kept.update({block: record.kept[f"block {block}"]["kept"]["channels"] for block in range(2)})
        return done(record)

    job.tables = noted  # type: ignore[method-assign]
    assert isinstance(list(run(job))[-1], Finished)
    meant = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    for block, layer in enumerate(meant.model.layers):
        assert len(kept[block]) == 64
        layer.mlp.down_proj.weight.data[:, [i for i in range(128) if i not in kept[block]]] = 0
    out = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert out.config.intermediate_size == 64
    torch.testing.assert_close(answers(out), answers(meant), rtol=1e-4, atol=1e-4)


def test_fitting_brings_the_answers_back(tmp_path: Path, text: Path) -> None:
    source = tiny.make("llama", tmp_path / "source", dtype=torch.float32)
    with torch.no_grad():  # channels that tell nearly the same, so that there is something to be made up for
        model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
        for layer in model.model.layers:
            for matrix in (layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight):
                matrix[64:] = matrix[:64] + 0.02 * torch.randn(matrix[64:].shape)
        model.save_pretrained(source)
    told = {
        repair: pruned(
            source, tmp_path / f"out{repair}", keep=0.75, **options(text, cut="width", windows=64, repair=repair)
        )["verdict"]["kl"]
        for repair in (False, True)
    }
    assert told[True] < 0.2 * told[False]


@pytest.mark.parametrize("importance", ["taylor", "activation"])
def test_other_importances_run(importance: str, tmp_path: Path, text: Path) -> None:
    source = tiny.make("llama", tmp_path / "source")
    found = pruned(source, tmp_path / "out", keep=0.75, **options(text, cut=["width", "heads"], importance=importance))
    assert found["loaded_by_transformers"]["checked"]


def test_a_number_of_parameters_is_kept_to(tmp_path: Path, text: Path) -> None:
    source = tiny.make("llama", tmp_path / "source")
    found = pruned(source, tmp_path / "out", params="200k", **options(text, cut="width"))
    stored = sum(tensor.numel() for tensor in load_file(tmp_path / "out" / "model.safetensors").values())
    assert found["parameters"] == stored <= 200_000
    assert found["stages"][0]["after"]["parameters"] == stored


def test_the_output_is_quantized_and_checked(tmp_path: Path, text: Path) -> None:
    source = tiny.make("llama", tmp_path / "source")
    pruned(source, tmp_path / "out", keep=0.75, **options(text, cut="width"))
    bw.quantize(tmp_path / "out", tmp_path / "small", bits=4, group=32, method="rtn", watch=False)
    assert bw.check(tmp_path / "out", watch=False).sound
    assert bw.check(tmp_path / "small", tmp_path / "out", watch=False).sound


def test_its_report_and_card_say_what_was_done(tmp_path: Path, text: Path) -> None:
    source = tiny.make("llama", tmp_path / "source")
    pruned(source, tmp_path / "out", keep=0.75, **options(text, cut="width"))
    report = bw.report(tmp_path / "out")
    for page in (report.html, report.markdown):
        assert "pruned to" in page.lower()
        assert "128 -&gt; 64" in page or "128 -> 64" in page
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "base_model_relation: finetune" in card
    assert "MLP width: 128 -> 64" in card.replace("&gt;", ">")
    assert "stale" not in report.certificates[0]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nothing of a layer left": ({"keep": 0.01, "cut": "width"}, "no shape .* multiple of 32 up to 128"),
    "heads that cannot be": ({"keep": 0.1, "cut": "heads"}, "no shape .* takes 4, 2 heads"),
    "no target": ({}, "0 targets"),
    "two targets": ({"keep": 0.5, "params": 1000}, "2 targets"),
    "a share above one": ({"keep": 1.5}, "less than 1"),
    "a mistyped cut": ({"keep": 0.5, "cut": ["widht"]}, "Did you mean width"),
    "a mistyped importance": ({"keep": 0.5, "importance": "tailor"}, "Did you mean taylor"),
    "an unknown option": ({"keep": 0.5, "importence": "taylor"}, "Did you mean importance"),
    "a multiple that is none": ({"keep": 0.5, "multiple": 48}, "multiple"),
    "params beyond the model": ({"params": "1B"}, "no more than asked for"),
    "params within the embedding": ({"params": "1k"}, "outside the blocks"),
    "params that are no number": ({"params": "many"}, "not a number of parameters"),
    "text that is not there": ({"keep": 0.5, "calib": "nowhere.txt"}, "nowhere.txt"),
    "windows that do not fit": ({"keep": 0.5, "length": 4096}, "made for 128"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_writes_nothing(case: str, tmp_path: Path, text: Path) -> None:
    given, told = BAD[case]
    source = tiny.make("llama", tmp_path / "source")
    with pytest.raises(BitwrightError, match=told) as caught:
        pruned(source, tmp_path / "out", **(options(text) | given))
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("kind", ["gpt2", "phi3", "opt", "gpt_neox", "mixtral"])
def test_other_networks_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    source = tiny.make(kind, tmp_path / "source")
    with pytest.raises(ModelError, match="is not a network that can be pruned here"):
        plan_stage("prune", source, keep=0.5)


def test_quantized_models_and_networks_are_refused(tmp_path: Path) -> None:
    source = tiny.make("llama", tmp_path / "source")
    bw.quantize(source, tmp_path / "small", bits=4, group=32, method="rtn", watch=False)
    with pytest.raises(ModelError, match="already quantized"):
        plan_stage("prune", tmp_path / "small", keep=0.5)
    with pytest.raises(RecipeError, match="have no stage 'prune' yet"):
        plan_stage("prune", tmp_path / "model.onnx", keep=0.5)
    with pytest.raises(RecipeError, match="Did you mean prune"):
        plan_stage("prun", source, keep=0.5)


def test_a_head_count_that_the_config_refuses_is_not_chosen(tmp_path: Path) -> None:
    # Llama's config wants heads that divide the hidden width: of 8 heads in 4 groups 6 are none.
    source = tiny.make("llama", tmp_path / "source", num_attention_heads=8, num_key_value_heads=4, head_dim=8)
    job = plan_stage("prune", source, keep=0.9, cut="heads", length=64).job
    assert isinstance(job, Pruning)
    assert job.anatomy.legal == [4, 2, 1]
    assert job.shape.groups == 2


def stopped(source: Path, out: Path, text: Path, after: int) -> bool:
    """Run until so many events have passed; whether that was before the end."""
    events: Iterator[Event] = plan_stage("prune", source, out, keep=0.3, **WHOLE, **options(text)).run()
    for number, _ in enumerate(events):
        if number >= after:
            events.close()  # type: ignore[attr-defined]
            return True
    return False


WHOLE: dict[str, Any] = {"cut": ["width", "heads", "layers"], "threads": 1}


def test_stopped_after_any_event_it_ends_in_the_same_bytes(tmp_path: Path, text: Path) -> None:
    source = tiny.make("llama", tmp_path / "source", **DEEP)
    assert not stopped(source, tmp_path / "whole", text, 10_000)
    config = json.loads((tmp_path / "whole" / "config.json").read_text("utf-8"))
    cuts = ("intermediate_size", "num_key_value_heads", "num_hidden_layers")
    assert [config[key] for key in cuts] == [32, 1, 3], "all kinds of cuts are made"
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    after, again = 3, 0
    while stopped(source, tmp_path / "out", text, after):
        after += 3
        again += 1
    assert again > 5
    out = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert out.keys() == whole.keys()
    certificates = [json.loads(part.pop("certificate.json")) for part in (out, whole)]
    for part in (out, whole):
        del part["README.md"]  # it names the certificate by its hash, which tells of memory
    for certificate in certificates:
        del certificate["peak_memory_bytes"]
    assert certificates[0] == certificates[1]
    assert out == whole


def test_bytes_that_changed_while_it_was_stopped_are_made_anew(tmp_path: Path, text: Path) -> None:
    source = tiny.make("llama", tmp_path / "source", **DEEP)
    assert not stopped(source, tmp_path / "whole", text, 10_000)
    events = plan_stage("prune", source, tmp_path / "out", keep=0.3, **WHOLE, **options(text)).run()
    for event in events:
        if event.json().get("phase") == "certify":
            break
    events.close()  # type: ignore[attr-defined]
    damaged = tmp_path / "out.partial" / "model.safetensors"
    raw = bytearray(damaged.read_bytes())
    raw[-64:] = bytes(64)
    damaged.write_bytes(raw)
    assert not stopped(source, tmp_path / "out", text, 10_000)
    assert damaged.parent.exists() is False
    name = "model.safetensors"
    assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
