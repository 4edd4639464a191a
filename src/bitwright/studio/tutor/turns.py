"""How often each learner may ask the tutor."""

from __future__ import annotations

import time
from collections import deque

from bitwright.errors import ResourceError

A_MINUTE = 6
"""Questions that a learner may ask in a minute."""


class Turns:
    """How often each learner asked within the last minute."""

    def __init__(self, most: int = A_MINUTE, seconds: float = 60.0) -> None:
        self.most, self.seconds = most, seconds
        self._asked: dict[int, deque[float]] = {}

    def take(self, learner: int) -> None:
        """Count a question. ResourceError where there were too many."""
        now = time.monotonic()
        for one, asked in list(self._asked.items()):
            while asked and asked[0] <= now - self.seconds:
                asked.popleft()
            if not asked:
                del self._asked[one]
        mine = self._asked.setdefault(learner, deque())
        if len(mine) >= self.most:
            wait = max(1, round(mine[0] + self.seconds - now))
            what = f"{self.most} questions a minute are the most"
            raise ResourceError(
                what, where="tutor", fix=f"Ask again in {wait} s; meanwhile, step through the explanation"
            )
        mine.append(now)
