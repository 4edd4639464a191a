"""The bundled speech demo: where its network lies and what it hears. The audio comes from `models.demos.speaker`.

`features` is `[data.audio]` of the recipe beside the network, for arrays instead of files; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bitwright.models.demos import speaker
from bitwright.models.samples.audio import log_mel

MODEL = Path(__file__).parents[2] / "content" / "words" / "model.onnx"
"""The bundled network; see the card beside it."""
INPUT = "features"
CLASSES = tuple("0123456789")
RATE = speaker.RATE
LENGTH = RATE
"""Samples of a clip: one second, cut or padded with zeros at the end."""
N_FFT, HOP, MELS = 256, 80, 40
VOICES = {"calibration": 26, "test": 50}
"""Synthesized speakers of each part, ten words each."""


def features(waves: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Waves of any lengths -> log-mel features float32 [n, MELS, 101], each clip at mean 0 and standard deviation 1."""
    clips = [np.pad(wave[:LENGTH], (0, max(0, LENGTH - len(wave)))) for wave in waves]
    values = np.stack([log_mel(clip, RATE, N_FFT, HOP, MELS) for clip in clips])
    mean = values.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    deviation = np.maximum(values.std(axis=(1, 2), keepdims=True, dtype=np.float64), 1e-7)
    answer: npt.NDArray[np.float32] = ((values - mean) / deviation).astype(np.float32)
    return answer


def read(part: speaker.Part, voices: int | None = None) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """(features [n, MELS, 101], labels [n]) of one part's synthesized speakers, ready to be fed as `INPUT`."""
    waves, labels = speaker.speak(part, VOICES.get(part, 10) if voices is None else voices)
    return features(waves), labels
