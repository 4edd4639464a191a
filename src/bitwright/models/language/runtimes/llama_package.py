"""llama.cpp through the package llama-cpp-python."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

from bitwright.errors import ModelError
from bitwright.files.gguf import is_gguf
from bitwright.models.language.runtimes import Runtime, turn
from bitwright.models.running import Runner, Turn


class LlamaPackage(Runtime):
    """The package `llama_cpp`; layers stay on the processor."""

    def reads(self, path: Path) -> bool:
        return is_gguf(path) and find_spec("llama_cpp") is not None

    def runner(self, path: Path, ids: Sequence[int], tokens: int, threads: int) -> Runner:
        return _Runner(path, ids, tokens, threads)


class _Runner(Runner):
    def __init__(self, path: Path, ids: Sequence[int], tokens: int, threads: int) -> None:
        import llama_cpp

        self._make: Any = llama_cpp.Llama
        self._path, self._ids, self._tokens, self._threads = path, list(ids), tokens, threads
        self.runtime = f"llama.cpp (llama-cpp-python {version('llama-cpp-python')})"

    def open(self) -> None:
        try:
            self._model = self._make(
                str(self._path), n_ctx=len(self._ids) + self._tokens, n_threads=self._threads,
                n_threads_batch=self._threads, verbose=False,
            )  # fmt: skip
        except (ValueError, RuntimeError) as error:
            raise ModelError(
                f"{self.runtime} does not load it: {error}", where=str(self._path),
                fix="Check the file with bitwright check, or update llama-cpp-python",
            ) from error  # fmt: skip

    def turn(self) -> Turn:
        self._model.reset()  # else it would keep the prompt of the turn before
        begun, times, ids = perf_counter(), [], []
        for token in islice(self._model.generate(list(self._ids), temp=0.0), self._tokens):
            times.append(perf_counter())
            ids.append(int(token))
        return turn(len(self._ids), times[0] - begun, (times[-1] - times[0]) / (len(times) - 1), ids)


RUNTIME = LlamaPackage()
