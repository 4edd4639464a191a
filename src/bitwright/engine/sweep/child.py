"""The process in which one recipe of a sweep runs: a job as a line of JSON in, the run's events as lines out.

It ends when its input does, so that none outlives the sweep, however that ended; finished work is kept.
"""

from __future__ import annotations

import _thread
import json
import os
import sys
import threading
from pathlib import Path
from typing import IO, Any

from bitwright.errors import BitwrightError, Interrupted, ResourceError
from bitwright.models import kind_of
from bitwright.recipe import Recipe


def main() -> None:
    """Run the job. What libraries print goes to standard error."""
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        job = json.loads(sys.stdin.readline())
        threading.Thread(target=_watch, args=(sys.stdin,), daemon=True).start()
        try:
            work(job, out)
        except BitwrightError as error:
            _fail(out, type(error), str(error))
        except KeyboardInterrupt:
            _fail(out, Interrupted, "stopped; finished work is kept")
        except MemoryError:
            _fail(out, ResourceError, "out of memory under the ceiling. Raise --max-ram")


def work(job: dict[str, Any], out: IO[str]) -> None:
    """Quantize, and write every event."""
    source = Path(job["source"])
    kind_of(source).load()
    import torch

    from bitwright.engine import plan as planning
    from bitwright.engine.run import run

    torch.set_num_threads(job["threads"])
    recipe = Recipe.model_validate(job["recipe"])
    plan = planning.make(
        source, Path(job["out"]), recipe, max_ram=job["max_ram"], device=job["device"], shared=Path(job["shared"])
    )
    for event in run(plan, restart=True):
        _say(out, event.json())


def _watch(given: IO[str]) -> None:
    """Stop the work once nobody is there to be told of it."""
    given.read()
    _thread.interrupt_main()


def _fail(out: IO[str], kind: type[BitwrightError], text: str) -> None:
    _say(out, {"event": "error", "kind": kind.__name__, "text": text})


def _say(out: IO[str], told: dict[str, Any]) -> None:
    out.write(json.dumps(told) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
