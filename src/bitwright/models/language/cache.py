"""Keys and values that attentions keep from token to token: watched, rounded, and their scales chosen.

Each attention hands what it keeps to `update` of the cache that it is called with. In its place comes one that keeps
nothing: it shows keys (after their rotation) and values, and gives back what the attention is to go on with. Runtimes
round them at the same place.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from bitwright.core import fixed
from bitwright.core.formats import named
from bitwright.core.grid import Grid
from bitwright.core.observe import Histogram
from bitwright.core.scaling import NUMBERS, Number
from bitwright.errors import FileError, ModelError, TensorError
from bitwright.files.container import TensorContainer
from bitwright.files.held import Cache
from bitwright.files.quantized import QuantizedCheckpoint
from bitwright.models.language.arch import Architecture
from bitwright.models.language.memory import TRIED
from bitwright.models.model import Aside

KEPT = "past_key_values"
"""What an attention calls the cache."""
LATENT = "kv_b_proj"
"""The matrix that makes keys and values anew from a latent: where it is, other runtimes keep that latent."""
TYPES = {torch.bfloat16: "bf16", torch.float16: "fp16"}
"""Types of scales by the dtype of an attention's weights, which runtimes load them in; else float32."""
TOKENS = 1000
"""Tokens for which a plan and a report say how large the cache is."""

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""How far towards the least squared error scales of keys are tried."""

Answers = Callable[[], Iterable[torch.Tensor]]
"""Runs some text through a block; its answers."""
See = Callable[[str, torch.Tensor], torch.Tensor]
"""(scale, keys or values [batch, heads, tokens, width]) -> what the attention goes on with."""


@dataclass(frozen=True)
class Kept:
    """What attentions keep, and what becomes of it."""

    attentions: list[Attention]
    see: See


@dataclass(frozen=True)
class Attention:
    """An attention that keeps `numbers` numbers of each token, keys and values together, of at most `window` tokens."""

    module: str
    """Its path in the network."""
    stored: str
    """What its tensors' names begin with in the files."""
    block: int
    heads: int
    """Of keys and values."""
    numbers: int
    window: int | None
    dtype: torch.dtype
    """Of its weights as they are stored."""

    @property
    def scales(self) -> tuple[str, str]:
        """The names of its scales in the network: of keys and of values."""
        return f"{self.module}.k_scale", f"{self.module}.v_scale"

    @property
    def type(self) -> str:
        """How its scales are stored."""
        return TYPES.get(self.dtype, "fp32")

    def name_of(self, scale: str) -> str:
        """What a scale is called in the files."""
        return self.stored + scale.removeprefix(self.module)


def attentions(arch: Architecture, cache: Cache) -> list[Attention]:
    """The attentions of a network's decoder that a runtime divides keys and values of, in the order of its blocks.

    ModelError where they do not keep keys and values as such, or the runtime would not find their scales.
    """
    owners = dict.fromkeys(name.rpartition(".")[0] for name in cache.scales)
    found = [_attention(arch, owner) for owner in owners if arch.block_of(f"{owner}.") is not None]
    return sorted(found, key=lambda one: one.block)


