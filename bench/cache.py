"""What rounding keys and values costs by itself, weights being float: the table of docs/benchmarks.md.

    python bench/cache.py MODEL --calib TEXT --heldout TEXT [--length 2048] [--windows 8] [--judged 4]

For each format, with one scale per attention or per head: mean KL to the float model per token, with its 95 % interval,
where scales of keys hold the largest value that was seen, have the least squared error, or are sought between the two
by what blocks answer, as `--kv-cache` does. Values have the least squared error.
"""

import argparse
from pathlib import Path

import torch

from bitwright.files.containers import registry
from bitwright.models.language.arch import Architecture
from bitwright.models.language.blocks import Decoder, Passage
from bitwright.models.language.cache import SHARES, Keeper, Kept, attentions, size
from bitwright.models.language.compare import decoder_of
from bitwright.models.language.evaluate import hidden_states
from bitwright.models.language.scores import score
from bitwright.models.language.text import read_heldout
from bitwright.models.tasks.estimate import Estimate

FORMATS = "fp8,int8,int4"
WAYS = {"largest value": (0.0,), "squared error": (1.0,), "the block's answer": SHARES}
BUDGET = 1 << 30
TRIED = 2
"""Windows on which blocks are asked."""


def through(decoder, windows):
    """The hidden states behind all blocks."""
    steps = hidden_states(decoder, windows, batch=1, budget=BUDGET, folder=None)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def choose(folder, container, windows, shares):
    """The scales of every attention, by name."""
    arch = Architecture.open(folder)
    keeper = Keeper(container, arch, attentions(arch, container.cache), lambda name: None, shares)
    decoder, passages, found = Decoder(arch), [Passage(ids[None]) for ids in windows], {}
    hidden = [decoder.enter(passage) for passage in passages]
    for block in range(arch.count):
        with decoder.loaded(block) as module:
            before = [(x.clone(), Passage(**vars(p))) for x, p in zip(hidden[:TRIED], passages, strict=False)]
            with keeper.recording(block, module):
                hidden = [decoder.run(block, x, p) for x, p in zip(hidden, passages, strict=True)]

            def answers(block=block, before=before):
                for x, passage in before:
                    yield decoder.run(block, x.clone(), Passage(**vars(passage)))

            for chosen in keeper.choose(block, module, answers):
                found |= chosen.tensors
    decoder.close()
    return found


def main():
    """The table, a row at a time."""
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("model", type=Path)
    read.add_argument("--calib", required=True)
    read.add_argument("--heldout", required=True)
    read.add_argument("--length", type=int, default=2048)
    read.add_argument("--windows", type=int, default=8)
    read.add_argument("--judged", type=int, default=4)
    read.add_argument("--formats", default=FORMATS)
    read.add_argument("--heads", default="1,0", help="1: one scale per head, where the format has it; 0: never")
    asked = read.parse_args()
    seen = read_heldout(asked.model, asked.calib, asked.windows, asked.length).ids
    judged = read_heldout(asked.model, asked.heldout, asked.judged, asked.length).ids
    p = decoder_of(asked.model)
    floats = through(p, judged)
    print("| format | a scale per | chosen by | KL per token | MB per 1,000 tokens |\n|---|---|---|---|---|")
    for format in asked.formats.split(","):
        holders = {}
        for heads in asked.heads.split(","):
            holder = registry.get("compressed-tensors").cached(
                format, Architecture.open(asked.model).model, heads == "1"
            )
            holders[holder.cache.heads] = holder
        for heads, holder in holders.items():
            for way, shares in WAYS.items():
                scales, arch = choose(asked.model, holder, seen, shares), Architecture.open(asked.model)
                kept = attentions(arch, holder.cache)
                names = {scale: one.name_of(scale) for one in kept for scale in one.scales}
                q = Decoder(
                    arch,
                    kept=Kept(kept, lambda s, x, by=scales, at=names, to=holder: to.round_cache(x, by[at[s]])),
                )
                found = through(q, judged)
                rows = [score(p, q, floats[i], found[i], ids[None]) for i, ids in enumerate(judged)]
                kl, sizes = Estimate.of(torch.cat([row[0] for row in rows])), (size(kept, None), size(kept, format))
                told = f"{kl.value:.5f} ± {kl.interval:.5f} | {sizes[0] / 1e6:.2f} -> {sizes[1] / 1e6:.2f}"
                print(f"| {format} | {'head' if heads else 'attention'} | {way} | {told} |", flush=True)
                q.close()


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
