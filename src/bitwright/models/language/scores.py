"""How two models' logits differ at the same positions, taken a slice of the vocabulary at a time.

All logits of 256 positions over 262,144 words are 256 MiB per model, and as much for each step of the arithmetic. KL,
the most likely token and the loss need no more than a few sums per position, which slices can add to.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from bitwright.errors import DataError
from bitwright.models.language.blocks import Decoder
from bitwright.models.language.memory import LOGITS, POSITIONS


class Softmax:
    """One model's next-token distribution at some positions, from the slices of logits seen so far.

    `top` [positions] is the largest logit, `best` its token, `mass` the sum of exp(logit - top) in float64.
    """

    def __init__(self) -> None:
        self.top, self.best, self.mass = torch.tensor(-torch.inf), torch.tensor(0), torch.tensor(0.0).double()
        self.seen = 0

    def add(self, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Take in the next `logits` [positions, words]; returns exp(logits - top), and by what the past shrinks."""
        top, best = logits.max(-1)
        self.best = torch.where(top > self.top, best + self.seen, self.best)
        highest = torch.maximum(top, self.top)
        shrink = torch.exp(self.top - highest).double()
        weights = torch.exp(logits - highest[..., None])
        self.top, self.mass = highest, self.mass * shrink + weights.sum(-1, dtype=torch.float64)
        self.seen += logits.shape[-1]
        return weights, shrink

    @property
    def log_mass(self) -> torch.Tensor:
        """The logarithm of the sum of all exp(logit), float64 [positions]."""
        return self.top.double() + self.mass.log()


def score(
    p: Decoder, q: Decoder, hidden_p: torch.Tensor, hidden_q: torch.Tensor, ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """KL(P || Q), top-1 agreement, and both next-token losses of token `ids` [batch, tokens]; float64 [batch] each.

    The hidden states are those after the last block; the figures are means over each window's positions. Raises
    DataError where vocabularies differ or logits are not finite.
    """
    if p.vocabulary != q.vocabulary:
        raise DataError(
            f"vocabularies differ: {p.vocabulary} and {q.vocabulary}", fix="Compare models with one tokenizer"
        )
    sums = torch.zeros(4, ids.shape[0], dtype=torch.float64)
    step = max(1, POSITIONS // ids.shape[0])
    for start in range(0, ids.shape[1], step):
        stop = min(start + step, ids.shape[1])
        following = ids[:, start + 1 : stop + 1].to(hidden_p.device)
        found = _positions(p, q, hidden_p[:, start:stop], hidden_q[:, start:stop], following)
        sums += torch.stack([each.double().sum(-1).cpu() for each in found])
    length = ids.shape[1]
    return sums[0] / length, sums[1] / length, sums[2] / (length - 1), sums[3] / (length - 1)


def _positions(
    p: Decoder, q: Decoder, hidden_p: torch.Tensor, hidden_q: torch.Tensor, following: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """The same for each position; `following` holds the tokens that come next, one fewer at a text's end."""
    one, other = Softmax(), Softmax()
    gap = torch.tensor(0.0).double()  # the sum of exp(a - top) (a - b), a and b being P's and Q's logits
    known = torch.zeros(2, *following.shape, dtype=torch.float64, device=following.device)
    for (first, a), (_, b) in zip(_slices(p, hidden_p), _slices(q, hidden_q), strict=True):
        inside = (following >= first) & (following < first + a.shape[-1])
        places = (following - first).clamp(0, a.shape[-1] - 1)[..., None]
        for row, logits in enumerate((a, b)):
            at = logits[:, : following.shape[1]].gather(-1, places)[..., 0].double()
            known[row] = torch.where(inside, at, known[row])
        weights, shrink = one.add(a)
        other.add(b)
        gap = gap * shrink + weights.mul_(a.sub_(b)).sum(-1, dtype=torch.float64)
    kl = gap / one.mass - one.log_mass + other.log_mass
    if not bool(torch.isfinite(kl).all()):
        raise DataError("a model's logits are not finite", fix="Run `bitwright check` on both folders")
    said = following.shape[1]
    losses = (each.log_mass[:, :said] - known[row] for row, each in enumerate((one, other)))
    return kl.clamp_min(0), (one.best == other.best), *losses


def _slices(decoder: Decoder, hidden: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """First word and float32 logits [batch, positions, words] of each slice of the vocabulary."""
    step = max(1, LOGITS // (hidden.shape[0] * hidden.shape[1]))
    if not decoder.separable or decoder.vocabulary <= step:
        yield 0, decoder.logits(hidden).float()
        return
    for first in range(0, decoder.vocabulary, step):
        yield first, decoder.logits(hidden, first, min(first + step, decoder.vocabulary)).float()
