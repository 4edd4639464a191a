"""transformers on the processor, in float32: it decodes what is quantized, as it loads it or when it first runs."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

from bitwright.models.language.runtimes import Runtime, turn
from bitwright.models.running import Runner, Turn


class Transformers(Runtime):
    """Reads every folder that Bitwright reads, and GGUF files of the families that it knows."""

    decodes = True

    def reads(self, path: Path) -> bool:
        return True

    def runner(self, path: Path, ids: Sequence[int], tokens: int, threads: int) -> Runner:
        return _Runner(path, ids, tokens, threads)


class _Runner(Runner):
    def __init__(self, path: Path, ids: Sequence[int], tokens: int, threads: int) -> None:
        from bitwright import libraries

        libraries.load()
        import torch

        torch.set_num_threads(threads)
        self._path, self._ids, self._tokens = path, torch.tensor([list(ids)]), tokens
        self.runtime = f"transformers {version('transformers')}, float32"

    def open(self) -> None:
        from transformers import GenerationConfig

        from bitwright.models.language.runtimes.loading import load

        self._model = load(self._path)
        # Always the likeliest token, and on beyond the end of the text, so that every turn is as long.
        self._model.generation_config = GenerationConfig(max_new_tokens=self._tokens, do_sample=False, pad_token_id=0)

    def turn(self) -> Turn:
        import torch

        from bitwright.files.folder import without_bars

        clock = _Clock()
        with without_bars(), torch.inference_mode():
            begun = perf_counter()
            self._model.generate(self._ids, attention_mask=torch.ones_like(self._ids), streamer=clock)
        times = clock.times[1:]  # the first is the prompt
        each = (times[-1] - times[0]) / (len(times) - 1)
        return turn(self._ids.shape[1], times[0] - begun, each, clock.ids[1:])


class _Clock:
    """Notes when each token comes."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.ids: list[int] = []

    def put(self, tokens: Any) -> None:
        """One token; before it, the prompt."""
        self.times.append(perf_counter())
        self.ids.append(int(tokens.flatten()[-1]))

    def end(self) -> None:
        """Nothing is left."""


RUNTIME = Transformers()
