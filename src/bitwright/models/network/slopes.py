"""What a network's answers lose, and slopes of that: random ones whose second moment is the Hessian of the loss.

    class scores: the KL divergence, diag(p) - p p^T of the network's own p; the same as that of -log p(y), y drawn
                  from p, but of less variance: s = sqrt(p) v - p (sqrt(p) v), v random signs, one for each class
    all else:     the squared error, the identity: s = v

(Martens, Sutskever and Swersky 2012, https://arxiv.org/abs/1206.6464).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from bitwright.models.network.backward import Tensors
from bitwright.models.network.graph import Graph
from bitwright.models.tasks.verdict import FLOOR, Scores, probabilities

SCORED = ("classify", "words")
"""Tasks whose first output holds class scores."""
Answers = Mapping[str, Any]
"""{output name: array} of one batch."""


def counting(graph: Graph, task: str) -> list[str]:
    """The outputs by which a network is judged on samples of `task`."""
    names = [*graph.outputs][: 1 if task in SCORED else None]
    return [name for name in names if graph.outputs[name][0].startswith("float")]


def signs(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """As many as there are values in `x`: 1 or -1, in its shape and type."""
    return torch.randint(0, 2, x.shape, generator=generator, dtype=x.dtype) * 2 - 1


def rows_of(x: Any) -> Any:
    """Class scores as [rows, classes]: along the last axis, or axis 1 of [samples, classes, 1, ...]."""
    return x.reshape(len(x), -1) if all(size == 1 for size in x.shape[2:]) else x.reshape(-1, x.shape[-1])


def scored(x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Slopes at class scores `x`, in its shape, from signs `v`."""
    rows: torch.Tensor = rows_of(x)
    v = v.reshape(rows.shape)
    if probabilities(rows.numpy()):
        found = v / rows.clamp_min(FLOOR).sqrt()
    else:
        p = rows.softmax(-1)
        root = p.sqrt() * v
        found = root - p * root.sum(-1, keepdim=True)
    return found.reshape(x.shape)


class Loss:
    """How far answers on some batches are from the float network's `exact` ones.

    Of class scores it is the mean KL divergence, in nats per row; else the noise of an output as a share of its power,
    on average over the outputs.
    """

    def __init__(self, graph: Graph, task: str, exact: Sequence[Answers]) -> None:
        self.scored = task in SCORED
        names = counting(graph, task)
        if self.scored:
            rows = sum(len(rows_of(np.asarray(answers[name]))) for answers in exact for name in names)
            self._whole = dict.fromkeys(names, 2.0 * max(rows, 1))
        else:
            power = {name: sum(_power(answers[name]) for answers in exact) for name in names}
            told = [name for name in names if power[name] > 0]
            self._whole = {name: power[name] * len(told) for name in told}

    @property
    def outputs(self) -> list[str]:
        """Those that count: not those that are 0 on all samples."""
        return [*self._whole]

    def between(self, exact: Answers, answers: Answers) -> float:
        """What one batch adds to the loss; outputs whose size depends on values are left out where it differs."""
        total = 0.0
        for name, whole in self._whole.items():
            x, y = np.asarray(exact[name]), np.asarray(answers[name])
            if x.shape != y.shape:
                continue
            if self.scored:
                kl = Scores.between(rows_of(x), rows_of(y)).kl
                total += 2 * kl.count * kl.estimate.value / whole
            else:
                total += _power(np.asarray(x, np.float64) - y) / whole
        return total

    def slopes(self, answers: Tensors, generator: torch.Generator) -> Tensors:
        """At the float network's answers on one batch: the loss of an error is the mean square of its products with
        these, summed over samples."""
        found = {}
        for name, x in answers.items():
            v = signs(x, generator)
            found[name] = (scored(x, v) if self.scored else v) / self._whole[name] ** 0.5
        return found


def _power(x: Any) -> float:
    return float(np.square(x, dtype=np.float64).sum())
