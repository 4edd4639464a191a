"""What pages tell and ask while somebody learns: progress, answers, and lessons being computed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from anyio import to_thread
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from bitwright.errors import InputError
from bitwright.studio.learn import record
from bitwright.studio.learn.lessons import compute
from bitwright.studio.shell.house import House, house
from bitwright.studio.shell.http import Strict, body_of
from bitwright.studio.shell.page import who
from bitwright.studio.today.edition import day_of, edition, question_of


class Visit(Strict):
    """A lesson is being read, now at a section."""

    slug: str = Field(max_length=100)
    section: str = Field("", max_length=200)


class Answer(Strict):
    """A question was answered; `choice` counts from 1."""

    place: str = Field(max_length=100, pattern="^(lesson:[a-z0-9-]+|today:[0-9-]{10})$")
    question: str = Field(max_length=100)
    choice: int = Field(ge=1, le=20)


async def ready(request: Request) -> Response:
    """Answers when a lesson's page is there."""
    parts = house(request)
    await compute(parts.library, request.path_params["slug"], parts.quick)
    return JSONResponse({"ready": True})


async def progress(request: Request) -> Response:
    """Remembers where somebody is in a lesson."""
    visit = await body_of(request, Visit)
    parts = house(request)
    parts.library.lesson_folder(visit.slug)
    now = datetime.now().astimezone()  # days in a row are the learner's own days
    await to_thread.run_sync(lambda: record.visit(parts.database, who(request).id, visit.slug, visit.section, now))
    return Response(status_code=204)


async def answers(request: Request) -> Response:
    """Keeps an answer; whether it is right is looked up here, not believed."""
    given = await body_of(request, Answer)
    parts = house(request)
    question = _question(parts, given)
    right = question["answer"] == given.choice
    now = datetime.now().astimezone()  # days in a row are the learner's own days
    await to_thread.run_sync(
        lambda: record.answer(parts.database, who(request).id, given.place, given.question, given.choice, right, now)
    )
    return JSONResponse({"right": right})


def _question(parts: House, given: Answer) -> dict[str, Any]:
    kind, _, name = given.place.partition(":")
    if kind == "today":
        return question_of(parts.library, edition(parts.library, day_of(name)))
    page = parts.library.page(name) if name in parts.library.lessons else None
    for question in page["questions"] if page else ():
        if question["id"] == given.question:
            return question  # type: ignore[no-any-return]
    raise InputError(f"no question {given.question!r}", where=given.place, fix="Reload the page")


routes: list[BaseRoute] = [
    Route("/api/ready/{slug}", ready),
    Route("/api/progress", progress, methods=["POST"]),
    Route("/api/answers", answers, methods=["POST"]),
]
