"""Statistics of the layers' inputs: calibration text runs through the float model, block after block."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bitwright.core.measure import Usage
from bitwright.core.stats import Stats
from bitwright.errors import about
from bitwright.events import Event, Progress
from bitwright.files.folder import require_finite
from bitwright.methods import Seen
from bitwright.models.language.activations import Activations
from bitwright.models.language.arch import Architecture, Matrix
from bitwright.models.language.blocks import Decoder, Passage, Stop
from bitwright.models.language.cache import Keeper, tried
from bitwright.models.language.evaluate import batches
from bitwright.models.language.memory import BATCH_TOKENS
from bitwright.models.language.text import Text
from bitwright.models.language.watch import Count, Recorder, Rounding, addresses
from bitwright.models.language.whole import Whole
from bitwright.models.model import Aside, Item


def group(
    todo: list[Item],
    recorder: Any,
    finished: Callable[[str], bool],
    piece_rows: Callable[[Item], int],
    min_expert_tokens: int,
) -> Iterator[tuple[list[Item], Seen, str | None]]:
    """The matrices of a block with their calibration statistics, and the reason where those are too few.

    Small ones with one input, format and method go together: the columns of a batch are visited once for all its rows,
    and what the method makes of the input is made once. A batch that was half written comes back whole: the last bit
    of a matrix product depends on how many rows go through it at once.
    """
    together: dict[Any, list[Item]] = {}
    for item in todo:
        leader = None if recorder is None else recorder.leader.get(item.name)
        alone = leader is None or item.method.needs == "nothing" or item.format.block == "tensor"
        alone |= item.rows % item.format.code.rows > 0  # it ends within rows that go together
        facts = (leader, item.format, item.activations, item.method.name, item.options)
        together.setdefault(item.name if alone else facts, []).append(item)
    for items in together.values():
        if all(finished(item.name) for item in items):
            continue
        seen, fallback = _find(items[0], recorder, min_expert_tokens)
        whole = sum(item.rows for item in items) <= piece_rows(items[0])
        for batch in [items] if whole else [[item] for item in items]:
            if not all(finished(item.name) for item in batch):
                yield batch, seen, fallback
        del seen


def usage_of(items: list[Item], recorder: Any) -> Usage | None:
    """How the codes of the input that matrices share are used; None where it stays float, or nothing was seen of it."""
    return None if recorder is None else recorder.usage.get(recorder.leader.get(items[0].name, ""))


def _find(item: Item, recorder: Any, min_expert_tokens: int) -> tuple[Seen, str | None]:
    """The statistics of a matrix's input, prepared for its method; or the reason why a fallback must solve it."""
    method, expert = item.method, item.part.expert
    if recorder is None:
        return Seen(), None if method.needs == "nothing" else "calibration does not reach it"
    stats = recorder.stats.get(recorder.leader.get(item.name, ""))
    if method.needs == "nothing":
        return Seen(stats), None
    tokens, least = 0 if stats is None else stats.n, min_expert_tokens if expert is not None else 1
    if tokens < max(least, 1):
        return Seen(stats), "never used" if expert is None else f"expert {expert} saw {tokens} of {least} tokens needed"
    if method.needs == "samples":
        return Seen(stats, samples=recorder.samples(item.name)), None
    if method.prepare is None:
        return Seen(stats), None
    assert stats is not None
    with about(where=item.name):
        return Seen(stats, method.prepare(stats, item.options)), None


@dataclass
class Stage:
    """Matrices whose turn it is, and what calibration saw of their inputs."""

    items: list[Item]
    recorder: Any
    """A `Recorder`, or a `streams.Twin`; None without calibration."""


