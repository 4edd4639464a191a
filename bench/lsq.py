"""What short training buys below 8 bits: the bundled digits network at 4, 3 and 2 bits, weights and activations.

    python bench/lsq.py [--bits 4,3,2] [--seeds 3] [--epochs 12] [-o FILE]

Every figure is the accuracy on the 500 test images of the QDQ file that was written, run by ONNX Runtime; several seeds
give mean and standard deviation. As in LSQ's paper, the first and the last layer keep 8 bits, as do the terms of
residual sums, which can be negative. Training and calibration see the "train" images only.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from bitwright.methods import lsq
from bitwright.models.demos import digits
from bitwright.models.network.finetune import finetune, round_to_nearest
from bitwright.models.network.graph import Graph
from bitwright.models.network.placement import place

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from train_digits import deform  # the variants that the network learnt from


class Variants:
    """The training images in batches of 64, turned and shifted anew each time they are gone through."""

    def __init__(self, seed: int) -> None:
        images, self.labels = digits.read("train")
        self.images, self.chance = torch.from_numpy(images), torch.Generator().manual_seed(seed)

    def __iter__(self):
        for chosen in torch.randperm(len(self.images), generator=self.chance).split(64):
            yield {digits.INPUT: deform(self.images[chosen], self.chance).numpy()}, self.labels[chosen.numpy()]


def accuracy(model) -> float:
    """In percent, of an ONNX file or its bytes."""
    images, labels = digits.read("test")
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return float((session.run(None, {digits.INPUT: images})[0].argmax(1) == labels).mean() * 100)


def figure(values: list[float]) -> str:
    """Mean and, of several, standard deviation."""
    return f"{np.mean(values):.1f}" + (f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else "")


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description="Learned step sizes on the bundled digits network.")
    parser.add_argument("--bits", default="4,3,2")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--rate", type=float, default=5e-3)
    parser.add_argument(
        "--penalty", type=float, default=0.1, help="first coefficient of the quantization-error penalty"
    )
    parser.add_argument("-o", "--out", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)

    images, _ = digits.read("train")
    plain = [({digits.INPUT: images[i : i + 64]}, None) for i in range(0, len(images), 64)]

    def measured(bits: int, make) -> float:
        graph = Graph.open(digits.MODEL)
        placement = place(graph, "x86")
        model = make(graph, placement, bits).write(graph, placement)
        return accuracy(model.SerializeToString())

    def learned(seed: int, penalty: float):
        return lambda graph, placement, bits: finetune(
            graph, placement, Variants(seed), bits,
            options=lsq.Options(epochs=options.epochs, rate=options.rate, penalty=penalty),
            start=round_to_nearest(graph, placement, plain, bits), seed=seed,
        )  # fmt: skip

    start = time.monotonic()
    lines = [
        f"Float {accuracy(str(digits.MODEL)):.1f} % of 500 test images; {options.epochs} epochs, {options.seeds} seeds",
        "",
        "| bits | round to nearest, full range | round to nearest, searched steps | LSQ | LSQ + penalty |",
        "|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for bits in map(int, options.bits.split(",")):
        full = measured(bits, lambda *a: round_to_nearest(a[0], a[1], plain, a[2], rule="minmax", search=False))
        searched = measured(bits, lambda *a: round_to_nearest(a[0], a[1], plain, a[2]))
        rows = [[measured(bits, learned(seed, p)) for seed in range(options.seeds)] for p in (0.0, options.penalty)]
        lines.append(f"| {bits} | {full:.1f} | {searched:.1f} | {figure(rows[0])} | {figure(rows[1])} |")
        print(lines[-1], flush=True)
    print(f"\n{time.monotonic() - start:.0f} s on one thread")
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
