"""The bundled demonstrations: a model that came with the package, and data this machine has or makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bitwright.errors import RecipeError, nearest
from bitwright.recipe import Recipe

CONTENT = Path(__file__).parents[1] / "content"


def language(folder: Path, layer: dict[str, Any]) -> tuple[Path, Recipe]:
    """The language model's folder, and a recipe that calibrates on this Python's own standard library."""
    raw = {"layer": layer, "calibration": {"source": "stdlib", "heldout_windows": 32}}
    return CONTENT / "demo-model", Recipe.read(raw, "demo")


def vision(folder: Path, layer: dict[str, Any]) -> tuple[Path, Recipe]:
    """A network that reads digits, and scikit-learn's images of them written below `folder`."""
    from bitwright.models.demos import digits

    parts = [digits.write(folder / f"{part}.npz", part) for part in ("calibration", "test")]
    return _network("digits", parts, layer)


def speech(folder: Path, layer: dict[str, Any]) -> tuple[Path, Recipe]:
    """A network that hears words, and words spoken by our own synthesizer: other voices to calibrate than to judge."""
    from bitwright.models.demos import speaker, spoken

    parts = [folder / part for part in ("calibration", "test")]
    for part in ("calibration", "test"):
        speaker.write(folder / part, part, spoken.VOICES[part])
    return _network("words", parts, layer)


def _network(name: str, parts: list[Path], layer: dict[str, Any]) -> tuple[Path, Recipe]:
    home = CONTENT / name
    raw = Recipe.load(home / "recipe.toml").model_dump(mode="python", exclude_unset=True)
    raw["layer"] = layer | raw.get("layer", {})
    raw["data"] |= {"source": str(parts[0]), "heldout": str(parts[1])}
    return home / "model.onnx", Recipe.read(raw, "demo")


TASKS: dict[str, Callable[[Path, dict[str, Any]], tuple[Path, Recipe]]] = {
    "language": language, "vision": vision, "speech": speech
}  # fmt: skip
"""(folder for data, settings of layers) -> the model and its recipe, by task."""


def make(task: str, folder: Path, bits: int | None) -> tuple[Path, Recipe]:
    """The model of a task and its recipe; `bits` per weight, or what its kind of model has by default."""
    if task not in TASKS:
        raise RecipeError(f"{task!r} is not a task", where="--task", fix=nearest(task, TASKS))
    return TASKS[task](folder, {} if bits is None else {"format": f"int{bits}"})
