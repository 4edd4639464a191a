"""vLLM's rules, each value read off release 0.33.0: see `vllm.py` for where they stand."""

from __future__ import annotations

import re
from typing import Any

import pytest

from bitwright.core.formats import named
from bitwright.files.containers.compressed_tensors import CONTAINER
from bitwright.files.containers.compressed_tensors.runtimes import unmarked
from bitwright.files.containers.compressed_tensors.vllm import verdict
from bitwright.files.held import Held, Module, Role

ALL = "vLLM 0.33 on NVIDIA GPUs, AMD GPUs, Intel GPUs and CPUs"
LAYER = "model.layers.0"


def held(name: str = "int4", group: Any = 64, symmetric: bool = True, activations: str = "none") -> Held:
    return Held(named(name, group=group, symmetric=symmetric, scale="bf16"), activations)


def linear(leaf: str, how: Held | None, rows: int = 64, columns: int = 128, role: Role = "linear") -> Module:
    return Module(f"{LAYER}.{leaf}" if role != "head" else leaf, rows, columns, how, role)


def experts(how: Held | None, rows: int = 128, columns: int = 128) -> list[Module]:
    """Two experts; `down_proj` has the others' outputs as inputs."""
    shapes = {"gate_proj": (rows, columns), "up_proj": (rows, columns), "down_proj": (columns, rows)}
    return [linear(f"mlp.experts.{i}.{leaf}", how, *shape, "expert") for i in (0, 1) for leaf, shape in shapes.items()]


def group(how: Held, *targets: str, packing: str = "pack-quantized") -> dict[str, Any]:
    """A config group that describes a format, as any tool writes it."""
    f, inputs = how.format, how.activations != "none"
    size = f.block if isinstance(f.block, int) else None
    kind = "float" if f.name == "fp8" else "int"
    weights = {"num_bits": f.bits, "type": kind, "symmetric": f.zero is None, "group_size": size}
    weights["strategy"] = "group" if size else f.block
    acts = {"num_bits": 8, "type": kind, "symmetric": True, "strategy": "token", "dynamic": True}
    return {"targets": list(targets), "weights": weights, "input_activations": acts if inputs else None,
            "format": packing}  # fmt: skip


def said(
    modules: list[Module], *groups: dict[str, Any], ignore: tuple[str, ...] = (), model_type: str = "llama"
) -> str:
    """The verdict on a folder with these config groups."""
    found = {"config_groups": {f"group_{i}": g for i, g in enumerate(groups)}, "ignore": list(ignore)}
    return verdict({"model_type": model_type, "quantization_config": found}, modules)


@pytest.mark.parametrize(
    ("how", "shape", "platforms"),
    [
        (held(), (64, 128), "NVIDIA GPUs, AMD GPUs, Intel GPUs and CPUs"),
        (held(symmetric=False), (64, 128), "NVIDIA GPUs, AMD GPUs, Intel GPUs and CPUs"),
        (held(), (192, 576), "NVIDIA GPUs, AMD GPUs, Intel GPUs and CPUs"),  # SmolLM2: Marlin pads its tiles
        (held(), (24, 128), "NVIDIA GPUs, AMD GPUs and Intel GPUs"),  # a CPU's kernel wants 32 outputs
        (held(), (4, 128), "NVIDIA GPUs and Intel GPUs"),
        (held("int4", "channel"), (64, 80), "NVIDIA GPUs and AMD GPUs"),
        (held("int4", 16), (64, 128), "NVIDIA GPUs and CPUs"),  # Humming, from 16 on
        (held("int4", 256), (64, 512), "NVIDIA GPUs, AMD GPUs, Intel GPUs and CPUs"),
        (held("int4", 48), (64, 96), "CPUs"),
        (held("int8", 128), (64, 128), "NVIDIA GPUs"),
        (held("int8", 128, symmetric=False), (64, 128), "NVIDIA GPUs"),
        (held("int2", 64), (64, 128), "NVIDIA GPUs"),
        (held("int5", 64), (64, 128), "NVIDIA GPUs"),
    ],
)
def test_packed_weights(how: Held, shape: tuple[int, int], platforms: str) -> None:
    assert said([linear("mlp.down_proj", how, *shape)], group(how, "Linear")) == f"vLLM 0.33 on {platforms}"


