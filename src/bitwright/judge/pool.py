"""Warm zygotes, handed out fairly: each run is one program in one process of its own, measured from outside.

with Pool() as pool:
    run = pool.run({"code": ..., "calls": [...]}, needs="numpy")
"""

from __future__ import annotations

import array
import json
import os
import selectors
import socket
import struct
import subprocess
import sys
import sysconfig
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .limits import Limits

SOURCE = str(Path(__file__).resolve().parents[2])
PROGRAM = "import sys; sys.path.insert(0, sys.argv[3]); from bitwright.judge.zygote import main; main()"
ENVIRONMENT = {
    "PATH": "/nowhere",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
USER = 60600
"""First user that zygotes of root become: nobody's, between the ranges that systemd gives out."""
PATIENCE = 30.0
"""Seconds that a zygote may take to start; importing torch on a busy machine takes ten."""
IDLE = 300.0
"""Seconds after which a zygote that has not been needed ends, unless it is the last of its kind that is kept warm."""
MOST_WAITING = 64
"""Runs that may wait for a zygote; more is refused at once rather than later."""
PRELOAD = {
    "plain": (),
    "numpy": ("numpy", "numpy.random", "numpy.linalg", "numpy.fft"),
    "torch": ("numpy", "numpy.random", "numpy.linalg", "torch"),
}
PACKAGES = {
    "plain": (),
    "numpy": ("numpy",),
    "torch": ("numpy", "torch", "torchgen", "sympy", "mpmath", "networkx", "jinja2", "markupsafe", "filelock", "fsspec", "typing_extensions"),
}  # fmt: skip
"""Kind -> packages that are there to be read; everything else that is installed is not."""


class Unavailable(RuntimeError):
    """Programs cannot be run safely here; says why, and what would help."""


class Busy(RuntimeError):
    """Too many runs are waiting already."""


class Broken(RuntimeError):
    """A zygote failed in the middle of a run: our fault."""


@dataclass(frozen=True)
class Run:
    """What one process did, as seen from outside; `answer` is what it claims, None where it claims nothing usable."""

    answer: dict[str, Any] | None
    output: str
    errors: str
    cpu: float
    memory: int
    wall: float
    signal: int = 0
    code: int = 0
    killed: str = ""
    """wall, output or answer: for what it was ended."""
    strange: str = ""
    """What is wrong with its answer, where it gave one that is not one."""


@dataclass(eq=False)
class Zygote:
    """One warm process; `seat` makes its user id its own."""

    needs: str
    tier: str
    seat: int
    process: subprocess.Popen[bytes] = field(init=False)
    control: socket.socket = field(init=False)
    resident: int = 0
    used: float = field(default_factory=time.monotonic)

    def start(self) -> None:
        """Start it and wait for its walls. Unavailable where one cannot stand."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        options = self.options()
        command = [
            sys.executable,
            "-P",
            "-s",
            "-S",
            "-B",
            "-c",
            PROGRAM,
            str(theirs.fileno()),
            json.dumps(options),
            SOURCE,
        ]
        self.process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ENVIRONMENT, cwd="/"
        )  # fmt: skip
        theirs.close()
        self.control = ours
        ours.settimeout(PATIENCE)
        try:
            told = json.loads(ours.recv(1 << 16) or b"{}")
        except TimeoutError:
            told = {"error": f"did not start within {PATIENCE:.0f} s"}
        if "ready" not in told:
            self.process.kill()
            assert self.process.stderr is not None
            last = self.process.stderr.read().decode(errors="replace").strip().splitlines()[-1:]
            self.close()
            raise Unavailable(told.get("error") or "".join(last) or "the process ended at once")
        ours.settimeout(None)
        self.resident = told["rss"]

    def options(self) -> dict[str, Any]:
        """What it is told: which packages, which paths, which user."""
        standard = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
        spare = {
            str(Path(folder) / name)
            for folder in standard
            for name in ("site-packages", "dist-packages", "test", "idlelib", "ensurepip")
        }
        found, homes = [], []
        for name in PACKAGES[self.needs]:
            spec = find_spec(name)
            if spec is None or spec.origin is None:
                if name in PRELOAD[self.needs]:
                    raise Unavailable(f"{name} is not installed")
                continue
            place = Path(spec.origin)
            home = place.parent if place.name == "__init__.py" else place
            homes.append(str(home.parent))
            found += [str(home), *(str(p) for p in home.parent.glob(f"{name}.libs"))]
        return {
            "tier": self.tier,
            "preload": PRELOAD[self.needs],
            "packages": list(dict.fromkeys(homes)),
            "own": [SOURCE],
            "readable": [*{os.path.realpath(path) for path in standard}, *found],
            "hidden": [path for path in spare if os.path.isdir(path)],
            "user": USER + self.seat,
            "counted": os.geteuid() == 0 or self.tier == "A",
        }

    def alive(self) -> bool:
        """Whether it can take a run."""
        return self.process.poll() is None

    def close(self) -> None:
        """End it."""
        self.control.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(1)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stderr:
            self.process.stderr.close()

    def run(self, request: dict[str, Any], limits: Limits) -> Run:
        """Run one request. Broken where the zygote dies of it."""
        channel, theirs = socket.socketpair()
        out, out_end = os.pipe()
        err, err_end = os.pipe()
        told = json.dumps({"cpu": limits.cpu, "wall": limits.wall, "memory": limits.memory}).encode()
        handles = array.array("i", [theirs.fileno(), out_end, err_end])
        try:
            self.control.sendmsg([told], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, handles)])
        except OSError as error:
            channel.close()
            os.close(out)
            os.close(err)
            raise Broken(str(error)) from error
        finally:
            theirs.close()
            os.close(out_end)
            os.close(err_end)
        return self._follow(request, limits, channel, out, err)

    def _follow(self, request: dict[str, Any], limits: Limits, channel: socket.socket, out: int, err: int) -> Run:
        data = json.dumps(request).encode()
        waiting = memoryview(struct.pack("<I", len(data)) + data)
        heard: dict[int, bytearray] = {channel.fileno(): bytearray(), out: bytearray(), err: bytearray()}
        most = {channel.fileno(): limits.answer, out: limits.output, err: limits.output}
        flooded, report = "", None
        channel.setblocking(False)
        with selectors.DefaultSelector() as selector:
            selector.register(channel, selectors.EVENT_READ | selectors.EVENT_WRITE)
            selector.register(out, selectors.EVENT_READ)
            selector.register(err, selectors.EVENT_READ)
            selector.register(self.control, selectors.EVENT_READ)
            while len(selector.get_map()) > 0:
                for key, events in selector.select():
                    if key.fileobj is self.control:
                        report = self.control.recv(1 << 16)
                        selector.unregister(self.control)
                        continue
                    if events & selectors.EVENT_WRITE:
                        try:
                            waiting = waiting[channel.send(waiting[: 1 << 18]) :]
                        except BlockingIOError:
                            pass
                        except OSError:  # it closed its side: whatever it says next tells why
                            waiting = waiting[:0]
                        if not waiting:
                            selector.modify(channel, selectors.EVENT_READ)
                    if events & selectors.EVENT_READ:
                        part = self._part(key.fd)
                        if not part:
                            selector.unregister(key.fileobj)
                            continue
                        room = most[key.fd] - len(heard[key.fd])
                        heard[key.fd] += part[:room]
                        if len(part) > room and not flooded:
                            flooded = "answer" if key.fd == channel.fileno() else "output"
                            with suppress(OSError):
                                self.control.send(b"stop")
                if report is not None and flooded:
                    break
        said = {
            name: bytes(heard[handle]) for name, handle in (("channel", channel.fileno()), ("out", out), ("err", err))
        }
        channel.close()
        os.close(out)
        os.close(err)
        if not report:
            raise Broken("the zygote ended in the middle of a run")
        return self._run(json.loads(report), flooded, said)

    @staticmethod
    def _part(handle: int) -> bytes:
        try:
            return os.read(handle, 1 << 16)
        except BlockingIOError:
            return b""
        except ConnectionResetError:
            return b""

    def _run(self, report: dict[str, Any], flooded: str, said: dict[str, bytes]) -> Run:
        if "error" in report:
            raise Broken(report["error"])
        code = os.waitstatus_to_exitcode(report["status"])
        answer, strange = (None, "") if code or report["killed"] or flooded else _answer(said["channel"])
        return Run(
            answer=answer, strange=strange, output=said["out"].decode(errors="replace"), errors=said["err"].decode(errors="replace"),
            cpu=report["cpu"], memory=max(0, report["memory"] - self.resident), wall=report["wall"],
            signal=-code if code < 0 else 0, code=max(code, 0), killed=flooded or report["killed"],
        )  # fmt: skip


def _answer(data: bytes) -> tuple[dict[str, Any] | None, str]:
    """The one message that a run may send, or what is wrong with what it sent."""
    if not data:
        return None, "it ended without an answer"
    if len(data) < 4 or len(data) != 4 + struct.unpack("<I", data[:4])[0]:
        return None, "it wrote to the channel of the judge"
    try:
        found = json.loads(data[4:])
    except (ValueError, RecursionError):
        return None, "its answer cannot be read"
    return (found, "") if isinstance(found, dict) else (None, "its answer cannot be read")


class Pool:
    """Zygotes of one tier. Runs of one owner wait for each other before they wait for those of another."""

    def __init__(self, tier: str, size: int | None = None) -> None:
        """`size` zygotes of each kind at most (as many as processors unless given); none is started yet."""
        self.tier, self.size = tier, size or max(1, len(os.sched_getaffinity(0)))
        self._free: dict[str, list[Zygote]] = {}
        self._seats: set[int] = set()
        self._lock = threading.Condition()
        self._queue: OrderedDict[object, deque[object]] = OrderedDict()
        self._running = 0
        self._closed = False

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def warm(self, needs: str) -> None:
        """Have a zygote of a kind ready. Unavailable where that is impossible."""
        with self._seat(""):
            self._give(self._take(needs))

    def run(
        self, request: dict[str, Any], needs: str = "plain", limits: Limits | None = None, owner: object = ""
    ) -> Run:
        """Run one request when it is its owner's turn. Busy, Unavailable, or Broken (twice: a zygote that dies is replaced once)."""
        with self._seat(owner):
            for again in (True, False):
                zygote = self._take(needs)
                try:
                    found = zygote.run(request, limits or Limits())
                except Broken:
                    self._drop(zygote)
                    if again:
                        continue
                    raise
                except BaseException:
                    self._drop(zygote)  # Ctrl-C in the middle: its socket still has an answer to come
                    raise
                self._give(zygote)
                return found
        raise AssertionError("a run returns or raises")

    @contextmanager
    def _seat(self, owner: object) -> Iterator[None]:
        """One of `size` places at work; owners take turns."""
        ticket = object()
        with self._lock:
            if sum(map(len, self._queue.values())) >= MOST_WAITING:
                raise Busy(f"{MOST_WAITING} runs are waiting already")
            self._queue.setdefault(owner, deque()).append(ticket)
            try:
                while self._running >= self.size or next(iter(self._queue.values()))[0] is not ticket:
                    self._lock.wait()
            finally:
                line = self._queue[owner]
                line.remove(ticket)
                if not line:
                    del self._queue[owner]
                else:
                    self._queue.move_to_end(owner)
                self._lock.notify_all()
            if self._closed:
                raise Unavailable("the judge is closed")
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                self._lock.notify_all()

    def _take(self, needs: str) -> Zygote:
        while True:
            with self._lock:
                self._tidy()
                free = self._free.setdefault(needs, [])
                found = free.pop() if free else None
                seat = next(i for i in range(1000) if i not in self._seats)
                if found is None:
                    self._seats.add(seat)
            if found is None:
                break
            if found.alive():
                return found
            self._drop(found)
        made = Zygote(needs, self.tier, seat)
        try:
            made.start()
        except BaseException:
            with self._lock:
                self._seats.discard(seat)
            raise
        return made

    def _give(self, zygote: Zygote) -> None:
        zygote.used = time.monotonic()
        with self._lock:
            if not self._closed:
                self._free.setdefault(zygote.needs, []).append(zygote)
                return
        self._drop(zygote)

    def _drop(self, zygote: Zygote) -> None:
        zygote.close()
        with self._lock:
            self._seats.discard(zygote.seat)

    def _tidy(self) -> None:
        """End zygotes that nobody needed for long; of plain and numpy one stays."""
        late = time.monotonic() - IDLE
        for needs, free in self._free.items():
            keep = 0 if needs == "torch" else 1
            while len(free) > keep and free[0].used < late:
                old = free.pop(0)
                threading.Thread(target=self._drop, args=(old,), daemon=True).start()

    def memory(self) -> int:
        """Bytes that waiting zygotes hold, as the kernel shares them out (PSS)."""
        with self._lock:
            return sum(_proportional(z.process.pid) for free in self._free.values() for z in free)

    def close(self) -> None:
        """End every zygote; whoever waits gets Unavailable."""
        with self._lock:
            self._closed = True
            free = [zygote for found in self._free.values() for zygote in found]
            self._free.clear()
            self._lock.notify_all()
        for zygote in free:
            self._drop(zygote)


def _proportional(pid: int) -> int:
    """Proportional memory of a process and its children."""
    total = 0
    children = Path(f"/proc/{pid}/task/{pid}/children")
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
        for child in children.read_text().split():
            total += _proportional(int(child))
    return total
