"""The page of the workbench."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from bitwright.studio.shell.page import page


async def workbench(request: Request) -> Response:
    """The workbench draws its screens itself; each has its own address."""
    return await page(request, "workbench.html", "/workbench")


routes: list[BaseRoute] = [Route("/workbench", workbench), Route("/workbench/{rest:path}", workbench)]
