"""Learned step sizes: quantization in training, where the steps learn with the weights. Torch only.

Sources: LSQ (Esser et al. 2020, arXiv 1902.08153); the penalty on the quantization error with a learned coefficient is
Choi et al. 2018 (arXiv 1809.00095).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bitwright.core.observe import Affine
from bitwright.core.schedule import cosine
from bitwright.errors import RecipeError

RATES = 1e-3, 1e-4
"""Of weights and of steps."""
SMALLEST = 1e-8
"""No step gets smaller."""


class _Fake(torch.autograd.Function):
    """step * clip(round(v / step), low, high), with LSQ's slopes (see `fake`)."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, step: Tensor, low: float, high: float, scale: float) -> Tensor:
        u = v / step
        whole = u.round().clip(low, high)
        ctx.save_for_backward(u, whole, step)
        ctx.limits, ctx.scale = (low, high), scale
        return whole * step

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        (grad,) = grads
        u, whole, step = ctx.saved_tensors
        low, high = ctx.limits
        inside = (u > low) & (u < high)
        slope = grad * torch.where(inside, whole - u, whole)  # outside, `whole` is low or high
        return grad * inside, slope.sum_to_size(step.shape) * ctx.scale, None, None, None


def fake(v: Tensor, step: Tensor, low: float, high: float, count: int | None = None) -> Tensor:
    """v^ = step * clip(round(v / step), low, high), `step` positive and of a shape that broadcasts to `v`.

    Slopes (equations 3 and 5 of LSQ): in v, 1 inside the range and 0 outside; in the step, round(v / step) - v / step
    inside, `low` below and `high` above it. The slope in the step is scaled by 1 / sqrt(count * high), `count` being
    the values that share a step (for activations the paper counts those of one sample: give it then).
    """
    values = count or max(v.numel() // max(step.numel(), 1), 1)
    return _Fake.apply(v, step, low, high, 1 / math.sqrt(values * high))  # type: ignore[no-any-return,no-untyped-call]


def step_init(v: Tensor, high: float, axis: int | None = None) -> Tensor:
    """The first step, 2 mean|v| / sqrt(high): one for all of `v` [], or one for each index of `axis` [n]."""
    size = v.detach().abs()
    mean = size.mean() if axis is None else size.transpose(0, axis).flatten(1).mean(dim=1)
    return (2 * mean / math.sqrt(high)).clamp_min(SMALLEST)


class Learned(nn.Module):
    """Rounds a tensor to `bits` bits by a learned step: weights (`axis` 0: one step per row) or activations.

    Codes are -2^(bits-1) .. 2^(bits-1) - 1, or 0 .. 2^bits - 1 where not `signed` (after ReLU). The step begins with
    the first tensor seen. As a weight: `torch.nn.utils.parametrize.register_parametrization(layer, "weight",
    Learned(4, axis=0))`.
    """

    def __init__(self, bits: int, *, signed: bool = True, axis: int | None = None, batched: bool = False) -> None:
        super().__init__()
        if not 2 <= bits <= 8:
            raise RecipeError(f"{bits} bits", where="method lsq", fix="Choose 2 to 8", key="layer.format")
        self.bits, self.signed, self.axis, self.batched = bits, signed, axis, batched
        self.low, self.high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
        self.step = nn.UninitializedParameter()

    def forward(self, v: Tensor) -> Tensor:
        """v^, the shape of `v`; `batched` says that its first axis counts samples."""
        if isinstance(self.step, nn.UninitializedParameter):
            first = step_init(v, self.high, self.axis)
            self.step.materialize(first.shape)
            with torch.no_grad():
                self.step.copy_(first)
        step = self.positive()
        if self.axis is not None:
            step = step.reshape([-1 if i == self.axis % v.ndim else 1 for i in range(v.ndim)])
        return fake(v, step, self.low, self.high, v[0].numel() if self.batched else None)

    def positive(self) -> Tensor:
        """The step or steps; training may push one through zero, where its sign would turn all values."""
        return self.step.abs().clamp_min(SMALLEST)

    def affine(self) -> Affine:
        """The same quantizer as constants (one step only)."""
        if isinstance(self.step, nn.UninitializedParameter) or self.step.ndim:
            raise RecipeError("has seen nothing yet, or has a step for each row", where="method lsq")
        return Affine(float(self.positive().detach()), 0, self.bits, self.signed)


def begin(low: int, high: int, start: Tensor, axis: int | None = None) -> Learned:
    """A learned quantizer of codes `low` .. `high`, whose step or steps begin at `start`.

    Of an `axis` there is one step for each index; without, `start` must broadcast to what is rounded.
    """
    made = Learned((high - low).bit_length(), signed=low < 0, axis=axis)
    made.low, made.high = low, high  # they may be fewer than the bits can tell apart: -127 .. 127
    assert isinstance(made.step, nn.UninitializedParameter)
    made.step.materialize(start.shape)
    with torch.no_grad():
        made.step.copy_(start)
    return made


def penalty(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """R = mean |w - Q(w)|^2 over all weights of all pairs (w, Q(w)); its slope draws each w to its Q(w).

    Q(w) counts as a constant, which it is almost everywhere: the straight-through slope of `fake` would cancel that of
    w. So the steps learn from the task alone.
    """
    error = sum((((w - q.detach()) ** 2).sum() for w, q in pairs), torch.zeros(()))
    return error / sum(w.numel() for w, _ in pairs)


class Penalty(nn.Module):
    """lambda R - alpha log lambda, to add to the loss, with lambda = e^omega learned: it begins at `coefficient`.

    lambda tends to alpha / R: as the weights come nearer to their codes, they are held there more firmly. `alpha` is by
    default `coefficient` times the first R, so that lambda begins at rest.
    """

    def __init__(self, coefficient: float, alpha: float | None = None) -> None:
        super().__init__()
        if coefficient <= 0 or (alpha is not None and alpha <= 0):
            fix = "Give more than 0"
            raise RecipeError("coefficient and alpha must be positive", where="method lsq", fix=fix,
                              key="layer.options.penalty")  # fmt: skip
        self.omega = nn.Parameter(torch.tensor(math.log(coefficient)))
        self.alpha = alpha

    def forward(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """The term for all (w, Q(w))."""
        error = penalty(pairs)
        if self.alpha is None:
            self.alpha = max(float((self.omega.exp() * error).detach()), 1e-12)
        return self.omega.exp() * error - self.alpha * self.omega


@dataclass(frozen=True)
class Epoch:
    """One pass over the data: its number from 1, and the mean loss."""

    number: int
    loss: float


def train(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    epochs: int,
    rate: float = RATES[0],
    step_rate: float | None = None,
    extra: Callable[[], Tensor] | None = None,
    extra_parameters: Iterable[nn.Parameter] = (),
) -> Iterator[Epoch]:
    """Train `model` in place, yielding after each pass over `batches` (gone through anew each epoch).

    AdamW with cosine decay from `rate`. Steps have `step_rate`, by default a tenth of that (Adam cancels the scale of
    their slopes), and no weight decay; what has a rate of 0 stays as it is. `extra` is added to each loss (a
    `Penalty`), its own parameters being `extra_parameters`. The model must have seen a batch before, so that every step
    has begun. Raises RecipeError where the loss is no longer finite.
    """
    steps = {id(m.step): m.step for m in model.modules() if isinstance(m, Learned)}
    weights = [p for p in model.parameters() if id(p) not in steps]
    step_rate = rate / 10 if step_rate is None else step_rate
    groups: list[dict[str, Any]] = [
        {"params": weights, "lr": rate},
        {"params": list(steps.values()), "lr": step_rate, "weight_decay": 0.0},
        {"params": list(extra_parameters), "lr": rate * 10, "weight_decay": 0.0},
    ]
    for group in groups:
        for parameter in group["params"]:
            parameter.requires_grad_(group["lr"] > 0)
    optimizer = torch.optim.AdamW([g for g in groups if g["params"] and g["lr"]])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: cosine(i, epochs))
    model.train()
    for number in range(1, epochs + 1):
        losses = []
        for x, y in batches:
            value = loss(model(x), y)
            value = value if extra is None else value + extra()
            if not torch.isfinite(value):
                what = "the loss is NaN or infinite"
                raise RecipeError(what, where="method lsq", fix="Lower the rate", key="layer.options.rate")
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(value.detach()))
        schedule.step()
        yield Epoch(number, sum(losses) / max(len(losses), 1))


class Subject(Protocol):
    """A model in training as its kind hands it over: the module, what it learns from, and what it learns."""

    @property
    def module(self) -> nn.Module:
        """Its weights and activations are rounded by `Learned` steps."""

    @property
    def lessons(self) -> Iterable[tuple[Any, Any]]:
        """(input, what is known of the output), gone through anew each epoch."""

    @property
    def rates(self) -> tuple[float, float]:
        """Those of weights and steps where none are asked for."""

    def loss(self, out: Any, known: Any) -> Tensor:
        """How far an output is from what is known."""

    def pairs(self) -> Sequence[tuple[Tensor, Tensor]]:
        """(w, Q(w)) of every weight, for `Penalty`."""


def learn(subject: Subject, epochs: int, rate: float, step_rate: float | None, penalty: float) -> Iterator[Epoch]:
    """`train` a subject; with the penalty on the quantization error where `penalty` > 0."""
    error = Penalty(penalty) if penalty else None
    return train(
        subject.module,
        subject.lessons,
        subject.loss,
        epochs=epochs,
        rate=rate,
        step_rate=step_rate,
        extra=None if error is None else lambda: error(subject.pairs()),
        extra_parameters=() if error is None else error.parameters(),
    )
