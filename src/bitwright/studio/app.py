"""The web app: rooms, errors in words, and what starts and stops with it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

from bitwright.errors import BitwrightError, InputError, ResourceError
from bitwright.studio import api, learning, pages, practice, problems, tutoring, views
from bitwright.studio.config import Config
from bitwright.studio.db import open_database
from bitwright.studio.guard import Guard
from bitwright.studio.house import House, build
from bitwright.studio.templates import BUILT, manifest

FOREVER = "public, max-age=31536000, immutable"
"""Bundled files change their names with their content."""
WARM = 0.5
"""Seconds after the start when what a first visit would wait for is made ready."""


class Bundle(StaticFiles):
    """The bundle, kept by browsers for good."""

    def file_response(self, *args: Any, **extra: Any) -> Response:
        answer = super().file_response(*args, **extra)
        answer.headers["cache-control"] = FOREVER
        return answer


def create(config: Config) -> Starlette:
    """The app for `config`. Raises ResourceError where pages are not built, or the database cannot be opened."""
    manifest()
    config.data.mkdir(parents=True, exist_ok=True)
    database = open_database(config.database, config.data)
    parts = build(config, database)
    quick = parts.quick

    @contextlib.asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        await quick.start()
        await parts.runs.start()
        await parts.judge.start()
        warming = asyncio.create_task(_warm(parts))
        try:
            yield
        finally:
            warming.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await warming
            await parts.judge.close()
            await parts.runs.close()
            await quick.close()
            database.close()

    routes: list[BaseRoute] = [
        Mount("/static", Bundle(directory=BUILT / "web"), name="static"),
        *learning.routes,
        *api.routes,
        *practice.routes,
        *problems.routes,
        *tutoring.routes,
        *pages.routes,
    ]
    app = Starlette(
        routes=routes,
        lifespan=life,
        middleware=[
            Middleware(Guard, host=config.host, token=config.token),
            Middleware(GZipMiddleware, minimum_size=1000, compresslevel=6),
        ],
        exception_handlers={
            HTTPException: _http,
            BitwrightError: _deliberate,
            OSError: _disk,
            Exception: _unforeseen,
        },
    )
    app.state.house = parts
    return app


async def _warm(parts: House) -> None:
    """What a first visit would wait for; a studio that ends at once has not begun with it."""
    await asyncio.sleep(WARM)
    await parts.judge.warm()
    await learning.warm(parts)


async def _answer(request: Request, status: int, title: str, kind: str, text: str, fix: str | None) -> Response:
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": {"kind": kind, "text": text, "fix": fix}}, status)
    return await views.page(request, "error.html", "", status, title=title, text=text, fix=fix)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        text = f"There is nothing at {request.url.path}."
        return await _answer(request, 404, "Not here", "NotFound", text, None)
    return await _answer(request, error.status_code, "That did not work", "HTTP", f"{error.detail}.", None)


async def _deliberate(request: Request, error: Exception) -> Response:
    assert isinstance(error, BitwrightError)
    status = 400 if isinstance(error, InputError) else 503 if isinstance(error, ResourceError) else 500
    title = "That did not work" if status == 400 else "The studio cannot go on here"
    text = f"{error.where}: {error.what}" if error.where else error.what
    return await _answer(request, status, title, type(error).__name__, text.rstrip(".") + ".", error.fix)


async def _disk(request: Request, error: Exception) -> Response:
    assert isinstance(error, OSError)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    what = "The disk is full" if full else f"The file system refused ({error.strerror or error})"
    fix = "Free some space; what was finished is kept" if full else "Check the folder and its permissions"
    text = f"{what}: {error.filename or request.app.state.house.config.data}."
    return await _answer(request, 507 if full else 500, "The studio cannot write", "ResourceError", text, fix)


async def _unforeseen(request: Request, error: Exception) -> Response:
    text = f"An error that nobody foresaw ({type(error).__name__}). The terminal has the details; nothing was lost."
    return await _answer(request, 500, "Our fault", "Unforeseen", text, "Report it with the lines from the terminal")
