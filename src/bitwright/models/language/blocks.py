"""Run a decoder block by block: one block's weights in memory at a time, activations within a budget.

The model's own forward is the only description of how blocks are wired. Blocks are replaced by stand-ins that note
how they are called (masks, positions, caches), so that any architecture runs without code of its own.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from bitwright import machine
from bitwright.errors import BitwrightError, ModelError
from bitwright.files.folder import require_finite
from bitwright.files.safetensors import Checkpoint
from bitwright.models.language.arch import Architecture, initializer
from bitwright.models.language.cache import Kept, keeping
from bitwright.models.language.memory import COPY_BYTES
from bitwright.models.language.watch import Rounder, Rounding, addresses

Weights = dict[str, torch.Tensor]
"""Checkpoint tensors by name, as stored."""
HIDDEN = "hidden_states"
"""What hidden states are called where a network passes them by name."""
TRIED = 8
"""Tokens on which it is tried how a network calls its blocks."""


class Stop(Exception):
    """Leaves the model's forward once what was wanted of it is known."""


Call = tuple[torch.Tensor, tuple[Any, ...], dict[str, Any]]
"""How a block is called: hidden states, other positional arguments, keyword arguments."""
Answer = Callable[[int, torch.Tensor, tuple[Any, ...], dict[str, Any]], Any]
"""What stands in for block number i, when it is called."""


class _StandIn(torch.nn.Module):
    """Takes a block's place: records the call, and answers with a hidden state in the form the block itself returns."""

    def __init__(self, number: int, block: torch.nn.Module, answer: Answer) -> None:
        super().__init__()
        self._number, self._answer = number, answer
        # Not as a submodule: the model may read facts off a block, such as its attention type, and nothing else.
        self.__dict__["_block"] = block

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.__dict__["_block"], name)
        if isinstance(found, torch.nn.Module | torch.Tensor):
            raise Unchained("its network reaches into its blocks from outside")
        return found

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._answer(self._number, *_split(args, kwargs))


