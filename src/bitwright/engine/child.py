"""The process in which a model runs: it speaks JSON, a line per answer, with the process that started it.

First it gets the kind of model, its path and what its task gives, and says what memory it takes without the model. For
every line that follows it runs once; at the end it says which runtime that was, and the most memory it had.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import IO, Any

from bitwright.errors import BitwrightError, ResourceError
from bitwright.models import kinds


def main() -> None:
    """Serve until nothing more is asked. What libraries print goes to standard error."""
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        try:
            serve(sys.stdin, out)
        except BitwrightError as error:
            told = {"kind": type(error).__name__, "what": error.what, "where": error.where, "fix": error.fix}
            say(out, {"error": told})
        except MemoryError:
            told = {"kind": ResourceError.__name__, "what": "out of memory", "where": None}
            say(out, {"error": {**told, "fix": "Close other programs, or take a smaller model"}})


def serve(asked: IO[str], out: IO[str]) -> None:
    """Answer every line of `asked`."""
    begun = json.loads(asked.readline())
    runner = kinds.get(begun["kind"]).runner(Path(begun["path"]), begun["given"])
    idle = runner.idle()
    runner.open()
    say(out, {"idle": idle})
    for _ in asked:
        turn = runner.turn()
        say(out, {"turn": turn, "runtime": runner.runtime, "peak": runner.peak()})


def say(out: IO[str], answer: dict[str, Any]) -> None:
    """Write one answer."""
    out.write(json.dumps(answer) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
