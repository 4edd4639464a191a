"""Runs hostile programs in one pool, an honest one after each, and prints what happened as JSON.

python -P siege.py TIER SOURCE PROGRAMS: SOURCE holds the package `bitwright`, PROGRAMS is a JSON file of
{name, code, limits, times}. It needs the judge only, so any user and any Python from 3.11 on can run it.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HONEST = {"code": "def f(x):\n    return [x, x + 1]\n", "calls": [{"function": "f", "arguments": [4]}]}


def family(pid: int) -> list[int]:
    """All processes below one."""
    try:
        children = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [one for child in children for one in (child, *family(child))]


def main() -> None:
    tier, source, programs = sys.argv[1:]
    sys.path.insert(0, source)
    from bitwright.judge.judge import outcome
    from bitwright.judge.limits import Limits
    from bitwright.judge.pool import Pool

    @dataclass(frozen=True)
    class Short(Limits):
        clock: float = 4.0

        @property
        def wall(self) -> float:
            return self.clock

    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: whatever is orphaned becomes ours
    told: list[dict[str, Any]] = []
    outside = [str(path) for path in Path(source).rglob("solution.py")] + [
        str(Path(source) / "bitwright/judge/judge.py")
    ]
    with Pool(tier, 1) as pool:
        pool.run(HONEST)
        zygote = pool._free["plain"][0]
        before = family(os.getpid())
        for program in json.loads(Path(programs).read_text()):
            call = {"function": "attack", "arguments": [outside, os.getpid()]}
            limits = Short(**{"cpu": 1.0, "memory": 256, **program["limits"]})
            for _ in range(program["times"]):
                run = pool.run({"code": program["code"], "calls": [call]}, limits=limits)
            verdict, reason = outcome(run, SimpleNamespace(limits=limits, operations=(), modules=()))
            phase = ((run.answer or {}).get("error") or {}).get("phase")
            after = family(os.getpid())
            start = time.monotonic()
            honest = pool.run(HONEST)
            told.append(
                {
                    "name": program["name"], "verdict": "CE" if phase == "compile" else verdict.value,
                    "reason": reason, "signal": run.signal,
                    "results": (run.answer or {}).get("results"), "output": len(run.output) + len(run.errors),
                    "strange": run.strange, "cpu": run.cpu, "wall": run.wall, "memory": run.memory >> 20,
                    "left": [pid for pid in after if pid not in before],
                    "honest": honest.answer,
                    "took": time.monotonic() - start,
                    "same": pool._free["plain"] == [zygote] and zygote.alive(),
                }
            )  # fmt: skip
    told.append({"name": "end", "left": family(os.getpid()), "user": os.getuid()})
    print(json.dumps(told))


if __name__ == "__main__":
    main()
