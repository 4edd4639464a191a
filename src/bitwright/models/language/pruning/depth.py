"""Which blocks a network can do without: that whose absence changes its answers least goes, then it is measured again.

The measure is the KL divergence from the float network's answers with a block left out, beside all that are out
already. All candidates pass together, so that a round loads every block once.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import torch

from bitwright.core.measure import kl
from bitwright.events import Event, Progress
from bitwright.models.language.activations import Activations
from bitwright.models.language.arch import Architecture
from bitwright.models.language.blocks import Decoder, Passage
from bitwright.models.language.evaluate import batches

WINDOWS = 8
"""Windows of calibration text on which it is measured."""


def order(
    arch: Architecture, device: str, windows: torch.Tensor, gone: list[int], budget: int, folder: Path
) -> Generator[Event, None, dict[int, float]]:
    """KL in nats per token with each block left out that is not `gone` yet, those that are gone left out, too."""
    decoder = Decoder(arch, device=device)
    pieces = batches(windows[:WINDOWS], 1)
    left = [block for block in range(arch.count) if block not in gone]
    states = Activations(budget, folder)
    place: dict[tuple[int, int], int] = {}  # -1 is the float network, -2 that without the blocks gone
    for i, piece in enumerate(pieces):
        entered = decoder.enter(Passage(piece))
        for who in (-1, -2):
            place[who, i] = len(states)
            states.append(entered)
    for block in range(arch.count):
        with decoder.loaded(block):
            for i, piece in enumerate(pieces):
                if block in left:
                    place[block, i] = len(states)
                    states.append(states[place[-2, i]].clone())
                for who in (-1, -2, *left):
                    passes = who == -1 or (block not in gone and who != block)
                    if passes and (who < 0 or who < block):
                        at = place[who, i]
                        states[at] = decoder.run(block, states[at].clone(), Passage(piece))
        yield Progress("prune", block, arch.count, f"leaving out blocks: {len(gone)} are out")
    found = dict.fromkeys(left, 0.0)
    for i in range(len(pieces)):
        truth = decoder.logits(states[place[-1, i]]).float()
        for who in left:
            found[who] += float(kl(truth, decoder.logits(states[place[who, i]]).float()).mean()) / len(pieces)
    decoder.close()
    return found
