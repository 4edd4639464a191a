"""From a model folder to a certified one, and into transformers as a user would: every architecture, scheme, method."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from compressed_tensors.quantization import QuantizationConfig
from safetensors import safe_open

from bitwright.core.formats import named
from bitwright.core.measure import kl, layer_error
from bitwright.core.stats import Stats
from bitwright.engine.check import check
from bitwright.engine.partial import MARK
from bitwright.engine.run import run
from bitwright.errors import CertificationError, RecipeError
from bitwright.events import Finding, Finished, Started
from bitwright.files.containers.compressed_tensors.rules import UNEVEN, dense, installed
from bitwright.files.folder import open_checkpoint
from bitwright.methods import descent, gptq, rtn
from bitwright.models.language.arch import Architecture
from bitwright.models.language.blocks import Decoder
from bitwright.models.language.compare import decoder_of
from bitwright.models.language.model import sink_of
from tests import jobs, tiny

WIDE = {"hidden_size": 128, "head_dim": 32, "intermediate_size": 256}
IDS = torch.randint(1, 1000, (2, 24), generator=torch.Generator().manual_seed(1))
pytestmark = [
    # Said by transformers whenever `dequantize` is asked of a folder that names its own quantization.
    pytest.mark.filterwarnings("ignore:You passed `quantization_config`:UserWarning"),
]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return jobs.text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make("llama", tmp_path_factory.mktemp("llama") / "llama", **WIDE)


def quantize(source: Path, out: Path, **recipe: Any) -> dict[str, Any]:
    """Plan and run a recipe given as tables; returns the certificate."""
    return jobs.finish(jobs.made(source, out, **recipe))


def stored(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of every weight file, by the safetensors library."""
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return found


def raw(tensor: torch.Tensor) -> tuple[torch.dtype, torch.Size, bytes]:
    """Everything about a tensor that "bit for bit" means."""
    return tensor.dtype, tensor.shape, tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def load(folder: Path, *, experts: bool = False, dtype: torch.dtype = torch.float32) -> Any:
    """The folder in transformers, as its model card would say."""
    options: dict[str, Any] = {}
    if experts:
        options["quantization_config"] = transformers.CompressedTensorsConfig(dequantize=True)
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **options).eval()


def answer(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids).logits


def ours(folder: Path, *, rounded: bool = False) -> torch.Tensor:
    """Logits of our own decode, block by block; `rounded` to the dtype in which scales are stored."""
    arch = Architecture.open(folder)
    checkpoint = arch.checkpoint
    quantized = getattr(checkpoint, "quantized", {})

    def read(name: str) -> torch.Tensor:
        return checkpoint.read(name) if rounded or name not in quantized else checkpoint.qtensor(name).decode()

    return tiny.answer(Decoder(arch, read), IDS)


def sqnr(source: torch.Tensor, decoded: torch.Tensor) -> float:
    source, decoded = source.double(), decoded.double()
    return 10 * math.log10(float((source**2).sum() / ((source - decoded) ** 2).sum()))


