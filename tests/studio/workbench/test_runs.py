"""Runs in real processes: stopped, killed and resumed at any moment, they end in the bytes of an undisturbed run."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from bitwright.studio.shell.runner import LEASE
from bitwright.studio.workbench.log import Log, whole_lines
from bitwright.studio.workbench.progress import Progress
from tests.studio.house import DEMO, DIGITS, RTN, SLOW, Studio

pytestmark = pytest.mark.slow

MATRICES = 21


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def studio(data: Path) -> Iterator[Studio]:
    with Studio(data) as studio:
        yield studio


@pytest.fixture(scope="module")
def whole(studio: Studio) -> dict[str, Any]:
    """An undisturbed run of SLOW."""
    return studio.wait(studio.run(recipe=SLOW), "done")


def weights(studio: Studio, id: str) -> str:
    [path] = (Path(studio.config["data"]) / "runs" / id / "out").glob("*.safetensors")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def log(studio: Studio, id: str) -> list[dict[str, Any]]:
    path = Path(studio.config["data"]) / "runs" / id / "events.jsonl"
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def rows(studio: Studio, id: str) -> list[str]:
    """Names of the rows in the log: each once."""
    found = [event["name"] for event in log(studio, id) if event["event"] == "row"]
    assert len(found) == len(set(found)), "a row is told twice"
    return found


def after_rows(studio: Studio, id: str, count: int) -> None:
    """Wait until a run has written some matrices."""
    studio.when(lambda: len(studio.get(f"/api/runs/{id}")["rows"]) >= count)


def same(studio: Studio, id: str, whole: dict[str, Any]) -> None:
    """The run ended as if nothing had happened to it."""
    run = studio.wait(id, "done")
    assert weights(studio, id) == weights(studio, whole["id"])
    assert len(rows(studio, id)) == MATRICES
    assert [{**row, "seconds": 0} for row in sorted(run["rows"], key=lambda row: row["name"])] == [
        {**row, "seconds": 0} for row in sorted(whole["rows"], key=lambda row: row["name"])
    ]
    assert {**run["summary"], "facts": 0} == {**whole["summary"], "facts": 0}
    assert [event["event"] for event in log(studio, id)].count("finished") == 1
    assert len(run["notes"]) == len(set(run["notes"]))


def test_a_run_from_start_to_verdict(studio: Studio, whole: dict[str, Any]) -> None:
    assert whole["kind"] == "language"
    assert whole["name"] == "demo-model int4 gptq"
    assert whole["recipe"] == SLOW
    assert whole["error"] is None
    assert whole["certificate"] is True
    assert len(whole["rows"]) == MATRICES
    assert whole["progress"]["share"] == 1
    assert whole["created"] <= whole["started"] <= whole["finished"]
    summary = whole["summary"]
    assert summary["final_bytes"] < summary["source_bytes"]
    assert summary["stored_bits"] == pytest.approx(4.125)
    assert 0 < summary["kl"] < 1 and summary["kl_interval"] > 0
    assert 0.5 < summary["top1"] <= 1
    assert len(summary["perplexity"]) == 2
    assert summary["words"] in summary["headline"].lower()
    assert len(summary["worst"]) == 8
    errors = [row["output_error"] for row in summary["worst"]]
    assert errors == sorted(errors, reverse=True)
    assert set(os.listdir(Path(studio.config["data"]) / "runs" / whole["id"])) == {"out", "events.jsonl"}


def test_a_run_that_writes_a_single_file(studio: Studio) -> None:
    id = studio.run(recipe={"output": "gguf", "layer": {"format": "q8_0", "method": "rtn"}})
    run = studio.wait(id, "done")
    assert run["certificate"] is True and len(run["rows"]) == MATRICES
    written = {"out.gguf", "out.certificate.json", "out.README.md", "events.jsonl"}
    assert set(os.listdir(Path(studio.config["data"]) / "runs" / id)) == written
    assert "q8_0" in studio.client.get(f"/api/runs/{id}/report").text


def test_a_run_that_writes_shards(studio: Studio) -> None:
    recipe = {"output": "gguf", "layer": {"format": "q8_0", "method": "rtn"}, "max_shard_bytes": 2_000_000}
    id = studio.run(recipe=recipe)
    run = studio.wait(id, "done")
    assert run["certificate"] is True
    shards = {f"out-0000{i}-of-00002.gguf" for i in (1, 2)}
    written = {*shards, "out.certificate.json", "out.README.md", "events.jsonl"}
    assert set(os.listdir(Path(studio.config["data"]) / "runs" / id)) == written
    assert "out-00001-of-00002.gguf" in studio.client.get(f"/api/runs/{id}/report").text
    listed = [model["path"] for model in studio.get("/api/models")["models"]]
    assert [Path(path).name for path in listed if f"runs/{id}/" in path] == ["out-00001-of-00002.gguf"]


def test_the_stream_tells_all_and_goes_on_where_it_was_left(studio: Studio, whole: dict[str, Any]) -> None:
    path = f"/api/runs/{whole['id']}/events"
    told = list(studio.events(path))
    lines = [line for line, _ in told if line is not None]
    assert lines == list(range(1, whole["line"] + 1))
    assert told[-1][1] == {"event": "state", "state": "done", "error": None, "summary": whole["summary"]}
    kinds = [event["event"] for _, event in told]
    assert kinds.count("row") == MATRICES
    assert kinds.count("finished") == 1
    for again in ({"headers": {"last-event-id": "20"}}, {"params": {"after": "20"}}):
        assert list(studio.events(path, **again)) == [item for item in told if item[0] is None or item[0] > 20]
    assert list(studio.events(path, params={"after": "99999"})) == told[-1:]


def test_a_live_stream_and_the_list(studio: Studio) -> None:
    id = studio.run()
    seen: list[tuple[int | None, dict[str, Any]]] = []
    shares = []
    for line, event in studio.events(f"/api/runs/{id}/events"):
        seen.append((line, event))
        if event["event"] == "progress":
            assert line is None
            shares.append(event["share"])
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert seen[-1][1]["state"] == "done"
    lines = [line for line, _ in seen if line is not None]
    assert lines == list(range(1, len(lines) + 1))
    listed = studio.get("/api/runs")["runs"]
    assert [int(run["id"]) for run in listed] == sorted((int(run["id"]) for run in listed), reverse=True)
    assert "rows" not in listed[0]


def test_changes_reach_lists(studio: Studio) -> None:
    first = studio.run(recipe=SLOW)
    states: dict[str, list[str]] = {}
    second = None
    for _, event in studio.events("/api/events"):  # what is under way comes at once
        if event["event"] == "removed":
            assert event["id"] == second
            break
        assert "rows" not in event["run"]
        told = states.setdefault(event["run"]["id"], [])
        if told[-1:] != [event["run"]["state"]]:
            told.append(event["run"]["state"])
        if second is None and "running" in states.get(first, []):
            second = studio.run()
            studio.post(f"/api/runs/{second}/stop", status=202)
            studio.post(f"/api/runs/{first}/stop", status=202)
        if second and states.get(second, [])[-1:] == ["stopped"] and states[first][-1] == "stopped":
            assert studio.client.delete(f"/api/runs/{second}").status_code == 204
    assert second is not None
    assert states[second] == ["waiting", "stopped"]
    assert states[first][-3:] == ["running", "stopping", "stopped"]


def test_stop_and_resume(studio: Studio, whole: dict[str, Any]) -> None:
    id = studio.run(recipe=SLOW, name="  stopped \n and resumed ")
    after_rows(studio, id, 3)
    assert studio.client.delete(f"/api/runs/{id}").status_code == 409
    studio.error(studio.client.post(f"/api/runs/{id}/resume"), 409)
    studio.post(f"/api/runs/{id}/stop", status=202)
    run = studio.wait(id, "stopped")
    assert run["name"] == "stopped and resumed"
    assert 3 <= len(run["rows"]) <= MATRICES  # all of them where this process slept: certifying is stopped as well
    assert run["error"] is None
    assert run["certificate"] is False
    assert list(studio.events(f"/api/runs/{id}/events"))[-1][1]["state"] == "stopped"
    studio.error(studio.client.post(f"/api/runs/{id}/stop"), 409)
    studio.error(studio.client.get(f"/api/runs/{id}/certificate"), 409)
    studio.post(f"/api/runs/{id}/resume", status=202)
    same(studio, id, whole)
    started = [event for event in log(studio, id) if event["event"] == "started" and event["phase"] == "quantize"]
    assert started[0]["resumed"] == 0
    assert started[1]["resumed"] >= len(run["rows"])


def test_stop_at_once_and_while_waiting(studio: Studio) -> None:
    first, second = studio.run(recipe=SLOW), studio.run()
    assert studio.get(f"/api/runs/{second}")["state"] == "waiting"
    studio.post(f"/api/runs/{second}/stop", status=202)
    assert studio.get(f"/api/runs/{second}")["state"] == "stopped"
    studio.post(f"/api/runs/{first}/stop", status=202)
    studio.wait(first, "stopped")
    for id in (first, second):
        assert studio.client.delete(f"/api/runs/{id}").status_code == 204
        assert not (Path(studio.config["data"]) / "runs" / id).exists()
        studio.error(studio.client.get(f"/api/runs/{id}"), 404)


def test_the_worker_is_killed(studio: Studio, whole: dict[str, Any]) -> None:
    """It is started again, and the run goes on by itself."""
    id = studio.run(recipe=SLOW)
    killed = []
    for count in (2, 8):
        after_rows(studio, id, count)
        pid = studio.when(lambda: studio.pids()["runs"])
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)
        studio.when(lambda pid=pid: studio.pids()["runs"] not in (None, pid))
    same(studio, id, whole)
    assert len(set(killed)) == 2
    resumed = [event["resumed"] for event in log(studio, id) if event["event"] == "started"]
    assert max(resumed) >= 8
    for pid in killed:
        assert not Path(f"/proc/{pid}").exists()


def test_a_worker_that_always_dies_fails_the_run(tmp_path: Path) -> None:
    with Studio(tmp_path) as studio:
        id = studio.run(recipe=SLOW)
        seen: set[int] = set()
        until = time.monotonic() + 120
        while (run := studio.get(f"/api/runs/{id}"))["state"] != "failed":
            assert run["state"] in ("waiting", "running")
            assert time.monotonic() < until
            pid = studio.pids()["runs"]
            if pid is not None and pid not in seen:
                os.kill(pid, signal.SIGKILL)
                seen.add(pid)
            time.sleep(0.02)
        assert "killed (signal 9)" in run["error"]
        assert list(studio.events(f"/api/runs/{id}/events"))[-1][1]["error"] == run["error"]
        assert len(seen) >= 5
        assert not run["summary"]
        studio.post(f"/api/runs/{id}/resume", status=202)
        assert studio.wait(id, "done")["error"] is None


def test_the_studio_is_killed(tmp_path: Path, studio: Studio, whole: dict[str, Any]) -> None:
    """With everything below it; started again, it goes on where it was."""
    with Studio(tmp_path) as other:
        id = other.run(recipe=SLOW)
        after_rows(other, id, 4)
        workers = [pid for pid in other.pids().values() if pid]
        other.kill()
        other.when(lambda: not any(alive(pid) for pid in workers), 10)
        path = tmp_path / "runs" / id / "events.jsonl"
        with path.open("ab") as file:
            file.write(b'{"event":"row","na')  # as if the kill had cut a line
        began = time.monotonic()
        other.start()
        run = other.get(f"/api/runs/{id}")
        assert len(run["rows"]) >= 4
        run = other.wait(id, "done")
        assert datetime.fromisoformat(run["started"]).timestamp() - time.time() + time.monotonic() - began < LEASE
        [mine] = (tmp_path / "runs" / id / "out").glob("*.safetensors")
        assert hashlib.sha256(mine.read_bytes()).hexdigest() == weights(studio, whole["id"])
        assert len(rows(other, id)) == MATRICES


def test_the_studio_is_closed_and_opened(tmp_path: Path, studio: Studio, whole: dict[str, Any]) -> None:
    with Studio(tmp_path) as other:
        id = other.run(recipe=SLOW)
        after_rows(other, id, 2)
        workers = [pid for pid in other.pids().values() if pid]
        assert other.stop() == 0
        assert not any(alive(pid) for pid in workers)
        began = time.monotonic()
        other.start()
        other.wait(id, "running", "done", seconds=5)
        assert time.monotonic() - began < 5, "it was not given back"
        other.wait(id, "done")
        [mine] = (tmp_path / "runs" / id / "out").glob("*.safetensors")
        assert hashlib.sha256(mine.read_bytes()).hexdigest() == weights(studio, whole["id"])


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_a_run_that_was_done_but_for_telling(studio: Studio, whole: dict[str, Any]) -> None:
    """Killed between the output's final name and the database: the certificate is taken as it is."""
    id = studio.run(recipe=SLOW, name="twice")
    studio.post(f"/api/runs/{id}/stop", status=202)
    studio.wait(id, "stopped")
    runs = Path(studio.config["data"]) / "runs"
    for path in (runs / id).glob("out*"):
        subprocess.run(["rm", "-r", path], check=True)
    (runs / id).mkdir(exist_ok=True)  # it may have been stopped before it had a folder
    subprocess.run(["cp", "-r", runs / whole["id"] / "out", runs / id / "out"], check=True)
    studio.post(f"/api/runs/{id}/resume", status=202)
    assert studio.wait(id, "done")["summary"] == whole["summary"]


