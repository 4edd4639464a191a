"""Real models through every command, as a stranger would type them: the small part of bench/real.py.

They come from PyPI packages (scripts/real_models.py) and are kept in pytest's cache.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import real
import torch
from filelock import FileLock
from safetensors import safe_open

from bitwright.core import formats
from bitwright.core.lattice import recover
from bitwright.files import gguf
from bitwright.files.containers.gguf.blocks import unpack
from tests.files.containers.gguf.models import summary
from tests.files.containers.gguf.write import floats

HOME = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def fetch(kind: str, config: pytest.Config) -> Path:
    """The folder of the models of a kind; skips, with pip's own words, where they cannot be had."""
    folder = config.cache.mkdir("real-models")  # type: ignore[union-attr]
    if kind == "gemma3" and not (folder / "gemma3-270m").is_dir():
        command = f"python scripts/real_models.py {folder.relative_to(config.rootpath)} {kind}"
        pytest.skip(f"to fetch and convert it takes minutes of every run in a fresh clone; where wanted: {command}")
    with FileLock(folder / f"{kind}.lock"):
        words = [sys.executable, str(HOME / "scripts" / "real_models.py"), str(folder), kind]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    last = (done.stderr.strip().splitlines() or ["no output"])[-1]
    if "pip could not download" in last:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        pytest.skip(f"{last}: {errors[-1] if errors else 'no reason given'}")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def smollm2(pytestconfig: pytest.Config) -> Path:
    return fetch("smollm2", pytestconfig) / "smollm2-135m"


@pytest.fixture(scope="module")
def networks(pytestconfig: pytest.Config) -> Path:
    return fetch("networks", pytestconfig)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What calibration reads, and what is held out, of our own documentation."""
    place = tmp_path_factory.mktemp("text")
    whole = place / "docs.txt"
    pages = sorted((HOME / "docs").glob("*.md"))
    whole.write_text("\n\n".join(page.read_text(encoding="utf-8") for page in pages), encoding="utf-8")
    return real.split(whole, place)


UPPER = """
[[rules]]
match = "*.layers.[12]?.*"
format = "float"
"""
"""A recipe that leaves two thirds of SmolLM2 as they are: bench/real.py takes all of it."""


def quantized(folder: Path, text: tuple[Path, Path], place: Path, method: str) -> dict[str, Any]:
    """The certificate of the first ten blocks of a language model that went through all commands on few windows."""
    (place / "recipe.toml").write_text(UPPER)
    data = ("--calib", text[0], "--heldout", text[1], "--windows", 8, "--heldout-windows", 4, "--length", 128)
    options = ("--method", method, "--recipe", place / "recipe.toml")
    plan, found, said = real.run(folder, place / method, *data, *options)
    assert said == "sound"
    assert found["peak_memory_bytes"] < 1.15 * plan["peak_memory_bytes"]
    assert found["output"]["bytes"] == plan["final_bytes"]
    return dict(found)


CONVERTED = {
    "smollm2": ("smollm2-135m", {"facts": "29 of 21960c00", "tensors": "272 of df7baeb1"}),
    "gemma3": ("gemma3-270m", {"facts": "30 of a601987e", "tensors": "236 of a6a7dabc"}),
}
"""How what is expected was made: tests/files/containers/gguf/models.py."""


@pytest.mark.parametrize("kind", CONVERTED)
def test_a_model_as_gguf_is_what_the_converter_writes(kind: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    folder, expected = CONVERTED[kind]
    floats(fetch(kind, pytestconfig) / folder, tmp_path / "out.gguf")
    assert summary(tmp_path / "out.gguf") == expected


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_smollm2_at_four_bits(smollm2: Path, text: tuple[Path, Path], tmp_path: Path) -> None:
    """No matrix needs more damping, and the output is one that a stranger would keep."""
    plain = quantized(smollm2, text, tmp_path, "rtn")["verdict"]
    found = quantized(smollm2, text, tmp_path, "descent")
    verdict = found["verdict"]
    assert len(found["rows"]) == 70
    assert {row["method"] for row in found["rows"]} == {"descent"}
    assert [note for row in found["rows"] for note in row["notes"] if "damping" in note] == []
    assert verdict["kl"] + verdict["kl_interval"] < 0.7 * plain["kl"] < 0.7
    assert verdict["perplexity_quantized"] < 1.2 * verdict["perplexity_float"]


SMOLLM2 = ("smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-135m", 9)
GEMMA3 = ("gemma3", "gemma-3-270m-q4_k_m.gguf", "gemma3-270m", 0)
PLACES = {
    "blk.0.ffn_gate": "layers.0.mlp.gate_proj", "blk.0.ffn_down": "layers.0.mlp.down_proj",
    "blk.0.attn_q": "layers.0.self_attn.q_proj", "blk.0.attn_output": "layers.0.self_attn.o_proj",
    "token_embd": "embed_tokens",
}  # fmt: skip


@pytest.mark.parametrize(("kind", "file", "folder", "heads"), [SMOLLM2, GEMMA3])
def test_the_codes_of_a_gguf_file_come_back_from_floats(
    kind: str, file: str, folder: str, heads: int, pytestconfig: pytest.Config
) -> None:
    """From a folder of its dequantized weights in bfloat16. Llama's queries are in another order there (`heads`)."""
    place = fetch(kind, pytestconfig)
    header = gguf.read(place / file)
    tensors = {tensor.name: tensor for tensor in header.tensors}
    kinds = set()
    with safe_open(place / folder / "model.safetensors", "pt") as floats:
        for theirs, ours in PLACES.items():
            tensor = tensors[f"{theirs}.weight"]
            assert tensor.type is not None
            w = floats.get_slice(f"model.{ours}.weight")[:2048]
            name, rows = tensor.type.name.lower(), w.shape[0]
            raw = header.raw(tensor, 0, rows * tensor.columns // tensor.type.weights)
            codes = unpack(torch.from_numpy(raw.reshape(rows, -1)), name).codes
            if heads and theirs.endswith("attn_q"):
                codes = codes.reshape(heads, -1, 2, tensor.columns).swapaxes(1, 2).reshape(codes.shape)
            found = recover(w, formats.named(name))
            assert found is not None and torch.equal(found.decode().bfloat16(), w)
            share = (found.codes == codes).float().mean()
            # Some blocks of Q6_K lie on a coarser lattice as well, which is as good.
            assert share == 1 if name != "q6_k" else share > 0.98
            kinds.add(name)
    assert kinds == ({"q4_1", "q8_0"} if kind == "smollm2" else {"q5_0", "q6_k", "q4_k", "q8_0"})


@pytest.mark.parametrize(
    ("name", "size", "sqnr"),
    [("onet.onnx", 0.3, 15), ("ch_ppocr_mobile_v2.0_cls_infer.onnx", 0.6, 10), ("silero_vad_half.onnx", 0.3, 10)],
)
def test_a_network(networks: Path, tmp_path: Path, name: str, size: float, sqnr: float) -> None:
    """It gets smaller, keeps its answers, and ONNX Runtime runs it on the float network's own inputs."""
    out, _, _, found, said = real.network(networks / name, tmp_path)
    assert said == "sound"
    assert found["output"]["bytes"] < size * found["source"]["bytes"]
    assert min(found["verdict"]["sqnr_db"].values()) > sqnr
    wanted, written = (onnxruntime.InferenceSession(path) for path in (networks / name, out))
    assert [(i.name, i.type) for i in wanted.get_inputs()] == [(i.name, i.type) for i in written.get_inputs()]
