"""Models: what is compressed. A kind of model is a folder here that provides `KIND`; `open` finds the right one.

model = models.open("model.onnx")
model.kind.name, [part.name for part in model.parts(Recipe())]
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bitwright.errors import InputError, ModelError, RecipeError
from bitwright.files import hub
from bitwright.models.kind import Kind
from bitwright.recipe import Recipe
from bitwright.registry import Registry

if TYPE_CHECKING:
    from bitwright.models.model import Model

kinds: Registry[Kind] = Registry(
    Kind,
    "bitwright.models",
    "KIND",
    besides=(
        *("costs", "demos", "effort", "histogram", "ladder", "model", "precision", "recovery", "running"),
        *("samples", "stage", "tasks"),
    ),
)

__all__ = ["Kind", "find", "kind_at", "kind_of", "kinds", "open", "require_device", "require_same_kind"]


def kind_of(path: Path) -> Kind:
    """The kind of the model at `path`, by its name and kind of file; ModelError where no kind claims it."""
    for kind in kinds.all():
        if kind.claims(path):
            return kind
    raise ModelError(
        "a file, not a model", where=str(path), fix=f"Give an .onnx file, or the model's folder, {path.parent}"
    )


def kind_at(path: Path) -> Kind | None:
    """The kind of the model that lies at `path`, by the names of files alone; None where none does."""
    return next((kind for kind in kinds.all() if kind.lies_at(path)), None)


def find(model: str | Path, tell: Callable[[str], None] = lambda line: None) -> Path:
    """The path a MODEL argument means; `hub:OWNER/NAME@REVISION` downloads it, and nothing else touches the network.

    `tell` hears beforehand what is downloaded, and how much. Raises InputError where it cannot be had.
    """
    text = str(model)
    if not text.startswith(hub.PREFIX):
        return Path(model)
    from bitwright.files.hub.download import download

    return download(text, tell)


def open(model: str | Path, recipe: Recipe | None = None, *, device: str = "cpu") -> Model:
    """The float model at a path, or of the hub, understood. Raises ModelError, FileError or TensorError."""
    path = find(model)
    kind = kind_of(path)
    require_device(kind, device)
    opened: Model = kind.open(path, recipe or Recipe(), device)
    return opened


def require_same_kind(a: Path, b: Path) -> Kind:
    """The kind of two models; InputError where they are of different kinds."""
    kind, other = kind_of(a), kind_of(b)
    if kind is not other:
        what = f"cannot be compared with {a}: {kind.title} and {other.title} are different things"
        raise InputError(what, where=str(b), fix="Give two models of one kind")
    return kind


def require_device(kind: Kind, device: str) -> None:
    """Raise RecipeError for a device that is not there, or that models of this kind are not worked on."""
    known = {name for each in kinds.all() for name in each.devices}
    if device not in known:
        fix = f"Use --device {' or '.join(sorted(known))}"
        raise RecipeError(f"no device is called {device!r}", where="--device", fix=fix)
    if device not in kind.devices:
        what = f"{kind.title} are quantized on the {' or '.join(kind.devices).upper()}"
        raise RecipeError(what, where="--device", fix="Leave it out")
    if device != "cpu":
        import torch

        if not torch.cuda.is_available():
            raise RecipeError("no GPU is available", where="--device", fix="Use --device cpu")
