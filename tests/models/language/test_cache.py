"""Keys and values rounded as a model runs: transformers rounds as we do, scales fit, and damage is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import bitwright
from bitwright import machine
from bitwright.core import fixed
from bitwright.core.fixed import noise
from bitwright.core.formats import named
from bitwright.core.grid import INT, Grid
from bitwright.core.measure import kl
from bitwright.core.observe import Histogram
from bitwright.core.scaling import NUMBERS
from bitwright.errors import BitwrightError, CertificationError, ModelError, RecipeError
from bitwright.events import Event, Finding, Progress, Row
from bitwright.files.containers import registry
from bitwright.files.folder import open_checkpoint
from bitwright.models.language import cache, sensitivity
from bitwright.models.language.arch import Architecture
from bitwright.models.language.blocks import Passage
from bitwright.models.language.check import check
from bitwright.models.language.compare import decoder_of
from bitwright.models.model import Aside
from tests import jobs, tiny

FORMATS = ("fp8", "int8", "int4")
CT = "compressed-tensors"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def llama(home: Path) -> Path:
    return tiny.make("llama", home / "llama")


@pytest.fixture(scope="module")
def text(home: Path) -> Path:
    return jobs.text(home)


def recipe(text: Path, format: str, **more: Any) -> dict[str, Any]:
    layer = {"format": "int8", "group": "channel", "method": "rtn"}
    return {"layer": layer, "kv_cache": format, "calibration": jobs.words(text), **more}


@pytest.fixture(scope="module")
def outputs(llama: Path, text: Path, home: Path) -> dict[str, Path]:
    """An output of each format."""
    for format in FORMATS:
        jobs.finish(jobs.made(llama, home / format, **recipe(text, format)))
    return {format: home / format for format in FORMATS}


def ids() -> torch.Tensor:
    return torch.randint(1, 1000, (2, 40), generator=torch.Generator().manual_seed(1))


def loaded(folder: Path) -> Any:
    """The folder as a user loads it, and nothing missing or left over."""
    model, found = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(found.values()), found
    return model.eval()


@torch.no_grad()
def answers(model: Any, **options: Any) -> torch.Tensor:
    logits: torch.Tensor = model(ids(), **options).logits
    return logits


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma3", "phi3", "qwen3"])
def test_transformers_rounds_as_we_do(kind: str, format: str, text: Path, tmp_path: Path) -> None:
    """Grouped queries, sliding windows, one matrix for all three, norms on keys: each family's own attention."""
    source = tiny.make(kind, tmp_path / kind)
    jobs.finish(jobs.made(source, tmp_path / "out", **recipe(text, format)))
    model = loaded(tmp_path / "out")
    rounded = answers(model, use_cache=False)
    ours = tiny.answer(decoder_of(tmp_path / "out", exact=True), ids())
    floats = tiny.answer(decoder_of(tmp_path / "out", exact=True, rounded=False), ids())
    cost = float(kl(floats, rounded).mean())
    assert cost > 1e-6
    assert float(kl(ours, rounded).mean()) < 0.01 * cost
    torch.testing.assert_close(answers(model, use_cache=True), rounded)  # what it keeps is what it computes with


def test_more_bits_cost_less(outputs: dict[str, Path]) -> None:
    def cost(folder: Path) -> float:
        certificate = json.loads((folder / "certificate.json").read_text())
        return float(certificate["loaded_by_transformers"]["activations_kl"])

    assert cost(outputs["int8"]) < cost(outputs["fp8"]) < cost(outputs["int4"])


