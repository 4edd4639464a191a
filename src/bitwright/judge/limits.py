"""What one run may use."""

from __future__ import annotations

from dataclasses import dataclass

MB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """CPU seconds, seconds on the clock, MB beyond the interpreter's own, bytes of output, bytes of the answer."""

    cpu: float = 2.0
    memory: int = 256
    output: int = 64 << 10
    answer: int = 4 << 20

    @property
    def wall(self) -> float:
        """Seconds on the clock: a busy machine makes a program wait, so this is a safety, not the limit."""
        return 5 * self.cpu + 2
