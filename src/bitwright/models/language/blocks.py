"""Run a decoder block by block: one block's weights in memory at a time, activations within a budget.

The model's own forward is the only description of how blocks are wired. Blocks are replaced by stand-ins that note
how they are called (masks, positions, caches), so that any architecture runs without code of its own.
"""

from __future__ import annotations

import ctypes
import gc
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from bitwright.core.stats import Stats, add_gram, mirror
from bitwright.errors import ModelError
from bitwright.files.safetensors import Checkpoint, read_bytes, view_bytes
from bitwright.models.language.arch import Architecture, Matrix
from bitwright.models.language.memory import COPY_BYTES

Weights = dict[str, torch.Tensor]
"""Checkpoint tensors by name, as stored."""
Rounding = Callable[[str, torch.Tensor], torch.Tensor]
"""(matrix, its inputs [..., columns]) -> those inputs as a runtime rounds them."""
SPILL = ".activations-"
"""How names of files with spilled activations begin."""


class _Stop(Exception):
    """Raised by a stand-in to leave the model's forward once what was wanted of it is known."""


class _StandIn(torch.nn.Module):
    """Takes a block's place: records the call, and answers with a hidden state in the form the block itself returns."""

    def __init__(
        self, block: torch.nn.Module, answer: Callable[[torch.Tensor, tuple[Any, ...], dict[str, Any]], Any]
    ) -> None:
        super().__init__()
        self._answer = answer
        # The model may read facts off a block, such as its attention type.
        self._facts = {k: v for k, v in vars(block).items() if not k.startswith("_")}

    def __getattr__(self, name: str) -> Any:
        facts = self.__dict__.get("_facts", {})
        return facts[name] if name in facts else super().__getattr__(name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._answer(*_split(args, kwargs))


Call = tuple[tuple[Any, ...], dict[str, Any]]


def _split(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[torch.Tensor, tuple[Any, ...], dict[str, Any]]:
    """A block's call as (hidden states, other positional arguments, keyword arguments)."""
    if args:
        return args[0], args[1:], kwargs
    kwargs = dict(kwargs)
    return kwargs.pop("hidden_states"), (), kwargs


class Decoder:
    """A decoder that runs one block at a time. Hidden states are [batch, tokens, width] in `dtype` on `device`."""

    def __init__(
        self,
        arch: Architecture,
        read: Callable[[str], torch.Tensor] | None = None,
        *,
        rounding: Rounding | None = None,
        device: str = "cpu",
    ) -> None:
        """`read(name)` gives a checkpoint tensor; the default reads the folder. The dtype is the network's own.

        With `rounding`, inputs of the matrices are rounded as the runtime of a quantized model rounds them.
        """
        self.arch, self._rounding = arch, rounding
        self._rounder: Rounder | None = None
        self.read = read or self._read
        self.device = torch.device(device)
        self.model = arch.model
        self.dtype: torch.dtype = next(self.model.parameters()).dtype
        owner, _, leaf = arch.blocks.rpartition(".")
        self._list = getattr(self.model.get_submodule(owner), leaf)
        self._blocks = list(self._list)
        self._as_tuple: bool | None = None
        self._calls: dict[tuple[int, ...], list[Call]] = {}
        self._restore_buffers()
        self._load({e.name: self.read(e.name) for e in arch.tensors_of(None)})
        self.model.tie_weights()

    def _restore_buffers(self) -> None:
        """Compute the tensors that no checkpoint holds (rotary frequencies, masks) as transformers does on loading."""
        for module in self.model.modules():
            meta = [k for k, b in module._buffers.items() if b is not None and b.device.type == "meta"]
            if not meta:
                continue
            for key in meta:
                module._buffers[key] = torch.empty_like(module._buffers[key], device="cpu")
            self.model._init_weights(module)
            for key in meta:
                module._buffers[key] = module._buffers[key].to(self.device)

    def _load(self, tensors: Weights) -> None:
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

    def _read(self, name: str) -> torch.Tensor:
        return read_as(self.arch.checkpoint, name, self.dtype)

    def weights(self, block: int) -> Weights:
        """The stored tensors of one block."""
        return {e.name: self.read(e.name) for e in self.arch.tensors_of(block)}

    @contextmanager
    def loaded(self, block: int, tensors: Weights | None = None) -> Iterator[torch.nn.Module]:
        """Block number `block` with its weights in memory (`tensors` instead of the stored ones); freed at the end."""
        module = self._blocks[block]
        self._load(self.weights(block) if tensors is None else tensors)
        del tensors  # where the dtypes differ the block holds copies
        if self._rounding is not None:
            inside = [m for m in self.arch.matrices.values() if m.block == block]
            self._rounder = Rounder(addresses(module, f"{self.arch.blocks}.{block}", inside), self._rounding)
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
    def enter(self, ids: torch.Tensor) -> torch.Tensor:
        """The hidden states that reach the first block for token ids [batch, tokens]."""
        seen: list[torch.Tensor] = []

        def stop(hidden: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            seen.append(hidden)
            raise _Stop

        with self._stand_ins(stop):
            try:
                self.model(input_ids=ids.to(self.device), use_cache=False)
            except _Stop:
                return seen[0]
        raise ModelError("the model never called its first block", where=self.arch.blocks)

    @torch.no_grad()
    def run(self, block: int, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states after block number `block`, which must be `loaded`; start with block 0."""
        args, kwargs = self._call(hidden, block)
        with self._rounder or nullcontext():
            output = self._blocks[block](hidden, *args, **kwargs)
        self._as_tuple = isinstance(output, tuple)
        return output[0] if self._as_tuple else output  # type: ignore[no-any-return]

    @cached_property
    def _position(self) -> torch.Tensor:
        """Some hidden state [1, 1, width]."""
        width = self.enter(torch.zeros(1, 1, dtype=torch.int64)).shape[-1]
        return torch.randn(1, 1, width, generator=torch.Generator().manual_seed(0)).to(self.device, self.dtype)

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

    @torch.no_grad()
    def logits(self, hidden: torch.Tensor, first: int = 0, stop: int | None = None) -> torch.Tensor:
        """Logits [batch, tokens, words] of words [first, stop), from the hidden states after the last block.

        Anything but all words is for a model that is `separable`.
        """
        last = len(self._blocks) - 1
        count = iter(range(len(self._blocks)))

        def answer(flow: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            return self._wrap(hidden if next(count) == last else flow)

        with self._stand_ins(answer), self._words(first, stop), self._head_rounder() or nullcontext():
            ids = torch.zeros(hidden.shape[:2], dtype=torch.int64, device=self.device)
            return self.model(input_ids=ids, use_cache=False).logits  # type: ignore[no-any-return]

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
        if self._rounding is None or self.arch.head is None:
            return None
        weight = self.model.get_output_embeddings().weight
        return Rounder({weight.data_ptr(): [f"{self.arch.head_module}.weight"]}, self._rounding)

    def _call(self, hidden: torch.Tensor, block: int) -> Call:
        """How the model calls a block for hidden states of this shape (masks and positions depend on nothing else)."""
        shape = tuple(hidden.shape[:2])
        if shape in self._calls:
            return self._calls[shape][block]
        calls: list[Call] = []

        def note(flow: torch.Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            calls.append((args, kwargs))
            # Either the first block has not yet shown in which form it answers, or all is known.
            if self._as_tuple is None or len(calls) == len(self._blocks):
                raise _Stop
            return self._wrap(flow)

        with self._stand_ins(note), suppress(_Stop):
            self.model(input_ids=torch.zeros(shape, dtype=torch.int64, device=self.device), use_cache=False)
        if self._as_tuple is not None:
            self._calls[shape] = calls
        return calls[block]

    def _wrap(self, hidden: torch.Tensor) -> Any:
        return (hidden, None) if self._as_tuple else hidden

    @contextmanager
    def _stand_ins(self, answer: Callable[[torch.Tensor, tuple[Any, ...], dict[str, Any]], Any]) -> Iterator[None]:
        for i, block in enumerate(self._blocks):
            self._list[i] = _StandIn(block, answer)
        try:
            yield
        finally:
            for i, block in enumerate(self._blocks):
                self._list[i] = block


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


_FIRST: dict[Any, int] = {
    torch.nn.functional.linear: 0, torch.addmm: 1, torch.matmul: 0, torch.Tensor.matmul: 0, torch.Tensor.__matmul__: 0
}  # fmt: skip
"""Products, and which argument is the input of the matrix that follows it."""


class Watch(TorchFunctionMode):
    """While active, sees the input of every known matrix, wherever in the network it is multiplied.

    Watching the product itself (linear, addmm) rather than modules catches fused experts as well.
    """

    def __init__(self, names: Mapping[int, list[str]]) -> None:
        """`names`: the matrices whose values begin at each address."""
        super().__init__()
        self._names = names

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.bmm:
            args = (self._each(*args[:2]), *args[1:])
        at = _FIRST.get(func)
        if at is not None and args[at].numel():
            names = self._names.get(args[at + 1].data_ptr())
            if names is not None:
                args = (*args[:at], self.see(args[at], names), *args[at + 1 :])
        return func(*args, **(kwargs or {}))

    def _each(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Inputs [experts, tokens, columns] of a stack [experts, columns, rows], as each of its matrices sees them."""
        step = weight.stride(0) * weight.element_size()
        names = [self._names.get(weight.data_ptr() + i * step) for i in range(len(weight))]
        if weight.device.type == "meta" or not any(names):
            return x
        return torch.stack(
            [self.see(part, known, True) if known else part for part, known in zip(x, names, strict=True)]
        )

    def see(self, x: torch.Tensor, names: list[str], routed: bool = False) -> torch.Tensor:
        """Take note of an input [..., columns] of these matrices; what they are multiplied by.

        Where it is `routed`, rows of zeros stand for tokens that went to other experts.
        """
        raise NotImplementedError


def addresses(block: torch.nn.Module, prefix: str, matrices: list[Matrix]) -> dict[int, list[str]]:
    """The matrices of a loaded block by the address of their values."""
    found: dict[int, list[str]] = {}
    for matrix in matrices:
        weight: torch.Tensor = block.get_parameter(matrix.param.removeprefix(prefix + "."))
        if matrix.expert is not None:
            weight = weight[matrix.expert]
        found.setdefault(weight.data_ptr(), []).append(matrix.name)
    return found


class Recorder(Watch):
    """Gathers `Stats` of the inputs of matrices.

    Matrices that multiply the very same input share one record: `leader[name]` is the first of them, `stats[leader]`
    the record.
    """

    def __init__(self, block: torch.nn.Module, prefix: str, matrices: list[Matrix]) -> None:
        super().__init__(addresses(block, prefix, matrices))
        self.leader: dict[str, str] = {}
        self._sums: dict[str, tuple[int, torch.Tensor]] = {}
        self._inputs: dict[tuple[int, ...], tuple[torch.Tensor, str]] = {}

    def see(self, x: torch.Tensor, names: list[str], routed: bool = False) -> torch.Tensor:
        """Add an input to the record of its matrices, once."""
        key = (x.data_ptr(), *x.shape, *x.stride())
        if key not in self._inputs:
            # Holding the tensor keeps its address from being used again within this forward.
            self._inputs[key] = (x, names[0])
            with torch._C.DisableTorchFunction():
                rows = x.detach().reshape(-1, x.shape[-1])
                if routed:
                    rows = rows[rows.any(dim=1)]
                seen, upper = self._sums.get(names[0], (0, None))
                self._sums[names[0]] = seen + len(rows), add_gram(rows, upper)
        for name in names:
            self.leader[name] = self._inputs[key][1]
        return x

    @cached_property
    def stats(self) -> dict[str, Stats]:
        """The records, by leader; to be read once all batches have passed."""
        return {name: Stats(seen, mirror(upper)) for name, (seen, upper) in self._sums.items()}

    def next_batch(self) -> None:
        """Forget which inputs were seen: a new forward begins."""
        self._inputs.clear()


class Rounder(Watch):
    """Rounds the inputs of matrices as a runtime does that computes in 8 bits."""

    def __init__(self, names: Mapping[int, list[str]], rounding: Rounding) -> None:
        super().__init__(names)
        self._rounding = rounding

    def see(self, x: torch.Tensor, names: list[str], routed: bool = False) -> torch.Tensor:
        """The input, rounded."""
        with torch._C.DisableTorchFunction():
            return self._rounding(names[0], x)


class Activations:
    """Hidden states of many batches, in memory up to `budget` bytes and in one temporary file beyond it."""

    def __init__(self, budget: int, folder: Path | None = None) -> None:
        self._budget = budget
        self._kept: list[torch.Tensor | None] = []
        self._meta: list[tuple[torch.Size, torch.dtype, torch.device]] = []
        self._file: Any = None
        self._folder = folder

    def __len__(self) -> int:
        return len(self._meta)

    def append(self, hidden: torch.Tensor) -> None:
        """Add a batch at the end; all batches but the last must have one size."""
        self._kept.append(None)
        self._meta.append((hidden.shape, hidden.dtype, hidden.device))
        self[len(self._meta) - 1] = hidden

    def __setitem__(self, i: int, hidden: torch.Tensor) -> None:
        size = hidden.nbytes
        used = sum(t.nbytes for t in self._kept if t is not None)
        self._meta[i] = (hidden.shape, hidden.dtype, hidden.device)
        if self._kept[i] is not None or used + size <= self._budget:
            self._kept[i] = hidden
            return
        if self._file is None:
            self._file = tempfile.NamedTemporaryFile(dir=self._folder, prefix=SPILL, buffering=0)  # noqa: SIM115
        self._file.seek(i * self._slot)
        self._file.write(view_bytes(hidden.contiguous().cpu()))

    def __getitem__(self, i: int) -> torch.Tensor:
        kept = self._kept[i]
        if kept is not None:
            return kept
        shape, dtype, device = self._meta[i]
        assert self._file is not None
        raw = torch.empty(shape.numel() * dtype.itemsize, dtype=torch.uint8)
        read_bytes(Path(self._file.name), i * self._slot, raw)
        return raw.view(dtype).reshape(shape).to(device)

    @property
    def _slot(self) -> int:
        shape, dtype, _ = self._meta[0]
        return shape.numel() * dtype.itemsize
