"""What a first visit would wait for, made ready in the background."""

from __future__ import annotations

import contextlib
from datetime import date

from bitwright.errors import BitwrightError
from bitwright.studio.learn.lessons import compute
from bitwright.studio.practice.problems import sound, texts_of
from bitwright.studio.shell.house import House
from bitwright.studio.shell.process import Worker
from bitwright.studio.today.edition import edition


async def warm(parts: House) -> None:
    """Have the judge ready, and compile what is missing, so that nobody waits: today's lesson, then problems, then the
    other lessons. What fails says so when it is opened.

    It has a worker of its own, which ends with the work: pages do not queue behind it, and its memory is given back.
    """
    await parts.judge.warm()
    today = edition(parts.library, date.today())
    order = dict.fromkeys((today.lesson, today.question[0], *parts.library.lessons))
    missing = [slug for slug in order if parts.library.page(slug) is None]
    slugs = parts.shelf.slugs
    unset = [one for one in sound(parts.shelf, [today.problem, *slugs]) if parts.statements.get(one) is None]
    if not missing and not unset:
        return
    worker = Worker()
    try:
        for slug in missing[:2]:
            with contextlib.suppress(BitwrightError):
                await compute(parts.library, slug, worker)
        for problem in unset:
            with contextlib.suppress(BitwrightError):
                await texts_of(parts, problem, worker)
        for slug in missing[2:]:
            with contextlib.suppress(BitwrightError):
                await compute(parts.library, slug, worker)
    finally:
        await worker.close()
