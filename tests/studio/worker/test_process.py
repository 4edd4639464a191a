"""The engine's process: what it is asked comes back whole, and whatever happens to it, the studio goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bitwright.errors import BitwrightError, Interrupted, ModelError, ResourceError
from bitwright.studio.shell.process import Died, Worker

ODD = (sys.executable, str(Path(__file__).with_name("odd_worker.py")))


@contextlib.asynccontextmanager
async def running(**options: Any) -> AsyncIterator[Worker]:
    worker = Worker(ODD, **options)
    try:
        yield worker
    finally:
        await worker.close()


def gone(pid: int) -> bool:
    """Whether a process is no more, and no zombie."""
    return not Path(f"/proc/{pid}").exists()


async def until(true: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        await asyncio.sleep(0.02)


async def test_asks_and_answers_in_order() -> None:
    async with running() as worker:
        assert await worker.ask("echo", a=1, b=["ä", None]) == {"a": 1, "b": ["ä", None]}
        answers = await asyncio.gather(*(worker.ask("echo", i=i) for i in range(20)))
        assert [answer["i"] for answer in answers] == list(range(20))
        assert [event["i"] async for event in worker.stream("count", to=3)] == [0, 1, 2]


async def test_starts_lazily_or_warm_and_only_once() -> None:
    async with running() as worker:
        assert worker.pid is None
        await asyncio.gather(worker.start(), worker.ask("echo"), worker.start())
        assert await worker.ask("pid") == worker.pid


async def test_lines_of_any_length() -> None:
    async with running() as worker:
        assert len(await worker.ask("long", size=5_000_000)) == 5_000_000
        assert len((await worker.ask("echo", text="y" * 3_000_000))["text"]) == 3_000_000


async def test_prints_are_no_protocol() -> None:
    async with running() as worker:
        assert await worker.ask("shout") == "still here"
        assert await worker.ask("echo") == {}


async def test_errors_come_as_they_were() -> None:
    async with running() as worker:
        with pytest.raises(ModelError) as refused:
            await worker.ask("refuse")
        assert str(refused.value) == "model: is odd. Give an even one"
        assert (refused.value.what, refused.value.where) == ("is odd", "model")
        with pytest.raises(BitwrightError, match="unexpected error: KeyError: 'nobody thought of this'"):
            await worker.ask("stumble")
        with pytest.raises(ResourceError, match="some/file: No space left on device"):
            await worker.ask("disk")
        with pytest.raises(BitwrightError, match="unexpected error: TypeError"):
            await worker.ask("unspeakable")
        with pytest.raises(BitwrightError, match="no call is named 'missing'"):
            await worker.ask("missing")
        assert await worker.ask("echo") == {}


async def test_a_dead_worker_is_started_again_and_asked_once_more(tmp_path: Path) -> None:
    async with running() as worker:
        first = await worker.ask("pid")
        assert await worker.ask("die", marker=str(tmp_path / "once")) == "alive"
        assert worker.pid != first
        assert gone(first)
        with pytest.raises(Died, match=r"killed \(signal 9\).*my last words"):
            await worker.ask("die")
        assert await worker.ask("echo") == {}


async def test_a_worker_killed_while_it_waits() -> None:
    async with running() as worker:
        os.kill(await worker.ask("pid"), signal.SIGKILL)
        assert await worker.ask("echo", a=1) == {"a": 1}


async def test_a_stream_whose_worker_dies_says_so() -> None:
    async with running() as worker:
        seen = []

        async def follow() -> None:
            async for event in worker.stream("count", to=1000, pause=0.01):
                seen.append(event)
                if len(seen) == 3:
                    assert worker.pid is not None
                    os.kill(worker.pid, signal.SIGKILL)

        with pytest.raises(Died):
            await follow()
        assert 3 <= len(seen) < 1000
        assert await worker.ask("echo") == {}


async def test_interrupt_stops_the_call_and_nothing_else(tmp_path: Path) -> None:
    async with running() as worker:
        marker = tmp_path / "marker"

        async def follow() -> None:
            async for _ in worker.stream("tidy", marker=str(marker)):
                await worker.interrupt()

        with pytest.raises(Interrupted):
            await follow()
        assert marker.read_text() == "clean"
        pid = worker.pid
        await worker.interrupt()  # nothing runs: nothing happens
        assert await worker.ask("pid") == pid


@pytest.mark.parametrize("turns", [1, 2, 3, 10])
async def test_interrupt_right_after_asking(turns: int) -> None:
    async with running() as worker:
        asked = asyncio.create_task(worker.ask("count", to=1000, pause=0.1))
        for _ in range(turns):
            await asyncio.sleep(0)
        await worker.interrupt()  # perhaps before the process has come up
        with pytest.raises(Interrupted):
            await asyncio.wait_for(asked, 20)
        assert await worker.ask("echo") == {}


def test_no_import_is_cut_short(tmp_path: Path) -> None:
    """The signal comes again until it is heard, so a stop that falls into an import waits for its end."""
    (tmp_path / "slow.py").write_text("import signal; signal.raise_signal(signal.SIGINT); whole = True")
    code = f"""
