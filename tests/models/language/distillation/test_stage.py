"""`bitwright distil` from its plan to its certificate: killed anywhere, it ends at the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import transformers
from typer.testing import CliRunner, Result

import bitwright as bw
from bitwright.cli import app
from bitwright.errors import RecipeError
from bitwright.models.language.distillation.lessons import DIVERGENCES
from bitwright.models.language.distillation.stage import divide
from bitwright.models.language.distillation.state import BEST, STATE
from bitwright.stages import Distil
from tests import tiny

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

OPTIONS = "--tokens 6k --length 32 --batch 4 --rate 0.002 --heldout-windows 4 --threads 1"
"""46 steps; between looks there are one or two others."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, a student that is the teacher with noise, and a text."""
    home = tmp_path_factory.mktemp("home")
    tiny.make("llama", home / "teacher")
    tiny.make("llama", home / "student")
    network = transformers.AutoModelForCausalLM.from_pretrained(home / "teacher", dtype=torch.float32)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for param in network.parameters():
            if param.dim() == 2:
                param.add_(torch.randn(param.shape, generator=noise) * param.std() * 0.3)
    network.to(torch.bfloat16).save_pretrained(home / "student")
    words = random.Random(1)
    known = ["def", "return", "self", "value", "for", "in", "range", "list", "None"]
    lines = (" ".join(words.choices(known, k=9)) for _ in range(4000))
    (home / "text.txt").write_text("\n".join(lines))
    return home


def arguments(home: Path, out: Path, more: str = "") -> list[str]:
    words = f"{OPTIONS} {more}".replace(" --", "\n--").split("\n")
    options = dict.fromkeys(word.strip() for word in words)
    last = {option.partition(" ")[0]: option for option in options}
    head = f"distil {home}/teacher {home}/student --text {home}/text.txt -o {out}"
    return f"{head} {' '.join(last.values())}".split()


def distil(home: Path, out: Path, more: str = "") -> Result:
    return CliRunner().invoke(app, arguments(home, out, more))


@pytest.fixture(scope="module")
def whole(home: Path) -> Path:
    """The output of an uninterrupted run."""
    out = home / "whole"
    done = distil(home, out)
    assert done.exit_code == 0, done.output
    return out


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def certificate(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "certificate.json").read_text())
    return found


def test_the_student_is_nearer_to_its_teacher(home: Path, whole: Path) -> None:
    found = certificate(whole)
    [stage] = found["stages"]
    assert stage["name"] == "distil" and stage["words"] == "distilled from teacher"
    assert found["verdict"]["kl"] < 0.9 * stage["begun"]["kl"]
    looks = stage["curve"]["looks"]
    assert len(looks) == 21 and looks[0]["loss"] is None and looks[-1]["step"] == stage["steps"] == 46
    assert stage["curve"]["best"] == min(looks, key=lambda look: look["kl"])["step"]
    assert stage["teacher"]["folder"] == "teacher" and len(stage["teacher"]["sha256"]) == 64
    assert found["loaded_by_transformers"]["checked"]
    names = {path.name for path in whole.iterdir()}
    assert not [name for name in names if name.endswith((".pt", ".cache", ".new", ".jsonl", ".lock"))]
    assert "tokenizer.json" in names and "README.md" in names
    measured = bw.measure(home / "teacher", whole, str(home / "text.txt"), windows=8, length=32)
    before = bw.measure(home / "teacher", home / "student", str(home / "text.txt"), windows=8, length=32)
    assert measured.comparison.kl.value < 0.9 * before.comparison.kl.value


def test_the_report_tells_how_it_went(whole: Path) -> None:
    said = bw.report(whole).markdown
    assert "distilled from teacher" in said.lower()
    assert "How training went" in said and "the best: written" in said
    assert "before: KL" in said and "Larger than the float model" not in said
    assert "before: KL" in (whole / "README.md").read_text()


@pytest.mark.slow
def test_three_stages_tell_of_all(home: Path, tmp_path: Path) -> None:
    """Pruned, healed and quantized: the last certificate and its report know what was done before."""
    text = str(home / "text.txt")
    held = {"calib": text, "length": 32, "heldout_windows": 2}
    bw.prune(home / "teacher", tmp_path / "pruned", keep=0.8, windows=8, **held)
    bw.distil(home / "teacher", tmp_path / "pruned", tmp_path / "healed", tokens="3k", rate=0.002, **held)
    stages = certificate(tmp_path / "healed")["stages"]
    assert [stage["name"] for stage in stages] == ["prune", "distil"]
    assert bw.check(tmp_path / "healed").sound is not False
    result = bw.quantize(tmp_path / "healed", tmp_path / "int4", method="rtn", group=32, heldout=text, length=32)
    assert result.certificate["stages"] == stages and result.certificate["rows"]
    assert re.search(r"Before +pruned to \d+ % of its blocks, distilled from teacher", str(result))
    said = bw.report(tmp_path / "int4").markdown
    assert "prune: " in said and "distil: " in said and "How training went" in said
    assert "How training went" in bw.report(tmp_path / "int4").html
    weights = tmp_path / "healed" / "model.safetensors"
    network = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "healed", dtype=torch.bfloat16)
    network.lm_head.weight.data[0, 0] += 1
    before = digest(tmp_path / "healed")
    network.save_pretrained(tmp_path / "healed")
    assert digest(tmp_path / "healed") != before and weights.exists()
    other = bw.quantize(tmp_path / "healed", tmp_path / "other", method="rtn", group=32)
    assert "stages" not in other.certificate, "it is not what was certified"


