"""Which walls this machine has: found by running a hostile program behind them, not by reading version numbers.

A  namespaces, Landlock, seccomp, limits
B  Landlock, seccomp, limits: where user namespaces are blocked (Ubuntu 24.04, Docker's default profile)
-  neither: nothing is run, and the reason and its fix are said
"""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass

from . import landlock
from .limits import Limits
from .pool import Broken, Pool, Unavailable
from .syscalls import machine

WALLS = {"A": "namespaces + Landlock + seccomp", "B": "Landlock + seccomp"}
OLDEST = 3
"""Landlock version below which files could be truncated; signals are held by seccomp on every version."""

HOSTILE = r'''
import ctypes, os, resource, socket

def tried(name, act):
    """act() must fail; returns the name of what succeeded."""
    try:
        act()
    except (OSError, PermissionError, ImportError, ValueError):
        return []
    return [name]

def kill(pid):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.kill(pid, 0) != 0:
        raise OSError(ctypes.get_errno(), "kill")

def fork():
    if os.fork() == 0:
        os._exit(0)

def limit():
    resource.setrlimit(resource.RLIMIT_CPU, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

def attack(outside, parent):
    got = []
    for path in ("/etc/passwd", "/proc/self/environ", "/proc/1/cmdline", outside):
        got += tried("read " + path, lambda: open(path).read(1))
    for path in ("/tmp/x", "/x", "/dev/shm/x", outside + ".x"):
        got += tried("write " + path, lambda: open(path, "w"))
    for path in ("/", "/root", "/home", "/tmp"):
        got += tried("list " + path, lambda: os.listdir(path))
    got += tried("fork", fork)
    got += tried("execute", lambda: os.execv("/bin/sh", ["sh"]))
    got += tried("start a program", lambda: os.posix_spawn("/bin/true", ["true"], {}))
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK):
        got += tried("socket", lambda: socket.socket(family))
    got += tried("socket pair", socket.socketpair)
    got += tried("signal the parent", lambda: kill(parent))
    got += tried("signal everyone", lambda: kill(-1))
    got += tried("signal the zygote", lambda: kill(os.getppid()))
    got += tried("lift a limit", limit)
    got += tried("memfd", lambda: os.memfd_create("x"))
    got += tried("become root", lambda: os.setuid(0))
    return got
'''


@dataclass(frozen=True)
class Tier:
    """What was found: the tier's letter ("" for none), in words, and why not a better one."""

    name: str
    words: str
    reason: str = ""
    fix: str = ""


_found: Tier | None = None
_lock = threading.Lock()


def probe() -> Tier:
    """The best tier whose walls held a hostile program. Looked for once per process; takes about half a second."""
    global _found
    with _lock:
        if _found is None:
            _found = _probe()
        return _found


def _probe() -> Tier:
    here = machine()
    if sys.platform != "linux" or here is None:
        name = f"{sys.platform} on {os.uname().machine}"
        return Tier(
            "",
            "not available",
            f"this is {name}",
            "Use Linux on x86_64 or aarch64: a virtual machine, WSL 2 or a container does",
        )
    reasons = []
    for letter in WALLS:
        if letter == "B" and landlock.abi(here) < OLDEST:
            reasons.append(f"the kernel has Landlock {landlock.abi(here)}, {OLDEST} is needed")
            break
        why = attack(letter)
        if why is None:
            return Tier(letter, WALLS[letter], "; ".join(reasons), _fix(letter) if reasons else "")
        reasons.append(f"tier {letter}: {why}")
    return Tier("", "not available", "; ".join(reasons), _fix(""))


def attack(letter: str) -> str | None:
    """What a hostile program got through the walls of a tier, or why these cannot stand; None where they held."""
    try:
        with Pool(letter, 1) as pool:
            call = {"function": "attack", "arguments": [os.path.realpath(__file__), os.getpid()]}
            run = pool.run({"code": HOSTILE, "calls": [call]}, "plain", Limits(cpu=5))
    except (Unavailable, Broken) as error:
        return str(error)
    if run.answer is None or "results" not in run.answer:
        return f"the hostile program could not be run ({run.strange or run.errors or run.answer})"
    [got] = run.answer["results"]
    return f"a hostile program could {', '.join(got)}" if got else None


def _fix(letter: str) -> str:
    if letter == "B":
        return (
            "This is safe. For namespaces, too: sysctl kernel.apparmor_restrict_unprivileged_userns=0,"
            " or docker run --security-opt seccomp=unconfined"
        )
    return (
        "Update to Linux 6.2 or newer with Landlock (lsm=landlock,... on the kernel's command line),"
        " or allow user namespaces"
    )


def open_pool(size: int | None = None) -> Pool:
    """A pool behind the best walls of this machine. Unavailable where there are none: nothing weaker is used."""
    tier = probe()
    if not tier.name:
        raise Unavailable(f"programs cannot be run safely here: {tier.reason}. {tier.fix}")
    return Pool(tier.name, size)
