"""Every program of tests/judge/hostile, behind the walls of both tiers, as root and as an ordinary user.

Each says in its head what it tries and which outcomes are containment: a verdict, SIGSYS, or nothing (it returned an
empty list of what it managed). After each an honest program must be served at once, by the same zygote.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bitwright

HERE = Path(__file__).parent
NOBODY = 65534
QUICK = 3.0
"""Seconds within which an honest program is answered after a hostile one, on a machine that others use, too."""


def programs() -> dict[str, tuple[dict[str, str], dict[str, Any]]]:
    """Name -> what its head says, and what the siege is told."""
    tools = (HERE / "hostile/_tools.py").read_text()
    found = {}
    for path in sorted((HERE / "hostile").glob("[a-z]*.py")):
        text = path.read_text()
        head = dict(line[2:].split(": ", 1) for line in text.splitlines()[1:] if line.startswith("# ") and ": " in line)
        code = tools + text
        if head.get("generates") == "source":
            space: dict[str, Any] = {}
            exec(text, space)
            code = space["SOURCE"]
        limits = {"clock": float(head.get("wall", 4)), "cpu": float(head.get("cpu", 1))}
        told = {"name": path.stem, "code": code, "limits": limits, "times": int(head.get("times", 1))}
        if head.get("machine", platform.machine()) == platform.machine():
            found[path.stem] = head, told
    return found


def chosen(which: str) -> dict[str, tuple[dict[str, str], dict[str, Any]]]:
    """All programs, or those that no clock must stop: that works the same behind all walls, and takes its time."""
    return {name: one for name, one in programs().items() if which == "all" or "TLE" not in one[0]["outcome"]}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A copy of the judge, a problem and the siege that everybody may read, so that only the walls protect it."""
    folder = Path(tempfile.mkdtemp(prefix="siege"))
    source, package = Path(bitwright.__file__).parent, folder / "src/bitwright"
    shutil.copytree(source / "judge", package / "judge", ignore=shutil.ignore_patterns("__pycache__"))
    problem = "content/problems/product-except-self"
    shutil.copytree(source / problem, package / problem, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "__init__.py").write_text("")
    shutil.copy(HERE / "siege.py", folder)
    for name in ("all", "swift"):
        (folder / f"{name}.json").write_text(json.dumps([told for _, told in chosen(name).values()]))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    yield folder
    shutil.rmtree(folder)


def interpreter(user: int) -> str:
    """A Python that a user can run."""
    for python in (sys.executable, "/usr/bin/python3"):
        ask = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        try:
            if (
                subprocess.run(
                    ask, user=user if os.getuid() == 0 else None, cwd="/", stderr=subprocess.DEVNULL
                ).returncode
                == 0
            ):
                return python
        except OSError:
            continue
    pytest.skip("no Python 3.11 that an ordinary user may run")


def faults(head: dict[str, str], told: dict[str, Any]) -> list[str]:
    """What is wrong with what a program came to."""
    wanted, found = head["outcome"].split(), []
    fine = told["verdict"] in wanted or ("nothing" in wanted and told["verdict"] == "AC" and told["results"] == [[]])
    fine |= "SIGSYS" in wanted and told["signal"] == signal.SIGSYS
    if not fine:
        found.append(f"{told['verdict']} ({told['reason']}) {told['results']}, not {head['outcome']}")
    if told["honest"] != {"results": [[4, 5]]} or told["took"] > QUICK:
        found.append(f"the next honest run came to {told['honest']} in {told['took']:.1f} s")
    if told["left"]:
        found.append(f"left {len(told['left'])} processes over")
    if not told["same"]:
        found.append("its zygote died")
    if told["memory"] > 400 or told["output"] > 140_000:
        found.append(f"took {told['memory']} MB, wrote {told['output']} bytes")
    return [f"{told['name']}: {fault}" for fault in found]


@pytest.mark.slow
@pytest.mark.parametrize("tier", ["A", "B"])
@pytest.mark.parametrize("who", ["root", "ordinary user"])
def test_the_walls_hold(place: Path, tier: str, who: str) -> None:
    if who == "root" and os.getuid() != 0:
        pytest.skip("only root can be root")
    user = 0 if who == "root" else NOBODY if os.getuid() == 0 else os.getuid()
    which = "all" if (who, tier) in (("root", "A"), ("ordinary user", "B")) else "swift"
    command = [
        interpreter(NOBODY),
        "-P",
        "-B",
        str(place / "siege.py"),
        tier,
        str(place / "src"),
        str(place / f"{which}.json"),
    ]
    given = {"user": user, "group": user, "extra_groups": []} if os.getuid() == 0 else {}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=place, timeout=300, env={"PATH": "/usr/bin:/bin"}, **given
    )
    assert done.returncode == 0, done.stderr[-3000:]
    *told, end = json.loads(done.stdout)
    known = chosen(which)
    assert [one["name"] for one in told] == [*known]
    wrong = [fault for one in told for fault in faults(known[one["name"]][0], one)]
    assert not wrong, "\n".join(wrong)
    assert end["left"] == []
    assert end["user"] == user


def test_there_are_many() -> None:
    assert len(list((HERE / "hostile").glob("[a-z]*.py"))) >= 36
    assert all({"outcome"} <= set(head) for head, _ in programs().values())
