"""Whatever is wrong with an ONNX network, its samples or its options is said in one line, and nothing is left behind.

    bitwright: WHERE: cause. fix

Every case starts from the same small folder of networks and samples, damages one thing, and drives the real command.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from typer.testing import CliRunner

from bitwright import library
from bitwright.cli import app
from bitwright.errors import BitwrightError
from bitwright.models.network.session import Session
from tests import networks
from tests.models.samples import sources

Damage = Callable[[Path], object]
NAN, INF = float("nan"), float("inf")
PROCESS = [sys.executable, "-m", "bitwright.cli"]


# ---- networks and samples -------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """net.onnx takes images [batch, 3, 16, 16] to 10 classes, sound.onnx clips of 400 samples; data for both."""
    folder = tmp_path_factory.mktemp("base")
    rng = np.random.default_rng(0)
    for name, kind in (("net", "conv_bn_relu"), ("sound", "speech")):
        onnx.save(onnx.shape_inference.infer_shapes(networks.KINDS[kind]()), folder / f"{name}.onnx")
    x = rng.normal(size=(24, 3, 16, 16)).astype(np.float32)
    scores = next(iter(Session(folder / "net.onnx").run({"x": x}).values()))
    np.savez(folder / "data.npz", x=x, labels=scores.argmax(axis=1))
    for i in range(8):
        sources.save_image(folder / "images" / f"{i}.png", 16, 16, seed=i)
        sources.save_wav(folder / "sounds" / f"{i}.wav", sources.tone(pitch=0.01 * (i + 1)))
    done = run("quantize {tmp}/net.onnx -o {tmp}/int.onnx --calib {tmp}/data.npz --method rtn", folder)
    assert done.exit_code == 0, done.output
    return folder


def run(command: str, tmp: Path) -> Any:
    """Run a command line in this process, `{tmp}` standing for the case's folder."""
    return CliRunner().invoke(app, command.format(tmp=tmp).split())


def listing(folder: Path) -> list[str]:
    """All files and folders."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def nothing(tmp: Path) -> None:
    """All is as it should be."""


def change(edit: Callable[[onnx.ModelProto], object], name: str = "net.onnx") -> Damage:
    """Edit a network; no check is made of what comes out."""

    def damage(tmp: Path) -> None:
        model = onnx.load(tmp / name)
        edit(model)
        onnx.save(model, tmp / name)

    return damage


def write(name: str, data: bytes) -> Damage:
    """Replace a file, or add one."""
    return lambda tmp: (tmp / name).write_bytes(data)


def cut(name: str, share: float) -> Damage:
    """Leave only the beginning of a file."""
    return lambda tmp: os.truncate(tmp / name, int((tmp / name).stat().st_size * share))


def poke(value: float) -> Damage:
    """Set one weight of the first convolution, whose initializer is c0 [8, 3, 3, 3]."""

    def edit(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name == "c0")
        w = onnx.numpy_helper.to_array(tensor).copy()
        w[5, 1, 2, 0] = value
        tensor.CopyFrom(onnx.numpy_helper.from_array(w, "c0"))

    return change(edit)


def arrays(**changes: Callable[[Any], Any]) -> Damage:
    """Change arrays of data.npz; a new array where the name is new."""

    def damage(tmp: Path) -> None:
        found = dict(np.load(tmp / "data.npz"))
        np.savez(tmp / "data.npz", **found | {name: edit(found.get(name)) for name, edit in changes.items()})

    return damage


def put(x: Any, index: Any, value: float) -> Any:
    """`x` with one value changed."""
    x[index] = value
    return x


def folder(tmp: Path) -> None:
    """A folder in place of the network."""
    (tmp / "net.onnx").unlink()
    (tmp / "net.onnx").mkdir()


def external(tmp: Path) -> None:
    """Move the weights of the network to weights.bin, and lose that."""
    model = onnx.load(tmp / "net.onnx")
    onnx.save_model(model, tmp / "net.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp / "weights.bin").unlink()


def opset(version: int) -> Damage:
    """Say that the network is of another operator set."""
    return change(lambda model: model.opset_import.__getitem__(0).__setattr__("version", version))


def saved(build: Callable[[networks.Net], onnx.ModelProto]) -> Damage:
    """Put another network in place."""
    return lambda tmp: onnx.save(build(networks.Net()), tmp / "net.onnx")


def open_sides(model: onnx.ModelProto) -> None:
    """Height and width of the input become dynamic."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims[2].dim_param, dims[3].dim_param = "height", "width"


def logarithm(n: networks.Net) -> onnx.ModelProto:
    """The logarithm of what a convolution returns, which is NaN for about half of it, between two layers."""
    x = n.add("Log", n.conv("x", 3, 8))
    x = n.add("Relu", n.conv(n.add("Relu", n.conv(x, 8, 8)), 8, 8))
    return n.model(networks.IMAGE, [n.add("Flatten", n.add("GlobalAveragePool", n.conv(x, 8, 10)))])


