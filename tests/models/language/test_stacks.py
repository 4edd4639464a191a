"""Experts that a checkpoint stores in one tensor are quantized one by one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bitwright.errors import RecipeError
from bitwright.library import check
from bitwright.methods import rtn
from bitwright.models.language.arch import Architecture
from bitwright.models.language.blocks import Decoder, Passage
from bitwright.models.language.watch import Recorder, addresses
from tests import jobs, tiny

SINGLE = "model.safetensors"
KINDS = ("gpt_oss", "llama4", "aria", "granitemoe", "jetmoe")
TRANSPOSED = ("gpt_oss", "llama4", "aria")
RTN = {"method": "rtn", "group": 32}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("stacks")
    return {kind: tiny.make(kind, base / kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_every_slice_is_a_matrix(kind: str, models: dict[str, Path]) -> None:
    arch = Architecture.open(models[kind])
    experts = [m for m in arch.quantizable() if m.expert is not None]
    stacks = [e for e in arch.checkpoint.tensors.values() if e.part_of is not None]
    assert len(stacks) == len(experts) >= 16 and {m.expert for m in experts} == {0, 1, 2, 3}
    assert {m.transposed for m in experts} == {kind in TRANSPOSED}
    shapes = {(m.rows, m.columns) for m in experts}
    assert {(192, 64), (64, 96)} <= shapes  # gate and up of 96 each take 64 in, down gives 64 out


@pytest.mark.parametrize("kind", KINDS)
def test_each_expert_has_statistics_of_its_own(kind: str, models: dict[str, Path]) -> None:
    arch = Architecture.open(models[kind])
    decoder = Decoder(arch)
    ids = torch.randint(0, 1024, (2, 24), generator=torch.Generator().manual_seed(1))
    passage = Passage(ids)
    hidden = decoder.enter(passage)
    experts = [m for m in arch.quantizable() if m.expert is not None and m.block == 0]
    with decoder.loaded(0) as block:
        recorder = Recorder(addresses(block, f"{arch.blocks}.0", experts))
        with recorder:
            decoder.run(0, hidden, passage)
    chosen = 1 if kind == "llama4" else 2
    for columns in {m.columns for m in experts}:
        stats = [recorder.stats[recorder.leader[m.name]] for m in experts if m.columns == columns]
        assert all(s.moment.shape == (columns, columns) for s in stats)
        layers = len({m.param for m in experts if m.columns == columns})
        assert sum(s.n for s in stats) == layers * chosen * ids.numel()
    # The inputs of one expert, followed by hand: what its first matrix makes of them is what the second one takes.
    assert len({s.n for s in recorder.stats.values()}) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_decoded_experts_keep_name_and_shape(kind: str, models: dict[str, Path], tmp_path: Path) -> None:
    plan = jobs.made(models[kind], tmp_path / "out", layer=RTN, output="float")
    certificate = jobs.finish(plan)
    assert certificate["loaded_by_transformers"]["checked"] is True
    before, after = load_file(models[kind] / SINGLE), load_file(tmp_path / "out" / SINGLE)
    assert {n: t.shape for n, t in after.items()} == {n: t.shape for n, t in before.items()}
    stacks = [name for name, tensor in before.items() if tensor.dim() == 3]
    for name in stacks:
        format = next(item.format for item in plan.items.values() if item.name.startswith(name.removesuffix(".weight")))
        for w, written in zip(before[name], after[name], strict=True):
            turned = kind in TRANSPOSED
            matrix = (w.T if turned else w).contiguous().float()
            decoded = rtn.quantize(matrix, format).decode()
            assert torch.equal(written, (decoded.T if turned else decoded).to(written.dtype))
    found = check(tmp_path / "out", models[kind], watch=False)
    assert found.sound is True and {row.name for row in found.rows} == set(plan.items)


@pytest.mark.parametrize("kind", KINDS)
def test_no_packed_form_is_said_so(kind: str, models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"experts in one tensor, and transformers reads no packed form") as error:
        jobs.made(models[kind], tmp_path / "out", layer=RTN)
    assert type(Architecture.open(models[kind]).model).__name__ in str(error.value)
    assert "--simulate" in str(error.value) and error.value.key == "output"


def test_float_experts_beside_packed_layers(models: dict[str, Path], tmp_path: Path) -> None:
    """They stand in `ignore` under the names that vLLM looks up, and transformers loads them as they are."""
    rules = [{"match": "*.experts.*", "format": "float"}]
    plan = jobs.made(models["gpt_oss"], tmp_path / "out", layer=RTN, rules=rules, max_float_percent=100)
    certificate = jobs.finish(plan)
    assert certificate["loaded_by_transformers"]["max_kl"] < 1e-5
    assert certificate["runtimes"][1] == "vLLM 0.33 on NVIDIA GPUs, AMD GPUs, Intel GPUs and CPUs"
    ignored = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]["ignore"]
    assert {f"model.layers.1.mlp.experts.{e}.{leaf}_proj" for e in range(4) for leaf in ("gate", "up", "down")} < set(
        ignored
    )
    assert "model.layers.0.mlp.router" in ignored
    assert check(tmp_path / "out", models["gpt_oss"], watch=False).sound is True


def test_some_experts_stay_float(models: dict[str, Path], tmp_path: Path) -> None:
    rules = [{"match": "*.gate_up_proj.2.weight", "format": "float"}]
    plan = jobs.made(models["gpt_oss"], tmp_path / "out", layer=RTN, output="float", rules=rules, max_float_percent=30)
    jobs.finish(plan)
    before, after = load_file(models["gpt_oss"] / SINGLE), load_file(tmp_path / "out" / SINGLE)
    name = "model.layers.1.mlp.experts.gate_up_proj"
    assert [bool(torch.equal(before[name][e], after[name][e])) for e in range(4)] == [False, False, True, False]


def test_stacks_that_transformers_reads_apart_are_packed(tmp_path: Path) -> None:
    """Qwen3.5's experts may be stored in one tensor or one by one: packed ones are one by one."""
    apart = tiny.make("qwen3_5_moe", tmp_path / "apart")
    tensors = load_file(apart / SINGLE)
    for layer in (0, 1):
        base = f"model.layers.{layer}.mlp.experts"
        parts = {leaf: [tensors.pop(f"{base}.{e}.{leaf}.weight") for e in range(4)]
                 for leaf in ("gate_proj", "up_proj", "down_proj")}  # fmt: skip
        tensors[f"{base}.gate_up_proj"] = torch.cat([torch.stack(parts[n]) for n in ("gate_proj", "up_proj")], 1)
        tensors[f"{base}.down_proj"] = torch.stack(parts["down_proj"])
    stacked = tmp_path / "stacked"
    stacked.mkdir()
    for file in apart.iterdir():
        (stacked / file.name).write_bytes(file.read_bytes())
    save_file(tensors, stacked / SINGLE, {"format": "pt"})
    for source in (apart, stacked):
        plan = jobs.made(source, source.with_name(f"{source.name}-out"), layer=RTN)
        certificate = jobs.finish(plan)
        assert certificate["loaded_by_transformers"]["checked"] is True
        assert certificate["runtimes"][1].startswith("vLLM")
    one, other = (load_file(tmp_path / f"{name}-out" / SINGLE) for name in ("apart", "stacked"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    configs = [json.loads((tmp_path / f"{n}-out" / "config.json").read_text()) for n in ("apart", "stacked")]
    assert configs[0]["quantization_config"] == configs[1]["quantization_config"]
    assert check(tmp_path / "stacked-out", stacked, watch=False).sound is True
