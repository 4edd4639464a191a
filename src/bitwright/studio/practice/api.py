"""Practice over HTTP: running and submitting, drafts, notes, own tests, hints, explanations, export and import."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import fields
from datetime import datetime
from functools import partial
from typing import Any

from anyio import to_thread
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from bitwright.errors import BitwrightError, InputError
from bitwright.judge.cases import Test
from bitwright.judge.explain import explain as explained
from bitwright.judge.explain import story
from bitwright.judge.judge import Judge
from bitwright.judge.problem import Problem, ProblemError
from bitwright.judge.verdict import Case, Difference, Result, Verdict
from bitwright.studio.practice import archive, desk, hints, portable, reviews, submissions
from bitwright.studio.practice.judging import Event
from bitwright.studio.practice.problems import asked, texts_of
from bitwright.studio.practice.text import code_of, plain
from bitwright.studio.shell.faults import Unknown
from bitwright.studio.shell.house import House, house
from bitwright.studio.shell.http import Strict, answered, body_of, data, stream, words
from bitwright.studio.shell.page import who


class Program(Strict):
    """What the editor holds."""

    code: str


class Note(Strict):
    """A note."""

    text: str = Field(max_length=desk.NOTE)


class Own(Strict):
    """A test of one's own: a name, and one literal per line."""

    name: str = Field(min_length=1, max_length=60)
    text: str = Field(max_length=desk.OWN)


class Trial(Program):
    """What to run on the samples and on tests of one's own."""

    own: list[Own] = Field(default=[], max_length=desk.MOST_OWN)


class Asked(Strict):
    """The number of a hint."""

    number: int


class Which(Strict):
    """The number of a submission."""

    submission: int


def now() -> datetime:
    """This moment in the learner's own time: days in a row are the learner's days."""
    return datetime.now().astimezone()


async def learner_of(request: Request) -> int:
    """The number of the profile in use."""
    return (await to_thread.run_sync(who, request)).id


# --- running and submitting


@answered
async def run(request: Request) -> Response:
    """The samples and tests of one's own; never an attempt."""
    parts, problem = asked(request)
    given = await body_of(request, Trial)
    code = code_of(given.code)
    learner = await learner_of(request)
    tests: list[Test] = []
    for one in given.own:
        try:
            tests.append(await parts.judge.ask(partial(_own, problem=problem, own=one, learner=learner)))
        except _Misfit as error:
            return JSONResponse({"error": {**words(error), "kind": "InputError"}}, 400)
    result = await parts.judge.run(problem, code, tests, learner)
    return JSONResponse(plain(result.json()))


class _Misfit(InputError):
    """A test of one's own does not fit the problem."""


def _own(judge: Judge, problem: Problem, own: Own, learner: int) -> Test:
    judge.tests(problem)  # a fault of these is the problem's, not the learner's
    try:
        return judge.own(problem, own.text, own.name, learner)
    except ProblemError as error:
        raise _Misfit(str(error), where=own.name, fix="Correct your test", key=own.name) from error


@answered
async def submit(request: Request) -> Response:
    """Every test as it is judged, then the verdict."""
    parts, problem = asked(request)
    given = await body_of(request, Program)
    code, learner = code_of(given.code), await learner_of(request)
    id, events = await parts.judge.submit(learner, problem, code, now())
    answer = stream(_told(parts, learner, problem, events))
    answer.headers["x-submission"] = str(id)
    return answer


async def _told(
    parts: House, learner: int, problem: Problem, events: AsyncIterator[Event | None]
) -> AsyncIterator[str]:
    """Events as a stream of text; errors on the way become a last one."""
    yield ": here\n\n"
    try:
        async with contextlib.aclosing(events) as told:  # type: ignore[type-var]
            async for event in told:
                if event is None:
                    yield ": still here\n\n"
                    continue
                if event["event"] == "result":
                    due = (await to_thread.run_sync(reviews.due, parts.database, learner)).get(problem.slug)
                    event = {**event, "due": due.isoformat() if due else None}
                yield f"event: {event['event']}\n{data(event)}"
    except BitwrightError as error:
        yield f"event: error\n{data({'error': words(error)})}"


@answered
async def submission(request: Request) -> Response:
    """A submission of the learner's with its code."""
    parts, problem = asked(request)
    found = await _submission(request, parts, problem, int(request.path_params["id"]))
    return JSONResponse({"code": found.code, "result": found.result})


async def _submission(request: Request, parts: House, problem: Problem, id: int) -> submissions.Submission:
    learner = await learner_of(request)
    return await to_thread.run_sync(submissions.submission, parts.database, learner, problem.slug, id)


@answered
async def explain(request: Request) -> Response:
    """What went wrong with a submission."""
    parts, problem = asked(request)
    given = await body_of(request, Which)
    found = await _submission(request, parts, problem, given.submission)
    if found.result is None:
        raise InputError("has no verdict yet", where=f"submission {found.id}", fix="Wait for it")
    result = result_of(found.result)
    told = await parts.judge.ask(lambda judge: explained(judge, problem, found.code, result, found.learner))
    return JSONResponse(plain(told.json()))


