"""The first address of the studio, and its sign."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 22 22"><rect width="22" height="22" rx="5" fill="#fbfaf7"/>'
    '<path d="M2 18h4v-6h4V5h3v9h4v-4h3" fill="none" stroke="#2b57cc" stroke-width="2"/>'
    '<path d="M4 20V9M11 20V3M18 20V7" stroke="#ad4a06" stroke-width="2"/></svg>'
)


async def home(request: Request) -> Response:
    """The studio opens with today's edition."""
    return RedirectResponse("/today", 307)


async def icon(request: Request) -> Response:
    """The sign of the house."""
    return Response(ICON, media_type="image/svg+xml", headers={"cache-control": "max-age=86400"})


routes: list[BaseRoute] = [Route("/", home), Route("/icon.svg", icon)]
