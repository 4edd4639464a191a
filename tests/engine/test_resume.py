"""Stopped at any moment, the same command goes on, and the final bytes are those of an uninterrupted run."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bitwright.engine import plan as planning
from bitwright.engine.journal import NAME, Journal
from bitwright.engine.run import run
from bitwright.errors import DataError, RecipeError
from bitwright.events import Event, Finished, Progress, Row, Started
from bitwright.models.language.model import sink_of
from bitwright.models.model import Plan
from bitwright.models.network.sink import LayerSink
from bitwright.recipe import Recipe
from tests import jobs, tiny

pytestmark = pytest.mark.slow

SIZE = {"hidden_size": 192, "head_dim": 24, "num_key_value_heads": 1, "intermediate_size": 384, "num_hidden_layers": 2}
"""Keys and values have 24 rows: few enough for other kernels than a batch with the queries gets."""
LANGUAGE: dict[str, Any] = {
    "layer": {"group": 32, "symmetric": False},
    "calibration": {"source": "some.txt", "windows": 4, "length": 32, "heldout_windows": 2},
}
NETWORK: dict[str, Any] = {
    "layer": {"format": "int4", "method": "descent"},
    "data": {"source": "samples.npz", "batch": 8},
}
FLOATS = [{"match": "*.self_attn.*", "format": "float"}]
DROPS: dict[str, dict[str, Any]] = {
    "language": {
        "layer": {"format": "int3", "group": 32, "method": "gptq"},
        "rules": FLOATS,
        "calibration": {"source": "self", "windows": 8, "length": 32, "heldout_windows": 2},
        "output": "float",
        "max_drop": 6.0,
        "max_float_percent": 100,
    },
    "network": NETWORK
    | {"layer": {"format": "int2", "method": "rtn"}, "network": {"bias": "none", "equalize": False}, "max_drop": 10.0},
}
"""Recipes that try several sets of float layers before they settle on one."""


@dataclass(frozen=True)
class Case:
    """One kind of model: a home folder with `source`, its data and `whole`, the output of an uninterrupted run."""

    kind: str
    home: Path
    source: str
    recipe: dict[str, Any]
    parts: int
    copies: int = 0

    def out(self, folder: Path, name: str = "out") -> Path:
        return folder / (name if self.kind == "language" else f"{name}.onnx")

    @property
    def whole(self) -> Path:
        return self.out(self.home, "whole")

    @property
    def table(self) -> dict[str, Any]:
        """The recipe, with its data where it lies."""
        key = "calibration" if self.kind == "language" else "data"
        data = dict(self.recipe[key])
        if data["source"] != "self":
            data["source"] = str(self.home / data["source"])
        return self.recipe | {key: data}

    def job(self, out: Path, **layer: Any) -> Plan:
        """The job of `arguments` (or with another layer table), prepared in this process as if in a new one."""
        table = self.table
        recipe = Recipe.read(table | {"layer": table["layer"] | layer}, "test")
        return planning.make(self.home / self.source, out, recipe)

    def arguments(self, out: Path) -> list[str]:
        """The same on the command line."""
        path = self.home / "recipe.toml"
        if not path.exists():
            path.write_text(self.job(self.out(self.home, "planned")).recipe.dumps())  # with its kind's own defaults
        # As many threads as this process computes on: another number would be another job.
        threads = ["--threads", str(torch.get_num_threads())]
        return ["quantize", str(self.home / self.source), "-o", str(out), "--recipe", str(path), *threads, "--json"]

    def command(self, out: Path) -> list[str]:
        return [sys.executable, "-m", "bitwright.cli", *self.arguments(out)]

    @property
    def total(self) -> int:
        return self.parts + self.copies

    def same(self, out: Path) -> bool:
        """Whether `out` is the uninterrupted run's output: its bytes, its files, and what its certificate says."""
        return found(out) == found(self.whole) and said(out) == said(self.whole)


HASH = re.compile(rb"^SHA-256 of `certificate.json`: `[0-9a-f]{64}`$", re.MULTILINE)


