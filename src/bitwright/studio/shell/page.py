"""A page for a request: who asks, their settings, and the template that draws it."""

from __future__ import annotations

from datetime import date
from typing import Any

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from bitwright.errors import BitwrightError
from bitwright.studio.shell.house import house
from bitwright.studio.shell.templates import environment
from bitwright.studio.store.days import streak
from bitwright.studio.store.learners import Learner, current
from bitwright.studio.store.settings import Settings, load

PROFILE = "bitwright_learner"
"""Cookie that says which local profile is in use."""


def profile(request: Request) -> int | None:
    """The profile that a browser asks for."""
    found = request.cookies.get(PROFILE, "")
    return int(found) if found.isdecimal() and len(found) < 10 else None


def who(request: Request) -> Learner:
    """The learner in use; the local profile is made on first use. Call it off the event loop."""
    return current(house(request).database, profile(request))


async def page(request: Request, template: str, room: str, status: int = 200, **values: Any) -> Response:
    """A page drawn from `template`; settings and streak come from the learner, or are the defaults while the
    database cannot be read."""

    def read() -> tuple[Settings, int]:
        database = house(request).database
        learner = who(request)
        settings = load(database, learner.id)
        return settings, streak(database, learner.id, date.today()) if settings.streak else 0

    try:
        settings, days = await to_thread.run_sync(read)
    except BitwrightError:
        if status < 400:
            raise
        settings, days = Settings(), 0
    text = (
        environment().get_template(template).render(room=room, status=status, settings=settings, streak=days, **values)
    )
    return HTMLResponse(text, status)


async def wait(request: Request, room: str, title: str, source: str) -> Response:
    """A page that shows the wanted one as soon as `source` answers: something of it is being computed."""
    return await page(request, "wait.html", room, title=title, source=source)
