"""Compiles lessons and keeps their pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bitwright.studio.content import Library
from bitwright.studio.worker.compile import compile_lesson


def lesson(content: str, cache: str, slug: str) -> dict[str, Any]:
    """Compute the page of a lesson unless it is kept already; returns its title and whether it was computed now."""
    library = Library(Path(content), Path(cache))
    page = library.page(slug)
    fresh = page is None
    if page is None:
        page = compile_lesson(library.lesson_folder(slug))
        library.keep(slug, page)
    return {"slug": slug, "title": page["title"], "computed": fresh}
