"""The bundled demonstrations: a model that came with the package, and data this machine has or makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from bitwright.engine.report.certificate import read
from bitwright.errors import ModelError, RecipeError, nearest
from bitwright.files.plain import hashes
from bitwright.recipe import Recipe

Part = Literal["calibration", "test"]
CONTENT = Path(__file__).parents[1] / "content"


def language(folder: Path | None, layer: dict[str, Any]) -> tuple[Path, Recipe]:
    """The language model's folder, and a recipe that calibrates on this Python's own standard library."""
    raw = {"layer": layer, "calibration": {"source": "stdlib", "heldout_windows": 32}}
    return CONTENT / "demo-model", Recipe.read(raw, "demo")


def vision(folder: Path | None, layer: dict[str, Any]) -> tuple[Path, Recipe]:
    """A network that reads digits, and scikit-learn's images of them."""
    from bitwright.models.demos import digits

    return _network("digits", folder, lambda place, part: digits.write(place.with_suffix(".npz"), part), layer)


def speech(folder: Path | None, layer: dict[str, Any]) -> tuple[Path, Recipe]:
    """A network that hears words, and words spoken by our own synthesizer: other voices to calibrate than to judge."""
    from bitwright.models.demos import speaker, spoken

    def write(place: Path, part: Part) -> Path:
        speaker.write(place, part, spoken.VOICES[part])
        return place

    return _network("words", folder, write, layer)


def detect(folder: Path | None, layer: dict[str, Any]) -> tuple[Path, Recipe]:
    """A network that finds digits, and scenes drawn with scikit-learn's images of them."""
    from bitwright.models.demos import scenes

    return _network("scenes", folder, lambda place, part: scenes.write(place, part, scenes.COUNTS[part]), layer)


def _network(
    name: str, folder: Path | None, write: Callable[[Path, Part], Path], layer: dict[str, Any]
) -> tuple[Path, Recipe]:
    home = CONTENT / name
    raw = Recipe.load(home / "recipe.toml").model_dump(mode="python", exclude_unset=True)
    raw["layer"] = layer | raw.get("layer", {})
    if folder is not None:
        raw["data"] |= {"source": _kept(folder, "calibration", write), "heldout": _kept(folder, "test", write)}
    return home / "model.onnx", Recipe.read(raw, "demo")


def _kept(folder: Path, part: Part, write: Callable[[Path, Part], Path]) -> str:
    """The samples of a part, written below `folder` whole or not at all: another run may read them already."""
    if not (found := [*folder.glob(f"{part}*")]):
        made = write(folder / f"new-{part}", part)
        found = [made.rename(folder / made.name.removeprefix("new-"))]
    return str(found[0])


def made(out: Path) -> bool:
    """Whether a demonstration wrote what is at `out`: its report, and a certificate of a bundled model."""
    bundled = {digest for task in TASKS.values() for digest in hashes(_weights(task(None, {})[0])).values()}
    found = []
    for path in out.glob("*certificate.json"):
        try:
            found.append(set(read(path)["source"]["sha256"].values()))
        except ModelError:
            return False
    return (out / "report.html").is_file() and bool(found) and all(digests <= bundled for digests in found)


def _weights(model: Path) -> list[Path]:
    return [model] if model.is_file() else sorted(model.glob("*.safetensors"))


TASKS: dict[str, Callable[[Path | None, dict[str, Any]], tuple[Path, Recipe]]] = {
    "language": language, "vision": vision, "speech": speech, "detect": detect
}  # fmt: skip
"""(folder for data, settings of layers) -> the model and its recipe, by task."""


def make(task: str, folder: Path | None, bits: int | None) -> tuple[Path, Recipe]:
    """The model of a task and its recipe; `bits` per weight, or what its kind of model has by default.

    Data are written below `folder`, unless they are there. Where it is None the recipe names none: a plan needs none.
    """
    if task not in TASKS:
        raise RecipeError(f"{task!r} is not a task", where="--task", fix=nearest(task, TASKS))
    return TASKS[task](folder, {} if bits is None else {"format": f"int{bits}"})