class Calibration:
    """Runs the calibration windows through the float model, block after block."""

    least = 1
    """Batches there must be, if there are as many windows."""

    def __init__(
        self, arch: Architecture, device: str, text: Text, budget: int, folder: Path, keeper: Keeper | None = None
    ) -> None:
        """`budget` bounds the hidden states in memory, in bytes; the rest spills below `folder`.

        `keeper` chooses the scales of keys and values, where they are rounded.
        """
        self.arch, self.decoder, self.keeper = arch, Decoder(arch, device=device), keeper
        length = text.calibration.shape[1]
        self.hidden = Activations(budget, folder)
        most = -(-len(text.calibration) // self.least)
        pieces = batches(text.calibration, max(1, min(BATCH_TOKENS // length, most)))
        self.passages = [Passage(piece) for piece in pieces]
        for passage in self.passages:
            self.hidden.append(self.decoder.enter(passage))

    def through(
        self,
        block: int,
        items: list[Item],
        finished: Callable[[str], bool],
        progress: Callable[[float, str], Progress],
        count: Count,
        last: bool = False,
    ) -> Generator[Event | Stage | Whole | Aside, None, None]:
        """Run all windows through one block; yields the stages in which its `items` are solved, here one for all.

        After the `last` block nothing needs their hidden states. Scales of keys and values are for those that pass
        here: the float network's.

        Every matrix sees the float model's own inputs, so blocks do not depend on one another's codes: work done
        before an interruption is the same in any order. `progress` makes an event of bytes done and a label, `count` is
        that of `Recorder`.
        """
        todo = [] if all(finished(item.name) for item in items) else items
        keeper = None if self.keeper is None or self.keeper.known(block) else self.keeper
        if not todo and keeper is None and last:
            return
        before = [Passage(**vars(self.passages[i])) for i in range(0 if keeper is None else self.tried)]
        some = [self.hidden[i].clone() for i in range(0 if keeper is None else self.tried)]
        weights = self.decoder.checked(block)
        size = sum(tensor.nbytes for tensor in weights.values())
        with self.decoder.loaded(block, weights) as module:
            del weights
            recorder = Recorder(self.addresses(block, module, [item.part for item in todo]), count)
            for i in range(len(self.hidden)):
                keeping = nullcontext() if keeper is None else keeper.recording(block, module)
                with recorder if todo else nullcontext(), keeping:
                    self.hidden[i] = self.decoder.run(block, self.hidden[i], self.passages[i])
                recorder.next_batch()
                yield progress(size / len(self.hidden), f"calibrating block {block + 1} of {self.arch.count}")
            if keeper is not None:

                def answers() -> Iterator[torch.Tensor]:
                    for x, passage in zip(some, before, strict=True):
                        yield self.decoder.run(block, x.clone(), Passage(**vars(passage)))

                yield from keeper.choose(block, module, answers)
        if todo:
            require_moments(recorder.stats)
            yield Stage(todo, recorder)

    @property
    def tried(self) -> int:
        """Batches on which scales of keys are tried."""
        return tried([passage.ids for passage in self.passages])

    def addresses(self, block: int, module: torch.nn.Module, matrices: list[Matrix]) -> dict[int, list[str]]:
        """The matrices of a block by where their values lie in its loaded `module`."""
        return addresses(module, f"{self.arch.blocks}.{block}", matrices)

    @property
    def head_words(self) -> tuple[int, int | None]:
        """As few words of the vocabulary as it takes to see what the head multiplies; asking may try the head."""
        return (0, 1) if self.decoder.separable else (0, None)

    def at_head(
        self, matrices: list[Matrix], progress: Callable[[float, str], Progress], count: Count
    ) -> Generator[Event, None, Any]:
        """Take all windows, which have passed every block, to the output head; a Recorder of what `matrices` multiply.

        Of the logits no more are computed than it takes to see their input.
        """
        recorder, words = Recorder(addresses(self.decoder.model, "", matrices), count), self.head_words
        for i in range(len(self.hidden)):
            hidden = self.hidden[i]
            for row in range(len(hidden)):  # all logits of a batch may be gigabytes
                with recorder:
                    self.decoder.logits(hidden[row : row + 1], *words)
                recorder.next_batch()
            yield progress(0, "calibrating the head")
        require_moments(recorder.stats)
        return recorder


class Replay(Calibration):
    """Runs the windows through the quantized network alone, whose matrices are solved without looking at any text.

    So keys and values are those that it keeps.
    """

    def __init__(
        self,
        arch: Architecture,
        device: str,
        text: Text,
        budget: int,
        folder: Path,
        keeper: Keeper,
        decoded: Callable[[Item], torch.Tensor],
        rounding: Rounding,
    ) -> None:
        """`decoded` gives a matrix as it was solved, `rounding` is how inputs of matrices are rounded."""
        super().__init__(arch, device, text, budget, folder)
        self.decoder.rounding = rounding
        self._keeper, self._decoded = keeper, decoded

    def through(
        self,
        block: int,
        items: list[Item],
        finished: Callable[[str], bool],
        progress: Callable[[float, str], Progress],
        count: Count,
        last: bool = False,
    ) -> Generator[Event | Stage | Whole | Aside, None, None]:
        """See `Calibration.through`."""
        keeper, known = self._keeper, self._keeper.known(block)
        yield Stage(items, None)
        if known and last:
            return
        weights = self.decoder.checked(block)
        size = sum(tensor.nbytes for tensor in weights.values())
        weights |= {item.name: self._decoded(item) for item in items}
        with self.decoder.loaded(block, weights) as module:
            del weights
            label = f"keys and values of block {block + 1} of {self.arch.count}"
            if not known:
                for i in range(len(self.hidden)):
                    passage = Passage(**vars(self.passages[i]))
                    with suppress(Stop), keeper.recording(block, module, stop):
                        self.decoder.run(block, self.hidden[i], passage)
                    yield progress(size / 2 / len(self.hidden), label)

                def answers() -> Iterator[torch.Tensor]:
                    for i in range(self.tried):
                        yield self.decoder.run(block, self.hidden[i].clone(), Passage(**vars(self.passages[i])))

                yield from keeper.choose(block, module, answers)
            for i in range(0 if last else len(self.hidden)):
                with keeper.rounding(block, module):
                    self.hidden[i] = self.decoder.run(block, self.hidden[i], self.passages[i])
                yield progress(size / 2 / len(self.hidden), label)


def stop() -> None:
    """End a pass: it has shown all that was wanted."""
    raise Stop


def require_moments(stats: Mapping[str, Stats]) -> None:
    """Raise TensorError where the second moments of an input are not finite."""
    for leader, found in stats.items():
        require_finite(f"{leader}: second moment of its input", found.moment)
