"""A method, a container and a format are added from outside: all of Bitwright takes them, and no file changes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from shutil import copy
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import bitwright as bw
from bitwright import methods
from bitwright.cli import app
from bitwright.core import formats
from bitwright.core.format import Format
from bitwright.core.formats import Family
from bitwright.core.grid import Grid
from bitwright.core.qtensor import QTensor
from bitwright.errors import RecipeError, TensorError
from bitwright.files import containers
from bitwright.files.container import Place, Stored, TensorContainer
from bitwright.files.held import Held, Module
from bitwright.files.quantized import QuantizedCheckpoint
from bitwright.files.safetensors import Spec
from bitwright.methods import Method, rtn
from bitwright.recipe import Recipe
from bitwright.studio.workbench.choices import choices
from tests import tiny

FIFTHS = Grid("fifths", (-1.0, -0.6, -0.2, 0.0, 0.2, 0.6, 1.0))
TEXT = {"calib": "stdlib", "windows": 4, "length": 32, "heldout_windows": 2}


class ToyContainer(TensorContainer):
    """A byte a code and a float a scale, one format a folder."""

    name, title = "toy-box", "A test's container"

    def require(self, format: Format, activations: str = "none") -> None:
        if format.name != "fifths" or activations != "none":
            raise RecipeError(f"toy-box holds fifths, not {format.name}", where="format")

    def specs(self, format: Format, place: Place) -> list[Spec]:
        groups = format.block_count(1, place.columns)
        return [
            Spec(f"{place.module}.codes", torch.uint8, (place.rows, place.columns)),
            Spec(f"{place.module}.scales", torch.float32, (place.rows, groups)),
        ]

    def pack(self, q: QTensor, start: int, place: Place) -> list[Stored]:
        return [Stored(f"{place.module}.codes", q.codes, start), Stored(f"{place.module}.scales", q.scale, start)]

    def unpack(self, stored: Mapping[str, torch.Tensor], format: Format, place: Place) -> torch.Tensor:
        return QTensor(format, stored[f"{place.module}.codes"], stored[f"{place.module}.scales"]).decode()

    def config(self, modules: Sequence[Module]) -> dict[str, Any]:
        (format,) = {module.held.format for module in modules if module.held}
        return {"quantization_config": {"quant_method": self.name, "group": format.block}}

    def claims(self, config: Mapping[str, Any]) -> bool:
        return config.get("quantization_config", {}).get("quant_method") == self.name

    def open(self, folder: Path, config: Mapping[str, Any]) -> QuantizedCheckpoint:
        return ToyReader(folder, config["quantization_config"]["group"])

    def decoders(self) -> dict[str, str]:
        return {"toy decoder": "7"}

    def runtimes(self, modules: Sequence[Module], unpack: bool = False) -> list[str]:
        return ["the toy runtime"]


class ToyReader(QuantizedCheckpoint):
    library = "the toy decoder"

    def __init__(self, folder: Path, group: int) -> None:
        super().__init__(folder)
        self.stored, self.quantized = dict(self.tensors), {}
        for name in [name for name in self.stored if name.endswith(".codes")]:
            module = name.removesuffix(".codes")
            codes, _ = self.tensors.pop(name), self.tensors.pop(f"{module}.scales")
            weight = f"{module}.weight"
            size = 4 * codes.count
            self.tensors[weight] = replace(codes, name=weight, dtype=torch.float32, size=size, offset=-1)
            self.quantized[weight] = Held(formats.named("fifths", group=group, scale="bf16"))

    def step(self, name: str) -> int:
        return 1

    def parts(self, name: str, start: int = 0, stop: int | None = None) -> dict[str, torch.Tensor]:
        module = name.removesuffix(".weight")
        return {part: self.read_entry(self.stored[f"{module}.{part}"], start, stop) for part in ("codes", "scales")}

    def qtensor(self, name: str, start: int = 0, stop: int | None = None) -> QTensor:
        parts = self.parts(name, start, stop)
        return QTensor(self.quantized[name].format, parts["codes"], parts["scales"])

    def by_library(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        codes, scales = (part.numpy() for part in self.parts(name, start, stop).values())
        values = np.array([-1.0, -0.6, -0.2, 0.0, 0.2, 0.6, 1.0], np.float32)[codes]
        return torch.from_numpy(values * scales.repeat(codes.shape[1] // scales.shape[1], axis=1))


class Toy:
    """What is added, and the shapes that the method saw."""

    def __init__(self) -> None:
        self.solved: list[tuple[int, ...]] = []
        self.method = Method("toy", "A test's method", "a test", self._solve)
        self.container = ToyContainer()
        self.family = Family({"fifths": "a test's format"}, lambda name, asked: Format(name, FIFTHS, asked.levels()))

    def _solve(self, w: Any, format: Format, seen: Any, options: Any) -> QTensor:
        self.solved.append(tuple(w.shape))
        return rtn.quantize(w, format)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make("llama", tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def toy() -> Iterator[Toy]:
    found = Toy()
    with ExitStack() as added:
        added.enter_context(methods.registry.adding(found.method))
        added.enter_context(containers.registry.adding(found.container))
        added.enter_context(formats.adding(found.family))
        yield found


def run(*words: Any, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.stderr if code else result.stdout


def test_all_of_the_library_takes_them(toy: Toy, llama: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"format": "fifths", "group": 32, "method": "toy", "output": "toy-box", **TEXT}
    planned = bw.plan(llama, tmp_path / "out", **options)
    assert planned.summary["container"] == "toy-box"
    assert {(row["format"], row["method"]) for row in planned.summary["quantized"]} == {("fifths g32", "toy")}
    assert "loads in: the toy runtime" in str(planned)
    assert not toy.solved

    result = bw.quantize(llama, tmp_path / "out", **options)
    assert len(toy.solved) == len(result.rows) == 14
    assert {(row["format"], row["method"]) for row in result.rows} == {("fifths g32", "toy")}
    assert result.certificate["container"] == "toy-box"
    assert result.certificate["decoder"] == {"toy decoder": "7"}
    assert result.certificate["loaded_by_transformers"] == {"checked": False, "why": "no runtime here reads toy-box"}
    assert result.verdict["tokens"] > 0

    checked = bw.check(tmp_path / "out", llama)
    assert checked.sound, str(checked)
    assert "14 matrices decode alike in two decoders" in str(checked)
    assert {row.format for row in checked.rows} == {"fifths g32"}
    measured = bw.measure(llama, tmp_path / "out", windows=2, length=32)
    assert measured.summary["kl"] > 0
    report = bw.report(tmp_path / "out").markdown
    for words in ("fifths g32 by toy", "Decoded by toy decoder 7", "Not loaded: no runtime here reads toy-box"):
        assert words in report


def test_the_command_line_takes_them(toy: Toy, llama: Path, tmp_path: Path) -> None:
    words = ["--format", "fifths", "--group", 32, "--method", "toy", "--to", "toy-box"]
    words += ["--calib", "stdlib", "--windows", 4, "--length", 32, "--heldout-windows", 2]
    out = tmp_path / "out"
    assert "14 matrices as fifths g32 by toy" in run("plan", llama, *words[:-2])
    assert "Not loaded: no runtime here reads toy-box" in run("quantize", llama, "-o", out, *words)
    assert run("check", out).endswith("sound\n")
    assert "fifths g32" in run("measure", llama, out, "--windows", 2, "--length", 32, "--weights")
    assert "by toy" in run("report", out)
    assert len(toy.solved) == 14
    for what, entry in (("methods", "toy  "), ("formats", "fifths  "), ("containers", "toy-box  ")):
        assert f"\n{entry}" in run("list", what)


def test_the_workbench_offers_them(toy: Toy) -> None:
    offered = choices()["language"]
    for what, name in (("methods", "toy"), ("formats", "fifths"), ("containers", "toy-box")):
        assert name in {each["name"] for each in offered[what]}
    (fit,) = [fit for fit in offered["fits"] if fit["container"] == "toy-box"]
    assert fit["format"] == "fifths" and "toy" in fit["methods"]


def test_one_file_in_its_folder_is_all_it_takes(llama: Path, tmp_path: Path) -> None:
    """The files of the example package as files of the house: found, listed in the help, and used."""
    example = Path(__file__).parent / "plugin" / "bitwright_example"
    files = {"methods": ("method", "clipped"), "files.containers": ("container", "plain_bytes"),
             "core.formats": ("format", "powers")}  # fmt: skip
    code = ["import importlib", "def add(package, folder): importlib.import_module(package).__path__.append(folder)"]
    for package, (source, name) in files.items():
        (tmp_path / package).mkdir()
        copy(example / f"{source}.py", tmp_path / package / f"{name}.py")
        code.append(f"add('bitwright.{package}', {str(tmp_path / package)!r})")
    code += ["import sys", "from bitwright.cli import app", "app(sys.argv[1:])"]

    def told(*words: Any) -> str:
        command = [sys.executable, "-c", "\n".join(code), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    text = told("quantize", "--help")
    assert "clipped" in text and "plain-bytes" in text
    choice = ("--format", "powers3", "--group", 32, "--method", "clipped", "--to", "plain-bytes")
    assert "14 matrices as powers3 g32 by clipped" in told("plan", llama, *choice)


def test_a_damaged_folder_of_theirs_is_found(toy: Toy, llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    bw.quantize(llama, out, format="fifths", group=32, method="toy", output="toy-box", **TEXT)
    weights = out / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    assert not bw.check(out).sound


def test_what_they_do_not_take_is_said(toy: Toy, llama: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="toy-box holds fifths, not int4"):
        bw.plan(llama, tmp_path / "out", output="toy-box")
    with pytest.raises(RecipeError, match="no stable packing for fifths"):
        bw.plan(llama, tmp_path / "out", format="fifths")


def test_nothing_is_left_behind(llama: Path, tmp_path: Path) -> None:
    assert "toy" not in methods.registry.names()
    assert "toy-box" not in containers.registry.names()
    assert "fifths" not in formats.names()


def test_a_name_that_is_taken_is_refused(toy: Toy) -> None:
    for name in ("toy", "rtn"):
        with pytest.raises(RecipeError, match=f"there is a method called '{name}' already"):
            methods.registry.add(Method(name, "", "", toy.method.solve))
    with pytest.raises(RecipeError, match="there is a container called 'toy-box' already"):
        containers.registry.add(ToyContainer())
    with pytest.raises(ValueError, match="a format called int4 exists"):
        formats.register(Family({"int4": "another"}, toy.family.make))


UNKNOWN = [
    ({"method": "descant"}, ["--method", "descant"], "no method is called 'descant'. Did you mean descent"),
    ({"output": "toy-box"}, ["--to", "toy-box"], "no container is called 'toy-box'. "),
    ({"format": "fifths"}, ["--format", "fifths"], "no format is called 'fifths'. "),
]


@pytest.mark.parametrize(("options", "words", "told"), UNKNOWN)
def test_an_unknown_name_is_an_error_and_never_another(
    options: dict[str, Any], words: list[str], told: str, llama: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(RecipeError) as error:
        bw.quantize(llama, out, **options)
    assert told in str(error.value)
    ((key, value),) = options.items()
    recipe = {"output": value} if key == "output" else {"layer": {key: value}}
    with pytest.raises(RecipeError) as error:
        bw.plan(llama, out, recipe=recipe)
    assert told in str(error.value)
    for command in (["plan", llama], ["quantize", llama, "-o", out]):
        assert told in run(*command, *words, code=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("key", "value"), [("method", "descant"), ("format", "fifths")])
def test_a_rule_with_an_unknown_name_is_an_error(key: str, value: str, llama: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=f"no {key} is called '{value}'"):
        bw.plan(llama, tmp_path / "out", recipe={"layer": {"group": 32}, "rules": [{"match": "*q_proj", key: value}]})


def wrong_rows(w: Any, format: Format, *_: Any) -> QTensor:
    return rtn.quantize(w[:-1], format)


def wrong_format(w: Any, format: Format, *_: Any) -> QTensor:
    return rtn.quantize(w, formats.named("int8", group=format.block))


def wrong_codes(w: Any, format: Format, *_: Any) -> QTensor:
    q = rtn.quantize(w, format)
    return replace(q, codes=q.codes + 16)


def wide_codes(w: Any, format: Format, *_: Any) -> QTensor:
    q = rtn.quantize(w, format)
    return replace(q, codes=q.codes.long())


def few_scales(w: Any, format: Format, *_: Any) -> QTensor:
    q = rtn.quantize(w, format)
    return replace(q, scale=q.scale[:, :1])


def endless_scales(w: Any, format: Format, *_: Any) -> QTensor:
    q = rtn.quantize(w, format)
    return replace(q, scale=q.scale / 0)


def no_answer(*_: Any) -> None:
    return None


NONSENSE = [
    (wrong_rows, r"codes of shape \[63, 128\] for a matrix of shape \[64, 128\]"),
    (wrong_format, "format int8 instead of int4"),
    (wrong_codes, "codes that are not 4-bit numbers in uint8"),
    (wide_codes, "codes that are not 4-bit numbers in uint8"),
    (few_scales, "scales that are not one finite number for each of 256 blocks"),
    (endless_scales, "scales that are not one finite number for each of 256 blocks"),
    (no_answer, "a NoneType, not a QTensor"),
]


@pytest.mark.parametrize(("solve", "told"), NONSENSE, ids=lambda value: getattr(value, "__name__", ""))
def test_a_method_that_answers_nonsense_leaves_no_file(solve: Any, told: str, llama: Path, tmp_path: Path) -> None:
    with (
        methods.registry.adding(Method("nonsense", "", "", solve)),
        pytest.raises(TensorError, match=f"method nonsense returned {told}. Choose another --method") as error,
    ):
        bw.quantize(llama, tmp_path / "out", method="nonsense", group=32)
    assert error.value.where is not None and error.value.where.endswith(".weight")
    assert not (tmp_path / "out").exists()


def test_a_method_that_needs_what_a_matrix_may_lack_names_another(toy: Toy) -> None:
    with pytest.raises(ValueError, match="method picky needs moments, and names no fallback"):
        Method("picky", "", "", toy.method.solve, needs="moments")


def test_a_recipe_names_the_method_that_was_added(toy: Toy) -> None:
    recipe = Recipe.loads('[layer]\nmethod = "toy"\nformat = "fifths"\n')
    assert Recipe.loads(recipe.dumps()) == recipe
    with pytest.raises(RecipeError, match="Leave it out: the method has no options"):
        Recipe.loads('[layer]\nmethod = "toy"\n[layer.options]\ndamping = 0.1\n')
