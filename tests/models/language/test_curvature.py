"""The curvature at each matrix's output is that of the whole network, whatever happens to the run that gathers it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from bitwright import machine
from bitwright.core.formats import named
from bitwright.errors import ModelError
from bitwright.events import Event, Note, Progress
from bitwright.methods import registry
from bitwright.models.language import curvature
from bitwright.models.language.activations import SPILL
from bitwright.models.language.arch import Architecture
from bitwright.models.language.blocks import distribution
from bitwright.models.language.curvature import Curvature, draw, piece
from bitwright.models.model import Item
from tests import jobs, tiny
from tests.models.language.test_families import families
from tests.models.language.test_families import make as make_family

SEED = 5
STEP = 48
"""Rows of a square: less than the matrices have, and no divisor of their rows."""


def windows(count: int = 6, length: int = 24) -> torch.Tensor:
    return torch.randint(1, 1000, (count, length), generator=torch.Generator().manual_seed(1))


def opened(
    folder: Path, out: Path, ids: torch.Tensor | None = None, budget: int = 1 << 26, seed: int = SEED
) -> Curvature:
    out.mkdir(exist_ok=True)
    arch, method = Architecture.open(folder), registry.get("descent")
    items = [Item(part, named("int4", group="channel"), method, method.options()) for part in arch.quantizable()]
    ids = windows() if ids is None else ids
    return Curvature(arch, "cpu", ids, items, out, budget, seed, lambda _: STEP)


def progress(size: float, label: str) -> Progress:
    return Progress("quantize", size, 0, label)


def computed(found: Curvature) -> dict[str, torch.Tensor]:
    list(found.compute(progress))
    return {name: g for block in range(found.arch.count) for name, g in found.of(block).items()}


Seen = dict[int, list[tuple[torch.Tensor, slice | torch.Tensor]]]
"""By the address of a matrix, its products [..., rows] and which of their rows count."""


@contextmanager
def products(seen: Seen, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the outputs of all products, with their gradients."""
    linear, matmul, bmm, addmm = torch.nn.functional.linear, torch.Tensor.__matmul__, torch.bmm, torch.addmm
    every = slice(None)

    def kept(y: torch.Tensor, weight: torch.Tensor, rows: slice | torch.Tensor = every) -> torch.Tensor:
        if y.requires_grad:
            y.retain_grad()
            seen.setdefault(weight.data_ptr(), []).append((y, rows))
        return y

    def stacked(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        y = bmm(x, weights)
        for i, weight in enumerate(weights):
            used = torch.zeros(y.shape[:2], dtype=torch.bool)
            used[i] = x[i].any(-1)
            kept(y, weight, used.flatten())
        return y

    with patch.context() as patched:
        patched.setattr(torch.nn.functional, "linear", lambda x, w, bias=None: kept(linear(x, w, bias), w))
        patched.setattr(torch.Tensor, "__matmul__", lambda x, w: kept(matmul(x, w), w))
        patched.setattr(torch, "bmm", stacked)
        patched.setattr(torch, "addmm", lambda bias, x, w: kept(addmm(bias, x, w), w))
        yield


def whole(folder: Path, arch: Architecture, ids: torch.Tensor, patch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """The same from one backward pass through the whole network as transformers loads it, in float32."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, experts_implementation="eager"
    ).eval()
    seen: Seen = {}
    with products(seen, patch):
        logits = model(ids, use_cache=False).logits.flatten(0, 1)
    uniform = torch.rand(ids.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(SEED)).flatten()
    labels = draw(logits.detach().softmax(-1), uniform)
    torch.nn.functional.cross_entropy(logits, labels, reduction="sum").backward()
    found = {}
    for part in arch.quantizable():
        weight = model.get_parameter(part.param)
        address = (weight if part.expert is None else weight[part.expert]).data_ptr()
        g = torch.cat([y.grad.reshape(-1, y.shape[-1])[rows] for y, rows in seen[address] if y.grad is not None])
        g = g[:, part.nth * part.rows : (part.nth + 1) * part.rows].double()
        found[part.name] = g.T @ g / len(g)
    return found


@pytest.mark.parametrize(
    "kind",
    [
        "llama",
        "gemma3",
        "qwen3_moe",
        "mixtral",
        "gpt2",
        "gpt_oss",
        "llama4",
        "gemma4_text",
    ],
)
def test_as_from_the_whole_network(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = (tiny.make if kind in tiny.CONFIGS | tiny.STACKED else make_family)(kind, tmp_path / kind)
    monkeypatch.setattr(curvature, "GRAPH_TOKENS", 48)  # three batches
    monkeypatch.setattr(curvature, "LOGITS", 20 * 1024)  # twenty positions at the head at a time
    found = opened(folder, tmp_path / "out", budget=1 << 14)
    grams, expected = computed(found), whole(folder, found.arch, windows(), monkeypatch)
    assert grams.keys() == expected.keys() and not found.absent
    for name, g in grams.items():
        rows, wanted = len(expected[name]), expected[name]
        assert g.dtype == torch.float32 and g.shape == (-(-rows // STEP), min(STEP, rows), min(STEP, rows))
        for start in range(0, rows, STEP):
            stop = min(start + STEP, rows)
            square = wanted[start:stop, start:stop]
            worst = (piece(g, start, stop - start) - square).abs().max() / square.abs().max()
            assert worst < 2e-4, f"{name} from row {start}: {worst}"
    assert not list((tmp_path / "out").glob(f"{SPILL}*"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make("llama", tmp_path_factory.mktemp("llama"), num_hidden_layers=3)


def kept(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("labels", ["back through block 3 of", "back through block 2 of", "back through block 1 of"])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(labels: str, llama: Path, tmp_path: Path) -> None:
    computed(opened(llama, tmp_path / "whole"))
    found = opened(llama, tmp_path / "killed")
    steps = found.compute(progress)
    next(event for event in steps if isinstance(event, Progress) and labels in event.label)
    steps.close()
    there = len(list((tmp_path / "killed").glob(f"{curvature.KEPT}[0-9]*")))
    (tmp_path / "killed" / f"{curvature.KEPT}0.half").write_bytes(b"half")
    events = list(opened(llama, tmp_path / "killed").compute(progress))
    again = {event.label for event in events if isinstance(event, Progress) and "back through" in event.label}
    assert len(again) == 3 - there
    assert kept(tmp_path / "killed") == kept(tmp_path / "whole")


def test_progress_counts_blocks_twice_however_much_is_kept(llama: Path, tmp_path: Path) -> None:
    def total(events: list[Event]) -> float:
        return sum(event.done for event in events if isinstance(event, Progress))

    first = opened(llama, tmp_path / "out")
    size = 2 * sum(e.size for b in range(3) for e in first.arch.tensors_of(b))
    steps, seen = first.compute(progress), []
    for event in steps:
        seen.append(event)
        if isinstance(event, Progress) and "back through block 2" in event.label:
            break
    steps.close()
    assert total(seen) < size
    for _ in range(2):
        assert total(list(opened(llama, tmp_path / "out").compute(progress))) == pytest.approx(size)


def test_only_what_belongs_is_trusted(llama: Path, tmp_path: Path) -> None:
    one, other = computed(opened(llama, tmp_path / "out")), computed(opened(llama, tmp_path / "out", seed=SEED + 1))
    assert not any(torch.equal(one[name], other[name]) for name in one), "another seed draws other labels"
    before = kept(tmp_path / "out")
    path = tmp_path / "out" / f"{curvature.KEPT}1"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    again = computed(opened(llama, tmp_path / "out", seed=SEED + 1))
    assert all(torch.equal(again[name], g) for name, g in other.items()) and kept(tmp_path / "out") == before
    opened(llama, tmp_path / "out").remove()
    assert not kept(tmp_path / "out")


def test_nothing_of_it_is_published(llama: Path, tmp_path: Path) -> None:
    plan = jobs.made(llama, tmp_path / "out", layer={"method": "rtn", "group": 32})
    jobs.stop_after(plan, 3)
    computed(opened(llama, plan.partial))
    assert list(plan.partial.glob(f"{curvature.KEPT}*"))
    jobs.finish(jobs.made(llama, tmp_path / "out", layer={"method": "rtn", "group": 32}))
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_labels_are_drawn_from_the_softmax() -> None:
    p = torch.softmax(torch.tensor([0.0, -torch.inf, 1.0, 2.0]), -1)
    uniform = torch.linspace(0, 1, 4001, dtype=torch.float64)
    share = torch.bincount(draw(p.expand(4001, 4), uniform), minlength=4) / 4001
    torch.testing.assert_close(share, p, rtol=0, atol=1e-3)
    assert draw(p[None], torch.tensor([1 - 2**-53], dtype=torch.float64)) == 3


def test_logits_that_are_not_finite_are_one_line(tmp_path: Path) -> None:
    folder = changed(tmp_path, {"model.norm.weight": lambda w: w * torch.inf})
    with pytest.raises(ModelError, match="its logits are not finite") as error:
        computed(opened(folder, tmp_path / "out"))
    assert str(folder) in str(error.value) and not kept(tmp_path / "out")
    with pytest.raises(ModelError, match="its logits are not finite"):
        distribution(torch.tensor([[0.0, torch.inf]]), Architecture.open(folder))


def changed(base: Path, tensors: dict[str, Callable[[torch.Tensor], torch.Tensor]]) -> Path:
    """A tiny Llama with some tensors changed."""
    folder = tiny.make("llama", base / "changed")
    path = folder / "model.safetensors"
    held = load_file(path)
    save_file(held | {name: change(held[name]) for name, change in tensors.items()}, path, {"format": "pt"})
    return folder


def notes(found: Curvature) -> list[str]:
    return [event.text for event in found.compute(progress) if isinstance(event, Note)]


def test_what_reaches_no_output_has_none(tmp_path: Path) -> None:
    folder = changed(tmp_path, {"model.layers.1.mlp.down_proj.weight": torch.zeros_like})
    for _ in range(2):  # as made, and as kept
        found = opened(folder, tmp_path / "out")
        gate, up = (f"model.layers.1.mlp.{leaf}_proj.weight" for leaf in ("gate", "up"))
        assert notes(found) == [f"no output curvature for 2 of 14 matrices, first {gate}: its gradient is zero"]
        assert set(found.absent) == {gate, up} and len(found.of(0)) == 7 and len(found.of(1)) == 5


def test_experts_that_saw_nothing_have_none(tmp_path: Path) -> None:
    folder = tiny.make("qwen3_moe", tmp_path / "model")
    found = opened(folder, tmp_path / "out", windows(1, 1))
    grams = computed(found)
    experts = [name for name in found.absent if ".experts." in name]
    assert len(experts) == 2 * 2 * 3 and set(found.absent.values()) == {"no token reaches it"}  # 2 of 4 are chosen
    assert len(grams) == 2 * (4 + 2 * 3)


def test_what_is_no_chain_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = ["sliding_attention", "full_attention"] * 2
    monkeypatch.setitem(families.DATA["families"], "gemma4_text", {"num_kv_shared_layers": 2, "layer_types": kinds})
    found = opened(make_family("gemma4_text", tmp_path / "model"), tmp_path / "out")
    [note] = notes(found)
    assert note.endswith("its blocks hand on more than hidden states") and len(found.absent) > 10
    assert not any(found.of(block) for block in range(found.arch.count))


class Hard(torch.autograd.Function):
    """A step without a derivative."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.sign()


def test_what_has_no_derivative_has_none(llama: Path, tmp_path: Path) -> None:
    found = opened(llama, tmp_path / "out")
    found.arch.model.model.layers[1].mlp.act_fn.forward = Hard.apply
    [note] = notes(found)
    assert "no output curvature for 14 of 21 matrices" in note and "no derivative of block 1" in note
    assert len(found.of(2)) == 7 and not found.of(1) and not found.of(0)


def test_memory_that_runs_out_is_no_fault_of_the_network(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = opened(llama, tmp_path / "out")

    def full(x: torch.Tensor) -> torch.Tensor:
        return torch.empty(1 << 60)

    found.arch.model.model.layers[1].mlp.act_fn.forward = full
    with pytest.raises(RuntimeError) as error:
        computed(found)
    assert machine.exhausted(error.value)
