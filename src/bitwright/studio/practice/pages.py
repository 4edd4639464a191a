"""The pages of Practice: the list by collection, a problem, and the local leaderboard."""

from __future__ import annotations

from datetime import date
from typing import Any

from anyio import to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from bitwright.errors import BitwrightError, InputError, ResourceError
from bitwright.judge import values
from bitwright.judge.judge import SHOWN, Judge, shown
from bitwright.judge.problem import DIFFICULTIES, HINTS, Collection, Problem, ProblemError, Shelf
from bitwright.studio.practice import desk, hints, ranking, submissions
from bitwright.studio.practice.problems import problem_of, sound
from bitwright.studio.practice.standing import Standing, standings
from bitwright.studio.shell.house import House, house
from bitwright.studio.shell.page import page, wait, who
from bitwright.studio.store.settings import load
from bitwright.studio.today.edition import edition
from bitwright.studio.tutor import endpoint

STATES = {"todo": "new", "tried": "tried", "solved": "solved"}
"""State of a standing, as pages name it."""


async def listing(request: Request) -> Response:
    """All problems by collection, with what was done of them; reviews that are due, and the problem of the day."""
    parts, day = house(request), date.today()

    def read() -> tuple[list[dict[str, Any]], dict[str, str] | None, list[dict[str, str]]]:
        known = standings(parts.database, who(request).id)
        found = [_collection(parts.shelf, one, known, day) for one in parts.shelf.collections]
        titles = {row["slug"]: row["title"] for one in found for row in one["problems"]}
        late = sorted(
            (slug for slug, one in known.items() if slug in titles and one.due and one.due <= day),
            key=lambda slug: (known[slug].due, slug),
        )
        chosen = edition(parts.library, day).problem
        today = {"slug": chosen, "title": titles[chosen]} if chosen in titles else None
        return found, today, [{"slug": slug, "title": titles[slug]} for slug in late]

    collections, today, due = await to_thread.run_sync(read)
    shown: dict[str, Any] = {"collections": collections, "levels": _levels(collections), "today": today, "due": due}
    return await page(request, "practice.html", "/practice", **shown)


