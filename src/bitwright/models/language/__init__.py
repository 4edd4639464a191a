"""Language models: any decoder of transformers, block by block, and the text it is calibrated and judged on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bitwright import libraries
from bitwright.errors import RecipeError
from bitwright.files import gguf, gguf_shards, hub, sidecars
from bitwright.models.kind import Fact, Kind, Words
from bitwright.models.language import facts
from bitwright.models.language.runtimes import GAUGES, runtime_for
from bitwright.models.running import Asked, Runner, Task
from bitwright.recipe import Recipe
from bitwright.stages import Distil, Prune, Settings

if TYPE_CHECKING:
    from bitwright.events import Event


class Language(Kind):
    """Folders with a config.json and safetensors files, and GGUF files."""

    name = "language"
    title = "language models"
    words = Words(
        "model", "matrix", "matrices", "text", "token", "percent of perplexity",
        "Quality on text was not measured", "bitwright measure FLOAT OUT --heldout FILE",
    )  # fmt: skip
    holds = "tensors"
    library, pipeline = "transformers", "text-generation"
    writes = True
    gauges = GAUGES
    scopes = frozenset({"matrix", "block", "model"})
    shows = frozenset({"nothing", "moments", "samples"})
    tables = (
        "calibration", "indivisible", "embedding", "kv_cache", "type", "imatrix", "budget", "tokenizer_pre", "untie",
        "max_float_percent", "max_shard_bytes", "copy_code",
    )  # fmt: skip
    options: ClassVar[Mapping[str, str]] = {
        "calib": "calibration.source",
        "windows": "calibration.windows",
        "length": "calibration.length",
        "heldout": "calibration.heldout",
        "heldout_windows": "calibration.heldout_windows",
        "activations": "layer.activations",
        "indivisible": "indivisible",
        "copy_code": "copy_code",
        "embedding": "embedding",
        "kv_cache": "kv_cache",
        "type": "type",
        "imatrix": "imatrix",
        "size": "budget.size",
        "bpw": "budget.bpw",
        "max_kl": "budget.kl",
        "max_shard_size": "max_shard_bytes",
    }

    def load(self) -> None:
        libraries.load()

    def claims(self, path: Path) -> bool:
        return gguf.is_gguf(path) if path.is_file() else path.suffix.lower() != ".onnx"

    def lies_at(self, path: Path) -> bool:
        if gguf.is_gguf(path):  # a later shard is a part of the model that the first one stands for
            return path.is_file() and not (gguf_shards.is_later(path) and gguf_shards.named_by(path)[0].is_file())
        return (path / "config.json").is_file() and any(path.glob("*.safetensors"))

    def size(self, path: Path) -> int:
        files = path.glob("*.safetensors") if path.is_dir() else gguf_shards.named_by(path)
        return sum(file.stat().st_size for file in files)

    def open(self, path: Path, recipe: Recipe, device: str = "cpu") -> Any:
        from bitwright.models.language.model import LanguageModel

        return LanguageModel(path, recipe, device)

    def stage(self, settings: Settings, source: Path, out: Path, ceiling: int | None, device: str) -> Any:
        if isinstance(settings, Prune):
            from bitwright.models.language.pruning.stage import Pruning

            return Pruning(self, source, out, settings, ceiling, device)
        if isinstance(settings, Distil):
            from bitwright.models.language.distillation.stage import Distilling

            return Distilling(self, source, out, settings, ceiling, device)
        return super().stage(settings, source, out, ceiling, device)

    def output(self, recipe: Recipe, out: Path | None = None) -> str:
        single = recipe.type is not None or (out is not None and gguf.is_gguf(out))
        return "gguf" if single else "compressed-tensors"

    def beside(self, source: Path, ending: str) -> Path:
        title = gguf_shards.stem_of(source) if gguf.is_gguf(source) else hub.title(source)
        return Path(f"{title}-small{ending}")

    def certificate(self, out: Path) -> Path:
        return _beside(out, sidecars.CERTIFICATE)

    def card(self, out: Path) -> Path:
        return _beside(out, sidecars.CARD)

    def source_card(self, source: Path) -> Path:
        return _beside(source, sidecars.CARD)

    def shelved(self, out: Path) -> dict[str, Path]:
        if gguf.is_gguf(out):
            return {path.name: path for path in gguf_shards.named_by(out)} | sidecars.shelved(out)
        return {name: out / name for name in sidecars.listed(out) if not sidecars.hidden(name)}

    def partial(self, out: Path) -> Path:
        return out.with_name(out.name + ".partial")

    def standing(self, out: Path) -> Path:
        if out.exists() or not gguf.is_gguf(out):
            return out
        return next((path for path in gguf_shards.lying(out) if not gguf_shards.is_later(path)), out)

    def require_name(self, out: Path, ending: str) -> None:
        if ending and out.suffix.lower() != ending:
            raise RecipeError("the output is a single file", where=str(out), fix=f"Give -o NAME{ending}")
        if not ending and (out.suffix.lower() == ".onnx" or gguf.is_gguf(out)):
            raise RecipeError("this output is a folder", where=str(out), fix="Give -o FOLDER, or another --to")
        if ending and gguf_shards.NAME.fullmatch(out.name):
            fix = f"Give -o {gguf_shards.stem_of(out)}{ending}: shards get their numbers by themselves"
            raise RecipeError("is the name of a shard", where=str(out), fix=fix)
        if ending and (there := gguf_shards.lying(out)) and not self.partial(out).exists():
            fix = "Choose another -o, or remove it"
            raise RecipeError("the output exists, in shards", where=str(there[0]), fix=fix)

    def check(self, path: Path, against: Path | None) -> Iterator[Event]:
        from bitwright.models.language.check import check

        return check(path, against)

    def compare(self, a: Path, b: Path, heldout: str, recipe: Recipe) -> Iterator[Event]:
        from bitwright.models.language.compare import compare_on

        c = recipe.calibration
        return compare_on(a, b, heldout, c.heldout_windows, c.length)

    def task(self, path: Path, asked: Asked, folder: Path) -> Task:
        from bitwright.models.language.running import task_of

        return task_of(path, asked)

    def runner(self, path: Path, given: Mapping[str, Any]) -> Runner:
        return runtime_for(path).runner(path, given["ids"], given["tokens"], given["threads"])

    def measures(self, verdict: Mapping[str, Any]) -> list[Fact]:
        return facts.measures(verdict)

    def readers(self, certificate: Mapping[str, Any]) -> list[str]:
        return facts.readers(certificate)

    def sample(self, verdict: Mapping[str, Any]) -> str:
        return "token"

    def baseless(self, verdict: Mapping[str, Any]) -> str | None:
        return facts.baseless(verdict)

    def cautions(self, certificate: Mapping[str, Any]) -> list[str]:
        return facts.cautions(certificate)

    def placed(self, part: Mapping[str, Any]) -> str:
        return facts.placed(part)

    def describe(self, part: Mapping[str, Any]) -> list[str]:
        return facts.describe(part)


def _beside(model: Path, name: str) -> Path:
    """Where what belongs to a model lies: in its folder, or beside its file under its name."""
    return sidecars.beside(model, name) if gguf.is_gguf(model) else model / name


KIND = Language()
