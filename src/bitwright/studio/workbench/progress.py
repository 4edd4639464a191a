"""How far a run is, counted from what it tells."""

from __future__ import annotations

import time

from bitwright.studio.workbench.topic import Event

PHASES = {
    "write": (0.0, 0.3, 0.3), "calibrate": (0.0, 0.3, 0.3), "quantize": (0.05, 0.85, 0.85),
    "certify": (0.85, 0.92, 1.0),
}  # fmt: skip
"""Where in the whole run a phase begins, and ends when it comes for the first and the second time, roughly. Other
phases leave the share as it is."""


class Progress:
    """How far a run is: a share of the whole that never falls, and how long the rest takes at the pace so far."""

    def __init__(self) -> None:
        self.phase, self.label, self.share = "start", "", 0.0
        self._part = (0.0, 0.0)
        self._begun: tuple[float, float] | None = None

    def take(self, event: Event) -> None:
        """Count an engine's event in."""
        if event["event"] == "started":
            again = event["phase"] == self.phase
            self.phase, self.label = event["phase"], event["detail"]
            low, middle, high = PHASES.get(self.phase, (self.share, self.share, self.share))
            self._part = (max(self.share, low), high if again else middle)
            self._grow(self._part[0])
        elif event["event"] == "progress":
            self.label = event["label"]
            low, high = self._part
            self._grow(low + (high - low) * min(1.0, event["done"] / max(event["total"], 1e-9)))

    def _grow(self, share: float) -> None:
        self.share = max(self.share, share)
        if self._begun is None and self.share > 0:
            self._begun = (time.monotonic(), self.share)

    def json(self) -> Event:
        """As a page gets it."""
        left = None
        if self._begun is not None:
            moment, share = self._begun
            grown, passed = self.share - share, time.monotonic() - moment
            if grown > 0.02 and passed > 1:
                left = round(passed * (1 - self.share) / grown, 1)
        return {"phase": self.phase, "share": round(self.share, 4), "label": self.label, "seconds_left": left}
