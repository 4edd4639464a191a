"""Landlock: from now on, for good, this process and its children may read some paths and nothing else.

Source: landlock(7) and linux/landlock.h. Rights that a kernel does not know yet are left out; `abi` says which it has.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

from .syscalls import Machine

READ_FILE, READ_DIR = 1 << 2, 1 << 3
FILES = {1: 13, 2: 14, 3: 15, 5: 16}
"""ABI -> how many rights on files it knows: refer, truncate and ioctl came later."""
BIND_AND_CONNECT, SIGNAL_AND_ABSTRACT = 3, 3
PATH_BENEATH = 1


def _call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(number, *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), "landlock")
    return result


def abi(machine: Machine) -> int:
    """The version of Landlock that runs here; 0 where there is none."""
    try:
        return _call(machine.numbers["landlock_create_ruleset"], None, ctypes.c_size_t(0), 1)
    except OSError:
        return 0


def restrict(machine: Machine, readable: Iterable[str]) -> None:
    """Deny all that Landlock can deny (files, TCP, signals and sockets to outside), but reading below `readable`."""
    version = abi(machine)
    rights = (1 << max(count for first, count in FILES.items() if first <= max(version, 1))) - 1
    attributes = struct.pack("QQQ", rights, BIND_AND_CONNECT * (version >= 4), SIGNAL_AND_ABSTRACT * (version >= 6))
    size = 8 if version < 4 else 16 if version < 6 else 24
    rules = _call(
        machine.numbers["landlock_create_ruleset"], ctypes.c_char_p(attributes), ctypes.c_size_t(size), ctypes.c_uint(0)
    )
    for path in readable:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        allowed = READ_FILE | (READ_DIR if os.path.isdir(path) else 0)
        rule = struct.pack("=Qi", allowed, handle)
        _call(machine.numbers["landlock_add_rule"], rules, PATH_BENEATH, ctypes.c_char_p(rule), ctypes.c_uint(0))
        os.close(handle)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(38, 1, 0, 0, 0)
    _call(machine.numbers["landlock_restrict_self"], rules, ctypes.c_uint(0))
    os.close(rules)
