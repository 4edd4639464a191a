"""Block after block is cut and fitted: two streams pass side by side, the float network and what is left of it so far.

A cut block runs at full size, with zeros where something is gone: the same network serves both streams. The matrices
that read what is cut (the MLP's down projection, the attention's output) are fitted to what the float block answers
and adds to its stream, whatever was lost before; the others to their own float answers.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bitwright.core import pruning
from bitwright.core.drift import Drift
from bitwright.events import Event, Progress
from bitwright.models.language.activations import Activations
from bitwright.models.language.arch import Matrix
from bitwright.models.language.blocks import Decoder, Passage, Unchained, Weights
from bitwright.models.language.calibration import require_moments
from bitwright.models.language.evaluate import batches
from bitwright.models.language.memory import BATCH_TOKENS
from bitwright.models.language.pruning.anatomy import DOWN, KEY, MLP, OUTPUT, QUERY, VALUE, Anatomy
from bitwright.models.language.pruning.shape import Shape
from bitwright.models.language.streams import Source, Twin
from bitwright.models.language.watch import addresses
from bitwright.stages import Prune

STAGES = (("groups", (QUERY, KEY, VALUE), OUTPUT), ("channels", MLP, DOWN))
"""In the order in which a block computes: what is cut, the layers that make it, the one that reads it."""
RIDGE = 0.01
"""What is added to second moments before an elimination, in mean diagonals: less than columns per token is never used.
"""


@dataclass(frozen=True)
class Fitted:
    """A matrix that curvature is gathered for."""

    part: Matrix

    @property
    def name(self) -> str:
        """The matrix's."""
        return self.part.name

    @property
    def rows(self) -> int:
        """Outputs."""
        return self.part.rows


@dataclass(frozen=True)
class Done:
    """A block as it is left: which channels and groups it keeps, its stored tensors (cut), and what was measured."""

    kept: dict[str, list[int]]
    tensors: Weights
    told: dict[str, Any]


