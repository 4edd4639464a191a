"""What works on this machine, and how to fix what does not."""

from __future__ import annotations

import importlib.util
import json
import platform
import sys
from collections.abc import Iterator

import typer

from bitwright import __version__
from bitwright.cli.app import EXTRAS, Show, app, guarded
from bitwright.cli.options import Json


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check this machine: Python, optional extras, plugins, and whether untrusted programs can be judged safely."""

    def work(show: Show) -> None:
        from bitwright.judge.tiers import probe

        facts = [("bitwright", True, __version__, "")]
        facts.append(
            ("python", sys.version_info >= (3, 11), platform.python_version(), "Python 3.11 or newer is needed")
        )
        for extra, modules in EXTRAS.items():
            missing = [name for name in modules if importlib.util.find_spec(name) is None]
            words = f"without {', '.join(missing)}" if missing else "installed"
            facts.append((f"extra {extra}", not missing, words, f"pip install 'bitwright[{extra}]'"))
        facts += [("plugin", False, fault, "") for fault in _faults()]
        tier = probe()
        words = f"tier {tier.name}: {tier.words}" if tier.name else f"not available: {tier.reason}"
        facts.append(("sandbox of the judge", bool(tier.name), words, tier.fix))
        for what, good, detail, fix in facts:
            if as_json:
                typer.echo(
                    json.dumps(
                        {"event": "fact", "what": what, "good": good, "detail": detail, "fix": "" if good else fix}
                    )
                )
            show.line(f"  {'ok  ' if good else 'BAD '} {what}: {detail}" + ("" if good or not fix else f". {fix}"))
            if good and what.startswith("sandbox") and fix:
                show.line(f"       {tier.reason}. {fix}")

    guarded(as_json, work)


def _faults() -> Iterator[str]:
    """What is wrong with plugins from other packages."""
    from bitwright import methods, rewrites
    from bitwright.authoring.folder import CONTENT
    from bitwright.core import formats
    from bitwright.files import containers
    from bitwright.judge.problem import Shelf
    from bitwright.models import kinds

    for registry in (methods.registry, containers.registry, rewrites.registry, kinds):
        yield from map(str, registry.faults().values())
    yield from map(str, formats.faults())
    yield from Shelf(CONTENT).faults