def _levels(collections: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many problems of each difficulty there are and are solved, the easy ones first."""
    rows = [row for one in collections for row in one["problems"]]
    found = []
    for name in DIFFICULTIES:
        states = [row["state"] for row in rows if row["difficulty"] == name]
        found.append({"name": name, "solved": states.count("solved"), "total": len(states)})
    return found


def _collection(shelf: Shelf, collection: Collection, known: dict[str, Standing], day: date) -> dict[str, Any]:
    rows = []
    for problem in sound(shelf, collection.problems):
        standing = known.get(problem.slug) or Standing()
        rows.append(
            {
                "slug": problem.slug, "title": problem.title, "difficulty": problem.difficulty,
                "minutes": problem.minutes, "tags": problem.tags, "state": STATES[standing.state],
                "due": standing.due is not None and standing.due <= day,
            }
        )  # fmt: skip
    return {
        "slug": collection.slug, "title": collection.title, "summary": collection.summary, "problems": rows,
        "solved": sum(row["state"] == "solved" for row in rows), "total": len(rows),
    }  # fmt: skip


async def one(request: Request) -> Response:
    """A problem with its editor."""
    parts = house(request)
    problem = _problem(parts, request)
    texts = parts.statements.get(problem)
    if texts is None:
        return await wait(request, "/practice", problem.title, f"/api/practice/{problem.slug}/ready")
    samples = await _samples(parts, problem)
    tier = await parts.judge.tier()
    about = {
        **_facts(parts, problem),
        "samples": samples,
        "tier": {"name": tier.name, "words": tier.words, "reason": tier.reason, "fix": tier.fix},
    }
    mine = await to_thread.run_sync(_mine, parts, request, problem, texts)
    return await page(
        request, "problem.html", "/practice", problem=about | mine, statement_html=texts["html"],
        sources=texts["sources"],
    )  # fmt: skip


def _problem(parts: House, request: Request) -> Problem:
    slug = request.path_params["slug"]
    if slug not in parts.shelf.slugs:
        raise HTTPException(404)
    return problem_of(parts, slug)


async def _samples(parts: House, problem: Problem) -> list[dict[str, str]]:
    """The samples with the reference's results; none where programs cannot be run here."""

    def read(judge: Judge) -> list[dict[str, str]]:
        return [
            {"name": test.name, "input": shown(problem, test.arguments),
             "expected": values.show(test.expected, SHOWN), "note": test.note}
            for test in judge.tests(problem).samples
        ]  # fmt: skip

    try:
        return await parts.judge.ask(read)
    except ResourceError:
        return []


def _facts(parts: House, problem: Problem) -> dict[str, Any]:
    """What the problem's folder says."""
    try:
        starter = problem.text("starter.py")
    except ProblemError as error:
        raise InputError(str(error), where="problem", fix="Correct the problem's folder") from error
    slugs = parts.shelf.slugs
    at = slugs.index(problem.slug)
    home = next(one for one in parts.shelf.collections if problem.slug in one.problems)
    growth = problem.growth
    return {
        "slug": problem.slug, "title": problem.title, "collection": home.slug, "collection_title": home.title,
        "difficulty": problem.difficulty, "minutes": problem.minutes, "tags": list(problem.tags),
        "function": problem.function, "needs": problem.needs, "starter": starter, "lesson": problem.lesson,
        "limits": {"cpu": problem.limits.cpu, "memory": problem.limits.memory},
        "forbids": [*problem.operations, *problem.modules],
        "growth": None if growth is None else "n" if growth.exponent == 1 else f"n^{growth.exponent:g}",
        "rank": ranking.is_ranked(problem),
        "previous": slugs[at - 1] if at else None,
        "next": slugs[at + 1] if at + 1 < len(slugs) else None,
    }  # fmt: skip


def _mine(parts: House, request: Request, problem: Problem, texts: dict[str, Any]) -> dict[str, Any]:
    """What the learner did with it."""
    db, learner, slug = parts.database, who(request).id, problem.slug
    settings = load(db, learner)
    standing = standings(db, learner).get(slug) or Standing()
    draft = desk.draft(db, learner, slug)
    told = [*texts["hints"], texts["approach"]]
    return {
        "code": problem.text("starter.py") if draft is None else draft,
        "own": desk.own(db, learner, slug),
        "hints": {"count": HINTS, "seen": [told[number - 1] for number in hints.seen(db, learner, slug)]},
        "solved": standing.state == "solved",
        "due": standing.due.isoformat() if standing.due else None,
        "note": desk.note(db, learner, slug),
        "submissions": [row for row in submissions.listed(db, learner, slug) if row["verdict"]],
        "hide_difficulty": not settings.difficulty,
        "tutor": endpoint.shown(endpoint.load(db, learner)),
    }


async def leaderboard(request: Request) -> Response:
    """Everyone's accepted submissions of a problem, quality against bits."""
    parts = house(request)
    problem = _problem(parts, request)
    if not ranking.is_ranked(problem):
        raise HTTPException(404)

    def read() -> tuple[str, list[dict[str, Any]]]:
        return ranking.unit(problem), board(parts, problem, who(request).name)

    try:
        unit, rows = await to_thread.run_sync(read)
    except ProblemError as error:
        raise BitwrightError(str(error), where="problem", fix="Correct the problem's folder") from error
    about = {"slug": problem.slug, "title": problem.title}
    return await page(request, "leaderboard.html", "/practice", problem=about, measure=unit, rows=rows)


def board(parts: House, problem: Problem, me: str) -> list[dict[str, Any]]:
    """The rows of a leaderboard in order: rank, id, name, at, quality, bits, mine."""
    return [
        {**row, "mine": row["name"] == me} for row in ranking.ordered(submissions.ranked(parts.database, problem.slug))
    ]


routes: list[BaseRoute] = [
    Route("/practice", listing),
    Route("/practice/{slug}", one),
    Route("/practice/leaderboard/{slug}", leaderboard),
]
