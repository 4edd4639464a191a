"""What a folder means is what transformers loads from it: otherwise one clear error, or a note; never a guess."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bitwright.engine import report
from bitwright.errors import BitwrightError, ModelError, TensorError
from bitwright.files.folder import LARGEST, load_in_transformers, open_checkpoint, require_finite, without_bars
from bitwright.library import check
from bitwright.models.language.compare import decoder_of
from tests import jobs, tiny
from tests.networks import shared

RTN = {"layer": {"method": "rtn"}}
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
Q_PROJ, UP = "model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.up_proj.weight"
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
Tensors = dict[str, torch.Tensor]


def edit(folder: Path, change: Callable[[Tensors], object]) -> Path:
    """Change the tensors of a single-file folder."""
    tensors = load_file(folder / SINGLE)
    change(tensors)
    save_file({name: t.contiguous().clone() for name, t in tensors.items()}, folder / SINGLE, {"format": "pt"})
    return folder


def configure(folder: Path, **values: Any) -> Path:
    """Set keys of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


def llama(folder: Path, **options: Any) -> Path:
    return tiny.make("llama", folder / "model", **options)


def refused(folder: Path, *says: str, error: type[BitwrightError] = ModelError) -> None:
    """Planning names what is wrong, and a fix."""
    with pytest.raises(error) as caught:
        jobs.made(folder, folder.with_name("out"), **RTN)
    assert not [part for part in says if part not in str(caught.value)], str(caught.value)
    assert caught.value.fix


def logits(folder: Path) -> torch.Tensor:
    """As transformers answers."""
    with torch.no_grad(), without_bars():
        answer: torch.Tensor = load_in_transformers(folder)(input_ids=torch.arange(1, 33)[None]).logits
    return answer


def ours(folder: Path) -> torch.Tensor:
    """As our own decoder answers."""
    return tiny.answer(decoder_of(folder, exact=True), torch.arange(1, 33)[None])


def other_head(tensors: Tensors) -> None:
    tensors[HEAD] = torch.randn_like(tensors[EMBEDDING])


# ---- what is refused ------------------------------------------------------------------------


def test_an_adapter_beside_the_model(tmp_path: Path) -> None:
    folder = llama(tmp_path)
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4}')
    refused(folder, "adapter_config.json", "transformers loads both", "merge_and_unload")
    assert not check(folder).sound


def test_a_head_that_is_tied_and_stored(tmp_path: Path) -> None:
    folder = edit(tiny.make("qwen2", tmp_path / "model"), other_head)
    refused(folder, HEAD, f"ties it to {EMBEDDING}", "tie_word_embeddings")
    configure(folder, tie_word_embeddings=False)
    torch.testing.assert_close(ours(folder), logits(folder), rtol=1e-5, atol=1e-5)
    # Under either name, or under both with the same values, it is one tensor.
    moved = edit(tiny.make("qwen2", tmp_path / "moved"), lambda t: t.update({HEAD: t.pop(EMBEDDING)}))
    jobs.finish(jobs.made(moved, tmp_path / "done", **RTN))
    torch.testing.assert_close(ours(tmp_path / "done"), logits(tmp_path / "done"), rtol=1e-5, atol=1e-5)
    same = edit(tiny.make("qwen2", tmp_path / "same"), lambda t: t.update({HEAD: t[EMBEDDING]}))
    jobs.made(same, tmp_path / "out", **RTN)
    torch.testing.assert_close(ours(same), logits(same), rtol=1e-5, atol=1e-5)


def test_two_sets_of_weights(tmp_path: Path) -> None:
    folder = llama(tmp_path, max_shard="150KB")
    first = next(folder.glob("model-00001*"))
    (folder / SINGLE).write_bytes(first.read_bytes())
    refused(folder, SINGLE, INDEX, "two sets of weights", "Move away")
    (folder / SINGLE).unlink()
    jobs.made(folder, tmp_path / "out", **RTN)
    # An index may name the single file itself.
    whole = tiny.make("llama", tmp_path / "whole")
    (whole / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(load_file(whole / SINGLE), SINGLE)}))
    jobs.made(whole, tmp_path / "out", **RTN)


