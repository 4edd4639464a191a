"""The engine for Python: what each command of the command line does, as a function; it calls these itself.

    import bitwright as bw

    result = bw.quantize("model", "out", bits=4, calib="text.jsonl")
    print(result)                       # the verdict; in a notebook, a table

Errors are those of `bitwright.errors`. Nothing here exits or prints, except a progress bar in a terminal or notebook.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bitwright.engine.options import make_recipe, make_settings, size
from bitwright.engine.push import Push
from bitwright.engine.push import prepare as prepare_push
from bitwright.errors import ModelError, RecipeError
from bitwright.events import Event, Finding, Finished, Note, Precision, Progress, Row, drain
from bitwright.models import Kind, find, kind_of
from bitwright.models import open as open_model
from bitwright.models.running import Asked
from bitwright.recipe import Recipe
from bitwright.results import (
    Checked,
    Measured,
    Planned,
    PlannedSweep,
    Ran,
    Report,
    Result,
    Source,
    Staged,
    Swept,
)

if TYPE_CHECKING:
    from bitwright.models.model import Model

Recipes = Recipe | Source | Mapping[str, Any]
"""A recipe, its file, or its tables."""
Watch = Callable[[Event], None] | bool | None
"""Where events go: a function; True: a progress bar; False: nowhere; None: a bar in a terminal or notebook."""
T = TypeVar("T")


def open(model: Source, *, device: str = "cpu") -> Model:
    """Open a float model; `model.parts(Recipe())` are the matrices that can be quantized.

    `model` is a folder, an .onnx file or `hub:OWNER/NAME@REVISION`. Raises ModelError, FileError or TensorError.
    """
    kind_of(find(model)).load()
    return open_model(model, device=device)


def plan(
    model: Source,
    out: Source | None = None,
    *,
    recipe: Recipes | None = None,
    max_ram: str | int | None = None,
    device: str = "cpu",
    threads: int | None = None,
    **options: Any,
) -> Planned:
    """Plan a quantization: decide everything, write nothing.

    `options` are those of `bitwright quantize`: bits, format, group, symmetric, method, activations, calib, windows,
    length, heldout, heldout_windows, output (--to), simulate, indivisible, embedding, kv_cache, type, imatrix, size,
    bpw, max_kl, max_shard_size, effort, max_drop, bind and copy_code; they override `recipe`. `max_ram` is a ceiling in
    bytes or as "2GB". Raises InputError's kinds and ResourceError for what could be known to fail; TypeError for an
    option that does not exist.
    """
    unknown = options.keys() - OPTIONS
    if unknown:
        raise TypeError(f"no option is called {min(unknown)!r}")
    source = find(model)
    kind = kind_of(source)
    made = make_recipe(kind, recipe, options)
    capped = _prepare(kind, threads)
    from bitwright.engine import plan as planning

    target = planning.beside(kind, source, made) if out is None else Path(out)
    known = out is not None or kind.has_data(made)
    job = planning.make(
        source, target, made, max_ram=size(max_ram), device=device, check_out=out is not None, needs_data=known
    )
    job.notes += capped
    return Planned(job)


OPTIONS = frozenset(
    {
        *("bits", "format", "group", "symmetric", "method", "activations", "output", "simulate", "effort", "max_drop"),
        *(
            "calib",
            "windows",
            "length",
            "heldout",
            "heldout_windows",
            "indivisible",
            "embedding",
            "kv_cache",
            "type",
            "imatrix",
            "size",
            "bpw",
            "max_kl",
            "max_shard_size",
            "bind",
            "copy_code",
        ),
    }
)
"""Names of the options that `plan` and `quantize` take."""


def quantize(
    model: Source,
    out: Source,
    *,
    recipe: Recipes | None = None,
    max_ram: str | int | None = None,
    device: str = "cpu",
    threads: int | None = None,
    watch: Watch = None,
    **options: Any,
) -> Result:
    """Quantize `model` into `out` (a folder, or an .onnx file), certified; the arguments are those of `plan`.

    However it was stopped, the same call continues. `watch` gets every event.
    """
    return _finish(plan(model, out, recipe=recipe, max_ram=max_ram, device=device, threads=threads, **options), watch)


def _finish(job: Planned | Staged, watch: Watch) -> Result:
    """Run a job to its end."""
    finished: Finished | None = None
    with closing(_Watcher(watch)) as watcher:
        for event in job.run():
            watcher(event)
            if isinstance(event, Finished):
                finished = event
    assert finished is not None  # it comes last
    return Result(Path(finished.out), finished.certificate)


def plan_sweep(
    model: Source,
    out: Source,
    recipes: Sequence[Source] | Mapping[str, Recipe],
    *,
    workers: int | None = None,
    threads: int = 1,
    max_ram: str | int | None = None,
    device: str = "cpu",
) -> PlannedSweep:
    """Plan every one of `recipes` on `model`: TOML files, each with a recipe or a `[grid]` of them, or recipes by name.

    `out` is the folder of the outputs. `workers` run at once (default: as many as there are processors for `threads`
    each). Raises what `plan` raises, and RecipeError for files that are no recipes or outputs of others in the way.
    """
    source = find(model)
    kind_of(source).load()
    from bitwright.engine.sweep import plan as planning
    from bitwright.engine.sweep.recipes import read

    made = recipes if isinstance(recipes, Mapping) else read([Path(path) for path in recipes])
    job = planning.make(source, Path(out), made, threads=threads, max_ram=size(max_ram), device=device)
    return PlannedSweep(job, workers or max(1, (os.cpu_count() or 1) // threads))


def sweep(
    model: Source,
    out: Source,
    recipes: Sequence[Source] | Mapping[str, Recipe],
    *,
    watch: Watch = None,
    **options: Any,
) -> Swept:
    """Quantize `model` by several recipes, side by side; arguments and `options` are those of `plan_sweep`.

    However it was stopped, the same call continues, and makes nothing twice. A recipe that fails is told in `failed`.
    """
    job = plan_sweep(model, out, recipes, **options)
    with closing(_Watcher(watch)) as watcher:
        return drain(job.run(), watcher)


def plan_stage(
    stage: str,
    model: Source,
    out: Source | None = None,
    *,
    max_ram: str | int | None = None,
    device: str = "cpu",
    threads: int | None = None,
    **options: Any,
) -> Staged:
    """Plan a stage, such as "prune": decide everything, write nothing.

    `options` are those of the stage's command. Without `out` only what can be known without a place for it is looked
    at. Raises InputError's kinds and ResourceError for what could be known to fail, RecipeError for an option that does
    not exist.
    """
    source = find(model)
    kind = kind_of(source)
    settings = make_settings(stage, options)
    capped = _prepare(kind, threads)
    from bitwright.engine.stages import plan as planning

    target = kind.beside(source, kind.ending) if out is None else Path(out)
    job = planning.make(source, target, settings, max_ram=size(max_ram), device=device, check_out=out is not None)
    job.notes += capped
    return Staged(job)


def prune(
    model: Source,
    out: Source,
    *,
    max_ram: str | int | None = None,
    device: str = "cpu",
    threads: int | None = None,
    watch: Watch = None,
    **options: Any,
) -> Result:
    """Take channels, groups of attention heads and layers out of `model`, fit what remains, and write it to `out`.

    `options` are those of `bitwright prune`: keep (a share of the blocks' parameters) or params, cut, multiple,
    importance, repair, calib, windows, length, heldout, heldout_windows, seed, max_shard_size and copy_code. However it
    was stopped, the same call continues. `watch` gets every event. Raises what `plan_stage` and `quantize` raise.
    """
    return _finish(plan_stage("prune", model, out, max_ram=max_ram, device=device, threads=threads, **options), watch)


def distil(
    teacher: Source,
    student: Source,
    out: Source,
    *,
    max_ram: str | int | None = None,
    device: str = "cpu",
    threads: int | None = None,
    watch: Watch = None,
    **options: Any,
) -> Result:
    """Teach `student` what `teacher` says of a text, and write it to `out`.

    `options` are those of `bitwright distil`: calib (there --text), tokens, length, batch, rate, warmup, loss,
    temperature, labels, hidden, exact, cache, patience, mixed, heldout, heldout_windows, seed, max_shard_size and
    copy_code. However it was stopped, the same call continues. `watch` gets every event. Raises what `plan_stage` and
    `quantize` raise, and TrainingError where a loss is not finite.
    """
    options |= {"teacher": str(teacher)}
    return _finish(
        plan_stage("distil", student, out, max_ram=max_ram, device=device, threads=threads, **options), watch
    )


def measure(
    a: Source,
    b: Source,
    heldout: str = "stdlib",
    *,
    windows: int = 64,
    length: int = 256,
    recipe: Recipes | None = None,
    threads: int | None = None,
    watch: Watch = None,
) -> Measured:
    """Compare the float model `a` with `b` on the same held-out text or samples; see `engine.measure`."""
    kind = kind_of(find(a))
    made = make_recipe(kind, recipe, {})
    capped = _prepare(kind, threads)
    from bitwright.engine.measure import measure as compare

    text = made.calibration.model_copy(update={"heldout_windows": windows, "length": length})
    with closing(_Watcher(watch)) as watcher:
        for note in capped:
            watcher(Note(note))
        steps = compare(find(a), find(b), heldout, made.model_copy(update={"calibration": text}))
        comparison = drain(steps, watcher)
        return Measured(comparison, kind.baseless(comparison.summary()))


def imatrix(
    model: Source,
    out: Source,
    *,
    calib: str | list[str],
    windows: int | None = None,
    length: int | None = None,
    max_ram: str | int | None = None,
    device: str = "cpu",
    threads: int | None = None,
    watch: Watch = None,
) -> dict[str, Any]:
    """Write an imatrix of what calibration text multiplies the matrices of a language model by, for llama.cpp's tools.

    `calib`, `windows` and `length` are those of `quantize`, and so is the text that is read. Returns what was written:
    entries, chunks, tokens per chunk and data set.
    """
    source = find(model)
    kind = kind_of(source)
    given = {"calib": calib, "windows": windows, "length": length, "type": "q8_0", "effort": "fast"}
    if "imatrix" not in kind.tables:
        what = f"{kind.title} have no imatrix"
        raise RecipeError(what, where=str(source), fix="Give a language model")
    made = make_recipe(kind, None, given)
    capped = _prepare(kind, threads)
    from bitwright.engine import importance

    with closing(_Watcher(watch)) as watcher:
        for note in capped:
            watcher(Note(note))
        found = drain(importance.write(source, Path(out), made, max_ram=size(max_ram), device=device), watcher)
    return {
        "out": str(out), "entries": len(found.entries), "chunks": found.chunks, "chunk_size": found.chunk_size,
        "dataset": found.dataset,
    }  # fmt: skip


def run(
    model: Source,
    against: Source | None = None,
    *,
    prompt: str | None = None,
    tokens: int | None = None,
    samples: str | None = None,
    threads: int | None = None,
    watch: Watch = None,
) -> Ran:
    """Run a model in the runtime at hand, and the float model `against` in turns with it: speed, memory and text.

    A language model goes on from `prompt` by `tokens` tokens, always the likeliest one; an ONNX network answers one of
    `samples`, zeros unless given. Raises what opening the models raises, and InputError's kinds for what cannot be run.
    """
    path = find(model)
    kind = kind_of(path)
    capped = _prepare(kind, threads)
    from bitwright.engine.speed import run as turns

    most = os.cpu_count() or 1
    asked = Asked(min(threads or most, most), prompt, tokens, samples)
    with closing(_Watcher(watch)) as watcher:
        for note in capped:
            watcher(Note(note))
        return Ran(drain(turns(path, find(against) if against is not None else None, asked), watcher))


def check(model: Source, against: Source | None = None, *, watch: Watch = None) -> Checked:
    """Check every part of a quantized model, from any tool; with a float model also the error of each matrix."""
    path = find(model)
    _prepare(kind_of(path), None)
    from bitwright.engine.check import check as look

    findings: list[Finding] = []
    rows: list[Row] = []
    precision: list[Precision] = []
    with closing(_Watcher(watch)) as watcher:
        for event in look(path, find(against) if against is not None else None):
            watcher(event)
            if isinstance(event, Finding):
                findings.append(event)
            elif isinstance(event, Row):
                rows.append(event)
            elif isinstance(event, Precision):
                precision.append(event)
    return Checked(path, findings, rows, precision)


def report(*outs: Source) -> Report:
    """The report on one output, or on several by size and quality. Raises ModelError without a certificate.

    Nothing is measured again, but files that are not as certified are named, under "stale".
    """
    return Report.of(*outs)


def push(
    out: Source,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    endpoint: str | None = None,
    agree: Callable[[Push], None] | None = None,
    watch: Watch = None,
) -> str:
    """Check an output of `quantize` anew, then upload it to the hub's repository `repo` (OWNER/NAME), as one commit.

    The repository, and the branch `revision`, are made where they are not there. `endpoint` is the address of another
    hub. `agree` gets what is going to be sent (`print(push.lines())`), and raises where that is not wanted. Returns the
    commit's address. Raises ModelError where the output is not as certified, InputError where the hub refuses.
    """
    ready = prepare_push(Path(out), repo, private=private, revision=revision, endpoint=endpoint)
    wrong = [finding.detail for finding in check(out, watch=watch).findings if finding.good is False]
    if wrong:
        fix = "Nothing was uploaded: quantize it again"
        raise ModelError(f"not sound: {wrong[0].removeprefix(f'{out}: ')}", where=str(out), fix=fix)
    if agree is not None:
        agree(ready)
    return ready.send()


def _prepare(kind: Kind, threads: int | None) -> list[str]:
    """Load the libraries, and set the number of torch's threads: no more than processors; a note where it is fewer."""
    if threads is not None and not 1 <= threads <= THREADS:
        raise RecipeError(f"{threads} threads", where="--threads", fix=f"Choose 1 to {THREADS}")
    kind.load()
    if threads is None:
        return []
    import torch

    most = os.cpu_count() or 1
    torch.set_num_threads(min(threads, most))
    return [f"{most} threads instead of {threads}: this machine has {most} processors"] if threads > most else []


THREADS = 1024
"""Threads that may be asked for; a machine uses as many as it has processors."""


class _Watcher:
    """Passes events on to a function, or draws a bar with them."""

    def __init__(self, watch: Watch) -> None:
        self._function = watch if callable(watch) else None
        self._draw = sys.stderr.isatty() or _in_notebook() if watch is None else watch is True
        self._bar: Any = None
        self._phase = ""

    def __call__(self, event: Event) -> None:
        if self._function is not None:
            self._function(event)
        elif self._draw and isinstance(event, Progress):
            self._show(event)

    def _show(self, event: Progress) -> None:
        from tqdm.std import tqdm  # type: ignore[import-untyped]

        if event.phase != self._phase:
            self.close()
            self._phase = event.phase
            form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
            self._bar = tqdm(total=1.0, desc=event.phase, bar_format=form, disable=False)
        self._bar.n = event.done / max(event.total, 1)
        self._bar.refresh()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _in_notebook() -> bool:
    """Whether this runs in a notebook's kernel."""
    shell = sys.modules.get("IPython")
    return shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"
