"""The available methods, formats, containers, rewrites and kinds of models, as the registries know them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from bitwright import methods as method_files
from bitwright import rewrites as rewrite_files
from bitwright.core import formats as format_files
from bitwright.errors import RecipeError, nearest
from bitwright.files.container import Container
from bitwright.files.containers import registry as containers_found
from bitwright.models import kinds
from bitwright.recipe import Recipe

Entry = dict[str, Any]
"""One entry: its name, its title, and further facts; JSON-able."""


def methods() -> Iterator[Entry]:
    """Methods, each with its options and their defaults, and the kinds of models that it serves."""
    for method in method_files.registry.all():
        serves = [kind.title for kind in kinds.all() if kind.serves(method)]
        options = method.options().model_dump(mode="json")
        yield {
            "name": method.name, "title": method.title, "source": method.source, "needs": method.needs,
            "scope": method.scope, "models": serves, "options": options,
        }  # fmt: skip


def formats() -> Iterator[Entry]:
    """Formats; names that differ only in a number are listed together."""
    titles = format_files.names()
    for span in format_files.spans(titles):
        first, _, last = span.partition("..")
        said = [titles[name] for name in (first, last) if name]
        yield {"name": span, "title": " ... ".join(said)}


def containers() -> Iterator[Entry]:
    """Containers, each with the models and formats that it stores and the runtimes that load it."""
    for container in containers_found.all():
        stored = [name for name in format_files.names() if _stores(container, name)]
        yield {
            "name": container.name, "title": container.title,
            "models": [kind.title for kind in kinds.all() if kind.holds == container.holds],
            "formats": format_files.spans(stored), "runtimes": container.runtimes([]),
        }  # fmt: skip


def _stores(container: Container, name: str) -> bool:
    """Whether a container has a place for a format, with whichever blocks and scales."""
    for group, scale in ((None, "fp16"), ("channel", "fp16"), ("channel", "fp32"), (None, "fp32")):
        try:
            container.format(name, group=group, scale=scale)  # type: ignore[arg-type]
        except RecipeError:
            continue
        return True
    return False


def rewrites() -> Iterator[Entry]:
    """Rewrites of float networks."""
    for rewrite in rewrite_files.registry.all():
        yield {"name": rewrite.name, "title": rewrite.title, "source": rewrite.source, "after": list(rewrite.after)}


def models() -> Iterator[Entry]:
    """Kinds of models, each with what it claims, its container unless a recipe names one, and its own tables."""
    for kind in kinds.all():
        yield {
            "name": kind.name, "title": kind.title, "found": (kind.__doc__ or "").splitlines()[0].rstrip("."),
            "output": kind.output(Recipe()), "devices": list(kind.devices), "tables": list(kind.tables),
        }  # fmt: skip


LISTS: dict[str, Callable[[], Iterator[Entry]]] = {
    each.__name__: each for each in (methods, formats, containers, rewrites, models)
}
"""Every list by its name."""


def entries(what: str) -> Iterator[Entry]:
    """The list called `what`; RecipeError with the nearest where there is none."""
    if what not in LISTS:
        raise RecipeError(f"nothing is listed as {what!r}", where="list", fix=nearest(what, LISTS))
    return LISTS[what]()
