"""All matrices of a language model trained together: the float network teaches, and text kept aside judges."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from bitwright.core.formats import named
from bitwright.core.qtensor import QTensor
from bitwright.errors import RecipeError
from bitwright.events import Row
from bitwright.methods import lsq, registry
from bitwright.methods.lsq import training
from bitwright.methods.rtn import quantize
from bitwright.models.language.activations import Activations
from bitwright.models.language.arch import Architecture
from bitwright.models.language.blocks import Decoder, Passage
from bitwright.models.language.tuning import Text, Tuned, learn, open_tuned
from bitwright.models.language.whole import Draft
from bitwright.models.model import Item, Turn
from tests import jobs, tiny


@contextmanager
def opened(folder: Path, kind: str, format: str = "int3", batches: int = 4) -> Iterator[Tuned]:
    """A tiny model with nearest codes in all blocks, and random text with its own answers."""
    arch = Architecture.open(tiny.make(kind, folder / kind))
    method, read = registry.get("lsq"), arch.checkpoint.read
    parts = [part for part in arch.quantizable() if part.block is not None]
    items = [Item(part, named(format, group="channel"), method, method.options()) for part in parts]
    weights = {p.name: (read(p.name).T if p.transposed else read(p.name)).float().contiguous() for p in parts}
    drafts = {i.name: Draft(weights[i.name], quantize(weights[i.name], i.format), Turn([i])) for i in items}
    decoder = Decoder(arch)
    seeds = [torch.Generator().manual_seed(i) for i in range(batches)]
    ids = [torch.randint(0, 1024, (2, 24), generator=seed) for seed in seeds]
    answers = Activations(1 << 20)
    for i, passage in enumerate(map(Passage, ids)):
        answers.append(decoder.enter(passage))
        for block in range(arch.count):
            with decoder.loaded(block):
                answers[i] = decoder.run(block, answers[i], passage)

    def stored(block: int) -> dict[str, torch.Tensor]:
        found = {}
        for item in items:
            if item.part.block == block:
                q = drafts[item.name].q.decode()
                found[item.name] = q.T if item.part.transposed else q
        return decoder.weights(block) | found

    with open_tuned(decoder, items, drafts, stored, Text(ids, answers)) as tuned:
        yield tuned


def codes(tuned: Tuned) -> dict[str, QTensor]:
    return {name: matrix.quantized() for name, matrix in tuned.matrices.items()}


def end(steps: Any) -> tuple[dict[str, QTensor], list[training.Epoch]]:
    """What a generator answers in the end, and what it yielded."""
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as stop:
            return stop.value, seen


@pytest.mark.parametrize("kind", ["llama", "mixtral", "gemma3", "gpt2"])
def test_training_lowers_what_the_codes_cost(kind: str, tmp_path: Path) -> None:
    with opened(tmp_path, kind) as tuned:
        start = {name: matrix.start for name, matrix in tuned.matrices.items()}
        before = tuned.judged(start)
        for name, q in codes(tuned).items():
            assert torch.equal(q.codes, start[name].codes) and torch.equal(q.scale, start[name].scale), (
                "it begins there"
            )
        own = [p.clone() for p in tuned._decoder.model.parameters() if p.device.type != "meta"]
        found, epochs = end(learn(tuned, lsq.solve(tuned, lsq.Options(epochs=6, rate=0.02))))
        assert epochs[-1].loss < 0.9 * epochs[0].loss
        assert tuned.judged(found) < before, "on text that it did not learn from"
        assert all(q.codes.shape == start[name].codes.shape and int(q.codes.max()) < 8 for name, q in found.items())
        moved = [name for name, q in found.items() if bool((q.codes != start[name].codes).any())]
        assert len(moved) > len(found) / 2
        after = [p for p in tuned._decoder.model.parameters() if p.device.type != "meta"]
        assert all(torch.equal(a, b) for a, b in zip(own, after, strict=True)), "the network has its own weights again"


def test_the_loss_is_the_divergence_that_is_judged(tmp_path: Path) -> None:
    """With the codes that it begins at: of the batch that judges, once with a graph and once without."""
    with opened(tmp_path, "llama") as tuned:
        [judge] = tuned._judges
        for matrix in tuned.matrices.values():
            with torch.no_grad():
                matrix.weight.copy_(matrix.start.format.grid.decode(matrix.start.format.blocks(matrix.start.codes)))
        loss = tuned.loss(tuned(judge), judge)
        assert float(loss.detach()) == pytest.approx(tuned.judged(codes(tuned)), rel=1e-4)
        loss.backward()  # type: ignore[no-untyped-call]
        assert all(p.grad is not None and bool(p.grad.any()) for p in tuned.parameters()), "every matrix learns"


def test_training_that_spoils_leaves_all_as_it_began(tmp_path: Path) -> None:
    with opened(tmp_path, "llama", "int8") as tuned:
        found, _ = end(learn(tuned, lsq.solve(tuned, lsq.Options(epochs=1, rate=50.0))))
        for name, q in found.items():
            assert torch.equal(q.codes, tuned.matrices[name].start.codes)
            assert q.notes == ("training did not lower the KL on text that it did not learn from: as it began",)


def recipe(folder: Path, **more: Any) -> dict[str, Any]:
    text = {"source": str(jobs.text(folder)), "windows": 8, "length": 32, "heldout_windows": 2}
    layer = {"method": "lsq", "group": 32, "options": {"epochs": 2, "rate": 0.01}}
    return {"calibration": text, "layer": layer, "max_float_percent": 100} | more


@pytest.mark.parametrize("stop", ["within the walk", "among what was trained"])
def test_a_job_trains_and_resumes(stop: str, tmp_path: Path) -> None:
    """The head is not trained, nor what a rule gives another method; the same command ends with the same bytes."""
    source = tiny.make("llama", tmp_path / "llama")
    rules = [
        {"match": "*.layers.0.self_attn.*", "format": "int8", "method": "rtn"},
        {"match": "lm_head", "format": "int8", "group": "channel"},
    ]
    asked = recipe(tmp_path, rules=rules)
    certificate = jobs.finish(jobs.made(source, tmp_path / "whole", **asked))
    methods = {row["name"]: row["method"] for row in certificate["rows"]}
    assert methods["model.layers.0.self_attn.q_proj.weight"] == "rtn" and methods["lm_head.weight"] == "descent"
    assert methods["model.layers.1.mlp.up_proj.weight"] == "lsq" and certificate["verdict"]["kl"] < 1

    def wanted(event: Any) -> bool:
        if stop == "within the walk":
            return str(getattr(event, "label", "")).startswith("calibrating block 2")
        return isinstance(event, Row) and event.name == "model.layers.1.mlp.gate_proj.weight"

    seen = jobs.stop_after(jobs.made(source, tmp_path / "again", **asked), wanted)
    assert wanted(seen[-1]) and len([event for event in seen if isinstance(event, Row)]) < len(methods)
    jobs.finish(jobs.made(source, tmp_path / "again", **asked))
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_what_it_cannot_train_is_one_line(tmp_path: Path) -> None:
    source = tiny.make("llama", tmp_path / "llama")
    for layer, what in (
        ({"symmetric": False}, "learns no zero points"),
        ({"format": "fp8", "group": "channel"}, "cannot learn the rounding of fp8"),
        ({"format": "int8", "group": "channel", "activations": "int8"}, "inputs stay float, not int8"),
    ):
        with pytest.raises(RecipeError, match=what):
            jobs.made(source, tmp_path / "out", **recipe(tmp_path, layer={"method": "lsq"} | layer))
