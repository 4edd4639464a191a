"""Networks that are more than a chain of equal blocks: right, or refused by name; bench/families.py has all of them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.auto import modeling_auto

from bitwright.errors import ModelError
from bitwright.files.folder import load_in_transformers, without_bars
from bitwright.library import check
from bitwright.models.language.arch import Architecture
from bitwright.models.language.blocks import Decoder, Passage, Unchained
from tests import jobs

ROOT = Path(__file__).parents[3]
RTN = {"layer": {"method": "rtn"}}
IDS = torch.arange(1, 33)[None] * 7 % 1000


def _bench() -> Any:
    spec = importlib.util.spec_from_file_location("families", ROOT / "bench" / "families.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


families = _bench()


def make(family: str, folder: Path) -> Path:
    """A tiny model of a family, as the bench makes it."""
    with without_bars():
        families.make(family, next(classes for _, classes in families.KINDS if family in classes), folder)
    return folder


def made(family: str, folder: Path) -> Path:
    """The same of the kinds that hold more than a decoder."""
    with without_bars():
        families.make(family, next(classes for _, classes in families.KINDS[1:] if family in classes), folder)
    return folder


def texts(folder: Path) -> dict[str, Any]:
    return {"calibration": jobs.words(jobs.text(folder))}


@pytest.mark.parametrize(
    "family",
    [
        "gemma4_text",  # blocks get parts of tokens' own embeddings, and the keys and values of earlier blocks
        "mamba2",  # no attention
        "falcon_h1",  # a table that a block's first values come to from the network around it
        "glm_moe_dsa",  # a block hands on which tokens it chose, beside its hidden states
        "bert",  # a decoder where the config says so
    ],
)
def test_block_by_block_gives_the_networks_own_logits(family: str, tmp_path: Path) -> None:
    folder = make(family, tmp_path / "model")
    with torch.no_grad(), without_bars():
        expected = load_in_transformers(folder)(input_ids=IDS, use_cache=False).logits
    arch = Architecture.open(folder)
    decoder, passage = Decoder(arch), Passage(IDS)
    hidden = decoder.enter(passage)
    for block in range(arch.count):
        with decoder.loaded(block):
            hidden = decoder.run(block, hidden, passage)
    torch.testing.assert_close(decoder.logits(hidden), expected, rtol=2e-4, atol=2e-4)
    assert float(expected.std()) > 0.1


@pytest.mark.parametrize(
    ("family", "why"),
    [
        ("rwkv", "reaches into its blocks from outside"),
        ("xlm", "more than what the one before it answered"),
        pytest.param("cpmant", "other positions than those of the tokens", marks=pytest.mark.slow),
        pytest.param("reformer", "answer with a ReformerOutput", marks=pytest.mark.slow),
        pytest.param("blt", "depend on more than what the last block answered", marks=pytest.mark.slow),
    ],
)
def test_what_is_no_chain_is_quantized_without_text_only(family: str, why: str, tmp_path: Path) -> None:
    folder = make(family, tmp_path / "model")
    certificate = jobs.finish(jobs.made(folder, tmp_path / "rtn", **RTN))
    loaded = certificate["loaded_by_transformers"]
    assert not loaded["checked"] and why in loaded["why"] and certificate["rows"]
    with pytest.raises(Unchained, match=why) as caught:
        jobs.finish(jobs.made(folder, tmp_path / "out", **texts(tmp_path)))
    assert "rtn without text" in str(caught.value.fix) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("family", ["whisper", "t5", "bart"])
def test_encoder_decoders_are_never_half_done(family: str, tmp_path: Path) -> None:
    folder = made(family, tmp_path / "model")
    with pytest.raises(ModelError, match="an encoder-decoder network") as caught:
        jobs.made(folder, tmp_path / "out", **RTN)
    assert caught.value.fix
    assert check(folder).sound is None  # nothing is wrong with it


def test_a_decoder_saved_alone_is_one(tmp_path: Path) -> None:
    jobs.finish(jobs.made(make("whisper", tmp_path / "model"), tmp_path / "out", **RTN))


def test_images_and_text(tmp_path: Path) -> None:
    """The decoder is quantized, what it stands beside is named; transformers finds its modules under either name."""
    certificate = jobs.finish(jobs.made(make("gemma3", tmp_path / "gemma3"), tmp_path / "out", **RTN))
    assert certificate["loaded_by_transformers"]["max_kl"] < 1e-5
    assert any("outside the decoder's blocks stay float" in note for note in certificate["notes"])
    names = {row["name"] for row in certificate["rows"]}
    assert len(names) == 28 and all(name.startswith("language_model.model.layers.") for name in names)
    groups = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]["config_groups"]
    targets = [target for group in groups.values() for target in group["targets"]]
    both = r"re:(model\.language_model\.layers\.0\.mlp\.up_proj|language_model\.model\.layers\.0\.mlp\.up_proj)$"
    assert both in targets
    assert check(tmp_path / "out").sound


@pytest.mark.slow
def test_images_and_text_with_text(tmp_path: Path) -> None:
    """A family that transformers has no class of language alone for."""
    llava = jobs.finish(jobs.made(made("llava", tmp_path / "llava"), tmp_path / "out", **texts(tmp_path)))
    assert llava["loaded_by_transformers"]["max_kl"] < 1e-5 and len(llava["rows"]) == 28
    assert llava["verdict"]["kl"] > 0


def test_tables_are_no_weights(tmp_path: Path) -> None:
    plan = jobs.made(make("minimax", tmp_path / "model"), tmp_path / "out", **RTN)
    assert [name for name in plan.sink.untouched if name.endswith("diagonal_decay")]


def test_what_transformers_only_loads_unpacked(tmp_path: Path) -> None:
    plan = jobs.made(make("falcon", tmp_path / "model"), tmp_path / "out", **RTN)
    assert plan.model.runtimes(plan)[0].endswith("with CompressedTensorsConfig(dequantize=True)")
    certificate = jobs.finish(plan)
    assert certificate["loaded_by_transformers"]["dequantize"] and certificate["loaded_by_transformers"]["checked"]


def test_what_transformers_would_not_find_packed_stays_float(tmp_path: Path) -> None:
    certificate = jobs.finish(jobs.made(make("phimoe", tmp_path / "model"), tmp_path / "out", **RTN))
    assert certificate["loaded_by_transformers"]["checked"]
    routers = [f"model.layers.{i}.block_sparse_moe.gate.weight" for i in range(4)]
    assert list(certificate["kept_float"]) == routers
    with pytest.raises(ModelError, match=r"drops tensors that it joins .* q_conv1d|k_conv1d"):
        jobs.made(make("olmo_hybrid", tmp_path / "olmo"), tmp_path / "other", **RTN)


def test_blocks_that_share_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="its blocks share weights"):
        jobs.made(make("zamba2", tmp_path / "model"), tmp_path / "out", **RTN)


def test_a_config_that_contradicts_itself_is_one_line(tmp_path: Path) -> None:
    folder = make("deepseek_v3", tmp_path / "model")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_key_value_heads": 2}))
    with pytest.raises(ModelError, match="its network does not run on text") as caught:
        jobs.finish(jobs.made(folder, tmp_path / "out", **texts(tmp_path)))
    assert "config.json" in str(caught.value.fix)


def test_the_page_tells_of_every_causal_family() -> None:
    page = (ROOT / "docs" / "families.md").read_text("utf-8")
    assert [f for f in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if f"`{f}`" not in page] == []
    assert "Fault" not in page
