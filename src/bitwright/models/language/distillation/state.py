"""What training goes on from after it was stopped: weights, optimizer, losses so far, and the best weights."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

STATE, BEST = "training.pt", "best.pt"
"""Names of the files that hold them."""


@dataclass
class Record:
    """How training went: the loss of every step, and (step, KL) of every look at windows that are not learned from."""

    losses: list[float] = field(default_factory=list)
    looks: list[tuple[int, float]] = field(default_factory=list)

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.losses)

    @property
    def best(self) -> tuple[int, float]:
        """The look with the least KL, the first of equals."""
        return min(self.looks, key=lambda look: (look[1], look[0]))

    @property
    def since(self) -> int:
        """Looks after the best one."""
        return len(self.looks) - 1 - self.looks.index(self.best)


class Keeper:
    """Keeps training in a folder: a file is whole, or that of the time before.

    Where the best weights are kept and the state is not yet, the steps in between are done again, and come to the same.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Record:
        """Bring both to where they were; a new record where nothing is kept."""
        path = self.folder / STATE
        if not path.exists():
            return Record()
        kept = torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict(kept["module"])
        optimizer.load_state_dict(kept["optimizer"])
        return Record(kept["losses"], [(int(step), float(kl)) for step, kl in kept["looks"]])

    def save(self, module: torch.nn.Module, optimizer: torch.optim.Optimizer, record: Record) -> None:
        """Keep where both are."""
        state = {"module": module.state_dict(), "optimizer": optimizer.state_dict()}
        self._write(STATE, state | {"losses": record.losses, "looks": record.looks})

    def save_best(self, module: torch.nn.Module) -> None:
        """Keep these weights as the best ones."""
        self._write(BEST, module.state_dict())

    def load_best(self, module: torch.nn.Module) -> None:
        """Give `module` the best weights."""
        module.load_state_dict(torch.load(self.folder / BEST, map_location="cpu", weights_only=True))

    def _write(self, name: str, value: Any) -> None:
        path, fresh = self.folder / name, self.folder / f"{name}.new"
        with fresh.open("wb") as file:
            torch.save(value, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)

    def remove(self) -> None:
        """Delete all that is kept."""
        for name in (STATE, BEST):
            (self.folder / name).unlink(missing_ok=True)
            (self.folder / f"{name}.new").unlink(missing_ok=True)
