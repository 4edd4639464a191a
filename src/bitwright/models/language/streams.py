"""Two streams through a decoder: the float network, and its twin in which all is quantized that was solved so far.

Behind quantized layers a matrix gets other inputs than the float network gave it. Here both pass each block side by
side: the float stream once, and what it feeds each matrix is kept; then the twin, up to the inputs of the matrices
whose turn it is, again and again as matrices before them get their codes; at last the twin as a whole. What the streams
differ by is what `core.drift` makes up for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bitwright.core.drift import Drift, Factors, aim, describe
from bitwright.core.measure import Usage
from bitwright.core.stats import Stats, add_gram, add_product, mirror
from bitwright.events import Event, Progress
from bitwright.methods import Samples
from bitwright.models.language.activations import Activations
from bitwright.models.language.arch import Architecture, Matrix
from bitwright.models.language.blocks import Passage, Stop
from bitwright.models.language.cache import Keeper
from bitwright.models.language.calibration import Calibration, Stage, require_moments, stop
from bitwright.models.language.memory import SAMPLES
from bitwright.models.language.text import Text
from bitwright.models.language.watch import Count, Rounding, Watch, addresses
from bitwright.models.language.whole import Whole
from bitwright.models.model import Aside, Item

ADDS: set[Any] = {
    torch.add, torch.Tensor.add, torch.Tensor.add_, torch.Tensor.__add__, torch.Tensor.__radd__, torch.Tensor.__iadd__
}  # fmt: skip
"""Sums of two tensors: where a product is added to the residual stream."""
CHOICES: set[Any] = {torch.topk, torch.Tensor.topk}
"""How routers choose experts."""


class Stream(Watch):
    """Sees, batch by batch, the inputs of matrices, what their products are added to, and which experts are chosen."""

    def __init__(self, names: dict[int, list[str]]) -> None:
        super().__init__(names)
        self.batch = 0
        self._made: dict[int, tuple[torch.Tensor, str]] = {}
        self._born: dict[int, int] = {}
        self._steps = self._chosen = 0

    @contextmanager
    def on(self, batch: int) -> Iterator[None]:
        """Watch batch number `batch` pass; a pass that has shown all that was wanted ends early."""
        self.batch, self._chosen = batch, 0
        try:
            with suppress(Stop), self:
                yield
        finally:
            self._made.clear()
            self._born.clear()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in ADDS and len(args) == 2:
            self._join(*args)
        if func in CHOICES:
            chosen = self.choose(self._chosen, func(*args, **(kwargs or {})), *args, **(kwargs or {}))
            self._chosen += 1
            return chosen
        out = super().__torch_function__(func, types, args, kwargs)
        self._steps += 1
        if isinstance(out, torch.Tensor):
            at = out.data_ptr()
            seen = any(isinstance(x, torch.Tensor) and x.data_ptr() == at for x in args)
            if not seen:  # neither a view nor changed in place
                self._born[at] = self._steps
        return out

    def answered(self, y: torch.Tensor, x: torch.Tensor, names: list[str], at: int | None = None) -> None:
        """Hold a product, so that its address is not used again, until it is known what it is added to."""
        if at is None:
            self._made[y.data_ptr()] = y, names[0]

    def _join(self, a: Any, b: Any) -> None:
        """Tell of the sum of a product and of something that is none itself."""
        if not (isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor)) or a.shape != b.shape:
            return
        for product, other in ((a, b), (b, a)):
            found = self._made.get(product.data_ptr())
            if found is None or found[0].numel() != product.numel() or other.data_ptr() in self._made:
                continue
            # What was made after the product may be made of it, as in an activation's polynomial.
            if self._born.get(other.data_ptr(), 0) <= self._born[product.data_ptr()]:
                with torch._C.DisableTorchFunction():
                    self.join(found[1], other.reshape(-1, other.shape[-1]))

    def join(self, name: str, stream: torch.Tensor) -> None:
        """The product of a matrix is added to `stream` [tokens, rows]."""
        raise NotImplementedError

    def choose(self, number: int, found: Any, x: torch.Tensor, k: int, dim: int = -1, *_: Any, **__: Any) -> Any:
        """What stands for the `number`-th choice of this pass, `found`: the `k` largest of `x` along `dim`."""
        raise NotImplementedError


class Source(Stream):
    """The float stream in one block: keeps what it feeds each matrix, what is added to, and how it routes."""

    def __init__(self, names: dict[int, list[str]], store: Activations | None) -> None:
        """With no `store` only routes are kept."""
        super().__init__(names)
        self.leader: dict[str, str] = {}
        self.order: list[str] = []
        self.routes: dict[int, list[torch.Tensor]] = {}
        self._kept = 0
        self._store = store
        self._place: dict[tuple[str, int, bool], int] = {}
        self._inputs: dict[tuple[int, ...], tuple[torch.Tensor, str]] = {}

    @contextmanager
    def on(self, batch: int) -> Iterator[None]:
        self._inputs.clear()
        with super().on(batch):
            yield
        self._inputs.clear()

    def see(self, x: torch.Tensor, names: list[str], routed: bool = False) -> torch.Tensor:
        """Keep an input, once."""
        key = (x.data_ptr(), *x.shape, *x.stride())
        if key not in self._inputs:
            # Holding the tensor keeps its address from being used again within this pass.
            self._inputs[key] = x, names[0]
            if names[0] not in self.leader:
                self.order.append(names[0])
            with torch._C.DisableTorchFunction():
                self._keep(names[0], x.reshape(-1, x.shape[-1]), False)
        for name in names:
            self.leader.setdefault(name, self._inputs[key][1])
        return x

    def join(self, name: str, stream: torch.Tensor) -> None:
        """Keep what a matrix's product is added to."""
        self._keep(name, stream, True)

    def note(self) -> None:
        """Keys or values pass: what was fed so far may have made them."""
        self._kept = len(self.order)

    def follows(self, items: list[Item]) -> bool:
        """Whether all that makes keys and values was fed before these matrices."""
        places = [self.order.index(self.leader[item.name]) for item in items if item.name in self.leader]
        return bool(places) and min(places) >= self._kept

    def choose(self, number: int, found: Any, *_: Any, **__: Any) -> Any:
        """The choice, noted."""
        self.routes.setdefault(self.batch, []).append(found[1])
        return found

    def _keep(self, name: str, rows: torch.Tensor, added: bool) -> None:
        if self._store is not None:
            self._place[name, self.batch, added] = len(self._store)
            self._store.append(rows.clone())  # a network may write over it

    def kept(self, name: str, batch: int, added: bool = False) -> torch.Tensor | None:
        """The rows [tokens, columns] that a leader was fed, or those its product was `added` to; None for none."""
        at = self._place.get((name, batch, added))
        return None if at is None or self._store is None else self._store[at]