def last_logarithm(n: networks.Net) -> onnx.ModelProto:
    """The same at the end, where nothing is quantized any more."""
    x = n.conv(n.add("Relu", n.conv("x", 3, 8)), 8, 10)
    return n.model(networks.IMAGE, [n.add("Log", n.add("Flatten", n.add("GlobalAveragePool", x)))])


@saved
def products(n: networks.Net) -> onnx.ModelProto:
    """Two matrix products on the rows of images, with a logarithm between them."""
    x = n.add("Log", n.add("MatMul", "x", n.weight(16, 32)))
    return n.model(networks.IMAGE, [n.add("MatMul", x, n.weight(32, 16))])


def wordless(n: networks.Net) -> onnx.ModelProto:
    """No layer at all."""
    return n.model(networks.IMAGE, [n.add("Flatten", n.add("Sigmoid", n.add("Relu", "x")))])


def unlabelled(tmp: Path) -> None:
    """Leave the labels out."""
    np.savez(tmp / "data.npz", x=np.load(tmp / "data.npz")["x"])


# ---- the cases ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bad:
    """What is damaged, the command, and what its one line must name; `recipe` is written to recipe.toml and used."""

    id: str
    damage: Damage
    says: tuple[str, ...]
    options: str = "--calib {tmp}/data.npz"
    command: str = "quantize {tmp}/net.onnx -o {tmp}/out.onnx --method rtn"
    code: int = 2
    recipe: str | None = None

    def make(self, tmp: Path, base: Path) -> str:
        """Fill the case's folder; the command line."""
        shutil.copytree(base, tmp, dirs_exist_ok=True)
        self.damage(tmp)
        if self.recipe is not None:
            (tmp / "recipe.toml").write_text(self.recipe)
        return f"{self.command} {self.options}" + (" --recipe {tmp}/recipe.toml" if self.recipe is not None else "")

    def require(self, tmp: Path, code: int, stdout: str, stderr: str) -> None:
        """The contract of every error."""
        assert "Traceback" not in stdout + stderr
        (line,) = stderr.splitlines()
        absent = [part for part in self.says if part.format(tmp=tmp) not in line]
        assert not absent, line
        head, _, rest = line.partition(": ")
        where, _, rest = rest.partition(": ")
        cause, _, fix = rest.partition(". ")
        assert head == "bitwright"
        assert where
        assert cause
        assert len(fix.split()) >= 2, f"no fix in: {line}"
        last = json.loads(stdout.splitlines()[-1])
        assert last["event"] == "error"
        assert f"bitwright: {last['text']}" == line
        assert code == self.code


IMAGES, SOUNDS = "--calib {tmp}/images", "--calib {tmp}/sounds"
SOUND = "quantize {tmp}/sound.onnx -o {tmp}/out.onnx --method rtn"
BARE = "quantize {tmp}/net.onnx -o {tmp}/out.onnx"

FILES = [
    Bad("absent", lambda tmp: (tmp / "net.onnx").unlink(), ("{tmp}/net.onnx", "No such file", "Check the path")),
    Bad("folder", folder, ("{tmp}/net.onnx", "folder")),
    Bad("empty", write("net.onnx", b""), ("{tmp}/net.onnx", "empty", "again")),
    Bad("text", write("net.onnx", b"# A network\n\nIt is not.\n"), ("{tmp}/net.onnx", "not an ONNX", "again")),
    Bad("zeros", write("net.onnx", b"\0" * 4096), ("{tmp}/net.onnx", "not an ONNX", "again")),
    Bad("safetensors", write("net.onnx", b"\x08\0\0\0\0\0\0\0{}      "), ("{tmp}/net.onnx", "not an ONNX", "again")),
    Bad("truncated", cut("net.onnx", 0.6), ("{tmp}/net.onnx", "truncated", "again")),
    Bad("opset-old", opset(6), ("{tmp}/net.onnx", "operator set 6", "opset 13 to")),
    Bad("opset-new", opset(99), ("{tmp}/net.onnx", "operator set 99", "opset 13 to")),
    Bad("opset-none", change(lambda m: m.ClearField("opset_import")), ("{tmp}/net.onnx", "no operator set", "opset")),
    Bad("external-missing", external, ("{tmp}/net.onnx", "weights.bin is missing", "Put weights.bin next to net.onnx")),
    Bad("nan-weight", poke(NAN), ("{tmp}/net.onnx", "c0", "nan", "[5, 1, 2, 0]", "1 of 216")),
    Bad("inf-weight", poke(-INF), ("{tmp}/net.onnx", "c0", "-inf", "[5, 1, 2, 0]")),
    Bad(
        "unknown-operator", change(lambda m: m.graph.node[3].__setattr__("op_type", "Convolve")),
        ("{tmp}/net.onnx", "Convolve", "Check the export"),
    ),
    Bad(
        "undefined-tensor", change(lambda m: m.graph.node[3].input.__setitem__(0, "ghost")),
        ("{tmp}/net.onnx", "'ghost'", "Check the export"),
    ),
    Bad(
        "already-quantized", nothing, ("{tmp}/int.onnx", "already quantized", "QuantizeLinear", "Give the float model"),
        command="quantize {tmp}/int.onnx -o {tmp}/out.onnx",
    ),
    Bad("no-layers", saved(wordless), ("{tmp}/net.onnx", "nothing would be quantized", "layers of constant weights")),
    Bad("dynamic", change(open_sides), ("{tmp}/net.onnx", "'height'", "axis 2", "--bind height=SIZE")),
]  # fmt: skip

