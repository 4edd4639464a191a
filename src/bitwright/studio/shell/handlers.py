"""What is answered where a request raised: a page in words, or JSON for those who asked an API."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bitwright.errors import BitwrightError, InputError, ResourceError
from bitwright.studio.shell.faults import sentence
from bitwright.studio.shell.page import page


async def _answer(request: Request, status: int, title: str, kind: str, text: str, fix: str | None) -> Response:
    if request.url.path.startswith("/api/"):
        return JSONResponse({"error": {"kind": kind, "text": text, "fix": fix}}, status)
    return await page(request, "error.html", "", status, title=title, text=text, fix=fix)


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
    return await _answer(request, status, title, type(error).__name__, sentence(error), error.fix)


async def _disk(request: Request, error: Exception) -> Response:
    assert isinstance(error, OSError)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    what = "The disk is full" if full else f"The file system refused ({error.strerror or error})"
    fix = "Free some space; what was finished is kept" if full else "Check the folder and its permissions"
    text = f"{what}: {error.filename or request.app.state.house.config.data}."
    return await _answer(request, 507 if full else 500, "The studio cannot write", "ResourceError", text, fix)


async def _unforeseen(request: Request, error: Exception) -> Response:
    text = f"An unexpected error ({type(error).__name__}). The terminal has the details; nothing was lost."
    return await _answer(request, 500, "Our fault", "Unforeseen", text, "Report it with the lines from the terminal")


HANDLERS: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    HTTPException: _http,
    BitwrightError: _deliberate,
    OSError: _disk,
    Exception: _unforeseen,
}
