"""The pool: fair, bounded, and none the worse for a zygote that dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bitwright.judge import pool as pools
from bitwright.judge import values
from bitwright.judge.limits import Limits
from bitwright.judge.pool import Broken, Busy, Pool, Run, Unavailable
from bitwright.judge.tiers import probe

TIER = probe().name


def request(code: str, *arguments: Any) -> dict[str, Any]:
    return {"code": code, "calls": [{"function": "f", "arguments": list(arguments)}]}


HONEST = request("def f(x):\n    return x + 1\n", 4)
SLEEPS = request("import time\ndef f(seconds):\n    time.sleep(seconds)\n", 30)
NAP = request("import time\ndef f(seconds):\n    time.sleep(seconds)\n", 0.05)


def below(pid: int) -> list[int]:
    """The processes below one; the kernel lists them by the thread that started them."""
    try:
        children = [one for path in Path(f"/proc/{pid}/task").glob("*/children") for one in path.read_text().split()]
    except OSError:
        return []
    return [one for child in map(int, children) for one in (child, *below(child))]


def gone(pids: list[int]) -> bool:
    """Whether processes end within five seconds; one that is dead and not yet collected has."""
    late = time.monotonic() + 5
    while time.monotonic() < late:
        if all(state(pid) in "ZX" for pid in pids):
            return True
        time.sleep(0.01)
    return False


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def until(condition: Any, seconds: float = 10) -> None:
    late = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < late, "it took too long"
        time.sleep(0.005)


class Later(threading.Thread):
    """A run in a thread of its own; `found` is its Run or its exception."""

    def __init__(self, pool: Pool, request: dict[str, Any], owner: object = "") -> None:
        super().__init__(daemon=True)
        self.arguments = pool, request, owner
        self.found: Run | BaseException | None = None
        self.start()

    def run(self) -> None:
        pool, request, owner = self.arguments
        try:
            self.found = pool.run(request, owner=owner)
        except BaseException as error:
            self.found = error


class Watched(Pool):
    """A pool of one that says which zygote it took last: a browser of another test may be below this process, too."""

    taken: pools.Zygote | None = None

    def __init__(self) -> None:
        super().__init__(TIER, 1)

    def _take(self, needs: str) -> pools.Zygote:
        self.taken = super()._take(needs)
        return self.taken


@pytest.fixture
def pool() -> Iterator[Watched]:
    with Watched() as pool:
        yield pool


def zygote(pool: Pool) -> pools.Zygote:
    return pool._free["plain"][-1]


def test_a_zygote_serves_many_runs(pool: Watched) -> None:
    first = pool.run(HONEST)
    assert first.answer == {"results": [5]}
    pid = zygote(pool).process.pid
    for _ in range(20):
        assert pool.run(HONEST).answer == {"results": [5]}
    assert zygote(pool).process.pid == pid


def test_torch_is_there_on_demand_and_quiet(pool: Watched) -> None:
    pytest.importorskip("torch")
    program = "import torch\ndef f(x):\n    return torch.tensor(x).softmax(0)\n"
    run = pool.run(request(program, [0.0, 0.0]), "torch")
    assert run.answer is not None
    [found] = map(values.decode, run.answer["results"])
    assert (found.kind, found.dtype, list(found.items)) == ("torch", "float32", [0.5, 0.5])
    assert (run.output, run.errors) == ("", "")


def test_what_a_run_took_is_measured(pool: Watched) -> None:
    run = pool.run(
        request(
            "def f(n):\n    kept = b'x' * n\n    return sum(range(3 * 10**6)) and len(kept)\n",
            64 << 20,
        )
    )
    assert 0.02 < run.cpu < 3
    assert 60 << 20 < run.memory < 80 << 20
    assert run.wall >= 0.9 * run.cpu


def test_owners_take_turns(pool: Watched) -> None:
    """Ten runs of one and one of another: the other waits for one at most, not for ten."""
    order: list[str] = []
    real = pools.Zygote.run

    def noting(self: pools.Zygote, request: dict[str, Any], limits: Limits) -> Run:
        order.append(request["owner"])
        return real(self, request, limits)

    pool.warm("plain")
    pools.Zygote.run = noting  # type: ignore[method-assign]
    try:
        first = Later(pool, {**NAP, "owner": "first"}, "greedy")
        until(lambda: order)
        many = [Later(pool, {**NAP, "owner": "greedy"}, "greedy") for _ in range(8)]
        until(lambda: len(pool._queue.get("greedy", ())) == 8)
        one = Later(pool, {**NAP, "owner": "modest"}, "modest")
        for thread in (first, *many, one):
            thread.join(20)
            assert isinstance(thread.found, Run)
    finally:
        pools.Zygote.run = real  # type: ignore[method-assign]
    assert order.index("modest") <= 3
    assert len(order) == 10


def test_too_many_are_told_at_once(pool: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "MOST_WAITING", 3)
    monkeypatch.setattr(pools, "MOST_OF_ONE", 2)
    pool.warm("plain")
    running = Later(pool, SLEEPS, "a")
    until(lambda: pool._running == 1)
    waiting = [Later(pool, HONEST, "a") for _ in range(2)]
    until(lambda: len(pool._queue.get("a", ())) == 2)
    with pytest.raises(Busy, match="2 runs of yours"):
        pool.run(HONEST, owner="a")
    waiting.append(Later(pool, HONEST, "b"))
    until(lambda: len(pool._queue.get("b", ())) == 1)
    with pytest.raises(Busy, match="3 runs are waiting"):
        pool.run(HONEST, owner="c")
    kill_twice(pool)
    for thread in (running, *waiting):
        thread.join(20)
    assert isinstance(running.found, Broken)
    assert all(isinstance(one.found, Run) for one in waiting)


def zygote_of(pool: Watched, besides: Sequence[int] = ()) -> int:
    """The process of the pool's zygote that is at work, as soon as it has a run below it."""
    depth = 2 if TIER == "A" else 1

    def at_work() -> bool:
        pid = pool.taken.process.pid if pool.taken else None
        return pid is not None and pid not in besides and len(below(pid)) == depth

    until(at_work)
    assert pool.taken is not None
    return pool.taken.process.pid