FLOATS = '[network]\nactivations = "none"\n[data]\ntask = "none"\n'
NETWORKS = [
    Bad("nan-activations", saved(logarithm), ("t1", "values of Log", "NaN or infinite", "Repair the network")),
    Bad("nan-output", saved(last_logarithm), ("'t5'", "NaN or infinity", "Look at its weights")),
    Bad(
        "nan-weights-only", products, ("t1", "values of Log"), recipe=FLOATS, command=BARE + " --bits 8 --group 16",
    ),
    Bad(
        "indivisible-group", products, ("matmul0", "16 inputs", "groups of 32", "smaller --group"), recipe=FLOATS,
        command=BARE + " --bits 8 --group 32",
    ),
]  # fmt: skip

OPTIONS = [
    Bad("bind-nonsense", nothing, ("--bind", "'height:224'", "height=224"), "--bind height:224"),
    Bad("bind-zero", nothing, ("--bind", "'height=0'"), "--bind height=0"),
    Bad("bind-unknown", nothing, ("net.onnx", "'depth'", "It has: batch"), "--bind depth=3 --calib {tmp}/data.npz"),
    Bad("bind-twice", nothing, ("--bind", "batch is given twice"), "--bind batch=3 --bind batch=4"),
    Bad("threads", nothing, ("--threads", "99999999", "1 to 1024"), "--calib {tmp}/data.npz --threads 99999999"),
    Bad("calib-stdlib", nothing, ("stdlib", "text, for language models", ".npz"), "--calib stdlib"),
    Bad("no-calib", nothing, ("data.source", "no samples", ".npz"), ""),
    Bad("heldout-same", nothing, ("data.heldout", "the calibration samples", "Leave it out"),
        "--calib {tmp}/data.npz --heldout {tmp}/images/../data.npz"),
    Bad("group", nothing, ("conv0", "groups of 32", "--group channel"), "--calib {tmp}/data.npz --group 32"),
    Bad("bits-9", nothing, ("--bits", "9 bits", "Choose 1 to 8"), "--calib {tmp}/data.npz --bits 9"),
    Bad("bits-1", nothing, ("conv0", "int1", "int2 to int8"), "--calib {tmp}/data.npz --bits 1"),
    Bad("nf4", nothing, ("conv0", "nf4", "int2 to int8"), "--calib {tmp}/data.npz --format nf4"),
    Bad("asymmetric", nothing, ("conv0", "zero points", "symmetric"), "--calib {tmp}/data.npz --asymmetric"),
    Bad("fp8-activations", nothing, ("network.activations", "fp8"), "--calib {tmp}/data.npz --activations fp8"),
    Bad("method", nothing, ("layer.method", "'grail'"), "--calib {tmp}/data.npz --method grail", BARE),
    Bad("lloyd", nothing, ("conv0", "no codebook to fit", "Choose --method adaround, descent"),
        "--calib {tmp}/data.npz --method lloyd", BARE),
    Bad("windows", nothing, ("--windows", "language models only", "Leave it out for ONNX networks"), "--windows 4"),
    Bad("length", nothing, ("--length", "language models only", "Leave it out"), "--length 64"),
    Bad("heldout-windows", nothing, ("--heldout-windows", "language models only"), "--heldout-windows 4"),
    Bad("simulate", nothing, ("--simulate", "language models only", "Leave it out"), "--simulate"),
    Bad("indivisible", nothing, ("--indivisible", "language models only"), "--indivisible float"),
    Bad("cuda", nothing, ("--device", "ONNX networks", "CPU", "Leave it out"), "--calib {tmp}/data.npz --device cuda"),
    Bad("max-ram", nothing, ("--max-ram", "'lots'"), "--calib {tmp}/data.npz --max-ram lots"),
    Bad("max-drop-unlabelled", unlabelled, ("max_drop", "data.npz", "no labels", "Give labels"),
        "--calib {tmp}/data.npz --max-drop 1"),
    Bad("out-exists", write("out.onnx", b"precious"), ("{tmp}/out.onnx", "exists", "Choose another -o")),
    Bad("out-no-onnx", nothing, ("{tmp}/out", "is a file", "-o NAME.onnx"),
        command="quantize {tmp}/net.onnx -o {tmp}/out"),
    Bad("out-in-a-file", nothing, ("{tmp}/data.npz", "cannot be written", "Choose another -o"),
        command="quantize {tmp}/net.onnx -o {tmp}/data.npz/out.onnx", code=3),
    Bad("max-drop-nan", nothing, ("--max-drop", "or equal to 0", "--help"), "--calib {tmp}/data.npz --max-drop nan"),
    Bad("to-folder", nothing, ("output", "compressed-tensors", "nbits, qdq"), "--to compressed-tensors"),
    Bad("to-unknown", nothing, ("output", "'qqd'", "Did you mean qdq"), "--to qqd"),
    Bad("simulate-contradicts", nothing, ("--simulate", "--to", "Give one"), "--simulate --to qdq"),
    Bad("language-bind", nothing, ("--bind", "ONNX networks only", "Leave it out for language models"),
        "--bind a=1", "quantize {tmp}/images -o {tmp}/out"),
]  # fmt: skip

