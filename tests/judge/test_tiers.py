"""Which walls are taken, and that nothing runs where none stand."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bitwright.judge import landlock, namespaces, tiers
from bitwright.judge.pool import Pool, Unavailable
from bitwright.judge.syscalls import machine


@pytest.fixture(autouse=True)
def unknown(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a fresh process."""
    monkeypatch.setattr(tiers, "_found", None)
    return


def test_this_machine_has_walls_that_hold() -> None:
    tier = tiers.probe()
    assert tier.name in ("A", "B")
    assert tier.words == tiers.WALLS[tier.name]
    assert tiers.probe() is tier
    with tiers.open_pool(1) as pool:
        assert pool.tier == tier.name


@pytest.mark.parametrize("letter", ["A", "B"])
def test_the_self_test_finds_nothing(letter: str) -> None:
    assert tiers.attack(letter) is None


def test_the_second_tier_is_taken_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "attack", lambda letter: "unshare: not permitted" if letter == "A" else None)
    tier = tiers.probe()
    assert tier.name == "B"
    assert tier.reason == "tier A: unshare: not permitted"
    assert "seccomp=unconfined" in tier.fix


def test_without_walls_nothing_runs_and_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "attack", lambda letter: f"a hostile program could fork ({letter})")
    tier = tiers.probe()
    assert tier.name == ""
    with pytest.raises(Unavailable, match=r"fork \(A\); tier B: .*fork \(B\).*Linux 6\.2"):
        tiers.open_pool()


def test_old_kernels_are_told_their_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "attack", lambda letter: "no namespaces")
    monkeypatch.setattr(landlock, "abi", lambda machine: 2)
    assert "the kernel has Landlock 2, 3 is needed" in tiers.probe().reason


def test_other_systems_are_told_what_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "machine", lambda: None)
    tier = tiers.probe()
    assert tier.name == ""
    assert "x86_64 or aarch64" in tier.fix


@pytest.mark.parametrize("wall", ["seccomp", "landlock"])
def test_a_missing_wall_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wall: str) -> None:
    """A zygote whose filter or Landlock does nothing: the self-test gets through, and says where."""
    name = {"seccomp": "seccomp.install", "landlock": "landlock.restrict"}[wall]
    patch = f"from bitwright.judge import landlock, seccomp; {name} = lambda *_: None; from bitwright.judge.zygote"
    monkeypatch.setattr("bitwright.judge.pool.PROGRAM", PROGRAM.replace("from bitwright.judge.zygote", patch))
    found = tiers.attack("B")
    assert found is not None
    assert {"seccomp": "socket", "landlock": "/etc/passwd"}[wall] in found


PROGRAM = sys.modules["bitwright.judge.pool"].PROGRAM


def test_a_wall_that_cannot_stand_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    patch = "from bitwright.judge import landlock; landlock.FILES = {1: 40}; from bitwright.judge.zygote"
    monkeypatch.setattr("bitwright.judge.pool.PROGRAM", PROGRAM.replace("from bitwright.judge.zygote", patch))
    with Pool("B", 1) as pool, pytest.raises(Unavailable, match="landlock"):
        pool.warm("plain")


def test_hidden_folders_stay_hidden_however_deep(tmp_path: Path) -> None:
    """As where the interpreter's shared library lies in /usr/local/lib, above the packages."""
    packages = tmp_path / "lib/python3.11/site-packages"
    (packages / "bitwright").mkdir(parents=True)
    (tmp_path / "lib/libpython.so").touch()
    (tmp_path / "lib/python3").symlink_to("python3.11")
    (tmp_path / "lib/python3.11/os.py").touch()
    folders = [str(tmp_path / "lib"), str(packages / "numpy")]
    found = namespaces.readable_parts(folders, [str(packages)])
    assert found == [
        str(tmp_path / "lib/libpython.so"),
        str(tmp_path / "lib/python3.11/os.py"),
        str(packages / "numpy"),
    ]


@pytest.mark.parametrize("tier", ["A", "B"])
def test_the_product_is_hidden_where_it_lies_among_what_is_readable(tmp_path: Path, tier: str) -> None:
    options = {"hidden": [], "own": ["/usr/lib/x/src"]}
    from bitwright.judge.zygote import _hidden

    assert _hidden(["/usr/lib"], options) == ["/usr/lib/x/src"]
    assert _hidden(["/usr/lib"], {**options, "hidden": ["/usr/lib/x"]}) == ["/usr/lib/x"]
    assert _hidden(["/usr/share"], options) == []


def test_landlock_is_new_enough_here() -> None:
    here = machine()
    assert here is not None
    assert landlock.abi(here) >= tiers.OLDEST
    assert os.uname().sysname == "Linux"
