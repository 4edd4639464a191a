"""Names of processes that hold jobs: no two ever have the same, and on one machine it can be seen who has died."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import socket
from pathlib import Path


def new_owner() -> str:
    """A name for this process: its machine, its id, and a random part."""
    return f"{machine()}:{os.getpid()}:{secrets.token_hex(4)}"


def has_died(owner: str) -> bool:
    """Whether the process of this name ran on this machine, and has ended."""
    home, _, rest = owner.partition(":")
    pid = rest.partition(":")[0]
    return home == machine() and pid.isdecimal() and not is_alive(int(pid))


def machine() -> str:
    """This machine since it was started, as far as process ids are its own: containers of one machine differ."""
    facts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with contextlib.suppress(OSError):
            facts.append(os.readlink(path) if path.endswith("pid") else Path(path).read_text())
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def is_alive(pid: int) -> bool:
    """Whether a process of this number runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