@pytest.mark.parametrize("method", ["rtn", "gptq"])
@pytest.mark.parametrize("format", FORMATS)
def test_scales_fit_what_the_quantized_network_keeps(
    format: str, method: str, llama: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen from outside: what its own attentions keep of the calibration windows, as transformers runs the output."""
    asked: dict[str, Any] = recipe(text, format)
    asked["layer"] |= {"method": method}
    monkeypatch.setattr(machine, "calibration_dtype", lambda device: torch.float32)
    plan = jobs.made(llama, tmp_path / "out", **asked)
    read: list[Any] = []
    prepare = plan.model.read_data

    def reading(plan: Any) -> Any:
        read.append((yield from prepare(plan)))
        return read[0]

    monkeypatch.setattr(plan.model, "read_data", reading)
    jobs.finish(plan)
    held, grid = plan.container.cache, named(format).code
    assert held is not None and isinstance(grid, Grid)
    model, kept = loaded(tmp_path / "out"), dict[str, list[torch.Tensor]]()
    for name, module in model.named_modules():
        if name.endswith("self_attn.kv_cache"):

            def keep(_: Any, args: Any, owner: str = name.removesuffix(".kv_cache")) -> None:
                for side, x in zip(("k_scale", "v_scale"), args[:2], strict=True):
                    kept.setdefault(f"{owner}.{side}", []).append(x)

            module.register_forward_pre_hook(keep)
    with torch.no_grad():
        model(read[0].calibration, use_cache=False)
    assert kept.keys() == held.scales.keys() and len(kept) == 4
    for name, parts in kept.items():
        x, scale = torch.cat(parts), model.get_parameter(name).data
        assert tuple(scale.shape) == held.scales[name]
        for head, one in zip(x.unbind(1) if held.heads else [x], scale.flatten(), strict=True):
            seen = Histogram.of(head)
            best = fixed.fit(seen, grid, NUMBERS["bf16"])
            # What passes block by block is summed up in another order than here.
            if name.endswith("v_scale"):
                assert noise(seen, [float(one)], grid)[0] <= 1.005 * noise(seen, [best], grid)[0]
            largest = max(seen.high, -seen.low) / grid.high
            assert 0.99 * min(best, largest) <= float(one) <= 1.01 * max(best, largest)


@pytest.mark.parametrize("format", FORMATS)
def test_of_the_scales_of_keys_that_is_taken_which_changes_answers_least(format: str, llama: Path) -> None:
    """Each of those tried, by hand: the others change what the block answers more."""
    held = registry.get(CT).cached(format, Architecture.open(llama).model)
    errors, chosen = {}, torch.empty(0)
    for shares in (cache.SHARES, *((share,) for share in cache.SHARES)):
        arch = Architecture.open(llama)
        keeper = cache.Keeper(held, arch, cache.attentions(arch, held.cache), lambda name: None, shares)
        decoder, passage = decoder_of(llama), Passage(ids())
        hidden = decoder.enter(passage)
        with decoder.loaded(0) as module:

            def answers() -> Iterator[torch.Tensor]:
                yield decoder.run(0, hidden.clone(), Passage(ids()))  # noqa: B023

            with keeper.recording(0, module):
                exact = decoder.run(0, hidden.clone(), passage)
            ((_, found),) = [(a.name, dict(a.tensors)) for a in keeper.choose(0, module, answers)]
            keys = {name: tensor for name, tensor in found.items() if name.endswith("k_scale")}
            with keeper.rounding(0, module, keys):
                error = float((next(answers()) - exact).square().sum())
        if len(shares) == 1:
            errors[shares[0]] = error
        else:
            chosen = torch.tensor(error)
    assert float(chosen) == min(errors.values()) < max(errors.values())
    assert errors[1.0] != errors[0.0]


def test_scales_lie_between_the_largest_value_and_the_best_fit() -> None:
    x = torch.randn(4, 2, 500, 16, generator=torch.Generator().manual_seed(2)) * torch.tensor([1.0, 8.0])[:, None, None]
    seen, grid, number = cache.Seen([]), INT[4], NUMBERS["fp32"]
    for part in x.split(1):
        seen.add(part, heads=True)
    first, half, last = (seen.scales(grid, number, share) for share in (0.0, 0.5, 1.0))
    assert first == pytest.approx([float(part.abs().max()) / 7 for part in x.unbind(1)])
    assert last == [fixed.fit(Histogram.of(part), grid, number) for part in x.unbind(1)]
    assert half == pytest.approx([(a * b) ** 0.5 for a, b in zip(first, last, strict=True)])
    assert cache.Seen([Histogram()]).scales(grid, number, 0.0) == [1.0]  # nothing passed


def test_scales_are_stored_in_the_weights_dtype(outputs: dict[str, Path], text: Path, tmp_path: Path) -> None:
    """Runtimes load them in it: what was judged is what they divide by."""
    for format, folder in outputs.items():
        stored = {n: t for n, t in load_file(folder / "model.safetensors").items() if n.endswith(cache_ends)}
        assert {t.dtype for t in stored.values()} == {torch.bfloat16}
        assert {tuple(t.shape) for t in stored.values()} == {(1,) if format == "fp8" else (2, 1, 1)}
    half = tiny.make("llama", tmp_path / "half", dtype=torch.float16)
    jobs.finish(jobs.made(half, tmp_path / "out", **recipe(text, "int8")))
    assert load_file(tmp_path / "out" / "model.safetensors")["model.layers.0.self_attn.k_scale"].dtype == torch.float16


cache_ends = (".k_scale", ".v_scale")


def test_config_says_what_runtimes_read(outputs: dict[str, Path]) -> None:
    for format, folder in outputs.items():
        scheme = json.loads((folder / "config.json").read_text())["quantization_config"]["kv_cache_scheme"]
        assert (scheme["num_bits"], scheme["type"], scheme["strategy"], scheme["symmetric"], scheme["dynamic"]) == {
            "fp8": (8, "float", "tensor", True, False),
            "int8": (8, "int", "attn_head", True, False),
            "int4": (4, "int", "attn_head", True, False),
        }[format]
        lines = json.loads((folder / "certificate.json").read_text())["runtimes"]
        assert "rounds keys and values but packs none" in lines[0]
        assert lines[1].startswith("vLLM") if format == "fp8" else "symmetric fp8 only" in lines[1]


def test_without_the_option_nothing_is_said_of_it(llama: Path, text: Path, tmp_path: Path) -> None:
    asked = recipe(text, "float")
    certificate = jobs.finish(jobs.made(llama, tmp_path / "out", **asked))
    assert "cache" not in certificate["verdict"]
    assert not any(n.endswith(cache_ends) for n in load_file(tmp_path / "out" / "model.safetensors"))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization_config"]["kv_cache_scheme"] is None


def test_verdict_and_measure_are_of_the_rounded_cache(outputs: dict[str, Path], llama: Path, text: Path) -> None:
    certificate = json.loads((outputs["int4"] / "certificate.json").read_text())
    assert certificate["verdict"]["cache"] == {
        "held": "int4, one scale per head", "tokens": 1000,
        "bytes_float": 1000 * 2 * 2 * 2 * 16 * 2, "bytes": 1000 * 2 * 2 * 2 * 16 // 2,
    }  # fmt: skip
    found = {f: bitwright.measure(llama, outputs[f], str(text), windows=4, length=32) for f in FORMATS}
    assert found["int4"].summary["kl"] > 1.5 * found["int8"].summary["kl"]
    assert certificate["verdict"]["kl"] > 1.5 * _verdict(outputs["int8"])["kl"]


def _verdict(folder: Path) -> Any:
    return json.loads((folder / "certificate.json").read_text())["verdict"]


def test_plan_report_and_card_tell_the_sizes(outputs: dict[str, Path], llama: Path) -> None:
    plan = bitwright.plan(llama, kv_cache="int4", calib="stdlib")
    assert "keys and values as int4, one scale per head: 0.26 MB -> 64.0 kB per 1,000 tokens" in str(plan)
    assert plan.summary["cache"]["bytes"] == 64_000
    for told in (str(bitwright.report(outputs["int4"])), (outputs["int4"] / "README.md").read_text()):
        assert "KV cache" in told and "64.0 kB" in told and "per 1,000 tokens; int4, one scale per head" in told


def test_a_sliding_window_holds_no_more_tokens_than_it_is_long(tmp_path: Path) -> None:
    source = tiny.make("gemma3", tmp_path / "gemma3")
    held = bitwright.plan(source, kv_cache="fp8", calib="stdlib").summary["cache"]
    assert held["bytes"] == (16 + 1000) * 2 * 2 * 16


def test_data_free_methods_round_to_what_the_model_writes_itself(llama: Path, tmp_path: Path) -> None:
    words = {"windows": 2, "length": 16, "heldout_windows": 2}
    asked = {"layer": {"format": "int8", "group": "channel", "method": "rtn"}, "calibration": words}
    jobs.finish(jobs.made(llama, tmp_path / "plain", **asked))
    certificate = jobs.finish(jobs.made(llama, tmp_path / "out", kv_cache="fp8", **asked))
    assert certificate["text"]["calibration"]["source"] == "self"
    plain, kept = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "out"))
    assert kept.keys() - plain.keys() == {f"model.layers.{i}.self_attn.{s}_scale" for i in (0, 1) for s in "kv"}
    assert all(torch.equal(plain[name], kept[name]) for name in plain)  # the weights are those of plain rounding


def test_effort_fast_says_that_scales_fit_the_float_network(llama: Path, text: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = recipe(text, "int8", effort="fast")
    asked["layer"]["method"] = "gptq"
    certificate = jobs.finish(jobs.made(llama, tmp_path / "out", **asked))
    assert any("of the float network, not of its copy" in note for note in certificate["notes"])
    assert certificate["loaded_by_transformers"]["checked"]


STOPS: dict[str, Callable[[Event], bool]] = {
    "before any scale": lambda event: isinstance(event, Row),
    "between a block's scales and its last matrix": lambda e: isinstance(e, Row) and e.name.endswith("0.mlp.gate_proj.weight"),  # noqa: E501
    "while keys pass": lambda e: isinstance(e, Progress) and e.label.startswith("keys and values of block 2"),
    "after the last matrix": lambda e: isinstance(e, Row) and e.name.endswith("1.mlp.down_proj.weight"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rtn", "gptq", "blockwise", "lsq"])
def test_a_killed_run_ends_with_the_same_bytes(method: str, llama: Path, text: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = recipe(text, "int4")
    asked["layer"] = {"format": "int4", "group": 32, "method": method}
    if method == "blockwise":
        asked["layer"]["options"] = {"steps": 3}
    whole = tmp_path / "whole"
    jobs.finish(jobs.made(llama, whole, **asked))
    for number, stop in enumerate(STOPS.values()):
        out = tmp_path / str(number)
        assert len(jobs.stop_after(jobs.made(llama, out, **asked), stop)) > 1
        assert not out.exists()
        jobs.finish(jobs.made(llama, out, **asked))
        for name in ("model.safetensors", "config.json"):
            assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_a_damaged_scale_is_chosen_anew(llama: Path, text: Path, tmp_path: Path) -> None:
    """The journal's checksum tells; a scale of an earlier run is not trusted as it lies there."""
    asked = recipe(text, "int4")
    whole, out = tmp_path / "whole", tmp_path / "out"
    jobs.finish(jobs.made(llama, whole, **asked))
    plan = jobs.made(llama, out, **asked)
    jobs.stop_after(plan, STOPS["after the last matrix"])
    sink: Any = plan.sink
    name = sink.asides[0]
    sink.put(Aside(name, {key: tensor * 3 for key, tensor in sink.kept(name).tensors.items()}))
    jobs.finish(jobs.made(llama, out, **asked))
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_trial_rounds_the_cache_and_hands_its_scales_on(
    llama: Path, text: Path, outputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which matrices stay float is found out with the cache rounded, and the scales move with the codes."""
    compared: list[Any] = []
    compare = sensitivity.compare_decoders

    def watched(p: Any, q: Any, *args: Any, **options: Any) -> Any:
        compared.append((p._kept, q._kept))
        return compare(p, q, *args, **options)

    monkeypatch.setattr(sensitivity, "compare_decoders", watched)
    jobs.finish(jobs.made(llama, tmp_path / "trial", **recipe(text, "int4", max_drop=1e6)))
    assert [(p, len(q.attentions)) for p, q in compared] == [(None, 2)]
    trial, plain = (load_file(folder / "model.safetensors") for folder in (tmp_path / "trial", outputs["int4"]))
    assert trial.keys() == plain.keys() and all(torch.equal(trial[name], plain[name]) for name in plain)


# --- what it refuses


def refused(source: Path, text: Path, format: str, **more: Any) -> BitwrightError:
    with pytest.raises(BitwrightError) as caught:
        jobs.made(source, source.with_name("never"), **recipe(text, format, **more))
    assert not source.with_name("never").exists()
    assert "\n" not in str(caught.value) and caught.value.key == "kv_cache"
    return caught.value


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "jetmoe", "opt"])
def test_networks_that_the_runtime_would_not_round_are_refused_by_name(kind: str, text: Path, tmp_path: Path) -> None:
    source = tiny.make(kind, tmp_path / kind)
    error = refused(source, text, "fp8")
    assert isinstance(error, RecipeError) and type(transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.from_pretrained(source))).__name__ in str(error)  # fmt: skip
    assert "Leave --kv-cache out" in str(error)


def test_latent_attention_is_refused(text: Path, tmp_path: Path) -> None:
    config = transformers.DeepseekV3Config(
        vocab_size=1024, hidden_size=64, intermediate_size=128, moe_intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, n_routed_experts=4, num_experts_per_tok=2, n_group=1,
        topk_group=1, kv_lora_rank=16, q_lora_rank=32, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=16,
        first_k_dense_replace=2, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "deepseek")
    assert "from a latent (kv_b_proj)" in str(refused(tmp_path / "deepseek", text, "fp8"))


def test_a_cache_that_no_runtime_rounds_is_refused(text: Path, tmp_path: Path) -> None:
    """transformers unpacks fused experts on loading and then leaves the cache alone; vLLM reads fp8 only."""
    source = tiny.make("mixtral", tmp_path / "mixtral")
    assert "it fuses experts" in str(refused(source, text, "int8"))
    certificate = jobs.finish(jobs.made(source, tmp_path / "out", **recipe(text, "fp8")))
    assert "leaves keys and values as they are" in certificate["runtimes"][0]
    assert certificate["loaded_by_transformers"]["checked"] and "rounded" not in certificate["loaded_by_transformers"]


def test_decoded_weights_cannot_say_it(llama: Path, text: Path) -> None:
    assert "float cannot say how keys and values are rounded" in str(refused(llama, text, "fp8", output="float"))


def test_unknown_formats_get_the_nearest(llama: Path) -> None:
    with pytest.raises(RecipeError, match=r"kv_cache.*int8"):
        bitwright.plan(llama, kv_cache="int08")


def test_networks_of_onnx_have_no_such_option(tmp_path: Path) -> None:
    path, _ = jobs.network("mlp", tmp_path)
    with pytest.raises(RecipeError, match=r"is for language models only.*Leave it out for ONNX networks"):
        bitwright.plan(path, kv_cache="fp8")


# --- what others wrote, and damage


def damaged(folder: Path, to: Path, change: Callable[[dict[str, torch.Tensor], dict[str, Any]], None]) -> Path:
    shutil.copytree(folder, to)
    tensors, config = load_file(to / "model.safetensors"), json.loads((to / "config.json").read_text())
    change(tensors, config["quantization_config"]["kv_cache_scheme"])
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    (to / "config.json").write_text(json.dumps(config))
    return to


NAME = "model.layers.1.self_attn.v_scale"
FAULTS: dict[str, Callable[[dict[str, torch.Tensor], dict[str, Any]], Any]] = {
    "missing": lambda tensors, scheme: tensors.pop(NAME),
    "not finite": lambda tensors, scheme: tensors[NAME].fill_(float("nan")),
    "not positive": lambda tensors, scheme: tensors[NAME].mul_(-1),
    "needs": lambda tensors, scheme: tensors.update({NAME: torch.ones(3, 1, 1)}),
}


def findings(folder: Path) -> dict[str, Finding]:
    return {event.what: event for event in check(folder) if isinstance(event, Finding)}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("fault", FAULTS)
def test_check_finds_scales_that_are_none(fault: str, format: str, outputs: dict[str, Path], tmp_path: Path) -> None:
    folder = damaged(outputs[format], tmp_path / "damaged", FAULTS[fault])
    found = findings(folder)["keys and values"]
    assert found.good is False and fault in found.detail and NAME in found.detail
    with pytest.raises(BitwrightError, match=fault):
        decoder_of(folder)


def test_check_reads_the_scales(outputs: dict[str, Path]) -> None:
    for format, folder in outputs.items():
        found = findings(folder)
        assert found["keys and values"].good and format in found["keys and values"].detail
        assert all(finding.good for finding in found.values())


def test_schemes_that_are_not_understood_are_said_to_be(outputs: dict[str, Path], llama: Path, tmp_path: Path) -> None:
    folder = damaged(outputs["int8"], tmp_path / "other", lambda tensors, scheme: scheme.update(symmetric=False))
    assert findings(folder)["keys and values"].good is None
    with pytest.raises(BitwrightError, match="cannot be rounded here"):
        bitwright.measure(llama, folder, "stdlib", windows=2, length=32)


def test_integers_with_one_scale_are_read(outputs: dict[str, Path], tmp_path: Path) -> None:
    """As other tools write them."""

    def change(tensors: dict[str, torch.Tensor], scheme: dict[str, Any]) -> None:
        scheme.update(type="int")
        tensors.update({n: t * 448 / 127 for n, t in tensors.items() if n.endswith(cache_ends)})

    folder = damaged(outputs["fp8"], tmp_path / "other", change)
    assert "int8, one scale per attention" in findings(folder)["keys and values"].detail
    ours = tiny.answer(decoder_of(folder, exact=True), ids())
    assert float(kl(answers(loaded(folder)), ours).mean()) < 1e-6


def test_a_runtime_that_takes_other_scales_is_found_out(
    llama: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = jobs.made(llama, tmp_path / "out", **recipe(text, "int8"))
    load = type(plan.container).load

    def other(self: Any, folder: Path, unpack: bool) -> Any:
        model = load(self, folder, unpack)
        model.get_parameter(NAME).data *= 2
        return model

    monkeypatch.setattr(type(plan.container), "load", other)
    with pytest.raises(CertificationError, match="does not take it as it is stored"):
        jobs.finish(plan)


def test_a_runtime_that_does_not_round_is_found_out(
    llama: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = jobs.made(llama, tmp_path / "out", **recipe(text, "int4"))
    load = type(plan.container).load

    def other(self: Any, folder: Path, unpack: bool) -> Any:
        model = load(self, folder, unpack)
        model.get_submodule("model.layers.0.self_attn").quantization_enabled = False
        return model

    monkeypatch.setattr(type(plan.container), "load", other)
    with pytest.raises(CertificationError, match="rounds keys and values differently"):
        jobs.finish(plan)


def test_the_watch_changes_nothing_and_leaves_nothing(llama: Path) -> None:
    arch = Architecture.open(llama)
    held = jobs.made(llama, llama.with_name("never"), kv_cache="fp8").container.cache
    kept, seen = cache.attentions(arch, held), list[str]()

    def see(scale: str, x: torch.Tensor) -> torch.Tensor:
        seen.append(scale)
        return x

    plain, watched = decoder_of(llama), decoder_of(llama)
    watched._kept = cache.Kept(kept, see)
    assert torch.equal(tiny.answer(plain, ids()), tiny.answer(watched, ids()))
    assert seen == [scale for one in kept for scale in one.scales] and len(seen) == 4
    assert not any(module._forward_pre_hooks for module in watched.model.modules())


def test_an_attention_that_asks_more_of_the_cache_is_named(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.llama.modeling_llama import LlamaAttention

    forward = LlamaAttention.forward

    def asking(self: Any, *args: Any, past_key_values: Any = None, **kwargs: Any) -> Any:
        past_key_values.get_seq_length()
        return forward(self, *args, past_key_values=past_key_values, **kwargs)

    arch = Architecture.open(llama)
    kept = cache.attentions(arch, jobs.made(llama, llama.with_name("never"), kv_cache="fp8").container.cache)
    decoder = decoder_of(llama)
    decoder._kept = cache.Kept(kept, lambda scale, x: x)
    monkeypatch.setattr(LlamaAttention, "forward", asking)
    with pytest.raises(ModelError, match="a cache that is rounded has no get_seq_length"):
        tiny.answer(decoder, ids())


def test_stored_names_are_the_files_own(outputs: dict[str, Path]) -> None:
    written = open_checkpoint(outputs["fp8"])
    assert not any(name.endswith(cache_ends) for name in written.tensors), "scales are no tensors of the network"
