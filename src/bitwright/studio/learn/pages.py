"""The pages of Learn: the study plan, and a lesson."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from anyio import to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from bitwright.studio.learn import record
from bitwright.studio.learn.lessons import head_of
from bitwright.studio.shell.house import House, house
from bitwright.studio.shell.page import page, wait, who

STATES = {"todo": "not begun", "started": "begun", "done": "done"}


async def learn(request: Request) -> Response:
    """The study plan with what was done of it."""
    parts = house(request)

    def read() -> tuple[record.Progress, record.Lesson | None]:
        learner = who(request)
        return record.progress(parts.database, learner.id), record.last(parts.database, learner.id)

    progress, last = await to_thread.run_sync(read)
    chapters: list[dict[str, Any]] = [
        {
            "slug": chapter.slug,
            "title": chapter.title,
            "summary": chapter.summary,
            "lessons": [_row(parts, slug, progress) for slug in chapter.lessons],
        }
        for chapter in parts.library.chapters
    ]
    rows: list[dict[str, Any]] = [lesson for chapter in chapters for lesson in chapter["lessons"]]
    known = {lesson["slug"]: lesson for lesson in rows}
    resume = None
    if last is not None and last.slug in known and known[last.slug]["state"] != "done":
        resume = {**known[last.slug], "section": last.section}
    done = sum(lesson["state"] == "done" for lesson in rows)
    return await page(
        request, "learn.html", "/learn", plan=parts.library, chapters=chapters, lessons=rows, last=resume, done=done,
        total=len(rows),
    )  # fmt: skip


def _row(parts: House, slug: str, progress: record.Progress) -> dict[str, Any]:
    state = progress.state(slug)
    return {**head_of(parts.library, slug), "state": state, "state_words": STATES[state]}


async def lesson(request: Request) -> Response:
    """A lesson."""
    parts, slug = house(request), request.path_params["slug"]
    if slug not in parts.library.lessons:
        raise HTTPException(404)
    found = parts.library.page(slug)
    if found is None:
        return await wait(request, "/learn", parts.library.head(slug)["title"], f"/api/ready/{slug}")
    place = parts.library.place(slug)
    progress = await to_thread.run_sync(lambda: record.progress(parts.database, who(request).id))
    return await page(
        request,
        "lesson.html",
        "/learn",
        lesson=found,
        place=place,
        state=progress.state(slug),
        before=head_of(parts.library, place.before) if place.before else None,
        after=head_of(parts.library, place.after) if place.after else None,
    )


async def done(request: Request) -> Response:
    """Marks a lesson as done, and goes on to the next; or as not done, and stays."""
    parts, slug = house(request), request.path_params["slug"]
    if slug not in parts.library.lessons:
        raise HTTPException(404)
    finished = (await request.form()).get("done") != "no"

    def write() -> None:
        learner = who(request)
        if finished:
            record.finish(parts.database, learner.id, slug, datetime.now().astimezone())
        else:
            record.unfinish(parts.database, learner.id, slug)

    await to_thread.run_sync(write)
    after = parts.library.place(slug).after
    return RedirectResponse(
        f"/learn/{after if finished and after else slug}" if after or not finished else "/learn", 303
    )


routes: list[BaseRoute] = [
    Route("/learn", learn),
    Route("/learn/{slug}", lesson),
    Route("/learn/{slug}/done", done, methods=["POST"]),
]
