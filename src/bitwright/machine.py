"""What this machine offers, and the memory ceiling that is kept on it."""

from __future__ import annotations

import ctypes
import resource
import threading
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bitwright.errors import ResourceError

if TYPE_CHECKING:
    import torch

MIB = 1 << 20
BASE = 440 * MIB
"""Resident memory of Python, torch, transformers and compressed-tensors with hardly a model: peaks of fresh processes
that quantized and certified the 4 MB demo model by rtn and lloyd were 435 to 442 MiB, of which about 14 are its own;
12 more for what differs from machine to machine (the same run peaked at 521 and at 532 MB on two of them)."""
MAPPED = 1 << 16
"""Bytes for which malloc does not enlarge its heap under a ceiling: a map of its own goes back when a tensor is freed,
the heap is left with holes between lasting small objects, and holes count."""
KEPT = 1 << 23
"""Bytes of freed memory that malloc keeps for the next piece: faulting pages in costs more than the arithmetic."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of <malloc.h>. Setting one stops glibc from adapting the other, so they are set together."""
STACK = 2 * MIB
"""Stack of a thread that Python starts under a ceiling: the usual 8 MiB count in full against the kernel's limit."""


def memory_available() -> int:
    """Bytes of memory that can be had without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 4 << 30


def resident(kind: str = "VmRSS", process: int | None = None) -> int:
    """Resident memory in bytes of this process, or of another; 0 where that has ended.

    `RssFile` counts only mapped files, `VmHWM` is the peak so far.
    """
    for line in Path(f"/proc/{process or 'self'}/status").read_text().splitlines():
        if line.startswith(kind + ":"):
            return int(line.split()[1]) * 1024
    return 0


def enforce(ceiling: int | None) -> None:
    """Make the kernel refuse private memory beyond `ceiling` bytes: a mistake becomes an error, never an overrun."""
    if ceiling is None:
        return
    tune_malloc(MAPPED, KEPT)
    threading.stack_size(STACK)
    small = np.ones((256, 256), dtype=np.float32)
    small @ small  # makes NumPy's BLAS map its buffers now
    # Growth is limited to what the ceiling leaves above what is resident now. Libraries mapped from files are resident
    # too but cannot grow with the model; stacks and the buffers of BLAS are mapped at full size and hardly touched.
    data = ceiling - resident("RssFile") + reserved()
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        data = min(data, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (data, hard))


def limited() -> bool:
    """Whether this process's private memory has a limit."""
    return resource.getrlimit(resource.RLIMIT_DATA)[0] != resource.RLIM_INFINITY


def tune_malloc(mapped: int, kept: int) -> None:
    """malloc maps what no hole of its heap holds, from `mapped` bytes on, and keeps `kept` free bytes at its end."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, mapped)
        mallopt(M_TRIM_THRESHOLD, kept)


def reserved() -> int:
    """Bytes of writable private memory that is mapped but hardly touched: less than a sixteenth of a mapping."""
    found = size = 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        word, *rest = line.split()
        if not word.endswith(":"):
            private = len(rest[0]) == 4 and rest[0][1] == "w" and rest[0][3] == "p"
            first, last = word.split("-")
            size = int(last, 16) - int(first, 16) if private else 0
        elif word == "Rss:" and int(rest[0]) * 1024 * 16 < size:
            found += size
    return found


def default_ceiling() -> int:
    """Bytes a run may use where the user names no ceiling: what is free, or what the process's own limit allows."""
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_DATA, resource.RLIMIT_AS)]
    return min([int(memory_available() * 0.8), *(limit for limit in limits if limit != resource.RLIM_INFINITY)])


def calibration_dtype(device: str) -> torch.dtype:
    """bfloat16 where the processor multiplies it natively (AVX-512 BF16, AMX, GPU), else float32."""
    import torch

    if device != "cpu":
        return torch.bfloat16
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return torch.float32
    return torch.bfloat16 if "avx512_bf16" in flags or "amx_bf16" in flags else torch.float32


def exhausted(error: Exception) -> bool:
    """Whether torch raised an error because memory ran out: on processors it has no type of its own for that."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)


@cache
def matmul_rate(dtype: torch.dtype, device: str) -> float:
    """Floating-point operations per second of a matrix product, measured once per process (takes about 50 ms)."""
    import torch

    n = 512
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    a @ b
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < 0.05:
        (a @ b)[0, 0].item()
        count += 1
    return count * 2 * n**3 / (time.perf_counter() - started)


def require_memory(needed: int, ceiling: int | None) -> None:
    """Raise ResourceError where `needed` bytes exceed the ceiling."""
    if ceiling is not None and needed > ceiling:
        raise ResourceError(
            f"this job needs {needed / MIB:.0f} MiB at its largest block; the memory limit is {ceiling / MIB:.0f} MiB",
            where="--max-ram",
            fix=f"Give --max-ram {-(-needed // MIB)}MiB, use shorter windows, or --method rtn",
        )
