"""Cross-layer equalization: move scale between the channels of neighbouring layers before they are quantized.

Between a layer and the next lie only functions with f(x / s) = f(x) / s for s > 0 (ReLU, pooling, addition): dividing
what a channel's producers write by s and multiplying what its consumers read by s changes nothing in float, but shares
one quantization step better among the channels. Source: Nagel et al. 2019, arXiv 1906.04721, section 4.1, here
generalised from one pair of layers to any number of producers, consumers and activation tensors on one channel axis.

A matrix is [out, in * kernel]; a grouped convolution's is [out, in / groups * kernel], its rows in order of groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bitwright.core.array import Array, absmax, float32, namespace
from bitwright.core.observe import Channels
from bitwright.rewrites.rewrite import Rewrite, Subject

LIMIT = 1000.0
"""No channel is scaled by more than this, or less than its inverse."""
ALPHAS = (0.25, 0.5, 0.75, 1.0)
LEAST = 4.0
"""How many times less noise a rescaling must promise: smaller gains are taken by ranges that clip (measured)."""


@dataclass(frozen=True)
class Axis:
    """A channel axis by the names of the matrices on it: `producers` write its channels, `consumers` read them.

    `groups` holds the number of groups of the consumers that are grouped convolutions. `peaks` are the ranges of
    activation tensors on the axis, [channels] each.
    """

    producers: Sequence[str]
    consumers: Sequence[str]
    groups: Mapping[str, int] = field(default_factory=dict)
    peaks: Sequence[Array] = ()


def pair(rows: Array, columns: Array) -> Array:
    """s = sqrt(r1 r2) / r2 [channels], from the range of each row of one layer and each column of the next.

    Then both ranges, r1 / s and r2 s, are sqrt(r1 r2) (equation 11 of the paper). A channel without any weights on
    either side keeps s = 1.
    """
    xp = namespace(rows)
    live = (rows > 0) & (columns > 0)
    one = xp.ones_like(rows)
    return xp.where(live, xp.sqrt(xp.where(live, rows, one) / xp.where(live, columns, one)), one)


def factors(
    producers: Sequence[Array],
    consumers: Sequence[Array],
    activations: Sequence[Array] = (),
    *,
    emphasis: float = 1.0,
    limit: float = LIMIT,
) -> Array:
    """Factors s [channels] that flatten all ranges [channels]: `producers` / s, `consumers` * s, `activations` / s.

    The least sum of squared deviations of log ranges from flat, each tensor's own level being free:
    log s_c = (sum_p log a_pc - sum_q log b_qc) / (number of tensors), which is `pair` for one producer and one
    consumer. `emphasis` weights an activation tensor relative to a weight tensor. The geometric mean of s is 1, and
    1 / limit <= s <= limit. A range of 0 has no say; a channel that is dead on either side keeps s = 1.
    """
    written = [(r, 1.0) for r in producers] + [(r, emphasis) for r in activations]
    return _flatten(written, [(r, 1.0) for r in consumers], limit)


def balance_activations(
    activations: Sequence[Array], consumers: Sequence[Array], alpha: float = 0.5, *, limit: float = LIMIT
) -> Array:
    """Factors s [channels] for producers whose rows have scales of their own, so that dividing them costs nothing.

    What remains is a trade between `activations` / s, which share one step per tensor, and the columns of
    `consumers` * s, which share the steps of their rows: s = peak^alpha / column^(1 - alpha), up to a constant; 1 makes
    all channels of the activation equally wide. (A depthwise consumer has a scale for each column: leave it out.) With
    one activation and one consumer this is SmoothQuant's trade (see `smooth`), folded into the layer before.
    """
    written = [(r, alpha / len(activations)) for r in activations]
    return _flatten(written, [(r, (1 - alpha) / len(consumers)) for r in consumers], limit)


def _flatten(written: list[tuple[Array, float]], read: list[tuple[Array, float]], limit: float) -> Array:
    """The weighted mean, in the logarithm, of what each range asks for; ranges are centred on their own level first."""
    first = (written or read)[0][0]
    xp = namespace(first)
    log, weight = xp.zeros_like(float32(first)), xp.zeros_like(float32(first))
    alive = xp.ones_like(weight, dtype=xp.bool)
    for ranges, sign in ((written, 1.0), (read, -1.0)):
        some = xp.zeros_like(alive)
        for value, share in ranges:
            live = value > 0
            one = xp.ones_like(weight)
            own = xp.log(xp.where(live, float32(value), one))
            own = own - xp.sum(own) / max(int(xp.sum(xp.astype(live, xp.int64))), 1)
            log = log + xp.where(live, own, 0 * own) * (sign * share)
            weight = weight + xp.astype(live, xp.float32) * share
            some = some | live
        if ranges:
            alive = alive & some
    alive = alive & (weight > 0)
    log = xp.where(alive, log / xp.where(alive, weight, xp.ones_like(weight)), xp.zeros_like(log))
    log = log - xp.sum(log) / max(int(xp.sum(xp.astype(alive, xp.int64))), 1)
    return xp.clip(xp.exp(xp.where(alive, log, xp.zeros_like(log))), 1 / limit, limit)


def equalize(
    matrices: Mapping[str, Array],
    axes: Sequence[Axis],
    *,
    emphasis: float = 1.0,
    rounds: int = 40,
    tolerance: float = 1e-3,
) -> list[Array]:
    """The total factors [channels] of each axis, repeated over all axes until none changes by more than `tolerance`.

    Nothing is changed: apply the result with `divide_rows` (the producers' biases too) and `multiply_columns`.
    """
    now = dict(matrices)
    total: list[Array | None] = [None] * len(axes)
    for _ in range(rounds):
        change = 0.0
        for i, axis in enumerate(axes):
            rows = [row_ranges(now[name]) for name in axis.producers]
            channels = int((rows[0] if rows else axis.peaks[0]).shape[0])
            columns = [column_ranges(now[name], channels, axis.groups.get(name, 1)) for name in axis.consumers]
            done = total[i]
            peaks = [peak if done is None else peak / done for peak in axis.peaks]
            s = factors(rows, columns, peaks, emphasis=emphasis)
            for name in axis.producers:
                now[name] = divide_rows(now[name], s)
            for name in axis.consumers:
                now[name] = multiply_columns(now[name], s, axis.groups.get(name, 1))
            total[i] = s if done is None else done * s
            xp = namespace(s)
            change = max(change, float(xp.max(xp.abs(xp.log(s)))))
        if change < tolerance:
            break
    return [s for s in total if s is not None]


def row_ranges(w: Array) -> Array:
    """max|w| of each row, [out]."""
    return absmax(float32(w), axis=1)


def column_ranges(w: Array, channels: int, groups: int = 1) -> Array:
    """max|w| over all weights that read each input channel, [channels]."""
    xp = namespace(w)
    x = xp.permute_dims(_by_channel(float32(w), channels, groups), (0, 2, 1, 3))
    return absmax(xp.reshape(x, (channels, -1)), axis=1)


def divide_rows(w: Array, s: Array) -> Array:
    """`w` [out, ...] (or a bias [out]), what it writes divided by `s` [out]."""
    xp = namespace(w)
    return w / xp.reshape(s, (-1,) + (1,) * (w.ndim - 1))


def multiply_columns(w: Array, s: Array, groups: int = 1) -> Array:
    """`w` [out, in / groups * kernel], what reads input channel c multiplied by `s` [in]."""
    xp = namespace(w)
    x = _by_channel(w, int(s.shape[0]), groups) * xp.reshape(s, (groups, 1, -1, 1))
    return xp.reshape(x, w.shape)


def _by_channel(w: Array, channels: int, groups: int) -> Array:
    """`w` as [groups, out / groups, channels / groups, kernel]."""
    return namespace(w).reshape(w, (groups, int(w.shape[0]) // groups, channels // groups, -1))


def noise(
    s: Array,
    consumers: Sequence[tuple[Array, int]],
    peak: Array,
    power: Array,
    *,
    bits: int = 8,
    weight_bits: int = 8,
) -> float:
    """The output noise that `s` [channels] leads to, summed over consumers (matrix, groups), to compare factors by.

    `peak` and `power` are max|x| and E[x^2] of the input [channels] before division by s. First order: a step is
    2 max / 2^bits, its noise step^2 / 12; one step for the whole activation, one for each row of weights:
    sum_c s_c^2 step_x^2 |w_c|^2 + sum_r step_r^2 sum_c E[x_c^2] / s_c^2.
    """
    xp = namespace(peak)
    channels = int(peak.shape[0])
    step_x = float(xp.max(peak / s)) * 2 / 2**bits
    total = 0.0
    for w, groups in consumers:
        x = _by_channel(float32(multiply_columns(w, s, groups)), channels, groups)
        step = xp.max(xp.max(xp.abs(x), axis=3), axis=2) * 2 / 2**weight_bits
        inputs = xp.reshape(power / s**2, (groups, 1, -1))
        kernel = int(x.shape[3])
        total += step_x**2 * float(xp.sum(x**2)) + kernel * float(xp.sum(step**2 * xp.sum(inputs, axis=2)))
    return total / 12


def normalised(stream: Any) -> bool:
    """Whether a LayerNormalization writes to the stream: such streams are smoothed, not equalized."""
    return any(layer.op == "LayerNormalization" for layer, _ in stream.producers)


def axes_of(streams: Sequence[Any]) -> dict[str, int]:
    """{tensor: channel axis} of every tensor of some streams."""
    return {name: axis for stream in streams for name, (axis, _) in stream.tensors.items()}


def ends(subject: Subject, stream: Any, channels: Mapping[str, Channels]) -> tuple[list[Array], list[Array]]:
    """Ranges [size] of the activations on a stream and of the columns that read it; none where either is missing."""
    found = [(channels[name], index) for name, (_, index) in stream.tensors.items() if name in channels]
    readers = [(subject.graph.matrix(layer), layer, index) for layer, index in stream.consumers if layer.groups == 1]
    peaks = [_spread(np.maximum(seen.high, -seen.low), index, stream.size) for seen, index in found]
    columns = [_spread(column_ranges(w, layer.inputs), index, stream.size) for w, layer, index in readers]
    return (peaks, columns) if peaks and columns else ([], [])


def gain(s: Array, subject: Subject, stream: Any, channels: Mapping[str, Channels]) -> float:
    """How many times less noise factors `s` promise at the outputs of the stream's readers."""
    plain = _noise(np.ones(stream.size, np.float32), subject, stream, channels)
    return plain / _noise(np.asarray(s), subject, stream, channels)


def move(s: Array, subject: Subject, stream: Any, promised: float) -> str:
    """Rescale a stream by 1 / `s`, in place; a note."""
    subject.graph.apply(stream, 1 / np.asarray(s).astype(np.float64))
    names = ", ".join(layer.name for layer, _ in stream.producers[:2])
    return (
        f"{stream.size} channels written by {names} rescaled by {s.min():.3g} to {s.max():.3g}: "
        f"{promised:.1f} times less noise expected"
    )


def _noise(s: Array, subject: Subject, stream: Any, channels: Mapping[str, Channels]) -> float:
    """The noise expected at the outputs of the stream's readers with factors `s`."""
    total = 1e-30
    for layer, index in stream.consumers:
        seen = channels.get(layer.input)
        if seen is not None and layer.groups == 1:
            peak = np.maximum(seen.high, -seen.low)
            w = subject.graph.matrix(layer)
            total += noise(s[index], [(w, 1)], peak, seen.power, weight_bits=subject.bits.get(layer.name, 8))
    return total


def _spread(ranges: Array, index: Array, size: int) -> Array:
    """The largest of `ranges` [channels of a tensor] for each of the stream's `size` channels."""
    out = np.zeros(size, np.float32)
    np.maximum.at(out, index, np.asarray(ranges, np.float32))
    return out


def apply(subject: Subject, channels: Mapping[str, Channels]) -> list[str]:
    """Rescale the streams between layers in place, each by the exponent of ALPHAS that promises least noise; notes.

    The rows of a producer have scales of their own, so dividing them costs nothing: the trade is between the step that
    a whole activation tensor shares and the columns of the layers that read it.
    """
    notes = []
    for stream in subject.streams:
        peaks, columns = ([], []) if normalised(stream) else ends(subject, stream, channels)
        if not peaks:
            continue
        tried = [np.asarray(balance_activations(peaks, columns, alpha)) for alpha in ALPHAS]
        promised, best = max(((gain(s, subject, stream, channels), s) for s in tried), key=lambda pair: pair[0])
        if promised >= LEAST:
            notes.append(move(best, subject, stream, promised))
    return notes


REWRITE = Rewrite(
    name="equalize",
    title="Cross-layer equalization",
    source="Nagel et al. 2019, arXiv 1906.04721",
    asked=lambda settings: bool(settings.equalize),
    axes=lambda subject: axes_of([stream for stream in subject.streams if not normalised(stream)]),
    apply=apply,
)
