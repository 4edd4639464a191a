"""Check over HTTP: uploads, and findings about them or about a model that is on this machine."""

from __future__ import annotations

from anyio import to_thread
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from bitwright.studio.shell.house import house
from bitwright.studio.shell.http import Strict, answered, body_of, told
from bitwright.studio.workbench import catalogue


class Against(Strict):
    """The float model that a checked one was made from, where it is known."""

    against: str | None = Field(None, max_length=4096)


class Checked(Against):
    """What to check, by its path."""

    model: str = Field(max_length=4096)


@answered
async def add_upload(request: Request) -> Response:
    """Begin an upload."""
    return JSONResponse({"id": await to_thread.run_sync(house(request).runs.uploads.create)}, 201)


@answered
async def put_upload(request: Request) -> Response:
    """One file of an upload."""
    given = request.headers.get("content-length", "")
    length = int(given) if given.isascii() and given.isdecimal() and len(given) < 19 else None
    id, place = request.path_params["id"], request.path_params["path"]
    size = await house(request).runs.uploads.put(id, place, request.stream(), length)
    return JSONResponse({"bytes": size}, 201)


@answered
async def remove_upload(request: Request) -> Response:
    """Forget an upload."""
    uploads, id = house(request).runs.uploads, request.path_params["id"]
    await to_thread.run_sync(uploads.remove, id)
    return Response(status_code=204)


@answered
async def check_upload(request: Request) -> Response:
    """Findings about an upload."""
    parts = house(request)
    root = str(parts.runs.uploads.root(request.path_params["id"]))
    asked = await body_of(request, Against)
    against = str(catalogue.resolve(parts.config, asked.against, "against")) if asked.against else None
    return await told(parts.quick.stream("check", path=root, against=against, hide=root))


@answered
async def check_path(request: Request) -> Response:
    """Findings about a model that is on this machine."""
    parts, asked = house(request), await body_of(request, Checked)
    path = catalogue.resolve(parts.config, asked.model)
    against = str(catalogue.resolve(parts.config, asked.against, "against")) if asked.against else None
    return await told(parts.quick.stream("check", path=str(path), against=against))


routes: list[BaseRoute] = [
    Route("/api/uploads", add_upload, methods=["POST"]),
    Route("/api/uploads/{id}", remove_upload, methods=["DELETE"]),
    Route("/api/uploads/{id}/check", check_upload, methods=["POST"]),
    Route("/api/uploads/{id}/{path:path}", put_upload, methods=["PUT"]),
    Route("/api/check", check_path, methods=["POST"]),
]
