"""Stopped at any moment, the same command goes on, and the final bytes are those of an uninterrupted run."""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import os
import random
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from bitwright.engine.text import Text, prepare

from bitwright.engine import plan as planning
from bitwright.engine.run import run
from bitwright.errors import RecipeError
from bitwright.events import Event, Finished, Row, Started
from bitwright.recipe import Recipe
from tests import tiny

SIZE = {"hidden_size": 192, "head_dim": 24, "num_key_value_heads": 1, "intermediate_size": 384, "num_hidden_layers": 2}
"""Keys and values have 24 rows: few enough for other kernels than a batch with the queries gets."""
OPTIONS = ["--group", "32", "--asymmetric", "--windows", "4", "--length", "32", "--heldout-windows", "2"]
COPIES, MATRICES = 7, 14  # embedding, head and norms; two blocks of seven


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a text and the output of an uninterrupted run by the command line."""
    home = tmp_path_factory.mktemp("resume")
    tiny.make("llama", home / "source", **SIZE)
    (home / "some.txt").write_text(inspect.getsource(argparse)[:60_000], "utf-8")
    done = subprocess.run(command(home, home / "whole"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return home


def arguments(home: Path, out: Path) -> list[str]:
    # As many threads as this process computes on: another number would be another job.
    threads = ["--threads", str(torch.get_num_threads())]
    words = ["--calib", str(home / "some.txt"), *OPTIONS, *threads, "--json"]
    return ["quantize", str(home / "source"), "-o", str(out), *words]


def command(home: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "bitwright.cli", *arguments(home, out)]


def job(home: Path, out: Path, **layer: Any) -> tuple[planning.Plan, Text | None]:
    """The same job as `command` (or with another layer table), prepared in this process."""
    layer = {"group": 32, "symmetric": False, **layer}
    words = {"source": str(home / "some.txt"), "windows": 4, "length": 32, "heldout_windows": 2}
    plan = planning.make(home / "source", out, Recipe.read({"layer": layer, "calibration": words}, "test"))
    steps = prepare(plan)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return plan, end.value


def bytes_of(folder: Path) -> dict[str, str]:
    files = sorted(folder.glob("*.safetensors"))
    assert files
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def stop_after(plan: planning.Plan, text: Text | None, count: int) -> list[Event]:
    """The first `count` events of a run that then stops, as if its process had gone."""
    events = run(plan, text)
    seen = [event for event, _ in zip(events, range(count), strict=False)]
    events.close()  # type: ignore[attr-defined]
    return seen


def resumed(events: list[Event]) -> int:
    return next(event.resumed for event in events if isinstance(event, Started) and event.phase == "quantize")


def test_stopped_at_every_event(home: Path, tmp_path: Path) -> None:
    plan, text = job(home, tmp_path / "count")
    events = list(run(plan, text))
    assert bytes_of(plan.out) == bytes_of(home / "whole"), "the command line makes other bytes than the library"
    rows = [i for i, event in enumerate(events, 1) if isinstance(event, Row)]
    assert len(rows) == MATRICES
    # After every matrix, and at every other event in turn.
    points = sorted({*rows, *range(1, len(events), 3)})
    assert len(points) > 25
    most = 0
    for point in points:
        plan, text = job(home, tmp_path / f"at-{point}")
        stop_after(plan, text, point)
        assert not plan.out.exists()
        rest = list(run(plan, text))
        assert isinstance(rest[-1], Finished)
        most = max(most, resumed(rest))
        assert bytes_of(plan.out) == bytes_of(home / "whole"), f"stopped after event {point}: {events[point - 1]}"
        assert names(plan.out) == names(home / "whole")
        certificate, whole = (json.loads((out / "certificate.json").read_text()) for out in (plan.out, home / "whole"))
        assert len(certificate["rows"]) == len(whole["rows"])
        for mine, other in zip(certificate["rows"], whole["rows"], strict=True):
            assert {**mine, "seconds": 0} == {**other, "seconds": 0}
    assert most == COPIES + MATRICES


def test_stopped_again_and_again(home: Path, tmp_path: Path) -> None:
    """Progress is never lost: each try gets a little further."""
    plan, text = job(home, tmp_path / "out")
    held = []
    for _ in range(100):
        events = stop_after(plan, text, 9)
        held.append(resumed(events))
        if isinstance(events[-1], Finished) or held[-1] == COPIES + MATRICES:
            break
    assert held == sorted(held)
    assert len(held) > 4
    list(run(plan, text))
    assert bytes_of(plan.out) == bytes_of(home / "whole")


ZYGOTE = """
import json, os, sys
import torch, transformers, compressed_tensors.compressors
import bitwright.engine.check, bitwright.engine.report, bitwright.engine.run, bitwright.engine.text
from bitwright.cli import app
for line in sys.stdin:
    arguments, log = json.loads(line)
    child = os.fork()
    if child == 0:
        sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(sink, 1), os.dup2(sink, 2)
        code = 1
        try:
            app(arguments, standalone_mode=True)
        except SystemExit as end:
            code = end.code or 0
        finally:
            os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Imports everything once and forks the command line, so that dozens of real processes can be killed in seconds."""


class Zygote:
    """Runs the command line in fresh processes that already hold the imports."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, "-c", ZYGOTE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, arguments: list[str], kill_when: Callable[[], bool] | None = None) -> int:
        """Exit status of a run; killed (-9) as soon as `kill_when` says so."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.log.unlink(missing_ok=True)
        self.process.stdin.write(json.dumps([arguments, str(self.log)]) + "\n")
        self.process.stdin.flush()
        child = int(self.process.stdout.readline())
        while not select.select([self.process.stdout], [], [], 0.0005)[0]:
            if kill_when is not None and kill_when():
                os.kill(child, signal.SIGKILL)
                break
        return int(self.process.stdout.readline())

    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    zygote = Zygote(tmp_path_factory.mktemp("zygote") / "log")
    with zygote.process:
        yield zygote


def test_killed_after_any_line_of_the_journal(home: Path, tmp_path: Path, zygote: Zygote) -> None:
    out = tmp_path / "out"
    journal = tmp_path / "out.partial" / "journal.jsonl"

    def lines() -> int:
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    killed = []
    for wanted in range(1, 1 + COPIES + MATRICES):
        if wanted <= lines():
            continue  # the run before got further than it was asked to
        status = zygote.run(arguments(home, out), lambda least=wanted: lines() >= least)
        if status == 0:
            break
        assert status == -signal.SIGKILL, zygote.text()
        killed.append(lines())
    assert len(killed) >= 8, killed
    assert out.exists() or zygote.run(arguments(home, out)) == 0, zygote.text()
    assert bytes_of(out) == bytes_of(home / "whole")
    assert names(out) == names(home / "whole")


def test_killed_at_any_time(home: Path, tmp_path: Path, zygote: Zygote) -> None:
    """In all phases: a random moment after a random event of the run."""
    chance = random.Random(5)
    assert zygote.run(arguments(home, tmp_path / "count")) == 0, zygote.text()
    total = len(zygote.text().splitlines())
    certify = next(i for i, line in enumerate(zygote.text().splitlines()) if '"phase": "certify"' in line)
    phases = {"quantize": 0, "certify": 0}
    points = [chance.randrange(2, certify) for _ in range(8)] + [chance.randrange(certify, total) for _ in range(8)]
    for number, point in enumerate(points):
        out = tmp_path / f"out-{number}"
        delay = chance.random() * 0.02
        due: list[float] = []

        def kill_when(point: int = point, delay: float = delay, due: list[float] = due) -> bool:
            if not due and zygote.text().count("\n") >= point:
                due.append(time.monotonic() + delay)
            return bool(due) and time.monotonic() >= due[0]

        status = zygote.run(arguments(home, out), kill_when)
        assert status in (0, -signal.SIGKILL), zygote.text()
        assert out.exists() == (status == 0) or not (tmp_path / f"out-{number}.partial").exists()
        if status:
            phases["certify" if '"phase": "certify"' in zygote.text() else "quantize"] += 1
        if not out.exists():
            assert zygote.run(arguments(home, out)) == 0, zygote.text()
        assert bytes_of(out) == bytes_of(home / "whole"), (point, delay)
        assert names(out) == names(home / "whole"), (point, delay)
    assert min(phases.values()) >= 2, phases


def test_killed_as_a_process_of_its_own(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with subprocess.Popen(command(home, out), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "row":
                break
        process.kill()
        assert process.wait() == -signal.SIGKILL
    done = subprocess.run(command(home, out), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    started = next(json.loads(line) for line in done.stdout.splitlines() if '"started"' in line)
    assert started["resumed"] >= COPIES - 4  # the last blocks' norms may not have been reached
    assert bytes_of(out) == bytes_of(home / "whole")


def test_ctrl_c_keeps_the_work_and_says_how_to_go_on(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        command(home, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == "row":
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.fullmatch(r"bitwright: stopped; finished work is kept, and the same command continues\n", errors)
    assert not out.exists()
    assert (tmp_path / "out.partial" / "journal.jsonl").exists()

    plan, text = job(home, out)
    rest = list(run(plan, text))
    assert resumed(rest) > 0
    assert bytes_of(out) == bytes_of(home / "whole")


def half(home: Path, out: Path) -> tuple[planning.Plan, Text | None, Path]:
    """A job that stopped in the middle, and its journal."""
    plan, text = job(home, out)
    seen = stop_after(plan, text, 30)
    assert any(isinstance(event, Row) for event in seen)
    return plan, text, plan.partial / "journal.jsonl"


@pytest.mark.parametrize("damage", ["cut", "cut to nothing", "not text", "only the head", "half a head", "empty"])
def test_a_damaged_journal(damage: str, home: Path, tmp_path: Path) -> None:
    plan, text, journal = half(home, tmp_path / "out")
    data = journal.read_bytes()
    lines = data.splitlines(keepends=True)
    assert len(lines) > 5
    journal.write_bytes(
        {
            "cut": data[:-30],
            "cut to nothing": b"".join(lines[:-1]) + b"{",
            "not text": b"".join(lines[:-1]) + b"\x00\xff\xfe\x80" * 9,
            "only the head": lines[0],
            "half a head": lines[0][:20],
            "empty": b"",
        }[damage]
    )
    expected = len(lines) - 2 if damage in ("cut", "cut to nothing", "not text") else 0
    rest = list(run(plan, text))
    assert resumed(rest) == expected
    assert bytes_of(plan.out) == bytes_of(home / "whole")


def test_a_journal_cut_off_twice(home: Path, tmp_path: Path) -> None:
    plan, text, journal = half(home, tmp_path / "out")
    journal.write_bytes(journal.read_bytes()[:-30])
    stop_after(plan, text, 12)
    journal.write_bytes(journal.read_bytes()[:-7])
    list(run(plan, text))
    assert bytes_of(plan.out) == bytes_of(home / "whole")


def test_damaged_bytes_are_written_anew(home: Path, tmp_path: Path) -> None:
    plan, text, journal = half(home, tmp_path / "out")
    entries = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    matrix = next(entry for entry in entries if entry["row"])
    copy = next(entry for entry in entries if entry["row"] is None)
    for entry in (matrix, copy):
        part = next(iter(entry["sums"]))
        file, offset, spec = plan.layout.place[part]
        with (plan.partial / file).open("r+b") as out:
            out.seek(offset + spec.size // 2)
            byte = out.read(1)
            out.seek(offset + spec.size // 2)
            out.write(bytes([byte[0] ^ 4]))
    rest = list(run(plan, text))
    assert resumed(rest) == len(entries) - 2
    assert matrix["name"] in [event.name for event in rest if isinstance(event, Row)]
    assert bytes_of(plan.out) == bytes_of(home / "whole")


@pytest.mark.parametrize("loss", ["removed", "cut"])
def test_a_lost_weight_file_is_made_anew(loss: str, home: Path, tmp_path: Path) -> None:
    plan, text, _ = half(home, tmp_path / "out")
    [path] = plan.partial.glob("*.safetensors")
    if loss == "removed":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size // 2)
    rest = list(run(plan, text))
    assert resumed(rest) == 0
    assert bytes_of(plan.out) == bytes_of(home / "whole")


def test_stopped_before_the_files_were_made(home: Path, tmp_path: Path) -> None:
    """The journal's head is written first: a run killed right after it has no weight file yet."""
    plan, text, journal = half(home, tmp_path / "out")
    journal.write_text(journal.read_text().splitlines(keepends=True)[0])
    for path in plan.partial.iterdir():
        if path != journal:
            path.unlink()
    list(run(plan, text))
    assert bytes_of(plan.out) == bytes_of(home / "whole")


