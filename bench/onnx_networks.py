"""The networks that bench/integer.py compares on, with their samples as arrays for the peers and the referee.

`calibration.npz` holds the very samples that `bitwright quantize` chooses (its own reader picks and prepares them), and
`heldout.npz` the test set. For the images a second reader, Pillow and NumPy alone, must find the same pixels.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from quality import ROOT, SHARED

from bitwright.models.demos import speaker
from bitwright.models.network.graph import Graph
from bitwright.models.samples.open import open_samples
from bitwright.recipe import Recipe

NAMES = ("resnet20", "words")
WORDS = ROOT / "src" / "bitwright" / "content" / "words"
CALIBRATION_VOICES, TEST_VOICES = 30, 100
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Network:
    """A float ONNX file, the folder that calibrates it and its recipe's [data] as TOML."""

    name: str
    model: Path
    calibration: Path
    data: str


def open_network(name, folder):
    """Return a network, leaving calibration.npz and heldout.npz in `folder`; raises where its data is absent."""
    if name == "resnet20":
        model, parts = SHARED / "models" / "resnet20-cifar10" / "model.onnx", SHARED / "data" / "cifar10"
        sources = parts / "calibration", parts / "test"
        data = f"[data.image]\nmean = {list(MEAN)}\nstd = {list(STD)}"
    elif name == "words":
        model, sources = WORDS / "model.onnx", (folder / "calibration", folder / "test")
        for where, voices in zip(sources, (CALIBRATION_VOICES, TEST_VOICES), strict=True):
            speaker.write(where, where.name, voices)
        data = (WORDS / "recipe.toml").read_text()
    else:
        raise SystemExit(f"no network is called {name!r}: {', '.join(NAMES)}")
    graph = Graph.open(model)
    settings = Recipe.read(tomllib.loads(data), name).data
    chosen = open_samples(sources[0], graph.inputs, settings, count=settings.samples)
    heldout = open_samples(sources[1], graph.inputs, settings)
    feeds, _ = _arrays(chosen)
    np.savez(folder / "calibration.npz", **feeds)
    feeds, labels = _arrays(heldout)
    if name == "resnet20":
        _require_same_pixels(sources[1], heldout, feeds)
    np.savez(folder / "heldout.npz", **feeds, labels=labels)
    return Network(name, model, sources[0], data)


def _arrays(samples):
    """Return ({input: array over all samples}, labels)."""
    batches = list(samples)
    feeds = {name: np.concatenate([batch.feeds[name] for batch in batches]) for name in batches[0].feeds}
    return feeds, np.array([label for batch in batches for label in batch.labels])


def _require_same_pixels(source, samples, feeds):
    """Raise where Pillow and NumPy alone read another image than Bitwright's reader did."""
    (images,) = feeds.values()
    names = [name for batch in samples for name in batch.names]
    for i in range(0, len(names), 97):
        with Image.open(source / names[i]) as file:
            pixels = np.asarray(file.convert("RGB"), np.float32) / 255
        if not np.allclose(((pixels - MEAN) / STD).transpose(2, 0, 1), images[i], atol=1e-5):
            raise ValueError(f"{names[i]}: not the pixels that Pillow reads")