RECIPES = [
    Bad("network-key", nothing, ("network.observr", "unknown option", "Did you mean observer"),
        recipe='[network]\nobservr = "mse"\n'),
    Bad("data-key", nothing, ("data.bach", "unknown option", "Did you mean batch"), recipe="[data]\nbach = 8\n"),
    Bad("image-key", nothing, ("data.image.sise", "Did you mean size"), recipe="[data.image]\nsise = [8, 8]\n"),
    Bad("moved-max-drop", nothing, ("network.max_drop", "unknown option", "at the top"),
        recipe="[network]\nmax_drop = 1.0\n"),
    Bad("moved-training", nothing, ("network.training", "unknown option", "[layer.options]", 'method = "lsq"'),
        recipe="[network.training]\nepochs = 2\n"),
    Bad("method-options", nothing, ("layer.options.damping", "unknown option", "no options"),
        recipe='[layer]\nmethod = "rtn"\n[layer.options]\ndamping = 0.1\n', command=BARE),
    Bad("observer", nothing, ("network.observer", "'mes'", "Did you mean mse"), recipe='[network]\nobserver = "mes"\n'),
    Bad("bind-type", nothing, ("network.bind", "'big'"), recipe='[network.bind]\nbatch = "big"\n'),
    Bad("pattern", nothing, ("recipe: rules", "'convx*'", "matches no layer", "conv0"),
        recipe='[[rules]]\nmatch = "convx*"\nformat = "float"\n'),
    Bad("all-float", nothing, ("net.onnx", "nothing would be quantized"),
        recipe='[[rules]]\nmatch = "*"\nformat = "float"\n'),
    Bad("language-table", nothing, ("recipe.toml: calibration", "language models only", "Leave it out"),
        recipe="[calibration]\nwindows = 4\n"),
    Bad("run-time-activations", nothing, ("conv0", "activations at run time is for language models", "[network]"),
        recipe='[layer]\nactivations = "int8"\n'),
    Bad("network-table", nothing, ("recipe.toml: network", "ONNX networks only", "Leave it out for language models"),
        "", "quantize {tmp}/images -o {tmp}/out", recipe='[network]\ntarget = "arm"\n'),
    Bad("max-drop-weights-only", nothing, ("max_drop", "integer networks", "Leave it out"),
        "--max-drop 1", "quantize {tmp}/tokens.onnx -o {tmp}/out.onnx --bits 4 --group 16 --method rtn",
        recipe='[network]\nactivations = "none"\n'),
]  # fmt: skip


def tokens(tmp: Path) -> None:
    """A network of plain matrix products."""
    onnx.save(networks.KINDS["tokens"](), tmp / "tokens.onnx")


RECIPES[-1] = Bad(**{**vars(RECIPES[-1]), "damage": tokens})

