"""The memory ceiling itself: what counts as reserved, and that the kernel refuses more."""

from __future__ import annotations

import mmap
import subprocess
import sys

from bitwright import machine

SIZE = 64 * machine.MIB


def test_memory_that_is_mapped_but_not_touched_is_reserved() -> None:
    before = machine.reserved()
    with mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE) as block:
        block.madvise(mmap.MADV_NOHUGEPAGE)  # else the kernel may join it with a neighbour
        assert machine.reserved() - before >= SIZE * 0.9
        block.write(b"x" * SIZE)
        assert abs(machine.reserved() - before) < SIZE // 8


HOLD = """
import sys, torch
from bitwright import machine
torch.set_num_threads(1)
torch.ones(machine.MIB, dtype=torch.uint8)  # the libraries' pages are in before anything is measured
assert not machine.limited()
room = 600 * machine.MIB  # what pages of libraries come in later is small beside it
ceiling = machine.resident() + room
machine.enforce(ceiling)
machine.enforce(ceiling)
assert machine.limited()
kept = [torch.ones(400 * machine.MIB, dtype=torch.uint8)]
print("held", flush=True)
try:
    kept.append(torch.ones(400 * machine.MIB, dtype=torch.uint8))
except RuntimeError:
    assert machine.resident("VmHWM") < ceiling
    print("refused")
"""


def test_the_kernel_refuses_what_the_ceiling_does_not_leave_room_for() -> None:
    done = subprocess.run([sys.executable, "-c", HOLD], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["held", "refused"]), done.stderr
