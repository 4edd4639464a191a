"""A run as pages show it: what the database knows, what is under way, and what the database does not know yet."""

from __future__ import annotations

from datetime import datetime

from bitwright.studio.shell.runner import End, Held
from bitwright.studio.store.jobs import Job
from bitwright.studio.workbench.topic import Event

WAITING = {"phase": "waiting", "share": 0.0, "label": "", "seconds_left": None}
DONE = {"phase": "done", "share": 1.0, "label": "", "seconds_left": 0.0}


def table(job: Job, held: Held | None, end: End | None) -> Event:
    """A run without its rows. `held` where it is under way here, `end` where the database was not told of it."""
    payload, state = job.payload, state_of(job, held, end)
    progress = held.progress() if held and held.progress else job.progress
    result = end.result if end else job.result
    return {
        "id": str(job.id), "name": payload["name"], "model": payload["model"], "kind": payload["kind"],
        "recipe": payload["recipe"], "state": state, "created": _iso(job.added), "started": _iso(job.started),
        "finished": _iso(end.moment if end else job.ended),
        "progress": DONE if state == "done" else progress or WAITING,
        "summary": result if state == "done" else None,
        "error": _words(end.error if end else job.error) if state == "failed" else None,
    }  # fmt: skip


def state_of(job: Job, held: Held | None, end: End | None) -> str:
    """The state of a run as it is known here."""
    if end:
        return end.state
    # A job may have been read before it was asked to stop.
    return "stopping" if held and held.stopping and job.state == "running" else job.state


def change(run: Event) -> Event:
    """What of a run its own stream tells where its state changes."""
    return {"event": "state", "state": run["state"], "error": run["error"], "summary": run["summary"]}


def _words(error: Event | None) -> str | None:
    if not error:
        return None
    return str(error["text"]) if "kind" in error else f"{error['text']}. {error.get('fix') or ''}".strip()


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
