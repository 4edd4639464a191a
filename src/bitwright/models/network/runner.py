"""A network in ONNX Runtime on the processor, in turns of many runs each."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from bitwright.models.network.session import Session
from bitwright.models.running import Runner, Turn

LEAST, RUNS = 0.2, 3
"""Seconds and runs that a turn takes at least."""


class SessionRunner(Runner):
    """Answers one sample, or the smallest batch, again and again; a turn is the median of its runs."""

    def __init__(self, path: Path, given: Mapping[str, Any]) -> None:
        self._path, self._given = path, given
        self.runtime = f"ONNX Runtime {version('onnxruntime')}"

    def open(self) -> None:
        with np.load(self._given["feeds"]) as feeds:
            self._feeds = dict(zip(self._given["names"], feeds.values(), strict=True))
        self._session = Session(self._path, threads=self._given["threads"])

    def turn(self) -> Turn:
        times: list[float] = []
        ends = perf_counter() + LEAST
        while len(times) < RUNS or perf_counter() < ends:
            begun = perf_counter()
            self._session.run(self._feeds)
            times.append(perf_counter() - begun)
        each = median(times) / self._given["count"]
        return {"sample": each, "samples": 1 / each}