SAMPLES = [
    Bad("calib-absent", nothing, ("{tmp}/data.npy", "no such file", "Did you mean data.npz"),
        "--calib {tmp}/data.npy"),
    Bad("calib-text", write("data.txt", b"a text"), ("{tmp}/data.txt", ".npz"), "--calib {tmp}/data.txt"),
    Bad("calib-empty-folder", lambda tmp: (tmp / "none").mkdir(), ("{tmp}/none", "no images or WAV"),
        "--calib {tmp}/none"),
    Bad("calib-damaged", cut("data.npz", 0.5), ("{tmp}/data.npz", "damaged", "again")),
    Bad("nan-npz", arrays(x=lambda x: put(x, (20, 2, 1, 0), NAN)),
        ("{tmp}/data.npz row 20", "'x'", "nan at [2, 1, 0]")),
    Bad("nan-heldout", lambda tmp: [shutil.copy(tmp / "data.npz", tmp / "held.npz"),
                                    arrays(x=lambda x: put(x, (3, 0, 0, 0), INF))(tmp)],
        ("{tmp}/data.npz row 3", "inf at [0, 0, 0]"), "--calib {tmp}/held.npz --heldout {tmp}/data.npz"),
    Bad("shape", arrays(x=lambda x: x[:, :, :8]), ("{tmp}/data.npz", "'x'", "[24, 3, 8, 16]")),
    Bad("dtype", arrays(x=lambda x: (x * 50).astype(np.uint8)), ("{tmp}/data.npz", "'x'", "uint8", "Convert")),
    Bad("names", arrays(y=lambda _: np.zeros(24, np.float32)), ("{tmp}/data.npz", "'y'", "inputs are 'x'")),
    Bad("lengths", arrays(labels=lambda y: y[:5]), ("{tmp}/data.npz", "labels [5]")),
    Bad("labels-outside", arrays(labels=lambda y: put(y, 20, 10)),
        ("{tmp}/data.npz", "label 10", "outside the 10 classes")),
    Bad("labels-below", arrays(labels=lambda y: put(y, 20, -1)), ("{tmp}/data.npz", "label -1")),
    Bad("labels-outside-declared", arrays(labels=lambda y: put(y, 20, 12)),
        ("{tmp}/data.npz", "label 12", "10 classes"), recipe=f"[data]\nclasses = {json.dumps(list('abcdefghij'))}\n"),
    Bad("image-size", lambda tmp: sources.save_image(tmp / "images" / "5.png", 16, 20),
        ("{tmp}/images/5.png", "16", "20", "data.image.fit"), IMAGES),
    Bad("image-mode", lambda tmp: sources.save_image(tmp / "images" / "5.png", 16, 16, "L"),
        ("{tmp}/images/5.png", "L", "RGB", "data.image.convert"), IMAGES),
    Bad("image-truncated", cut("images/5.png", 0.6), ("{tmp}/images/5.png", "damaged"), IMAGES),
    Bad("image-corrupt", write("images/5.png", b"not an image"), ("{tmp}/images/5.png",), IMAGES),
    Bad("image-empty", write("images/5.png", b""), ("{tmp}/images/5.png",), IMAGES),
    Bad("sound-silent", lambda tmp: sources.save_wav(tmp / "sounds" / "3.wav", np.zeros(400)),
        ("{tmp}/sounds/3.wav", "silence", "Remove it"), SOUNDS, SOUND),
    Bad("sound-empty", lambda tmp: sources.save_wav(tmp / "sounds" / "3.wav", []),
        ("{tmp}/sounds/3.wav", "no sound", "Remove it"), SOUNDS, SOUND),
    Bad("sound-nothing", write("sounds/3.wav", b""), ("{tmp}/sounds/3.wav",), SOUNDS, SOUND),
    Bad("sound-cut", cut("sounds/3.wav", 0.5), ("{tmp}/sounds/3.wav",), SOUNDS, SOUND),
    Bad("sound-rate", lambda tmp: sources.save_wav(tmp / "sounds" / "3.wav", sources.tone(), 16000),
        ("{tmp}/sounds/3.wav", "16,000 Hz", "8,000 Hz", "resample"), SOUNDS, SOUND,
        recipe="[data.audio]\nrate = 8000\n"),
    Bad("images-for-sound", nothing, ("data.source", "'x'", "four axes"), IMAGES, SOUND),
]  # fmt: skip

OTHERS = [
    Bad("plan-truncated", cut("net.onnx", 0.6), ("{tmp}/net.onnx", "truncated"), "", "plan {tmp}/net.onnx"),
    Bad("measure-no-samples", nothing, ("--heldout", "samples", "Give a folder"), "",
        "measure {tmp}/net.onnx {tmp}/int.onnx"),
    Bad("measure-absent", nothing, ("{tmp}/no.onnx", "No such file"), "--heldout {tmp}/data.npz",
        "measure {tmp}/net.onnx {tmp}/no.onnx"),
    Bad("measure-another", nothing, ("{tmp}/data.npz", "'x'"), "--heldout {tmp}/data.npz",
        "measure {tmp}/net.onnx {tmp}/sound.onnx"),
    Bad("check-text", write("int.onnx", b"text"), ("{tmp}/int.onnx", "not sound", "not an ONNX file"), "",
        "check {tmp}/int.onnx", 1),
    Bad("check-truncated", cut("int.onnx", 0.7), ("{tmp}/int.onnx", "not sound", "truncated"), "",
        "check {tmp}/int.onnx", 1),
    Bad("check-float", nothing, ("{tmp}/net.onnx", "not sound", "0 of 3"), "", "check {tmp}/net.onnx", 1),
    Bad("check-against-another", lambda tmp: tokens(tmp),
        ("{tmp}/tokens.onnx", "none of the quantized layers", "made from"),
        "--against {tmp}/tokens.onnx", "check {tmp}/int.onnx"),
    Bad("check-against-a-folder", nothing, ("{tmp}/images", "ONNX networks and language models", "one kind"),
        "--against {tmp}/images", "check {tmp}/int.onnx"),
    Bad("check-heldout-alone", nothing, ("--heldout", "needs a float model", "--against"), "--heldout {tmp}/data.npz",
        "check {tmp}/int.onnx"),
    Bad("check-against-absent", nothing, ("{tmp}/no.onnx", "No such file"), "--against {tmp}/no.onnx",
        "check {tmp}/int.onnx"),
]  # fmt: skip

