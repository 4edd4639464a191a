"""Numbers of the system calls that the sandbox knows by name, for the two machines that it supports.

Source: Linux, `arch/x86/entry/syscalls/syscall_64.tbl` and `include/uapi/asm-generic/unistd.h` (aarch64).
"""

from __future__ import annotations

import platform
from typing import NamedTuple


class Machine(NamedTuple):
    """A machine's name for seccomp (AUDIT_ARCH_*), and the numbers of its system calls."""

    audit: int
    numbers: dict[str, int]


# fmt: off
ALLOWED: dict[str, tuple[int, int | None]] = {
    "read": (0, 63), "readv": (19, 65), "pread64": (17, 67), "preadv": (295, 69), "write": (1, 64),
    "writev": (20, 66), "pwrite64": (18, 68), "pwritev": (296, 70), "lseek": (8, 62), "close": (3, 57),
    "close_range": (436, 436), "open": (2, None), "openat": (257, 56), "openat2": (437, 437), "stat": (4, None),
    "fstat": (5, 80), "lstat": (6, None), "newfstatat": (262, 79), "statx": (332, 291), "statfs": (137, 43),
    "fstatfs": (138, 44), "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439),
    "readlink": (89, None), "readlinkat": (267, 78), "getdents64": (217, 61), "getcwd": (79, 17), "chdir": (80, 49),
    "fchdir": (81, 50), "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24), "fcntl": (72, 25), "ioctl": (16, 29),
    "pipe": (22, None), "pipe2": (293, 59), "poll": (7, None), "ppoll": (271, 73), "select": (23, None),
    "pselect6": (270, 72), "epoll_create1": (291, 20), "epoll_ctl": (233, 21), "epoll_wait": (232, None),
    "epoll_pwait": (281, 22), "eventfd2": (290, 19), "mmap": (9, 222), "munmap": (11, 215), "mprotect": (10, 226),
    "mremap": (25, 216), "madvise": (28, 233), "brk": (12, 214), "mincore": (27, 232), "membarrier": (324, 283),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "rt_sigtimedwait": (128, 137),
    "sigaltstack": (131, 132), "pause": (34, None), "restart_syscall": (219, 128), "clone": (56, 220),
    "clone3": (435, 435), "exit": (60, 93), "exit_group": (231, 94), "futex": (202, 98),
    "set_robust_list": (273, 99), "get_robust_list": (274, 100), "set_tid_address": (218, 96), "rseq": (334, 293),
    "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120), "getcpu": (309, 168), "getpid": (39, 172), "getppid": (110, 173),
    "gettid": (186, 178), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177),
    "getresuid": (118, 148), "getresgid": (120, 150), "getgroups": (115, 158), "getpgrp": (111, None),
    "getpgid": (121, 155), "getsid": (124, 156), "tgkill": (234, 131), "wait4": (61, 260), "waitid": (247, 95),
    "umask": (95, 166), "getrandom": (318, 278), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115), "nanosleep": (35, 101), "gettimeofday": (96, 169), "time": (201, None),
    "times": (100, 153), "getitimer": (36, 102), "setitimer": (38, 103), "alarm": (37, None),
    "timerfd_create": (283, 85), "timerfd_settime": (286, 86), "getrlimit": (97, 163), "prlimit64": (302, 261),
    "getrusage": (98, 165), "sysinfo": (99, 179), "uname": (63, 160), "arch_prctl": (158, None), "prctl": (157, 167),
}
"""What a program may call at all (x86_64, aarch64; None where the machine has no such call); `seccomp` narrows some."""
NEEDED: dict[str, tuple[int, int]] = {
    "pivot_root": (155, 41), "capset": (126, 91),
    "landlock_create_ruleset": (444, 444), "landlock_add_rule": (445, 445), "landlock_restrict_self": (446, 446),
}
"""What building the sandbox calls by number, since the C library has no function for it."""
# fmt: on
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def machine() -> Machine | None:
    """This machine, or None where it is neither x86_64 nor aarch64."""
    name = platform.machine()
    if name not in AUDIT:
        return None
    column = list(AUDIT).index(name)
    table = {**ALLOWED, **NEEDED}
    found = {call: numbers[column] for call, numbers in table.items()}
    return Machine(AUDIT[name], {call: number for call, number in found.items() if number is not None})
