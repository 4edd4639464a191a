"""Models run in the runtimes at hand: figures of every turn, memory of their own processes, text, refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner

import bitwright as bw
from bitwright.cli import app
from bitwright.engine.process import Process
from bitwright.engine.speed import TURNS, Ratio
from bitwright.errors import BitwrightError, ModelError, ResourceError
from bitwright.events import Event, Note, Progress
from bitwright.models import kind_of
from bitwright.models.language.runtimes.loading import load
from bitwright.models.language.text import load_tokenizer
from bitwright.models.running import Asked
from tests import jobs, networks, tiny
from tests.files.containers.gguf import models

PROMPT, TOKENS = "def read(path):\n    with open", 6
GAUGES = {"generated", "first", "prompt"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models, float and quantized, of every form that runs."""
    base = tmp_path_factory.mktemp("speed")
    tiny.make("llama", base / "llama")
    bw.quantize(base / "llama", base / "int4", bits=4, group=32, method="rtn", watch=False)
    models.make("qwen2", base / "qwen2")
    bw.quantize(base / "qwen2", base / "tiny.gguf", type="q8_0", method="rtn", watch=False)
    float_network, samples = jobs.network("mlp", base)
    bw.quantize(float_network, base / "int.onnx", calib=str(samples), method="rtn", watch=False)
    return base


def greedy(path: Path) -> str:
    """What transformers' own network goes on with, by the likeliest token each time."""
    tokenizer = load_tokenizer(path)
    ids = tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    model, begin = load(path), ids.shape[1]
    with torch.no_grad():
        for _ in range(TOKENS):
            ids = torch.cat([ids, model(input_ids=ids).logits[:, -1].argmax(-1)[None]], 1)
    return str(tokenizer.decode(ids[0, begin:], skip_special_tokens=True))


@pytest.mark.slow
def test_a_model_runs_in_turns_with_the_float_one(home: Path) -> None:
    heard: list[Event] = []
    ran = bw.run(home / "int4", home / "llama", prompt=PROMPT, tokens=TOKENS, threads=1, watch=heard.append)
    told = ran.summary
    sides = [told["model"], told["against"]]
    for side, path in zip(sides, (home / "int4", home / "llama"), strict=True):
        assert side["path"] == str(path) and side["bytes"] == kind_of(path).size(path)
        assert side["runtime"].startswith("transformers ")
        assert side["turns"].keys() == GAUGES and all(len(found) == TURNS for found in side["turns"].values())
        assert all(value > 0 for found in side["turns"].values() for value in found)
        assert 0 < side["idle_memory_bytes"] < side["peak_memory_bytes"]
        assert side["text"] == greedy(path)
    for key, most in (("generated", 1), ("first", -1), ("prompt", 1)):
        pairs = zip(*(side["turns"][key] for side in sides), strict=True)
        ratios = [(a / b) ** most for a, b in pairs]
        assert told["ratios"][key] == pytest.approx(
            {"median": median(ratios), "least": min(ratios), "most": max(ratios)}
        )
    assert sum(isinstance(event, Progress) for event in heard) == TURNS + 1
    assert any("int4: transformers computes with its weights decoded to float32" in note for note in told["notes"])
    assert [event.text for event in heard if isinstance(event, Note)] == told["notes"]
    assert repr(sides[0]["text"]) in str(ran) and "generating" in str(ran)


@pytest.mark.slow
def test_memory_is_that_of_the_process_that_runs(home: Path) -> None:
    """Not of the one that started it, which here holds torch and half a gigabyte besides."""
    ballast = np.ones(1 << 26)
    ran = bw.run(home / "int.onnx", home / "mlp.onnx", threads=1, watch=False)
    for side in (ran.summary["model"], ran.summary["against"]):
        assert 1 << 24 < side["peak_memory_bytes"] < ballast.nbytes // 2


@pytest.mark.slow
def test_a_network_answers_zeros_or_samples(home: Path) -> None:
    ran = bw.run(home / "int.onnx", home / "mlp.onnx", threads=1, watch=False).summary
    assert ran["notes"] == ["no samples given: zeros of the inputs' shapes, x [1, 12]"]
    for side in (ran["model"], ran["against"]):
        assert side["runtime"].startswith("ONNX Runtime ") and side["text"] is None
        each, many = side["turns"]["sample"], side["turns"]["samples"]
        assert [one * more for one, more in zip(each, many, strict=True)] == pytest.approx([1.0] * TURNS)
    assert bw.run(home / "mlp.onnx", samples=str(home / "samples.npz"), threads=1, watch=False).summary["notes"] == []


