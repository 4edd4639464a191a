"""Sound, not sound, and not known here are three different things."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree

import pytest
import torch
from safetensors.torch import load_file, save_file

from bitwright.errors import ModelError
from bitwright.events import Note
from bitwright.library import check
from tests import gguf, jobs, tiny

SINGLE = "model.safetensors"
RTN = {"layer": {"method": "rtn", "group": 32}}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A float folder, and a quantized one made from it."""
    base = tmp_path_factory.mktemp("check")
    source = tiny.make("llama", base / "float")
    jobs.finish(jobs.made(source, base / "small", **RTN))
    return source, base / "small"


def said(path: Path, against: Path | None = None) -> tuple[bool | None, str]:
    found = check(path, against, watch=False)
    return found.sound, str(found)


def test_a_gguf_file_gets_no_verdict(pair: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf.made({"a": (2, (32,), b"\0\x3c" + bytes(16)), "b": (99, (7,), b"1234567")}))
    sound, words = said(path)
    assert sound is None and "GGUF version 3, llama, 2 tensors: 1 Q4_0, 1 type 99" in words
    assert "no verdict" in words and "not sound" not in words
    assert "nothing could be compared" in said(path, pair[0])[1]
    path.write_bytes(gguf.made({"a": (2, (32,), b"\0\x7e" + bytes(16))}))
    sound, words = said(path)
    assert sound is False and "a: nan in block 0 is no scale" in words
    path.write_bytes(path.read_bytes()[:-1])
    assert said(path)[0] is False
    with pytest.raises(ModelError, match=r"GGUF file, which can only be checked. Give the folder"):
        jobs.made(path, tmp_path / "out", **RTN)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "'gptq', which Bitwright does not read"),
        ({"model_type": "frobnicator"}, "transformers does not know this architecture"),
    ],
)
def test_what_is_not_known_here(change: dict[str, object], words: str, tmp_path: Path) -> None:
    folder = tiny.make("llama", tmp_path / "model")
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    sound, told = said(folder)
    assert sound is None and words in told and "all finite" in told
    tensors = load_file(folder / SINGLE)
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, folder / SINGLE, {"format": "pt"})
    sound, told = said(folder)
    assert sound is False and "model.norm.weight" in told


def test_what_loads_a_folder(pair: tuple[Path, Path], tmp_path: Path) -> None:
    folder = Path(copytree(pair[1], tmp_path / "copy"))
    (folder / "certificate.json").unlink()
    assert "ok   loads in: transformers with compressed-tensors; vLLM 0.33 on NVIDIA" in said(folder)[1]
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["ignore"] = ["lm_head", "re:.*k_proj"]
    (folder / "config.json").write_text(json.dumps(config))
    sound, words = said(folder)
    assert sound is True
    assert "not vLLM 0.33: model.layers.0.self_attn.qkv_proj (and 1 more) is in ignore in part" in words
    # Stored in float, and said to be quantized: neither runtime finds the codes.
    tensors = load_file(folder / SINGLE)
    name = "model.layers.1.self_attn.o_proj"
    for suffix in ("weight_packed", "weight_scale", "weight_shape"):
        del tensors[f"{name}.{suffix}"]
    save_file(tensors | {f"{name}.weight": torch.ones(64, 64).bfloat16()}, folder / SINGLE, {"format": "pt"})
    sound, words = said(folder)
    assert sound is False and f"stored in float, and said to be quantized: {name}. Name them in ignore" in words
    assert f"not transformers: it looks for codes of {name}, which is float and not in ignore" in words
    config["quantization_config"]["ignore"] = ["lm_head", name]
    (folder / "config.json").write_text(json.dumps(config))
    assert said(folder)[0] is True


def test_a_scheme_that_is_not_read(pair: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in pair[1].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    weights = config["quantization_config"]["config_groups"]["group_0"]["weights"]
    for strategy, sound in (("block", None), ("spiral", False)):
        weights["strategy"] = strategy
        (folder / "config.json").write_text(json.dumps(config))
        assert said(folder)[0] is sound


def test_against_the_model_it_was_made_from_and_others(pair: tuple[Path, Path], tmp_path: Path) -> None:
    source, small = pair
    found = check(small, source, watch=False)
    assert found.sound and len(found.rows) == 14
    # Other weights of the same shapes, other shapes, and other names.
    torch.manual_seed(1)
    other = tiny.make("llama", tmp_path / "other")
    tensors = {n: torch.randn_like(t.float()).to(t.dtype) for n, t in load_file(other / SINGLE).items()}
    save_file(tensors, other / SINGLE, {"format": "pt"})
    sound, words = said(small, other)
    assert sound is None and "nothing could be compared: no matrix of" in words
    for kind, options in (("llama", {"hidden_size": 128, "vocab_size": 512, "intermediate_size": 256}), ("gpt2", {})):
        with pytest.raises(ModelError, match=r"nothing could be compared.*Give the float model"):
            check(small, tiny.make(kind, tmp_path / kind, **options), watch=False)
    # Some matrices of another shape are one line, not one each.
    wider = tiny.make("llama", tmp_path / "wider", intermediate_size=256, num_hidden_layers=3)
    notes: list[str] = []
    check(small, wider, watch=lambda event: notes.append(event.text) if isinstance(event, Note) else None)
    assert len(notes) == 2
    assert "6 matrices differ in shape" in notes[1] and "9 tensors are in wider only" in notes[0]
