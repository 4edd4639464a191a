"""What the tutor answers, as it is written.

What is sent goes to the named address and nowhere else: redirects are not followed, proxies of the environment are
not used.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx

from bitwright.studio.tutor.endpoint import Endpoint

CONNECT, FIRST, BETWEEN, WHOLE = 5.0, 60.0, 30.0, 180.0
"""Seconds: to connect, to the first words, from words to words, for all of it. Local models take long to begin."""
MOST = 12_000
"""Characters that an answer may have."""
MOST_BYTES = 4_000_000
"""Bytes that are read for it."""
_ADDRESS = "Check the address in Settings; it often ends with /v1"


class _Failed(Exception):
    """Why there is no answer, or no more of it, and what helps."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what, self.fix = what, fix


async def answer_of(server: Endpoint, talk: list[dict[str, str]]) -> AsyncIterator[dict[str, Any]]:
    """The answer as it is written: `text` {text}, then `done` {model, tokens, cut} or `error` {what, fix}."""
    written, whole = 0, time.monotonic() + WHOLE
    told: dict[str, Any] = {"model": server.model, "tokens": None, "cut": False}
    answer = _answer(server, talk, told)
    try:
        while True:
            left = whole - time.monotonic()
            try:
                async with asyncio.timeout(min(left, BETWEEN if written else FIRST)):
                    text = await anext(answer)
            except StopAsyncIteration:
                break
            except TimeoutError:
                wait = WHOLE if left < BETWEEN else BETWEEN if written else FIRST
                raise _Failed(
                    f"The tutor said nothing for {wait:.0f} s", "Ask again, or choose a smaller model"
                ) from None
            room = MOST - written
            written += len(text)
            yield {"event": "text", "text": text[:room]}
            if written >= MOST:
                told["cut"] = True
                break
        if not written:
            raise _Failed("The tutor's answer is empty", "Ask again, or choose another model in Settings")
        yield {"event": "done", **told}
    except _Failed as error:
        yield {"event": "error", "what": f"{_hidden(error.what, server)}.", "fix": error.fix}
    finally:
        await answer.aclose()


async def _answer(server: Endpoint, talk: list[dict[str, str]], told: dict[str, Any]) -> AsyncGenerator[str, None]:
    """The words of an answer as they come; what else is known of it goes to `told`. _Failed says what went wrong."""
    headers = {"accept": "text/event-stream", "accept-encoding": "identity", "user-agent": "bitwright"}
    if server.key:
        headers["authorization"] = f"Bearer {server.key}"
    body = {"model": server.model, "messages": talk, "stream": True, "max_tokens": 1200, "temperature": 0.3}
    timeout = httpx.Timeout(WHOLE, connect=CONNECT)
    try:
        async with (
            httpx.AsyncClient(timeout=timeout, follow_redirects=False, trust_env=False) as client,
            client.stream("POST", f"{server.address}/chat/completions", json=body, headers=headers) as answer,
        ):
            if answer.status_code != 200:
                raise _refused(server, answer.status_code, await _beginning(answer))
            kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind == "application/json":  # a server that does not stream
                yield _plain(_parsed(await _beginning(answer, MOST_BYTES)), told)
                return
            if kind != "text/event-stream":
                raise _Failed(
                    f"What answers at {server.address} is no chat server ({kind or 'no content type'})", _ADDRESS
                )
            ended = False
            async for line in _lines(answer):
                if not line.startswith("data:"):
                    continue
                text = line[5:].strip()
                if text == "[DONE]":
                    return
                part, last = _part(_parsed(text), told)
                ended = ended or last
                if part:
                    yield part
            if not ended:
                raise _Failed("The answer broke off", "Ask again")
    except httpx.ConnectTimeout as error:
        raise _Failed(f"{server.address} does not answer", f"Is it reachable from here? {_ADDRESS}") from error
    except httpx.ConnectError as error:
        raise _Failed(
            f"Nobody answers at {server.address}", f"Start the server (Ollama: ollama serve). {_ADDRESS}"
        ) from error
    except httpx.TimeoutException as error:
        raise _Failed("The tutor takes too long", "Ask again, or choose a smaller model") from error
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ValueError) as error:
        raise _Failed(f"The connection to the tutor broke ({type(error).__name__})", "Ask again") from error


