"""Where the studio listens, and the address it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from bitwright.errors import InputError, ResourceError
from bitwright.studio.shell.config import Config
from bitwright.studio.shell.serve import is_local, listen, server_config, url


def test_a_port_in_use_is_said_with_a_way_out() -> None:
    taken = listen("127.0.0.1", 0)
    port = taken.getsockname()[1]
    with pytest.raises(ResourceError, match="in use") as caught:
        listen("127.0.0.1", port)
    assert "--port" in str(caught.value)
    taken.close()


def test_an_address_that_is_not_this_machines_is_said() -> None:
    with pytest.raises((InputError, ResourceError)):
        listen("192.0.2.1", 0)


@pytest.mark.parametrize(
    ("host", "local"), [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("board", False)]
)
def test_what_counts_as_this_machine(host: str, local: bool) -> None:
    assert is_local(host) is local


def test_the_address_carries_the_token_beyond_this_machine() -> None:
    assert url(Config(host="::1"), 8000) == "http://[::1]:8000/"
    assert url(Config(host="board", token="t"), 8000) == "http://board:8000/?token=t"


@pytest.mark.parametrize(("peer", "scheme"), [("127.0.0.1", "https"), ("192.0.2.7", "http")])
def test_a_proxy_on_this_machine_says_that_it_was_asked_by_https(peer: str, scheme: str) -> None:
    """Links in feeds are whole addresses; nobody else may say so."""

    async def echo(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(request.base_url))

    config = server_config(Starlette(routes=[Route("/", echo)]))
    config.load()
    asking = TestClient(config.loaded_app, base_url="http://studio.example", client=(peer, 50_000))
    assert asking.get("/", headers={"x-forwarded-proto": "https"}).text == f"{scheme}://studio.example/"


def test_elsewhere_without_a_token_is_not_served(tmp_path: Path) -> None:
    words = [
        sys.executable, "-m", "bitwright.cli", "studio", "--host", "0.0.0.0", "--port", "0", "--no-browser", "--data",
        str(tmp_path),
    ]  # fmt: skip
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.terminate()
    assert "?token=" in line and len(line.split("?token=")[1].strip()) >= 20
