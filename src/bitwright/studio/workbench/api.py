"""The workbench over HTTP: models, plans, runs and their streams, and what a run left. Errors are JSON in words."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from anyio import to_thread
from pydantic import Field
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from bitwright.errors import BitwrightError, InputError
from bitwright.models import kind_of, kinds
from bitwright.recipe import Recipe
from bitwright.studio.shell.faults import Conflict, Unknown
from bitwright.studio.shell.house import House, house
from bitwright.studio.shell.http import Strict, answered, body_of, data, stream, told, words
from bitwright.studio.workbench import catalogue
from bitwright.studio.workbench.choices import choices
from bitwright.studio.workbench.topic import Told

REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
"""The report is one page that styles itself; it runs no script and loads nothing."""


class Planned(Strict):
    """What to plan."""

    model: str = Field(max_length=4096)
    recipe: dict[str, Any] = Field(default_factory=dict)


class Started(Planned):
    """What to run."""

    name: str | None = Field(None, max_length=100)


class Prompt(Strict):
    """What both models go on from."""

    prompt: str = Field(max_length=20_000)
    tokens: int = Field(60, ge=1, le=200)
    temperature: float = Field(0.0, ge=0, le=2)
    seed: int = Field(0, ge=0, lt=2**31)


async def _tell(events: AsyncIterator[Told | None]) -> AsyncIterator[str]:
    """Events as a stream of text; errors on the way become a last one."""
    yield ": here\n\n"
    try:
        async with contextlib.aclosing(events) as items:  # type: ignore[type-var]
            async for item in items:
                yield ": still here\n\n" if item is None else data(item.event, item.line)
    except BitwrightError as error:
        yield data({"error": words(error)})


@answered
async def get_models(request: Request) -> Response:
    """The models that may be opened."""
    parts = house(request)
    made = await parts.runs.made()
    found = await to_thread.run_sync(lambda: catalogue.find(parts.config, made))
    roots = [str(root) for root in parts.config.models]
    return JSONResponse({"roots": roots, "models": [model.json() for model in found]})


def _read(parts: House, asked: Planned) -> Path:
    """The model's path, where model and recipe may be used; InputError names what may not."""
    path = catalogue.resolve(parts.config, asked.model)
    Recipe.read(asked.recipe, "recipe")
    catalogue.guard_recipe(parts.config, asked.recipe)
    return path


async def _plan(parts: House, asked: Planned) -> tuple[Path, dict[str, Any]]:
    """The model's path and the engine's plan; whatever is wrong with a recipe is said here, and no run begins."""
    path = await to_thread.run_sync(_read, parts, asked)
    task = catalogue.bundled(parts.config, path)
    return path, await parts.quick.ask("plan", model=str(path), recipe=asked.recipe, bundled=task)


@answered
async def get_choices(request: Request) -> Response:
    """What a run can be told, by kind of model."""
    return JSONResponse(await to_thread.run_sync(choices))


@answered
async def get_kind(request: Request) -> Response:
    """The kind of the model at a path."""
    path = catalogue.resolve(house(request).config, request.query_params.get("model", ""))
    return JSONResponse({"kind": kind_of(path).name})


@answered
async def plan(request: Request) -> Response:
    """What a run would do."""
    return JSONResponse((await _plan(house(request), await body_of(request, Planned)))[1])


# --- runs


@answered
async def add_run(request: Request) -> Response:
    """A new run."""
    parts, asked = house(request), await body_of(request, Started)
    path, _ = await _plan(parts, asked)
    name = " ".join((asked.name or "").split()) or None
    return JSONResponse({"id": await parts.runs.add(path, asked.recipe, name)}, 201)


@answered
async def get_runs(request: Request) -> Response:
    """All runs, the newest first."""
    return JSONResponse({"runs": await house(request).runs.listed()})


@answered
async def get_run(request: Request) -> Response:
    """One run with its rows and notes."""
    return JSONResponse(await house(request).runs.get(request.path_params["id"]))


@answered
async def remove_run(request: Request) -> Response:
    """Forget a run and its output."""
    await house(request).runs.remove(request.path_params["id"])
    return Response(status_code=204)


@answered
async def stop_run(request: Request) -> Response:
    """Have a run stop."""
    await house(request).runs.stop(request.path_params["id"])
    return JSONResponse({}, 202)


