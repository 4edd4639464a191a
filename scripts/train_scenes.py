"""Train the bundled detection demo: a small detector of handwritten digits in drawn scenes.

    PYTHONPATH=src python scripts/train_scenes.py

Trains `Scenes` (bitwright.models.demos.modules) on scenes of the "train" part of bitwright.models.demos.scenes; writes
model.onnx and a card. Everything random comes from --seed: the same seed, torch and thread count give the same file.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from bitwright.models.demos import scenes
from bitwright.models.demos.modules import Scenes, export
from bitwright.models.demos.scenes import Scene
from bitwright.models.tasks.detection import Annotations
from bitwright.models.tasks.heads import Head
from bitwright.recipe import Recipe

RADIUS = 1.0
"""Cells from an object's centre within which cells learn its box."""


def answers(drawn: list[Scene], grid: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """What each cell shall say: box [n, 4, cells] (cx, cy, width, height), class [n, cells], -1 where there is none;
    and weights [n, cells] of boxes, which give every object the same say."""
    count, cells = len(drawn), grid.shape[2]
    boxes, kinds = torch.zeros(count, 4, cells), torch.full((count, cells), -1)
    weights = torch.zeros(count, cells)
    middles = (grid[0] + 0.5) * step
    for n, scene in enumerate(drawn):
        for corners, kind in zip(torch.from_numpy(scene.boxes).float(), scene.classes.tolist(), strict=True):
            centre, size = (corners[:2] + corners[2:]) / 2, corners[2:] - corners[:2]
            near = ((middles - centre[:, None]).abs() < RADIUS * step).all(0)
            boxes[n, :, near] = torch.cat([centre, size])[:, None]
            kinds[n, near] = kind
            weights[n, near] = 1 / near.sum()
    return boxes, kinds, weights


def overlaps(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalized IoU (arXiv 1902.09630) of boxes [n, 4, cells] as cx, cy, width, height: [n, cells] each."""
    low_a, high_a, low_b, high_b = (x[:, :2] + sign * x[:, 2:] / 2 for x in (a, b) for sign in (-1, 1))
    inter = (torch.minimum(high_a, high_b) - torch.maximum(low_a, low_b)).clamp(min=0).prod(1)
    union = a[:, 2:].prod(1) + b[:, 2:].prod(1) - inter
    hull = (torch.maximum(high_a, high_b) - torch.minimum(low_a, low_b)).prod(1)
    share = inter / union.clamp(min=1e-6)
    return share, share - (hull - union) / hull.clamp(min=1e-6)


def loss_of(network: Scenes, drawn: list[Scene], images: Tensor) -> Tensor:
    """Generalized IoU of boxes; for classes the quality focal loss (arXiv 2006.04388), whose target is the IoU."""
    wanted, kinds, weights = answers(drawn, network.grid, network.step)
    boxes, logits = network.raw(images)
    iou, generalized = overlaps(boxes, wanted)
    found = kinds >= 0
    target = torch.zeros_like(logits)
    quality = torch.where(found, iou.detach(), 0.0)
    target.scatter_(1, kinds.clamp(min=0)[:, None], quality[:, None])
    focus = (logits.sigmoid() - target).abs().pow(2)
    classes = functional.binary_cross_entropy_with_logits(logits, target, reduction="none") * focus
    objects = max(1, sum(len(scene.classes) for scene in drawn))
    return (2.5 * ((1 - generalized) * weights).sum() + classes.sum()) / objects


def train(network: Scenes, drawn: list[Scene], epochs: int, rate: float, seed: int) -> None:
    """AdamW with a one-cycle rate, batches of 16, in place; scenes are mirrored in brightness at random."""
    images, chance = torch.from_numpy(scenes.feed(drawn)), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.02)
    steps = len(drawn) // 16
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, epochs * steps, pct_start=0.15)
    network.train()
    for epoch in range(epochs):
        start, total = time.monotonic(), 0.0
        for chosen in torch.randperm(len(drawn), generator=chance)[: steps * 16].split(16):
            batch = images[chosen]
            negative = torch.rand(len(batch), 1, 1, 1, generator=chance) < 0.5
            loss = loss_of(network, [drawn[i] for i in chosen.tolist()], torch.where(negative, 1 - batch, batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}  loss {total / steps:.4f}  {time.monotonic() - start:.0f} s", flush=True)
    network.eval()


def measure(path: Path, drawn: list[Scene]) -> tuple[float, float]:
    """mAP over IoU .50 to .95, and at .50, of the written file, run by ONNX Runtime, read as its recipe says."""
    import onnxruntime

    from bitwright.models.tasks.detection import mean_average_precision

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    data = Recipe.load(path.with_name("recipe.toml")).data
    outputs = {"boxes": session.run(None, {scenes.INPUT: scenes.feed(drawn)})[0]}
    found = Head(data.detection, len(data.classes)).read(outputs, len(drawn))
    precision = mean_average_precision(found, [Annotations.of(scene.boxes, scene.classes) for scene in drawn])
    return precision.map, precision.ap50


CARD = """\
---
license: apache-2.0
pipeline_tag: object-detection
---
# Bitwright detection demo

Finds handwritten digits in drawn scenes; bundled so that integer inference can be tried without a download.

| | |
|---|---|
| File | `model.onnx`, {size:,} bytes, float32, opset 17, batch norm as nodes of its own |
| Input | `scene` float32 [batch, 1, 96, 96]: grey, 0 (black) .. 1 |
| Output | `boxes` [batch, 14, 144], raw: cx, cy, width, height in pixels, then ten probabilities; see `recipe.toml` |
| Network | `bitwright.models.demos.modules.Scenes`: {parameters:,} parameters |
| mAP [.5:.95] | {test[0]:.2%} on the {tests} test scenes (AP 50: {test[1]:.2%}) |

The scenes are drawn, not photographed: digits of scikit-learn's `load_digits` (E. Alpaydin and C. Kaynak, Optical
Recognition of Handwritten Digits, UCI, CC BY 4.0), stretched and pasted on textured grounds by
`bitwright.models.demos.scenes`. Training used {count:,} scenes with digits 0 .. 1,040; those of the test scenes
(1,297 .. 1,796) were not seen. Made in {seconds:.0f} seconds on {threads} CPU thread(s) with torch {torch} by

    PYTHONPATH=src python scripts/train_scenes.py --scenes {count} --epochs {epochs} --seed {seed} --threads {threads}

The weights are ours, under Apache-2.0.
"""


def main() -> None:
    """Train, export and measure."""
    parser = argparse.ArgumentParser(description="Train the bundled detector of digits in drawn scenes.")
    parser.add_argument("--out", type=Path, default=scenes.MODEL.parent, help="folder with recipe.toml, to write to")
    parser.add_argument("--scenes", type=int, default=2500, help="scenes to learn from")
    parser.add_argument("--epochs", type=int, default=18)
    parser.add_argument("--rate", type=float, default=4e-3, help="peak learning rate")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)

    start = time.monotonic()
    drawn = scenes.scenes("train", options.scenes)
    network = Scenes()
    torch.nn.init.constant_(network.classes[1].bias, -4.0)  # most cells hold nothing
    train(network, drawn, options.epochs, options.rate, options.seed)
    seconds = time.monotonic() - start
    path = options.out / "model.onnx"
    export(network, torch.from_numpy(scenes.feed(drawn[:2])), path, scenes.INPUT, "boxes")

    tests = scenes.COUNTS["test"]
    test = measure(path, scenes.scenes("test", tests))
    card = CARD.format(
        size=path.stat().st_size,
        parameters=sum(p.numel() for p in network.parameters()),
        test=test,
        tests=tests,
        count=options.scenes,
        seconds=seconds,
        torch=torch.__version__.split("+")[0],
        epochs=options.epochs,
        seed=options.seed,
        threads=options.threads,
    )
    (options.out / "README.md").write_text(card, "utf-8")
    print(f"{path}: {path.stat().st_size:,} bytes, mAP {test[0]:.2%}, AP 50 {test[1]:.2%}, {seconds:.0f} s")


if __name__ == "__main__":
    main()