def found(out: Path) -> dict[str, str]:
    """SHA-256 of every file of an output but its certificate, by what it is called relative to the output's name.

    The model card names the certificate by its hash, which is left out.
    """
    files = sorted(out.iterdir()) if out.is_dir() else [out, *out.parent.glob(f"{out.name}.data")]
    assert files
    names = {path: path.name if out.is_dir() else path.name.removeprefix(out.stem) for path in files}
    hashes = {names[path]: hashlib.sha256(HASH.sub(b"", path.read_bytes())).hexdigest() for path in files}
    return {name: "" if name == "certificate.json" else digest for name, digest in hashes.items()}


def said(out: Path) -> dict[str, Any]:
    """The certificate, without what differs from run to run: times, memory, names of folders."""
    path = out / "certificate.json" if out.is_dir() else out.with_name(f"{out.stem}.certificate.json")
    certificate: dict[str, Any] = json.loads(path.read_text())
    for row in certificate["rows"]:
        row["seconds"] = 0
    certificate["output"]["sha256"] = sorted(certificate["output"]["sha256"].values())
    return {key: value for key, value in certificate.items() if key not in ("speed", "peak_memory_bytes")}


def language(home: Path, recipe: dict[str, Any], **size: Any) -> Case:
    tiny.make("llama", home / "source", **{**SIZE, **size})
    jobs.text(home)
    blocks = {**SIZE, **size}["num_hidden_layers"]
    copies = 3 + 2 * blocks  # embedding, head and norms
    if recipe.get("rules") == FLOATS:
        return Case("language", home, "source", recipe, 3 * blocks, copies + 4 * blocks)
    return Case("language", home, "source", recipe, 7 * blocks, copies)


def network(home: Path, recipe: dict[str, Any], kind: str = "residual", parts: int = 6) -> Case:
    jobs.network(kind, home, samples=32, labels=True)
    return Case("network", home, f"{kind}.onnx", recipe, parts)