ALL = [*FILES, *NETWORKS, *OPTIONS, *RECIPES, *SAMPLES, *OTHERS]
NAMED = {case.id: case for case in ALL}


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.id)
def test_one_line_that_names_it(case: Bad, tmp_path: Path, base: Path) -> None:
    command = case.make(tmp_path, base)
    before = listing(tmp_path)
    result = run(f"{command} --json", tmp_path)
    assert isinstance(result.exception, SystemExit), result.exc_info
    case.require(tmp_path, result.exit_code, result.stdout, result.stderr)
    assert listing(tmp_path) == before
    if case.id == "out-exists":
        assert (tmp_path / "out.onnx").read_bytes() == b"precious"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["text", "unknown-operator", "nan-activations", "nan-output", "image-truncated"])
def test_as_a_process(name: str, tmp_path: Path, base: Path) -> None:
    """The same from outside, where ONNX Runtime's own words would reach stderr; and no folder that was not there."""
    case = NAMED[name]
    command = case.make(tmp_path, base).replace("{tmp}/out.onnx", "{tmp}/new/folder/out.onnx")
    before = listing(tmp_path)
    words = f"{command} --json".format(tmp=tmp_path).split()
    done = subprocess.run([*PROCESS, *words], capture_output=True, text=True, timeout=300)
    case.require(tmp_path, done.returncode, done.stdout, done.stderr)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("share", np.linspace(0, 0.999, 40))
def test_truncated_anywhere(share: float, tmp_path: Path, base: Path) -> None:
    """Protobuf may read the beginning of a file as a smaller network: that is an error too, or loses no layer."""
    shutil.copy(base / "net.onnx", tmp_path)
    cut("net.onnx", share)(tmp_path)
    result = run("plan {tmp}/net.onnx --json", tmp_path)
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    assert f"{tmp_path}/net.onnx" in result.stderr


