"""The pages of Today: the edition of a date, on screen and for print, and the feeds."""

from __future__ import annotations

from datetime import date, timedelta

from anyio import to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from bitwright.errors import InputError
from bitwright.studio.learn.lessons import head_of
from bitwright.studio.shell.house import house
from bitwright.studio.shell.page import page, wait
from bitwright.studio.today.edition import FIRST, day_of, edition, problem_of, question_of
from bitwright.studio.today.feed import atom, rss


async def today(request: Request) -> Response:
    """The edition of a date, today's where none is given."""
    parts = house(request)
    latest = date.today()
    text = request.path_params.get("day")
    day = day_of(text) if text else latest
    if day > latest:
        raise InputError(f"the edition of {day} is not out yet", where="today", fix=f"The latest is of {latest}")
    chosen = edition(parts.library, day)
    title = f"Today: {chosen.title}"
    for slug in (chosen.lesson, chosen.question[0]):
        if parts.library.page(slug) is None:
            return await wait(request, "/today", title, f"/api/ready/{slug}")
    problem = problem_of(parts.library, chosen)
    if problem is not None:
        texts = parts.statements.get(parts.shelf.problem(chosen.problem))
        if texts is None:
            return await wait(request, "/today", title, f"/api/practice/{chosen.problem}/ready")
        problem |= {"html": texts["html"].replace("<p>[[ samples ]]</p>", ""), "lead": texts["lead"]}
    printed = request.url.path.endswith("/print")
    return await page(
        request,
        "print.html" if printed else "today.html",
        "/today",
        edition=chosen,
        lesson=parts.library.page(chosen.lesson),
        question=question_of(parts.library, chosen),
        question_lesson=head_of(parts.library, chosen.question[0]),
        problem=problem,
        feature=parts.library.features[chosen.feature],
        before=day - timedelta(1) if day > FIRST else None,
        after=day + timedelta(1) if day < latest else None,
    )


async def feed(request: Request) -> Response:
    """The last editions, as Atom or RSS."""
    base = str(request.base_url).rstrip("/")
    kind = request.path_params["kind"]
    write = {"atom": atom, "rss": rss}.get(kind)
    if write is None:
        raise HTTPException(404)
    text = await to_thread.run_sync(write, house(request).library, date.today(), base)
    return Response(text, media_type=f"application/{kind}+xml")


routes: list[BaseRoute] = [
    Route("/today", today),
    Route("/today/feed.{kind}", feed),
    Route("/today/{day}", today),
    Route("/today/{day}/print", today),
]