@dataclass
class Sums:
    """What one half of the batches adds up to, of one input."""

    n: int = 0
    upper: torch.Tensor | None = None
    cross: torch.Tensor | None = None
    paired: bool = True
    """Whether every batch of both streams holds the same rows."""


@dataclass(eq=False)
class Twin(Stream):
    """The quantized stream in one block: sums up how the inputs of the matrices whose turn it is differ."""

    names: dict[int, list[str]]
    source: Source
    wanted: frozenset[str] = frozenset()
    """Leaders whose inputs are summed up; with none, a pass goes through the whole block."""
    rounding: Rounding | None = None
    count: Count | None = None
    sampled: int = 0
    """Rows of each batch that are kept of each input, for methods that learn from them."""
    usage: dict[str, Usage | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(self.names)
        self.leader = self.source.leader
        self._sums = {(name, half): Sums() for name in self.wanted for half in (0, 1)}
        self._residuals: dict[tuple[str, int], torch.Tensor] = {}
        self._whole: set[str] = {n for n, leader in self.leader.items() if leader in self.wanted}
        self._sharing = Counter(self.leader.values())
        self._factors: dict[str, Factors] = {}
        self._targets: dict[tuple[str, int], tuple[torch.Tensor, str | None]] = {}
        self._rows: dict[str, torch.Tensor] = {}
        self._samples: dict[str, list[torch.Tensor]] = {}
        self._inputs: dict[tuple[int, ...], torch.Tensor] = {}
        self._left: set[tuple[str, bool]] = set()

    @contextmanager
    def on(self, batch: int) -> Iterator[None]:
        members = (name for name in self._whole if self.source.kept(name, batch, True) is not None)
        self._left = {(name, False) for name in self.wanted} | {(name, True) for name in members}
        with super().on(batch):
            yield
        for name, joined in self._left:
            if joined:
                self._whole.discard(name)  # its sum was not found in this stream
        self._rows.clear()
        self._inputs.clear()

    def see(self, x: torch.Tensor, names: list[str], routed: bool = False) -> torch.Tensor:
        """Sum up an input, as the quantized network rounds it, once."""
        key = (x.data_ptr(), *x.shape, *x.stride())
        with torch._C.DisableTorchFunction():
            # Of matrices with one input, one may have it rounded and another not.
            rounded = x if self.rounding is None else _round(partial(self.rounding, names[0]), x)
            if key not in self._inputs:
                leader = self.leader.get(names[0], names[0])
                if self.count is not None and leader in self.wanted and leader not in self.usage:
                    self.usage[leader] = self.count(names[0], x.reshape(-1, x.shape[-1]))
                self._inputs[key] = x  # held, so that its address is not used again within this pass
                if (leader, False) in self._left:
                    self._add(leader, rounded.reshape(-1, x.shape[-1]), routed)
                    self._done(leader, False)
        return rounded

    def _add(self, leader: str, rows: torch.Tensor, routed: bool) -> None:
        sums, before = self._sums[leader, self.batch % 2], self.source.kept(leader, self.batch)
        sums.n += int(rows.any(dim=1).sum()) if routed else len(rows)
        sums.upper = add_gram(rows, sums.upper)
        self._rows[leader] = rows
        if self.sampled:
            there = rows[rows.any(dim=1)] if routed else rows
            drawn = torch.randperm(len(there), generator=torch.Generator().manual_seed(self.batch))[: self.sampled]
            self._samples.setdefault(leader, []).append(there[drawn.to(there.device)])
        if before is None or before.shape != rows.shape:
            sums.paired = False
        else:
            sums.cross = add_product(before.float() - rows, rows, sums.cross)

    def join(self, name: str, stream: torch.Tensor) -> None:
        """Sum up what the stream that a product is added to has lost."""
        if (name, True) not in self._left:
            return
        before, rows = self.source.kept(name, self.batch, True), self._rows.get(self.leader[name])
        if before is None or rows is None or before.shape != stream.shape or len(rows) != len(stream):
            return
        at = name, self.batch % 2
        self._residuals[at] = add_product(before.float() - stream, rows, self._residuals.get(at))
        self._done(name, True)

    def _done(self, name: str, joined: bool) -> None:
        self._left.discard((name, joined))
        if not self._left:
            raise Stop

    def choose(self, number: int, found: Any, x: torch.Tensor, k: int, dim: int = -1, *_: Any, **__: Any) -> Any:
        """The float network's choice, so that both streams send a token to the same experts."""
        routes = self.source.routes.get(self.batch, [])
        if number >= len(routes) or routes[number].shape != found[1].shape:
            return found
        with torch._C.DisableTorchFunction():
            return torch.return_types.topk((x.gather(dim, routes[number]), routes[number]))  # type: ignore[attr-defined]

    @property
    def stats(self) -> dict[str, Stats]:
        """The record of each input of the quantized network, by leader; to be read once all batches have passed."""
        if not hasattr(self, "_stats"):
            self._halves = {
                at: Stats(sums.n, mirror(sums.upper)) for at, sums in self._sums.items() if sums.upper is not None
            }
            found: dict[str, Stats] = {}
            for (name, _), stats in self._halves.items():
                found[name] = found[name] + stats if name in found else stats
            self._stats = found
        return self._stats

    def samples(self, name: str) -> Samples:
        """Rows of what a matrix is fed, of all batches; what it should answer follows from what it is aimed at."""
        return Samples(torch.cat(self._samples[self.leader[name]]).float())

    def aim(self, item: Item, start: int, w: torch.Tensor) -> torch.Tensor:
        """The target of rows from `start` on: the float weights `w`, with what the inputs lost made up for."""
        leader = self.leader.get(item.name, item.name)
        halves = [self._drift(item.name, leader, half, start, start + len(w)) for half in (0, 1)]
        if halves[0] is None or halves[1] is None:
            return w
        target: torch.Tensor
        factors = self._factors.setdefault(leader, {}) if self._sharing[leader] > 1 else None
        target, choices = aim(w, (halves[0], halves[1]), factors)
        self._targets[item.name, start] = target, describe(choices)
        return target

    def aimed(self, item: Item, start: int, w: torch.Tensor) -> tuple[torch.Tensor, str | None]:
        """What rows from `start` on were aimed at, and in words how; else `w` and None. To be asked once."""
        return self._targets.pop((item.name, start), (w, None))

    def halves(self, name: str) -> tuple[Drift, Drift] | None:
        """What each half of the batches says of a matrix's inputs, and what they lost; None where they saw too little.

        The record of what a block adds to its stream is there where both streams hold it.
        """
        leader, found = self.leader.get(name, name), []
        for half in (0, 1):
            sums, stats = self._sums.get((leader, half)), self._halves.get((leader, half))
            if sums is None or stats is None:
                return None
            cross = sums.cross if sums.paired and sums.cross is not None else torch.zeros_like(stats.moment)
            found.append(Drift(stats, cross, self._residuals.get((name, half)) if name in self._whole else None))
        return found[0], found[1]

    def _drift(self, name: str, leader: str, half: int, start: int, stop: int) -> Drift | None:
        sums, stats = self._sums.get((leader, half)), self._halves.get((leader, half))
        if sums is None or stats is None or sums.cross is None or not sums.paired:
            return None
        residual = self._residuals.get((name, half)) if name in self._whole else None
        if residual is None and not bool(sums.cross.any()):
            return None
        return Drift(stats, sums.cross, None if residual is None else residual[start:stop])


def _round(rounding: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """`x` rounded; where it is part of a graph, with the slope of `x` itself."""
    if not x.requires_grad:
        return rounding(x)
    return x + (rounding(x.detach()) - x).detach()


class Streams(Calibration):
    """Runs the calibration windows through the float model and its quantized twin, block after block."""

    least = 2  # a correction is fitted on every other batch, and judged by those between

    def __init__(
        self,
        arch: Architecture,
        device: str,
        text: Text,
        budget: int,
        folder: Path,
        decoded: Callable[[Item], torch.Tensor],
        rounding: Rounding | None,
        keeper: Keeper | None = None,
    ) -> None:
        """`decoded` gives a matrix as it was solved, `rounding` is how inputs of matrices are rounded."""
        super().__init__(arch, device, text, budget // 4, folder, keeper)
        self._budget, self._folder, self._decoded, self._rounding = budget, folder, decoded, rounding
        self.twin = Activations(budget // 4, folder)
        self.twin_passages = [Passage(passage.ids) for passage in self.passages]
        for i in range(len(self.hidden)):
            self.twin.append(self.hidden[i])

    def through(
        self,
        block: int,
        items: list[Item],
        finished: Callable[[str], bool],
        progress: Callable[[float, str], Progress],
        count: Count,
        last: bool = False,
    ) -> Generator[Event | Stage | Whole | Aside, None, None]:
        """See `Calibration.through`: here a stage follows for each input, with what was solved before it quantized.

        Matrices of methods of scope "block" have their stages, too, to begin with; then comes the block as a whole.
        Where not all of them are finished, all come again. Scales of keys and values are chosen once the quantized
        network makes them, and the stages after that see them rounded.
        """
        together = [item for item in items if item.method.scope == "block"]
        again = {item.name for item in together if not all(finished(item.name) for item in together)}

        def solved(name: str) -> bool:
            return name not in again and finished(name)

        label = f"calibrating block {block + 1} of {self.arch.count}"
        todo, keeper = not all(solved(item.name) for item in items), self.keeper
        if not todo and last and (keeper is None or keeper.known(block)):
            return
        weights = self.decoder.checked(block)
        size = sum(tensor.nbytes for tensor in weights.values())
        matrices = [item.part for item in items]
        with self.decoder.loaded(block, weights) as module:
            source = Source(self.addresses(block, module, matrices), self._store() if todo else None)
            for i in range(len(self.hidden)):
                with source.on(i), self._noting(block, module, source):
                    self.hidden[i] = self.decoder.run(block, self.hidden[i], self.passages[i])
                yield progress(size / 3 / len(self.hidden), label)

            def quantized(part: list[Item]) -> None:
                weights.update({item.name: self._decoded(item) for item in part})
                self.decoder.load(dict(weights))

            def whole() -> Twin:
                return Twin(self.addresses(block, module, matrices), source, rounding=self._rounding)

            rounds = False

            def kept() -> AbstractContextManager[None]:
                return keeper.rounding(block, module) if keeper is not None and rounds else nullcontext()

            parts = stages(items, source)
            for part in parts:
                if keeper is not None and not rounds and not together and source.follows(part):
                    yield from self._choose(keeper, block, module, whole(), progress)
                    rounds = True
                if not all(solved(item.name) for item in part):
                    wanted = frozenset(source.leader[item.name] for item in part if item.name in source.leader)
                    learns = any(i.method.needs == "samples" and i.method.scope == "matrix" for i in part)
                    sampled = max(1, SAMPLES // len(self.twin)) if learns else 0
                    twin = Twin(
                        self.addresses(block, module, matrices), source, wanted, self._rounding, count, sampled=sampled
                    )
                    for i in range(len(self.twin)):
                        passage = Passage(**vars(self.twin_passages[i]))
                        with twin.on(i), kept():
                            self.decoder.run(block, self.twin[i], passage)
                        yield progress(size / 3 / len(self.hidden) / len(parts), label)
                    require_moments(twin.stats)
                    yield Stage(part, twin)
                    del twin
                quantized(part)

            if again:
                yield Whole(together, self.decoder, block, module, self.twin, self.hidden, self.twin_passages, whole)
                quantized(together)
            if keeper is not None and not rounds:
                yield from self._choose(keeper, block, module, whole(), progress)
                rounds = True
            if last:
                return
            twin = whole()
            for i in range(len(self.twin)):
                with twin.on(i), kept():
                    self.twin[i] = self.decoder.run(block, self.twin[i], self.twin_passages[i])
                yield progress(size / 3 / len(self.hidden), label)

    def _noting(self, block: int, module: torch.nn.Module, source: Source) -> AbstractContextManager[None]:
        """Within, `source` learns when keys and values pass."""
        return nullcontext() if self.keeper is None else self.keeper.noting(block, module, source.note)

    def _choose(
        self,
        keeper: Keeper,
        block: int,
        module: torch.nn.Module,
        twin: Twin,
        progress: Callable[[float, str], Progress],
    ) -> Generator[Event | Aside, None, None]:
        """The scales of what the quantized network keeps in a block, unless they are known."""
        if keeper.known(block):
            return
        for i in range(len(self.twin)):
            passage = Passage(**vars(self.twin_passages[i]))
            with twin.on(i), keeper.recording(block, module, stop):
                self.decoder.run(block, self.twin[i], passage)
            yield progress(0, f"keys and values of block {block + 1} of {self.arch.count}")

        def answers() -> Iterator[torch.Tensor]:
            for i in range(self.tried):
                with twin.on(i):
                    answer = self.decoder.run(block, self.twin[i].clone(), Passage(**vars(self.twin_passages[i])))
                yield answer

        yield from keeper.choose(block, module, answers)

    def at_head(
        self, matrices: list[Matrix], progress: Callable[[float, str], Progress], count: Count
    ) -> Generator[Event, None, Twin]:
        """See `Calibration.at_head`: here both streams come to the head, a window at a time."""
        names, words = addresses(self.decoder.model, "", matrices), self.head_words
        source = Source(names, self._store())
        places = [(i, row) for i in range(len(self.hidden)) for row in range(len(self.hidden[i]))]
        for at, (i, row) in enumerate(places):
            with source.on(at):
                self.decoder.logits(self.hidden[i][row : row + 1], *words)
        yield progress(0, "calibrating the head")
        twin = Twin(names, source, frozenset(source.order), self._rounding, count)
        for at, (i, row) in enumerate(places):
            with twin.on(at):
                self.decoder.logits(self.twin[i][row : row + 1], *words)
        yield progress(0, "calibrating the head")
        require_moments(twin.stats)
        return twin

    def _store(self) -> Activations:
        return Activations(self._budget // 2, self._folder)


def stages(items: list[Item], source: Source) -> list[list[Item]]:
    """Items in the order in which their inputs come: those with one input together, and so all experts of a layer."""
    index: dict[str, int] = {}
    of_leader: dict[str, int] = {}
    for leader in source.order:
        roles = {_role(name) for name, known in source.leader.items() if known == leader}
        found = min((index[role] for role in roles if role in index), default=len(set(index.values())))
        index |= dict.fromkeys(roles - index.keys(), found)
        of_leader[leader] = found
    parts: dict[int, list[Item]] = {}
    for item in items:
        parts.setdefault(of_leader.get(source.leader.get(item.name, ""), -1), []).append(item)
    return [parts[key] for key in sorted(parts)]


def _role(name: str) -> str:
    """What a matrix is in its block, whichever expert it belongs to."""
    return re.sub(r"\.\d+\.", ".#.", name)
