"""The trellis container: written, read by its reference decoder, loaded in transformers, and what a file may lack."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import bitwright as bw
from bitwright.core import bits
from bitwright.core.formats import named
from bitwright.errors import FileError, ModelError, RecipeError
from bitwright.files.containers import registry, trellis
from bitwright.files.containers.trellis import decoder
from bitwright.files.folder import open_checkpoint
from bitwright.methods import rtn
from tests import tiny

CHOICE: dict[str, Any] = {"format": "trellis2", "method": "trellis", "output": "trellis"}
TEXT = {"calib": "stdlib", "windows": 4, "length": 32, "heldout_windows": 2}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make("llama", tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="module")
def written(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "llama"
    rule = {"match": "*down_proj", "format": "trellis4"}
    bw.quantize(llama, out, recipe={"output": "trellis", "layer": {"format": "trellis2", "method": "trellis"},
                                    "rules": [rule]}, **TEXT)  # fmt: skip
    return out


@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("shape", [(3, 7), (260, 12), (300, 40)])
def test_the_reference_decoder_agrees_to_the_bit(width: int, shape: tuple[int, int]) -> None:
    q = rtn.quantize(np.random.default_rng(width).normal(size=shape).astype(np.float32), named(f"trellis{width}"))
    packed, scale = bits.pack(q.codes, width), q.scale.astype(np.float16)
    expected = q.decode()
    assert (decoder.decode(packed, scale, shape[1], width) == expected).all()
    if shape[0] > 256:
        assert (decoder.decode(packed[256:], scale[256:], shape[1], width) == expected[256:]).all()


@pytest.mark.slow
def test_a_folder_is_sound_and_transformers_gets_its_weights(llama: Path, written: Path) -> None:
    certificate = json.loads((written / "certificate.json").read_text())
    assert certificate["loaded_by_transformers"] == {"checked": True, "max_kl": 0.0}
    assert "not vLLM" in certificate["runtimes"][1]
    checked = bw.check(written, llama)
    assert checked.sound, str(checked)
    assert {row.format for row in checked.rows} == {"trellis2 channel", "trellis4 channel"}
    checkpoint, model = open_checkpoint(written), trellis.load(written)
    name = "model.layers.1.mlp.down_proj.weight"
    assert torch.equal(model.get_parameter(name), checkpoint.read(name))
    assert torch.equal(checkpoint.read(name, 10, 20), checkpoint.read(name)[10:20])
    assert model.generation_config is not None and "quantization_config" not in model.config.to_dict()
    assert "from bitwright.files.containers.trellis import load" in (written / "README.md").read_text()


@pytest.mark.slow
def test_stored_bits_are_what_is_written(written: Path) -> None:
    stored = load_file(written / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    rows, columns, width = stored[f"{name}.weight_shape"].tolist()
    assert width == 2 and stored[f"{name}.weight_trellis"].shape == (rows, columns // 4)
    assert stored[f"{name}.weight_scale"].dtype == torch.float16 and stored[f"{name}.weight_scale"].shape == (rows, 1)


def damage(written: Path, out: Path, change: Any) -> Path:
    """A copy with changed tensors."""
    copytree(written, out)
    tensors = load_file(out / "model.safetensors")
    change(tensors, "model.layers.0.self_attn.q_proj")
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    return out


def without_scale(tensors: dict[str, Any], name: str) -> None:
    del tensors[f"{name}.weight_scale"]


def without_codes(tensors: dict[str, Any], name: str) -> None:
    del tensors[f"{name}.weight_trellis"]


def of_seven_bits(tensors: dict[str, Any], name: str) -> None:
    tensors[f"{name}.weight_shape"][2] = 7


def of_another_shape(tensors: dict[str, Any], name: str) -> None:
    tensors[f"{name}.weight_shape"][0] += 1


def of_wide_scales(tensors: dict[str, Any], name: str) -> None:
    tensors[f"{name}.weight_scale"] = tensors[f"{name}.weight_scale"].float()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (without_scale, "no weight_scale beside its other parts"),
        (without_codes, "no weight_trellis beside its other parts"),
        (of_seven_bits, r"weight_shape is \[64, 64, 7\], not rows, columns and 2 to 4 bits"),
        (of_another_shape, r"weight_trellis is \[64, 16\] of torch.uint8, not \[65, 16\] uint8"),
        (of_wide_scales, r"weight_scale is \[64, 1\] of torch.float32, not \[64, 1\] float16"),
    ],
)
def test_a_damaged_folder_is_refused_by_name(change: Any, told: str, written: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=told) as error:
        open_checkpoint(damage(written, tmp_path / "out", change))
    assert error.value.where is not None and error.value.where.endswith("model.layers.0.self_attn.q_proj")


@pytest.mark.slow
def test_another_version_and_another_container_are_refused(written: Path, llama: Path, tmp_path: Path) -> None:
    out = damage(written, tmp_path / "out", lambda tensors, name: None)
    config = json.loads((out / "config.json").read_text())
    config["quantization_config"]["version"] = 2
    (out / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="version 2 of the trellis container, and 1 is read here"):
        open_checkpoint(out)
    with pytest.raises(ModelError, match="not in the trellis container"):
        trellis.load(llama)


def test_what_it_does_not_store_is_refused(llama: Path, tmp_path: Path) -> None:
    container = registry.get("trellis")
    for name in ("int4", "nf4", "codebook2"):
        with pytest.raises(RecipeError, match=f"does not store {name}"):
            container.format(name)
    with pytest.raises(RecipeError, match="does not round activations"):
        container.format("trellis2", activations="int8")
    with pytest.raises(RecipeError, match="trellis does not hold embeddings"):
        bw.plan(llama, tmp_path / "out", embedding="trellis4", **CHOICE)
    with pytest.raises(RecipeError, match="no stable packing for trellis2"):
        bw.plan(llama, tmp_path / "out", **CHOICE | {"output": "compressed-tensors"})
    with pytest.raises(RecipeError, match="codes of trellis2 go together"):
        bw.plan(llama, tmp_path / "out", **CHOICE | {"method": "descent"})


@pytest.mark.slow
def test_without_calibration_the_nearest_path_is_taken(llama: Path, tmp_path: Path) -> None:
    result = bw.quantize(llama, tmp_path / "out", format="trellis2", method="rtn", output="trellis")
    assert {(row["format"], row["method"]) for row in result.rows} == {("trellis2 channel", "rtn")}
    # Of 4^-2, and the paths of so small matrices have little to look ahead at.
    assert all(10 < row["sqnr"] < 12.04 for row in result.rows)