def test_which_file_is_the_model_is_not_guessed(tmp_path: Path) -> None:
    folder = llama(tmp_path)
    (folder / SINGLE).rename(folder / "consolidated.safetensors")
    refused(folder, SINGLE, INDEX, "consolidated.safetensors", "Rename")
    names = load_file(folder / "consolidated.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(names, "consolidated.safetensors")}))
    jobs.made(folder, tmp_path / "out", **RTN)
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(names, f"../{folder.name}/{SINGLE}")}))
    refused(folder, INDEX, "../model/", "not a file beside it")
    (folder / INDEX).unlink()
    (folder / "consolidated.safetensors").rename(folder / SINGLE)
    configure(folder, transformers_weights="other.safetensors")
    refused(folder, "config.json", "transformers_weights", "'other.safetensors'")


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    folder = llama(tmp_path, max_shard="150KB")
    names = json.loads((folder / INDEX).read_text())["weight_map"]
    other = next(file for file in sorted(set(names.values())) if file != names[Q_PROJ])
    tensors = load_file(folder / other) | {Q_PROJ: load_file(folder / names[Q_PROJ])[Q_PROJ] * 2}
    save_file(tensors, folder / other, {"format": "pt"})
    refused(folder, Q_PROJ, "stored twice", names[Q_PROJ], other)


def test_other_weight_files_are_named(tmp_path: Path) -> None:
    folder = llama(tmp_path)
    for name in ("pytorch_model.bin", "consolidated.safetensors", "adapter_model.safetensors", "model.gguf"):
        (folder / name).write_bytes(b"something else")
    plan = jobs.made(folder, tmp_path / "out", **RTN)
    said = "not read, as transformers does not: adapter_model.safetensors, consolidated.safetensors, model.gguf, "
    assert plan.notes[0] == f"{said}pytorch_model.bin"
    assert torch.equal(open_checkpoint(folder).read(Q_PROJ), load_file(folder / SINGLE)[Q_PROJ])


@pytest.mark.parametrize("layers", [0, -1, 22, 10**9, 1])
def test_a_wrong_number_of_layers(layers: int, tmp_path: Path) -> None:
    folder = configure(llama(tmp_path), num_hidden_layers=layers)
    refused(folder, "config.json", "num_hidden_layers", *(["model.layers.1."] if layers == 1 else [str(layers)]))


def test_layers_that_the_config_does_not_count(tmp_path: Path) -> None:
    folder = configure(llama(tmp_path, num_hidden_layers=3), num_hidden_layers=2)
    certificate = jobs.finish(jobs.made(folder, tmp_path / "out", **RTN))
    assert "9 tensors of blocks beyond the 2 that config.json counts" in certificate["notes"][0]
    ignored = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]["ignore"]
    left = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
            "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")  # fmt: skip
    assert ignored == sorted(["lm_head", *(f"model.layers.2.{name}" for name in left)])
    torch.testing.assert_close(ours(tmp_path / "out"), logits(tmp_path / "out"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool])
@pytest.mark.parametrize("name", [Q_PROJ, EMBEDDING, "model.norm.weight"])
def test_integers_are_no_weights(dtype: torch.dtype, name: str, tmp_path: Path) -> None:
    folder = edit(llama(tmp_path), lambda t: t.update({name: t[name].to(dtype)}))
    refused(folder, SINGLE, name, str(dtype).removeprefix("torch."), "Start from the float model")


def test_what_looks_quantized(tmp_path: Path) -> None:
    """A scale without a config, a config without scales, and a config where only some readers look."""

    def scaled(tensors: Tensors) -> None:
        tensors[Q_PROJ] = tensors[Q_PROJ].to(torch.float8_e4m3fn)
        tensors[f"{Q_PROJ}_scale_inv"] = torch.ones(1, 1)

    refused(edit(llama(tmp_path), scaled), f"{Q_PROJ}_scale_inv", "read without it", "Start from the float model")
    said = {"quant_method": "compressed-tensors", "config_groups": {}}
    stale = configure(tiny.make("llama", tmp_path / "stale"), quantization_config=said)
    refused(stale, "no tensor is", "Remove quantization_config")
    inner = configure(tiny.make("llama", tmp_path / "inner"), text_config={"quantization_config": said})
    refused(inner, "config.json", "text_config", "Give the float model")


# ---- values ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_huge_weights_are_named(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = edit(llama(tmp_path, dtype=dtype), lambda t: t[Q_PROJ].__setitem__((5, 7), 3.3e38))
    with pytest.raises(TensorError, match=r"q_proj.weight: 1 value is too large.* 3.*e\+38 at \[5, 7\]"):
        jobs.finish(jobs.made(folder, tmp_path / "out", **RTN))
    assert not (tmp_path / "out").exists()


