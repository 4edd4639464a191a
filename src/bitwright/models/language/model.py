"""A language model for the engine: its matrices, block after block, each with calibration statistics of its input."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bitwright import machine
from bitwright.errors import ModelError, RecipeError, about
from bitwright.events import Event, Row
from bitwright.files import sidecars
from bitwright.files.folder import sync, write_config
from bitwright.files.held import Module
from bitwright.files.plain import fingerprint
from bitwright.files.quantized import QuantizedCheckpoint
from bitwright.models import kinds
from bitwright.models.effort import EFFORTS, Effort
from bitwright.models.histogram import Pieces
from bitwright.models.language import cache, costs, curvature, memory, outline, requirements, sensitivity, text, verify
from bitwright.models.language.arch import Architecture, Matrix
from bitwright.models.language.calibration import Calibration
from bitwright.models.language.compare import compare_on_text
from bitwright.models.language.forms import FLOAT, Forms
from bitwright.models.language.importance import gather
from bitwright.models.language.mixture import shares_of
from bitwright.models.language.modules import modules_of, unties
from bitwright.models.language.sink import FolderSink, sink_of
from bitwright.models.language.targets import GgufSink
from bitwright.models.language.text import Text
from bitwright.models.language.turns import Turns
from bitwright.models.model import Aside, Copy, Cost, Drop, Estimate, Item, Model, Plan, Turn
from bitwright.recipe import Layer, Recipe
from bitwright.words import megabytes

TRIAL = "trial"
"""The folder below a partial output with all matrices quantized, used to find out which must stay float."""


def free_disk(path: Path) -> int:
    """Bytes free where `path` is to be."""
    there = next(parent for parent in [path, *path.absolute().parents] if parent.exists())
    return shutil.disk_usage(there).free


class LanguageModel(Model):
    """A folder that transformers understands, read tensor by tensor.

    With effort "fast" every matrix is solved with the float model's own inputs: codes depend on no other matrix.
    Otherwise they make up for those before them; where one of these stays float after all, they are kept as they are.
    """

    independent, spread = True, costs.SPREAD

    def __init__(self, path: Path, recipe: Recipe, device: str = "cpu") -> None:
        self.kind, self.path, self.device = kinds.get("language"), path, device
        self.arch = Architecture.open(path, machine.calibration_dtype(device))
        checkpoint = self.arch.checkpoint
        if checkpoint.quantized and not checkpoint.again:
            raise ModelError(
                "already quantized: quantizing twice only adds error", where=str(path), fix="Start from the float model"
            )
        if isinstance(checkpoint, QuantizedCheckpoint) and not checkpoint.again:
            raise ModelError(
                "config.json says how it is quantized, and no tensor is",
                where=str(path),
                fix="Remove quantization_config from config.json if these are the float weights",
            )
        self.unpacks = self.arch.unpacks
        self.notes, self.forms = outline.notes(self.arch, recipe.copy_code), Forms(self.arch, recipe)

    @property
    def files(self) -> list[Path]:
        return self.arch.checkpoint.files

    @property
    def source_bytes(self) -> int:
        return self.arch.checkpoint.size

    @property
    def parameters(self) -> int:
        return sum(e.count for e in self.arch.checkpoint.tensors.values() if e.dtype.is_floating_point)

    def identity(self) -> Any:
        tensors = self.arch.checkpoint.tensors.values()
        return {
            "source": sorted((e.name, str(e.dtype), e.shape) for e in tensors),
            "files": fingerprint([*self.files, *([] if self.path.is_file() else [self.path / "config.json"])]),
            **({} if self.forms.weighing is None else {"imatrix": self.forms.weighing.sha256}),
            # Sums of a matrix product are taken in another order by another number of threads.
            "arithmetic": [self.device, str(machine.calibration_dtype(self.device)), torch.get_num_threads()],
        }

    # --- planning

    def parts(self, recipe: Recipe) -> list[Matrix]:
        return self.forms.parts(recipe)

    def names(self, part: Any) -> tuple[str, ...]:
        return self.forms.names(part)

    def known(self) -> Sequence[str]:
        return self.forms.known()

    def layer(self, part: Any, recipe: Recipe) -> Layer:
        return self.forms.layer(part, recipe)

    def leave(self, chosen: Mapping[str, Layer], recipe: Recipe, container: Any) -> dict[str, str]:
        return self.forms.left(chosen, recipe)

    def item(self, part: Any, layer: Layer, plan: Plan) -> Item | str:
        return self.forms.item(part, layer, plan)

    def choices(self, plan: Plan) -> dict[str, list[Item]]:
        return self.forms.choices(plan)

    def together(self, plan: Plan) -> list[list[str]]:
        return self.forms.together(plan, self.modules(plan))

    def require(self, plan: Plan) -> None:
        requirements.require(plan, self.arch, self.forms)

    def lines(self, plan: Plan) -> list[str]:
        return outline.lines(plan, self.arch, self.forms)

    def container(self, container: Any, recipe: Recipe) -> Any:
        """As it is used here: where keys and values are to be rounded, it says how."""
        if recipe.kv_cache == FLOAT:
            return container
        found = container.cached(recipe.kv_cache, self.arch.model)
        kept = cache.attentions(self.arch, found.cache)
        if not kept:
            raise ModelError(
                "no attention of its decoder keeps keys and values", where=str(self.path),
                fix="Leave --kv-cache out", key="kv_cache",
            )  # fmt: skip
        shapes = found.cache.scales
        if found.cache.heads and any((one.heads, 1, 1) != shapes[s] for one in kept for s in one.scales):
            return container.cached(recipe.kv_cache, self.arch.model, heads=False)
        return found

    def costs(
        self, plan: Plan, data: Text, choices: Mapping[str, list[Item]], known: Callable[[str], bool]
    ) -> Generator[Event | Cost, None, None]:
        return costs.measure(plan, self.arch, self.device, data, choices, known)

    def open_data(self, plan: Plan) -> None:
        with about("calibration.source"):
            shares_of(plan.recipe.calibration)
        if plan.recipe.max_drop is not None and not memory.evaluates(plan):
            raise RecipeError(
                "there is no text to measure a drop on", where="max_drop", fix="Give --calib TEXT", key="max_drop"
            )

    def sink(self, plan: Plan) -> FolderSink:
        if plan.attempt_of is not None and plan.trial:
            return sink_of(plan.attempt_of)  # its codes are there already
        folder = plan.partial / TRIAL if plan.trial else plan.partial
        if plan.container.ending:
            facts = {} if self.forms.weighing is None else self.forms.weighing.facts
            return GgufSink(plan, self.arch, folder, self.forms.places, facts)
        return FolderSink(plan, self.arch, folder)

    def effort(self, plan: Plan) -> Effort:
        """What the recipe's effort means where text is looked at, as far as memory and disk allow."""
        asked, room = EFFORTS[plan.recipe.effort], plan.room
        if not memory.looks(plan):
            return Effort()
        untied, c = unties(plan, self.arch), plan.recipe.calibration
        learns = any(item.method.needs == "samples" for item in plan.items.values())  # of both streams
        least = costs.WEIGHING if plan.recipe.budget is not None else 0
        corrects, windows, notes = asked.corrects and not learns, min(max(asked.weighing, least), c.windows), []
        if not any(item.method.weighs for item in plan.items.values()):
            windows = 0
        if corrects and c.windows < 2:
            corrects = False
            notes.append("errors of earlier matrices are not made up for: that takes two windows of text")

        def lacking(effort: Effort) -> str | None:
            needed = memory.memory_of(plan, self.arch, self.device, untied, effort)
            limit = f"the limit is {megabytes(room)}"
            return f"that needs {megabytes(needed)} of memory, and {limit}" if needed > room else None

        if corrects and (why := lacking(Effort(corrects))):
            corrects = False
            notes.append(f"errors of earlier matrices are not made up for: {why}")
        if windows:
            cost = memory.curvature_cost(plan, self.arch, self.device, windows, c.length)
            free = free_disk(plan.partial) + curvature.kept(plan.partial)
            if why := memory.curvature_mode(plan, cost, free) or lacking(Effort(corrects or learns, windows)):
                notes.append(f"all outputs count alike, as weighing them does not fit: {why}")
                windows = 0
        return Effort(corrects or learns, windows, notes=tuple(notes))

    def estimate(self, plan: Plan) -> Estimate:
        found = memory.estimate(plan, self.arch, self.device, plan.sink.final_bytes, unties(plan, self.arch))
        if plan.recipe.budget is None:
            return found
        return found._replace(seconds=found.seconds + costs.seconds(self.choices(plan)))

    def modules(self, plan: Plan) -> list[Module]:
        return modules_of(plan, self.arch)

    def facts(self, plan: Plan) -> dict[str, Any]:
        tokens = plan.recipe.calibration.windows * plan.recipe.calibration.length
        shards = plan.recipe.max_shard_bytes is not None and not plan.unspent
        return {
            **outline.cached(plan),
            **self._weighed,
            **({"files": [*sink_of(plan).layout.files]} if shards else {}),
            "copied": [e.name for e in sink_of(plan).copies],
            "calibration_tokens_per_column": {name: tokens / size for name, size in memory.widths(plan).items()},
        }

    # --- running

    def read_data(self, plan: Plan) -> Generator[Event, None, Text | None]:
        return (yield from text.prepare(plan, self.arch, self.device))

    def data_hash(self, data: Text | None) -> str | None:
        return None if data is None else data.calibration_hash

    def turns(
        self, plan: Plan, data: Text | None, finished: Callable[[str], bool]
    ) -> Iterator[Event | Turn | Copy | Aside]:
        """What is recovered comes first: the others are then calibrated with it, as with all that is written."""
        for name, item in list(plan.items.items()):
            if name in plan.recoverable and not finished(name):
                yield Turn([item.recovered])
                if not finished(name):
                    plan.items[name] = item.off_lattice
        yield from Turns(self.arch, self.device, plan, data, finished, self.forms.weighing)

    def piece_rows(self, plan: Plan, item: Item) -> int:
        return memory.piece_rows(item, plan.container.step(item.format))

    def rows(self, item: Item, start: int, stop: int) -> torch.Tensor:
        return self.arch.rows(item.part, start, stop).to(self.device).float()

    def adopt(self, plan: Plan, item: Item, trial: Plan) -> dict[str, int]:
        return sink_of(plan).adopt(item, sink_of(trial))

    def adopt_aside(self, plan: Plan, name: str, trial: Plan) -> dict[str, int]:
        return sink_of(plan).put(sink_of(trial).kept(name))

    def finish(self, plan: Plan) -> list[Path]:
        folder = sink_of(plan).folder
        plan.notes += sink_of(plan).larger
        curvature.clear(plan.partial)
        if not self.path.is_file():
            sidecars.copy(self.path, folder, plan.recipe.copy_code)
        elif not plan.container.ending:
            text.load_tokenizer(self.path).save_pretrained(folder)
        write_config(self.path, folder, self._config(plan))
        return [folder / file for file in sorted(sink_of(plan).layout.files)]

    def _config(self, plan: Plan) -> dict[str, Any]:
        """What the output's config.json says besides the source's."""
        changes: dict[str, Any] = {"tie_word_embeddings": False} if unties(plan, self.arch) else {}
        config: dict[str, Any] = plan.container.config(self.modules(plan))
        return changes | config

    # --- judging

    def verify(self, plan: Plan, rows: Mapping[str, Row], sums: Mapping[str, int]) -> Iterator[Event]:
        return verify.verify(plan, self.arch, sink_of(plan), rows, sums)

    def judge(self, plan: Plan, data: Text | None) -> Generator[Event, None, dict[str, Any]]:
        verdict: dict[str, Any] | None = None
        if data is not None:
            rounded = any(item.activations != "none" for item in plan.items.values())
            more = {"rounded_inputs": rounded, **outline.cached(plan)}
            budget = memory.activation_budget(plan) // 2
            verdict = yield from compare_on_text(self.path, plan.partial, data, budget, more)
        return {
            "text": data.summary if data else None,
            **self._weighed,
            "verdict": verdict,
            "loaded_by_transformers": verify.load_as_user(plan, self.arch, data),
        }

    @property
    def _weighed(self) -> dict[str, Any]:
        """What the imatrix was, where there is one."""
        return {} if self.forms.weighing is None else {"imatrix": self.forms.weighing.summary}

    def importance(self, plan: Plan, data: Any) -> Generator[Event, None, Any]:
        walk = Calibration(self.arch, self.device, data, memory.activation_budget(plan), plan.partial)
        try:
            dataset = data.summary["calibration"]["source"]
            length = plan.recipe.calibration.length
            return (yield from gather(self.forms.places, walk, self.parts(plan.recipe), length, dataset))
        finally:
            walk.decoder.close()

    def pair(self, plan: Plan, name: str) -> Pieces:
        sink, item, source = sink_of(plan), plan.items[name], self.arch.checkpoint
        if not self.written(plan).exists():
            yield source.read(name).float().numpy(), sink.read(item).float().numpy()
            return
        written, weight = sink.open(self.written(plan)), f"{sink.module(item)}.weight"
        rows = memory.checked_rows(item, plan.container.step(item.format))
        for start, w in source.chunks(name, rows):
            yield w.float().numpy(), written.read(weight, start, start + rows).float().numpy()

    def drop(self, plan: Plan, data: Text) -> Generator[Event, None, Drop]:
        # A trial holds all matrices, whichever an attempt leaves float: its config says how they are read.
        write_config(self.path, sink_of(plan).folder, self._config(plan.attempt_of or plan))
        return sensitivity.drop(plan, self.arch, data)

    def rank(self, plan: Plan, data: Text) -> Generator[Event, None, list[str]]:
        return sensitivity.rank(plan, self.arch, data)

    def written(self, plan: Plan) -> Path:
        return plan.out.with_name(next(iter(sink_of(plan).layout.files))) if plan.container.ending else plan.out

    def seal(self, plan: Plan, certificate: str, card: str) -> None:
        self.kind.certificate(plan.partial).write_text(certificate, "utf-8")
        self.kind.card(plan.partial).write_text(card, "utf-8")
        shutil.rmtree(plan.partial / TRIAL, ignore_errors=True)
        sync(path for path in plan.partial.rglob("*") if path.is_file())

    def publish(self, plan: Plan) -> None:
        for kept in plan.partial.glob(f"{Path(text.OWN).stem}.*"):  # a killed run may have left half of one
            kept.unlink()
        if not plan.container.ending:
            plan.partial.rename(plan.out)
            return
        for paper in sidecars.papers(plan.partial):
            paper.rename(sidecars.beside(plan.out, paper.name))
        for place in (self.kind.certificate, self.kind.card):
            place(plan.partial).rename(place(plan.out))
        for file in reversed(sink_of(plan).layout.files):  # the first shard, by which all are found, comes last
            (plan.partial / file).rename(plan.out.with_name(file))
        shutil.rmtree(plan.partial)
