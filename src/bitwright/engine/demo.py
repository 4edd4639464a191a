"""The bundled demonstrations: a model that came with the package, and data this machine has or makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from bitwright.recipe import Recipe

Task = Literal["language", "vision", "speech"]
CONTENT = Path(__file__).parents[1] / "content"
NETWORKS = {"vision": "digits", "speech": "words"}
"""Folder of each task's network below `content`."""


def language(bits: int) -> tuple[Path, Recipe]:
    """The language model's folder, and a recipe that calibrates on this Python's own standard library."""
    raw = {"layer": {"format": f"int{bits}"}, "calibration": {"source": "stdlib", "heldout_windows": 32}}
    return CONTENT / "demo-model", Recipe.read(raw, "demo")


def network(task: str, folder: Path, layer: dict[str, Any]) -> tuple[Path, Recipe]:
    """The ONNX network of `task` and its recipe, with samples written below `folder`: scikit-learn's digits, or words
    spoken by our own synthesizer (other voices to calibrate than to judge)."""
    home = CONTENT / NETWORKS[task]
    if task == "vision":
        from bitwright.models.demos import digits

        parts = [digits.write(folder / f"{part}.npz", part) for part in ("calibration", "test")]
    else:
        from bitwright.models.demos import speaker, spoken

        parts = [folder / part for part in ("calibration", "test")]
        for part in ("calibration", "test"):
            speaker.write(folder / part, part, spoken.VOICES[part])
    raw = Recipe.load(home / "recipe.toml").model_dump(mode="python", exclude_unset=True)
    raw["layer"] = layer | raw.get("layer", {})
    raw["data"] |= {"source": str(parts[0]), "heldout": str(parts[1])}
    return home / "model.onnx", Recipe.read(raw, "demo")
