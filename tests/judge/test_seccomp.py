"""The filter as the kernel reads it: a small interpreter decides calls of both machines by it."""

from __future__ import annotations

import struct

import pytest

from bitwright.judge import seccomp
from bitwright.judge.syscalls import ALLOWED, AUDIT, NEEDED, Machine

PID = 4711
ALLOW, KILL, EPERM, ENOSYS, ENOTTY = "allow", "kill", "EPERM", "ENOSYS", "ENOTTY"
WORDS = {0x7FFF0000: ALLOW, 0x80000000: KILL, 0x00050001: EPERM, 0x00050026: ENOSYS, 0x00050019: ENOTTY}


def machine(name: str) -> Machine:
    column = list(AUDIT).index(name)
    found = {call: numbers[column] for call, numbers in {**ALLOWED, **NEEDED}.items()}
    return Machine(AUDIT[name], {call: number for call, number in found.items() if number is not None})


def decide(program: bytes, architecture: int, number: int, *arguments: int) -> str:
    """What the filter says to a call; every path through it must end in a verdict."""
    words = [one & (1 << 64) - 1 for one in (*arguments, *[0] * 6)][:6]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, architecture, 0, *words)
    steps = [struct.unpack_from("HBBI", program, at) for at in range(0, len(program), 8)]
    at = held = 0
    while True:
        code, yes, no, value = steps[at]
        at += 1
        match code:
            case 0x20:  # load a word
                [held] = struct.unpack_from("<I", data, value)
            case 0x15:
                at += yes if held == value else no
            case 0x35:
                at += yes if held >= value else no
            case 0x45:
                at += yes if held & value else no
            case 0x06:
                return WORDS[value]
            case _:
                raise AssertionError(f"an instruction {code:x} that the filter should not have")


@pytest.fixture(params=list(AUDIT))
def here(request: pytest.FixtureRequest) -> Machine:
    return machine(request.param)


class Asked:
    def __init__(self, here: Machine) -> None:
        self.here, self.program = here, seccomp.program(here, PID)

    def __call__(self, call: str | int, *arguments: int) -> str:
        number = call if isinstance(call, int) else self.here.numbers[call]
        return decide(self.program, self.here.audit, number, *arguments)


@pytest.fixture
def ask(here: Machine) -> Asked:
    return Asked(here)


def test_what_reads_and_computes_is_allowed(ask: Asked) -> None:
    for call in (
        "read",
        "write",
        "openat",
        "mmap",
        "futex",
        "exit_group",
        "clock_gettime",
        "getrandom",
        "rt_sigaction",
    ):
        assert ask(call, 1, 2, 3) == ALLOW


def test_everything_allowed_is_on_the_list_and_nothing_else(ask: Asked) -> None:
    allowed = {number for number in range(1024) if ask(number) == ALLOW}
    known = {ask.here.numbers[name] for name in ALLOWED if name in ask.here.numbers}
    assert allowed <= known
    refused = {name for name in ALLOWED if name in ask.here.numbers and ask.here.numbers[name] not in allowed}
    assert refused == {"clone", "clone3", "ioctl", "tgkill", "prctl", "prlimit64"} - {"prlimit64"}


def test_what_builds_the_walls_is_not_allowed_inside(ask: Asked) -> None:
    for name in NEEDED:
        assert ask(name) == EPERM


@pytest.mark.parametrize(
    ("name", "x86", "arm"),
    [
        ("fork", 57, None), ("vfork", 58, None), ("execve", 59, 221), ("execveat", 322, 281), ("kill", 62, 129),
        ("tkill", 200, 130), ("socket", 41, 198), ("socketpair", 53, 199), ("ptrace", 101, 117), ("unshare", 272, 97),
        ("setns", 308, 268), ("mount", 165, 40), ("chroot", 161, 51), ("memfd_create", 319, 279), ("bpf", 321, 280),
        ("io_uring_setup", 425, 425), ("keyctl", 250, 219), ("userfaultfd", 323, 282), ("perf_event_open", 298, 241),
        ("process_vm_readv", 310, 270), ("setuid", 105, 146), ("setpriority", 141, 140), ("shmget", 29, 194),
        ("rt_sigqueueinfo", 129, 138), ("pidfd_send_signal", 424, 424), ("setrlimit", 160, 164), ("truncate", 76, 45),
        ("rename", 82, None), ("linkat", 265, 37),
        ("unlinkat", 263, 35), ("mkdirat", 258, 34), ("timer_create", 222, 107),
        ("seccomp", 317, 277), ("personality", 135, 92),
        ("sendmsg", 46, 211), ("sendto", 44, 206), ("recvmsg", 47, 212),
    ],
)  # fmt: skip
def test_a_dangerous_call_is_refused(here: Machine, ask: Asked, name: str, x86: int, arm: int | None) -> None:
    number = x86 if here.audit == AUDIT["x86_64"] else arm
    if number is not None:
        assert ask(number) == EPERM, name


