"""The bundled language model laid open for lessons: its weights, what flows into its layers, and what a change costs.

Everything is computed once a process and kept. Names are short: `layers.1.mlp.down_proj`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from bitwright.authoring.folder import CONTENT
from bitwright.core.formats import named
from bitwright.core.measure import kl
from bitwright.core.stats import Stats
from bitwright.events import Progress
from bitwright.methods import registry as methods
from bitwright.models.language import corpus
from bitwright.models.language.arch import Architecture
from bitwright.models.language.curvature import Curvature
from bitwright.models.language.data import cut, load_texts
from bitwright.models.model import Item
from bitwright.models.tasks.estimate import Estimate

Floats = npt.NDArray[np.float32]
MODEL = CONTENT / "demo-model"
CALIBRATION = (16, 256)
"""Windows and tokens each that `inputs` sees."""
HELDOUT = (32, 128)
"""Windows and tokens each that `quality` is measured on."""
EVERYTHING = slice(None)


class Quality(NamedTuple):
    """A changed model against the float one, on held-out text."""

    kl: float
    """Mean KL in nats per token, +- `interval` (95 %)."""
    interval: float
    perplexity: float
    top1: float
    """Share of positions where both rank the same token first."""


@cache
def model() -> Any:
    """The float32 model of transformers."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32, local_files_only=True).eval()


@cache
def tokenizer() -> Any:
    """Its tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(MODEL, local_files_only=True)


def names() -> list[str]:
    """The short names of its quantizable matrices, in order."""
    linear = (name for name, module in model().named_modules() if isinstance(module, torch.nn.Linear))
    return [name.removeprefix("model.") for name in linear if "layers." in name]


def _module(name: str) -> Any:
    return model().get_submodule(f"model.{name}")


def weight(name: str) -> Floats:
    """The weights of a matrix, float32 [outputs, inputs]."""
    return _module(name).weight.detach().numpy().copy()  # type: ignore[no-any-return]


@cache
def windows(part: str) -> torch.Tensor:
    """Token ids [count, length] of the text this Python brings along: "calibration" or "heldout"."""
    count, length = CALIBRATION if part == "calibration" else HELDOUT
    texts = load_texts("stdlib") if part == "calibration" else corpus.read("heldout")
    return cut(texts, tokenizer(), count=count, length=length, source="stdlib").ids


@cache
def inputs(name: str) -> Floats:
    """What the float model feeds into a matrix on the calibration text, float32 [tokens, inputs]."""
    return _inputs()[name]


@cache
def _inputs() -> dict[str, Floats]:
    """All of them, from one pass."""
    return flow({}, names())


class _Enough(Exception):
    """All that was wanted has been seen."""


def flow(changed: Mapping[str, Floats], modules: Sequence[str], part: str = "calibration") -> dict[str, Floats]:
    """What flows into `modules` (short names) with the weights of `changed` put in: float32 [tokens, inputs] each.

    `part` names the text, as `windows` does.
    """
    seen: dict[str, Floats] = {}

    def note(name: str) -> Any:
        def hook(module: Any, args: Any) -> None:
            seen[name] = args[0].reshape(-1, args[0].shape[-1]).numpy().copy()
            if len(seen) == len(modules):
                raise _Enough

        return hook

    hooks = [_module(name).register_forward_pre_hook(note(name)) for name in modules]
    try:
        with _weights(changed), torch.no_grad(), suppress(_Enough):
            model()(windows(part))
    finally:
        for hook in hooks:
            hook.remove()
    return seen


@cache
def curvature() -> dict[str, Floats]:
    """How much the outputs of each matrix count on the calibration text: G, float32 [outputs, outputs], by its name."""
    arch, method = Architecture.open(MODEL), methods.get("descent")
    items = [Item(part, named("int8"), method, method.options()) for part in arch.quantizable()]
    found: dict[str, Floats] = {}
    with TemporaryDirectory() as folder:
        side = Curvature(arch, "cpu", windows("calibration"), items, Path(folder), 1 << 28, 0, lambda item: item.rows)
        for _ in side.compute(lambda done, what: Progress("lesson", done, 0, what)):
            pass
        for block in range(arch.count):
            for name, g in side.of(block).items():
                found[name.removeprefix("model.").removesuffix(".weight")] = g[0].numpy()
    return found


@cache
def stats(name: str) -> Stats:
    """The calibration record of a matrix's inputs (NumPy)."""
    return Stats.of(inputs(name))


@cache
def _float() -> tuple[torch.Tensor, float]:
    """The float model's logits on the held-out text and its perplexity there."""
    found = logits({})
    return found, _perplexity(found)


def logits(changed: Mapping[str, Floats], part: slice = EVERYTHING) -> torch.Tensor:
    """What the model says on the held-out text, [windows, tokens, vocabulary], with the weights of `changed` put in.

    `part` takes some of the windows.
    """
    with _weights(changed), torch.no_grad():
        return model()(windows("heldout")[part]).logits  # type: ignore[no-any-return]


@contextmanager
def _weights(changed: Mapping[str, Floats]) -> Iterator[None]:
    """The model with these weights put in, for as long as this lasts."""
    kept = {name: _module(name).weight.data for name in changed}
    try:
        for name, values in changed.items():
            _module(name).weight.data = torch.from_numpy(np.array(values, dtype=np.float32))
        yield
    finally:
        for name, values in kept.items():
            _module(name).weight.data = values


def _perplexity(said: torch.Tensor, part: slice = EVERYTHING) -> float:
    ids = windows("heldout")[part]
    loss = torch.nn.functional.cross_entropy(said[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    return float(loss.exp())


def perplexity() -> float:
    """The float model's perplexity on the held-out text."""
    return _float()[1]


def quality(changed: Mapping[str, Floats], part: slice = EVERYTHING) -> Quality:
    """The model with the weights of `changed` (short name -> [outputs, inputs]) put in, against the float model.

    `part` takes some of the windows: choose by one half, judge by the other.
    """
    reference = _float()[0][part]
    found = logits(changed, part)
    divergence = kl(reference, found).mean(-1)
    same = (reference.argmax(-1) == found.argmax(-1)).float()
    estimate = Estimate.of(divergence)
    return Quality(estimate.value, estimate.interval, _perplexity(found, part), float(same.mean()))
