# A system call by int 0x80, whose numbers are those of another table: it ends the process.
# ruff: noqa
# outcome: SIGSYS
# machine: x86_64
def attack(outside, parent):
    # mov eax, 20 (getpid in the old table); int 0x80; ret
    return [f"int 0x80 {machine_code(bytes.fromhex('b814000000cd80c3'))}"]
