"""What a network does when it is run: it answers one sample, or the smallest batch that it takes, over and over."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bitwright.errors import RecipeError
from bitwright.files.onnx import read
from bitwright.models.network.axes import batch_axes
from bitwright.models.network.graph import inputs_of
from bitwright.models.network.prepare import fed
from bitwright.models.network.verdict import samples_for
from bitwright.models.running import Asked, Task
from bitwright.models.samples.preprocess import size_of
from bitwright.recipe import Recipe


def task_of(path: Path, asked: Asked, folder: Path) -> Task:
    """The task of the network at `path`; what it is fed goes to `folder`.

    Raises what opening the file or the samples raises, and RecipeError for what networks are not asked.
    """
    for name, value in (("--prompt", asked.prompt), ("--tokens", asked.tokens)):
        if value is not None:
            raise RecipeError("is for language models", where=name, fix="Give --samples FILE.npz, or nothing")
    model = read(path)
    inputs = inputs_of(model)
    notes: tuple[str, ...] = ()
    if asked.samples is None:
        axes = batch_axes(fed(model.graph), {}, str(path))
        feeds = {name: _zeros(path, name, *facts, axes[name]) for name, facts in inputs.items()}
        count = size_of(feeds, axes)
        shapes = ", ".join(f"{name} {list(feed.shape)}" for name, feed in feeds.items())
        notes = (f"no samples given: zeros of the inputs' shapes, {shapes}",)
    else:
        feeds, count = samples_for(path, path, asked.samples, Recipe()).first()
    file = folder / "feeds.npz"
    np.savez(file, *feeds.values())
    given = {"feeds": str(file), "names": list(feeds), "count": count, "threads": asked.threads}
    return Task(path, given, {f"input {name!r}": facts for name, facts in inputs.items()}, notes=notes)


def _zeros(path: Path, name: str, dtype: str, shape: tuple[int | None, ...], axis: int | None) -> np.ndarray:  # type: ignore[type-arg]
    """Zeros for one input, of one sample where that is open; RecipeError where any other axis is."""
    sizes = [1 if size is None and i == axis else size for i, size in enumerate(shape)]
    if None in sizes:
        what = f"input {name!r} has an open dimension: zeros of which size is not known"
        raise RecipeError(what, where=str(path), fix="Give --samples FILE.npz")
    return np.zeros([size or 0 for size in sizes], dtype)