@pytest.mark.parametrize(
    ("text", "options", "key"),
    [
        ("", {"windows": 4}, "calibration.windows"),
        ("", {"simulate": True}, "output"),
        ("", {"output": "qqd"}, "output"),
        ("", {"output": "compressed-tensors"}, "output"),
        ("", {"group": 32}, "layer.group"),
        ("", {"format": "nf4"}, "layer.format"),
        ("", {"format": "int44"}, "layer.format"),
        ("", {"method": "lloyd"}, "layer.method"),
        ("", {"calib": "no-such-folder"}, "data.source"),
        ("", {"heldout": "no-such-folder"}, "data.heldout"),
        ("", {"calib": None}, "data.source"),
        ("[calibration]\nwindows = 4\n", {}, "calibration"),
        ("[network]\nmax_drop = 1\n", {}, "network.max_drop"),
        ('[data]\nclasses = ["a", "b"]\n', {}, "data.source"),
        ("[data.image]\nmean = [0.1, 0.2]\n", {"calib": "{tmp}/images"}, "data.image.mean"),
        ('[[rules]]\nmatch = "conv0"\nformat = "nf4"\n', {}, "rules.0.format"),
        ('[[rules]]\nmatch = "*"\nformat = "int4"\n[[rules]]\nmatch = "conv*"\ngroup = 32\n', {}, "rules.1.group"),
        ('[[rules]]\nmatch = "conv*"\nmethod = "lloyd"\n', {}, "rules.0.method"),
        ('[[rules]]\nmatch = "convx"\nformat = "int4"\n', {}, "rules.0.match"),
    ],
)  # fmt: skip
def test_errors_name_the_key_at_fault(text: str, options: dict[str, Any], key: str, tmp_path: Path, base: Path) -> None:
    """A page shows the error beside that option."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(text)
    given = {"calib": str(base / "data.npz")} | options
    given = {name: value.format(tmp=base) if isinstance(value, str) else value for name, value in given.items()}
    with pytest.raises(BitwrightError) as caught:
        library.plan(base / "net.onnx", tmp_path / "out.onnx", recipe=recipe, **given)
    assert caught.value.key == key, str(caught.value)


def test_read_only_folder(tmp_path: Path, base: Path) -> None:
    """As root, who may write anywhere, only a file system that is mounted so can refuse."""
    shutil.copytree(base, tmp_path / "in")
    out = tmp_path / "locked"
    out.mkdir()
    if os.geteuid() == 0:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", out], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount a file system here: {done.stderr.strip()}")
    else:
        out.chmod(0o500)
    try:
        result = run("quantize {tmp}/in/net.onnx -o {tmp}/locked/out.onnx --calib {tmp}/in/data.npz", tmp_path)
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", out], check=True)
    assert result.exit_code == 3
    assert result.stderr == f"bitwright: {out}: the output folder cannot be written. Choose another -o\n"


# ---- stopped on the way ---------------------------------------------------------------------


@pytest.mark.slow
def test_interrupted_and_continued(tmp_path: Path, base: Path) -> None:
    """Ctrl-C while layers are quantized: one line, nothing final, and the same command ends in the same bytes."""
    shutil.copytree(base, tmp_path, dirs_exist_ok=True)
    before = listing(tmp_path)
    words = "quantize {tmp}/net.onnx -o {tmp}/new/out.onnx --calib {tmp}/data.npz --method adaround --threads 1"
    with subprocess.Popen(
        [*PROCESS, *words.format(tmp=tmp_path).split(), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "row":
                break
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    said = "stopped; finished work is kept, and the same command continues"
    assert (process.returncode, stderr) == (130, f"bitwright: {said}\n")
    assert json.loads(stdout.splitlines()[-1]) == {"event": "error", "kind": "Interrupted", "text": said}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out.partial"]

    other = run(words.replace("adaround", "rtn"), tmp_path)
    assert other.exit_code == 2
    assert "unfinished work of another recipe" in other.stderr
    again = subprocess.run([*PROCESS, *words.format(tmp=tmp_path).split(), "--json"], capture_output=True, text=True)
    assert (again.returncode, again.stderr) == (0, "")
    started = [event for event in map(json.loads, again.stdout.splitlines()) if event["event"] == "started"]
    assert max(event["resumed"] for event in started) >= 1
    whole = words.replace("new/out.onnx", "whole.onnx")
    assert subprocess.run([*PROCESS, *whole.format(tmp=tmp_path).split()], capture_output=True).returncode == 0
    assert (tmp_path / "new" / "out.onnx").read_bytes() == (tmp_path / "whole.onnx").read_bytes()
    beside = {"out.README.md", "out.certificate.json"}
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"out.onnx", *beside}
    assert set(listing(tmp_path)) - set(before) == {
        "new", "new/out.README.md", "new/out.certificate.json", "new/out.onnx",
        "whole.README.md", "whole.certificate.json", "whole.onnx",
    }  # fmt: skip


# ---- without the optional packages ----------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("onnx", "quantize {tmp}/net.onnx -o {tmp}/out.onnx --calib {tmp}/data.npz --method rtn"),
        ("onnx", "check {tmp}/int.onnx"),
        ("onnxruntime", "quantize {tmp}/net.onnx -o {tmp}/out.onnx --calib {tmp}/data.npz --method rtn"),
        ("onnxruntime", "measure {tmp}/net.onnx {tmp}/int.onnx --heldout {tmp}/data.npz"),
        ("onnxruntime", "demo --task vision -o {tmp}/demo"),
    ],
)
def test_without_the_extra(module: str, command: str, tmp_path: Path, base: Path) -> None:
    shutil.copytree(base, tmp_path, dirs_exist_ok=True)
    before = listing(tmp_path)
    code = f"import sys; sys.modules[{module!r}] = None; from bitwright.cli import app; app(sys.argv[1:])"
    words = [sys.executable, "-c", code, *command.format(tmp=tmp_path).split()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    needs = "This command needs the extra `onnx`: pip install 'bitwright[onnx]'"
    assert (done.returncode, done.stderr) == (3, f"bitwright: {module}: not installed. {needs}\n")
    assert listing(tmp_path) == before


# ---- what is odd and yet good ---------------------------------------------------------------


def certified(command: str, tmp: Path) -> dict[str, Any]:
    """Run a command that must write out.onnx; its certificate, strict JSON."""
    result = run(command, tmp)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""

    def forbid(word: str) -> None:
        raise AssertionError(f"{word} in the certificate")

    found: dict[str, Any] = json.loads((tmp / "out.certificate.json").read_text(), parse_constant=forbid)
    onnx.checker.check_model(str(tmp / "out.onnx"), full_check=True)
    return found


@pytest.mark.parametrize(("bind", "sides"), [("16", [16, 16]), ("any", [None, None])])
def test_bound_dimensions(bind: str, sides: list[int | None], tmp_path: Path, base: Path) -> None:
    shutil.copytree(base, tmp_path, dirs_exist_ok=True)
    change(open_sides)(tmp_path)
    certified(
        "quantize {tmp}/net.onnx -o {tmp}/out.onnx --calib {tmp}/data.npz --method rtn "
        f"--bind height={bind} --bind width={bind}",
        tmp_path,
    )
    dims = onnx.load(tmp_path / "out.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value or None for dim in dims[2:]] == sides
    for command in ("measure {tmp}/net.onnx {tmp}/out.onnx --heldout {tmp}/data.npz",
                    "check {tmp}/out.onnx --against {tmp}/net.onnx --heldout {tmp}/data.npz"):  # fmt: skip
        assert run(command, tmp_path).exit_code == 0, "neither needs to be told the sizes"


@pytest.mark.parametrize(("kind", "op"), [("transformer", "LayerNormalization"), ("upsample", "ConvTranspose")])
def test_operators_without_integer_kernels_stay_float(kind: str, op: str, tmp_path: Path) -> None:
    """They are named with the reason in the plan and in the certificate."""
    model = networks.KINDS[kind]()
    onnx.save(model, tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", **networks.feeds(model, 24))
    certificate = certified("quantize {tmp}/net.onnx -o {tmp}/out.onnx --calib {tmp}/data.npz --method rtn", tmp_path)
    names = [node.name for node in model.graph.node if node.op_type == op]
    assert names
    assert all(op in certificate["float_nodes"][name] for name in names)
    plan = run("plan {tmp}/net.onnx", tmp_path).stdout
    assert f"float: {certificate['float_nodes'][names[0]]}" in plan


def test_an_old_operator_set_is_raised(tmp_path: Path, base: Path) -> None:
    shutil.copytree(base, tmp_path, dirs_exist_ok=True)
    opset(11)(tmp_path)
    certificate = certified("quantize {tmp}/net.onnx -o {tmp}/out.onnx --calib {tmp}/data.npz --method rtn", tmp_path)
    assert "opset 11 raised to 13" in certificate["notes"]


def test_external_data_on_both_sides(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too large for one file reads and writes its tensors beside it, under names that hold in the end."""
    from bitwright.files.onnx import write as write_model
    from bitwright.models.network import model as loop

    model = onnx.load(base / "net.onnx")
    onnx.save_model(model, tmp_path / "net.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    shutil.copy(base / "data.npz", tmp_path)
    monkeypatch.setattr(loop, "write", lambda model, path: write_model(model, path, limit=1000))
    certificate = certified("quantize {tmp}/net.onnx -o {tmp}/out.onnx --calib {tmp}/data.npz --method rtn", tmp_path)
    assert sorted(certificate["output"]["sha256"]) == ["out.onnx", "out.onnx.data"]
    names = ["data.npz", "net.onnx", "out.README.md", "out.certificate.json"]
    names += ["out.onnx", "out.onnx.data", "weights.bin"]
    assert listing(tmp_path) == names
    assert run("check {tmp}/out.onnx", tmp_path).exit_code == 0


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_files_of_others_are_left_alone(kind: str, tmp_path: Path, base: Path) -> None:
    """What only looks like a partial output is nobody's to delete: it is in the way, and said to be."""
    shutil.copytree(base, tmp_path, dirs_exist_ok=True)
    (tmp_path / "out.partial.txt").write_text("mine")
    mine = tmp_path / "out.partial"
    if kind == "folder":
        mine.mkdir()
        mine /= "notes.txt"
    mine.write_text("mine")
    command = "quantize {tmp}/net.onnx -o {tmp}/out.onnx --calib {tmp}/data.npz --method rtn"
    before = listing(tmp_path)
    result = run(command, tmp_path)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"bitwright: {tmp_path}/out.partial: is in the way")
    assert result.stderr.count("\n") == 1
    assert listing(tmp_path) == before
    assert mine.read_text() == "mine"
    mine.unlink()
    certified(command, tmp_path)  # an empty folder is in nobody's way
    assert (tmp_path / "out.partial.txt").read_text() == "mine"


def test_a_custom_operator_without_a_kernel_is_refused(tmp_path: Path, base: Path) -> None:
    """ONNX Runtime cannot run it, so nothing can be calibrated or certified."""
    shutil.copytree(base, tmp_path, dirs_exist_ok=True)

    def edit(model: onnx.ModelProto) -> None:
        model.graph.node[2].domain = "org.example"
        model.opset_import.append(helper.make_opsetid("org.example", 1))

    change(edit)(tmp_path)
    result = run("quantize {tmp}/net.onnx -o {tmp}/out.onnx --calib {tmp}/data.npz", tmp_path)
    assert result.exit_code == 2
    assert "org.example" in result.stderr
    assert result.stderr.count("\n") == 1