@pytest.mark.parametrize("kind", tiny.CONFIGS)
def test_every_architecture(kind: str, tmp_path: Path, text: Path) -> None:
    source, out = tiny.make(kind, tmp_path / "source"), tmp_path / "out"
    (source / "LICENSE").write_text("free\n")
    (source / "chat_template.jinja").write_text("{{ messages }}\n")
    (source / "modeling_evil.py").write_text("raise SystemExit\n")
    float_output = kind == "gpt2"  # no runtime reads packed Conv1D weights
    output = "float" if float_output else "compressed-tensors"
    certificate = quantize(source, out, layer={"group": 32}, calibration=jobs.words(text), output=output)
    assert (certificate["kind"], certificate["container"]) == ("language", output)
    assert certificate["kept_float"] == {}

    assert [path.name for path in tmp_path.iterdir() if path.name != "source"] == ["out"]
    assert json.loads((out / "certificate.json").read_text()) == json.loads(json.dumps(certificate))
    for path in source.iterdir():
        copied = path.suffix != ".py" and path.name not in ("config.json", "model.safetensors")
        assert (out / path.name).exists() == (path.suffix != ".py")
        assert not copied or (out / path.name).read_bytes() == path.read_bytes(), path.name
    assert not [path.name for path in out.iterdir() if path.name.startswith(".") or "journal" in path.name]
    for path in out.glob("*.safetensors"):
        assert certificate["output"]["sha256"][path.name] == hashlib.sha256(path.read_bytes()).hexdigest()

    before, after = stored(source), stored(out)
    arch = Architecture.open(source)
    rows = {row["name"]: row for row in certificate["rows"]}
    assert set(rows) == {matrix.name for matrix in arch.quantizable()}
    kept = set(before) - set(rows)
    assert arch.embedding in kept
    for name in kept:
        assert raw(after[name]) == raw(before[name]), name
    if float_output:
        assert set(after) == set(before)
    else:
        modules = {name.removesuffix(".weight") for name in rows}
        suffixes = ("weight_packed", "weight_scale", "weight_shape")
        assert set(after) == kept | {f"{module}.{suffix}" for module in modules for suffix in suffixes}

    experts = any(matrix.expert is not None for matrix in arch.quantizable())
    user = load(out, experts=experts)
    if experts:  # left in bfloat16 by `dequantize`; multiply in float32, as we do
        user = user.float()
    theirs = answer(user)
    torch.testing.assert_close(theirs, ours(out, rounded=experts), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(theirs, answer(load(source)), atol=1e-2), "nothing was quantized"

    decoder = open_checkpoint(out)
    for name, row in rows.items():
        decoded = decoder.read(name) if float_output else decoder.qtensor(name).decode()
        assert math.isfinite(row["sqnr"])
        assert 10 < row["sqnr"] < 30
        assert row["sqnr"] == pytest.approx(sqnr(before[name], decoded), abs=0.05)
        assert 0 < row["output_error"] < 0.1
        assert row["tokens"] > 0
    assert certificate["loaded_by_transformers"]["max_kl"] < 1e-5
    assert 0 < certificate["verdict"]["kl"] < 2


DENSE = dense(installed())
"""Whether the installed release packs 3, 5, 6 and 7 bits densely."""
SCHEMES: dict[str, tuple[dict[str, Any], str]] = {
    "w4a16 g32": ({"format": "int4", "group": 32}, "pack-quantized"),
    "w4a16 g32 asym": ({"format": "int4", "group": 32, "symmetric": False}, "pack-quantized"),
    "w4a16 g128": ({"format": "int4"}, "pack-quantized"),
    "w4a16 g128 asym": ({"format": "int4", "symmetric": False}, "pack-quantized"),
    "w4a16 channel": ({"format": "int4", "group": "channel"}, "pack-quantized"),
    "w4a16 channel asym": ({"format": "int4", "group": "channel", "symmetric": False}, "pack-quantized"),
    "w8a16 g128": ({"format": "int8"}, "pack-quantized"),
    "w8a16 g32 asym": ({"format": "int8", "group": 32, "symmetric": False}, "pack-quantized"),
    "w8a16 channel": ({"format": "int8", "group": "channel"}, "pack-quantized"),
    "w8a8": ({"format": "int8", "group": "channel", "activations": "int8"}, "int-quantized"),
    "fp8": ({"format": "fp8"}, "float-quantized"),
    "fp8 with fp8 activations": ({"format": "fp8", "activations": "fp8"}, "float-quantized"),
    "w2a16 g32": ({"format": "int2", "group": 32}, "pack-quantized"),
    "w2a16 g32 asym": ({"format": "int2", "group": 32, "symmetric": False}, "pack-quantized"),
    **{f"w{b}a16": ({"format": f"int{b}"}, "pack-quantized") for b in UNEVEN if DENSE},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme_is_read_bit_for_bit(name: str, llama: Path, tmp_path: Path) -> None:
    layer, kind = SCHEMES[name]
    out = tmp_path / "out"
    certificate = quantize(llama, out, layer={"method": "mse", **layer})

    config = json.loads((out / "config.json").read_text())["quantization_config"]
    parsed = QuantizationConfig.model_validate(config)
    assert parsed.format == config["format"] == kind
    [group] = parsed.config_groups.values()
    assert group.weights.num_bits == (8 if layer["format"] == "fp8" else int(layer["format"][-1]))
    assert group.weights.symmetric == layer.get("symmetric", True)
    if "activations" in layer:
        assert group.input_activations.dynamic is True
        assert group.input_activations.strategy == "token"
        assert group.input_activations.num_bits == 8
    else:
        assert group.input_activations is None

    model = load(out, dtype=torch.bfloat16)
    as_served = answer(model)  # the library decodes on the first forward
    assert bool(torch.isfinite(as_served).all())
    weights, checkpoint = model.state_dict(), open_checkpoint(out)
    assert len(checkpoint.quantized) == 14
    for matrix in checkpoint.quantized:
        own = checkpoint.qtensor(matrix).decode().to(torch.bfloat16)
        assert raw(weights[matrix]) == raw(own), matrix

    exact = answer(load(out))
    loaded = certificate["loaded_by_transformers"]
    assert loaded["max_kl"] < 1e-5
    if "activations" in layer:
        # The runtime rounds inputs too: an effect that must show, is told apart, and is part of the verdict's decoder.
        assert loaded["activations_kl"] > 0
        assert not torch.allclose(exact, ours(out), atol=1e-3)
        served, kept = (tiny.answer(decoder_of(out, exact=True, rounded=rounded), IDS) for rounded in (True, False))
        assert kl(exact, served).mean() < 0.1 * kl(exact, kept).mean()
    else:
        torch.testing.assert_close(exact, ours(out), rtol=1e-5, atol=1e-5)


def test_groups_that_fit_each_matrix(tmp_path: Path) -> None:
    """By default: what shares an input, and so may be fused, is in one scheme."""
    small, out = tiny.make("llama", tmp_path / "small"), tmp_path / "out"
    certificate = quantize(small, out, layer={"method": "rtn"})
    groups = json.loads((out / "config.json").read_text())["quantization_config"]["config_groups"].values()
    held = {group["weights"]["group_size"]: {name.split(".")[-1] for name in group["targets"]} for group in groups}
    assert held == {128: {"down_proj"}, 64: {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"}}
    assert certificate["loaded_by_transformers"]["max_kl"] < 1e-5
    torch.testing.assert_close(answer(load(out)), ours(out), rtol=1e-5, atol=1e-5)


STUDIES = {
    "int3": 8, "int5": 32, "nf4": 16, "fp4": 15, "mxfp4": 15, "nvfp4": 15, "ternary": 3, "midrise2": 4, "codebook3": 8,
}  # fmt: skip
"""Formats without a packing that any runtime reads -> how many different values a block can hold."""


@pytest.mark.parametrize("name", STUDIES)
def test_formats_without_packing_need_simulate(name: str, llama: Path, tmp_path: Path) -> None:
    method = "lloyd" if name.startswith("codebook") else "rtn"
    layer = {"format": name, "group": 32, "method": method}
    if not (DENSE and name.startswith("int")):
        with pytest.raises(RecipeError, match=f"no stable packing for {name}.*--simulate"):
            quantize(llama, tmp_path / "out", layer=layer)
        assert not list(tmp_path.iterdir())

    out = tmp_path / "out"
    certificate = quantize(llama, out, layer=layer, output="float")
    assert "quantization_config" not in json.loads((out / "config.json").read_text())
    torch.testing.assert_close(answer(load(out)), ours(out), rtol=1e-5, atol=1e-5)
    before, after = stored(llama), stored(out)
    block = 16 if name == "nvfp4" else 32
    for row in certificate["rows"]:
        decoded = after[row["name"]]
        assert decoded.dtype == before[row["name"]].dtype
        values = [len(part.unique()) for part in decoded.reshape(-1, block)]
        assert max(values) <= STUDIES[name]
        assert row["sqnr"] == pytest.approx(sqnr(before[row["name"]], decoded), abs=0.1)


@pytest.mark.parametrize("method", ["rtn", "mse", "gptq", "descent", "lloyd"])
def test_every_method(method: str, llama: Path, tmp_path: Path, text: Path) -> None:
    out = tmp_path / "out"
    form, output = ("codebook4", "float") if method == "lloyd" else ("int4", "compressed-tensors")
    layer = {"format": form, "group": 32, "method": method}
    certificate = quantize(llama, out, layer=layer, output=output, calibration=jobs.words(text))
    assert {row["method"] for row in certificate["rows"]} == {method}
    assert not any(row["notes"] for row in certificate["rows"])
    assert (certificate["rows"][0]["tokens"] == 4 * 32) == (method != "rtn")
    torch.testing.assert_close(answer(load(out)), ours(out), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("name", ["int4", "int2", "nf4"])
def test_a_better_method_has_a_smaller_output_error(name: str, symmetric: bool) -> None:
    seeded = torch.Generator().manual_seed(2)
    w = torch.randn(96, 128, generator=seeded)
    x = torch.randn(512, 128, generator=seeded) @ torch.randn(128, 128, generator=seeded)  # inputs that correlate
    stats, form = Stats.of(x), named(name, group=32, symmetric=symmetric, scale="bf16")

    def error(q: Any) -> float:
        return layer_error(w - q.decode(), stats.hessian) / layer_error(w, stats.hessian)

    nearest = error(rtn.quantize(w, form, stats))
    fed_back = error(gptq.quantize(w, form, stats))
    refined = error(descent.quantize(w, form, stats))
    assert 0 < refined <= fed_back <= nearest < 1


def test_a_tied_head_is_stored_apart(tmp_path: Path) -> None:
    source, out = tiny.make("qwen2", tmp_path / "source"), tmp_path / "out"
    rules = [{"match": "lm_head", "format": "int8", "group": "channel"}]
    layer = {"method": "rtn", "group": 32}
    with pytest.raises(RecipeError, match="untie = true"):
        quantize(source, out, layer=layer, rules=rules)
    certificate = quantize(source, out, layer=layer, rules=rules, untie=True)
    before, after = stored(source), stored(out)
    assert "lm_head.weight" not in before
    assert raw(after["model.embed_tokens.weight"]) == raw(before["model.embed_tokens.weight"])
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False

    user = load(out)
    theirs = answer(user)
    torch.testing.assert_close(theirs, ours(out), rtol=1e-5, atol=1e-5)
    head, embedding = user.get_output_embeddings().weight, user.get_input_embeddings().weight
    assert torch.equal(embedding, before["model.embed_tokens.weight"].float())
    assert torch.equal(head, open_checkpoint(out).qtensor("lm_head.weight").decode())
    assert 35 < sqnr(embedding.detach(), head.detach()) < 60
    assert any(row["format"].startswith("int8") for row in certificate["rows"])


def test_a_mixed_recipe_loads(llama: Path, tmp_path: Path, text: Path) -> None:
    out = tmp_path / "out"
    rules = [
        {"match": "*.down_proj", "format": "int8", "group": "channel"},
        {"match": "*.layers.1.self_attn.?_proj", "format": "fp8", "group": "channel", "method": "rtn"},
        {"match": "*.layers.0.self_attn.v_proj.weight", "format": "float"},
    ]
    certificate = quantize(llama, out, layer={"group": 32}, rules=rules, calibration=jobs.words(text))
    kinds = {row["name"]: row["format"] for row in certificate["rows"]}
    assert len(kinds) == 13
    assert certificate["kept_float"] == {"model.layers.0.self_attn.v_proj.weight": "kept float on request"}
    assert kinds["model.layers.0.mlp.down_proj.weight"] == "int8 channel"
    assert kinds["model.layers.1.self_attn.q_proj.weight"] == "fp8 channel"
    assert kinds["model.layers.0.self_attn.q_proj.weight"] == "int4 g32"
    name = "model.layers.0.self_attn.v_proj.weight"
    assert raw(stored(out)[name]) == raw(stored(llama)[name])
    parsed = QuantizationConfig.model_validate(json.loads((out / "config.json").read_text())["quantization_config"])
    assert len(parsed.config_groups) == 3
    user = load(out)
    torch.testing.assert_close(answer(user), ours(out), rtol=1e-5, atol=1e-5)
    assert torch.equal(user.state_dict()[name], stored(llama)[name].float())


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe"])
def test_experts_are_counted_and_fall_back_by_name(kind: str, tmp_path: Path, text: Path) -> None:
    source, out = tiny.make(kind, tmp_path / "source"), tmp_path / "out"
    least = 60
    calibration = {**jobs.words(text), "min_expert_tokens": least}
    certificate = quantize(source, out, layer={"group": 32}, calibration=calibration)
    experts = [row for row in certificate["rows"] if ".experts." in row["name"]]
    assert len(experts) == 2 * 4 * 3
    # Two of four experts see each of the 4 x 32 tokens, in both blocks and by all three matrices.
    assert sum(row["tokens"] for row in experts) == 2 * (4 * 32) * 2 * 3
    few = [row for row in experts if row["tokens"] < least]
    assert 0 < len(few) < len(experts), "choose another limit: the test wants experts on both sides"
    for row in experts:
        number = row["name"].split(".experts.")[1].split(".")[0]
        said = f"expert {number} saw {row['tokens']} of {least} tokens needed"
        assert row["method"] == ("mse" if row["tokens"] < least else "descent")
        assert (f"{said}: mse instead of descent" in row["notes"]) == (row["tokens"] < least)


def test_a_sharded_model_and_its_certificate(tmp_path: Path) -> None:
    source = tiny.make("llama", tmp_path / "source", max_shard="100KB")
    assert len(list(source.glob("*.safetensors"))) > 3
    whole = tiny.make("llama", tmp_path / "whole")
    first = quantize(source, tmp_path / "a", layer={"group": 32, "method": "rtn"})
    quantize(whole, tmp_path / "b", layer={"group": 32, "method": "rtn"})
    a, b = stored(tmp_path / "a"), stored(tmp_path / "b")
    assert {name: raw(value) for name, value in a.items()} == {name: raw(value) for name, value in b.items()}
    assert len(first["source"]["sha256"]) == len(list(source.glob("*.safetensors")))
    assert not (tmp_path / "a" / "model.safetensors.index.json").exists()
    load(tmp_path / "a")


def test_sharded_output_has_an_index(tmp_path: Path) -> None:
    size = {"hidden_size": 256, "head_dim": 64, "intermediate_size": 512, "num_hidden_layers": 3}
    source, out = tiny.make("llama", tmp_path / "source", **size), tmp_path / "out"
    certificate = quantize(source, out, layer={"format": "int8", "method": "rtn"}, max_shard_bytes=1_000_000)
    files = sorted(out.glob("*.safetensors"))
    assert len(files) >= 3
    assert all(path.stat().st_size < 1_100_000 for path in files)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    tensors = stored(out)
    assert set(index["weight_map"]) == set(tensors)
    assert set(index["weight_map"].values()) == {path.name for path in files}
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    for path in files:
        with safe_open(path, "pt") as file:
            assert all(index["weight_map"][name] == path.name for name in file.keys())  # noqa: SIM118
    assert set(certificate["output"]["sha256"]) == {path.name for path in files}
    torch.testing.assert_close(answer(load(out)), ours(out), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_text_of_the_models_own_is_reproducible(tmp_path: Path) -> None:
    source = tiny.make("llama", tmp_path / "source")

    def once(name: str, seed: int) -> dict[str, Any]:
        calibration = {"source": "self", "windows": 4, "length": 32, "heldout_windows": 2, "seed": seed}
        return quantize(source, tmp_path / name, layer={"group": 32}, calibration=calibration)

    a, b, other = once("a", 0), once("b", 0), once("c", 1)
    assert a["output"]["sha256"] == b["output"]["sha256"]
    assert a["text"] == b["text"]
    assert a["text"]["calibration"]["sha256"] != other["text"]["calibration"]["sha256"]
    assert a["output"]["sha256"] != other["output"]["sha256"]
    assert not (tmp_path / "a" / "self-written.pt").exists()


def test_text_written_for_another_seed_is_not_taken_over(tmp_path: Path) -> None:
    source = tiny.make("llama", tmp_path / "source")

    def write(seed: int) -> Any:
        calibration = {"source": "self", "windows": 4, "length": 32, "heldout_windows": 2, "seed": seed}
        plan = jobs.made(source, tmp_path / "out", layer={"group": 32}, calibration=calibration)
        plan.partial.mkdir(exist_ok=True)
        (plan.partial / MARK).touch()
        steps = plan.model.read_data(plan)  # stopped before the first tensor
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value

    first, again, other = write(0), write(0), write(1)
    assert first.calibration_hash == again.calibration_hash
    assert first.calibration_hash != other.calibration_hash


TARGETS = {
    "codes": "model.layers.1.mlp.up_proj.weight_packed",
    "scale": "model.layers.0.self_attn.k_proj.weight_scale",
    "copy": "model.layers.1.input_layernorm.weight",
    "head": "lm_head.weight",
    "header": None,
}


@pytest.mark.parametrize("what", TARGETS)
def test_certification_finds_one_flipped_bit(what: str, llama: Path, tmp_path: Path) -> None:
    plan = jobs.made(llama, tmp_path / "out", layer={"method": "rtn", "group": 32})
    events = run(plan)
    for event in events:
        if isinstance(event, Started) and event.phase == "certify":
            break
    name = TARGETS[what]
    [path] = plan.partial.glob("*.safetensors")
    data = bytearray(path.read_bytes())
    at = data.index(b"v_proj") if name is None else sink_of(plan).layout.place[name][1] + 1
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(CertificationError, match=name or path.name):
        list(events)
    assert not plan.out.exists()
    assert plan.partial.exists()

    # The same command writes the damaged part anew, and then finishes.
    assert isinstance(list(run(plan))[-1], Finished)
    assert plan.out.exists()


def test_check_finds_a_bit_flipped_after_certification(llama: Path, tmp_path: Path) -> None:
    plan = jobs.made(llama, tmp_path / "out", layer={"method": "rtn", "group": 32})
    jobs.finish(plan)
    good = [event for event in check(plan.out) if isinstance(event, Finding)]
    assert all(finding.good for finding in good)
    assert "certificate" in [finding.what for finding in good]
    [path] = plan.out.glob("*.safetensors")
    data = bytearray(path.read_bytes())
    data[sink_of(plan).layout.place[TARGETS["codes"]][1]] ^= 1  # another code, as finite as the first
    path.write_bytes(data)
    [bad] = [event for event in check(plan.out) if isinstance(event, Finding) and not event.good]
    assert (bad.what, bad.detail.split()[0]) == ("certificate", path.name)