def _attention(arch: Architecture, path: str) -> Attention:
    module, block = arch.model.get_submodule(path), arch.block_of(f"{path}.")
    assert block is not None
    network = type(arch.model).__name__

    def refuse(why: str) -> ModelError:
        return ModelError(
            f"{network} {why}", where=f"{arch.checkpoint.folder}: {path}", fix="Leave --kv-cache out", foreign=True,
            key="kv_cache",
        )  # fmt: skip

    if hasattr(module, LATENT):
        raise refuse(f"makes keys and values from a latent ({LATENT}), and that is what other runtimes keep")
    if KEPT not in inspect.signature(module.forward).parameters:
        raise refuse(f"does not hand {KEPT} to its attention")
    tensor, param = next(((t, p) for t, p in arch.targets.items() if p.startswith(f"{path}.")), ("", path))
    tail = param.removeprefix(path)
    stored = tensor.removesuffix(tail)
    if not tensor.endswith(tail) or arch.renamed(f"{stored}.k_scale") != f"{path}.k_scale":
        raise refuse("is renamed on loading, and scales of keys and values beside its attention would not be found")
    width = getattr(module, "head_dim", None)
    size = _sizes(module, arch.config.get_text_config(decoder=True), width)
    if size is None or not width or size[0] % width:
        raise refuse("does not say how many keys its attention keeps")
    window = getattr(module, "sliding_window", None)
    dtype = arch.checkpoint.entry(tensor).dtype
    return Attention(path, stored, block, size[0] // width, sum(size), window, dtype)


def _sizes(module: Any, config: Any, width: int | None) -> tuple[int, int] | None:
    """Numbers in the keys and in the values of one token; None where nothing says so."""
    keys, values = (getattr(module, name, None) for name in ("k_proj", "v_proj"))
    if keys is not None:
        return keys.out_features, (values or keys).out_features  # some have their keys for values, too
    heads = getattr(config, "num_key_value_heads", None) or getattr(config, "num_attention_heads", None)
    return (heads * width, heads * width) if heads and width else None


def size(kept: Iterable[Attention], format: str | None, tokens: int = TOKENS) -> int:
    """Bytes of keys and values of so many tokens, in a format or as the weights are stored; their scales aside."""
    bits = None if format is None else named(format).code.bits
    return sum(one.numbers * min(tokens, one.window or tokens) * (bits or 8 * one.dtype.itemsize) // 8 for one in kept)


@contextmanager
def keeping(block: torch.nn.Module, path: str, kept: Iterable[Attention], see: See) -> Iterator[None]:
    """Within, what these attentions of a `block`, which is at `path` in its network, keep passes through `see`."""
    hooks = []
    try:
        for one in kept:
            module = block.get_submodule(one.module.removeprefix(f"{path}."))
            hooks.append(module.register_forward_pre_hook(partial(_hand, _Shown(one, see)), with_kwargs=True))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _hand(shown: _Shown, module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return args, {**kwargs, KEPT: shown}


def read_back(checkpoint: QuantizedCheckpoint, arch: Architecture) -> Kept | None:
    """What a written folder makes of the keys and values of its network `arch`, without weights; None for nothing.

    Raises FileError where a scale is missing or is no scale, ModelError where runtimes would not find it.
    """
    cache = checkpoint.cache(arch.model)
    if cache is None:
        return None
    kept = attentions(arch, cache)
    names = {scale: one.name_of(scale) for one in kept for scale in one.scales}
    for scale, name in names.items():
        found = checkpoint.cache_scale(name)
        wrong = _fault(found, cache.scales[scale])
        if wrong is not None:
            fix = "The file is incomplete or damaged: write it again"
            raise FileError(f"a scale of keys or values is {wrong}", where=f"{checkpoint.folder}: {name}", fix=fix)

    def see(scale: str, x: torch.Tensor) -> torch.Tensor:
        return checkpoint.round_cache(names[scale], x)

    return Kept(kept, see)


def _fault(scale: torch.Tensor | None, shape: tuple[int, ...]) -> str | None:
    """What is wrong with a scale; None for nothing."""
    if scale is None:
        return "missing"
    if tuple(scale.shape) != shape and not (math.prod(shape) == scale.numel() == 1):
        return f"{list(scale.shape)}, and its attention needs {list(shape)}"
    if not bool(torch.isfinite(scale).all()):
        return "not finite"
    return None if bool((scale > 0).all()) else "not positive"


class _Shown:
    """A cache that keeps nothing."""

    def __init__(self, one: Attention, see: See) -> None:
        self._one, self._see = one, see

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """What the attention goes on with instead of its keys and values [batch, heads, tokens, width]."""
        with torch._C.DisableTorchFunction():
            k, v = self._one.scales
            return self._see(k, keys), self._see(v, values)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a cache that is rounded has no {name}")


@dataclass
class Seen:
    """How keys or values of one attention lie: a histogram, or one for each head."""

    parts: list[Histogram]

    def scales(self, grid: Grid, number: Number, share: float) -> list[float]:
        """A scale of each part: `share` of the way, in octaves, from what the largest value asks for to the best fit.

        The best fit has the least squared error.
        """
        found = []
        for part in self.parts:
            best, largest = fixed.fit(part, grid, number), max(part.high, -part.low) / grid.high
            found.append(best if share == 1 or not largest > best else largest ** (1 - share) * best**share)
        return found

    def add(self, x: torch.Tensor, heads: bool) -> None:
        """Count keys or values [batch, heads, tokens, width]."""
        pieces = list(x.unbind(1)) if heads else [x]
        found = [Histogram.of(piece.detach()) for piece in pieces]
        self.parts = [a + b for a, b in zip(self.parts, found, strict=True)] if self.parts else found


class Keeper:
    """The scales of one job: chosen block by block, from what passes, and then used.

    Values have the scale with the least squared error. Of keys that error says little: a few large ones decide where
    attention goes, and it is worth small ones to keep them whole. So their scale is sought between the one that holds
    the largest and the one of least squared error, by what the block then answers. `recording` and `rounding` are for
    the time of a pass through a loaded block.
    """

    def __init__(
        self,
        container: TensorContainer,
        arch: Architecture,
        kept: list[Attention],
        written: Callable[[str], torch.Tensor | None],
        shares: Sequence[float] = SHARES,
    ) -> None:
        """`written(name)` is a scale that an earlier run has stored, by its name in the files."""
        assert container.cache is not None
        self._container, self._cache, self._arch, self._kept = container, container.cache, arch, kept
        self._shares = shares
        self._seen: dict[str, Seen] = {}
        self._scales: dict[str, torch.Tensor] = {}
        for one in kept:
            for scale in one.scales:
                known = written(one.name_of(scale))
                if known is not None:
                    self._scales[scale] = known

    def of(self, block: int) -> list[Attention]:
        """The attentions of a block."""
        return [one for one in self._kept if one.block == block]

    def known(self, block: int) -> bool:
        """Whether the scales of a block are chosen; so are those of one that keeps nothing."""
        return all(scale in self._scales for one in self.of(block) for scale in one.scales)

    def noting(self, block: int, module: torch.nn.Module, note: Callable[[], None]) -> AbstractContextManager[None]:
        """Within, `note` is called whenever keys or values pass."""

        def see(scale: str, x: torch.Tensor) -> torch.Tensor:
            note()
            return x

        return self._within(block, module, see)

    def recording(
        self, block: int, module: torch.nn.Module, done: Callable[[], None] = lambda: None
    ) -> AbstractContextManager[None]:
        """Within, keys and values are counted; `done` is called once all of the block have passed."""
        left = {scale for one in self.of(block) for scale in one.scales}

        def see(scale: str, x: torch.Tensor) -> torch.Tensor:
            self._require(scale, x)
            self._seen.setdefault(scale, Seen([])).add(x, self._cache.heads)
            left.discard(scale)
            if not left:
                done()
            return x

        return self._within(block, module, see)

    def rounding(
        self, block: int, module: torch.nn.Module, scales: Mapping[str, torch.Tensor] | None = None
    ) -> AbstractContextManager[None]:
        """Within, keys and values are rounded as runtimes do: by the scales that are known, or by these alone."""
        by = self._scales if scales is None else scales

        def see(scale: str, x: torch.Tensor) -> torch.Tensor:
            if scale not in by:
                return x
            rounded: torch.Tensor = self._container.round_cache(x.float(), by[scale])
            return rounded.to(x.dtype)

        return self._within(block, module, see)

    def _within(self, block: int, module: torch.nn.Module, see: See) -> AbstractContextManager[None]:
        kept = self.of(block)
        return keeping(module, f"{self._arch.blocks}.{block}", kept, see) if kept else nullcontext()

    def _require(self, scale: str, x: torch.Tensor) -> None:
        """Raise where heads are not where they were looked for."""
        shape = self._cache.scales[scale]
        if self._cache.heads and (x.dim() != 4 or x.shape[1] != shape[0]):
            raise ModelError(
                f"what it keeps is {list(x.shape)}, not [batch, {shape[0]} heads, tokens, width]",
                where=scale, fix="Use --kv-cache fp8, or leave it out", key="kv_cache",
            )  # fmt: skip

    def choose(self, block: int, module: torch.nn.Module, answers: Answers) -> Iterator[Aside]:
        """Choose the scales of a block from what was counted. TensorError where that is not finite.

        `answers` runs some text through the loaded block and gives what it answers, batch by batch.
        """
        mine = self.of(block)
        for one in mine:
            for scale in one.scales:
                count = self._cache.scales[scale][0] if self._cache.heads else 1
                seen = self._seen.setdefault(scale, Seen([Histogram()] * count))
                if not all(part.finite for part in seen.parts):
                    raise TensorError(
                        "keys or values are not finite", where=scale, fix="Repair or download the weights again"
                    )
        tries = [{one.scales[0]: self._scale(one, 0, share) for one in mine} for share in self._shares]
        found = tries[0]
        if len(tries) > 1:
            exact = [answer.float() for answer in answers()]
            errors = []
            for scales in tries:
                with self.rounding(block, module, scales):
                    pairs = zip(answers(), exact, strict=True)
                    errors.append(sum(float((answer.float() - want).double().square().sum()) for answer, want in pairs))
            found = tries[errors.index(min(errors))]
        for one in mine:
            keys, values = one.scales
            self._scales |= {keys: found[keys], values: self._scale(one, 1, 1)}
            del self._seen[keys], self._seen[values]
            yield Aside(aside(one), {one.name_of(scale): self._scales[scale] for scale in one.scales})

    def _scale(self, one: Attention, side: int, share: float) -> torch.Tensor:
        """The scale of its keys (side 0) or values (1), as it is stored."""
        grid, number, scale = named(self._cache.format).code, NUMBERS[one.type], one.scales[side]
        assert isinstance(grid, Grid)
        values = number.round(np.asarray(self._seen[scale].scales(grid, number, share), np.float32))
        return torch.from_numpy(values).to(_dtype(one)).reshape(self._cache.scales[scale])


def _dtype(one: Attention) -> torch.dtype:
    return one.dtype if one.dtype in TYPES else torch.float32


def tried(batches: Sequence[torch.Tensor]) -> int:
    """The number of batches of token ids on which scales of keys are tried."""
    sizes = np.cumsum([ids.numel() for ids in batches])
    return max(1, int(np.searchsorted(sizes, TRIED, "right")))


def aside(one: Attention) -> str:
    """What the journal calls the scales of an attention."""
    return f"cache:{one.stored}"


def specs(one: Attention, cache: Cache) -> list[tuple[str, torch.dtype, tuple[int, ...]]]:
    """Name, dtype and shape of the tensors that hold the scales of an attention."""
    return [(one.name_of(scale), _dtype(one), cache.scales[scale]) for scale in one.scales]
