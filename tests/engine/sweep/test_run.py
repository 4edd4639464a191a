"""A sweep makes what single runs make, however it is stopped, and nothing twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bitwright as bw
from bitwright import library
from bitwright.errors import RecipeError
from bitwright.events import Event, Member
from bitwright.recipe import Recipe
from tests import jobs, tiny

pytestmark = pytest.mark.slow
TEXT = {"source": "some.txt", "windows": 4, "length": 32, "heldout_windows": 2}
LAYERS: dict[str, dict[str, Any]] = {
    "coarse": {"format": "int4", "group": 32, "method": "rtn"},
    "fine": {"format": "int8", "group": "channel", "method": "rtn"},
    "careful": {"format": "int4", "group": 32, "method": "gptq"},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("sweep")
    tiny.make("llama", home / "model")
    jobs.text(home)
    return home


def recipes(home: Path) -> dict[str, Recipe]:
    calibration = {**TEXT, "source": str(home / "some.txt")}
    return {name: Recipe.read({"layer": layer, "calibration": calibration}, name) for name, layer in LAYERS.items()}


@pytest.fixture(scope="module")
def singles(home: Path) -> dict[str, dict[str, str]]:
    """The hashes of what single runs make."""
    made = {
        name: bw.quantize(home / "model", home / "single" / name, recipe=recipe, threads=1)
        for name, recipe in recipes(home).items()
    }
    return {name: result.certificate["output"]["sha256"] for name, result in made.items()}


def hashes(out: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((out / "certificate.json").read_text())["output"]["sha256"]
    return found


def test_several_at_once_make_what_single_runs_make(
    home: Path, singles: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    seen: list[Event] = []
    swept = bw.sweep(home / "model", tmp_path / "out", recipes(home), workers=2, watch=seen.append)
    assert swept.failed == {}
    assert {name: hashes(out) for name, out in swept.outs.items()} == singles
    assert {event.name for event in seen if isinstance(event, Member)} == set(singles)
    assert "fine" in swept.best
    assert "* " in str(swept) and "Judgement" in str(swept)
    assert "do not compare" not in str(swept)
    again: list[Event] = []
    assert bw.sweep(home / "model", tmp_path / "out", recipes(home), watch=again.append).outs == swept.outs
    assert again == [], "nothing was left to do"


def test_what_all_learn_alike_is_learnt_once(home: Path, tmp_path: Path) -> None:
    calibration = {**TEXT, "source": str(home / "some.txt")}
    layers: list[dict[str, Any]] = [{"format": "int4", "group": 32}, {"format": "int8", "group": "channel"}]
    given = {
        layer["format"]: Recipe.read({"layer": layer, "calibration": calibration, "output": "float"}, "test")
        for layer in layers
    }
    seen: list[Event] = []
    swept = bw.sweep(home / "model", tmp_path / "out", given, workers=2, watch=seen.append)
    members = [event for event in seen if isinstance(event, Member)]
    learners = [event.name for event in members if "back through block" in event.of.get("label", "")]
    assert len(set(learners)) == 1, "one passed back"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["int4", "int8"]
    for name, recipe in given.items():
        alone = bw.quantize(home / "model", tmp_path / "alone" / name, recipe=recipe, threads=1)
        assert alone.certificate["output"]["sha256"] == hashes(swept.outs[name])


def test_stopped_at_any_event_it_goes_on(home: Path, singles: dict[str, dict[str, str]], tmp_path: Path) -> None:
    for least in (12, 40):
        job = library.plan_sweep(home / "model", tmp_path / "out", recipes(home), workers=2)
        events = job.run()
        for _, event in zip(range(least), events, strict=False):
            assert not (isinstance(event, Member) and event.of["event"] == "error")
        events.close()
    swept = bw.sweep(home / "model", tmp_path / "out", recipes(home))
    assert {name: hashes(out) for name, out in swept.outs.items()} == singles


def command(home: Path, out: Path, files: list[Path]) -> list[str]:
    words = [sys.executable, "-m", "bitwright.cli", "sweep", str(home / "model"), *map(str, files), "-o", str(out)]
    return [*words, "--workers", "2", "--json"]


def test_a_killed_sweep_leaves_no_process_and_goes_on(
    home: Path, singles: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    given, files = recipes(home), []
    for name in ("coarse", "careful"):
        files.append(tmp_path / f"{name}.toml")
        files[-1].write_text(given[name].dumps())
    out = tmp_path / "out"
    with subprocess.Popen(command(home, out, files), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line).get("of", {}).get("event") == "row":
                break
        children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        assert children
        process.kill()
    for pid in children:  # they end by themselves: nobody reads what they say
        subprocess.run(["tail", "--pid", str(pid), "-f", "/dev/null"], timeout=60, check=True)
    done = subprocess.run(command(home, out, files), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["event"] == "swept" and last["failed"] == {}
    assert {name: hashes(Path(path)) for name, path in last["outs"].items()} == {
        path.stem: singles[path.stem] for path in files
    }


def test_a_killed_member_is_told_and_costs_the_others_nothing(home: Path, tmp_path: Path) -> None:
    given = {name: recipe for name, recipe in recipes(home).items() if name != "fine"}
    job = library.plan_sweep(home / "model", tmp_path / "out", given, workers=1)
    events, killed = job.run(), ""
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            swept = end.value
            break
        if not killed and isinstance(event, Member) and event.of["event"] == "started":
            killed = event.name
            listed = Path(f"/proc/{os.getpid()}/task").glob("*/children")
            for pid in [int(pid) for path in listed for pid in path.read_text().split()]:
                if b"sweep.child" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
    assert list(swept.failed) == [killed] and "killed" in swept.failed[killed]
    assert set(swept.outs) == set(given) - {killed}
    assert bw.sweep(home / "model", tmp_path / "out", given).failed == {}


def test_outputs_judged_on_different_text_are_said_not_to_compare(home: Path, tmp_path: Path) -> None:
    given = {
        f"windows-{count}": Recipe.read(
            {
                "layer": LAYERS["coarse"],
                "calibration": {**TEXT, "source": str(home / "some.txt"), "heldout_windows": count},
            },
            "test",
        )
        for count in (2, 3)
    }
    assert "different held-out text: do not compare" in str(bw.sweep(home / "model", tmp_path / "out", given))


def test_what_lies_in_the_way_is_named_before_anything_runs(home: Path, tmp_path: Path) -> None:
    given = recipes(home)
    bw.quantize(home / "model", tmp_path / "out" / "coarse", recipe=given["fine"])
    with pytest.raises(RecipeError, match=r"coarse: .*coarse: was made by another recipe. Choose another -o"):
        bw.sweep(home / "model", tmp_path / "out", given)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["coarse"]
    wrong = given | {"wrong": Recipe.read({"layer": {"format": "nf4"}, "calibration": TEXT}, "wrong")}
    with pytest.raises(RecipeError, match="wrong: "):
        bw.sweep(home / "model", tmp_path / "new", wrong)
    assert not (tmp_path / "new").exists()