@answered
async def resume_run(request: Request) -> Response:
    """Let a run go on."""
    await house(request).runs.resume(request.path_params["id"])
    return JSONResponse({}, 202)


@answered
async def run_events(request: Request) -> Response:
    """A run's events, from the line after the one that was seen last."""
    runs, id = house(request).runs, request.path_params["id"]
    await runs.job(id)
    given = request.headers.get("last-event-id") or request.query_params.get("after") or "0"
    after = int(given) if given.isascii() and given.isdecimal() and len(given) < 12 else 0
    return stream(_tell(runs.events(id, after)))


@answered
async def all_events(request: Request) -> Response:
    """Every run that changes."""
    return stream(_tell(house(request).runs.all_changes()))


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "run"


@answered
async def certificate(request: Request) -> Response:
    """The certificate as a file."""
    runs = house(request).runs
    job = await runs.job(request.path_params["id"])
    name = f"{_file_name(job.payload['name'])}.certificate.json"
    return FileResponse(runs.certificate(job), media_type="application/json", filename=name)


@answered
async def report(request: Request) -> Response:
    """The engine's report as a page of its own."""
    parts = house(request)
    job = await parts.runs.job(request.path_params["id"])
    parts.runs.certificate(job)
    page = await parts.quick.ask("report", out=str(parts.runs.out(job)))
    return HTMLResponse(page, headers={"content-security-policy": REPORT_POLICY})


@answered
async def matrix(request: Request) -> Response:
    """One matrix before and after."""
    parts, name = house(request), request.path_params["name"]
    run = await parts.runs.get(request.path_params["id"])
    if all(row["name"] != name for row in run["rows"]):
        if run["state"] == "done":
            raise Unknown("no such matrix", where=name, fix="Choose one of the rows")
        raise Conflict("is not written yet", where=name, fix="Wait for its row")
    job = await parts.runs.job(run["id"])
    asked = {
        "model": run["model"], "out": str(parts.runs.out(job)), "name": name, "recipe": run["recipe"],
        "bundled": job.payload["bundled"], "samples": str(parts.config.data / "samples"),
    }  # fmt: skip
    return JSONResponse(await parts.quick.ask("matrix", **asked))


@answered
async def generate(request: Request) -> Response:
    """Float and quantized model side by side."""
    parts = house(request)
    job = await parts.runs.job(request.path_params["id"])
    asked = await body_of(request, Prompt)
    if not kinds.get(job.payload["kind"]).writes:
        raise InputError("writes no text", where=f"run {job.id}", fix="Choose a run of a language model")
    parts.runs.certificate(job)
    out = str(parts.runs.out(job))
    return await told(parts.quick.stream("generate", model=job.payload["model"], out=out, **asked.model_dump()))


@answered
async def pareto(request: Request) -> Response:
    """Size against quality of all that was made so far."""
    found = await house(request).runs.listed()
    points = [
        {
            "id": run["id"], "name": run["name"], "model": Path(run["model"]).name, "source": run["model"],
            "bytes": run["summary"]["final_bytes"], "kl": run["summary"]["kl"],
            "kl_interval": run["summary"]["kl_interval"], "bits": run["summary"]["stored_bits"],
        }
        for run in found
        if run["summary"] and run["summary"]["kl"] is not None
    ]  # fmt: skip
    points.sort(key=lambda point: (point["source"], point["bytes"]))
    return JSONResponse({"points": points})


routes: list[BaseRoute] = [
    Route("/api/models", get_models),
    Route("/api/choices", get_choices),
    Route("/api/kind", get_kind),
    Route("/api/plans", plan, methods=["POST"]),
    Route("/api/runs", add_run, methods=["POST"]),
    Route("/api/runs", get_runs),
    Route("/api/runs/{id}", get_run),
    Route("/api/runs/{id}", remove_run, methods=["DELETE"]),
    Route("/api/runs/{id}/stop", stop_run, methods=["POST"]),
    Route("/api/runs/{id}/resume", resume_run, methods=["POST"]),
    Route("/api/runs/{id}/events", run_events),
    Route("/api/runs/{id}/certificate", certificate),
    Route("/api/runs/{id}/report", report),
    Route("/api/runs/{id}/matrices/{name:path}", matrix),
    Route("/api/runs/{id}/generate", generate, methods=["POST"]),
    Route("/api/events", all_events),
    Route("/api/pareto", pareto),
]
