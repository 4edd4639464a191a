"""A page for a request: who asks, their settings, and the template that draws it."""

from __future__ import annotations

from datetime import date
from typing import Any

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from bitwright.errors import BitwrightError
from bitwright.studio import learner as learners
from bitwright.studio.house import house
from bitwright.studio.learner import Learner, Settings
from bitwright.studio.templates import environment

PROFILE = "bitwright_learner"
"""Cookie that says which local profile is in use."""


def profile(request: Request) -> int | None:
    """The profile that a browser asks for."""
    found = request.cookies.get(PROFILE, "")
    return int(found) if found.isdecimal() and len(found) < 10 else None


def who(request: Request) -> Learner:
    """The learner in use; the local profile is made on first use. Call it off the event loop."""
    return learners.current(house(request).database, profile(request))


async def page(request: Request, template: str, room: str, status: int = 200, **values: Any) -> Response:
    """A page drawn from `template`; settings and streak come from the learner, or are the defaults while the
    database cannot be read."""

    def read() -> tuple[Settings, int]:
        database = house(request).database
        learner = who(request)
        settings = learners.load_settings(database, learner.id)
        return settings, learners.streak(database, learner.id, date.today()) if settings.streak else 0

    try:
        settings, streak = await to_thread.run_sync(read)
    except BitwrightError:
        if status < 400:
            raise
        settings, streak = Settings(), 0
    text = (
        environment()
        .get_template(template)
        .render(room=room, status=status, settings=settings, streak=streak, **values)
    )
    return HTMLResponse(text, status)
