"""SmoothQuant: move the outliers of an activation's channels into the weights that read them.

Source: Xiao et al. 2023, arXiv 2211.10438, equation 4. W x = (W diag(s)) (diag(s)^-1 x): where a layer cannot write
x / s itself (behind a normalisation its gain can), a multiplication is left in the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bitwright.core.array import Array, float32, namespace
from bitwright.core.observe import Channels
from bitwright.rewrites.equalize import axes_of, column_ranges, ends, gain, move, normalised
from bitwright.rewrites.rewrite import Rewrite, Subject

LIMIT = 1000.0
"""No channel is scaled by more than this, or less than its inverse."""


def factors(peak: Array, weights: Sequence[Array], alpha: float = 0.5, *, groups: int = 1) -> Array:
    """s_j = max|x_j|^alpha / max|w_j|^(1 - alpha) [in], for `peak` = max|x_j| and matrices [out, in / groups * kernel].

    Divide x by it and multiply the columns of all `weights` that read x (`equalize.multiply_columns`). alpha = 1 moves
    all difficulty into the weights, 0 all into the activation. A channel that is dead on either side keeps s = 1.
    """
    xp = namespace(peak)
    column = column_ranges(weights[0], int(peak.shape[0]), groups)
    for w in weights[1:]:
        column = xp.maximum(column, column_ranges(w, int(peak.shape[0]), groups))
    peak = float32(peak)
    live, one = (peak > 0) & (column > 0), xp.ones_like(peak)
    s = xp.where(live, peak, one) ** alpha / xp.where(live, column, one) ** (1 - alpha)
    return xp.clip(s, 1 / LIMIT, LIMIT)


def apply(subject: Subject, channels: Mapping[str, Channels]) -> list[str]:
    """Smooth the streams behind normalisations in place, with the exponent the recipe names; notes."""
    notes = []
    for stream in subject.streams:
        peaks, columns = ends(subject, stream, channels) if normalised(stream) else ([], [])
        if peaks:
            s = np.asarray(factors(np.max(peaks, axis=0), [c[None] for c in columns], subject.settings.smooth))
            notes.append(move(s, subject, stream, gain(s, subject, stream, channels)))
    return notes


REWRITE = Rewrite(
    name="smooth",
    title="SmoothQuant, behind normalisations",
    source="Xiao et al. 2023, arXiv 2211.10438",
    asked=lambda settings: settings.smooth > 0,
    axes=lambda subject: axes_of([stream for stream in subject.streams if normalised(stream)]),
    apply=apply,
    after=("equalize",),
)
