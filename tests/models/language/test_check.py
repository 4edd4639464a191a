"""Sound, not sound, and not known here are three different things."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from bitwright.errors import FileError, ModelError
from bitwright.events import Note
from bitwright.files.folder import open_checkpoint
from bitwright.files.quantized import QuantizedCheckpoint
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


def test_a_gguf_file_of_an_unknown_network_gets_no_verdict(pair: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    whole = gguf.made({"a": (2, (32,), b"\0\x3c" + bytes(16)), "b": (99, (7,), b"1234567")})
    path.write_bytes(whole.replace(b"llama", b"clown"))
    sound, words = said(path)
    assert sound is None and "GGUF version 3, clown, 2 tensors: 1 Q4_0, 1 type 99" in words
    assert "of the architecture 'clown', whose network is not known here" in words
    assert "no verdict" in words and "not sound" not in words
    assert "nothing could be compared" in said(path, pair[0])[1]
    with pytest.raises(ModelError, match=r"of the architecture 'clown', whose network is not known here"):
        jobs.made(path, tmp_path / "out", **RTN)


def test_a_gguf_file_that_is_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf.made({"a": (2, (32,), b"\0\x3c" + bytes(16))}))
    sound, words = said(path)
    assert sound is False and "its metadata does not say llama.block_count" in words
    path.write_bytes(gguf.made({"a": (2, (32,), b"\0\x7e" + bytes(16))}))
    sound, words = said(path)
    assert sound is False and "a: nan in block 0 is no scale" in words
    path.write_bytes(path.read_bytes()[:-1])
    assert said(path)[0] is False
    with pytest.raises(FileError, match="truncated"):
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


def test_levels_of_every_matrix_are_its_unique_codes(pair: tuple[Path, Path]) -> None:
    source, small = pair
    found, held = check(small, source, watch=False), open_checkpoint(small)
    assert isinstance(held, QuantizedCheckpoint)
    assert {p.name for p in found.precision} == {row.name for row in found.rows} == held.quantized.keys()
    for p in (*found.precision, *found.rows):
        values, counts = np.unique(held.qtensor(p.name).codes, return_counts=True)
        share = counts / counts.sum()
        assert (p.levels, p.levels_used, p.input_levels) == (16, len(values), None)
        assert p.entropy == pytest.approx(-(share * np.log2(share)).sum())
    certified = json.loads((small / "certificate.json").read_text())
    same = ("name", "format", "stored_bits", "levels", "levels_used", "entropy")
    assert [{key: row[key] for key in same} for row in certified["rows"]] == [
        {key: getattr(p, key) for key in same} for p in found.precision
    ]
    assert "of 16 used, the mean of 14 matrices; entropy 3." in str(found) and "of 4.500 stored bits" in str(found)


def test_a_gguf_file_tells_its_levels(tmp_path: Path) -> None:
    path, half = tmp_path / "model.gguf", b"\0\x3c"
    one, two = half + bytes(range(16)), half + bytes([0x10] * 16)
    whole = gguf.made({"a": (2, (32, 8), one * 8), "b": (2, (32, 8), two * 8), "v": (16, (256,), bytes(66))})
    path.write_bytes(whole.replace(b"llama", b"clown"))
    found = check(path, watch=False)
    assert [(p.name, p.format, p.rows, p.columns, p.stored_bits) for p in found.precision] == [
        (name, "Q4_0", 8, 32, 8 * 18 * 8) for name in "ab"
    ]
    assert [(p.levels, p.levels_used) for p in found.precision] == [(16, 16), (16, 2)]
    assert found.precision[1].entropy == 1.0 and found.sound is None
    assert "b: 2 of 16 levels used: 1 bit would hold its codes" in str(found)
    assert "those of 1 tensor stand for several weights at once (first v)" in str(found)