def result_of(kept: dict[str, Any]) -> Result:
    """A result from what `Result.json` wrote; arguments of cases stay empty."""
    names = {one.name for one in fields(Case)}
    cases = [
        Case(
            **{name: value for name, value in one.items() if name in names - {"verdict", "difference"}},
            verdict=Verdict(one["verdict"]),
            difference=Difference(**one["difference"]) if one["difference"] else None,
        )
        for one in kept["cases"]
    ]
    rest = {name: kept[name] for name in ("sentence", "total", "cpu", "memory", "tier", "reason", "line", "growth")}
    return Result(verdict=Verdict(kept["verdict"]), cases=cases, **rest)


# --- drafts, notes, own tests, hints


@answered
async def put_draft(request: Request) -> Response:
    """Keep what the editor holds."""
    parts, problem = asked(request)
    given, learner = await body_of(request, Program), await learner_of(request)
    await to_thread.run_sync(desk.keep_draft, parts.database, learner, problem.slug, given.code, now())
    return Response(status_code=204)


@answered
async def drop_draft(request: Request) -> Response:
    """Back to the starter."""
    parts, problem = asked(request)
    learner = await learner_of(request)
    await to_thread.run_sync(desk.drop_draft, parts.database, learner, problem.slug)
    return Response(status_code=204)


@answered
async def put_note(request: Request) -> Response:
    """Keep the note."""
    parts, problem = asked(request)
    given, learner = await body_of(request, Note), await learner_of(request)
    await to_thread.run_sync(desk.keep_note, parts.database, learner, problem.slug, given.text, now())
    return Response(status_code=204)


@answered
async def add_own(request: Request) -> Response:
    """Keep a test of one's own."""
    parts, problem = asked(request)
    given, learner = await body_of(request, Own), await learner_of(request)
    id = await to_thread.run_sync(desk.add_own, parts.database, learner, problem.slug, given.name, given.text)
    return JSONResponse({"id": id}, 201)


@answered
async def remove_own(request: Request) -> Response:
    """Forget a test of one's own."""
    parts, problem = asked(request)
    id, learner = int(request.path_params["id"]), await learner_of(request)
    if not await to_thread.run_sync(desk.remove_own, parts.database, learner, problem.slug, id):
        raise Unknown("there is no such test", where=f"test {id}", fix="Reload the page")
    return Response(status_code=204)


@answered
async def hint(request: Request) -> Response:
    """A hint, remembered as seen; 4 is the approach."""
    parts, problem = asked(request)
    given, learner = await body_of(request, Asked), await learner_of(request)
    texts = await texts_of(parts, problem, parts.quick)
    await to_thread.run_sync(hints.see, parts.database, learner, problem.slug, given.number, now())
    return JSONResponse({"html": [*texts["hints"], texts["approach"]][given.number - 1]})


@answered
async def solution(request: Request) -> Response:
    """The reference, line by line, for those who have seen the approach."""
    parts, problem = asked(request)
    learner = await learner_of(request)
    if not await to_thread.run_sync(hints.knows_approach, parts.database, learner, problem.slug):
        raise InputError("the approach comes first", where="solution", fix="Ask for the hints and the approach")
    return JSONResponse(plain(await parts.judge.ask(partial(story, problem=problem, owner=learner))))


@answered
async def ready(request: Request) -> Response:
    """Answers when a problem's texts are compiled."""
    parts, problem = asked(request)
    await texts_of(parts, problem, parts.quick)
    return JSONResponse({"ready": True})


# --- export and import


@answered
async def export(request: Request) -> Response:
    """All practice of the profile in use, as a zip file."""
    parts, learner = house(request), await learner_of(request)
    packed = await to_thread.run_sync(lambda: archive.to_zip(portable.gather(parts.database, learner)))
    name = {"content-disposition": 'attachment; filename="bitwright-practice.zip"'}
    return Response(packed, media_type="application/zip", headers=name)


@answered
async def bring(request: Request) -> Response:
    """Practice back into the profile in use, from a zip file or JSON."""
    parts, learner = house(request), await learner_of(request)
    body = await request.body()
    counts = await to_thread.run_sync(lambda: portable.restore(parts.database, learner, archive.read(body)))
    return JSONResponse({"counts": counts})


routes: list[BaseRoute] = [
    Route("/api/practice/export", export),
    Route("/api/practice/import", bring, methods=["POST"]),
    Route("/api/practice/{slug}/ready", ready),
    Route("/api/practice/{slug}/run", run, methods=["POST"]),
    Route("/api/practice/{slug}/submit", submit, methods=["POST"]),
    Route("/api/practice/{slug}/draft", put_draft, methods=["PUT"]),
    Route("/api/practice/{slug}/draft", drop_draft, methods=["DELETE"]),
    Route("/api/practice/{slug}/note", put_note, methods=["PUT"]),
    Route("/api/practice/{slug}/own", add_own, methods=["POST"]),
    Route("/api/practice/{slug}/own/{id:int}", remove_own, methods=["DELETE"]),
    Route("/api/practice/{slug}/hint", hint, methods=["POST"]),
    Route("/api/practice/{slug}/solution", solution),
    Route("/api/practice/{slug}/submissions/{id:int}", submission),
    Route("/api/practice/{slug}/explain", explain, methods=["POST"]),
]
