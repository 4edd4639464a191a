"""Losses by which one distribution learns another, and a few words that stand for all of it without bias.

p is the teacher's softmax, q the student's, both of logits divided by a temperature. Softer distributions have slopes
smaller by its square, so every loss here is multiplied by that square (Hinton et al. 2015, arXiv 1503.02531).
"""

from __future__ import annotations

import array_api_compat

from bitwright.core.array import Array, float32, namespace

UNITS = 65535
"""Parts into which the teacher's whole probability is divided where shares of it are stored: 16 bits each."""
TINY = 1e-300
"""No threshold is smaller: what is left for words that are not always drawn may be nothing."""


def forward(teacher: Array, student: Array, temperature: float = 1.0) -> Array:
    """KL(p || q) of logits [..., words], in nats times the temperature squared: the student must cover the teacher."""
    log_p, log_q = _log_softmax(teacher, temperature), _log_softmax(student, temperature)
    return temperature**2 * _divergence(log_p, log_q)


def reverse(teacher: Array, student: Array, temperature: float = 1.0) -> Array:
    """KL(q || p), the same way: the student must stay where the teacher is (Gu et al. 2024, arXiv 2306.08543)."""
    log_p, log_q = _log_softmax(teacher, temperature), _log_softmax(student, temperature)
    return temperature**2 * _divergence(log_q, log_p)


def jensen_shannon(teacher: Array, student: Array, temperature: float = 1.0, share: float = 0.5) -> Array:
    """share KL(p || m) + (1 - share) KL(q || m) with m = share p + (1 - share) q, the same way; 0 < `share` < 1.

    Bounded, between the other two: divided by `share` it tends to KL(p || q) as that tends to 0 (Agarwal et al. 2024,
    arXiv 2306.13649).
    """
    xp = namespace(teacher)
    log_p, log_q = _log_softmax(teacher, temperature), _log_softmax(student, temperature)
    log_m = xp.log(share * xp.exp(log_p) + (1 - share) * xp.exp(log_q))
    mixed = share * _divergence(log_p, log_m) + (1 - share) * _divergence(log_q, log_m)
    return temperature**2 * mixed


def cross_entropy(words: Array, shares: Array, student: Array, temperature: float = 1.0) -> Array:
    """-sum share log q(word) in nats times the temperature squared, for each row of logits [..., words there].

    `words` [..., k] are whole numbers, `shares` [..., k] what stands for their p. Of shares that `draw` and `in_units`
    have found, value and slope are on average those of all of p: KL(p || q) plus `entropy`, which has no slope.
    """
    xp = namespace(student)
    log_q = xp.take_along_axis(_log_softmax(student, temperature), words, axis=-1)
    return -(temperature**2) * xp.sum(shares * log_q, axis=-1)


def entropy(logits: Array, temperature: float = 1.0) -> Array:
    """-sum p log p in nats times the temperature squared, for each row of logits [..., words]."""
    xp = namespace(logits)
    log_p = _log_softmax(logits, temperature)
    p = xp.exp(log_p)
    return -(temperature**2) * xp.sum(p * xp.where(p > 0, log_p, xp.zeros_like(p)), axis=-1)