def _split(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """A block's call. Hidden states that are passed by name keep their place among the names."""
    return (args[0], args[1:], kwargs) if args else (kwargs[HIDDEN], (), kwargs)


class Unchained(ModelError):
    """A network whose blocks cannot be run one after another, each from what the one before it answered."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"it cannot run block by block: {why}",
            fix="Use --method rtn without text or --kv-cache: its weights are quantized and read back all the same",
        )


@dataclass
class Passage:
    """A batch of token ids [batch, tokens] on its way through the blocks, and what they hand on beside hidden states.

    `beside` is what the last block answered besides; `shared` what blocks left in tables that they all get, by the
    table's place in their call (Gemma 4's later blocks use the keys and values of earlier ones).
    """

    ids: torch.Tensor
    beside: tuple[Any, ...] = ()
    shared: dict[int | str, dict[Any, Any]] = field(default_factory=dict)


class Decoder:
    """A decoder that runs one block at a time. Hidden states are [batch, tokens, width] in `dtype` on `device`."""

    def __init__(
        self,
        arch: Architecture,
        read: Callable[[str], torch.Tensor] | None = None,
        *,
        rounding: Rounding | None = None,
        kept: Kept | None = None,
        device: str = "cpu",
    ) -> None:
        """`read(name)` gives a checkpoint tensor; the default reads the folder. The dtype is the network's own.

        With `rounding`, inputs of the matrices are rounded as the runtime of a quantized model rounds them; `kept` says
        what becomes of keys and values.
        """
        self.arch, self.rounding, self._kept = arch, rounding, kept
        self._rounder: Rounder | None = None
        self.read = read or self._read
        self.device = torch.device(device)
        self.model = arch.model
        self.dtype: torch.dtype = next(self.model.parameters()).dtype
        owner, _, leaf = arch.blocks.rpartition(".")
        self._list = getattr(self.model.get_submodule(owner), leaf)
        self._blocks = list(self._list)
        self._forms: dict[int, int | None] = {}
        self._calls: dict[tuple[int, ...], list[tuple[tuple[Any, ...], dict[str, Any]]]] = {}
        self._restore_buffers()
        self.load({e.name: self.read(e.name) for e in arch.tensors_of(None)})
        self.model.tie_weights()

    def _restore_buffers(self) -> None:
        """Compute the tensors that no checkpoint holds (rotary frequencies, masks) as transformers does on loading.

        That may be done by any module around the one that holds them, children first.
        """
        around: list[str] = []
        for name, module in self.model.named_modules():
            meta = [k for k, b in module._buffers.items() if b is not None and b.device.type == "meta"]
            for key in meta:
                module._buffers[key] = torch.empty_like(module._buffers[key], device="cpu")
                around.append(f"{name}.{key}")
        for name, module in reversed(list(self.model.named_modules())):
            if not name or any(buffer.startswith(f"{name}.") for buffer in around):
                initializer(self.model, name)(module)
        for module in self.model.modules():
            for key, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[key] = buffer.to(self.device)

    def load(self, tensors: Weights) -> None:
        """Give parameters their values from checkpoint tensors, through transformers' own conversions."""
        from transformers.core_model_loading import convert_and_load_state_dict_in_model
        from transformers.modeling_utils import LoadStateDictConfig
        from transformers.utils import logging

        logging.disable_progress_bar()
        config = LoadStateDictConfig(
            dtype=self.dtype, weight_mapping=self.arch.conversions, device_map={"": self.device}
        )
        info, _ = convert_and_load_state_dict_in_model(self.model, tensors, config)
        if info.conversion_errors or info.error_msgs or info.mismatched_keys:
            what = info.conversion_errors or info.error_msgs or info.mismatched_keys
            raise ModelError(
                f"transformers could not load these tensors ({what})", where=str(self.arch.checkpoint.folder)
            )
        self.model.requires_grad_(False)

    def _read(self, name: str) -> torch.Tensor:
        return read_as(self.arch.checkpoint, name, self.dtype)

    def weights(self, block: int) -> Weights:
        """The stored tensors of one block."""
        return {e.name: self.read(e.name) for e in self.arch.tensors_of(block)}

    def checked(self, block: int) -> Weights:
        """The same. Raises TensorError where one of them is not finite."""
        weights = self.weights(block)
        for name, tensor in weights.items():
            require_finite(f"{self.arch.checkpoint.entry(name).path}: {name}", tensor)
        return weights

    @contextmanager
    def loaded(self, block: int, tensors: Weights | None = None) -> Iterator[torch.nn.Module]:
        """Block number `block` with its weights in memory (`tensors` instead of the stored ones); freed at the end."""
        module = self._blocks[block]
        self.load(self.weights(block) if tensors is None else tensors)
        del tensors  # where the dtypes differ the block holds copies
        if self.rounding is not None:
            inside = [m for m in self.arch.matrices.values() if m.block == block]
            self._rounder = Rounder(addresses(module, f"{self.arch.blocks}.{block}", inside), self.rounding)
        try:
            yield module
        finally:
            self._rounder = None
            _empty(module)
            release()

    def close(self) -> None:
        """Free what lies outside the blocks: the network itself lives on in the Architecture."""
        _empty(self.model)
        release()

    @torch.no_grad()
    def enter(self, passage: Passage) -> torch.Tensor:
        """The hidden states that reach the first block."""
        return self._reach(0, None, passage)[0]

    def run(self, block: int, hidden: torch.Tensor, passage: Passage) -> torch.Tensor:
        """Hidden states after block number `block`, which must be `loaded`; start with block 0.

        `passage` takes note of what the block hands on besides. A graph is kept where `hidden` asks for its gradient.
        Raises Unchained where blocks are no chain, ModelError where the network cannot run.
        """
        with torch.set_grad_enabled(hidden.requires_grad):
            return self._run(block, hidden, passage)

    def _run(self, block: int, hidden: torch.Tensor, passage: Passage) -> torch.Tensor:
        hidden, args, kwargs = self._call(block, hidden, passage)
        tables = _tables(args, kwargs)
        held = {place: {key: id(value) for key, value in table.items()} for place, table in tables.items()}
        with self._rounder or nullcontext(), self._keeping(block), running(self.arch):
            if HIDDEN in kwargs:
                output = self._blocks[block](**kwargs | {HIDDEN: hidden})
            else:
                output = self._blocks[block](hidden, *args, **kwargs)
        if type(output) is not tuple and not isinstance(output, torch.Tensor):
            raise Unchained(f"its blocks answer with a {type(output).__name__}")
        for place, table in tables.items():
            new = {key: value for key, value in table.items() if held[place].get(key) != id(value)}
            if new:
                passage.shared = passage.shared | {place: passage.shared.get(place, {}) | new}
        self._forms[block] = len(output) if isinstance(output, tuple) else None
        rest = output[1:] if isinstance(output, tuple) else ()
        passage.beside = rest if any(part is not None for part in rest) else ()
        return output[0] if isinstance(output, tuple) else output  # type: ignore[no-any-return]

    def _keeping(self, block: int) -> AbstractContextManager[None]:
        """What sees the keys and values of a block."""
        if self._kept is None:
            return nullcontext()
        mine = [one for one in self._kept.attentions if one.block == block]
        return keeping(self._blocks[block], f"{self.arch.blocks}.{block}", mine, self._kept.see)

    @cached_property
    def _position(self) -> torch.Tensor:
        """Some hidden state [1, 1, width]."""
        shape = self.enter(Passage(torch.zeros(1, 1, dtype=torch.int64))).shape
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(self.device, self.dtype)

    @cached_property
    def vocabulary(self) -> int:
        """The number of words that the model gives logits for."""
        return self.logits(self._position).shape[-1]

    @cached_property
    def separable(self) -> bool:
        """Whether the logits of some words can be had without those of the others: tried on one position."""
        head = self.model.get_output_embeddings()
        if type(head) is not torch.nn.Linear or len(head.weight) != self.vocabulary:
            return False
        whole, middle = self.logits(self._position), self.vocabulary // 2
        parts = [self.logits(self._position, *ends) for ends in ((0, middle), (middle, self.vocabulary))]
        if [part.shape[-1] for part in parts] != [middle, self.vocabulary - middle]:
            return False
        worst = (torch.cat(parts, -1) - whole).abs().max() / whole.abs().max().clamp_min(1e-30)
        return bool(worst <= 100 * torch.finfo(self.dtype).eps)

    def logits(self, hidden: torch.Tensor, first: int = 0, stop: int | None = None) -> torch.Tensor:
        """Logits [batch, tokens, words] of words [first, stop), from the hidden states after the last block.

        Anything but all words is for a model that is `separable`. A graph is kept where `hidden` asks for its gradient.
        """
        last = len(self._blocks) - 1

        def answer(number: int, flow: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return self._wrap(number, hidden if number == last else flow)

        kept = torch.set_grad_enabled(hidden.requires_grad)
        with kept, self._words(first, stop), self._head_rounder() or nullcontext():
            return self._forward(torch.zeros(hidden.shape[:2], dtype=torch.int64), answer)

    @contextmanager
    def _words(self, first: int, stop: int | None) -> Iterator[None]:
        """The output head holds no more than the rows of words [first, stop)."""
        if first == 0 and stop is None:
            yield
            return
        head = self.model.get_output_embeddings()
        whole = dict(head._parameters)
        try:
            for key, param in whole.items():
                if param is not None:
                    head._parameters[key] = torch.nn.Parameter(param[first:stop], requires_grad=False)
            yield
        finally:
            head._parameters.update(whole)

    def _head_rounder(self) -> Rounder | None:
        """What rounds the inputs of the output head."""
        if self.rounding is None or self.arch.head is None:
            return None
        weight = self.model.get_output_embeddings().weight
        return Rounder({weight.data_ptr(): [f"{self.arch.head_module}.weight"]}, self.rounding)

    def _forward(self, ids: torch.Tensor, answer: Answer) -> torch.Tensor:
        """The model's own forward with stand-ins for its blocks; its logits [batch, tokens, words]."""
        for i, block in enumerate(self._blocks):
            self._list[i] = _StandIn(i, block, answer)
        try:
            with running(self.arch):
                return self.model(input_ids=ids.to(self.device), use_cache=False).logits  # type: ignore[no-any-return]
        finally:
            for i, block in enumerate(self._blocks):
                self._list[i] = block

    def _call(self, block: int, hidden: torch.Tensor, passage: Passage) -> Call:
        """How the model calls a block after the one before it answered with `hidden`."""
        # The first block has yet to show in which form it answers.
        if not self._forms or not self._plain or passage.beside or passage.shared:
            flow, args, kwargs = self._reach(block, hidden, passage)
            return (hidden if block == 0 else flow), args, kwargs
        shape = tuple(passage.ids.shape)
        if shape not in self._calls:
            calls: list[Call] = []

            def note(number: int, flow: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                calls.append((flow, args, kwargs))
                if number == len(self._blocks) - 1:
                    raise Stop
                return self._wrap(number, flow)

            with suppress(Stop):
                self._forward(torch.zeros(shape, dtype=torch.int64), note)
            self._calls[shape] = [(args, kwargs) for _, args, kwargs in calls]
        return (hidden, *self._calls[shape][block])

    def _reach(self, block: int, hidden: torch.Tensor | None, passage: Passage) -> Call:
        """The call of a block as the model's own forward makes it, from what the block before answered."""
        call: list[Call] = []

        def answer(number: int, flow: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            for place, table in _tables(args, kwargs).items():
                table.update(passage.shared.get(place, {}))
            if number == block:
                call.append((flow, args, kwargs))
                raise Stop
            return self._wrap(number, hidden, passage.beside) if number == block - 1 else self._wrap(number, flow)

        with suppress(Stop):
            self._forward(passage.ids, answer)
        if not call:
            raise Unchained(f"the model never called its block {block}")
        return call[0]

    @cached_property
    def _plain(self) -> bool:
        """Whether blocks get just what the one before answered, and beside it nothing that depends on tokens or states.

        Tried with random answers on a few tokens. Raises Unchained where a block's call depends on blocks before the
        last one, or where blocks are called in another order than they stand in.
        """
        count, g = len(self._blocks), torch.Generator().manual_seed(0)
        shape = self.enter(Passage(torch.zeros(1, TRIED, dtype=torch.int64))).shape
        if TRIED not in shape:
            raise Unchained("its blocks work on other positions than those of the tokens")
        answers = torch.randn((2, count, *shape), generator=g).to(self.device, self.dtype)

        def seen(token: int, chosen: Callable[[int], int]) -> list[Call]:
            calls: list[Call] = []

            def answer(number: int, flow: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                if number != len(calls):
                    raise Unchained("its blocks are not called once each, in the order in which they stand")
                calls.append((flow, args, dict(kwargs)))
                return self._wrap(number, answers[chosen(number), number].clone())

            logits = self._forward(torch.arange(TRIED)[None] % 2 + token, answer)
            if len(calls) != count:
                raise Unchained(f"only {len(calls)} of its {count} blocks are called")
            return [*calls, (logits, (), {})]

        base, odd, even = seen(0, lambda i: 0), seen(0, lambda i: i % 2), seen(0, lambda i: 1 - i % 2)
        distribution(base[count][0], self.arch)  # NaN is unlike itself
        for i in range(1, count + 1):
            if not _same(base[i], (even if (i - 1) % 2 else odd)[i]):
                raise Unchained("what reaches a block is more than what the one before it answered")
        other = seen(2, lambda i: 0)
        if not _same(base[count], other[count]):
            raise Unchained("its answers depend on more than what the last block answered")
        straight = all(_same(base[i][0], answers[0, i - 1]) for i in range(1, count))
        return straight and all(_same(base[i][1:], calls[i][1:]) for calls in (odd, even, other) for i in range(count))

    def _wrap(self, number: int, hidden: torch.Tensor | None, beside: tuple[Any, ...] = ()) -> Any:
        """`hidden` in the form in which a block answers, or the first of which that is known."""
        form = self._forms.get(number, next(iter(self._forms.values()), None))
        if form is None:
            return hidden
        return (hidden, *beside) if beside else (hidden, *[None] * (form - 1))


FOREIGN = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
"""What transformers' networks raise where a config contradicts itself, or where text alone is not enough for them."""


@contextmanager
def running(arch: Architecture) -> Iterator[None]:
    """Errors of a network's own code name the model; those of ours pass."""
    try:
        yield
    except (BitwrightError, torch.OutOfMemoryError):
        raise
    except FOREIGN as error:
        if machine.exhausted(error):
            raise
        raise ModelError(
            f"its network does not run on text ({type(error).__name__}: {' '.join(str(error).split())[:200]})",
            where=str(arch.checkpoint.folder),
            fix="Use the config.json that belongs to these weights; what needs more than text cannot be run",
        ) from error


def distribution(logits: torch.Tensor, arch: Architecture) -> torch.Tensor:
    """The softmax of `logits` [..., words], float32. Raises ModelError where they are not finite, but for -inf."""
    found = torch.softmax(logits.detach(), -1, dtype=torch.float32)
    if not bool(torch.isfinite(found.sum(-1)).all()):
        raise ModelError(
            "its logits are not finite",
            where=str(arch.checkpoint.folder), fix="Repair or download the weights again",
        )  # fmt: skip
    return found


def _tables(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[int | str, MutableMapping[Any, Any]]:
    """The tables among a call's arguments, by place or name."""
    places: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    return {place: value for place, value in places if isinstance(value, MutableMapping)}


def _same(a: Any, b: Any) -> bool:
    """Whether two arguments are equal, tensors by value; objects of other libraries by their type."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(map(_same, a, b))
    return type(a) is type(b) and (a == b if isinstance(a, str | int | float | None) else True)


def _empty(module: torch.nn.Module) -> None:
    """Leave parameters their shapes only."""
    for part in module.modules():
        for key, param in part._parameters.items():
            if param is not None:
                part._parameters[key] = torch.nn.Parameter(param.to("meta"), requires_grad=False)


def read_as(checkpoint: Checkpoint, name: str, dtype: torch.dtype) -> torch.Tensor:
    """A tensor in `dtype`, if it holds floats: a few rows at a time, so that it is never there in both dtypes."""
    entry = checkpoint.entry(name)
    if entry.dtype == dtype or not entry.dtype.is_floating_point or not entry.shape:
        return checkpoint.read(name)
    whole = torch.empty(entry.shape, dtype=dtype)
    for start, piece in checkpoint.chunks(name, max(1, COPY_BYTES // max(entry.row_size, 1))):
        whole[start : start + len(piece)] = piece
    return whole


def release() -> None:
    """Give freed memory back to the system, which glibc would otherwise keep and count against the ceiling."""
    gc.collect(0)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
