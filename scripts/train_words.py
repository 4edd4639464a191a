"""Train the bundled speech demo: a small residual network that recognises ten spoken digits.

    PYTHONPATH=src python scripts/train_words.py ../shared/data/speech-digits

The folder holds `train/` and `test/` of 8 kHz WAV files `DIGIT_SPEAKER_INDEX.wav`. The network learns from those
recordings and from the "train" voices of bitwright.models.demos.speaker, so that it understands people and the
synthesizer; each clip is heard faster or slower, shifted and with noise, anew in every epoch. The tests are only
read by the last lines. Everything random comes from --seed.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from bitwright.models.demos import speaker, spoken
from bitwright.models.demos.modules import Words, export
from bitwright.models.samples import wav

Wave = npt.NDArray[np.float32]


def read_folder(folder: Path) -> tuple[list[Wave], npt.NDArray[np.int64]]:
    """(waves, digits) of all WAV files of a folder, the digit being the first character of the name."""
    paths = sorted(folder.glob("*.wav"))
    if not paths:
        raise SystemExit(f"{folder}: no WAV files")
    waves = [wav.decode(path.read_bytes(), path)[1][:, 0] for path in paths]
    return waves, np.array([int(path.name[0]) for path in paths])


def disturb(wave: Wave, chance: np.random.Generator) -> Wave:
    """`wave` at 0.84 to 1.2 times its speed (and pitch), anywhere in a clip of one second, often with white noise."""
    speed = np.exp(chance.uniform(-0.18, 0.18))
    wave = np.interp(np.arange(int(len(wave) / speed)) * speed, np.arange(len(wave)), wave).astype(np.float32)
    spare = spoken.LENGTH - len(wave)
    if spare < 0:
        wave = wave[(start := chance.integers(1 - spare)) : start + spoken.LENGTH]
    # Half of the clips start early, as the recordings do.
    late = max(spare, 0) if chance.random() < 0.5 else max(min(spare, 800), 0)
    start = chance.integers(late + 1)
    clip = np.pad(wave, (start, spoken.LENGTH - len(wave) - start))
    if chance.random() < 0.6:
        level = np.std(wave) * 10 ** (-chance.uniform(5, 50) / 20)
        clip += level * chance.standard_normal(len(clip), dtype=np.float32)
    return clip


def train(network: Words, waves: list[Wave], labels: Tensor, epochs: int, rate: float, seed: int) -> None:
    """AdamW with a one-cycle rate and label smoothing, batches of 64, in place."""
    chance, order = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.05)
    steps = len(waves) // 64
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, epochs * steps, pct_start=0.2)
    network.train()
    for epoch in range(epochs):
        start, total = time.monotonic(), 0.0
        heard = torch.from_numpy(spoken.features([disturb(wave, chance) for wave in waves]))
        for chosen in torch.randperm(len(waves), generator=order)[: steps * 64].split(64):
            loss = functional.cross_entropy(network(heard[chosen]), labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}  loss {total / steps:.4f}  {time.monotonic() - start:.0f} s", flush=True)
    network.eval()


def measure(path: Path, waves: list[Wave], labels: npt.NDArray[np.int64]) -> float:
    """The share of clips that the written file, run by ONNX Runtime, understands."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    logits = session.run(None, {spoken.INPUT: spoken.features(waves)})[0]
    return float((logits.argmax(1) == labels).mean())


CARD = """\
---
license: apache-2.0
pipeline_tag: audio-classification
---
# Bitwright speech demo

Understands ten spoken words, "zero" to "nine"; bundled so that integer inference can be tried without a download.

| | |
|---|---|
| File | `model.onnx`, {size:,} bytes, float32, opset 17, batch norm as nodes of its own |
| Input | `features` float32 [batch, {mels}, 101]: log-mel, mean 0 and deviation 1 a clip; see `recipe.toml` |
| Output | `logits` [batch, 10]: digits 0 .. 9 |
| Network | `bitwright.models.demos.modules.Words`: {parameters:,} parameters |
| Accuracy, recordings | {real:.2%} of {reals} kept for tests |
| Accuracy, synthesized | {spoken:.2%} of {spokens} words by voices not trained on |

Trained from scratch on {people:,} recordings (8 kHz, four speakers, who are the test's speakers too: expect less from
other people) and {voices:,} words of `bitwright.models.demos.speaker`. No recording is bundled. Made in {seconds:.0f}
seconds on {threads} CPU thread(s) with torch {torch} by

    PYTHONPATH=src python scripts/train_words.py ../shared/data/speech-digits --epochs {epochs} --seed {seed} \\
        --threads {threads}

The weights are ours, under Apache-2.0.
"""


def main() -> None:
    """Train, export and measure."""
    parser = argparse.ArgumentParser(description="Train the bundled spoken-digits network.")
    parser.add_argument("data", type=Path, help="folder with train/ and test/ of DIGIT_SPEAKER_INDEX.wav, 8 kHz")
    parser.add_argument("--out", type=Path, default=spoken.MODEL.parent, help="folder to write to")
    parser.add_argument("--voices", type=int, default=150, help="synthesized speakers to learn from, ten words each")
    parser.add_argument("--epochs", type=int, default=18)
    parser.add_argument("--rate", type=float, default=4e-3, help="peak learning rate")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)

    start = time.monotonic()
    people, digits = read_folder(options.data / "train")
    voices, more = speaker.speak("train", options.voices)
    network = Words(spoken.MELS)
    labels = torch.from_numpy(np.concatenate([digits, more]))
    train(network, people + voices, labels, options.epochs, options.rate, options.seed)
    seconds = time.monotonic() - start
    path = options.out / "model.onnx"
    example = torch.from_numpy(spoken.features(people[:2]))
    export(network, example, path, spoken.INPUT)

    reals, others = read_folder(options.data / "test"), speaker.speak("test", spoken.VOICES["test"])
    real, other = measure(path, *reals), measure(path, *others)
    card = CARD.format(
        size=path.stat().st_size,
        mels=spoken.MELS,
        parameters=sum(p.numel() for p in network.parameters()),
        real=real,
        reals=len(reals[0]),
        spoken=other,
        spokens=len(others[0]),
        people=len(people),
        voices=len(voices),
        seconds=seconds,
        torch=torch.__version__.split("+")[0],
        epochs=options.epochs,
        seed=options.seed,
        threads=options.threads,
    )
    (options.out / "README.md").write_text(card, "utf-8")
    print(f"{path}: {path.stat().st_size:,} bytes, {real:.2%} of recordings, {other:.2%} of voices, {seconds:.0f} s")


if __name__ == "__main__":
    main()