def draw(p: Array, count: int, uniform: Array) -> tuple[Array, Array]:
    """`count` words of each row of `p` [rows, words], and weights [rows, count] whose mean over draws is p.

    A word with p above a threshold t is always drawn and weighs p; any other is drawn with probability p / t and weighs
    t. With t such that `count` words are drawn, the weights of a row add up to 1, and no other choice of probabilities
    has less variance (Wangni et al. 2018, arXiv 1710.09854). Words come in their own order, each once: the draws are
    systematic, one `uniform` [rows] in [0, 1) deciding all of a row. A row with fewer words ends with weights of 0.
    Storing a few words for all of p is Anshumann et al. 2025 (arXiv 2503.16870), who draw with replacement.
    """
    xp = namespace(p)
    rows, words = p.shape
    level = _threshold(p, min(count, words))[:, None]
    expected = xp.minimum(xp.astype(p, xp.float64) / level, xp.ones_like(level))
    ends = xp.minimum(xp.cumulative_sum(expected, axis=-1), xp.full_like(level, count))
    first = xp.astype(xp.arange(rows), xp.float64)[:, None] * count
    places = xp.astype(xp.arange(count), xp.float64)[None, :] + xp.astype(uniform, xp.float64)[:, None]
    found = xp.searchsorted(xp.reshape(ends + first, (-1,)), xp.reshape(places + first, (-1,)), side="right")
    found = xp.reshape(found, (rows, count)) - xp.arange(rows)[:, None] * words
    missing = found >= words
    found = xp.where(missing, xp.full_like(found, words - 1), found)
    chosen = xp.take_along_axis(p, found, axis=-1)
    weights = xp.maximum(chosen, xp.astype(level, p.dtype))
    return found, xp.where(missing, xp.zeros_like(weights), weights)


def in_units(weights: Array, uniform: Array) -> Array:
    """`weights` [rows, count] of about 1 in all as whole numbers of 1 / UNITS, float64; on average exactly they.

    One `uniform` [rows] in [0, 1) decides a row: what one weight loses to rounding, the next ones may gain, so that the
    sum is right too.
    """
    xp = namespace(weights)
    ends = UNITS * xp.cumulative_sum(xp.astype(weights, xp.float64), axis=-1) + xp.astype(uniform, xp.float64)[:, None]
    whole = xp.floor(ends)
    before = xp.concat([xp.zeros_like(whole[:, :1]), whole[:, :-1]], axis=-1)
    return xp.minimum(whole - before, xp.full_like(whole, UNITS))


def _threshold(p: Array, count: int) -> Array:
    """t [rows] with sum min(1, p / t) = count: all that is left over, divided among the draws that are left over."""
    xp = namespace(p)
    wide = xp.astype(p, xp.float64)
    largest = _largest(wide, count)
    last = largest[:, -1:]
    # What is not among the largest, added up by itself: as a difference from 1 a small rest would be lost.
    ties = xp.count_nonzero(wide == last, axis=-1) - xp.count_nonzero(largest == last, axis=-1)
    rest = xp.sum(xp.where(wide < last, wide, xp.zeros_like(wide)), axis=-1) + last[:, 0] * xp.astype(ties, xp.float64)
    left = rest[:, None] + xp.flip(xp.cumulative_sum(xp.flip(largest, axis=-1), axis=-1), axis=-1)
    level = left / xp.astype(count - xp.arange(count), xp.float64)
    place = xp.argmax(xp.astype(largest <= level, xp.int8), axis=-1)  # the first that the next largest does not exceed
    found = xp.take_along_axis(level, place[:, None], axis=-1)[:, 0]
    return xp.maximum(found, xp.full_like(found, TINY))


def _largest(p: Array, count: int) -> Array:
    """The `count` largest values of each row, falling."""
    xp = namespace(p)
    if array_api_compat.is_torch_array(p):
        return xp.topk(p, count).values
    return xp.flip(xp.sort(p, axis=-1), axis=-1)[:, :count]


def _log_softmax(logits: Array, temperature: float) -> Array:
    xp = namespace(logits)
    warm = float32(logits) / temperature
    if array_api_compat.is_torch_array(warm):
        return xp.log_softmax(warm, -1)
    shifted = warm - xp.max(warm, axis=-1, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))


def _divergence(log_a: Array, log_b: Array) -> Array:
    """sum a (log a - log b) of each row; what has no share of a adds nothing."""
    xp = namespace(log_a)
    a = xp.exp(log_a)
    none = xp.zeros_like(a)
    return xp.sum(a * (xp.where(a > 0, log_a, none) - xp.where(a > 0, log_b, none)), axis=-1)
