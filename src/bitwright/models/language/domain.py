"""Whether held-out text is of the kind that calibration saw: a source of its own, or words that are as likely."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

FEW = 4
"""Windows of a source below which their words say nothing of its kind."""
TINY = 1e-9
"""A spread, in nats, of windows that are all alike."""

Ids = npt.NDArray[np.int64]


def domain(heldout: torch.Tensor, calibration: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Which source of `calibration` held-out windows [n, length] are most like, and whether they are of its kind.

    Each source is windows [m, length] by its name. Text is scored by how unlikely its tokens are (nats per token) by
    their counts in a source, where half is added to each count seen or not; the source's own windows are scored by the
    others. `excess` is the mean of the held-out text above theirs, `spread` their standard deviation from window to
    window; text within one is in domain. (On docs18m's tokens, in spreads: text of the same kind -.5 to .7, of another
    1.4 to 12.)
    """
    top = 1 + max(int(ids.max()) for ids in (heldout, *calibration.values()))
    best: dict[str, Any] = {"in": False}
    for name, windows in calibration.items():
        if len(windows) < FEW:
            continue
        own, counts = windows.numpy(), np.bincount(windows.numpy().ravel(), minlength=top)
        known = np.array([_unlikely(row, counts - np.bincount(row, minlength=top)) for row in own])
        excess = float(_unlikely(heldout.numpy(), counts) - known.mean())
        spread = float(known.std())
        if "excess" not in best or excess / max(spread, TINY) < best["excess"] / max(best["spread"], TINY):
            best = {"in": excess <= spread, "nearest": name, "excess": excess, "spread": spread}
    return best


def _unlikely(ids: Ids, counts: Ids) -> float:
    """Mean -log p of tokens `ids` by `counts` of every token."""
    return float(-np.log((counts[ids] + 0.5) / (counts.sum() + 0.5 * len(counts))).mean())
