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
    "MALLOC_ARENA_MAX": "1",  # others take 64 MB of a limit each, by address
    "MKL_NUM_THREADS": "1",
}
USER = 60600
"""First user that zygotes of root become: nobody's, between the ranges that systemd gives out."""
PATIENCE = 30.0
"""Seconds that a zygote may take to start; importing torch on a busy machine takes ten."""
IDLE = 300.0
"""Seconds after which a zygote that has not been needed ends, unless it is the last of its kind that is kept warm."""
MOST_WAITING, MOST_OF_ONE = 64, 24
"""Runs that may wait for a zygote, of all and of one owner; more is refused at once rather than later."""
MOST_TEXT, MOST_STACK = 4000, 16
"""Characters of a message, calls of an exception's story."""
THREADS, OTHERS = 48, 512
"""Threads of a program; where the kernel counts them together with all that its user runs, so many more than that."""
PRELOAD = {
    "plain": (),
    "numpy": ("numpy", "numpy.random", "numpy.linalg", "numpy.fft"),
    "torch": ("numpy", "numpy.random", "numpy.linalg", "torch"),
}
PACKAGES = {
    "plain": (),
    "numpy": ("numpy",),
    "torch": (
        "numpy", "torch", "torchgen", "sympy", "mpmath", "networkx", "jinja2", "markupsafe", "filelock", "fsspec",
        "typing_extensions",
    ),
}  # fmt: skip
"""Kind -> packages that are there to be read; everything else that is installed is not."""
FILES = {"plain": (), "numpy": (), "torch": ("/proc/cpuinfo",)}
"""Kind -> single files that are there, too: torch complains where it cannot look at the processor."""


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
        options = self.options()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
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
        self.control = ours
        try:
            self.process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, env=ENVIRONMENT, cwd="/",
            )  # fmt: skip
        except OSError as error:
            ours.close()
            raise Unavailable(f"no process can be started ({error})") from error
        finally:
            theirs.close()
        try:
            ours.settimeout(PATIENCE)
            try:
                told = json.loads(ours.recv(1 << 16) or b"{}")
            except TimeoutError:
                told = {"error": f"did not start within {PATIENCE:.0f} s"}
            if "ready" not in told:
                ours.close()
                self.process.kill()
                assert self.process.stderr is not None
                last = self.process.stderr.read().decode(errors="replace").strip().splitlines()[-1:]
                raise Unavailable(told.get("error") or "".join(last) or "the process ended at once")
        except BaseException:
            self.close()
            raise
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
            "readable": [*{os.path.realpath(path) for path in standard}, *found, *FILES[self.needs]],
            "hidden": [path for path in spare if os.path.isdir(path)],
            "user": USER + self.seat,
            "tasks": THREADS if os.geteuid() == 0 or self.tier == "A" else _tasks(os.getuid()) + OTHERS,
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
            theirs.close()
            os.close(out_end)
            os.close(err_end)
            out_end = err_end = -1
            return self._follow(request, limits, channel, out, err)
        except OSError as error:
            raise Broken(str(error)) from error
        finally:  # also for Ctrl-C
            channel.close()
            theirs.close()
            for handle in (out, err, out_end, err_end):
                if handle >= 0:
                    os.close(handle)

    def _follow(self, request: dict[str, Any], limits: Limits, channel: socket.socket, out: int, err: int) -> Run:
        data = json.dumps(request).encode()
        waiting = memoryview(struct.pack("<I", len(data)) + data)
        heard: dict[int, bytearray] = {channel.fileno(): bytearray(), out: bytearray(), err: bytearray()}
        most = {channel.fileno(): limits.answer, out: limits.output, err: limits.output}
        flooded, report = "", None
        late = time.monotonic() + limits.wall + PATIENCE
        channel.setblocking(False)
        with selectors.DefaultSelector() as selector:
            selector.register(channel, selectors.EVENT_READ | selectors.EVENT_WRITE)
            selector.register(out, selectors.EVENT_READ)
            selector.register(err, selectors.EVENT_READ)
            selector.register(self.control, selectors.EVENT_READ)
            while len(selector.get_map()) > 0:
                ready = selector.select(max(0.0, late - time.monotonic()))
                if not ready and time.monotonic() > late:
                    raise Broken("the zygote does not answer")
                for key, events in ready:
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
            answer=answer, strange=strange, output=_text(said["out"]), errors=_text(said["err"]),
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
        return _formed(json.loads(data[4:])), ""
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, MemoryError):
        return None, "its answer cannot be read"


def _formed(found: Any) -> dict[str, Any]:
    """What `runner` says, and nothing but that: anything else raises ValueError, TypeError, KeyError, AttributeError.

    `results` and `uses` hold what they hold; texts can be stored and shown.
    """
    answer: dict[str, Any] = {}
    for name, kind in (("results", list), ("uses", list), ("cut", bool)):
        if name in found:
            if type(found[name]) is not kind:
                raise TypeError(name)
            answer[name] = found[name]
    if "error" in found:
        error = found["error"]
        stack = [[_word(where), _line(line), _word(text)] for where, line, text in error["stack"][:MOST_STACK]]
        texts = {name: _word(error[name]) for name in ("phase", "type", "text")}
        answer["error"] = {**texts, "line": _line(error["line"]), "stack": stack}
    if "steps" in found:
        answer["steps"] = [_step(step) for step in found["steps"]]
    if not answer.keys() & {"results", "uses", "error", "steps"}:
        raise ValueError("nothing said")
    return answer


def _step(step: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"line": _line(step["line"]), "event": _word(step["event"])}
    made |= {"function": _word(step["function"])}
    made["variables"] = {_word(name): _word(one) for name, one in step["variables"].items()}
    return {**made, "value": _word(step["value"])} if "value" in step else made


def _line(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 31:
        raise TypeError("no line")
    return value


def _word(value: Any) -> str:
    if type(value) is not str:
        raise TypeError("no text")
    return _text(value[:MOST_TEXT].encode(errors="replace"))


def _text(data: bytes) -> str:
    """Bytes of a program as a text that a database takes: no half characters, no NUL."""
    return data.decode(errors="replace").replace("\0", "\N{SYMBOL FOR NULL}")


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
        """Run one request when it is its owner's turn.

        Busy, Unavailable, or Broken (for the second time: a zygote that dies is replaced once).
        """
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
            if len(self._queue.get(owner, ())) >= MOST_OF_ONE:
                raise Busy(f"{MOST_OF_ONE} runs of yours are waiting already")
            self._queue.setdefault(owner, deque()).append(ticket)
            try:
                while not self._closed and (
                    self._running >= self.size or next(iter(self._queue.values()))[0] is not ticket
                ):
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


def _tasks(user: int) -> int:
    """Threads of all processes of a user."""
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if process.stat().st_uid == user:
                count += len(os.listdir(process / "task"))
    return count


def _proportional(pid: int) -> int:
    """Proportional memory of a process and its children."""
    total, process = 0, Path(f"/proc/{pid}")
    with suppress(OSError):
        try:
            lines = (process / "smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        except PermissionError:  # it hides its memory from its own user, too: all of its pages, shared ones as well
            total += int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        for child in (process / "task" / str(pid) / "children").read_text().split():
            total += _proportional(int(child))
    return total
