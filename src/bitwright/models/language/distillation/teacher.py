"""What a teacher says of a text: its caches are made here, a few windows at a time, the model block by block."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bitwright.core import distillation
from bitwright.events import Event, Progress
from bitwright.files import hub
from bitwright.files.plain import hashes
from bitwright.models.language.blocks import Decoder, distribution
from bitwright.models.language.data import hash_ids
from bitwright.models.language.distillation.cache import Cache, Header, Kind, fill, pack_drawn, pack_exact
from bitwright.models.language.evaluate import hidden_states
from bitwright.models.language.memory import BATCH_TOKENS, LOGITS, POSITIONS

COUNT = 12
"""Words that are drawn at a position: 48 or 60 bytes a token."""


@dataclass(frozen=True)
class Teacher:
    """A model that teaches: its decoder, its name, and the hashes of its weights and of its tokenizer's words."""

    decoder: Decoder
    name: str
    hash: str
    tokenizer: str

    @classmethod
    def of(cls, decoder: Decoder, tokenizer: Any) -> Teacher:
        """Hash what decides what it says."""
        checkpoint = decoder.arch.checkpoint
        files = [*checkpoint.files, *filter(Path.is_file, [checkpoint.folder / "config.json"])]
        sums = sorted(set(hashes(files).values()))
        whole = hashlib.sha256(json.dumps(sums).encode()).hexdigest()
        return cls(decoder, hub.title(checkpoint.folder), whole, words_hash(tokenizer))

    def drawn(self, windows: torch.Tensor, temperature: float, seed: int) -> Header:
        """The header of a cache of drawn words for token windows [count, length]."""
        count = min(COUNT, self.decoder.vocabulary)
        return replace(self._header("drawn", windows, count), temperature=temperature, seed=seed)

    def exact(self, windows: torch.Tensor) -> Header:
        """The header of a cache of hidden states for token windows [count, length]."""
        return self._header("exact", windows, self.decoder.arch.config.get_text_config(decoder=True).hidden_size)

    def _header(self, kind: Kind, windows: torch.Tensor, size: int) -> Header:
        count, length = windows.shape
        text, words = hash_ids(windows), self.decoder.vocabulary
        return Header(kind, self.name, self.hash, self.tokenizer, text, count, length, words, size)


def words_hash(tokenizer: Any) -> str:
    """SHA-256 of a tokenizer's words and their numbers: the same however its files are written."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()


def make(
    teacher: Teacher, header: Header, windows: torch.Tensor, path: Path, *, budget: int, spill: Path | None, phase: str
) -> Generator[Event, None, Cache]:
    """Make the cache that `header` describes of token windows [count, length], or what is left of it.

    `budget` bounds the hidden states in memory, in bytes; the rest spills into the folder `spill`. Raises what `fill`
    raises, and ModelError where the teacher's logits are not finite.
    """
    pack = _draw if header.kind == "drawn" else _keep

    def answer(numbers: range) -> bytes:
        ids = windows[numbers.start : numbers.stop]
        rows = max(1, BATCH_TOKENS // ids.shape[1])
        states = _finish(hidden_states(teacher.decoder, ids, batch=rows, budget=budget, folder=spill))
        return b"".join(pack(teacher, header, states[i], numbers.start + i * rows) for i in range(len(states)))

    for done in fill(path, header, answer):
        yield Progress(phase, done, header.windows, f"{teacher.name} reads the text")
    return Cache(path)


def _finish(steps: Generator[Any, None, Any]) -> Any:
    """What a generator returns, its steps passed over."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def _keep(teacher: Teacher, header: Header, hidden: torch.Tensor, first: int) -> bytes:
    """The exact records of some windows."""
    return pack_exact(header, hidden.float().cpu().numpy())


def _draw(teacher: Teacher, header: Header, hidden: torch.Tensor, first: int) -> bytes:
    """The records of some windows, the first of which has number `first`: it and the seed decide what is drawn."""
    flat = hidden.reshape(1, -1, hidden.shape[-1])
    uniform = np.concatenate([uniforms(header, first + i) for i in range(len(hidden))])
    words, units, entropies = [], [], []
    step = max(1, min(POSITIONS, LOGITS // header.words))
    for start in range(0, flat.shape[1], step):
        logits = teacher.decoder.logits(flat[:, start : start + step])[0].float()
        p = distribution(logits / header.temperature, teacher.decoder.arch)
        chance = torch.from_numpy(uniform[start : start + step]).to(p.device)
        found, weights = distillation.draw(p, header.size, chance[:, 0])
        words.append(found.cpu())
        units.append(distillation.in_units(weights, chance[:, 1]).cpu())
        entropies.append(distillation.entropy(logits, header.temperature).cpu())
    shape = (len(hidden), header.length, header.size)
    mean = torch.cat(entropies).reshape(shape[:2]).double().mean(-1)
    chosen, shares = (torch.cat(parts).reshape(shape).numpy() for parts in (words, units))
    return pack_drawn(header, chosen, shares, mean.numpy())


def uniforms(header: Header, window: int) -> Any:
    """Random numbers in [0, 1) [length, 2], the same whenever and wherever this window is read."""
    generator = np.random.Generator(np.random.Philox(key=[header.seed, window]))
    return generator.random((header.length, 2))
