"""The warm process inside the walls: it has imported what programs need, and forks one process for each run.

Started by `pool` as `python -c`, with a socket and a JSON object of options. Per run it gets a line of limits with
three descriptors (channel, stdout, stderr), and answers with what `wait4` saw. It never reads what a program wrote.
"""

from __future__ import annotations

import array
import ctypes
import gc
import io
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from typing import Any, NoReturn

from . import landlock, namespaces, runner, seccomp
from .syscalls import Machine, machine

COMMON = (
    "abc", "array", "bisect", "cmath", "collections", "collections.abc", "copy", "dataclasses", "datetime", "decimal",
    "encodings.ascii", "encodings.utf_8", "enum", "fractions", "functools", "heapq", "itertools", "json", "linecache",
    "math", "operator", "queue", "random", "re", "statistics", "string", "struct", "textwrap", "time", "traceback",
    "typing", "unicodedata",
)  # fmt: skip
"""What programs import most: there already, so that it costs a run nothing."""
PARENT_DEATH = 1
"""PR_SET_PDEATHSIG; a change of user takes it back, and no program behind seccomp can."""


def main() -> NoReturn:
    """Build the walls, say so, and serve until the socket closes."""
    control = socket.socket(fileno=int(sys.argv[1]))
    options: dict[str, Any] = json.loads(sys.argv[2])
    try:
        here = machine()
        assert here is not None, "pool starts no zygote on a machine that has no table"
        sys.path[:] = [*options["packages"], *sys.path]
        for name in (*COMMON, *options["preload"]):
            __import__(name)
        sys.path[:] = [path for path in sys.path if path not in options["own"]]
        with open("/proc/self/statm") as file:
            options["space"] = int(file.read().split()[0]) * resource.getpagesize()
        enclose(here, options)
    except Exception as error:
        control.send(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        os._exit(1)
    gc.collect()
    gc.freeze()
    control.send(json.dumps({"ready": os.getuid(), "landlock": landlock.abi(here), "rss": _resident()}).encode())
    while True:
        message, extra, _, _ = control.recvmsg(1 << 16, socket.CMSG_SPACE(12))
        if not message:
            os._exit(0)
        if message == b"stop":  # for a run that had ended by itself in the same moment
            continue
        handles = array.array("i")
        for _, _, data in extra:
            handles.frombytes(data)
        control.send(json.dumps(serve(here, control, json.loads(message), list(handles), options)).encode())


def enclose(here: Machine, options: dict[str, Any]) -> None:
    """The walls of a tier around this process. Raises OSError where one of them cannot stand."""
    os.setsid()
    folders: list[str] = sorted({*options["readable"], *_libraries(options["own"])})
    hidden = _hidden(folders, options)
    if options["tier"] == "A":
        namespaces.enter()
        _fork_first()
        namespaces.build_root(here, folders, hidden)
    # Landlock before the change of user: whose folders these are, only root can look up.
    landlock.restrict(here, [p for p in namespaces.readable_parts(folders, hidden) if os.access(p, os.R_OK)])
    namespaces.become(options["user"])
    if options["tier"] == "A":
        ctypes.CDLL(None).prctl(PARENT_DEATH, signal.SIGKILL, 0, 0, 0)
    namespaces.drop_rights(here)


def _hidden(folders: list[str], options: dict[str, Any]) -> list[str]:
    """What is not to be seen in `folders`: what the options say, and this package with its problems' solutions."""
    hidden: list[str] = options["hidden"]
    own = [p for p in options["own"] if any(p.startswith(folder + "/") for folder in folders)]
    return [*hidden, *(p for p in own if not any(f"{p}/".startswith(known + "/") for known in hidden))]


def _libraries(own: list[str]) -> set[str]:
    """Folders of the shared libraries that are loaded now: others beside them may be needed later."""
    with open("/proc/self/maps") as maps:
        paths = {os.path.dirname(line.split(maxsplit=5)[5].strip()) for line in maps if ".so" in line}
    found = {os.path.realpath(path) for path in paths if path.startswith("/")}
    return {
        path for path in found if path.endswith(("/lib", "/lib64")) or "/lib/" in path or path in ("/lib", "/lib64")
    } - {*own}


def _fork_first() -> None:
    """A new process namespace begins with a child: that goes on as the zygote; this process ends with it."""
    child = os.fork()
    if child:
        signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGKILL))
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    ctypes.CDLL(None).prctl(PARENT_DEATH, signal.SIGKILL, 0, 0, 0)


def _resident() -> int:
    """Bytes of memory this process has."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def serve(
    here: Machine, control: socket.socket, limits: dict[str, Any], handles: list[int], options: dict[str, Any]
) -> dict[str, Any]:
    """One run: fork, wait within its time on the clock, count."""
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            control.close()
            run(here, limits, handles, options)
        finally:
            os._exit(70)
    for handle in handles:
        os.close(handle)
    ended = os.pidfd_open(child)
    killed = ""
    seen = select.select([ended, control.fileno()], [], [], limits["wall"])[0]
    if ended not in seen:
        killed = "asked" if seen else "wall"
        if seen and not control.recv(64):
            os.kill(child, signal.SIGKILL)
            os._exit(0)
        os.kill(child, signal.SIGKILL)
    elif control.fileno() in seen:
        control.recv(64)  # it was to be stopped, and had ended by itself
    _, status, used = os.wait4(child, 0)
    os.close(ended)
    return {
        "status": status, "killed": killed, "cpu": used.ru_utime + used.ru_stime, "memory": used.ru_maxrss * 1024,
        "wall": time.monotonic() - start,
    }  # fmt: skip


def run(here: Machine, limits: dict[str, Any], handles: list[int], options: dict[str, Any]) -> NoReturn:
    """In the new process: limits, the last walls, the program, its answer."""
    channel = 0
    ctypes.CDLL(None).prctl(PARENT_DEATH, signal.SIGKILL, 0, 0, 0)
    for place, handle in enumerate(handles):
        os.dup2(handle, place)
    os.closerange(3, 4096)
    request = json.loads(_read(channel, struct.unpack("<I", _read(channel, 4))[0]))
    sys.stdin = io.StringIO()
    sys.stdout, sys.stderr = (
        open(handle, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
        for handle in (1, 2)
    )
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    room = options["space"] + (limits["memory"] << 20)
    whole = max(1, -(-limits["cpu"] // 1))
    for name, soft, hard in (
        ("AS", room, room), ("CPU", whole, whole + 1), ("FSIZE", 0, 0), ("NOFILE", 32, 32), ("CORE", 0, 0),
        ("MEMLOCK", 0, 0), ("MSGQUEUE", 0, 0), ("NPROC", options["tasks"], options["tasks"]),
    ):  # fmt: skip
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (int(soft), int(hard)))
    seccomp.install(seccomp.program(here, os.getpid()))
    for name in [name for name in sys.modules if name.partition(".")[0] == "bitwright"]:
        del sys.modules[name]
    write, leave, dump, pack = os.write, os._exit, json.dumps, struct.pack
    told = runner.answer(request)
    sys.stdout.flush()
    sys.stderr.flush()
    data = dump(told).encode()
    view = memoryview(pack("<I", len(data)) + data)
    while view:
        view = view[write(channel, view) :]
    leave(0)


def _read(handle: int, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = os.read(handle, size - len(parts))
        if not part:
            os._exit(71)
        parts += part
    return bytes(parts)