def test_the_plan_says_what_it_costs(home: Path, tmp_path: Path) -> None:
    done = distil(home, tmp_path / "out", "--plan --json")
    plan = json.loads(done.output.splitlines()[-1])
    assert (plan["steps"], plan["tokens"], plan["stage"]) == (46, 46 * 4 * 32, "distil")
    assert plan["cache_bytes"] / plan["tokens"] < 64 * 1.1
    assert plan["seconds"] > 0 and plan["peak_memory_bytes"] > 0
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()
    exact = json.loads(distil(home, tmp_path / "out", "--plan --json --exact").output.splitlines()[-1])
    assert exact["cache_bytes"] > 4 * plan["cache_bytes"]


def interrupted(home: Path, out: Path, lines: int, sign: int) -> int:
    """Start it and send a signal after so many events; its exit code."""
    command = [sys.executable, "-m", "bitwright", *arguments(home, out, "--json")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stdout is not None
        for _ in range(lines):
            run.stdout.readline()
        run.send_signal(sign)
        run.stdout.read()
        return run.wait()


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT], ids=lambda s: s.name)
def test_killed_at_any_moment_it_ends_at_the_same_bytes(home: Path, whole: Path, tmp_path: Path, sign: int) -> None:
    """Losses, curve and weights are the same to the last digit."""
    out = tmp_path / "out"
    chance = random.Random(int(sign))
    stops = sorted(chance.sample(range(8, 110), 3))
    for lines in stops:
        code = interrupted(home, out, lines, sign)
        assert code == (-sign if sign == signal.SIGKILL else 130)
        assert not out.exists()
    done = distil(home, out)
    assert done.exit_code == 0, done.output
    assert digest(out) == digest(whole)
    ours, theirs = certificate(out)["stages"][0], certificate(whole)["stages"][0]
    assert ours["curve"] == theirs["curve"] and ours["begun"] == theirs["begun"]


def test_a_cache_is_shared_and_refused(home: Path, whole: Path, tmp_path: Path) -> None:
    cache = tmp_path / "teacher.cache"
    assert distil(home, tmp_path / "one", f"--cache {cache}").exit_code == 0
    kept = cache.stat()
    assert digest(tmp_path / "one") == digest(whole)
    assert distil(home, tmp_path / "two", f"--cache {cache} --rate 0.001").exit_code == 0
    assert cache.stat().st_mtime_ns == kept.st_mtime_ns, "it is not made again"
    other = tmp_path / "other"
    other.symlink_to(home / "student")
    (tmp_path / "home").mkdir()
    for name, target in (("teacher", "student"), ("student", "student"), ("text.txt", "text.txt")):
        (tmp_path / "home" / name).symlink_to(home / target)
    refused = distil(tmp_path / "home", tmp_path / "three", f"--cache {cache}")
    one_line(refused, 2, str(cache), "another teacher", "--cache")
    assert not (tmp_path / "three.partial").exists()


def one_line(done: Result, code: int, *said: str) -> None:
    assert done.exit_code == code, done.output
    error = [line for line in done.stderr.splitlines() if line]
    assert len(error) == 1 and all(word in error[0] for word in said), error


Change = Callable[[Path], str]


def _other_words(home: Path) -> str:
    """A teacher with more words than the student."""
    tiny.make("llama", home / "teacher", vocab_size=1100)
    return ""


def _other_tokenizer(home: Path) -> str:
    """A teacher with as many words, of which two have changed places."""
    path = tiny.make("llama", home / "teacher") / "tokenizer.json"
    table = json.loads(path.read_text())
    vocabulary = table["model"]["vocab"]
    one, other = [word for word, number in vocabulary.items() if number in (600, 601)]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    table["model"]["merges"] = []
    path.write_text(json.dumps(table))
    return ""


def _short_text(home: Path) -> str:
    (home / "text.txt").unlink()
    (home / "text.txt").write_text("a word")
    return ""


def _quantized(home: Path) -> str:
    bw.quantize(home / "student", home / "packed", method="rtn", group=32)
    (home / "student").unlink()
    (home / "student").symlink_to(home / "packed")
    return ""


