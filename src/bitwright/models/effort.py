"""Effort: quality for time, in any format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Effort:
    """What a job does beside rounding each matrix for its own inputs."""

    corrects: bool = False
    """Whether matrices aim at what makes up for the errors before them (`core.drift`)."""
    weighing: int = 0
    """Windows of calibration text on which it is learnt how much each output counts for the loss; 0: all count alike.
    """
    windows: int = 128
    """Windows of calibration text, where the recipe names no number."""
    notes: tuple[str, ...] = ()
    """What had to be left out, and why."""

    def summary(self) -> dict[str, Any]:
        """What decides the output's bytes, JSON-able."""
        return {"corrects": self.corrects, "weighing": self.weighing}


EFFORTS = {"fast": Effort(), "default": Effort(True, 16), "best": Effort(True, 128, 512)}
"""By the recipe's word."""