import signal, sys
from bitwright.studio.worker.__main__ import Channel
sys.path.insert(0, {str(tmp_path)!r})
channel = Channel(1)
channel.number = channel._wanted = 1
import slow
assert slow.whole
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("stopped after the import")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "stopped after the import\n"


async def test_a_call_that_does_not_stop_is_killed() -> None:
    async with running(patience=0.5) as worker:
        asked = asyncio.create_task(worker.ask("stubborn", seconds=60))
        await until(lambda: worker.pid is not None)
        await asyncio.sleep(0.3)
        first = worker.pid
        await worker.interrupt()
        with pytest.raises(Interrupted):
            await asyncio.wait_for(asked, 20)
        assert worker.pid != first
        assert await asyncio.wait_for(worker.ask("echo"), 20) == {}


async def test_leaving_a_stream_stops_its_call(tmp_path: Path) -> None:
    async with running() as worker:
        marker = tmp_path / "marker"
        async with contextlib.aclosing(worker.stream("tidy", marker=str(marker))) as events:  # type: ignore[type-var]
            async for _ in events:
                break
        assert await asyncio.wait_for(worker.ask("echo"), 10) == {}
        assert marker.read_text() == "clean"


async def test_who_leaves_the_queue_is_not_served() -> None:
    async with running() as worker:
        first = asyncio.create_task(worker.ask("count", to=20, pause=0.02))
        second = asyncio.create_task(worker.ask("die"))
        third = asyncio.create_task(worker.ask("pid"))
        await asyncio.sleep(0.1)
        second.cancel()
        assert await first == 20
        assert await third == worker.pid


async def test_close_ends_everything(tmp_path: Path) -> None:
    worker = Worker(ODD)
    pid = await worker.ask("pid")
    marker = tmp_path / "marker"
    running = asyncio.create_task(anext(aiter(worker.stream("tidy", marker=str(marker)))))
    assert await running == {"event": "begun"}
    waiting = asyncio.create_task(worker.ask("echo"))
    await asyncio.sleep(0)
    await worker.close()
    assert gone(pid)
    assert marker.read_text() == "clean"
    with pytest.raises(Died, match="closing"):
        await waiting
    with pytest.raises(Died, match="closing"):
        await worker.ask("echo")
    await worker.start()
    assert await worker.ask("echo") == {}
    await worker.close()


@pytest.mark.parametrize("how", ["killed", "input closed"])
async def test_no_orphans(how: str, tmp_path: Path) -> None:
    """The worker ends with its parent, even in the middle of a call."""
    if how == "killed":
        parent = textwrap.dedent(f"""
            import asyncio
            from bitwright.studio.shell.process import Worker
            async def main():
                worker = Worker({ODD!r})
                async for event in worker.stream("count", to=100000, pause=0.01):
                    print(worker.pid, flush=True)
            asyncio.run(main())
        """)
        process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.kill()
        process.wait()
        process.stdout.close()
        await until(lambda: gone(child) or "Z" in Path(f"/proc/{child}/stat").read_text())
        return
    marker = tmp_path / "marker"
    alone = subprocess.Popen([*ODD, str(os.getpid())], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert alone.stdin is not None
    assert alone.stdout is not None
    alone.stdin.write(f'{{"id": 1, "call": "tidy", "args": {{"marker": "{marker}"}}}}\n')
    alone.stdin.flush()
    alone.stdout.readline()
    alone.stdin.close()
    assert alone.wait(10) == 0
    alone.stdout.close()
    assert marker.read_text() == "clean"


async def test_a_program_that_cannot_be_started() -> None:
    worker = Worker(["/no/such/program"])
    with pytest.raises(ResourceError, match="cannot be started"):
        await worker.ask("echo")
    with pytest.raises(ResourceError, match="cannot be started"):
        await worker.start()
    await worker.close()
    dead = Worker([sys.executable, "-c", "import sys; sys.exit('what went wrong')"])
    with pytest.raises(Died, match="exit code 1; its last words: what went wrong"):
        await dead.ask("echo")
    await dead.close()


@pytest.mark.slow
async def test_the_real_worker_plans() -> None:
    from bitwright.authoring.folder import CONTENT

    worker = Worker()
    try:
        plan = await worker.ask("plan", model=str(CONTENT / "demo-model"), recipe={"layer": {"method": "rtn"}})
        assert plan["kind"] == "language"
        assert len(plan["quantized"]) == 21
        with pytest.raises(ModelError, match="no such folder"):
            await worker.ask("plan", model="/no/such/model", recipe={})
    finally:
        await worker.close()


def test_a_worker_that_is_left_while_it_imports_ends_at_once() -> None:
    code = "import time; from bitwright.studio.worker.__main__ import serve; serve({}, lambda: time.sleep(3600))"
    left = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    assert left.stdin is not None
    left.stdin.close()
    assert left.wait(60) == 0
