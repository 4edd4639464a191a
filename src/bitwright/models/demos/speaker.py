"""A small formant synthesizer that says the ten English digits: audio for the bundled speech demo that anyone may have.

Source and filter after Klatt, "Software for a cascade/parallel formant synthesizer" (JASA 67, 1980): a glottal pulse
train (all harmonics of the pitch, through Klatt's resonator of 100 Hz at zero frequency) and breath pass a cascade of
four formant resonators; the noise of fricatives and bursts passes one resonator of its own. Where Klatt filters sample
by sample, each harmonic here is multiplied by the resonators' response at its frequency (4), and noise is shaped in
overlapping frames of 10 ms: everything is arrays and a word takes some 15 ms.

    R(f) = A / (1 - B/z - C/z^2),  C = -exp(-2 pi W T),  B = 2 exp(-pi W T) cos(2 pi F T),  A = 1 - B - C,
    z = exp(2 pi i f T)                                    F, W: frequency and bandwidth in Hz, T: s per sample  (4)

Vowels: the averages of 33 men in Peterson and Barney, "Control methods used in a study of the vowels" (JASA 24, 1952).
Their women and children are close to the same numbers times 1.17 and 1.35, which is what `Voice.size` does. Consonants:
Klatt's table for the beginnings of syllables, with durations in the order of Klatt's (1979) rules. Noise centres are
placed below 4 kHz, the most that 8 kHz audio holds. It sounds like a robot and is meant to: nobody's voice was copied.
"""

from __future__ import annotations

import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from bitwright.errors import DataError

Floats = npt.NDArray[np.floating]
Part = Literal["train", "calibration", "test"]
RATE = 8000
"""Samples per second."""
HOP = RATE // 200
"""Samples between two control points: 5 ms."""
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Sound(NamedTuple):
    """One target: formants in Hz, milliseconds, levels of voice, breath and noise, centre and width of the noise."""

    f1: float
    f2: float
    f3: float
    ms: float
    voice: float = 1.0
    breath: float = 0.0
    noise: float = 0.0
    centre: float = 3500.0
    width: float = 1000.0


SOUNDS: dict[str, Sound] = {
    # Vowels (Peterson and Barney 1952, men).
    "iy": Sound(270, 2290, 3010, 140),
    "ih": Sound(390, 1990, 2550, 90),
    "eh": Sound(530, 1840, 2480, 110),
    "aa": Sound(730, 1090, 2440, 130),
    "ao": Sound(570, 840, 2410, 140),
    "uh": Sound(440, 1020, 2240, 90),
    "uw": Sound(300, 870, 2240, 150),
    "ah": Sound(640, 1190, 2390, 120),
    # Sonorants, fricatives and stops (Klatt 1980). "t" and "k" are a silence, a burst, then breath.
    "w": Sound(290, 610, 2150, 70, 0.6),
    "r": Sound(310, 1060, 1380, 80, 0.6),
    "n": Sound(280, 1340, 2470, 90, 0.35),
    "z": Sound(240, 1390, 2530, 100, 0.25, 0.0, 0.12, 3800, 500),
    "v": Sound(220, 1100, 2080, 60, 0.3, 0.02, 0.02, 2800, 3000),
    "s": Sound(320, 1390, 2530, 130, 0.0, 0.0, 0.22, 3800, 500),
    "f": Sound(340, 1100, 2080, 110, 0.0, 0.02, 0.04, 2800, 3000),
    "th": Sound(320, 1290, 2540, 100, 0.0, 0.02, 0.03, 3300, 2000),
    "silence": Sound(400, 1600, 2600, 60, 0.0),
    "t-burst": Sound(400, 1600, 2600, 15, 0.0, 0.0, 0.35, 3400, 700),
    "t-breath": Sound(400, 1700, 2600, 40, 0.0, 0.15, 0.05, 3400, 700),
    "k-burst": Sound(300, 1990, 2850, 20, 0.0, 0.0, 0.35, 2000, 400),
    "k-breath": Sound(300, 1990, 2850, 30, 0.0, 0.12),
}
WORDS: tuple[str, ...] = (
    "z ih r ao uh",
    "w ah n",
    "t-burst t-breath uw",
    "th r iy",
    "f ao r",
    "f aa ih v",
    "s ih silence k-burst k-breath s",
    "s eh v ah n",
    "eh iy silence t-burst t-breath",
    "n aa ih n",
)
"""The sounds of each digit; ao uh, aa ih and eh iy are the diphthongs of "go", "nine" and "eight"."""


