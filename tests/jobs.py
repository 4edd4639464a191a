"""Jobs on tiny models of both kinds, for tests of the engine."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from bitwright.engine import plan as planning
from bitwright.engine.run import run
from bitwright.events import Event, Finished
from bitwright.models.model import Plan
from bitwright.models.network.graph import Graph
from bitwright.models.network.session import Session
from bitwright.recipe import Recipe
from tests import networks


def made(source: Path, out: Path, **recipe: Any) -> Plan:
    """The plan of a recipe given as tables."""
    return planning.make(source, out, Recipe.read(recipe, "test"))


def finish(plan: Plan) -> dict[str, Any]:
    """Run a plan to its end; the certificate."""
    event = list(run(plan))[-1]
    assert isinstance(event, Finished)
    return event.certificate


def stop_after(plan: Plan, wanted: int | Callable[[Event], bool]) -> list[Event]:
    """The events of a run that stops, as if its process had gone, after so many or after the first wanted one."""
    events: Iterator[Event] = run(plan)
    seen: list[Event] = []
    for event in events:
        seen.append(event)
        if wanted(event) if callable(wanted) else len(seen) >= wanted:
            break
    events.close()  # type: ignore[attr-defined]
    return seen


def network(
    kind: str | Callable[[], onnx.ModelProto], folder: Path, samples: int = 24, labels: bool = False
) -> tuple[Path, Path]:
    """A tiny network's file, and random samples for it; labels are the float network's own answers."""
    model = networks.KINDS[kind]() if isinstance(kind, str) else kind()
    path, data = folder / f"{kind if isinstance(kind, str) else kind.__name__}.onnx", folder / "samples.npz"
    onnx.save(model, path)
    rng = np.random.default_rng(3)
    arrays: dict[str, Any] = {}
    for name, (dtype, shape) in Graph.open(path).inputs.items():
        size = (samples, *(8 if n is None else n for n in shape[1:]))
        arrays[name] = rng.normal(size=size).astype(dtype) if dtype == "float32" else rng.integers(0, 8, size, dtype)
    if labels:
        answer = next(iter(Session(path).run(arrays).values()))
        arrays["labels"] = answer.reshape(samples, -1).argmax(axis=1)
    np.savez(data, **arrays)
    return path, data


def text(folder: Path) -> Path:
    """A file of text that no model has learned."""
    path = folder / "some.txt"
    path.write_text(inspect.getsource(argparse)[:60_000], "utf-8")
    return path


def words(text: Path) -> dict[str, Any]:
    """The recipe's table for little of a text."""
    return {"source": str(text), "windows": 4, "length": 32, "heldout_windows": 2}