def test_what_the_plan_refuses_begins_no_run(studio: Studio) -> None:
    before = len(studio.get("/api/runs")["runs"])
    recipe = {**RTN, "layer": {"format": "int4", "method": "rtn", "group": 100}}
    error = studio.error(studio.client.post("/api/runs", json={"model": str(DEMO), "recipe": recipe}), 400)
    assert "inputs do not divide into groups of 100" in error["text"]
    assert "Give group 128, the best that fits" in error["fix"]
    assert error["key"] == "layer.group"
    assert len(studio.get("/api/runs")["runs"]) == before


def test_a_bundled_network_brings_its_data(studio: Studio) -> None:
    pytest.importorskip("onnxruntime")
    run = studio.wait(studio.run(DIGITS, {"data": {"samples": 32}, "layer": {"method": "rtn"}}), "done")
    assert run["kind"] == "network"
    assert len(run["rows"]) == 9
    assert any(fact["label"] == "Accuracy" for fact in run["summary"]["facts"])
    folder = Path(studio.config["data"]) / "runs" / run["id"]
    beside = {"out.certificate.json", "out.README.md"}
    assert {path.name for path in folder.iterdir()} == {"out.onnx", *beside, "events.jsonl"}


def test_a_network_goes_on(studio: Studio) -> None:
    pytest.importorskip("onnxruntime")
    id = studio.run(DIGITS, {"data": {"samples": 32}})
    after_rows(studio, id, 1)
    os.kill(studio.pids()["runs"] or 0, signal.SIGKILL)
    studio.when(lambda: [event["event"] for event in log(studio, id)].count("started") > 2)
    studio.post(f"/api/runs/{id}/stop", status=202)
    assert studio.wait(id, "stopped")["certificate"] is False
    folder = Path(studio.config["data"]) / "runs" / id
    assert not list(folder.rglob("*.onnx"))
    studio.post(f"/api/runs/{id}/resume", status=202)
    run = studio.wait(id, "done")
    assert len(rows(studio, id)) == len(run["rows"]) == 9
    assert max(event["resumed"] for event in log(studio, id) if event["event"] == "started") >= 1
    assert (folder / "out.onnx").exists()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=False)


