"""Who may ask: this machine by its own names, or whoever holds the token; never another site through the browser."""

from __future__ import annotations

import hmac
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
COOKIE = "bitwright_token"
BODY = 4_000_000
"""Bytes a request may carry, but for uploads, which count for themselves."""
LARGE = {"/api/practice/import": 32_000_000}
"""More for what somebody takes along."""
SAFE = ("GET", "HEAD", "OPTIONS")
POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""KaTeX sets formulas with style attributes, hence 'unsafe-inline' for styles; scripts are files of ours alone."""


class Guard:
    """Middleware: Host header, cross-site requests, token, size of bodies; adds the headers that pages need.

    A page of another site can make a browser send requests here, and a name that resolves to 127.0.0.1 can make its
    own pages look local (DNS rebinding). The Host header gives the second away, Origin or Sec-Fetch-Site the first.
    """

    def __init__(self, app: ASGIApp, host: str, token: str | None) -> None:
        self.app, self.token = app, token
        self.host = f"[{host}]" if ":" in host else host
        self.hosts = None if token else {*LOOPBACK, self.host}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refuse(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, self._dressed(send))
            return
        free = scope["path"].startswith("/api/uploads/") or scope["method"] in SAFE
        await self.app(scope, receive if free else _counted(receive, _most(scope)), self._dressed(send))

    def _refuse(self, scope: Scope, headers: Headers) -> Response | None:
        """The answer to a request that may not pass; None where it may."""
        host = headers.get("host", "")
        if self.hosts is not None and _name(host) not in self.hosts:
            here = f"http://{self.host}:{(scope.get('server') or ('', 80))[1]}"
            text = f"This studio does not answer to the name {host!r}. Open {here} instead"
            return _say(scope, 421, f"{text}; behind a proxy it needs --token.")
        if headers.get("x-forwarded-prefix", "/").strip("/"):
            return _say(scope, 421, "This studio has no sub-path. Give it a name or a port of its own at the proxy.")
        if self.token is not None:
            answer = self._admit(scope, headers)
            if answer is not None:
                return answer
        if scope["method"] not in SAFE and not _same_origin(headers):
            return _say(
                scope,
                403,
                "The request came from another site, or does not say where from. Use the studio's own pages; "
                "a proxy must pass the Host header on as it came.",
            )
        length = headers.get("content-length", "0")
        uploads = scope["path"].startswith("/api/uploads/")
        if not uploads and (not length.isdecimal() or int(length) > _most(scope)):
            return _say(scope, 413, f"The request is larger than {_most(scope) / 1e6:.0f} MB.")
        return None

    def _admit(self, scope: Scope, headers: Headers) -> Response | None:
        """None for a request with the token; one that brings it in its address gets a cookie and a clean address."""
        assert self.token is not None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = dict(query).get("token")
        if given is not None and _equal(given, self.token):
            rest = urlencode([(key, value) for key, value in query if key != "token"])
            answer = RedirectResponse(scope["path"] + (f"?{rest}" if rest else ""), 303)
            answer.set_cookie(COOKIE, self.token, httponly=True, samesite="strict", max_age=30 * 86400,
                              secure=scope["scheme"] == "https")  # fmt: skip
            return answer
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        if _equal(cookie, self.token) or _equal(bearer, self.token):
            return None
        return _say(scope, 401, "This studio asks for its token: open the address that it printed when it started.")

    def _dressed(self, send: Send) -> Send:
        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("content-security-policy", POLICY)
                headers.setdefault("x-content-type-options", "nosniff")
                headers.setdefault("referrer-policy", "same-origin")
                headers.setdefault("cross-origin-opener-policy", "same-origin")
                headers.setdefault("cache-control", "no-store")
            await send(message)

        return dressed


def _most(scope: Scope) -> int:
    """Bytes that the body of a request may have."""
    return LARGE.get(scope["path"], BODY)


def _counted(receive: Receive, most: int) -> Receive:
    """`receive` that ends the request where its body grows beyond `most`, whatever its headers promised."""
    total = 0

    async def counted() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        return message if total <= most else {"type": "http.disconnect"}

    return counted


def _equal(a: str, b: str) -> bool:
    return hmac.compare_digest(a.encode(), b.encode())


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].lower()


def _same_origin(headers: Headers) -> bool:
    """Whether the request comes from a page of this studio, or from no page of a browser's tabs."""
    site = headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    if origin is None:
        return site is not None
    return urlsplit(origin).netloc == headers.get("host", "")


def _say(scope: Scope, status: int, text: str) -> Response:
    if scope["path"].startswith("/api/"):
        return JSONResponse({"error": {"kind": "Refused", "text": text, "fix": None}}, status)
    return PlainTextResponse(text + "\n", status)