def _not_a_cache(home: Path) -> str:
    (home / "note.txt").write_text("hello")
    return f"--cache {home}/note.txt"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_other_words, ["vocabularies differ: the teacher has 1,100 words, the student 1,024", "share a tokenizer"]),
        (_other_tokenizer, ["tokenizer has other words", "teacher"]),
        (_short_text, ["too short", "text.txt"]),
        (_quantized, ["already quantized", "student"]),
        (_not_a_cache, ["note.txt", "not a teacher's cache"]),
        (lambda home: f"--cache {home}", ["it cannot be read (not a regular file)", "--cache"]),
        (lambda home: "--loss foward --exact", ["loss", "forward"]),
        (lambda home: "--loss reverse", ["drawn words do not say enough", "--exact"]),
        (lambda home: "--hidden 1", ["drawn words do not say enough", "--exact"]),
        (lambda home: "--tokens many", ["'many' is not a number of tokens", "--tokens"]),
        (lambda home: "--rate -1", ["rate"]),
        (lambda home: "--length 4096", ["4096", "128"]),
    ],
)
def test_bad_input_is_one_line(home: Path, tmp_path: Path, change: Change, said: list[str]) -> None:
    for name in ("student", "text.txt"):
        (tmp_path / name).symlink_to(home / name)
    if change not in (_other_words, _other_tokenizer):
        (tmp_path / "teacher").symlink_to(home / "teacher")
    more = change(tmp_path)
    one_line(distil(tmp_path, tmp_path / "out", more), 2, *said)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


@pytest.mark.slow
def test_all_that_a_loss_can_be(home: Path, tmp_path: Path) -> None:
    more = "--exact --loss jensen-shannon --temperature 2 --labels 0.1 --hidden 0.5 --mixed --patience 20"
    done = distil(home, tmp_path / "out", more)
    assert done.exit_code == 0, done.output
    found = certificate(tmp_path / "out")
    assert found["verdict"]["kl"] < 0.95 * found["stages"][0]["begun"]["kl"]
    said = " ".join(found["stages"][0]["lines"])
    assert "jensen-shannon KL at temperature 2, 10% next tokens, 0.5 x error of the last hidden states" in said


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"method": "rtn", "bits": 8}, {"type": "q8_0", "method": "rtn"}], ids=str)
def test_a_quantized_model_may_teach(home: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    teacher = bw.quantize(home / "teacher", tmp_path / ("t.gguf" if "type" in options else "t"), **options).out
    for name in ("student", "text.txt"):
        (tmp_path / name).symlink_to(home / name)
    text, out = str(home / "text.txt"), tmp_path / "out"
    bw.distil(teacher, home / "student", out, calib=text, tokens="3k", length=32, rate=0.002, heldout_windows=2)
    found = certificate(out)
    assert found["stages"][0]["teacher"]["folder"] == teacher.name
    assert found["verdict"]["kl"] < found["stages"][0]["begun"]["kl"]


def test_without_a_text_it_asks_for_one(home: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, f"distil {home}/teacher {home}/student -o {tmp_path}/out".split())
    one_line(done, 2, "no text to learn from", "--text self")
    with pytest.raises(RecipeError, match="follows from tokens and length"):
        bw.distil(home / "teacher", home / "student", tmp_path / "out", calib=str(home / "text.txt"), windows=4)


def test_a_teacher_that_is_none(home: Path, tmp_path: Path) -> None:
    (tmp_path / "note.onnx").write_bytes(b"no model")
    for teacher, said in ((f"{home}/teachr", "teacher"), (f"{tmp_path}/note.onnx", "note.onnx")):
        words = f"distil {teacher} {home}/student --text {home}/text.txt -o {tmp_path}/out"
        one_line(CliRunner().invoke(app, words.split()), 2, said)


def test_a_rate_that_is_too_high(home: Path, tmp_path: Path) -> None:
    """The run stops, names the step and where the best weights are, which are there and finite."""
    out = tmp_path / "out"
    one_line(distil(home, out, "--rate 1e30"), 5, "step", "of 46", "Lower --rate, now 1e+30", BEST)
    assert not out.exists()
    best = torch.load(tmp_path / "out.partial" / BEST, weights_only=True)
    assert all(bool(tensor.isfinite().all()) for tensor in best.values())
    assert not (tmp_path / "out.partial" / f"{STATE}.new").exists()


def test_the_teacher_writes_the_text_itself(home: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app,
        f"distil {home}/teacher {home}/student --text self --tokens 512 --length 16 --batch 4 --heldout-windows 2 "
        f"--threads 1 -o {tmp_path}/out".split(),
    )
    assert done.exit_code == 0, done.output
    assert certificate(tmp_path / "out")["text"]["calibration"]["source"] == "self"
    assert not [*(tmp_path / "out").glob("self-written*")]


def test_windows_that_judge_are_not_learned_from() -> None:
    windows = torch.arange(200)[:, None]
    learned, judging = divide(windows)
    assert len(judging) == 16 and len(learned) == 184
    assert not {*learned.flatten().tolist()} & {*judging.flatten().tolist()}
    assert int(learned[-1]) < int(judging[0]), "they are of other documents"
    assert [len(part) for part in divide(windows[:5])] == [4, 1]
    assert [len(part) for part in divide(windows[:1])] == [1, 1]


def test_losses_are_those_that_there_are() -> None:
    assert {*get_args(Distil.model_fields["loss"].annotation)} == {*DIVERGENCES}
    with pytest.raises(RecipeError, match="drawn words"):
        Distil.read({"teacher": "x", "loss": "reverse"}, "distil")
    assert Distil.read({"teacher": "x", "loss": "reverse", "labels": 1}, "distil").exact is False
