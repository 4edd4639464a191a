"""From a WAV file to a network's input: the wave itself or a log-mel spectrogram; every change is recorded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitwright import recipe
from bitwright.errors import DataError, RecipeError
from bitwright.models.samples import wav
from bitwright.models.samples.images import show
from bitwright.models.samples.preprocess import Array, Notes, Shape

SUFFIXES = (".wav", ".wave")
ZEROS = 16
"""Zero crossings of the resampling filter on each side."""
ROLLOFF = 0.95
"""Its cutoff as a share of the lower Nyquist frequency."""
CHUNK = 8192
"""Output samples resampled, or windows transformed, at once: bounds memory."""


@dataclass(frozen=True)
class Sound:
    """How one network takes sound; every choice but an absent rate is made.

    `length` is in samples at `rate`, None for each clip's own. `axes` is the shape of one input: "w" (wave) or "m"
    (mels) and "f" (frames), and "1" for an axis of one: ("1", "m", "f") is [1, mels, frames]. `frame` is what one call
    takes of the wave, `step` how far apart calls begin; None where a clip is one call.
    """

    rate: int | None
    resample: bool
    length: int | None
    features: str
    n_fft: int
    hop: int
    mels: int
    scale: str
    centre: bool
    floor: float
    normalize: bool
    axes: tuple[str, ...]
    dtype: np.dtype[Any]
    frame: int | None = None
    step: int = 0

    def settings(self) -> dict[str, Any]:
        """For the certificate: everything that decides the values."""
        names = ["rate", "resample", "length", "features", "normalize"]
        names += [] if self.frame is None else ["frame", "step"]
        if self.features == "logmel":
            names += ["n_fft", "hop", "mels", "scale", "centre", "floor"]
        words = {"1": "1", "w": "samples", "m": "mels", "f": "frames"}
        axes = [words[axis] for axis in self.axes]
        return {"audio": {name: getattr(self, name) for name in names} | {"axes": axes, "dtype": str(self.dtype)}}


def resolve(table: recipe.Sound, name: str, dtype: Any, shape: Shape) -> Sound:
    """The recipe's `[data.audio]` for a network's input `name`; raises RecipeError where the two contradict.

    A raw wave fits [N, samples], [N, 1, samples] and [N, samples, 1]; log-mel features fit [N, mels, frames],
    [N, frames, mels] and either with a further axis of one in front or behind.
    """

    def wrong(key: str, what: str, fix: str) -> RecipeError:
        return RecipeError(what, where=f"data.audio.{key}", fix=fix, key=f"data.audio.{key}")

    dtype = np.dtype(dtype)
    if dtype.kind != "f":
        what = f"input {name!r} takes {dtype}, sound is float"
        raise RecipeError(what, where="data.source", fix="Give an .npz file", key="data.source")
    rank = 1 if table.features == "raw" else 2
    sides = dict(enumerate(shape[1:]))
    if len(sides) == rank + 1:  # one axis is of one: the first where both could be
        single = next((axis for axis in (0, rank) if sides[axis] == 1), 0 if sides[0] is None else None)
        if single is not None:
            del sides[single]
    if len(sides) != rank:
        other = "logmel" if table.features == "raw" else "raw"
        fix = f'Set data.audio.features = "{other}", or give its arrays themselves, as .npz'
        raise wrong("features", f"{table.features!r} does not fit input {name!r} of shape {show(shape)}", fix)
    axes = ["1"] * (len(shape) - 1)
    frames = None
    if rank == 1:
        ((axis, fixed),) = sides.items()
        axes[axis] = "w"
    else:
        (first, a), (second, b) = sides.items()
        mel, time = (second, first) if b == table.mels and a != b else (first, second)
        if sides[mel] != table.mels and (a, b) != (None, None):
            what = f"{table.mels} mels do not fit input {name!r} of shape {show(shape)}"
            raise wrong("mels", what, "Set data.audio.mels")
        axes[mel], axes[time] = "m", "f"
        frames = sides[time]
        whole = table.n_fft % 2 if table.centre else table.n_fft  # n_fft // 2 are padded on each side
        fixed = None if frames is None else (frames - 1) * table.hop + whole
        fixed = max(fixed, 1) if fixed is not None else None
    if table.frame is not None:
        if rank == 2:
            raise wrong("frame", "frames of log-mel features", "Give its arrays as .npz, [samples, calls, ...]")
        if fixed is not None and fixed != table.frame:
            raise wrong("frame", f"{table.frame} samples, but input {name!r} is {show(shape)}", f"Set it to {fixed}")
        fixed = None  # a clip is as long as it is
    elif table.step is not None:
        raise wrong("step", "a step without frames", "Set data.audio.frame, too")
    length = table.length if table.length is not None else fixed
    if rank == 1 and fixed is not None and length != fixed:
        raise wrong("length", f"{length} samples, but input {name!r} is {show(shape)}", "Leave it out, or correct it")
    plan = Sound(
        table.rate, table.resample, length, table.features, table.n_fft, table.hop, table.mels, table.scale,
        table.centre, table.floor, table.normalize, tuple(axes), dtype, table.frame, table.step or table.frame or 0,
    )  # fmt: skip
    if frames is not None and length is not None and _frames(plan, length) != frames:
        what = f"{length} samples give {_frames(plan, length)} frames, but input {name!r} is {show(shape)}"
        raise wrong("length", what, "Leave it out, or correct it, n_fft or hop")
    if plan.resample and plan.rate is None:
        raise wrong("rate", "resample without a rate", "Set data.audio.rate to the network's")
    return plan


def calls(samples: int, plan: Sound) -> int:
    """How many calls a clip of so many samples makes; what is left behind the last whole frame is not fed."""
    return 1 if plan.frame is None else max(1, 1 + (samples - plan.frame) // plan.step)


def check_rate(rate: int, path: Path, plan: Sound) -> None:
    """Raise DataError where a file's rate is not the network's and may not be converted."""
    if plan.rate is not None and rate != plan.rate and not plan.resample:
        fix = "Set data.audio.resample = true, or data.audio.rate where the network was trained on it"
        raise DataError(f"sampled at {rate:,} Hz, the network takes {plan.rate:,} Hz", where=str(path), fix=fix)


def read(data: bytes, path: Path, plan: Sound, notes: Notes, name: str) -> Array:
    """One clip as the network's input without batch axis; what was changed is noted under `name`.

    Of a streaming network it is the inputs of all calls, [calls, ...].
    Raises DataError naming `path` for a file that is damaged, silent, of another rate, or shorter than a window.
    """
    rate, channels = wav.decode(data, path)
    check_rate(rate, path, plan)
    wave = channels[:, 0]
    if channels.shape[1] > 1:
        notes.add(f"{channels.shape[1]} channels averaged to one", name)
        wave = channels.mean(axis=1, dtype=np.float32)
        if float(np.abs(wave - wave.mean()).max()) < wav.SILENCE:
            raise DataError("its channels cancel to silence", where=str(path), fix="Save one channel of it")
    if plan.rate is not None and rate != plan.rate:
        notes.add(f"resampled from {rate:,} Hz to {plan.rate:,} Hz", name)
        wave = resample(wave, rate, plan.rate)
    if plan.length is not None and len(wave) != plan.length:
        notes.add("clip cut to the length" if len(wave) > plan.length else "clip padded with zeros to the length", name)
        wave = np.pad(wave[: plan.length], (0, max(0, plan.length - len(wave))))
        if not wave.any():
            fix = "Remove it, or set a greater data.audio.length"
            raise DataError("only silence is left after it was cut", where=str(path), fix=fix)
    values = _features(wave, plan.rate or rate, path, plan)
    if plan.normalize:
        values = (values - values.mean(dtype=np.float64)) / max(float(values.std(dtype=np.float64)), 1e-7)
    first: list[int] = []
    if plan.frame is not None:
        if len(values) < plan.frame:
            notes.add("clip padded with zeros to one frame", name)
            values = np.pad(values, (0, plan.frame - len(values)))
        values = np.lib.stride_tricks.sliding_window_view(values, plan.frame)[:: plan.step]
        first = [len(values)]
    sizes = iter(values.shape[len(first) :])
    whole = values.reshape([*first, *(1 if axis == "1" else next(sizes) for axis in plan.axes)])
    return np.ascontiguousarray(whole, plan.dtype)


def _features(wave: Array, rate: int, path: Path, plan: Sound) -> Array:
    """The wave [samples] or its log-mel spectrogram, [mels, frames] or [frames, mels] as the network takes it."""
    if plan.features == "raw":
        return wave
    if len(wave) < (2 if plan.centre else plan.n_fft):
        fix = "Set data.audio.length, or remove it"
        raise DataError(f"{len(wave)} samples are less than one window", where=str(path), fix=fix)
    found = log_mel(wave, rate, plan.n_fft, plan.hop, plan.mels, scale=plan.scale, centre=plan.centre, floor=plan.floor)
    return found if plan.axes.index("m") < plan.axes.index("f") else found.T


def resample(wave: Array, old: int, new: int) -> Array:
    """`wave` [samples] from `old` to `new` samples per second, by a Hann-windowed sinc of ZEROS crossings per side.

    y[m] = sum_k x[k] h(m old / new - k), h(t) = sinc(c t) hann(c t / ZEROS) normalised to sum 1, with cutoff
    c = ROLLOFF min(1, new / old); outside, x is 0. (Julius O. Smith, Digital Audio
    Resampling, ccrma.stanford.edu/~jos.)
    """
    if old == new:
        return wave
    cutoff = ROLLOFF * min(1.0, new / old)
    reach = int(np.ceil(ZEROS / cutoff))
    padded = np.pad(wave.astype(np.float64), (reach, reach + 1))
    count = -(-len(wave) * new // old)
    out = np.empty(count, np.float32)
    for start in range(0, count, CHUNK):
        index = np.arange(start, min(start + CHUNK, count), dtype=np.int64)
        whole, rest = np.divmod(index * old, new)
        t = cutoff * (rest[:, None] / new - np.arange(-reach, reach + 1))
        weights = np.sinc(t) * np.where(np.abs(t) < ZEROS, np.cos(np.pi * t / (2 * ZEROS)) ** 2, 0)
        weights /= weights.sum(axis=1, keepdims=True)
        # The last output may lie half a sample behind the last input.
        rows = np.minimum(whole[:, None], len(wave)) + np.arange(2 * reach + 1)
        out[index] = (padded[rows] * weights).sum(axis=1)
    return out


def log_mel(
    wave: Array,
    rate: int,
    n_fft: int,
    hop: int,
    mels: int,
    *,
    scale: str = "htk",
    centre: bool = True,
    floor: float = 1e-6,
) -> Array:
    """log(max(M |STFT|^2, floor)), natural logarithm: float32 [mels, frames] of `wave` [samples].

    Periodic Hann window of `n_fft` samples every `hop`; `centre` pads n_fft // 2 by reflection on both sides. M are
    `mel_filters`. With centre: frames = 1 + samples // hop (for even n_fft), else 1 + (samples - n_fft) // hop.
    """
    if centre:
        wave = np.pad(wave, n_fft // 2, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    pieces = np.lib.stride_tricks.sliding_window_view(wave, n_fft)[::hop]
    filters = mel_filters(rate, n_fft, mels, scale)
    out = np.empty((mels, len(pieces)), np.float32)
    for start in range(0, len(pieces), CHUNK):
        spectrum = np.fft.rfft(pieces[start : start + CHUNK] * window, axis=1)
        power = spectrum.real**2 + spectrum.imag**2
        out[:, start : start + CHUNK] = np.log(np.maximum(filters @ power.T, floor))
    return out


def mel_filters(rate: int, n_fft: int, mels: int, scale: str) -> Array:
    """Triangles evenly spaced on the mel scale from 0 to rate / 2: float64 [mels, n_fft // 2 + 1].

    "htk": m = 2595 log10(1 + f / 700), height 1 (O'Shaughnessy 1987; torchaudio's default). "slaney": linear up to
    1000 Hz, then logarithmic, each divided by half its width in Hz (Slaney, Auditory Toolbox 1998; librosa's default).
    """
    step = np.log(6.4) / 27  # of slaney's logarithmic part, which begins at mel 15

    def to_mel(f: float) -> float:
        if scale == "htk":
            return float(2595 * np.log10(1 + f / 700))
        return f * 3 / 200 if f < 1000 else float(15 + np.log(f / 1000) / step)

    points = np.linspace(0, to_mel(rate / 2), mels + 2)
    if scale == "htk":
        edges = 700 * (10 ** (points / 2595) - 1)
    else:
        edges = np.where(points < 15, points * 200 / 3, 1000 * np.exp(step * (points - 15)))
    low, peak, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = np.arange(n_fft // 2 + 1) * rate / n_fft
    filters = np.maximum(0, np.minimum((bins - low) / (peak - low), (high - bins) / (high - peak)))
    return filters if scale == "htk" else filters * 2 / (high - low)


def _frames(plan: Sound, length: int) -> int:
    """Windows in a clip of `length` samples."""
    padded = length + 2 * (plan.n_fft // 2) if plan.centre else length
    return max(0, 1 + (padded - plan.n_fft) // plan.hop)
