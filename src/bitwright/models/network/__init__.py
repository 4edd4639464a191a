"""ONNX networks: their layers, where integers flow, walking samples through them, and how they are judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bitwright.errors import RecipeError
from bitwright.files import hub, sidecars
from bitwright.models.kind import Fact, Kind, Words
from bitwright.models.network import facts
from bitwright.models.running import Asked, Gauge, Runner, Task
from bitwright.recipe import Recipe
from bitwright.words import milliseconds, significant

if TYPE_CHECKING:
    from bitwright.events import Event


class Networks(Kind):
    """Files that end in .onnx."""

    name = "network"
    title = "ONNX networks"
    words = Words(
        "network", "layer", "layers", "data", "sample", "points of accuracy",
        "Quality was not measured", "bitwright quantize FLOAT.onnx --calib DATA -o OUT.onnx",
    )  # fmt: skip
    ending = ".onnx"
    holds = "graph"
    library = "onnx"
    gauges = (
        Gauge("sample", "one sample", False, lambda value: f"in {milliseconds(1000 * value)}"),
        Gauge("samples", "throughput", True, lambda value: f"{significant(value)} samples per second"),
    )
    devices = ("cpu",)
    scopes = frozenset({"matrix", "model"})
    shows = frozenset({"nothing", "moments", "samples"})
    tables = ("data", "network", "budget")
    options: ClassVar[Mapping[str, str]] = {
        "calib": "data.source",
        "heldout": "data.heldout",
        "activations": "network.activations",
        "bind": "network.bind",
        "size": "budget.size",
        "bpw": "budget.bpw",
        "max_kl": "budget.kl",
    }
    spending: ClassVar[Mapping[str, Mapping[str, Any]]] = {"network": {"storage": "int4"}}
    layer: ClassVar[Mapping[str, Any]] = {
        "format": "int8", "group": "channel", "method": "descent", "options": {"damping": 0.001, "sweeps": 4}
    }  # fmt: skip

    def load(self) -> None:
        import torch  # noqa: F401

    def claims(self, path: Path) -> bool:
        return path.suffix.lower() == ".onnx"

    def lies_at(self, path: Path) -> bool:
        return self.claims(path) and path.is_file()

    def size(self, path: Path) -> int:
        beside = path.with_name(f"{path.name}.data")
        return path.stat().st_size + (beside.stat().st_size if beside.exists() else 0)

    def open(self, path: Path, recipe: Recipe, device: str = "cpu") -> Any:
        from bitwright.models.network.model import NetworkModel

        return NetworkModel(path, recipe)

    def output(self, recipe: Recipe, out: Path | None = None) -> str:
        return "nbits" if recipe.network.activations == "none" else "qdq"

    def has_data(self, recipe: Recipe) -> bool:
        return recipe.data.source is not None

    def beside(self, source: Path, ending: str) -> Path:
        name = f"{source.stem}-int.onnx"
        return Path(name) if hub.origin(source) else source.with_name(name)

    def certificate(self, out: Path) -> Path:
        return sidecars.beside(out, sidecars.CERTIFICATE)

    def card(self, out: Path) -> Path:
        return sidecars.beside(out, sidecars.CARD)

    def source_card(self, source: Path) -> Path:
        """Its own; else that of its folder, which any project has: it is a model card where it has metadata."""
        own, folder = self.card(source), hub.folder_of(source) / sidecars.CARD
        if own.is_file() or not folder.is_file():
            return own
        with folder.open("rb") as file:
            return folder if file.read(3) == b"---" else own

    def shelved(self, out: Path) -> dict[str, Path]:
        files = [out, out.with_name(f"{out.name}.data")]
        return {path.name: path for path in files if path.is_file()} | sidecars.shelved(out)

    def partial(self, out: Path) -> Path:
        return out.with_name(f"{out.stem}.partial")

    def require_name(self, out: Path, ending: str) -> None:
        if not self.claims(out):
            raise RecipeError("the output of an ONNX network is a file", where=str(out), fix="Give -o NAME.onnx")

    def check(self, path: Path, against: Path | None) -> Iterator[Event]:
        from bitwright.models.network.check import check

        return check(path, against)

    def compare(self, a: Path, b: Path, heldout: str, recipe: Recipe) -> Iterator[Event]:
        from bitwright.models.network.verdict import compare_on

        return compare_on(a, b, heldout, recipe)

    def task(self, path: Path, asked: Asked, folder: Path) -> Task:
        from bitwright.models.network.running import task_of

        return task_of(path, asked, folder)

    def runner(self, path: Path, given: Mapping[str, Any]) -> Runner:
        from bitwright.models.network.runner import SessionRunner

        return SessionRunner(path, given)

    def measures(self, verdict: Mapping[str, Any]) -> list[Fact]:
        return facts.measures(verdict)

    def readers(self, certificate: Mapping[str, Any]) -> list[str]:
        return facts.readers(certificate)

    def sample(self, verdict: Mapping[str, Any]) -> str:
        return facts.row_name(verdict)

    def baseless(self, verdict: Mapping[str, Any]) -> str | None:
        return facts.baseless(verdict)

    def describe(self, part: Mapping[str, Any]) -> list[str]:
        return facts.describe(part)

    def activations(self, certificate: Mapping[str, Any]) -> str:
        return facts.activations(certificate)


KIND = Networks()
