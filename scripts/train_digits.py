"""Train the bundled vision demo: a small convolutional network on scikit-learn's handwritten digits.

    PYTHONPATH=src python scripts/train_digits.py

Trains `Digits` (bitwright.models.demos.modules) on the "train" part of bitwright.models.demos.digits (the other parts
are never looked at before the last lines), with small random shifts, turns and stretches; writes model.onnx and a card.
Everything random comes from --seed: the same seed, torch and thread count give the same file.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bitwright.models.demos import digits
from bitwright.models.demos.modules import Digits, export


def deform(images: Tensor, chance: torch.Generator) -> Tensor:
    """Images [n, 1, 8, 8] turned (15 degrees), stretched, sheared and shifted (10 %) at random, each on its own."""
    n = len(images)

    def spread(scale: float) -> Tensor:
        return (torch.rand(n, generator=chance) * 2 - 1) * scale

    angle, shear = spread(math.radians(15)), spread(0.2)
    wide, high = 1 + spread(0.15), 1 + spread(0.15)
    cos, sin = angle.cos(), angle.sin()
    rows = [cos * wide, -sin + shear, spread(0.2), sin, cos * high, spread(0.2)]
    grid = functional.affine_grid(torch.stack(rows, 1).view(n, 2, 3), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def train(network: Digits, images: Tensor, labels: Tensor, epochs: int, rate: float, seed: int) -> None:
    """AdamW with a one-cycle rate and label smoothing, batches of 64, in place."""
    chance = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.05)
    steps = len(images) // 64
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, epochs * steps, pct_start=0.2)
    network.train()
    for epoch in range(epochs):
        total = 0.0
        for chosen in torch.randperm(len(images), generator=chance)[: steps * 64].split(64):
            logits = network(deform(images[chosen], chance))
            loss = functional.cross_entropy(logits, labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        if epoch % 10 == 9 or epoch + 1 == epochs:
            print(f"epoch {epoch + 1}  loss {total / steps:.4f}", flush=True)
    network.eval()


def measure(path: Path, images: np.ndarray, labels: np.ndarray) -> float:
    """The share of images that the written file, run by ONNX Runtime, classifies rightly."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    logits = session.run(None, {digits.INPUT: images})[0]
    return float((logits.argmax(1) == labels).mean())


CARD = """\
---
license: apache-2.0
pipeline_tag: image-classification
---
# Bitwright vision demo

Reads handwritten digits; bundled so that integer inference can be tried without a download.

| | |
|---|---|
| File | `model.onnx`, {size:,} bytes, float32, opset 17, batch norm as nodes of its own |
| Input | `image` float32 [batch, 1, 8, 8]: ink, 0 (paper) .. 1 |
| Output | `logits` [batch, 10]: digits 0 .. 9 |
| Network | `bitwright.models.demos.modules.Digits`: {parameters:,} parameters |
| Accuracy | {test:.2%} of the 500 test images, {calibration:.2%} of the 256 calibration images |

Trained from scratch on images 0 .. 1,040 of scikit-learn's `load_digits` (E. Alpaydin and C. Kaynak, Optical
Recognition of Handwritten Digits, UCI, CC BY 4.0); 1,041 .. 1,296 are for calibration, 1,297 .. 1,796 for tests, and
neither was seen in training. Made in {seconds:.0f} seconds on {threads} CPU thread(s) with torch {torch} by

    PYTHONPATH=src python scripts/train_digits.py --epochs {epochs} --seed {seed} --threads {threads}

The weights are ours, under Apache-2.0.
"""


def main() -> None:
    """Train, export and measure."""
    parser = argparse.ArgumentParser(description="Train the bundled handwritten-digits network.")
    parser.add_argument("--out", type=Path, default=digits.MODEL.parent, help="folder to write to")
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--rate", type=float, default=4e-3, help="peak learning rate")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)

    images, labels = (torch.from_numpy(x) for x in digits.read("train"))
    network = Digits()
    start = time.monotonic()
    train(network, images, labels, options.epochs, options.rate, options.seed)
    seconds = time.monotonic() - start
    path = options.out / "model.onnx"
    export(network, images[:2], path, digits.INPUT)

    scores = {part: measure(path, *digits.read(part)) for part in ("calibration", "test")}
    card = CARD.format(
        size=path.stat().st_size,
        parameters=sum(p.numel() for p in network.parameters()),
        seconds=seconds,
        torch=torch.__version__.split("+")[0],
        epochs=options.epochs,
        seed=options.seed,
        threads=options.threads,
        **scores,
    )
    (options.out / "README.md").write_text(card, "utf-8")
    print(f"{path}: {path.stat().st_size:,} bytes, test accuracy {scores['test']:.2%}, {seconds:.0f} s")


if __name__ == "__main__":
    main()
