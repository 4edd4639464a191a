"""An imatrix of our calibration, which llama.cpp's quantizer reads."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from pathlib import Path

from bitwright import machine
from bitwright.engine import plan as planning
from bitwright.engine.journal import Journal
from bitwright.engine.partial import hold, require_ours
from bitwright.errors import RecipeError
from bitwright.events import Event, Started
from bitwright.files.containers.gguf import imatrix
from bitwright.files.folder import sync
from bitwright.files.plain import require_new
from bitwright.recipe import Recipe


def write(
    source: Path, out: Path, recipe: Recipe, *, max_ram: int | None = None, device: str = "cpu"
) -> Generator[Event, None, imatrix.Imatrix]:
    """Run the recipe's calibration text through the float model at `source`, and write what it saw to `out`.

    The text is what `quantize` would calibrate on. The file appears whole or not at all. Raises what planning raises,
    DataError for text, ResourceError where memory does not hold the walk.
    """
    plan = planning.make(source, out, recipe, max_ram=max_ram, device=device, check_out=False)
    plan.model.kind.require_name(out, plan.container.ending)
    require_new(out)
    require_ours(plan)
    if Journal.begun(plan.partial):
        what = "holds the unfinished work of a quantization"
        raise RecipeError(what, where=str(plan.partial), fix="Finish it, remove it, or choose another -o")
    machine.require_memory(plan.estimate.needed, max_ram)
    machine.enforce(plan.ceiling)
    with hold(plan.partial):
        try:
            data = yield from plan.model.read_data(plan)
            yield Started("imatrix", f"{source} -> {out}")
            found: imatrix.Imatrix = yield from plan.model.importance(plan, data)
            written = plan.partial / out.name
            imatrix.write(written, found)
            sync([written])
            written.rename(out)
        finally:
            shutil.rmtree(plan.partial, ignore_errors=True)
    return found
