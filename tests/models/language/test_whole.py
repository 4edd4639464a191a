"""A decoder block whose matrices are learned together, from what the quantized network feeds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bitwright.core.formats import named
from bitwright.core.qtensor import QTensor
from bitwright.errors import ModelError, RecipeError
from bitwright.events import Row
from bitwright.methods import registry
from bitwright.methods.blockwise import learning
from bitwright.methods.rtn import quantize
from bitwright.models.language.activations import Activations
from bitwright.models.language.arch import Architecture
from bitwright.models.language.blocks import Decoder, Passage
from bitwright.models.language.streams import Source, Twin
from bitwright.models.language.watch import addresses
from bitwright.models.language.whole import Draft, Whole
from bitwright.models.model import Item, Turn
from tests import jobs, tiny

KINDS = ("llama", "mixtral", "gemma3", "gpt2", "gpt_oss")
LEARN = {"layer": {"method": "blockwise", "group": 32, "options": {"steps": 4, "rate": 0.01}}}


def opened(folder: Path, kind: str) -> tuple[Decoder, list[Item], dict[str, torch.Tensor]]:
    """A tiny model, the items of its first block, and their float weights [rows, columns]."""
    arch = Architecture.open(tiny.make(kind, folder / kind))
    method = registry.get("blockwise")
    parts = [part for part in arch.quantizable() if part.block == 0]
    items = [Item(part, named("int3", group="channel"), method, method.options()) for part in parts]
    read = arch.checkpoint.read
    weights = {p.name: (read(p.name).T if p.transposed else read(p.name)).float().contiguous() for p in parts}
    return Decoder(arch), items, weights


def block(decoder: Decoder, module: Any, items: list[Item], weights: dict[str, torch.Tensor], batches: int) -> Whole:
    """The first block: what the embedding gives it, what the float block answers, and its nearest codes."""
    inputs, answers, parts = Activations(1 << 20), Activations(1 << 20), [item.part for item in items]
    seeds = [torch.Generator().manual_seed(i) for i in range(batches)]
    passages = [Passage(torch.randint(0, 1024, (2, 24), generator=seed)) for seed in seeds]
    source = Source(addresses(module, f"{decoder.arch.blocks}.0", parts), None)
    for i, passage in enumerate(passages):
        inputs.append(decoder.enter(passage))
        with source.on(i):
            answers.append(decoder.run(0, inputs[i].clone(), Passage(passage.ids)))
    drafts = {}
    for item in items:
        drafts[item.name] = Draft(weights[item.name], quantize(weights[item.name], item.format), Turn([item]))
    stored = decoder.weights(0)
    for item in items:
        q = drafts[item.name].q.decode()
        stored[item.name] = q.T if item.part.transposed else q
    decoder.load(stored)

    def watch() -> Twin:
        return Twin(addresses(module, f"{decoder.arch.blocks}.0", parts), source)

    return Whole(items, decoder, 0, module, inputs, answers, passages, watch, drafts)


def learned(whole: Whole, rate: float = 0.03) -> tuple[dict[str, QTensor], list[float]]:
    """What a few steps make of a block, and the error before each."""
    errors, steps = [], learning.learn(whole, 8, rate, rate / 10, 0)
    while True:
        try:
            errors.append(next(steps).error)
        except StopIteration as stop:
            return stop.value, errors


@pytest.mark.parametrize("kind", KINDS)
def test_learning_lowers_the_error_of_the_block(kind: str, tmp_path: Path) -> None:
    decoder, items, weights = opened(tmp_path, kind)
    with decoder.loaded(0) as module:
        whole = block(decoder, module, items, weights, 1)
        floats: Any = {name: _Float(w) for name, w in weights.items()}
        before = learning.judged(whole, whole.start, [0])
        assert learning.judged(whole, floats, [0]) < 1e-3 * before, "with its own weights it answers as the float one"
        own = [p.clone() for p in module.parameters()]
        found, errors = learned(whole)
        assert all(torch.equal(a, b) for a, b in zip(own, module.parameters(), strict=True)), "they are back"
        assert errors[0] == pytest.approx(before, rel=1e-3), "it begins at the codes it was given"
        assert len(errors) == 8 and learning.judged(whole, found, [0]) < 0.9 * before
        assert all(q.codes.shape == weights[n].shape and int(q.codes.max()) < 8 for n, q in found.items())
        moved = [n for n, q in found.items() if bool((q.codes != whole.start[n].codes).any())]
        assert len(moved) > len(found) / 2
        for name, q in learned(whole)[0].items():
            assert torch.equal(q.codes, found[name].codes) and torch.equal(q.scale, found[name].scale), "once more"


def test_what_is_only_learnt_by_heart_is_not_taken(tmp_path: Path) -> None:
    """Two batches of answers that nothing in the inputs explains: the second one judges, and no code moves."""
    decoder, items, weights = opened(tmp_path, "llama")
    with decoder.loaded(0) as module:
        whole = block(decoder, module, items, weights, 2)
        for i in range(2):
            noise = torch.randn(whole.answers[i].shape, generator=torch.Generator().manual_seed(9 + i))
            whole.answers[i] = whole.answers[i] + noise * whole.answers[i].float().std()
        found, errors = learned(whole, 0.1)
        assert errors[-1] < errors[0] and learning.divide(2) == ([0], [1])
        for name, q in found.items():
            assert torch.equal(q.codes, whole.start[name].codes)
            assert q.notes == ("learning did not lower its block's error: as it began",)


def test_another_form_in_the_network_is_named(tmp_path: Path) -> None:
    decoder, items, weights = opened(tmp_path, "llama")
    with decoder.loaded(0) as module:
        whole = block(decoder, module, items, weights, 1)
        first = items[0].name
        turned = whole.drafts[first].q
        whole.drafts = {
            **whole.drafts,
            first: Draft(weights[first], quantize(-weights[first], turned.format), Turn([])),
        }
        with pytest.raises(ModelError, match="in another form") as caught:
            learned(whole)
        assert caught.value.where == first


class _Float:
    """Weights where codes are expected."""

    def __init__(self, w: torch.Tensor) -> None:
        self.w = w

    def decode(self) -> torch.Tensor:
        return self.w


def test_a_job_learns_block_by_block_and_resumes(tmp_path: Path) -> None:
    """The head is in no block; stopped within one, the same command ends with the same bytes."""
    source = tiny.make("llama", tmp_path / "llama")
    text = {"source": "self", "windows": 4, "length": 32, "heldout_windows": 2}
    recipe: dict[str, Any] = {**LEARN, "calibration": text, "max_float_percent": 100, "effort": "fast"}
    recipe["rules"] = [
        {"match": "*.layers.0.self_attn.*", "format": "int8", "method": "rtn"},
        {"match": "lm_head", "format": "int8", "group": "channel"},
    ]
    certificate = jobs.finish(jobs.made(source, tmp_path / "whole", **recipe))
    methods = {row["name"]: row["method"] for row in certificate["rows"]}
    assert methods["model.layers.0.self_attn.q_proj.weight"] == "rtn" and methods["lm_head.weight"] == "descent"
    assert (
        methods["model.layers.1.self_attn.q_proj.weight"] == methods["model.layers.0.mlp.up_proj.weight"] == "blockwise"
    )
    assert certificate["verdict"]["kl"] < 1

    def inside(event: Any) -> bool:
        return isinstance(event, Row) and event.name == "model.layers.1.mlp.down_proj.weight"

    plan = jobs.made(source, tmp_path / "again", **recipe)
    done = [event for event in jobs.stop_after(plan, inside) if isinstance(event, Row)]
    assert 3 < len(done) < len(methods) - 1, "the second block is half done"
    jobs.finish(jobs.made(source, tmp_path / "again", **recipe))
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_each_matrix_learns_from_samples(tmp_path: Path) -> None:
    """AdaRound sees rows of its input; what a head is fed is not kept, and it gets the method that stands in."""
    source = tiny.make("llama", tmp_path / "llama", num_hidden_layers=1)
    text = {"source": str(jobs.text(tmp_path)), "windows": 8, "length": 32, "heldout_windows": 2}
    recipe: dict[str, Any] = {"calibration": text, "effort": "fast", "output": "float"}
    recipe["rules"] = [{"match": "lm_head", "format": "int8", "group": "channel"}]
    errors = {}
    for method in ("mse", "adaround"):
        recipe["layer"] = {"method": method, "format": "int3", "group": 32}
        rows = jobs.finish(jobs.made(source, tmp_path / method, **recipe))["rows"]
        errors[method] = {row["name"]: row["output_error"] for row in rows}
        assert {row["method"] for row in rows} == ({"mse", method})
    blocks = [name for name in errors["mse"] if "layers" in name]
    better = [name for name in blocks if errors["adaround"][name] < errors["mse"][name]]
    assert len(blocks) == 7 and len(better) > 5


def test_what_it_cannot_do_is_one_line(tmp_path: Path) -> None:
    source = tiny.make("llama", tmp_path / "llama")
    layer = {"method": "blockwise", "format": "nf4"}
    with pytest.raises(RecipeError, match="cannot learn the rounding of nf4"):
        jobs.made(source, tmp_path / "out", layer=layer, output="float")
    with pytest.raises(RecipeError, match=r"options\.steps"):
        jobs.made(source, tmp_path / "out", layer={"method": "blockwise", "options": {"steps": 0}})
