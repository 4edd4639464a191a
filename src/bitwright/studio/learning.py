"""What pages tell and ask while somebody learns: progress, answers, the palette, and lessons being computed."""

from __future__ import annotations

import contextlib
from datetime import date, datetime
from typing import Any, TypeVar

from anyio import to_thread
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bitwright.errors import BitwrightError, InputError
from bitwright.studio import learner as learners
from bitwright.studio.edition import day_of, edition, question_of
from bitwright.studio.house import House, house
from bitwright.studio.problems import sound
from bitwright.studio.views import who
from bitwright.studio.workers import Worker


class Visit(BaseModel):
    """A lesson is being read, now at a section."""

    model_config = ConfigDict(extra="forbid")
    slug: str = Field(max_length=100)
    section: str = Field("", max_length=200)


class Answer(BaseModel):
    """A question was answered; `choice` counts from 1."""

    model_config = ConfigDict(extra="forbid")
    place: str = Field(max_length=100, pattern="^(lesson:[a-z0-9-]+|today:[0-9-]{10})$")
    question: str = Field(max_length=100)
    choice: int = Field(ge=1, le=20)


Body = TypeVar("Body", bound=BaseModel)


async def read_json(request: Request, kind: type[Body]) -> Body:
    """The body of a request as `kind`; InputError says what does not fit."""
    try:
        return kind.model_validate_json(await request.body())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise InputError(first["msg"].lower(), where=where, fix="Reload the page") from error


async def compute(parts: House, slug: str, worker: Worker) -> None:
    """Have a worker compile a lesson unless its page is kept already."""
    parts.library.lesson_folder(slug)
    if parts.library.page(slug) is None:
        folder, cache = str(parts.library.folder), str(parts.library.cache)
        await worker.ask("lesson", content=folder, cache=cache, slug=slug)


async def warm(parts: House) -> None:
    """Compile what is missing, so that nobody waits: today's lesson, then problems, then the other lessons. What fails
    says so when it is opened.

    It has a worker of its own, which ends with the work: pages do not queue behind it, and its memory is given back.
    """
    today = edition(parts.library, date.today())
    order = dict.fromkeys((today.lesson, today.question[0], *parts.library.lessons))
    missing = [slug for slug in order if parts.library.page(slug) is None]
    slugs = parts.shelf.slugs
    unset = [one for one in sound(parts.shelf, [today.problem, *slugs]) if parts.statements.get(one) is None]
    if not missing and not unset:
        return
    worker = Worker()
    try:
        for slug in missing[:2]:
            with contextlib.suppress(BitwrightError):
                await compute(parts, slug, worker)
        for problem in unset:
            with contextlib.suppress(BitwrightError):
                await parts.statements.ask(problem, worker)
        for slug in missing[2:]:
            with contextlib.suppress(BitwrightError):
                await compute(parts, slug, worker)
    finally:
        await worker.close()


async def ready(request: Request) -> Response:
    """Answers when a lesson's page is there."""
    parts = house(request)
    await compute(parts, request.path_params["slug"], parts.quick)
    return JSONResponse({"ready": True})


async def progress(request: Request) -> Response:
    """Remembers where somebody is in a lesson."""
    visit = await read_json(request, Visit)
    parts = house(request)
    parts.library.lesson_folder(visit.slug)
    now = datetime.now().astimezone()  # days in a row are the learner's own days
    await to_thread.run_sync(lambda: learners.visit(parts.database, who(request).id, visit.slug, visit.section, now))
    return Response(status_code=204)


async def answers(request: Request) -> Response:
    """Keeps an answer; whether it is right is looked up here, not believed."""
    given = await read_json(request, Answer)
    parts = house(request)
    question = _question(parts, given)
    right = question["answer"] == given.choice
    now = datetime.now().astimezone()  # days in a row are the learner's own days
    await to_thread.run_sync(
        lambda: learners.answer(parts.database, who(request).id, given.place, given.question, given.choice, right, now)
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


async def palette(request: Request) -> Response:
    """Everything that can be gone to by name."""
    parts = house(request)
    entries = [
        {"title": "Today's edition", "kind": "page", "href": "/today", "words": "daily news question"},
        {"title": "Study plan", "kind": "page", "href": "/learn", "words": "learn lessons chapters"},
        {"title": "Practice", "kind": "page", "href": "/practice", "words": "problems judge code reviews"},
        {"title": "Workbench", "kind": "page", "href": "/workbench", "words": "runs models pareto"},
        {"title": "Quantize a model", "kind": "action", "href": "/workbench/new", "words": "plan run compress"},
        {"title": "Check a file", "kind": "action", "href": "/workbench/check", "words": "sound verify drop"},
        {"title": "Settings", "kind": "page", "href": "/settings", "words": "theme dark light motion profile streak"},
    ]
    for slug in parts.library.lessons:
        page = parts.library.page(slug)
        head = page or parts.library.head(slug)
        words = " ".join(head.get("terms", ()))
        entries.append({"title": head["title"], "kind": "lesson", "href": f"/learn/{slug}", "words": words})
        for section in page["sections"] if page else ():
            href = f"/learn/{slug}#{section['id']}"
            entries.append({"title": section["title"], "kind": head["title"], "href": href, "words": ""})
    for problem in sound(parts.shelf, parts.shelf.slugs):
        words = " ".join((*problem.tags, problem.slug.replace("-", " ")))
        entries.append({"title": problem.title, "kind": "problem", "href": f"/practice/{problem.slug}", "words": words})
    return JSONResponse(entries)


routes = [
    Route("/api/palette", palette),
    Route("/api/ready/{slug}", ready),
    Route("/api/progress", progress, methods=["POST"]),
    Route("/api/answers", answers, methods=["POST"]),
]