@pytest.mark.parametrize(
    ("how", "shape", "why"),
    [
        (held("int8", 8), (64, 128), r"no kernel takes groups of 8 \(model.layers.0.mlp.down_proj\): use 128"),
        (held("int2", 48), (64, 96), "no kernel takes groups of 48"),
        (held("int1", 64), (64, 128), "int1 g64: it takes 2 to 8 bits"),
        (held("int8", "tensor"), (64, 128), "int8 tensor: it takes 2 to 8 bits, in groups or per channel"),
        (held("int4", "channel"), (64, 60), "the codes of 60 inputs at 4 bits .* fill no whole words"),
        (held(symmetric=False), (12, 128), "the zero points of 12 outputs at 4 bits .* use symmetric ones"),
        (held("int4", 128), (64, 192), "192 inputs .* do not divide by the group of 128"),
    ],
)
def test_packed_weights_that_nothing_multiplies(how: Held, shape: tuple[int, int], why: str) -> None:
    text = said([linear("mlp.down_proj", how, *shape)], group(how, "Linear"))
    assert text.startswith("not vLLM 0.33: ") and re.search(why, text)


def test_rounded_activations() -> None:
    for name, packing, inputs, platforms in (
        ("int8", "int-quantized", "int8", ALL),
        ("fp8", "float-quantized", "fp8", "vLLM 0.33 on NVIDIA GPUs, AMD GPUs and CPUs"),
        ("fp8", "float-quantized", "none", "vLLM 0.33 on NVIDIA GPUs and Intel GPUs"),
    ):
        how = held(name, "channel", activations=inputs)
        assert said([linear("mlp.down_proj", how)], group(how, "Linear", packing=packing)) == platforms
    how = held("fp8", 32)
    text = said([linear("mlp.down_proj", how)], group(how, "Linear", packing="float-quantized"))
    assert "is fp8 g32, and there is no kernel for it: use one scale per channel" in text
    how = held("int8", "channel")
    assert "use symmetric int8 per channel" in said(
        [linear("mlp.down_proj", how)], group(how, "Linear", packing="int-quantized")
    )


def test_what_is_fused_has_one_scheme() -> None:
    four, eight = held(), held("int8")
    q, k, v = (linear(f"self_attn.{leaf}_proj", how) for leaf, how in zip("qkv", (four, eight, four), strict=True))
    text = said([q, k, v], group(four, q.name, v.name), group(eight, k.name))
    assert "it fuses q_proj, k_proj and v_proj, and model.layers.0.self_attn.qkv_proj has q_proj in int4 g64" in text
    assert "k_proj in int8 g64" in text and 'by rules for "*.q_proj", "*.k_proj" and "*.v_proj" alike' in text
    # Apart they may differ: down_proj and o_proj are layers of their own.
    o, down = linear("self_attn.o_proj", four), linear("mlp.down_proj", eight)
    assert said([o, down], group(four, o.name), group(eight, down.name)) == "vLLM 0.33 on NVIDIA GPUs"
    # Float in part is no scheme either.
    text = said([q, k._replace(held=None), v], group(four, "Linear"), ignore=(k.name,))
    assert "q_proj in int4 g64 and k_proj in float" in text
    # Groups alone are mended by one group.
    gate, up = linear("mlp.gate_proj", held("int4", 32)), linear("mlp.up_proj", held("int4", 128))
    text = said([gate, up], group(held("int4", 32), gate.name), group(held("int4", 128), up.name))
    assert "gate_proj in int4 g32 and up_proj in int4 g128: give them one group, such as --group 32" in text