def kill_twice(pool: Watched) -> list[int]:
    """Kill the zygote of a run, and the one that takes over; all the processes that there were."""
    found: list[int] = []
    for _ in range(2):
        pid = zygote_of(pool, found)
        found += [pid, *below(pid)]
        os.kill(pid, signal.SIGKILL)
    return found


def test_a_zygote_killed_in_the_middle_is_replaced_once(pool: Watched) -> None:
    """The run is done again by another, and nobody hears of it."""
    run = Later(pool, request("import time\ndef f(x):\n    time.sleep(0.7)\n    return x\n", 3))
    first = zygote_of(pool)
    family = below(first)
    os.kill(first, signal.SIGKILL)
    run.join(20)
    assert isinstance(run.found, Run)
    assert run.found.answer == {"results": [3]}
    assert gone([first, *family]), "the run of a zygote that is killed ends with it"


def test_a_zygote_killed_twice_is_our_fault_and_the_pool_goes_on(pool: Watched) -> None:
    run = Later(pool, SLEEPS)
    family = kill_twice(pool)
    run.join(20)
    assert isinstance(run.found, Broken)
    assert gone(family)
    assert pool.run(HONEST).answer == {"results": [5]}
    assert len(pool._seats) == 1


def test_an_idle_zygote_that_was_killed_is_replaced(pool: Watched) -> None:
    pool.run(HONEST)
    os.kill(zygote(pool).process.pid, signal.SIGKILL)
    assert pool.run(HONEST).answer == {"results": [5]}


def test_the_inner_process_killed_is_noticed(pool: Watched) -> None:
    run = Later(pool, request("import time\ndef f(x):\n    time.sleep(0.7)\n    return x\n", 3))
    outer = zygote_of(pool)
    os.kill(below(outer)[0] if TIER == "A" else outer, signal.SIGKILL)
    run.join(20)
    assert isinstance(run.found, Run)


