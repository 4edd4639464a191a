"""Learned rounding: whether each weight goes up or down is decided by what the layer's output then looks like.

Source: AdaRound (Nagel et al. 2020, arXiv 2004.10568), finished by coordinate descent. Torch only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bitwright.core.array import light, like, namespace
from bitwright.core.format import Format
from bitwright.core.qtensor import QTensor, divisor
from bitwright.core.stats import Stats
from bitwright.errors import RecipeError, TensorError
from bitwright.methods.adaround import fits
from bitwright.methods.descent.blocks import visit_codes
from bitwright.methods.gptq import Steps, factorise, feed_back
from bitwright.methods.mse import search

ZETA, GAMMA = 1.1, -0.1
"""The sigmoid is stretched to [GAMMA, ZETA] and clipped, so that h reaches 0 and 1 exactly."""
BETA = (20.0, 2.0)
"""The regulariser's exponent at first and at last: first only h next to 0 or 1 are pushed, at last all are."""
WARM_UP = 0.2
"""Share of the steps without the regulariser."""
PUSH = 3.0
"""Weight of the regulariser, for losses in units of what rounding costs one weight on average."""
SWEEPS = 2
"""Rounds of coordinate descent."""


@dataclass(frozen=True)
class Layer:
    """What a layer is to compute: x [groups, tokens, k], `target` and target - W x - bias [groups, tokens, rows].

    The loss of a row with error d = W^ - W is E|residual - d x|^2 or, through a ReLU f,
    E|f(target) - f(target - residual + d x)|^2. Rows never meet: each has a loss of its own.
    """

    x: Tensor
    target: Tensor
    residual: Tensor
    gram: Tensor
    cross: Tensor

    @classmethod
    def of(cls, w: Tensor, x: Tensor, target: Tensor | None, bias: Tensor | None) -> Layer:
        """From w [groups, rows, k] and bias [groups, 1, rows]; `gram` is E[x x^T], `cross` E[residual x^T]."""
        y = x @ w.mT if bias is None else x @ w.mT + bias
        target = y if target is None else target
        residual, tokens = target - y, x.shape[1]
        return cls(x, target, residual, x.mT @ x / tokens, residual.mT @ x / tokens)

    def loss(self, d: Tensor, relu: bool) -> Tensor:
        """[groups, rows], over all tokens, for d [groups, rows, k]."""
        if not relu:
            return (self.residual**2).mean(dim=1) + ((d @ self.gram - 2 * self.cross) * d).sum(dim=-1)
        found = self.target - self.residual + self.x @ d.mT
        return ((found.relu() - self.target.relu()) ** 2).mean(dim=1)

    def pull(self, d: Tensor) -> Tensor:
        """Minus half the slope of the loss without ReLU, [groups, rows, k].

        That loss is a parabola, E|r|^2 - 2 d E[r x] + d E[x x^T] d: two small matrices take the place of all samples.
        """
        return self.cross - d @ self.gram

    def pull_relu(self, d: Tensor, tokens: Tensor) -> Tensor:
        """The same through a ReLU, over the given `tokens` [n]."""
        x, target = self.x[:, tokens], self.target[:, tokens]
        found = target - self.residual[:, tokens] + x @ d.mT
        error = (target.relu() - found.relu()) * (found > 0)
        return error.mT @ x / x.shape[1]


