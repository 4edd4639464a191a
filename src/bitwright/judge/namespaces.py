"""Namespaces: a file system that holds only what a program may read, no network, no other process.

Source: namespaces(7), user_namespaces(7), pivot_root(2), mount_namespaces(7).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable, Sequence

from .syscalls import Machine

NEWUSER = 0x10000000
ALL = 0x20000 | 0x2000000 | 0x4000000 | 0x8000000 | 0x20000000 | 0x40000000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWPID, NEWNET."""
READ_ONLY, NO_SUID, NO_DEV, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
DETACH = 2
STAGES = ("/sys", "/mnt", "/srv", "/media", "/opt", "/proc")
"""Folders, one of which carries the new root until the old one is let go; only inside, nothing changes outside."""


def _checked(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    words = [None if word is None else word.encode() for word in (source, target, kind)]
    _checked(libc.mount(*words, ctypes.c_ulong(flags), data and data.encode()), f"mount {target}")


def enter() -> None:
    """New namespaces of every kind for this process (and of processes, for its children).

    Anyone but root needs a user namespace for it, of one user, himself. OSError where the kernel or an administrator
    does not allow it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        _checked(libc.unshare(ALL), "unshare")
        return
    owner, group = os.getuid(), os.getgid()
    _checked(libc.unshare(ALL | NEWUSER), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{owner} {owner} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def build_root(machine: Machine, readable: Iterable[str], hidden: Iterable[str]) -> None:
    """Make a root that holds `readable`, read-only, at the paths they had, with the folders `hidden` in them empty.

    What is readable below something hidden is mounted after it, so give parents first.
    """
    _mount(None, "/", None, RECURSIVE | PRIVATE)
    paths = list(readable)
    stage = next(
        folder for folder in STAGES if os.path.isdir(folder) and not any(p.startswith(folder + "/") for p in paths)
    )
    _mount("tmpfs", stage, "tmpfs", NO_SUID | NO_DEV, "size=1m,nr_inodes=4096,mode=755")
    covered = set(hidden)
    for path in sorted({*paths, *covered}):
        target = stage + path
        if path in covered:
            _mount("tmpfs", target, "tmpfs", NO_SUID | NO_DEV, "size=64k,nr_inodes=256,mode=755")
            continue
        if os.path.isdir(path):
            os.makedirs(target, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "w"):
                pass
        _mount(path, target, None, BIND | RECURSIVE)
        kept = os.statvfs(path).f_flag & 0x0F  # a user namespace must keep what the mount had: nosuid, nodev, noexec
        _mount(None, target, None, BIND | REMOUNT | READ_ONLY | NO_SUID | NO_DEV | kept)
    for path in covered:
        _mount(None, stage + path, None, REMOUNT | READ_ONLY | NO_SUID | NO_DEV)
    libc = ctypes.CDLL(None, use_errno=True)
    os.chdir(stage)
    _checked(libc.syscall(machine.numbers["pivot_root"], b".", b"."), "pivot_root")
    _checked(libc.umount2(b".", DETACH), "umount")
    os.chdir("/")
    _mount(None, "/", None, REMOUNT | READ_ONLY | NO_SUID | NO_DEV)


def become(user: int) -> None:
    """Give up root for a user that owns nothing; nothing to do for others."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)


def drop_rights(machine: Machine) -> None:
    """Give up every capability, for good, and hide this process's memory from others of its user."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(64):
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP; ends of the list are refused
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    libc.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE
    header = struct.pack("Ii", 0x20080522, 0)
    none = struct.pack("6I", *[0] * 6)
    _checked(libc.syscall(machine.numbers["capset"], ctypes.c_char_p(header), ctypes.c_char_p(none)), "capset")


def readable_parts(folders: Sequence[str], hidden: Sequence[str]) -> list[str]:
    """`folders` as the paths that Landlock is to allow: without the hidden parts, however deep, around which they are
    split up. What is readable although something around it is hidden is given by itself.
    """
    found: list[str] = []
    for folder in folders:
        if not any(path.startswith(folder + "/") for path in hidden):
            found.append(folder)
            continue
        with os.scandir(folder) as entries:  # a link to a folder would open what is hidden in that one
            inside = [e.path for e in entries if e.path not in hidden and not (e.is_symlink() and e.is_dir())]
        found += readable_parts(sorted(inside), hidden)
    return found
