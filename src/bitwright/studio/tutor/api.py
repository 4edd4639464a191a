"""The tutor over HTTP: a question about a problem, answered as it is written; and its place in the settings."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from anyio import to_thread
from pydantic import Field
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from bitwright.errors import BitwrightError, InputError
from bitwright.judge.explain import explain
from bitwright.judge.pool import Busy, Unavailable
from bitwright.judge.problem import ProblemError
from bitwright.studio.practice.api import learner_of, result_of
from bitwright.studio.practice.problems import asked
from bitwright.studio.practice.submissions import submission
from bitwright.studio.practice.text import code_of
from bitwright.studio.settings import pages
from bitwright.studio.shell.house import house
from bitwright.studio.shell.http import Strict, answered, body_of, data, stream
from bitwright.studio.tutor import endpoint
from bitwright.studio.tutor.answer import answer_of
from bitwright.studio.tutor.endpoint import Endpoint
from bitwright.studio.tutor.question import QUESTION, messages
from bitwright.studio.tutor.turns import Turns

TURNS = Turns()


class Question(Strict):
    """What the learner asks, with the program in the editor; `submission` where it is about one."""

    submission: int | None = None
    code: str
    question: str = Field("", max_length=QUESTION)


@answered
async def ask(request: Request) -> Response:
    """An answer of the tutor's."""
    parts, problem = asked(request)
    given, learner = await body_of(request, Question), await learner_of(request)
    code = code_of(given.code)
    server = await to_thread.run_sync(endpoint.load, parts.database, learner)
    if server is None:
        raise InputError("there is none yet", where="tutor", fix="Name a server and a model in Settings")
    TURNS.take(learner)
    result: dict[str, Any] | None = None
    known: dict[str, Any] | None = None
    if given.submission is not None:
        found = await to_thread.run_sync(submission, parts.database, learner, problem.slug, given.submission)
        result = found.result
        if result and found.code != code:  # what is known of another program would mislead
            result = {**result, "sentence": f"(of an earlier version of the program) {result['sentence']}"}
        elif result:
            with contextlib.suppress(BitwrightError, ProblemError, Busy, Unavailable):
                work = partial(explain, problem=problem, code=code, result=result_of(result), owner=learner)
                known = (await parts.judge.ask(work)).json()
    return stream(_told(answer_of(server, messages(problem, code, given.question, result, known))))


async def _told(events: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    """Events as a stream of text."""
    yield ": here\n\n"
    async with contextlib.aclosing(events) as told:  # type: ignore[type-var]
        async for event in told:
            yield f"event: {event['event']}\n{data(event)}"


async def keep(request: Request) -> Response:
    """Keeps the server in the settings of the profile in use; with `test` it is asked for a word."""
    form = await request.form()
    text = {name: str(form.get(name) or "") for name in ("address", "model", "key", "forget", "test")}
    parts, learner = house(request), await learner_of(request)
    forget = bool(text["forget"])
    work = partial(endpoint.save, parts.database, learner, text["address"], text["model"], text["key"], forget)
    server = await to_thread.run_sync(work)
    if not text["test"] or server is None:
        return RedirectResponse("/settings?saved", 303)
    TURNS.take(learner)
    return await pages.settings(request, await _tried(server))


async def _tried(server: Endpoint) -> dict[str, Any]:
    """Whether a server answers, in words."""
    said = ""
    async for event in answer_of(server, [{"role": "user", "content": "Answer with one word: ready"}]):
        if event["event"] == "error":
            return {"good": False, "text": event["what"], "fix": event["fix"]}
        said += event.get("text", "")
        if event["event"] == "done":
            return {"good": True, "text": f"{event['model']} answers: {said.strip()[:200]}", "fix": ""}
    return {"good": False, "text": "It did not answer.", "fix": "Test it again"}


routes: list[BaseRoute] = [
    Route("/api/practice/{slug}/tutor", ask, methods=["POST"]),
    Route("/settings/tutor", keep, methods=["POST"]),
]
