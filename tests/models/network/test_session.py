"""Sessions run real networks in ONNX Runtime; latency and profile say where the time went."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from bitwright.errors import DataError, FileError, ModelError
from bitwright.files.onnx import write
from bitwright.models.network.graph import Graph
from bitwright.models.network.session import Session, latency, profile
from tests import networks
from tests.integers import quantized
from tests.networks import KINDS


def test_run_from_memory_and_file(tmp_path: Path) -> None:
    model = KINDS["mlp"]()
    feeds = networks.feeds(model)
    write(model, tmp_path / "m.onnx")
    a, b = Session(model), Session(tmp_path / "m.onnx", threads=1, optimize=False)
    assert a.inputs == ["x"] and a.outputs == ["t7"]
    left, right = a.run(feeds), b.run(feeds, ["t7"])
    assert np.abs(left["t7"] - right["t7"]).max() < 1e-5


def test_onnx_runtime_collects_no_reports_about_sessions(tmp_path: Path) -> None:
    """It would keep what it has not sent yet in the user's cache."""
    write(KINDS["mlp"](), tmp_path / "m.onnx")
    told = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "CI", "TF_BUILD", "GITHUB_ACTIONS"}
    home = {k: v for k, v in os.environ.items() if k not in told} | {"HOME": str(tmp_path / "home")}
    code = f"from bitwright.models.network.session import Session; Session({str(tmp_path / 'm.onnx')!r})"
    subprocess.run([sys.executable, "-c", code], env=home, check=True)
    assert not (tmp_path / "home").exists()


def test_what_cannot_run_is_said_in_one_line(tmp_path: Path) -> None:
    model = KINDS["mlp"]()
    session = Session(model)
    for feeds, what in (
        ({}, "no value for input 'x'"),
        ({"x": np.zeros((2, 13), np.float32)}, "refuses the inputs"),
        ({"x": np.zeros((2, 12), np.int64)}, "refuses the inputs"),
    ):
        with pytest.raises(DataError, match=what) as caught:
            session.run(feeds)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileError, match="no such file"):
        Session(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="ONNX Runtime refuses it"):
        Session(tmp_path / "bad.onnx")
    model.graph.node[0].op_type = "Jabberwock"
    with pytest.raises(ModelError, match="Jabberwock"):
        Session(model)


def test_profile_counts_kernels_and_conversions() -> None:
    model = KINDS["residual"]()
    feeds = networks.feeds(model)
    folder = Path(tempfile.gettempdir())
    before = {path.name for path in folder.glob("*trace*")}
    floats, integers = profile(model, feeds, 3), profile(quantized(Graph(KINDS["residual"]()), feeds), feeds, 3)
    assert floats.integer_share == 0 and not floats.integer_nodes and len(floats.float_products) == 6
    assert floats.conversions == 0 and floats.total > 0
    assert integers.counts["QLinearConv"] == 5 and integers.conversions == 1 and not integers.float_products
    assert 0.3 < integers.integer_share < 1 and 0 < integers.conversion_share < 0.5
    assert len(integers.integer_nodes) == 5 + 2 + 1 + 1
    assert {path.name for path in folder.glob("*trace*")} == before


def test_a_network_whose_products_stay_float_shows_it() -> None:
    model = KINDS["upsample"]()
    seen = profile(quantized(Graph(model), networks.feeds(model)), networks.feeds(model), 2)
    assert seen.float_products == ("convtranspose2", "convtranspose5") and seen.conversions == 4


def test_latency_is_interleaved_and_relative() -> None:
    model = KINDS["residual"]()
    feeds = networks.feeds(model)
    same = latency(model, model, feeds, 20, warmup=2)
    assert same.runs == 20 and same.threads == 1 and same.float_ms > 0
    assert 0.4 < same.ratio < 2.5 and same.ratio == same.float_ms / same.integer_ms
