"""The page of the settings: how the studio looks, who learns, the tutor's server, and the record to take along."""

from __future__ import annotations

import json
from typing import Any

from anyio import to_thread
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from bitwright.errors import InputError
from bitwright.studio.learn import portable
from bitwright.studio.shell.house import house
from bitwright.studio.shell.page import PROFILE, page, who
from bitwright.studio.store import learners
from bitwright.studio.store.learners import Learner
from bitwright.studio.store.settings import Settings, load, save
from bitwright.studio.tutor.endpoint import Endpoint
from bitwright.studio.tutor.endpoint import load as load_endpoint

YEAR = 365 * 86400
CHOICES = (
    ("theme", "Colours", (("auto", "As the system"), ("light", "Light"), ("dark", "Dark"))),
    ("motion", "Motion", (("auto", "As the system"), ("reduced", "Reduced"))),
    ("difficulty", "Difficulty of problems", (("yes", "Show"), ("no", "Hide"))),
    ("streak", "Days in a row", (("yes", "Show"), ("no", "Hide"))),
)


async def settings(request: Request, tried: dict[str, Any] | None = None) -> Response:
    """How the studio looks and what it tells; `tried` says how a test of the tutor went."""
    parts = house(request)

    def read() -> tuple[Learner, list[Learner], Settings, Endpoint | None]:
        learner = who(request)
        found = load(parts.database, learner.id)
        return learner, learners.everyone(parts.database), found, load_endpoint(parts.database, learner.id)

    learner, others, found, server = await to_thread.run_sync(read)
    named = {"address": server.address, "model": server.model, "key": bool(server.key)} if server else None
    current = {name: _word(value) for name, value in found.model_dump().items()}
    return await page(
        request, "settings.html", "/settings", learner=learner, learners=others, current=current, choices=CHOICES,
        saved="saved" in request.query_params, tutor=named, tried=tried,
    )  # fmt: skip


def _word(value: str | bool) -> str:
    return value if isinstance(value, str) else "yes" if value else "no"


async def save_settings(request: Request) -> Response:
    """Keeps the settings of the profile in use."""
    form = await request.form()
    given = {name: form.get(name) for name, _, _ in CHOICES if form.get(name) is not None}
    for name, _, options in CHOICES:
        if given.get(name) not in dict(options):
            raise InputError(f"{given.get(name)!r} is no choice", where=name, fix="Use the settings page")
    wanted = Settings.model_validate({k: v == "yes" if v in ("yes", "no") else v for k, v in given.items()})
    parts = house(request)
    await to_thread.run_sync(lambda: save(parts.database, who(request).id, wanted))
    return RedirectResponse("/settings?saved", 303)


async def add_profile(request: Request) -> Response:
    """Makes a profile and uses it."""
    name = str((await request.form()).get("name") or "").strip()
    parts = house(request)
    made = await to_thread.run_sync(learners.add, parts.database, name)
    return _using(made.id)


async def use_profile(request: Request) -> Response:
    """Goes on as another profile."""
    parts, wanted = house(request), int(request.path_params["learner"])
    known = await to_thread.run_sync(learners.everyone, parts.database)
    if wanted not in {one.id for one in known}:
        raise HTTPException(404)
    return _using(wanted)


def _using(learner: int) -> Response:
    answer = RedirectResponse("/settings", 303)
    answer.set_cookie(PROFILE, str(learner), max_age=YEAR, httponly=True, samesite="strict")
    return answer


async def record(request: Request) -> Response:
    """All that is known of the profile in use, as JSON."""
    parts = house(request)
    found = await to_thread.run_sync(lambda: portable.export(parts.database, who(request).id))
    headers = {"content-disposition": 'attachment; filename="bitwright-record.json"'}
    return JSONResponse(found, headers=headers)


async def restore(request: Request) -> Response:
    """Brings a record back into the profile in use."""
    async with request.form() as form:
        file = form.get("record")
        if not isinstance(file, UploadFile):
            raise InputError("no file came with the request", where="record", fix="Choose the downloaded JSON file")
        text = await file.read()
    try:
        data = json.loads(text)
    except ValueError as error:
        raise InputError(f"not JSON ({error})", where="record", fix="Choose the downloaded JSON file") from error
    parts = house(request)
    await to_thread.run_sync(lambda: portable.restore(parts.database, who(request).id, data))
    return RedirectResponse("/settings?saved", 303)


routes: list[BaseRoute] = [
    Route("/settings", settings),
    Route("/settings", save_settings, methods=["POST"]),
    Route("/settings/profiles", add_profile, methods=["POST"]),
    Route("/settings/profiles/{learner:int}/use", use_profile, methods=["POST"]),
    Route("/settings/record.json", record),
    Route("/settings/record", restore, methods=["POST"]),
]
