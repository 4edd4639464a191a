"""Lessons as lists show them, and their pages as the worker computes them."""

from __future__ import annotations

from typing import Any

from bitwright.authoring.library import Library
from bitwright.studio.shell.process import Worker


def head_of(library: Library, slug: str) -> dict[str, Any]:
    """What lists show of a lesson: title, lead and minutes, the latter two once it has been computed."""
    found = library.page(slug)
    if found is None:
        return {"slug": slug, "title": library.head(slug)["title"], "lead": "", "minutes": 0}
    return {key: found[key] for key in ("slug", "title", "lead", "minutes")}


async def compute(library: Library, slug: str, worker: Worker) -> None:
    """Have a worker compile a lesson unless its page is kept already. InputError where no lesson is called so."""
    library.lesson_folder(slug)
    if library.page(slug) is None:
        await worker.ask("lesson", content=str(library.folder), cache=str(library.cache), slug=slug)
