"""What JSON APIs of the studio share: bodies that are checked, errors in words, server-sent events."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from bitwright.errors import BitwrightError, InputError
from bitwright.studio.shell.faults import sentence, status_of

Handler = Callable[[Request], Awaitable[Response]]


class Strict(BaseModel):
    """The body of a request."""

    model_config = ConfigDict(extra="forbid")


Body = TypeVar("Body", bound=BaseModel)


def answered(handler: Handler) -> Handler:
    """The handler, with deliberate errors as JSON and the status that fits."""

    @functools.wraps(handler)
    async def answering(request: Request) -> Response:
        try:
            return await handler(request)
        except BitwrightError as error:
            return JSONResponse({"error": words(error)}, status_of(error))
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it

    return answering


def words(error: BitwrightError) -> dict[str, Any]:
    """An error as pages show it: kind, text, fix, and the key of the recipe that is at fault, where it is known."""
    key = getattr(error, "key", None)
    return {"kind": type(error).__name__, "text": sentence(error), "fix": error.fix, "key": key}


async def body_of(request: Request, kind: type[Body]) -> Body:
    """The body of a request as `kind`, an empty one as {}; InputError says what does not fit."""
    raw = await request.body()
    try:
        return kind.model_validate_json(raw or b"{}")
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        what = f"{first['msg'][:1].lower()}{first['msg'][1:]}"
        raise InputError(what, where=where, fix="Correct it and send it again") from error


def stream(events: AsyncIterator[str], after: Callable[[], Any] | None = None) -> Response:
    """Server-sent events as an answer; `after` is called when it has ended."""
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    task = BackgroundTask(after) if after else None
    return StreamingResponse(events, media_type="text/event-stream", headers=headers, background=task)


def data(event: dict[str, Any], line: int | None = None) -> str:
    """One server-sent event of JSON; `line` is what a browser that connects again names."""
    head = "" if line is None else f"id: {line}\n"
    return f"{head}data: {json.dumps(event, separators=(',', ':'))}\n\n"


async def told(events: AsyncIterator[dict[str, Any]]) -> Response:
    """The events of a worker's call. An error before the first one has a status of its own."""
    first: dict[str, Any] | None = None
    with contextlib.suppress(StopAsyncIteration):
        first = await anext(events)

    async def rest() -> AsyncIterator[str]:
        if first is not None:
            yield data(first)
        try:
            async with contextlib.aclosing(events) as found:  # type: ignore[type-var]
                async for event in found:
                    yield data(event)
        except BitwrightError as error:
            yield data({"error": words(error)})

    return stream(rest())
