"""Who may ask the studio, and who may not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from bitwright.studio.shell.guard import BODY, COOKIE, Guard

OWN = {"origin": "http://127.0.0.1:8737"}


async def echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{len(await request.body())} {request.url.query}")


def client(token: str | None = None, host: str = "127.0.0.1", base: str = "http://127.0.0.1:8737") -> TestClient:
    app = Starlette(
        routes=[Route("/{path:path}", echo, methods=["GET", "POST"])],
        middleware=[Middleware(Guard, host=host, token=token)],
    )
    return TestClient(app, base_url=base, follow_redirects=False)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]"])
def test_answers_to_its_own_names(name: str) -> None:
    assert client(base=f"http://{name}:8737").get("/").status_code == 200


@pytest.mark.parametrize("name", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.7"])
def test_refuses_a_name_that_was_rebound(name: str) -> None:
    assert client(base=f"http://{name}:8737").get("/").status_code == 421


def test_the_refusal_names_the_address_with_its_port() -> None:
    answer = client(base="http://evil.example:8737").get("/")
    assert "Open http://127.0.0.1:8737 instead" in answer.text
    assert "--token" in answer.text
    assert "Open http://[::1]:8737 instead" in client(host="::1", base="http://evil.example:8737").get("/").text


def test_behind_a_proxy_with_a_name_of_its_own() -> None:
    """It passes the Host header on; HTTPS ends at it."""
    proxied = client(token="secret", base="https://studio.example")
    answer = proxied.get("/learn?token=secret")
    assert answer.headers["location"] == "/learn"
    assert "Secure" in answer.headers["set-cookie"]
    assert proxied.post("/", headers={"origin": "https://studio.example"}).status_code == 200
    other = client(token="secret", base="http://127.0.0.1:8737")
    bearer = {"authorization": "Bearer secret", "origin": "https://studio.example"}
    refused = other.post("/", headers=bearer)
    assert refused.status_code == 403 and "a proxy must pass the Host header on" in refused.text


def test_below_a_path_it_says_that_it_has_none() -> None:
    answer = client().get("/", headers={"x-forwarded-prefix": "/bitwright"})
    assert answer.status_code == 421 and "no sub-path" in answer.text
    assert client().get("/", headers={"x-forwarded-prefix": "/"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (OWN, 200),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site", **OWN}, 403),
        ({"sec-fetch-site": "cross-site", **OWN}, 403),
    ],
)
def test_another_site_cannot_post(headers: dict[str, str], status: int) -> None:
    assert client().post("/", headers=headers).status_code == status


def test_reading_needs_no_origin() -> None:
    assert client().get("/", headers={"sec-fetch-site": "cross-site"}).status_code == 200


def test_a_large_body_is_refused_before_it_is_read() -> None:
    assert client().post("/", headers=OWN, content=b"x" * (BODY + 1)).status_code == 413
    assert client().post("/", headers={**OWN, "content-length": "-1"}).status_code == 413


def test_a_body_that_grows_beyond_its_promise_is_cut_off() -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(BODY // 1000 + 2):
            yield b"x" * 1000

    with pytest.raises(ClientDisconnect):
        client().post("/", headers=OWN, content=endless())


def test_a_token_is_demanded_and_moves_into_a_cookie() -> None:
    asking = client(token="secret", host="0.0.0.0", base="http://board.local:8737")
    assert asking.get("/").status_code == 401
    assert asking.get("/?token=wrong").status_code == 401
    answer = asking.get("/learn?token=secret&x=1")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/learn?x=1"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=secret") and "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert asking.get("/learn").status_code == 200
    fresh = client(token="secret", host="0.0.0.0", base="http://board.local:8737")
    assert fresh.get("/", headers={"authorization": "Bearer secret"}).status_code == 200


def test_a_token_does_not_lift_the_other_rules() -> None:
    asking = client(token="secret", host="0.0.0.0", base="http://board.local:8737")
    headers = {"authorization": "Bearer secret", "origin": "http://evil.example"}
    assert asking.post("/", headers=headers).status_code == 403


def test_pages_may_load_nothing_from_elsewhere() -> None:
    headers = client().get("/").headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_refusals_to_scripts_are_json() -> None:
    answer = client().post("/api/progress", headers={"origin": "http://evil.example"})
    assert answer.json()["error"]["text"].startswith("The request came from another site")


def test_what_somebody_takes_along_may_be_larger() -> None:
    assert client().post("/api/practice/import", headers=OWN, content=b"x" * (BODY + 1)).status_code == 200
    assert client().post("/api/practice/import", headers=OWN, content=b"x" * 32_000_001).status_code == 413
    assert client().post("/api/practice/a/run", headers=OWN, content=b"x" * (BODY + 1)).status_code == 413