@pytest.fixture(scope="module", params=["language", "network"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A model, its data, and the output of an uninterrupted run by the command line."""
    home = tmp_path_factory.mktemp(f"resume-{request.param}")
    made = language(home, LANGUAGE) if request.param == "language" else network(home, NETWORK)
    done = subprocess.run(made.command(made.whole), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return made


def resumed(events: list[Event]) -> int:
    return next(event.resumed for event in events if isinstance(event, Started) and event.phase == "quantize")


def test_stopped_at_every_event(case: Case, tmp_path: Path) -> None:
    plan = case.job(case.out(tmp_path, "count"))
    events = list(run(plan))
    assert case.same(plan.out), "the command line makes other bytes than the library"
    rows = [i for i, event in enumerate(events, 1) if isinstance(event, Row)]
    assert len(rows) == case.parts
    # A network has fewer of both.
    matrices, all_events = (7, 25) if case.kind == "language" else (2, 11)
    points = sorted({*rows[::matrices], *range(1, len(events), all_events)})
    assert len(points) > 4
    most = 0
    for point in points:
        out = case.out(tmp_path, f"at-{point}")
        jobs.stop_after(case.job(out), point)
        assert not out.exists()
        rest = list(run(case.job(out)))
        assert isinstance(rest[-1], Finished)
        most = max(most, resumed(rest))
        assert resumed(rest) >= sum(row <= point for row in rows), "a finished matrix was thrown away"
        assert case.same(out), f"stopped after event {point}: {events[point - 1]}"
        assert not case.job(case.out(tmp_path, f"at-{point}-again")).partial.exists()
        assert not out.with_name(f"{out.stem}.partial").exists()
    assert most == case.total


def test_stopped_again_and_again(case: Case, tmp_path: Path) -> None:
    """Progress is never lost: each try gets a little further."""
    held = []
    for _ in range(100):
        events = jobs.stop_after(case.job(case.out(tmp_path)), 50 if case.kind == "language" else 17)
        held.append(resumed(events))
        if isinstance(events[-1], Finished) or held[-1] == case.total:
            break
    assert held == sorted(held)
    assert len(held) > (3 if case.kind == "language" else 1)
    if not case.out(tmp_path).exists():
        list(run(case.job(case.out(tmp_path))))
    assert case.same(case.out(tmp_path))


@pytest.fixture(scope="module", params=["language", "network"])
def choosing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A job that finds out which parts must stay float, done."""
    home = tmp_path_factory.mktemp(f"choosing-{request.param}")
    recipe = DROPS[request.param]
    small = dict(hidden_size=64, head_dim=16, intermediate_size=128)
    made = language(home, recipe, **small) if request.param == "language" else network(home, recipe)
    jobs.finish(made.job(made.whole))
    return made


def test_stopped_while_it_chooses_what_stays_float(choosing: Case, tmp_path: Path) -> None:
    kept, tried = said(choosing.whole)["kept_float"], said(choosing.whole)["notes"]
    assert 1 <= sum("so sensitive" in why for why in kept.values()) < choosing.parts
    events = list(run(choosing.job(choosing.out(tmp_path, "count"))))
    notes = [i for i, event in enumerate(events, 1) if getattr(event, "text", "").endswith("on calibration")]
    assert len(notes) >= 2 and len([note for note in tried if note.endswith("on calibration")]) == len(notes)
    ranked = [i for i, event in enumerate(events, 1) if isinstance(event, Progress) and event.phase == "rank"]
    rows = [i for i, event in enumerate(events, 1) if isinstance(event, Row)]
    certifying = next(i for i, e in enumerate(events, 1) if isinstance(e, Started) and e.phase == "certify")
    between = [row for row in rows if row > ranked[-1]]  # a network is solved anew in each attempt
    points = [rows[1], rows[-1 if choosing.kind == "language" else choosing.parts - 1], ranked[0], *notes[:2]]
    for point in sorted({*points, *between[1:6:3], certifying, certifying + 1}):
        out = choosing.out(tmp_path, f"at-{point}")
        jobs.stop_after(choosing.job(out), point)
        assert not out.exists()
        list(run(choosing.job(out)))
        assert choosing.same(out), f"stopped after event {point}: {events[point - 1]}"


def test_stopped_between_layers_that_were_trained_together(tmp_path: Path) -> None:
    """Training is gone through again, but what was finished before is what is written."""
    recipe = NETWORK | {"layer": {"format": "int4", "method": "lsq", "options": {"epochs": 1}}}
    case = network(tmp_path, recipe, "dense", 7)
    jobs.finish(case.job(case.whole))
    rows = 0

    def third(event: Event) -> bool:
        nonlocal rows
        rows += isinstance(event, Row)
        return rows == 3

    for name, wanted in (("rows", third), ("all", lambda e: isinstance(e, Started) and e.phase == "certify")):
        out = case.out(tmp_path, name)
        jobs.stop_after(case.job(out), wanted)
        list(run(case.job(out)))
        assert case.same(out), name


ZYGOTE = """
import json, os, sys
import torch, transformers, compressed_tensors.compressors, onnxruntime
import bitwright.engine.check, bitwright.engine.report, bitwright.engine.run
import bitwright.models.language.model, bitwright.models.network.model
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
        while not select.select([self.process.stdout], [], [], 0.002)[0]:
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


def kill_at_lines(case: Case, out: Path, zygote: Zygote, wanted: range) -> list[int]:
    """Kill a job once its journal has so many lines, again and again until it is through; where it was killed."""
    journal = out.with_name("out.partial") / "journal.jsonl"

    def lines() -> int:
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    killed = []
    for count in wanted:
        if count <= lines():
            continue  # the run before got further than it was asked to
        status = zygote.run(case.arguments(out), lambda least=count: lines() >= least)
        if status == 0:
            break
        assert status == -signal.SIGKILL, zygote.text()
        killed.append(lines())
    assert out.exists() or zygote.run(case.arguments(out)) == 0, zygote.text()
    return killed


def test_killed_after_any_line_of_the_journal(case: Case, tmp_path: Path, zygote: Zygote) -> None:
    out = case.out(tmp_path)
    killed = kill_at_lines(case, out, zygote, range(1, 1 + case.total, 2))
    assert len(killed) >= (5 if case.kind == "language" else 2), killed
    assert case.same(out)


def test_killed_while_it_chooses_what_stays_float(choosing: Case, tmp_path: Path, zygote: Zygote) -> None:
    out = choosing.out(tmp_path)
    total = choosing.total
    assert len(kill_at_lines(choosing, out, zygote, range(3, 3 * total, max(2, total // 3)))) >= 2
    assert choosing.same(out)


def test_killed_at_any_time(case: Case, tmp_path: Path, zygote: Zygote) -> None:
    """In all phases: a random moment after a random event of the run."""
    chance = random.Random(5)
    assert zygote.run(case.arguments(case.out(tmp_path, "count"))) == 0, zygote.text()
    total = len(zygote.text().splitlines())
    certify = next(i for i, line in enumerate(zygote.text().splitlines()) if '"phase": "certify"' in line)
    phases = {"quantize": 0, "certify": 0}
    tries = 3
    points = [chance.randrange(2, certify) for _ in range(tries)]
    points += [chance.randrange(certify, total) for _ in range(tries)]
    for number, point in enumerate(points):
        out = case.out(tmp_path, f"out-{number}")
        delay = chance.random() * 0.02
        due: list[float] = []

        def kill_when(point: int = point, delay: float = delay, due: list[float] = due) -> bool:
            if not due and zygote.text().count("\n") >= point:
                due.append(time.monotonic() + delay)
            return bool(due) and time.monotonic() >= due[0]

        status = zygote.run(case.arguments(out), kill_when)
        assert status in (0, -signal.SIGKILL), zygote.text()
        if status:
            phases["certify" if '"phase": "certify"' in zygote.text() else "quantize"] += 1
        if out.exists():
            assert case.same(out), "it had its final name and was not whole"
        else:
            assert zygote.run(case.arguments(out)) == 0, zygote.text()
        assert case.same(out), (point, delay)
    assert min(phases.values()) >= 1, phases


def test_killed_as_a_process_of_its_own(case: Case, tmp_path: Path) -> None:
    out = case.out(tmp_path)
    with subprocess.Popen(case.command(out), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "row":
                break
        process.kill()
        assert process.wait() == -signal.SIGKILL
    done = subprocess.run(case.command(out), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    started = [json.loads(line) for line in done.stdout.splitlines() if '"started"' in line]
    held = next(event["resumed"] for event in started if event["phase"] == "quantize")
    assert held >= max(1, case.copies - 4)  # the last blocks' norms may not have been reached
    assert case.same(out)


def test_ctrl_c_keeps_the_work_and_says_how_to_go_on(case: Case, tmp_path: Path) -> None:
    out = case.out(tmp_path)
    process = subprocess.Popen(
        case.command(out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
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

    rest = list(run(case.job(out)))
    assert resumed(rest) > 0
    assert case.same(out)


def half(case: Case, out: Path) -> Path:
    """Begin a job that stops in the middle; its journal."""
    rows = 0

    def enough(event: Event) -> bool:
        nonlocal rows
        rows += isinstance(event, Row)
        return rows == 5

    plan = case.job(out)
    jobs.stop_after(plan, enough)
    return plan.partial / "journal.jsonl"


@pytest.mark.parametrize("damage", ["cut", "cut to nothing", "not text", "only the head", "half a head", "empty"])
def test_a_damaged_journal(damage: str, case: Case, tmp_path: Path) -> None:
    out = case.out(tmp_path)
    journal = half(case, out)
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
    rest = list(run(case.job(out)))
    assert resumed(rest) == expected
    assert case.same(out)


def test_a_journal_cut_off_twice(case: Case, tmp_path: Path) -> None:
    out = case.out(tmp_path)
    journal = half(case, out)
    journal.write_bytes(journal.read_bytes()[:-30])
    jobs.stop_after(case.job(out), lambda event: isinstance(event, Progress) and event.phase == "quantize")
    journal.write_bytes(journal.read_bytes()[:-7])
    list(run(case.job(out)))
    assert case.same(out)


def damage(plan: Plan, part: str) -> None:
    """Flip a bit in the middle of a stored tensor, or of a layer's file."""
    if isinstance(plan.sink, LayerSink):
        path, at = plan.sink.folder / part, (plan.sink.folder / part).stat().st_size // 2
    else:
        file, offset, spec = sink_of(plan).layout.place[part]
        path, at = plan.partial / file, offset + spec.size // 2
    with path.open("r+b") as out:
        out.seek(at)
        byte = out.read(1)
        out.seek(at)
        out.write(bytes([byte[0] ^ 4]))


def test_damaged_bytes_are_written_anew(case: Case, tmp_path: Path) -> None:
    out = case.out(tmp_path)
    journal = half(case, out)
    entries = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    matrix = next(entry for entry in entries if entry["row"])
    damaged = [matrix, *[entry for entry in entries if entry["row"] is None][:1]]
    assert len(damaged) == 1 + (case.kind == "language")
    for entry in damaged:
        damage(case.job(out), next(iter(entry["sums"])))
    rest = list(run(case.job(out)))
    assert resumed(rest) == len(entries) - len(damaged)
    assert matrix["name"] in [event.name for event in rest if isinstance(event, Row)]
    assert case.same(out)


@pytest.mark.parametrize("loss", ["removed", "cut"])
def test_a_lost_file_is_made_anew(loss: str, case: Case, tmp_path: Path) -> None:
    out = case.out(tmp_path)
    entries = len(half(case, out).read_text().splitlines()) - 1
    plan = case.job(out)
    if isinstance(plan.sink, LayerSink):
        path, lost = plan.sink.path(next(iter(plan.items))), 1
    else:
        [path], lost = plan.partial.glob("*.safetensors"), entries
    if loss == "removed":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size // 2)
    rest = list(run(plan))
    assert resumed(rest) == entries - lost
    assert case.same(out)


def test_stopped_before_the_files_were_made(case: Case, tmp_path: Path) -> None:
    """The journal's head is written first: a run killed right after it has no weight file yet."""
    out = case.out(tmp_path)
    journal = half(case, out)
    journal.write_text(journal.read_text().splitlines(keepends=True)[0])
    for path in journal.parent.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path != journal:
            path.unlink()
    list(run(case.job(out)))
    assert case.same(out)


def test_another_recipe_is_refused(case: Case, tmp_path: Path) -> None:
    out = case.out(tmp_path)
    journal = half(case, out)
    before = journal.read_bytes()
    with pytest.raises(RecipeError, match="unfinished work of another recipe") as caught:
        list(run(case.job(out, method="gptq")))
    assert str(journal.parent) in str(caught.value)
    assert "Remove it, or choose another -o" in str(caught.value)
    assert journal.read_bytes() == before
    list(run(case.job(out)))
    assert case.same(out)


def test_a_restart_begins_anew_where_the_job_is_another(case: Case, tmp_path: Path) -> None:
    out = case.out(tmp_path)
    half(case, out)
    mine = jobs.stop_after(case.job(out), lambda e: isinstance(e, Started) and e.phase == "quantize")
    held = resumed(mine)
    kept = []
    for event in run(case.job(out), restart=True):
        kept.append(event)
        if isinstance(event, Started) and event.phase == "quantize":
            break
    assert resumed(kept) == held > 0, "the same job goes on"
    events = list(run(case.job(out, method="gptq"), restart=True))
    assert any("started again" in getattr(event, "text", "") for event in events)
    assert resumed(events) == 0
    assert isinstance(events[-1], Finished)
    assert {row["method"] for row in said(out)["rows"]} == {"gptq"}


def moved(case: Case, folder: Path) -> Case:
    """The same in a home of its own, without the finished output."""
    folder.mkdir()
    for name in (case.source, "some.txt", "samples.npz"):
        if (case.home / name).exists():
            copy = shutil.copytree if (case.home / name).is_dir() else shutil.copy2
            copy(case.home / name, folder / name)  # type: ignore[operator]
    return Case(case.kind, folder, case.source, case.recipe, case.parts, case.copies)


def test_a_changed_model_is_refused(case: Case, tmp_path: Path) -> None:
    mine = moved(case, tmp_path / "home")
    out = case.out(tmp_path)
    half(mine, out)
    path = mine.home / mine.source
    weights = path / "model.safetensors" if path.is_dir() else path
    data = bytearray(weights.read_bytes())
    at = len(data) - 2
    if case.kind == "network":
        import onnx

        model = onnx.load(path)
        weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        at = data.index(weight.raw_data) + 4
    data[at] ^= 1
    weights.write_bytes(data)
    with pytest.raises(RecipeError, match="another recipe, model, version or number of threads"):
        list(run(mine.job(out)))


def test_data_that_is_gone_for_a_while_costs_nothing(case: Case, tmp_path: Path) -> None:
    """A mistake in the second try must not take the work of the first away with it."""
    mine = moved(case, tmp_path / "home")
    out = case.out(tmp_path)
    before = half(mine, out).read_bytes()
    data = mine.home / mine.recipe["calibration" if case.kind == "language" else "data"]["source"]
    away = data.with_name("away")
    data.rename(away)
    with pytest.raises(DataError):
        list(run(mine.job(out)))
    assert (tmp_path / "out.partial" / "journal.jsonl").read_bytes() == before
    away.rename(data)
    assert resumed(list(run(mine.job(out)))) > 0
    assert found(out) == found(case.whole)


def test_a_first_try_with_bad_data_leaves_nothing(case: Case, tmp_path: Path) -> None:
    mine = moved(case, tmp_path / "home")
    data = mine.home / mine.recipe["calibration" if case.kind == "language" else "data"]["source"]
    if case.kind == "language":
        data.write_text("")
    else:
        arrays = dict(np.load(data))
        np.savez(data, **{**arrays, "x": arrays["x"] * np.inf})
    out = tmp_path / "new" / "folders" / case.out(tmp_path).name
    with pytest.raises(DataError):
        list(run(mine.job(out)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]


def test_files_left_by_a_killed_run_are_not_published(case: Case, tmp_path: Path) -> None:
    """Kill -9 leaves the spill file of activations behind; it must neither stay on disk nor in the output."""
    out = case.out(tmp_path)
    journal = half(case, out)
    (journal.parent / ".activations-abc").write_bytes(b"x" * 1000)
    (journal.parent / "self-written.tmp").write_bytes(b"x")
    list(run(case.job(out)))
    assert case.same(out)
    beside = [tmp_path / name for name in ("out.certificate.json", "out.README.md") if out.is_file()]
    assert sorted(tmp_path.iterdir()) == sorted([out, *beside])


def test_stopped_while_publishing_keeps_the_work(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Making gigabytes durable takes time: whoever stops it then must not have to start over."""
    out = case.out(tmp_path)

    partial, fsync = case.job(out).partial, os.fsync

    def stop(file: int) -> None:
        if len((partial / NAME).read_text().splitlines()) > case.total:
            raise KeyboardInterrupt
        fsync(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", stop)
        with pytest.raises(KeyboardInterrupt):
            list(run(case.job(out)))
    assert not out.exists()
    rest = list(run(case.job(out)))
    assert resumed(rest) == case.total
    assert case.same(out)


def test_stopped_at_the_last_moment(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All is sealed, the journal is gone, and nothing has its final name yet."""
    out = case.out(tmp_path)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stop)
        with pytest.raises(KeyboardInterrupt):
            list(run(case.job(out)))
    assert not out.exists()
    list(run(case.job(out)))
    assert case.same(out)


def test_copied_tensors_are_not_copied_again(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = case.out(tmp_path)
    half(case, out)
    lines = (tmp_path / "out.partial" / "journal.jsonl").read_text().splitlines()
    done = {json.loads(line).get("name") for line in lines}
    added = []
    real = Journal.add

    def add(self: Journal, name: str, sums: dict[str, int], row: Row | None) -> None:
        added.append(name)
        real(self, name, sums, row)

    monkeypatch.setattr(Journal, "add", add)
    list(run(case.job(out)))
    # A batch that was half written comes back whole.
    assert not {name for name in added if name in done and name.startswith("copy:")}
    assert {*added, *done} - {None} == {*added, *(name for name in done if name)}
    assert len({*added, *done} - {None}) == case.total