@dataclass(frozen=True)
class Voice:
    """One speaker: pitch in Hz at the start, its rise or fall over a word in octaves, formants as multiples of a man's,
    speed as a multiple, darkness of the source in Hz (bandwidth of a further low-pass), breath, background level."""

    pitch: float = 120.0
    bend: float = -0.3
    size: float = 1.0
    speed: float = 1.0
    tilt: float = 2500.0
    breath: float = 0.02
    background: float = 0.001

    @classmethod
    def draw(cls, chance: np.random.Generator) -> Voice:
        """A random speaker, from a low man to a child: higher voices also have the higher formants."""
        kind = chance.uniform(0, 1)
        return cls(
            pitch=90 * 2 ** (1.5 * kind + chance.uniform(-0.2, 0.2)),
            bend=chance.uniform(-0.6, 0.15),
            size=0.92 + 0.36 * kind + chance.uniform(-0.05, 0.05),
            speed=chance.uniform(0.8, 1.45),
            tilt=chance.uniform(1200, 4000),
            breath=chance.uniform(0.005, 0.08),
            background=10 ** chance.uniform(-4, -2.2),
        )


def resonator(frequency: Floats, centre: Floats | float, width: Floats | float) -> npt.NDArray[np.complexfloating]:
    """Klatt's digital resonator, eq. (4) of the module, at `frequency` Hz: 1 at 0 Hz; all arguments broadcast."""
    inverse = np.exp(-2j * np.pi * frequency / RATE)
    c = -np.exp(-2 * np.pi * np.asarray(width) / RATE)
    b = 2 * np.exp(-np.pi * np.asarray(width) / RATE) * np.cos(2 * np.pi * np.asarray(centre) / RATE)
    answer: npt.NDArray[np.complexfloating] = (1 - b - c) / (1 - b * inverse - c * inverse**2)
    return answer


