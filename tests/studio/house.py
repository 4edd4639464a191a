"""A real studio for tests of the workbench: its own process, real workers, without the pages.

`python -m tests.studio.house CONFIG` runs one; CONFIG is JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2

from bitwright.authoring.folder import CONTENT

DEMO = CONTENT / "demo-model"
DIGITS = CONTENT / "digits" / "model.onnx"
TEXT = {"source": "stdlib", "windows": 2, "length": 32, "heldout_windows": 2}
RTN = {"layer": {"format": "int4", "method": "rtn"}, "calibration": TEXT}
"""A run of a second or two."""
SLOW = {"layer": {"format": "int4", "method": "gptq"}, "calibration": TEXT}
"""A run whose matrices take their time."""
ROOT = Path(__file__).parents[2]


class Studio:
    """A studio process and a client for it."""

    def __init__(self, data: Path, **options: Any) -> None:
        self.config = {"data": str(data), **options}
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> Studio:
        command = [sys.executable, "-m", "tests.studio.house", json.dumps(self.config)]
        # One thread: tests run beside one another, and threads that wait for each other's turn cost most of the time.
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the studio did not start"
        self.url = f"http://127.0.0.1:{line.strip()}"
        self.client = httpx2.Client(base_url=self.url, timeout=60)
        return self

    def stop(self) -> int:
        """End it as Ctrl-C does."""
        return self._end(signal.SIGINT)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> int:
        assert self.process is not None
        assert self.process.stdout is not None
        self.client.close()
        self.process.send_signal(number)
        code = self.process.wait(30)
        self.process.stdout.close()
        self.process = None
        return code

    def __enter__(self) -> Studio:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.kill()

    # --- what tests ask

    def get(self, path: str) -> Any:
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any = None, status: int = 200) -> Any:
        answer = self.client.post(path, json={} if body is None else body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def error(self, answer: httpx2.Response, status: int) -> dict[str, Any]:
        assert answer.status_code == status, answer.text
        error = answer.json()["error"]
        assert set(error) == {"kind", "text", "fix", "key"}
        assert "Traceback" not in error["text"]
        return error  # type: ignore[no-any-return]

    def run(self, model: Path = DEMO, recipe: Any = RTN, name: str | None = None) -> str:
        body = {"model": str(model), "recipe": recipe} | ({"name": name} if name else {})
        return self.post("/api/runs", body, 201)["id"]  # type: ignore[no-any-return]

    def wait(self, id: str, *states: str, seconds: float = 90) -> dict[str, Any]:
        """The run once it is in one of `states`."""
        until = time.monotonic() + seconds
        while True:
            run = self.get(f"/api/runs/{id}")
            if run["state"] in states:
                return run  # type: ignore[no-any-return]
            assert run["state"] not in ("done", "failed", "stopped"), run
            assert time.monotonic() < until, run
            time.sleep(0.05)

    def when(self, true: Callable[[], Any], seconds: float = 60) -> Any:
        until = time.monotonic() + seconds
        while not (found := true()):
            assert time.monotonic() < until, "waited in vain"
            time.sleep(0.02)
        return found

    def events(self, path: str, **options: Any) -> Iterator[tuple[int | None, dict[str, Any]]]:
        """(line, event) of a stream."""
        with self.client.stream(options.pop("method", "GET"), path, **options) as answer:
            assert answer.status_code == 200, answer.read()
            assert answer.headers["content-type"].startswith("text/event-stream")
            number: int | None = None
            for line in answer.iter_lines():
                if line.startswith("id: "):
                    number = int(line[4:])
                elif line.startswith("data: "):
                    yield number, json.loads(line[6:])
                    number = None

    def pids(self) -> dict[str, int | None]:
        return self.get("/pids")  # type: ignore[no-any-return]


def application(config: Any) -> Any:
    """The routes of workbench and practice and what they need; besides, the workers' ids for tests that kill them."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    from bitwright.studio.practice import api as practice
    from bitwright.studio.shell.house import build
    from bitwright.studio.store.open import open_database
    from bitwright.studio.workbench import api, check

    database = open_database(config.database, config.data)
    parts = build(config, database)

    @contextlib.asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        await parts.runs.start()
        await parts.judge.start()
        yield
        await parts.judge.close()
        await parts.runs.close()
        await parts.quick.close()
        database.close()

    async def pids(request: Request) -> Response:
        return JSONResponse({"quick": parts.quick.pid, "runs": parts.runs.worker.pid})

    app = Starlette(routes=[*api.routes, *check.routes, *practice.routes, Route("/pids", pids)], lifespan=life)
    app.state.house = parts
    return app


def main() -> None:
    import uvicorn

    from bitwright.studio.shell.config import Config

    raw = json.loads(sys.argv[1])
    for key in ("data", "content"):
        if key in raw:
            raw[key] = Path(raw[key])
    raw["models"] = tuple(Path(path) for path in raw.get("models", ()))
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(application(Config(**raw)), log_level="warning", timeout_graceful_shutdown=2)
    )
    print(listening.getsockname()[1], flush=True)
    os.dup2(2, 1)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listening])


if __name__ == "__main__":
    main()