def _refused(server: Endpoint, status: int, text: str) -> _Failed:
    """A status that is not 200, in words."""
    try:
        said = json.loads(text)["error"]
        said = str(said["message"] if isinstance(said, dict) else said)
    except (ValueError, KeyError, TypeError, RecursionError):
        said = ""
    reason = f": {' '.join(said.split())[:300]}" if said else ""
    if status in (401, 403):
        return _Failed(f"The server refuses the key ({status}){reason}", "Enter the key again in Settings")
    if status == 404:
        return _Failed(f"There is no such address or model ({status}){reason}", f"{_ADDRESS}, and the model's name")
    if status == 429:
        return _Failed(
            f"The server wants fewer questions ({status}){reason}", "Wait a while, and look at your account there"
        )
    if 300 <= status < 400:
        what = f"The server sends elsewhere ({status}), which is not followed"
        return _Failed(what, "Enter the address it leads to in Settings")
    if status >= 500:
        return _Failed(f"The server failed ({status}){reason}", "Ask again; its own log says more")
    return _Failed(f"The server does not accept the question ({status}){reason}", "Check the model's name in Settings")


def _hidden(text: str, server: Endpoint) -> str:
    """A text without the key: servers quote it when they refuse it."""
    return text.replace(server.key, "(key)").rstrip(".") if server.key else text.rstrip(".")


async def _beginning(answer: httpx.Response, most: int = 20_000) -> str:
    """The beginning of a body."""
    parts = bytearray()
    async for part in answer.aiter_raw():
        parts += part
        if len(parts) >= most:
            break
    return bytes(parts[:most]).decode(errors="replace")


async def _lines(answer: httpx.Response) -> AsyncIterator[str]:
    """Lines of a stream, as long as it keeps within its bounds."""
    rest, read = bytearray(), 0
    async for part in answer.aiter_raw():
        read += len(part)
        if read > MOST_BYTES:
            raise _Failed("The server sends without end", "Choose another model in Settings")
        rest += part
        *whole, last = rest.split(b"\n")
        rest = bytearray(last)
        for line in whole:
            yield line.decode(errors="replace").rstrip("\r")
    if rest:
        yield rest.decode(errors="replace")


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _Failed("The server's answer cannot be read", _ADDRESS) from error
    if not isinstance(found, dict):
        raise _Failed("The server's answer cannot be read", _ADDRESS)
    if found.get("error"):
        said = found["error"].get("message", "") if isinstance(found["error"], dict) else found["error"]
        raise _Failed(f"The server failed: {' '.join(str(said).split())[:300]}", "Ask again")
    return found


def _part(found: dict[str, Any], told: dict[str, Any]) -> tuple[str, bool]:
    """The words of one event, and whether it says that they are the last."""
    match found:
        case {"usage": {"completion_tokens": int(tokens)}}:
            told["tokens"] = tokens
    match found:
        case {"model": str(model)} if model:
            told["model"] = model[:200]
    match found:
        case {"choices": [{"delta": dict(delta), **rest}, *_]}:
            text = delta.get("content")
            told["cut"] = told["cut"] or rest.get("finish_reason") == "length"
            return text if isinstance(text, str) else "", bool(rest.get("finish_reason"))
    return "", False


def _plain(found: dict[str, Any], told: dict[str, Any]) -> str:
    """The words of an answer that came in one piece."""
    match found:
        case {"choices": [{"message": {"content": str(text)}}, *_]}:
            _part({**found, "choices": []}, told)
            return text
    raise _Failed("The server's answer cannot be read", _ADDRESS)