def test_the_largest_weights_by_dtype() -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        require_finite("w", torch.tensor([[LARGEST / 2, -LARGEST / 2]], dtype=dtype))
        for value, words in ((LARGEST, "too large"), (-LARGEST, "too large"), (float("nan"), "not finite")):
            with pytest.raises(TensorError, match=rf"1 value is {words}.* at \[9, 1\]"):
                require_finite("w", torch.tensor([[0.0, value]], dtype=dtype), 9)
    with pytest.raises(TensorError, match=r"too large.*1e\+300 at \[0\]"):
        require_finite("w", torch.tensor([1e300], dtype=torch.float64))
    require_finite("w", torch.empty(0, 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [2e6, 1e12, 1e-9, 1e-30])
@pytest.mark.parametrize("format", ["int4", "fp8"])
def test_scales_beyond_float16(dtype: torch.dtype, value: float, format: str, tmp_path: Path) -> None:
    """A row far larger or smaller than float16 can scale is as exact as the others, and its matrix is named."""

    def change(tensors: Tensors) -> None:
        row = tensors[UP][3].double()
        tensors[UP][3] = (row / row.abs().max() * value).to(dtype)

    folder, out = edit(llama(tmp_path, dtype=dtype), change), tmp_path / "out"
    certificate = jobs.finish(jobs.made(folder, out, layer={"method": "rtn", "format": format}))
    before, after = load_file(folder / SINGLE)[UP].double(), open_checkpoint(out).qtensor(UP).decode().double()
    error = (before - after).norm(dim=1) / before.norm(dim=1)
    assert error[3] < 1.5 * error.median()
    assert [row["name"] for row in certificate["rows"] if "bfloat16 scales" in "; ".join(row["notes"])] == [UP]
    scales = {name: t.dtype for name, t in load_file(out / SINGLE).items() if name.endswith("weight_scale")}
    assert scales.pop(f"{UP}_scale") == torch.bfloat16 and set(scales.values()) == {torch.float16}
    # What is fused at run time is one scheme still.
    groups = json.loads((out / "config.json").read_text())["quantization_config"]["config_groups"]
    assert len(groups) == (2 if format == "int4" else 1)


def test_what_a_format_cannot_hold_is_an_error(tmp_path: Path) -> None:
    folder = edit(llama(tmp_path, hidden_size=256), lambda t: t[UP].__setitem__((3, 5), 1e12))
    with pytest.raises(TensorError, match=r"up_proj.weight: the largest weights .* q6_k hold"):
        jobs.made(folder, tmp_path / "out", layer={"method": "rtn", "format": "q6_k"}, output="float",
                  indivisible="float", max_float_percent=100)  # fmt: skip


def test_a_model_that_predicts_nothing(tmp_path: Path) -> None:
    folder = edit(llama(tmp_path), lambda t: [w.zero_() for w in t.values() if w.ndim > 1])
    text = jobs.text(tmp_path)
    certificate = jobs.finish(jobs.made(folder, tmp_path / "out", **RTN, calibration=jobs.words(text)))
    assert report.judge(certificate) is None
    assert report.headline(certificate) == (
        "The float model itself predicts nothing: perplexity 1,024.0, and guessing among 1,024 tokens has 1,024."
    )
    for page in ("\n".join(report.verdict_lines(certificate)), report.to_html([certificate])):
        assert "predicts nothing" in page and "ractically the float model" not in page.partition("own convention")[0]
    certificate["verdict"]["perplexity_float"] = 900.0
    assert report.headline(certificate).startswith("Practically the float model")


# ---- the shared cases -----------------------------------------------------------------------

MAKE = shared("cases", "language", "make.py")
ENDS: dict[str, str | None] = {
    "adapter-beside": "adapter_config.json",
    "tied-but-different": "lm_head.weight",
    "two-sets": "model.safetensors.index.json",
    "layer-beyond": None,
    "beyond-half": None,
    "huge-finite": "model.layers.0.self_attn.q_proj.weight: 1 value is too large",
    "predicts-nothing": None,
}
"""What the error names; None: it is quantized."""


@pytest.mark.skipif(MAKE is None, reason="no shared/cases beside this checkout")
@pytest.mark.parametrize("case", ENDS)
def test_shared_cases(case: str, tmp_path: Path) -> None:
    assert MAKE is not None
    spec = importlib.util.spec_from_file_location("make", MAKE)
    assert spec is not None and spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    make.CASES[case](tmp_path / case)
    wrong = ENDS[case]
    if wrong is not None:
        with pytest.raises(BitwrightError) as caught:
            jobs.finish(jobs.made(tmp_path / case, tmp_path / "out", **RTN))
        assert wrong in str(caught.value)
        assert not (tmp_path / "out").exists()
        return
    certificate = jobs.finish(jobs.made(tmp_path / case, tmp_path / "out", **RTN))
    assert certificate["loaded_by_transformers"]["max_kl"] < 1e-5
    assert check(tmp_path / "out").sound
