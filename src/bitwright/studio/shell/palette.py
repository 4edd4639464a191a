"""The palette: everything that can be gone to by name."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from bitwright.studio.practice.problems import sound
from bitwright.studio.shell.house import house


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


routes: list[BaseRoute] = [Route("/api/palette", palette)]
