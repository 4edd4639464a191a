"""One layer after its codes are chosen: the scale its bias needs, its corrected bias, and what rounding cost it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bitwright.core.array import Array as Anything
from bitwright.core.drift import describe, make_up
from bitwright.core.observe import Affine
from bitwright.core.qtensor import QTensor
from bitwright.core.scaling import Block
from bitwright.core.stats import Stats
from bitwright.files.containers.qdq.writer import fit_bias
from bitwright.files.layers import Layer, from_matrix
from bitwright.methods import Samples, Seen
from bitwright.methods.method import Needs
from bitwright.models.model import Item, Outcome
from bitwright.models.network.graph import Graph
from bitwright.models.network.moments import Drifts, Record
from bitwright.models.network.shared import Use
from bitwright.models.network.unfold import multiply, outputs_as_rows, unfold
from bitwright.models.network.walk import Step
from bitwright.recipe import Network
from bitwright.rewrites import Rewrite
from bitwright.rewrites.bias import clipped_normal

Array = npt.NDArray[Any]
TOKENS = 1 << 14
"""Rows of unfolded input that learned rounding sees at most, spread over all batches."""


class Settling:
    """The layer of `step` on its way into the quantized network. It is what a rewrite corrects (`rewrites.Rounded`).

    `affine` rounds the layer's input (None where that stays float). With the bias corrected empirically, the mean of
    each output channel is that of the float network again, whatever happened before. `later` are the other layers of
    its weight, where it is the first of them.
    """

    def __init__(
        self, graph: Graph, step: Step, network: Network, affine: Affine | None, corrections: Sequence[Rewrite],
        later: Sequence[Use] = (), passages: Sequence[int] = (),
    ) -> None:  # fmt: skip
        self.graph, self.step, self.network, self.affine, self.later = graph, step, network, affine, later
        self.layer = step.layer
        self.passages = passages or range(step.count)
        self.matrix = self.target = graph.matrix(self.layer)
        self.corrections = corrections if self.layer.bias is not None else ()
        self.error: Anything = np.zeros_like(self.matrix)
        self._notes: list[str] = []
        self._correction: str | None = None

    @property
    def groups(self) -> int:
        """Groups of the convolution."""
        return self.layer.groups

    @property
    def batches(self) -> int:
        """Batches of samples that were carried through both networks."""
        return self.step.count

    @property
    def centred(self) -> bool:
        """Whether the bias takes care of the mean, so that codes need only keep the error about it small."""
        return bool(self.corrections) and self.network.bias == "empirical" and self.step.count > 0

    def seen(
        self, needs: Needs, block: Block = "channel", corrects: bool = False
    ) -> tuple[tuple[Seen, ...], str | None]:
        """What a method that needs so much is shown, for scales of such blocks; or why it cannot be.

        With `corrects`, what the inputs have lost is looked at as well, and `aim` makes up for it.
        """
        corrects = corrects and self.step.count > 0
        if corrects and self.layer.op == "ConvTranspose":
            corrects = False
            self._notes.append("no corrected targets: a transposed convolution")
        record = self._look(corrects) if corrects else None
        if needs == "nothing":
            return (Seen(),), None
        if self.layer.op == "ConvTranspose":
            return (Seen(),), "transposed convolution"
        if self.step.count == 0:
            return (Seen(),), "there are no samples"
        if needs == "samples":
            return (Seen(samples=self._samples()),), None
        if self.groups > 1 and block == "tensor":
            return (Seen(),), "groups of other inputs share one scale"
        record = record or self._look(False)
        return tuple(Seen(stats) for stats in self._pooled(record)), None

    def aim(self, item: Item, start: int, w: Anything) -> Anything:
        """What the weights should be for the layer to answer, from the inputs there are, as the float one did."""
        return w if self.target is self.matrix else torch.from_numpy(self.target)

    def settle(self, item: Item, start: int, w: Anything, q: QTensor) -> Outcome:
        """Fix the codes and the bias, so that the walk goes on with them; what the file stores, and its cost."""
        given, layer = as_numpy(q), self.layer
        weight = given
        bias = self.graph.bias(layer)
        for user, affine in ((layer, self.affine), *((use.layer, use.affine) for use in self.later)):
            if affine is not None:
                own = self.graph.bias(user) if user.bias else None
                weight = fit_bias(weight, self.target, own, affine.scale)
        decoded, notes = weight.decode(), self._notes
        if weight is not given:
            notes.append("scales of some rows are raised, so that int32 holds their biases")
        self.error = decoded - self.target
        self.step.settle(weight=from_matrix(layer, decoded))
        for rewrite in self.corrections:
            assert rewrite.correct is not None
            change = rewrite.correct(self, self.network)
            if isinstance(change, str):
                notes.append(change)
            elif change is not None:
                bias = bias + np.asarray(change)
        if self.affine is not None and layer.bias is not None:
            bias = stored_bias(bias, weight, self.affine.scale)
        self.step.settle(bias=bias)
        noise, power = self._powers()
        extras = {"bias": bias} if layer.bias is not None else {}
        return Outcome(weight, noise, power, extras, tuple(notes), self._correction)

    def restore(self, q: QTensor, bias: Array | None) -> None:
        """Go on with what an earlier run settled."""
        self.step.settle(weight=from_matrix(self.layer, np.asarray(q.decode())), bias=bias)

    def means(self) -> tuple[Array, Array]:
        """The mean of each output channel, in the float network and in the quantized one."""
        layer = self.layer
        sums, count = [np.zeros(layer.outputs), np.zeros(layer.outputs)], 0
        for pair in self.step.outputs():
            rows = [outputs_as_rows(layer, y) for y in pair]
            count += len(rows[0])
            for total, r in zip(sums, rows, strict=True):
                total += r.sum(dim=0, dtype=torch.float64).numpy()
        return (sums[0] / count).astype(np.float32), (sums[1] / count).astype(np.float32)

    def expected(self) -> Array | None:
        """E[x] of each input channel by the batch norm that writes it."""
        return expected_input(self.graph, self.layer)

    def _look(self, corrects: bool) -> Record:
        """The record of the quantized network's inputs; with `corrects` the target makes up for what they lost."""
        step, record = self.step, Record(self.layer, self.passages)
        if not corrects:
            for i, (_, x_hat) in enumerate(step):
                record.add(i, x_hat)
            return record
        uneven = False
        for i, ((x, x_hat), pair, beside) in enumerate(zip(step, step.outputs(), step.beside(), strict=True)):
            uneven = uneven or x.shape != x_hat.shape
            pairs = [pair]
            if beside is not None and beside[0].shape == beside[1].shape == pair[0].shape and not self.later:
                pairs.append(beside)
            lost = [outputs_as_rows(self.layer, y) - outputs_as_rows(self.layer, y_hat) for y, y_hat in pairs]
            record.add(i, x_hat, () if uneven else lost)
        if uneven:
            self._notes.append("no corrected targets: how many rows there are follows from the values before")
        elif (found := self._drifts(record)) is not None:
            matrix = torch.from_numpy(np.array(self.matrix)).reshape(self.groups, -1, self.layer.columns)
            target, choices = make_up(matrix, found.stats, found.lost)
            self.target = target.reshape(self.matrix.shape).numpy()
            self._correction = describe(choices)
        return record

    def _drifts(self, record: Record) -> Drifts | None:
        """What both halves of the samples lost, over all uses of the weight; None where there is nothing to make up."""
        found = record.drifts(self.centred)
        for use in self.later:
            more = use.record.drifts(self.centred) if use.record is not None else None
            found = found + more if found is not None and more is not None else None
        if found is None or not any(bool(each.any()) for part in found.lost for each in part):
            return None
        sums = [*(stats.moment for stats in found.stats), *(each for part in found.lost for each in part)]
        if all(bool(each.isfinite().all()) for each in sums):
            return found
        self._notes.append("no corrected targets: the squares of its inputs overflow float32")
        return None

    def _pooled(self, record: Record) -> list[Stats]:
        """The moments of each group of the layer; those of later uses added."""
        found = record.stats(self.centred)
        for use in self.later:
            if use.record is not None:
                found = [a + b for a, b in zip(found, use.record.stats(self.centred), strict=True)]
        return found

    def _samples(self) -> Samples:
        """Rows of the quantized network's unfolded inputs, and the float layer's outputs there.

        With a corrected target they are what that answers: the outputs as far as they follow from such inputs at all.
        """
        step, layer = self.step, self.layer
        generator = torch.Generator().manual_seed(0)
        each = max(1, TOKENS // step.count)
        inputs, targets = [], []
        for (_, x_hat), (y, _) in zip(step, step.outputs(), strict=True):
            rows, wanted = unfold(layer, x_hat), outputs_as_rows(layer, y)
            assert rows is not None
            rows = rows.transpose(0, 1).reshape(rows.shape[1], -1)
            take = torch.randperm(len(rows), generator=generator)[:each]
            inputs.append(rows[take])
            targets.append(wanted[take])
        bias, x, wanted = torch.from_numpy(self.graph.bias(layer)), torch.cat(inputs), torch.cat(targets)
        if self.target is not self.matrix:
            answers = multiply(layer, self.target, x.reshape(len(x), layer.groups, -1).transpose(0, 1))
            bias = (wanted - answers).mean(dim=0) if self.centred else bias
            wanted = answers + bias
        return Samples(x, wanted, bias, layer.activation == "Relu", layer.groups)

    def _powers(self) -> tuple[float, float]:
        """Sum of squares of the output's error, and of the float output; 0 and 0 without samples."""
        noise = power = 0.0
        for y, y_hat in self.step.outputs():
            d = np.asarray(y, np.float64) - y_hat
            noise += float((d * d).sum())
            power += float((np.asarray(y, np.float64) ** 2).sum())
        return noise, power


def expected_input(graph: Graph, layer: Layer) -> Array | None:
    """E[x] of each input channel by the batch norm (and ReLU or Clip) that writes it; None where none does."""
    producer = graph.producers.get(layer.input)
    if layer.input in graph.normals:
        return graph.normals[layer.input][0]
    if producer is None or not graph.clips(producer) or producer.input[0] not in graph.normals:
        return None
    limits = [0.0, float("inf")] if producer.op_type == "Relu" else [float("-inf"), float("inf")]
    for i, name in enumerate(producer.input[1:3]):
        if name:
            limits[i] = float(graph.constant(name).item())
    return np.asarray(clipped_normal(*graph.normals[producer.input[0]], *limits), np.float32)


def stored_bias(b: Array, q: QTensor, input_scale: float) -> Array:
    """`b` [outputs] as an int32 code times s_x s_w holds it: what the integer kernel really adds."""
    scale = input_scale * np.abs(np.asarray(q.scale, np.float64)).reshape(-1)
    return np.asarray(np.round(b / scale) * scale, np.float32)


def as_numpy(q: QTensor) -> QTensor:
    """The same codes and scales as NumPy arrays, which files are written from."""
    if isinstance(q.codes, np.ndarray):
        return q
    zero = None if q.zero is None else q.zero.numpy()
    return QTensor(q.format, q.codes.numpy(), q.scale.numpy(), zero, outer=q.outer)


def as_before(settling: Settling, first: str) -> Any:
    """What `Turn.settle` does with a layer whose weight the layer `first` has had solved: only its bias is chosen."""

    def settle(item: Item, start: int, w: Anything, q: QTensor) -> Outcome:
        found = settling.settle(item, start, w, q)
        return replace(found, notes=(*found.notes, f"has the weight of {first}, stored once"))

    return settle


def as_trained(bias: Array | None) -> Any:
    """What `Turn.settle` does with a layer whose codes and bias training has found: nothing is changed."""

    def settle(item: Item, start: int, w: Anything, q: QTensor) -> Outcome:
        return Outcome(as_numpy(q), extras={} if bias is None else {"bias": bias})

    return settle
