"""How long the judge takes for a NumPy submission, and how it compares with starting Python for every test.

    .venv/bin/python bench/judge.py [--calls 60] [--submissions 12] [--seconds 6]

One run compares, in turns on the same machine: the judge's warm zygotes (each tier that stands here), a cold
`python` + NumPy for every test without any wall, and the same inside bubblewrap where `bwrap` is installed
(apt-get install bubblewrap). All of them run the same program on the same 16 tests, one process for each test, with the
answer compared outside. Prints a Markdown table: ms at p50 and p95 from the request to the answer, submissions a second
from two threads, memory (the pool's, as the kernel shares it out; a cold process's largest resident size), and the
ratio of the median to that of the judge's first tier.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy

import bitwright
from bitwright.judge import checker, tiers, values
from bitwright.judge.cases import Tests
from bitwright.judge.judge import Judge
from bitwright.judge.pool import ENVIRONMENT, Pool
from bitwright.judge.problem import Problem, Shelf
from bitwright.judge.verdict import Verdict

SOURCE = Path(bitwright.__file__).parent.parent
TESTS = 16
COLD = """
import json, sys
sys.path[:] = [*sys.argv[1:], *sys.path]
import numpy, numpy.linalg, numpy.random
from bitwright.judge import runner
print(json.dumps(runner.answer(json.load(sys.stdin))))
"""
WALLED = [
    shutil.which("bwrap") or "bwrap",
    "--ro-bind",
    "/",
    "/",
    "--unshare-all",
    "--die-with-parent",
    "--new-session",
]


@dataclass
class Contender:
    """Something that judges: `call` one test, `submit` all of them; True where the answer was right."""

    name: str
    call: Callable[[int], bool]
    submit: Callable[[], bool]
    memory: Callable[[], float]
    calls: list[float] = field(default_factory=list)
    submissions: list[float] = field(default_factory=list)
    rate: float = 0.0


def warm(tier: str, problem: Problem, tests: Tests, stack: ExitStack) -> Contender:
    """The judge itself."""
    pool = stack.enter_context(Pool(tier, 2))
    judge = Judge(pool)
    judge._tests[problem.fingerprint] = tests
    code = problem.text("solution.py")
    for needs in ("plain", "numpy"):
        pool.warm(needs)
    return Contender(
        f"judge, tier {tier} ({tiers.WALLS[tier]})",
        lambda i: judge.case(problem, code, tests.tests[i]).verdict is Verdict.AC,
        lambda: judge.submit(problem, code).verdict is Verdict.AC,
        lambda: pool.memory() / 2**20,
    )


def cold(name: str, before: list[str], problem: Problem, tests: Tests) -> Contender:
    """A new Python for each test."""
    packages = str(Path(numpy.__file__).parent.parent)
    command = [*before, sys.executable, "-P", "-s", "-S", "-B", "-c", COLD, str(SOURCE), packages]
    largest = 0.0

    def call(i: int) -> bool:
        nonlocal largest
        test = tests.tests[i]
        request = {
            "code": problem.text("solution.py"),
            "calls": [{"function": problem.function, "arguments": test.arguments}],
        }
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT)
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin, process.stdout:
            process.stdin.write(json.dumps(request).encode())
            process.stdin.close()
            said = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = status
        largest = max(largest, used.ru_maxrss / 1024)
        [result] = json.loads(said)["results"]
        return checker.compare(values.decode(test.expected), values.decode(result), problem.check) is None

    return Contender(name, call, lambda: all(call(i) for i in range(len(tests.tests))), lambda: largest)


@contextmanager
def timed(into: list[float]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    into.append(1000 * (time.perf_counter() - start))


def rate(contender: Contender, seconds: float) -> float:
    """Submissions a second from two threads."""
    end, done = time.monotonic() + seconds, [0, 0]

    def work(i: int) -> None:
        while time.monotonic() < end:
            assert contender.submit()
            done[i] += 1

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.monotonic() - start)


def at(part: float, times: list[float]) -> float:
    """A quantile."""
    return statistics.quantiles(times, n=100, method="inclusive")[round(100 * part) - 1]


def measure(contenders: list[Contender], calls: int, submissions: int, seconds: float) -> None:
    """In turns, so that whatever else the machine does hits all of them."""
    for one in contenders:
        assert one.call(0), f"{one.name} does not work"
    for i in range(calls):
        for one in contenders:
            with timed(one.calls):
                assert one.call(i % TESTS)
    for _ in range(submissions):
        for one in contenders:
            with timed(one.submissions):
                assert one.submit()
    for one in contenders:
        one.rate = rate(one, seconds)


def table(contenders: list[Contender]) -> Iterator[str]:
    """Markdown."""
    first = contenders[0]
    both = f"one test p50 | p95 | {TESTS} tests p50 | p95"
    yield f"| | {both} | submissions/s, 2 threads | memory MB | one test, ratio | {TESTS} tests, ratio |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    for one in contenders:
        times = [f"{at(part, times):.1f} ms" for times in (one.calls, one.submissions) for part in (0.5, 0.95)]
        ratios = [
            f"{statistics.median(mine) / statistics.median(its):.1f}"
            for mine, its in ((one.calls, first.calls), (one.submissions, first.submissions))
        ]
        yield f"| {' | '.join([one.name, *times, f'{one.rate:.2f}', f'{one.memory():.0f}', *ratios])} |"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--calls", type=int, default=60)
    options.add_argument("--submissions", type=int, default=12)
    options.add_argument("--seconds", type=float, default=6)
    given = options.parse_args()
    problem = Shelf(SOURCE / "bitwright/content").problem("stable-softmax")
    with ExitStack() as stack:
        standing = [letter for letter in tiers.WALLS if tiers.attack(letter) is None]
        with Pool(standing[0], 1) as pool:
            tests = Tests(Judge(pool).tests(problem).tests[:TESTS])
        contenders = [warm(letter, problem, tests, stack) for letter in standing]
        contenders.append(cold("cold python + NumPy, no walls", [], problem, tests))
        if shutil.which("bwrap") and subprocess.run([*WALLED, "true"], check=False).returncode == 0:
            contenders.append(cold("bubblewrap + cold python + NumPy", WALLED, problem, tests))
        measure(contenders, given.calls, given.submissions, given.seconds)
        print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}, Linux {os.uname().release}\n")
        print("\n".join(table(contenders)))


if __name__ == "__main__":
    main()
