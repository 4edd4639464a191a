"""The web app: the rooms, who may enter, and what starts and stops with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

from bitwright.studio.learn import api as learn_api
from bitwright.studio.learn import pages as learn_pages
from bitwright.studio.practice import api as practice_api
from bitwright.studio.practice import pages as practice_pages
from bitwright.studio.settings import pages as settings_pages
from bitwright.studio.shell import door, palette
from bitwright.studio.shell.config import Config
from bitwright.studio.shell.guard import Guard
from bitwright.studio.shell.handlers import HANDLERS
from bitwright.studio.shell.house import House, build
from bitwright.studio.shell.templates import BUILT, manifest
from bitwright.studio.shell.warm import warm
from bitwright.studio.store.open import open_database
from bitwright.studio.today import pages as today_pages
from bitwright.studio.tutor import api as tutor_api
from bitwright.studio.workbench import api as workbench_api
from bitwright.studio.workbench import check as workbench_check
from bitwright.studio.workbench import pages as workbench_pages

ROOMS = (
    door, palette, today_pages, learn_pages, learn_api, practice_pages, practice_api, tutor_api, workbench_pages,
    workbench_api, workbench_check, settings_pages,
)  # fmt: skip
"""Where the addresses are: each has `routes`."""
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
        warming = asyncio.create_task(_later(parts))
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
        *(route for room in ROOMS for route in room.routes),
    ]
    app = Starlette(
        routes=routes,
        lifespan=life,
        middleware=[
            Middleware(Guard, host=config.host, token=config.token),
            Middleware(GZipMiddleware, minimum_size=1000, compresslevel=6),
        ],
        exception_handlers=HANDLERS,
    )
    app.state.house = parts
    return app


async def _later(parts: House) -> None:
    """Warm up; a studio that ends at once has not begun with it."""
    await asyncio.sleep(WARM)
    await warm(parts)
