"""What this machine offers, and the memory ceiling that is kept on it."""

from __future__ import annotations

import ctypes
import resource
import time
from pathlib import Path

import torch

from bitwright.errors import ResourceError

MIB = 1 << 20
BASE = 640 * MIB
"""Resident memory of Python, torch, transformers and compressed-tensors before any model: measured, rounded up."""


MMAP_THRESHOLD = -3
"""M_MMAP_THRESHOLD of <malloc.h>: glibc raises it to 32 MiB by itself unless it is set."""


def memory_available() -> int:
    """Bytes of memory that can be had without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 4 << 30


def resident(kind: str = "VmRSS") -> int:
    """This process's resident memory in bytes; `RssFile` counts only mapped files, `VmHWM` the peak so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(kind + ":"):
            return int(line.split()[1]) * 1024
    return 0


def enforce(ceiling: int | None) -> None:
    """Make the kernel refuse private memory beyond `ceiling` bytes: a mistake becomes an error, never an overrun."""
    if ceiling is None:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        # A tensor in a map of its own goes back when it is freed; in the heap it leaves a hole that still counts.
        mallopt(MMAP_THRESHOLD, MIB)
    # Libraries mapped from files are resident too but cannot grow with the model; the rest is data.
    data = ceiling - resident("RssFile")
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        data = min(data, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (data, hard))


def default_ceiling() -> int:
    """Bytes a run may use where the user names no ceiling: what is free, or what the process's own limit allows."""
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_DATA, resource.RLIMIT_AS)]
    return min([int(memory_available() * 0.8), *(limit for limit in limits if limit != resource.RLIM_INFINITY)])


def calibration_dtype(device: str) -> torch.dtype:
    """bfloat16 where the processor multiplies it natively (AVX-512 BF16, AMX, GPU), else float32."""
    if device != "cpu":
        return torch.bfloat16
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return torch.float32
    return torch.bfloat16 if "avx512_bf16" in flags or "amx_bf16" in flags else torch.float32


def matmul_rate(dtype: torch.dtype, device: str) -> float:
    """Measured floating-point operations per second of a matrix product (takes about 50 ms)."""
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
            f"this job needs {needed / MIB:.0f} MiB at its heaviest block, the ceiling is {ceiling / MIB:.0f} MiB",
            where="--max-ram",
            fix=f"Give --max-ram {-(-needed // MIB)}MiB, use shorter windows, or --method rtn",
        )
