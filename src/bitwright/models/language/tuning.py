"""All matrices of a language model in training together: what methods of scope "model" get of one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bitwright.core.qtensor import QTensor, divisor
from bitwright.methods.blockwise.learning import EDGE, divide
from bitwright.methods.lsq import training
from bitwright.models.language.activations import Activations
from bitwright.models.language.blocks import Decoder, Passage, Unchained, Weights, distribution, release
from bitwright.models.language.memory import LOGITS, POSITIONS
from bitwright.models.language.places import Places
from bitwright.models.language.whole import Draft
from bitwright.models.model import Item


class Rounded(nn.Module):
    """One matrix in training: what each weight is in steps of its block's first scale, and how far the step has moved.

    A weight begins where its target lies in the cell of the code it has: other methods find better codes than the
    nearest ones, and these are kept.
    """

    def __init__(self, draft: Draft) -> None:
        super().__init__()
        self.start = draft.q
        grid = draft.q.format.grid
        code = grid.decode(draft.q.format.blocks(draft.q.codes))
        place = draft.q.format.blocks(draft.target.float()) / divisor(draft.q.scale)[..., None]
        self.weight = nn.Parameter(code + (place - code).clamp(-EDGE, EDGE))
        self.step = training.begin(int(grid.low), int(grid.high), torch.ones_like(draft.q.scale)[..., None])

    def forward(self) -> Tensor:
        """What it means [rows, columns], with a graph."""
        found: Tensor = self.step(self.weight) * self.start.scale[..., None]
        return found.reshape(self.start.shape)

    @torch.no_grad()
    def quantized(self) -> QTensor:
        """The codes and scales now, as they are stored."""
        format, share = self.start.format, self.step.positive()
        codes = format.grid.nearest(self.weight / share).reshape(self.start.shape)
        scale = format.scale.round(self.start.scale * share[..., 0], self.start.outer)
        return replace(self.start, codes=codes, scale=scale)


@dataclass(frozen=True)
class _Block:
    """A loaded block, and which matrices change places in it."""

    number: int
    places: Places
    names: Sequence[str]


class Tuned(nn.Module):
    """`methods.lsq.training.Subject`: a whole model, whose blocks are all in memory, on its calibration text.

    The float network's answers are the teacher. Every fourth batch is not learned from but judges (`judged`).
    """

    def __init__(self, blocks: Sequence[_Block], decoder: Decoder, drafts: Mapping[str, Draft], text: Text) -> None:
        """See `open_tuned`."""
        super().__init__()
        self._blocks, self._decoder, self._text = blocks, decoder, text
        self.matrices = {name: Rounded(draft) for name, draft in drafts.items()}
        self.rounded = nn.ModuleList(self.matrices.values())
        self._lessons, self._judges = divide(len(text.ids))

    def forward(self, batch: int) -> Tensor:
        """The hidden states after the last block [batch, tokens, width], with a graph."""
        release()
        hidden = self._text.enter(self._decoder, batch).requires_grad_()
        for block in self._blocks:
            hidden = checkpoint(self._run, block, hidden, batch, use_reentrant=False)
        return hidden

    def _run(self, block: _Block, hidden: Tensor, batch: int) -> Tensor:
        return self._pass(block, {name: self.matrices[name]() for name in block.names}, hidden, batch)

    def _pass(self, block: _Block, decoded: Mapping[str, Tensor], hidden: Tensor, batch: int) -> Tensor:
        passage = Passage(self._text.ids[batch])
        with block.places.holding(decoded):
            answer = self._decoder.run(block.number, hidden.clone(), passage)  # blocks may write over it
        if passage.beside or passage.shared:
            raise Unchained("its blocks hand on more than hidden states")
        return answer

    @property
    def module(self) -> nn.Module:
        """Itself."""
        return self

    @property
    def rates(self) -> tuple[float, float]:
        """Weights that training moves away from better codes than the nearest made docs18m worse (docs/log.md)."""
        return 0.0, 3e-4

    @property
    def lessons(self) -> list[tuple[int, int]]:
        """Numbers of the batches to learn from: what is known of each is found by its number."""
        return [(batch, batch) for batch in self._lessons]

    def loss(self, out: Any, known: Any) -> Tensor:
        """KL(float || this) of a batch, nats per token."""
        total, count = torch.zeros((), device=out.device), out.shape[0] * out.shape[1]
        for answer, part in self._slices(out, known):
            total = total + checkpoint(self._kl, part, answer, use_reentrant=False)
        mean: Tensor = total / count
        return mean

    def _slices(self, out: Tensor, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Hidden states of the float network and of this one [1, positions, width], so many positions at once."""
        width = out.shape[-1]
        flat, answers = out.reshape(1, -1, width), self._text.answers[batch].reshape(1, -1, width)
        step = max(1, min(POSITIONS, out.shape[1], LOGITS // self._decoder.vocabulary))
        return zip(torch.split(answers, step, dim=1), torch.split(flat, step, dim=1), strict=True)

    def _kl(self, hidden: Tensor, answer: Tensor) -> Tensor:
        """The sum of KL(float || this) over some positions."""
        with torch.no_grad():
            p = distribution(self._decoder.logits(answer), self._decoder.arch)
        found: Tensor = nn.functional.kl_div(self._decoder.logits(hidden).float().log_softmax(-1), p, reduction="sum")
        return found

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """(w, Q(w)) of every matrix, in steps of its first scales."""
        return [(matrix.weight, matrix.step(matrix.weight)) for matrix in self.matrices.values()]

    @torch.no_grad()
    def judged(self, found: Mapping[str, QTensor]) -> float:
        """KL(float || these codes) on the batches that are not learned from, nats per token."""
        total = 0.0
        for batch in self._judges:
            hidden = self._text.enter(self._decoder, batch)
            for block in self._blocks:
                hidden = self._pass(block, {name: found[name].decode() for name in block.names}, hidden, batch)
            kl = sum(float(self._kl(part, answer)) for answer, part in self._slices(hidden, batch))
            total += kl / (hidden.shape[0] * hidden.shape[1]) / len(self._judges)
        return total


@dataclass(frozen=True)
class Text:
    """Calibration text in batches: its tokens [batch, tokens], and the float network's last hidden states."""

    ids: Sequence[Tensor]
    answers: Activations

    def enter(self, decoder: Decoder, batch: int) -> Tensor:
        """What reaches the first block."""
        return decoder.enter(Passage(self.ids[batch])).detach()


@contextmanager
def open_tuned(
    decoder: Decoder, items: Sequence[Item], drafts: Mapping[str, Draft], weights: Callable[[int], Weights], text: Text
) -> Iterator[Tuned]:
    """All blocks in memory; `weights(block)` are its tensors with what was found of its matrices in their place.

    Raises ModelError where a matrix cannot be put in its place.
    """
    with ExitStack() as stack:
        blocks = []
        for number in range(decoder.arch.count):
            module = stack.enter_context(decoder.loaded(number, weights(number)))
            inside = {item.name: item.part for item in items if item.part.block == number}
            prefix = f"{decoder.arch.blocks}.{number}."
            places = Places(prefix, module, inside, lambda name: drafts[name].q.decode())
            blocks.append(_Block(number, places, list(inside)))
        yield Tuned(blocks, decoder, drafts, text)


def learn(tuned: Tuned, epochs: Iterator[training.Epoch]) -> Generator[training.Epoch, None, dict[str, QTensor]]:
    """Go through the epochs of a method; returns the codes that were best on the batches that judge.

    Where none are better than those it began at, these are returned with a note.
    """
    start = {name: matrix.start for name, matrix in tuned.matrices.items()}
    best, least, first = start, tuned.judged(start), True
    for epoch in epochs:
        found = {name: matrix.quantized() for name, matrix in tuned.matrices.items()}
        now = tuned.judged(found)
        if now < least:
            best, least, first = found, now, False
        yield epoch
    if first:
        note = "training did not lower the KL on text that it did not learn from: as it began"
        return {name: replace(q, notes=(*q.notes, note)) for name, q in best.items()}
    return best
