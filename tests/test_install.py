"""The install script says beforehand what is downloaded, and takes an index only where it answers."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "install.py"
SIZES = {"/torch/": 10, "/files/torch-2.0%2Bcpu-py3-none-any.whl": 190_000_000}


class Index(BaseHTTPRequestHandler):
    """Answers for what it has."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path in SIZES else 404)
        if self.path in SIZES:
            self.send_header("Content-Length", str(SIZES[self.path]))
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def index() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def package(name: str, url: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "version": "2.0"}, "download_info": {"url": url}}


def test_an_index_that_answers_is_used(script: ModuleType, index: str) -> None:
    assert script.reachable(index)
    assert script.reachable(f"{index}/")


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "https://index.invalid/whl/cpu", "no address"])
def test_an_index_that_does_not_is_left_out(address: str, script: ModuleType) -> None:
    assert not script.reachable(address)


def test_the_size_of_a_download_is_asked_for(script: ModuleType, index: str, tmp_path: Path) -> None:
    assert script.size(f"{index}/files/torch-2.0%2Bcpu-py3-none-any.whl") == 190_000_000
    assert script.size(f"{index}/files/other.whl") is None
    assert script.size((tmp_path / "here.whl").as_uri()) == 0


def test_what_is_downloaded_is_told_with_its_size(script: ModuleType) -> None:
    packages = [package(name, "") for name in ("torch", "small", "here", "unknown")]
    [line] = script.told(packages, [190_000_000, 1_000_000, 0, None])
    assert line == "downloading 3 packages, 191 MB and 1 of unknown size: torch 2.0 190 MB"
    assert script.told([package("a", "")], [0]) == ["installing 1 packages; all of them are on this machine"]
    assert script.told([], []) == []


def test_the_build_for_gpus_is_called_by_its_name(script: ModuleType) -> None:
    lines = script.told([package("torch", ""), package("nvidia-cublas", "")], [900_000_000, 600_000_000])
    assert lines[0].startswith("downloading 2 packages, 1,500 MB: torch 2.0 900 MB, nvidia-cublas 2.0 600 MB")
    assert "TORCH_INDEX" in lines[1]