def quantize(
    w: Tensor,
    format: Format,
    x: Tensor,
    target: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    relu: bool = False,
    groups: int = 1,
    steps: int = 500,
    batch: int = 512,
    rate: float = 0.1,
    seed: int = 0,
    scales: tuple[Tensor, Tensor | None, tuple[Tensor, ...]] | None = None,
) -> QTensor:
    """Quantize `w` [out, k] so that the layer's output on the samples stays near `target`; the loss is `Layer`'s.

    `x` [tokens, groups * k] are the inputs that the quantized network sees (unfolded, for a convolution of `groups`
    groups with k = in / groups * kernel), `target` [tokens, out] the float layer's outputs before its activation, bias
    included (W x + bias unless given). `relu`: only what passes the ReLU after the layer counts.

    A weight becomes floor + h, h = clip(sigmoid(V) (zeta - gamma) + gamma, 0, 1), where V is learned with Adam while a
    regulariser 1 - |2 h - 1|^beta is annealed. Then coordinate descent, from there and from GPTQ's codes, gives every
    weight the best of all codes with the others fixed. With `relu`, a second learning on batches of samples decides
    between each code and the one on the other side of the float weight. Scales are those of the method mse (or
    `scales`: scale, zero, outer) and never move. A row takes the result of a stage only where its loss falls, so none
    ends worse than by rounding to nearest. Deterministic by `seed`.

    Raises RecipeError for a format without evenly spaced values, TensorError for shapes that do not fit or samples
    that are not finite.
    """
    wrong = fits(format)
    if wrong is not None:
        raise RecipeError(wrong, where="method adaround", fix="Choose one of int2 ... int8", key="layer.format")
    w = w.detach().to(torch.float32)
    out, k = w.shape
    _check(w, x, target, groups)
    scale, zero, outer = search(w, format) if scales is None else scales
    grid = format.grid

    def rows(values: Tensor) -> Tensor:
        return values.reshape(groups, out // groups, k)

    def tokens(values: Tensor) -> Tensor:
        return values.detach().to(torch.float32).reshape(values.shape[0], groups, -1).transpose(0, 1)

    def spread(values: Tensor) -> Tensor:
        return rows(values[..., None].expand(format.blocks(w).shape))

    weights, step = rows(w), spread(scale)
    offset = torch.zeros_like(step) if zero is None else spread(zero)
    layer = Layer.of(
        weights, tokens(x), None if target is None else tokens(target), None if bias is None else tokens(bias[None, :])
    )

    def error(values: Tensor) -> Tensor:
        return (values - offset) * step - weights

    def keep(old: Tensor, new: Tensor, relu: bool) -> Tensor:
        better = layer.loss(error(new), relu) < layer.loss(error(old), relu)
        return torch.where(better[..., None], new, old)

    position = weights / divisor(step) + offset
    nearest = position.round().clip(grid.low, grid.high)
    # One below the top at most, so that up is on the grid: a weight beyond the top may come down by one.
    down = position.floor().clip(grid.low, grid.high - 1)
    up = _learn(layer, error(down), step, (position - down).clip(0, 1), None, steps, rate)
    values = keep(nearest, down + up, False)
    for start in (values, None):
        found = torch.empty_like(values)
        for group in range(groups):
            own = slice(group * (out // groups), (group + 1) * (out // groups)) if scale.shape[0] > 1 else slice(None)
            scales = scale[own], None if zero is None else zero[own], outer
            found[group] = _descend(layer, weights, group, format, scales, None if start is None else start[group])
        values = keep(values, found, False)
    if relu:
        down = torch.where(position < values, values - 1, values).clip(grid.low, grid.high - 1)
        generator = torch.Generator().manual_seed(seed)
        count = layer.x.shape[1]
        draws = [torch.randint(count, (min(batch, count),), generator=generator) for _ in range(steps)]
        up = _learn(layer, error(down), step, 0.25 + 0.5 * (values - down).clip(0, 1), draws, steps, rate)
        values = keep(keep(values, down + up, True), nearest, True)
    return QTensor(format, grid.nearest(values).reshape(out, k), scale, zero, outer=outer)


def _check(w: Tensor, x: Tensor, target: Tensor | None, groups: int) -> None:
    """Raise TensorError for samples that do not belong to `w`."""
    out, k = w.shape
    if out % groups or x.ndim != 2 or x.shape[1] != groups * k or not x.shape[0]:
        raise TensorError(
            f"inputs {list(x.shape)} do not fit weights {list(w.shape)} in {groups} groups", where="method adaround"
        )
    if target is not None and tuple(target.shape) != (x.shape[0], out):
        raise TensorError(
            f"targets {list(target.shape)} are not [{x.shape[0]}, {out}]: tokens, outputs", where="method adaround"
        )
    if not (bool(torch.isfinite(x).all()) and (target is None or bool(torch.isfinite(target).all()))):
        raise TensorError("a sample is NaN or infinite", where="method adaround")


def _learn(
    layer: Layer, down: Tensor, step: Tensor, rest: Tensor, draws: list[Tensor] | None, steps: int, rate: float
) -> Tensor:
    """1 where a weight goes up and 0 where down, [groups, rows, k]; `down` are the errors if all went down.

    It starts from h = `rest`. `draws` are the tokens of each step, for the loss through a ReLU. Each row's loss is
    measured in what rounding costs one of its weights on average, step^2 E[x^2] / 12, so that one weight of the
    regulariser suits all layers.
    """
    v = -torch.log((ZETA - GAMMA) / (rest.clip(0.001, 0.999) - GAMMA) - 1)
    optimizer = torch.optim.Adam([v], lr=rate)
    cost = (step**2 * torch.diagonal(layer.gram, dim1=1, dim2=2)[:, None, :]).mean(dim=-1, keepdim=True) / 12
    unit = 2 * step / torch.where(cost > 0, cost, torch.ones_like(cost))
    for i in range(steps):
        sigmoid = torch.sigmoid(v)
        h = (sigmoid * (ZETA - GAMMA) + GAMMA).clip(0, 1)
        d = down + h * step
        slope = -(layer.pull(d) if draws is None else layer.pull_relu(d, draws[i])) * unit
        if i >= WARM_UP * steps:
            progress = (i / steps - WARM_UP) / (1 - WARM_UP)
            beta = BETA[1] + (BETA[0] - BETA[1]) * (1 + math.cos(math.pi * progress)) / 2
            far = 2 * h - 1
            slope -= PUSH * 2 * beta * far.abs() ** (beta - 1) * far.sign()
        inside = (h > 0) & (h < 1)
        v.grad = slope * inside * (sigmoid * (1 - sigmoid)) * (ZETA - GAMMA)
        optimizer.step()
    return (v >= 0).to(torch.float32)


def _descend(
    layer: Layer,
    weights: Tensor,
    group: int,
    format: Format,
    scales: tuple[Tensor, Tensor | None, tuple[Tensor, ...]],
    values: Tensor | None,
) -> Tensor:
    """Coordinate descent for one group on the loss without ReLU, [rows, k]: from `values`, or from error feedback.

    The loss is that of quantizing W + cross gram^-1, the weights that fit the targets best, so GPTQ can start there.
    """
    w, gram, cross = weights[group], layer.gram[group], layer.cross[group]
    rows, k = w.shape
    scale, zero, _ = scales
    if values is None:
        factor = factorise(Stats(1, gram), 0.01)
        best = w + torch.linalg.solve(factor.hessian, cross.T).T
        values = format.grid.decode(feed_back(best, format, scale, zero, factor))
    steps = Steps.of(format, scale, zero, torch.arange(k), rows, k)
    decoded = QTensor(format, format.grid.nearest(values), scale, zero).decode()
    # A dead input pulls nothing; it only must not divide by zero.
    gram = gram + torch.diag((torch.diagonal(gram) <= 0).to(torch.float32))
    pull = (cross - (decoded - w) @ gram).T.contiguous()
    codes, decoded = values.T.contiguous(), decoded.T.contiguous()
    codes, decoded, pull, gram = (light(t, rows) for t in (codes, decoded, pull, gram))
    natural = like(range(k), pull, namespace(pull).int64)
    for _ in range(SWEEPS):
        visit_codes(codes, decoded, pull, gram, steps, natural)
    return torch.as_tensor(codes).T