def test_names_in_ignore_and_targets() -> None:
    four = held()
    qkv = [linear(f"self_attn.{leaf}_proj", None) for leaf in "qkv"]
    down = linear("mlp.down_proj", four)
    names = [module.name for module in qkv]
    linears = group(four, "Linear")
    assert "qkv_proj is stored in float, and vLLM looks for codes: name it in ignore" in said([*qkv, down], linears)
    assert "is in ignore in part" in said([*qkv, down], linears, ignore=tuple(names[:2]))
    for ignore in (tuple(names), (f"{LAYER}.self_attn.qkv_proj",), ("re:.*self_attn",), (r"re:.*\.[qkv]_proj",)):
        assert said([*qkv, down], linears, ignore=ignore) == ALL
    assert "stands in ignore: take it out" in said([down], linears, ignore=(down.name,))
    # Names are whole: transformers may take the end of one, vLLM does not. Regular expressions begin at the front.
    assert "no target of config_groups means it" in said([down], group(four, "mlp.down_proj"))
    assert said([down], group(four, "re:.*down_proj")) == ALL
    assert "vLLM finds another scheme for it" in said([down], linears, group(held("int8"), "re:.*down_proj"))
    # A target in two groups means the last.
    assert said([down], group(held("int8"), down.name), group(four, down.name)) == ALL
    # A head is of another class than Linear.
    head = linear("lm_head", four, role="head")
    assert "lm_head is quantized, and no target of config_groups means it" in said([head, down], linears)
    assert said([head, down], group(four, "Linear", "lm_head")) == ALL
    assert said([head._replace(held=None), down], linears) == ALL


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"sparsity_config": {"targets": ["Linear"], "format": "dense"}}, "no longer reads sparse folders"),
        (
            {"kv_cache_scheme": {"type": "int", "num_bits": 8, "symmetric": True}},
            "keys and values in symmetric fp8 only",
        ),
        ({"kv_cache_scheme": {"type": "float", "num_bits": 8, "symmetric": True, "strategy": "tensor"}}, None),
        ({"sparsity_config": {}, "kv_cache_scheme": None}, None),
    ],
)
def test_settings_of_other_tools(said: dict[str, Any], why: str | None) -> None:
    four = held()
    config = {"quantization_config": {"config_groups": {"a": group(four, "Linear")}, **said}}
    text = verdict(config, [linear("mlp.down_proj", four)])
    assert text == ALL if why is None else (text.startswith("not vLLM") and why in text)
    ordered = group(four, "Linear")
    ordered["weights"]["actorder"] = "group"
    assert "(actorder)" in verdict({"quantization_config": {"config_groups": {"a": ordered}}}, [])


def test_experts() -> None:
    four = held()
    linears = group(four, "Linear")
    assert said(experts(four), linears) == "vLLM 0.33 on NVIDIA GPUs"
    odd = experts(four)
    odd[-1] = odd[-1]._replace(held=held("int4", 32))
    text = said(odd, linears)
    assert "it fuses all experts of a block, and model.layers.0.mlp.experts has gate_proj in int4 g64" in text
    assert "give them one group, such as --group 32" in text
    assert said(experts(None), linears, ignore=(r"re:.*experts.*",)) == ALL
    assert "experts is stored in float" in said(experts(None), linears)
    rows = held("int4", "channel")
    assert said(experts(rows), group(rows, "Linear")) == "vLLM 0.33 on NVIDIA GPUs"
    assert "use groups" in said(experts(rows, columns=96), group(rows, "Linear"))  # Marlin alone takes whole rows
    eight = held("int4", 8)
    assert "no kernel takes groups of 8" in said(experts(eight), group(eight, "Linear"))
    fp8 = held("fp8", "channel")
    assert "use int4, int8 or fp8 with fp8" in said(experts(fp8), group(fp8, "Linear", packing="float-quantized"))


def test_routers_are_layers_of_some_models_only() -> None:
    four = held()
    router = linear("mlp.gate", None, role="router")
    for model_type, good in (("mixtral", True), ("qwen3_moe", False)):
        text = said([*experts(four), router], group(four, "Linear"), model_type=model_type)
        assert ("mlp.gate is stored in float" not in text) is good
    assert said(
        [*experts(four), router], group(four, "Linear"), ignore=(router.name,), model_type="qwen3_moe"
    ).endswith("NVIDIA GPUs")


def test_our_own_config_keeps_the_rules() -> None:
    """What the container writes of quantized heads and float routers is what vLLM asks for."""
    four = held()
    parts = [
        linear("mlp.down_proj", four),
        linear("lm_head", four, role="head"),
        linear("mlp.gate", None, role="router"),
    ]
    assert CONTAINER.runtimes(parts)[1] == ALL
    assert CONTAINER.runtimes([])[1] == ALL


def test_floats_that_the_config_calls_quantized() -> None:
    four = held()
    parts = [linear("mlp.down_proj", four), linear("self_attn.o_proj", None), linear("mlp.gate", None, role="router")]
    for ignore, bare in (((), [parts[1].name]), (("re:.*o_proj",), []), (("o_proj",), [parts[1].name])):
        config = {"quantization_config": {"config_groups": {"a": group(four, "Linear")}, "ignore": list(ignore)}}
        assert unmarked(config, parts) == bare
