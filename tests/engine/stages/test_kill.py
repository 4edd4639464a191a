"""A stage that is killed goes on with the same command, to the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bitwright.engine.journal import NAME
from tests import jobs, tiny

pytestmark = pytest.mark.slow


def begin(source: Path, text: Path, out: Path) -> subprocess.Popen[str]:
    words = ["prune", str(source), "--keep", "0.3", "--cut", "width,heads,layers", "--multiple", "32", "--windows", "8"]
    words += ["--calib", str(text), "--length", "32", "--heldout-windows", "2", "--threads", "1", "-o", str(out)]
    return subprocess.Popen(
        [sys.executable, "-m", "bitwright", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def lines(out: Path) -> int:
    journal = out.with_name(f"{out.name}.partial") / NAME
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def test_killed_again_and_again_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    source, text = tiny.make("llama", tmp_path / "source", num_hidden_layers=4), jobs.text(tmp_path)
    whole = begin(source, text, tmp_path / "whole")
    told, _ = whole.communicate()
    assert whole.returncode == 0, told
    out, killed = tmp_path / "out", []
    for wanted in (2, 6, 8):
        process = begin(source, text, out)
        while process.poll() is None and lines(out) < wanted:
            time.sleep(0.002)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            killed.append(lines(out))
        process.communicate()
        assert not out.exists()
    assert len(killed) == 3
    assert sorted(set(killed)) == killed, "each run went on from where the one before was killed"
    last = begin(source, text, out)
    told, _ = last.communicate()
    assert last.returncode == 0, told
    assert "resuming" in told
    for name in ("model.safetensors", "config.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not out.with_name("out.partial").exists()
