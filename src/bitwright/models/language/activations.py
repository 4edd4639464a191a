"""Hidden states on their way through a network: in memory as far as they may, on disk beyond it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from bitwright.files.safetensors import read_bytes, view_bytes

SPILL = ".activations-"
"""How names of files with spilled activations begin."""


class Activations:
    """Hidden states of many batches, in memory up to `budget` bytes and in one temporary file beyond it."""

    def __init__(self, budget: int, folder: Path | None = None) -> None:
        self._left = budget
        self._kept: list[torch.Tensor | None] = []
        self._meta: list[tuple[torch.Size, torch.dtype, torch.device]] = []
        self._place: dict[int, tuple[int, int]] = {}  # first byte in the file, and room there
        self._file: Any = None
        self._end = 0
        self._folder = folder

    def __len__(self) -> int:
        return len(self._meta)

    def append(self, hidden: torch.Tensor) -> None:
        """Add a batch at the end."""
        self._kept.append(None)
        self._meta.append((hidden.shape, hidden.dtype, hidden.device))
        self[len(self._meta) - 1] = hidden

    def __setitem__(self, i: int, hidden: torch.Tensor) -> None:
        size, before = hidden.nbytes, self._kept[i]
        self._meta[i] = (hidden.shape, hidden.dtype, hidden.device)
        more = size - (0 if before is None else before.nbytes)
        if more <= self._left and (before is not None or i not in self._place):
            self._kept[i], self._left = hidden, self._left - more
            return
        if before is not None:
            self._kept[i], self._left = None, self._left + before.nbytes
        if self._file is None:
            self._file = tempfile.NamedTemporaryFile(dir=self._folder, prefix=SPILL, buffering=0)  # noqa: SIM115
        if i not in self._place or self._place[i][1] < size:
            self._place[i] = self._end, size
            self._end += size
        self._file.seek(self._place[i][0])
        self._file.write(view_bytes(hidden.contiguous().cpu()))

    def __getitem__(self, i: int) -> torch.Tensor:
        kept = self._kept[i]
        if kept is not None:
            return kept
        shape, dtype, device = self._meta[i]
        assert self._file is not None
        raw = torch.empty(shape.numel() * dtype.itemsize, dtype=torch.uint8)
        read_bytes(Path(self._file.name), self._place[i][0], raw)
        return raw.view(dtype).reshape(shape).to(device)