@pytest.mark.slow
def test_a_gguf_file_runs_in_transformers_where_llama_cpp_is_not(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("llama_cpp") is not None:
        pytest.skip("llama-cpp-python is installed")
    monkeypatch.setenv("PATH", "/nowhere")
    side = bw.run(home / "tiny.gguf", prompt=PROMPT, tokens=TOKENS, threads=1, watch=False).summary["model"]
    assert side["runtime"].startswith("transformers ")
    assert side["text"] == greedy(home / "tiny.gguf")


@pytest.mark.skipif(find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
def test_a_gguf_file_runs_in_the_package_of_llama_cpp(home: Path) -> None:
    side = bw.run(home / "tiny.gguf", prompt=PROMPT, tokens=TOKENS, threads=1, watch=False).summary["model"]
    assert side["runtime"].startswith("llama.cpp (llama-cpp-python ")
    assert side["text"] == greedy(home / "tiny.gguf")
    assert 0 < side["idle_memory_bytes"] <= side["peak_memory_bytes"] < 1 << 28


@pytest.mark.skipif(find_spec("llama_cpp") is not None, reason="llama-cpp-python comes first")
@pytest.mark.skipif(shutil.which("llama-bench") is None, reason="llama-bench is not installed")
def test_a_gguf_file_runs_in_llama_bench(home: Path) -> None:
    side = bw.run(home / "tiny.gguf", prompt=PROMPT, tokens=TOKENS, threads=1, watch=False).summary["model"]
    assert side["runtime"].startswith("llama.cpp ") and side["text"] is None
    assert all(len(found) == TURNS for found in side["turns"].values())
    assert side["idle_memory_bytes"] is None
    assert side["bytes"] < side["peak_memory_bytes"] < 1 << 28


def test_a_process_that_is_killed_is_an_error(home: Path, tmp_path: Path) -> None:
    kind = kind_of(home / "mlp.onnx")
    with Process(kind, kind.task(home / "mlp.onnx", Asked(1), tmp_path)) as process:
        process.turn()
        os.kill(process._process.pid, signal.SIGKILL)
        process._process.wait()
        with pytest.raises(ResourceError, match="was killed"):
            process.turn()


def test_faster_is_what_was_so_in_every_turn() -> None:
    assert Ratio(1.4, 1.2, 1.5).words == "faster: 1.40 times (1.20 to 1.50)"
    assert Ratio(0.5, 0.4, 0.9).words == "slower: 0.500 times (0.400 to 0.900)"
    assert Ratio(1.1, 0.9, 1.2).words == "no clear difference: 1.10 times (0.900 to 1.20)"


WRONG: list[tuple[str, str]] = [
    ("none.gguf", "none.gguf: No such file"),
    ("none", "none: no such folder"),
    ("none.onnx", "none.onnx: No such file"),
    ("empty", "empty: not a model: no config.json"),
    ("cut.gguf", "truncated"),
    ("cut", "model.safetensors"),
    ("cut.onnx", "cut.onnx"),
    ("llama --tokens 99999999999", "--tokens: 61 tokens of the prompt and 99,999,999,999 more"),
    ("llama --tokens 1", "--tokens: 1 is too few"),
    ("llama --samples x.npz", "--samples: language models go on from a text"),
    ("llama --threads 4096", "--threads: 4096 threads"),
    ("llama --against qwen3", "qwen3: is not what"),
    ("llama --against larger", "decoder blocks: 3 here, 2 there"),
    ("llama --against int.onnx", "int.onnx: cannot be compared with"),
    ("int.onnx --tokens 4", "--tokens: is for language models"),
    ("int.onnx --samples none.npz", "none.npz: no such file"),
    ("int.onnx --against open.onnx", "has an open dimension"),
    ("strange", "no tokenizer"),
]


@pytest.mark.parametrize(("words", "cause"), WRONG, ids=[words for words, _ in WRONG])
def test_what_cannot_run_is_refused_in_a_line(words: str, cause: str, home: Path) -> None:
    if not (home / "cut").exists():
        _damage(home)
    given = [word if word.startswith("-") or word.isdecimal() else str(home / word) for word in words.split()]
    told = CliRunner().invoke(app, ["run", *given])
    assert (told.exit_code, told.stdout) == (2, "")
    assert cause in told.stderr and told.stderr.startswith("bitwright: ") and told.stderr.count("\n") == 1


def _damage(home: Path) -> None:
    """Models that cannot run."""
    (home / "empty").mkdir()
    for name, cut in (("tiny.gguf", "cut.gguf"), ("int.onnx", "cut.onnx")):
        (home / cut).write_bytes((home / name).read_bytes()[:-4000])
    shutil.copytree(home / "llama", home / "cut")
    weights = home / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4000])
    tiny.make("qwen3", home / "qwen3")
    tiny.make("llama", home / "larger", num_hidden_layers=3)
    shutil.copytree(home / "llama", home / "strange")
    for file in (home / "strange").glob("token*"):
        file.unlink()
    net = networks.Net()
    out = net.add("Relu", "x")
    onnx.save(net.model({"x": ["batch", 3, "height"]}, [out], ["batch", 3, "height"]), home / "open.onnx")


@pytest.mark.parametrize("prompt", ["", "word " * 500], ids=["empty", "long"])
def test_a_prompt_that_does_not_fit(prompt: str, home: Path) -> None:
    with pytest.raises(BitwrightError) as error:
        bw.run(home / "llama", prompt=prompt, watch=False)
    assert error.value.exit_code == 2
    assert ("0 tokens" if not prompt else "Shorten the prompt") in str(error.value)


def test_json_holds_the_figures(home: Path) -> None:
    told = CliRunner().invoke(app, ["run", str(home / "int.onnx"), "--threads", "1", "--json"])
    events: list[dict[str, Any]] = [json.loads(line) for line in told.stdout.splitlines()]
    assert told.exit_code == 0 and events[-1]["event"] == "speed"
    assert events[-1]["against"] is None and events[-1]["ratios"] == {}
    assert events[-1]["model"]["median"]["samples"] > 0


def test_a_runtime_that_refuses_is_an_error(home: Path) -> None:
    """What only shows when the model is loaded comes back from its process as the error that it is."""
    model = onnx.load(home / "mlp.onnx")
    model.graph.node[0].op_type = "Nowhere"
    onnx.save(model, home / "nowhere.onnx")
    with pytest.raises(ModelError, match="ONNX Runtime refuses it") as error:
        bw.run(home / "nowhere.onnx", threads=1, watch=False)
    assert error.value.where == str(home / "nowhere.onnx")
