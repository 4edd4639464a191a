# A system call of the x32 table (getpid): it ends the process.
# ruff: noqa
# outcome: SIGSYS
# machine: x86_64
def attack(outside, parent):
    return [f"x32 {LIBC.syscall(0x40000000 + 39)}"]
