"""An allow-list of system calls as a BPF program: threads yes, processes no, no files but to read, no sockets.

A call that is not allowed fails with EPERM, so that a library which merely tries goes on. A call of another
architecture's table (int 0x80, x32) ends the process. Source: seccomp(2), linux/seccomp.h, linux/filter.h.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from errno import ENOSYS, ENOTTY, EPERM

from .syscalls import ALLOWED, Machine

LOAD, EQUAL, AT_LEAST, BITS, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL, ERROR = 0x7FFF0000, 0x80000000, 0x00050000
NUMBER, ARCHITECTURE = 0, 4
X32 = 0x40000000
CLONE_THREAD = 0x10000
CLONES = 0x7D0F00
"""Flags of clone that starting a thread takes (VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, SETTLS, PARENT_SETTID,
CHILD_CLEARTID, DETACHED): none that makes a namespace or a handle on a process."""
IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX."""
PRCTLS = (15, 16, 0x53564D41)
"""PR_SET_NAME, PR_GET_NAME, PR_SET_VMA (malloc names its memory)."""
FCNTLS = (0, 1, 2, 3, 4, 1030, 1034)
"""F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC, F_GET_SEALS: none that sends signals (F_SETOWN)."""
NARROWED = ("clone", "clone3", "ioctl", "prctl", "fcntl", "prlimit64", "tgkill")


def argument(index: int, high: bool = False) -> int:
    """Where an argument's lower (or upper) 32 bits stand in seccomp_data; both machines are little-endian."""
    return 16 + 8 * index + 4 * high


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("HBBI", code, yes, no, value & 0xFFFFFFFF)


def _among(index: int, values: Sequence[int], otherwise: int) -> list[bytes]:
    """Allow where the argument is one of `values`."""
    steps = [_step(LOAD, argument(index))]
    for value in values:
        steps += [_step(EQUAL, value, 0, 1), _step(RETURN, ALLOW)]
    return [*steps, _step(RETURN, ERROR | otherwise)]


def _when(number: int, steps: list[bytes]) -> list[bytes]:
    """`steps`, which all return, for one call."""
    return [_step(EQUAL, number, 0, len(steps)), *steps]


def program(machine: Machine, pid: int) -> bytes:
    """The filter for the process `pid` (as it sees itself): only to itself may it send signals, by tgkill."""
    calls = machine.numbers
    steps = [
        _step(LOAD, ARCHITECTURE), _step(EQUAL, machine.audit, 1, 0), _step(RETURN, KILL),
        _step(LOAD, NUMBER), _step(AT_LEAST, X32, 0, 1), _step(RETURN, KILL),
    ]  # fmt: skip
    # ENOSYS, so that the C library falls back to clone, whose flags a filter can see.
    steps += _when(calls["clone3"], [_step(RETURN, ERROR | ENOSYS)])
    steps += _when(
        calls["clone"],
        [
            _step(LOAD, argument(0)), _step(BITS, ~CLONES, 2, 0), _step(BITS, CLONE_THREAD, 0, 1),
            _step(RETURN, ALLOW), _step(RETURN, ERROR | EPERM),
        ],
    )  # fmt: skip
    steps += _when(calls["ioctl"], _among(1, IOCTLS, ENOTTY))
    steps += _when(calls["prctl"], _among(0, PRCTLS, EPERM))
    steps += _when(calls["fcntl"], _among(1, FCNTLS, EPERM))
    # Limits may be read, of oneself: prlimit64(0, resource, NULL, old).
    read = [_step(LOAD, argument(0)), _step(EQUAL, 0, 0, 5), _step(LOAD, argument(2)), _step(EQUAL, 0, 0, 3)]
    read += [
        _step(LOAD, argument(2, high=True)),
        _step(EQUAL, 0, 0, 1),
        _step(RETURN, ALLOW),
        _step(RETURN, ERROR | EPERM),
    ]
    steps += _when(calls["prlimit64"], read)
    steps += _when(calls["tgkill"], _among(0, (pid,), EPERM))
    for name in ALLOWED:
        if name in calls and name not in NARROWED:
            steps += [_step(EQUAL, calls[name], 0, 1), _step(RETURN, ALLOW)]
    return b"".join([*steps, _step(RETURN, ERROR | EPERM)])


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def install(filter_: bytes) -> None:
    """Put this thread and all it will start under a filter, for good. OSError where the kernel has no seccomp."""
    libc = ctypes.CDLL(None, use_errno=True)
    whole = _Program(len(filter_) // 8, filter_)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(whole), 0, 0):  # NO_NEW_PRIVS, SET_SECCOMP
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "seccomp")