def say(digit: int, voice: Voice, chance: np.random.Generator) -> npt.NDArray[np.float32]:
    """The word for `digit` (0 .. 9) as float32 [samples] in -1 .. 1 at RATE, without silence around it.

    `chance` gives noise, jitter and how carefully each sound is spoken: the same state, the same samples.
    """
    if digit not in range(10):
        raise DataError(f"{digit} is no digit", fix="Choose 0 to 9")
    sounds = [SOUNDS[name] for name in WORDS[digit].split()]
    spread = chance.normal(size=(len(sounds), 5))
    ms = np.array([s.ms for s in sounds]) * np.exp(0.15 * spread[:, 3]) / voice.speed
    targets = np.array(sounds)[:, [0, 1, 2, 4, 5, 6, 7, 8]]
    targets[:, :3] *= voice.size * np.exp(0.04 * spread[:, :3])
    targets[:, 4:6] *= np.exp(0.4 * spread[:, 4:])  # hiss varies more than voice
    points = np.repeat(targets, np.maximum(2, np.round(ms / 5)).astype(int), axis=0)  # [frames, 8], one every 5 ms
    formants = _smooth(points[:, :3], 11)  # the tongue needs some 50 ms
    levels = _smooth(points[:, 3:6], 5, "constant")
    frames, samples = len(points), len(points) * HOP
    # A fourth formant of all voices, kept below half the sampling rate.
    fourth = np.full((frames, 1), min(3500 * voice.size, 3850.0))
    formants = np.concatenate([formants, fourth], 1)

    def throat(frequency: Floats) -> npt.NDArray[np.complexfloating]:
        """The cascade's response at [frames, n] Hz; F1 is wider in weakly voiced sounds, as it is in nasals."""
        first = 60 + 60 * (1 - levels[:, :1])
        widths: list[Floats | float] = [first, 90.0, 150.0, 250.0]
        parts = [resonator(frequency, formants[:, i, None], width) for i, width in enumerate(widths)]
        answer: npt.NDArray[np.complexfloating] = np.prod(np.stack(parts), axis=0)
        return answer

    # Voice: harmonics [frames, k] of a pitch that bends and trembles a little.
    wander = _smooth(chance.normal(size=(frames, 1)), 9)[:, 0]
    pitch = voice.pitch * 2 ** (voice.bend * np.linspace(0, 1, frames) + 0.03 * wander)
    orders = np.arange(1, int(0.48 * RATE / pitch.min()) + 1)
    harmonics = pitch[:, None] * orders
    source = resonator(harmonics, 0.0, 100.0) * (1 - np.exp(-2j * np.pi * harmonics / RATE))  # pulses, then radiation
    shape = throat(harmonics) * source * resonator(harmonics, 0.0, voice.tilt)
    shape *= np.where(harmonics < 0.48 * RATE, levels[:, :1], 0)
    time = np.arange(samples) / HOP
    left = np.minimum(time.astype(int), frames - 2)
    part = (time - left)[:, None]
    phase = 2 * np.pi * np.cumsum(np.interp(time, np.arange(frames), pitch)) / RATE
    wheel = np.exp(1j * phase[:, None] * orders)
    sound = ((shape[left] * (1 - part) + shape[left + 1] * part) * wheel).real.sum(1)
    sound /= np.sqrt(np.mean(sound**2)) + 1e-9  # about 1 where there is voice: what the other levels refer to

    # Noise: two frames of HOP samples overlap at every point, at constant power.
    window = np.sin(np.pi * (np.arange(2 * HOP) + 0.5) / (2 * HOP))
    spectrum = np.fft.rfft(chance.normal(size=(frames, 2 * HOP)) * window)
    bins = np.fft.rfftfreq(2 * HOP, 1 / RATE)[None]
    hiss = np.abs(resonator(bins, points[:, 6:7], points[:, 7:8]))
    hiss *= levels[:, 2:3] / hiss.max(1, keepdims=True)
    breath = np.abs(throat(bins)) * (levels[:, 1:2] + voice.breath * levels[:, :1]) / 6
    noise = np.fft.irfft(spectrum * (hiss + breath), 2 * HOP) * window
    sound += noise[:, :HOP].ravel()
    sound[HOP:] += noise[:-1, HOP:].ravel()

    sound *= chance.uniform(0.2, 0.9) / np.abs(sound).max()
    sound += voice.background * chance.normal(size=samples)
    answer: npt.NDArray[np.float32] = np.clip(sound, -1, 1).astype(np.float32)
    return answer


def _smooth(track: Floats, frames: int, ends: Literal["edge", "constant"] = "edge") -> Floats:
    """Columns of `track` [n, k] averaged under a Hann window of an odd number of frames; past the ends held, or 0."""
    window = np.hanning(frames + 2)[1:-1]
    held = np.pad(track, ((frames // 2, frames // 2), (0, 0)), mode=ends)
    views = np.lib.stride_tricks.sliding_window_view(held, frames, axis=0)
    answer: Floats = views @ (window / window.sum())
    return answer


SEEDS: dict[str, int] = {"train": 1, "calibration": 2, "test": 3}


def speak(part: Part, voices: int) -> tuple[list[npt.NDArray[np.float32]], npt.NDArray[np.int64]]:
    """(waveforms, labels): every digit once by each of `voices` speakers, voice by voice.

    The parts have different speakers and noise; a smaller number of voices is a prefix of a larger one's. Raises
    DataError for another part.
    """
    if part not in get_args(Part):
        raise DataError(f"no part of the spoken words is called {part!r}", fix=f"Choose one of {', '.join(SEEDS)}")
    waves = []
    for number in range(voices):
        chance = np.random.default_rng([SEEDS[part], number])
        voice = Voice.draw(chance)
        waves += [say(digit, voice, chance) for digit in range(10)]
    return waves, np.tile(np.arange(10), voices)


def write(folder: Path, part: Part, voices: int) -> list[Path]:
    """Write `speak(part, voices)` as 16-bit WAV files `DIGIT_voiceNUMBER.wav`; returns their paths in that order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    waves, labels = speak(part, voices)
    for index, (sound, digit) in enumerate(zip(waves, labels.tolist(), strict=True)):
        path = folder / f"{digit}_voice{index // 10}.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(np.round(sound * 32767).astype("<i2").tobytes())
        paths.append(path)
    return paths