def test_another_recipe_is_refused(home: Path, tmp_path: Path) -> None:
    plan, text, journal = half(home, tmp_path / "out")
    before = journal.read_bytes()
    other, words = job(home, tmp_path / "out", method="gptq")
    with pytest.raises(RecipeError, match="unfinished work of another recipe") as caught:
        list(run(other, words))
    assert str(plan.partial) in str(caught.value)
    assert "Remove it, or choose another -o" in str(caught.value)
    assert journal.read_bytes() == before
    list(run(plan, text))
    assert bytes_of(plan.out) == bytes_of(home / "whole")


def test_a_changed_model_is_refused(home: Path, tmp_path: Path) -> None:
    source = tiny.make("llama", tmp_path / "source", **SIZE)
    (tmp_path / "some.txt").write_bytes((home / "some.txt").read_bytes())
    half(tmp_path, tmp_path / "out")
    weights = source / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-2] ^= 1
    weights.write_bytes(data)
    plan, text = job(tmp_path, tmp_path / "out")
    with pytest.raises(RecipeError, match="another recipe, model, version or number of threads"):
        list(run(plan, text))


def test_files_left_by_a_killed_run_are_not_published(home: Path, tmp_path: Path) -> None:
    """Kill -9 leaves the spill file of activations behind; it must neither stay on disk nor in the output."""
    plan, text, _ = half(home, tmp_path / "out")
    left = plan.partial / ".activations-abc"
    left.write_bytes(b"x" * 1000)
    (plan.partial / "self-written.tmp").write_bytes(b"x")
    list(run(plan, text))
    assert names(plan.out) == names(home / "whole")


def test_stopped_while_publishing_keeps_the_work(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Making gigabytes durable takes time: whoever stops it then must not have to start over."""
    plan, text = job(home, tmp_path / "out")

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", stop)
        with pytest.raises(KeyboardInterrupt):
            list(run(plan, text))
    assert not plan.out.exists()
    rest = list(run(plan, text))
    assert resumed(rest) == COPIES + MATRICES
    assert bytes_of(plan.out) == bytes_of(home / "whole")