class Walk:
    """Runs the calibration windows through both streams. `layers` are the blocks that stay."""

    def __init__(
        self, anatomy: Anatomy, device: str, windows: torch.Tensor, settings: Prune, shape: Shape, layers: list[int],
        curvature: Callable[[int], dict[str, torch.Tensor]], budget: int, folder: Path,
    ) -> None:  # fmt: skip
        """`curvature(block)` gives G of its matrices by name. `budget` bounds activations in memory, in bytes."""
        self.anatomy, self.arch = anatomy, anatomy.arch
        self._settings, self._shape, self._layers, self._curvature = settings, shape, layers, curvature
        self._budget, self._folder = budget, folder
        self.decoder = Decoder(self.arch, device=device)
        most = -(-len(windows) // 2)  # what is fitted on one half is judged by the other
        pieces = batches(windows, max(1, min(BATCH_TOKENS // windows.shape[1], most)))
        self._passages = [Passage(piece) for piece in pieces]
        self._float, self._twin = Activations(budget // 4, folder), Activations(budget // 4, folder)
        for passage in self._passages:
            state = self.decoder.enter(passage)
            self._float.append(state)
            self._twin.append(state)

    def skip(self, block: int) -> Generator[Event, None, None]:
        """A block that goes: the float stream passes it alone."""
        with self.decoder.loaded(block, self.decoder.checked(block)):
            for i in range(len(self._float)):
                self._float[i] = self._run(block, self._float[i], i)
        yield self._progress(block, "passing")

    def cut(self, block: int, known: Done | None) -> Generator[Event, None, Done]:
        """Cut and fit a block, or pass it as it was left; both streams are then behind it."""
        weights = self.decoder.checked(block)
        with self.decoder.loaded(block, weights) as module:
            source = Source(self._addresses(block, module), None if known else self._store())
            for i in range(len(self._float)):
                with source.on(i):
                    self._float[i] = self._run(block, self._float[i], i)
            yield self._progress(block, "calibrating")
            done = known or (yield from self._fit(block, module, source, dict(weights)))
            weights |= self.restored(block, done)
            self.decoder.load(dict(weights))
            for i in range(len(self._twin)):
                self._twin[i] = self._run(block, self._twin[i], i)
        yield self._progress(block, "passing")
        return done

    def _fit(
        self, block: int, module: torch.nn.Module, source: Source, weights: Weights
    ) -> Generator[Event, None, Done]:
        """Decide what stays of a block, and what its matrices become. `weights` are its stored tensors."""
        kept: dict[str, list[int]] = {}
        told: dict[str, dict[str, Any]] = {}
        g = self._curvature(block)
        for along, makers, reader in STAGES:
            if self._settings.repair:
                yield from self._aim(block, module, source, weights, makers)
            twin = yield from self._see(block, module, source, [reader])
            name = self.anatomy.stored(block, f"{reader}.weight")
            halves = twin.halves(name)
            assert halves is not None  # every token reaches it
            w = weights[name].float()
            kept[along] = self._choose(along, w, halves, g.get(name))
            columns = self._columns(along, kept[along])
            told[reader] = {"cut": _error(w, _scattered(w[:, columns], columns, w.shape[1]), halves)}
            if self._settings.repair:
                fitted, choices = pruning.refit(w, halves, columns)
                new = _scattered(fitted, columns, w.shape[1])
                told[reader] |= {"fitted": _error(w, new, halves), "ridges": [c.ridge for c in choices],
                                 "shares": [c.share for c in choices]}  # fmt: skip
            else:
                new = _scattered(w[:, columns], columns, w.shape[1])
            weights[name] = new.to(weights[name].dtype)
            self.decoder.load(dict(weights))
        return Done(kept, self._sliced(block, weights, kept), told)

    def _aim(
        self, block: int, module: torch.nn.Module, source: Source, weights: Weights, makers: tuple[str, ...]
    ) -> Generator[Event, None, None]:
        """Fit matrices that share one input, of which nothing is cut, to their float answers."""
        twin = yield from self._see(block, module, source, list(makers))
        for maker in makers:
            name = self.anatomy.stored(block, f"{maker}.weight")
            halves = twin.halves(name)
            if halves is None or not all(bool(half.cross.any()) for half in halves):
                continue  # nothing is lost yet
            fitted, _ = pruning.refit(weights[name].float(), halves, range(weights[name].shape[1]))
            weights[name] = fitted.to(weights[name].dtype)
        self.decoder.load(dict(weights))

    def _see(
        self, block: int, module: torch.nn.Module, source: Source, paths: list[str]
    ) -> Generator[Event, None, Twin]:
        """Run the twin up to the inputs of layers, and sum these up."""
        names = {self.anatomy.stored(block, f"{path}.weight") for path in paths}
        wanted = frozenset(source.leader[name] for name in names)
        twin = Twin(self._addresses(block, module), source, wanted)
        for i in range(len(self._twin)):
            with twin.on(i):
                self._run(block, self._twin[i], i)
        require_moments(twin.stats)
        yield self._progress(block, "fitting")
        return twin

    def _choose(
        self, along: str, w: torch.Tensor, halves: tuple[Drift, Drift], curvature: torch.Tensor | None
    ) -> list[int]:
        """Which channels or groups stay."""
        keep = self._shape.width if along == "channels" else self._shape.groups
        size = w.shape[1] // (self.anatomy.width if along == "channels" else self.anatomy.groups)
        if keep == w.shape[1] // size:
            return list(range(keep))
        stats = halves[0].stats + halves[1].stats
        g = None if curvature is None else curvature[0]
        how = self._settings.importance
        if how == "activation":
            return pruning.best(pruning.loudness(stats.hessian, size), keep)
        if how == "taylor":
            return pruning.best(pruning.weighed(w, stats.hessian, size, g), keep)
        share = max(RIDGE, w.shape[1] / stats.n)
        return pruning.eliminate(w, pruning.damped(stats.hessian, share), keep, size, g)

    def _columns(self, along: str, kept: list[int]) -> list[int]:
        """The columns of the matrix that reads channels or groups."""
        size = 1 if along == "channels" else self.anatomy.sharing * self.anatomy.head
        return [i * size + k for i in kept for k in range(size)]

    def _sliced(self, block: int, weights: Weights, kept: dict[str, list[int]]) -> Weights:
        """The stored tensors of a block, cut."""
        paths, found = self.anatomy.paths(block), {}
        for name, tensor in weights.items():
            cut = self.anatomy.cuts.get(paths[name])
            if cut is None:
                found[name] = tensor
                continue
            found[name] = tensor.index_select(cut.axis, _places(kept[cut.along], cut.size))
        return found

    def restored(self, block: int, done: Done) -> Weights:
        """The tensors of a block that was cut, at full size, with zeros where something is gone."""
        paths, found = self.anatomy.paths(block), {}
        for name, tensor in done.tensors.items():
            cut = self.anatomy.cuts.get(paths[name])
            stored = tensor.to(self.arch.checkpoint.entry(name).dtype).to(self.decoder.dtype)
            if cut is not None:
                whole = torch.zeros(self.arch.checkpoint.entry(name).shape, dtype=stored.dtype)
                stored = whole.index_copy_(cut.axis, _places(done.kept[cut.along], cut.size), stored.cpu())
            found[name] = stored
        return found

    def _run(self, block: int, hidden: torch.Tensor, i: int) -> torch.Tensor:
        passage = Passage(self._passages[i].ids)
        out = self.decoder.run(block, hidden.clone(), passage)
        if passage.beside or passage.shared:
            raise Unchained("its blocks hand on more than hidden states")
        return out

    def _addresses(self, block: int, module: torch.nn.Module) -> dict[int, list[str]]:
        matrices = [m for m in self.arch.matrices.values() if m.block == block]
        return addresses(module, f"{self.arch.blocks}.{block}", matrices)

    def _store(self) -> Activations:
        return Activations(self._budget // 2, self._folder)

    def _progress(self, block: int, what: str) -> Progress:
        return Progress("prune", block, self.arch.count, f"{what} block {block + 1} of {self.arch.count}")


def _places(kept: list[int], size: int) -> torch.Tensor:
    return torch.tensor([i * size + k for i in kept for k in range(size)], dtype=torch.int64)


def _scattered(columns: torch.Tensor, places: list[int], width: int) -> torch.Tensor:
    """Columns at their places among zeros [rows, width]."""
    whole = columns.new_zeros(columns.shape[0], width)
    whole[:, places] = columns
    return whole


def _error(w: torch.Tensor, new: torch.Tensor, halves: tuple[Drift, Drift]) -> float:
    """The share of a layer's output power by which another matrix answers differently, on the inputs that there are."""
    moment = halves[0].stats.moment + halves[1].stats.moment
    apart = w - new
    return float(((apart @ moment) * apart).sum() / ((w @ moment) * w).sum().clamp_min(1e-30))