def fill(ballast: Path) -> None:
    """Write until the disk is full."""
    file = os.open(ballast, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(file, bytes(4096))
    except OSError as error:
        assert error.errno == errno.ENOSPC
    finally:
        os.close(file)


def test_a_full_disk_loses_nothing(disk: Path, studio: Studio, whole: dict[str, Any]) -> None:
    ballast = disk / "ballast"
    with Studio(disk) as other:
        id = other.run(recipe=SLOW)
        other.when(lambda: len(other.get(f"/api/runs/{id}")["rows"]) >= 2)
        fill(ballast)
        until = time.monotonic() + 60
        while (run := other.get(f"/api/runs/{id}"))["state"] != "failed":
            assert time.monotonic() < until, run
            time.sleep(0.1)
        assert "No space left on device" in run["error"]
        assert "free" in run["error"].lower()
        refused = other.client.post("/api/runs", json={"model": str(DEMO), "recipe": RTN})
        assert other.error(refused, 507)["fix"]
        ballast.unlink()
        answer: httpx2.Response = other.client.post(f"/api/runs/{id}/resume")
        assert answer.status_code == 202, answer.text
        run = other.wait(id, "done")
        [mine] = (disk / "runs" / id / "out").glob("*.safetensors")
        assert hashlib.sha256(mine.read_bytes()).hexdigest() == weights(studio, whole["id"])
        assert len(rows(other, id)) == MATRICES
        other.kill()


def test_a_run_that_ends_while_the_database_is_locked(studio: Studio) -> None:
    """Pages know at once, the database as soon as it listens; the next run waits for that."""
    id = studio.run()
    studio.wait(id, "running")
    path = Path(studio.config["data"]) / "studio.db"
    locked = sqlite3.connect(path, isolation_level=None)
    locked.execute("BEGIN IMMEDIATE")
    try:
        run = studio.wait(id, "done")
        assert run["summary"]["final_bytes"] > 0
        assert run["finished"] is not None
        assert locked.execute("SELECT state FROM jobs WHERE id = ?", (id,)).fetchone() == ("running",)
    finally:
        locked.execute("ROLLBACK")
    studio.wait(studio.run(), "done")
    assert locked.execute("SELECT state FROM jobs WHERE id = ?", (id,)).fetchone() == ("done",)
    locked.close()
    assert studio.get(f"/api/runs/{id}")["summary"] == run["summary"]


def test_a_log_takes_back_what_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "events.jsonl"
    log = Log(path)
    row = {"event": "row", "name": "a", "mse": 1.0, "seconds": 0.1}
    assert log.append({"event": "started", "phase": "quantize"}) == 1
    assert log.append(row) == 2
    assert log.append({**row, "seconds": 0.2}) is None, "told before"
    assert log.append({**row, "mse": 2.0}) == 3, "written anew"
    assert log.append({"event": "note", "text": "n"}) == 4
    assert log.append({"event": "note", "text": "n"}) is None
    log.close()
    before = path.read_bytes()
    for damage in (b'{"event":"ro', b"\x00\xff\n", b"half\n{}\n"):
        path.write_bytes(before + damage)
        assert len(whole_lines(path)) == 4
        log = Log(path)
        assert path.read_bytes() == before
        assert log.append({**row, "mse": 2.0}) is None
        log.close()


def test_progress_never_falls() -> None:
    progress = Progress()
    shares = [progress.share]
    for event in (
        {"event": "started", "phase": "write", "detail": ""},
        {"event": "progress", "phase": "write", "done": 5, "total": 10, "label": "w"},
        {"event": "started", "phase": "quantize", "detail": ""},
        {"event": "progress", "phase": "quantize", "done": 5, "total": 10, "label": "q"},
        {"event": "progress", "phase": "quantize", "done": 0, "total": 0, "label": "q"},
        {"event": "started", "phase": "certify", "detail": ""},
        {"event": "progress", "phase": "certify", "done": 10, "total": 10, "label": "c"},
        {"event": "started", "phase": "certify", "detail": ""},
        {"event": "progress", "phase": "certify", "done": 1, "total": 10, "label": "c"},
        {"event": "started", "phase": "new", "detail": ""},
        {"event": "progress", "phase": "new", "done": 1, "total": 1, "label": "n"},
    ):
        progress.take(event)
        shares.append(progress.share)
    assert shares == sorted(shares)
    assert 0.1 < shares[2] < shares[4] < shares[7] < 0.925 < shares[-1] <= 1