def test_another_machine_and_x32_end_the_process(here: Machine, ask: Asked) -> None:
    for other in (*AUDIT.values(), 0x40000003, 0x40000028, 0):  # i386, arm, none
        if other != here.audit:
            assert decide(ask.program, other, here.numbers["read"]) == KILL
    for number in (0x40000000, 0x40000000 + here.numbers["read"], 0x7FFFFFFF, 0x80000000, -1, -2):
        assert ask(number) == KILL


def test_threads_yes_processes_no(ask: Asked) -> None:
    thread = 0x3D0F00  # what pthread_create of the GNU library asks for
    assert ask("clone", thread) == ALLOW
    assert ask("clone", 0x7D0F00) == ALLOW  # musl
    for flags in (0, 17, 0x4000 | 0x100 | 17, 0x1200011, 0x10000000 | 17):
        assert ask("clone", flags) == EPERM
    for flag in (0x10000000, 0x20000, 0x40000000, 0x20000000, 0x8000000, 0x4000000, 0x2000000, 0x1000, 0x2000, 0x8000):
        assert ask("clone", thread | flag) == EPERM
    assert ask("clone3", thread) == ENOSYS


def test_signals_only_to_oneself(ask: Asked) -> None:
    assert ask("tgkill", PID, PID, 6) == ALLOW
    for other in (1, PID + 1, 0, -1, -PID):
        assert ask("tgkill", other, PID, 9) == EPERM


def test_a_descriptor_sends_no_signals(ask: Asked) -> None:
    for command in (0, 1, 2, 3, 4, 1030):
        assert ask("fcntl", 1, command) == ALLOW
    for command in (5, 6, 7, 8, 9, 10, 11, 15, 16, 36, 37, 38, 1024, 1026, 1031, 1033):
        assert ask("fcntl", 1, command, PID) == EPERM
    for request in (0x5452, 0x8901, 0x8902, 0x5412, 0x540E, 0x541C):
        assert ask("ioctl", 0, request) == ENOTTY
    assert ask("ioctl", 1, 0x5401) == ALLOW


def test_of_prctl_only_names(ask: Asked) -> None:
    assert [option for option in range(100) if ask("prctl", option, 1) == ALLOW] == [15, 16]


def test_limits_are_read_not_set(ask: Asked) -> None:
    assert ask("prlimit64", 0, 7, 0, 1 << 40) == ALLOW
    for new in (1, 1 << 32, 0x7FFF00000000, -1):
        assert ask("prlimit64", 0, 7, new, 0) == EPERM
    assert ask("prlimit64", 1, 7, 0, 1 << 40) == EPERM


def test_upper_halves_hide_nothing(ask: Asked) -> None:
    """The kernel looks at the lower half of these arguments, and so does the filter."""
    high = 7 << 32
    assert ask("fcntl", 1, 8 | high) == EPERM
    assert ask("ioctl", 1, 0x5412 | high) == ENOTTY
    assert ask("prctl", 4 | high) == EPERM
    assert ask("tgkill", 1 | high, 1, 9) == EPERM
    assert ask("clone", 17 | 0x10000 << 32) == EPERM


def test_every_number_of_a_machine_has_one_name(here: Machine) -> None:
    assert len(set(here.numbers.values())) == len(here.numbers)


def test_the_filter_is_short_enough(ask: Asked) -> None:
    assert len(ask.program) % 8 == 0
    assert len(ask.program) // 8 < 4096
