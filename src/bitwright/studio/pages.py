"""The rooms: Today, Learn, Workbench, Settings."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta
from typing import Any

from anyio import to_thread
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from bitwright.errors import InputError
from bitwright.studio import learner as learners
from bitwright.studio import tutor
from bitwright.studio.edition import FIRST, atom, day_of, edition, problem_of, question_of, rss
from bitwright.studio.house import House, house
from bitwright.studio.learner import Learner, Settings
from bitwright.studio.views import PROFILE, page, who

YEAR = 365 * 86400
STATES = {"todo": "not begun", "started": "begun", "done": "done"}
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


# --- Today


async def today(request: Request) -> Response:
    """The edition of a date, today's where none is given."""
    parts = house(request)
    latest = date.today()
    text = request.path_params.get("day")
    day = day_of(text) if text else latest
    if day > latest:
        raise InputError(f"the edition of {day} is not out yet", where="today", fix=f"The latest is of {latest}")
    chosen = edition(parts.library, day)
    for slug in (chosen.lesson, chosen.question[0]):
        if parts.library.page(slug) is None:
            return await _wait(request, "/today", slug, f"Today: {chosen.title}")
    problem = problem_of(parts.library, chosen)
    if problem is not None:
        texts = parts.statements.get(parts.shelf.problem(chosen.problem))
        if texts is None:
            source = f"/api/practice/{chosen.problem}/ready"
            return await page(request, "wait.html", "/today", title=f"Today: {chosen.title}", source=source)
        problem |= {"html": texts["html"].replace("<p>[[ samples ]]</p>", ""), "lead": texts["lead"]}
    printed = request.url.path.endswith("/print")
    return await page(
        request,
        "print.html" if printed else "today.html",
        "/today",
        edition=chosen,
        lesson=parts.library.page(chosen.lesson),
        question=question_of(parts.library, chosen),
        question_lesson=_head(parts, chosen.question[0]),
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


# --- Learn


async def learn(request: Request) -> Response:
    """The study plan with what was done of it."""
    parts = house(request)

    def read() -> tuple[learners.Progress, Any]:
        learner = who(request)
        return learners.progress(parts.database, learner.id), learners.last(parts.database, learner.id)

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


def _row(parts: House, slug: str, progress: learners.Progress) -> dict[str, Any]:
    state = progress.state(slug)
    return {**_head(parts, slug), "state": state, "state_words": STATES[state]}


def _head(parts: House, slug: str) -> dict[str, Any]:
    """What lists show of a lesson: title, lead and minutes, the latter two once it has been computed."""
    found = parts.library.page(slug)
    if found is None:
        return {"slug": slug, "title": parts.library.head(slug)["title"], "lead": "", "minutes": 0}
    return {key: found[key] for key in ("slug", "title", "lead", "minutes")}


async def lesson(request: Request) -> Response:
    """A lesson."""
    parts, slug = house(request), request.path_params["slug"]
    if slug not in parts.library.lessons:
        raise HTTPException(404)
    found = parts.library.page(slug)
    if found is None:
        return await _wait(request, "/learn", slug, parts.library.head(slug)["title"])
    place = parts.library.place(slug)
    progress = await to_thread.run_sync(lambda: learners.progress(parts.database, who(request).id))
    return await page(
        request,
        "lesson.html",
        "/learn",
        lesson=found,
        place=place,
        state=progress.state(slug),
        before=_head(parts, place.before) if place.before else None,
        after=_head(parts, place.after) if place.after else None,
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
            learners.finish(parts.database, learner.id, slug, datetime.now().astimezone())
        else:
            learners.unfinish(parts.database, learner.id, slug)

    await to_thread.run_sync(write)
    after = parts.library.place(slug).after
    return RedirectResponse(
        f"/learn/{after if finished and after else slug}" if after or not finished else "/learn", 303
    )


async def _wait(request: Request, room: str, slug: str, title: str) -> Response:
    """A page that shows the wanted one as soon as the worker has computed a lesson."""
    return await page(request, "wait.html", room, title=title, source=f"/api/ready/{slug}")


# --- Workbench


async def workbench(request: Request) -> Response:
    """The workbench draws its screens itself; each has its own address."""
    return await page(request, "workbench.html", "/workbench")


# --- Settings

CHOICES = (
    ("theme", "Colours", (("auto", "As the system"), ("light", "Light"), ("dark", "Dark"))),
    ("motion", "Motion", (("auto", "As the system"), ("reduced", "Reduced"))),
    ("difficulty", "Difficulty of problems", (("yes", "Show"), ("no", "Hide"))),
    ("streak", "Days in a row", (("yes", "Show"), ("no", "Hide"))),
)


async def settings(request: Request, tried: dict[str, Any] | None = None) -> Response:
    """How the studio looks and what it tells; `tried` says how a test of the tutor went."""
    parts = house(request)

    def read() -> tuple[Learner, list[Learner], Settings, tutor.Endpoint | None]:
        learner = who(request)
        found = learners.load_settings(parts.database, learner.id)
        return learner, learners.everyone(parts.database), found, tutor.load(parts.database, learner.id)

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
    await to_thread.run_sync(lambda: learners.save_settings(parts.database, who(request).id, wanted))
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
    found = await to_thread.run_sync(lambda: learners.export(parts.database, who(request).id))
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
    await to_thread.run_sync(lambda: learners.restore(parts.database, who(request).id, data))
    return RedirectResponse("/settings?saved", 303)


routes = [
    Route("/", home),
    Route("/icon.svg", icon),
    Route("/today", today),
    Route("/today/feed.{kind}", feed),
    Route("/today/{day}", today),
    Route("/today/{day}/print", today),
    Route("/learn", learn),
    Route("/learn/{slug}", lesson),
    Route("/learn/{slug}/done", done, methods=["POST"]),
    Route("/workbench", workbench),
    Route("/workbench/{rest:path}", workbench),
    Route("/settings", settings),
    Route("/settings", save_settings, methods=["POST"]),
    Route("/settings/profiles", add_profile, methods=["POST"]),
    Route("/settings/profiles/{learner:int}/use", use_profile, methods=["POST"]),
    Route("/settings/record.json", record),
    Route("/settings/record", restore, methods=["POST"]),
]
