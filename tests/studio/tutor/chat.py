"""A small server that speaks OpenAI's chat completions, in good and in bad ways: what tutors are tested against."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\n\nevent: done\ndata: {}\n\n"


class Server:
    """A chat server on a free port; the model's name says how it behaves. It keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        routes = [
            Route("/v1/chat/completions", self.answer, methods=["POST"]),
            Route("/elsewhere", self.answer, methods=["GET", "POST"]),
        ]
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.listening.getsockname()[1]}/v1"
        config = uvicorn.Config(
            Starlette(routes=routes), log_level="error", lifespan="off", timeout_graceful_shutdown=1
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listening]}, daemon=True)

    def __enter__(self) -> Server:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(10)
        self.listening.close()

    async def answer(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append({"path": request.url.path, "headers": dict(request.headers), **body})
        mode = body["model"]
        if mode == "401":
            text = f"Incorrect API key provided: {request.headers.get('authorization', '')[7:]}"
            return JSONResponse({"error": {"message": text}}, 401)
        if mode == "500":
            return HTMLResponse("<html><body><h1>500</h1><script>alert(1)</script></body></html>", 500)
        if mode == "404":
            return JSONResponse({"error": "model '404' not found, try pulling it first"}, 404)
        if mode == "429":
            return JSONResponse({"error": {"message": "Rate limit reached"}}, 429)
        if mode == "302":
            return RedirectResponse("/elsewhere", 307)
        if mode == "html":
            return HTMLResponse("<h1>Welcome to nginx</h1>")
        if mode == "plain":
            choices = [{"message": {"content": "In one piece."}}]
            return JSONResponse({"model": "plain-1", "choices": choices, "usage": {"completion_tokens": 4}})
        if mode == "odd":
            return JSONResponse({"choices": "none"})
        return StreamingResponse(self.stream(mode), media_type="text/event-stream")

    async def stream(self, mode: str) -> AsyncIterator[bytes]:
        def part(text: str | None, **more: Any) -> bytes:
            choice = {"index": 0, "delta": {"content": text} if text is not None else {}, **more}
            return f"data: {json.dumps({'model': f'{mode}-1', 'choices': [choice]})}\n\n".encode()

        if mode == "silent":
            await asyncio.sleep(5)
        if mode == "keeps-alive":
            for _ in range(100):
                yield b": waiting\n\n"
                await asyncio.sleep(0.05)
        if mode == "endless":
            while True:
                yield part("more and more " * 20)
                await asyncio.sleep(0)  # lets the server see that nobody listens any more
        if mode == "flood":
            while True:
                yield b": " + b"x" * 60_000
                await asyncio.sleep(0)
        if mode == "garbage":
            yield b"data: {{{\n\n"
        if mode == "deep":
            yield b"data: " + b"[" * 100_000 + b"\n\n"
        if mode == "empty":
            yield part(None, finish_reason="stop") + b"data: [DONE]\n\n"
            return
        if mode == "fails":
            yield part("It ") + b'data: {"error": {"message": "out of memory"}}\n\n'
            return
        if mode == "hostile":
            yield part(HOSTILE)
        if mode == "slow":
            for letter in "slow":
                await asyncio.sleep(0.1)
                yield part(letter)
        yield b": hello\r\n\r\n" + b'data: {"choices": [{"index": 0, "delta": {"role": "assistant"}}]}\n\n'
        whole = part("What is the ") + part("product of nothing? é")
        for i in range(0, len(whole), 7):  # cut anywhere, also within letters
            yield whole[i : i + 7]
            await asyncio.sleep(0)
        if mode == "broken":
            return
        if mode == "torn":
            raise ConnectionError
        yield part(None, finish_reason="length" if mode == "long" else "stop")
        yield b'data: {"choices": [], "usage": {"completion_tokens": 9}}\n\ndata: [DONE]\n\n'