def test_a_zygote_that_does_not_answer_is_given_up(pool: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    pool.warm("plain")
    monkeypatch.setattr(pools, "PATIENCE", 0.2)
    held = zygote(pool)
    pids = [held.process.pid, *below(held.process.pid)]
    os.kill(pids[-1], signal.SIGSTOP)
    with pytest.raises(Broken, match="does not answer"):
        held.run(HONEST, Short())
    pool._free["plain"].clear()
    pool._drop(held)
    assert gone(pids)


class Short(Limits):
    wall = 0.2  # type: ignore[assignment]


def test_no_descriptor_is_left_over(pool: Watched) -> None:
    pool.run(HONEST)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        pool.run(HONEST)
        pool.run(request("import os\ndef f(x):\n    os.write(1, b'x' * 200000)\n", 1))
    run = Later(pool, SLEEPS)
    kill_twice(pool)
    run.join(20)
    assert pool.run(HONEST).answer == {"results": [5]}
    assert len(os.listdir("/proc/self/fd")) <= before


def test_closing_ends_everything_and_tells_who_waits() -> None:
    pool = Watched()
    pool.run(HONEST)
    running = Later(pool, request("import time\ndef f(x):\n    time.sleep(1)\n    return x\n", 3))
    until(lambda: pool._running == 1)
    outer = zygote_of(pool)
    started = [outer, *below(outer)]
    waiting = Later(pool, HONEST)
    until(lambda: pool._queue)
    pool.close()
    waiting.join(5)
    assert isinstance(waiting.found, Unavailable)
    running.join(20)
    assert isinstance(running.found, Run)
    assert running.found.answer == {"results": [3]}
    assert gone(started)
    with pytest.raises(Unavailable):
        pool.run(HONEST)


CTRL_C = """
import os, signal, sys
from bitwright.judge.pool import Pool
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
pool = Pool(sys.argv[1], 1)
pool.warm("plain")
print("ready", flush=True)
try:
    pool.run({"code": "import time\\ndef f():\\n    time.sleep(60)\\n", "calls": [{"function": "f", "arguments": []}]})
except KeyboardInterrupt:
    print(pool.run({"code": "def f():\\n    return 8\\n", "calls": [{"function": "f", "arguments": []}]}).answer)
    pool.close()
    print(len(os.listdir("/proc/self/fd")), open(f"/proc/self/task/{os.getpid()}/children").read().split())
"""


def test_ctrl_c_in_the_middle_leaves_a_pool_that_works() -> None:
    process = subprocess.Popen([sys.executable, "-c", CTRL_C, TIER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    until(lambda: len(below(process.pid)) == (3 if TIER == "A" else 2))
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate(timeout=20)
    assert told.splitlines()[0] == "{'results': [8]}"
    assert told.splitlines()[1].endswith(" []")
    assert int(told.splitlines()[1].split()[0]) < 6


def test_a_killed_server_takes_its_programs_with_it() -> None:
    process = subprocess.Popen([sys.executable, "-c", CTRL_C, TIER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    until(lambda: len(below(process.pid)) == (3 if TIER == "A" else 2))
    family = below(process.pid)
    process.kill()
    process.communicate()
    assert gone(family)


def test_a_kind_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "find_spec", lambda name: None)
    with Pool(TIER, 1) as pool, pytest.raises(Unavailable, match="numpy is not installed"):
        pool.run(HONEST, needs="numpy")
    assert not pool._seats


def test_idle_zygotes_end_but_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with Pool(TIER, 2) as pool:
        runs = [Later(pool, NAP) for _ in range(2)]
        for run in runs:
            run.join(20)
        if len(pool._free["plain"]) < 2:
            pytest.skip("one was quick enough for both")
        monkeypatch.setattr(pools, "IDLE", -1.0)
        pool.run(HONEST)
        until(lambda: len(pool._free["plain"]) == 1 and len(pool._seats) == 1)


def test_memory_of_the_pool_is_known(pool: Watched) -> None:
    pool.warm("plain")
    assert 3 << 20 < pool.memory() < 100 << 20
