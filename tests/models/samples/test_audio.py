"""Sound to a network's input: shapes, rates, spectrograms against other libraries' code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.models.samples import audio
from bitwright.models.samples.preprocess import Notes
from tests.models.samples.sources import fails, save_wav, table, tone


def plan(shape: tuple[int | None, ...] = (None, None), dtype: str = "float32", **keys: Any) -> audio.Sound:
    return audio.resolve(table(audio=keys).audio, "wave", dtype, shape)


def read(path: Path, how: audio.Sound) -> Any:
    notes = Notes()
    return audio.read(path.read_bytes(), path, how, notes, path.name), [row["what"] for row in notes.rows()]


@pytest.mark.parametrize(
    ("shape", "found"),
    [((None, None), (400,)), ((1, 1, 400), (1, 400)), ((None, None, 1), (400, 1)), ((1, None, None), (1, 400))],
)
def test_raw(tmp_path: Path, shape: Any, found: Any) -> None:
    path = save_wav(tmp_path / "a.wav", tone())
    array, notes = read(path, plan(shape))
    assert array.shape == found and array.dtype == np.float32 and not notes
    np.testing.assert_array_equal(array.reshape(-1), (tone() / 32768).astype(np.float32))


def test_length(tmp_path: Path) -> None:
    path = save_wav(tmp_path / "a.wav", tone())
    cut, notes = read(path, plan((None, 300)))
    assert cut.shape == (300,) and notes == ["clip cut to the length"]
    padded, notes = read(path, plan(length=500))
    assert padded.shape == (500,) and not padded[400:].any() and notes == ["clip padded with zeros to the length"]
    late = save_wav(tmp_path / "late.wav", np.concatenate([np.zeros(300), tone()]))
    fails(lambda: read(late, plan((None, 300))), late, "silence")


def test_stereo_and_normalize(tmp_path: Path) -> None:
    path = save_wav(tmp_path / "a.wav", np.stack([tone(), tone(pitch=0.1)], axis=1))
    array, notes = read(path, plan(normalize=True))
    assert notes == ["2 channels averaged to one"]
    assert abs(array.mean()) < 1e-6 and abs(array.std() - 1) < 1e-6
    against = save_wav(tmp_path / "b.wav", np.stack([tone(), -tone()], axis=1))
    fails(lambda: read(against, plan()), against, "cancel")


def test_rate(tmp_path: Path) -> None:
    path = save_wav(tmp_path / "a.wav", tone(), rate=8000)
    fails(lambda: read(path, plan(rate=16000)), path, "8,000 Hz", "16,000 Hz", "data.audio.resample")
    array, notes = read(path, plan(rate=16000, resample=True))
    assert array.shape == (800,) and notes == ["resampled from 8,000 Hz to 16,000 Hz"]
    fails(lambda: plan(resample=True), "data.audio.rate")


@pytest.mark.parametrize(("old", "new"), [(8000, 16000), (16000, 8000), (8000, 11025), (44100, 16000), (8000, 7999)])
def test_resampling_keeps_a_tone_and_removes_what_cannot_be_kept(old: int, new: int) -> None:
    def sine(rate: int, hertz: float) -> Any:
        return np.sin(2 * np.pi * hertz * np.arange(rate) / rate).astype(np.float32)

    edge = new // 20
    out = audio.resample(sine(old, 440), old, new)
    assert out.shape == (new,)
    np.testing.assert_allclose(out[edge:-edge], sine(new, 440)[edge:-edge], atol=1e-4)
    if new < 0.9 * old:
        assert np.abs(audio.resample(sine(old, 0.6 * new), old, new))[edge:-edge].max() < 1e-3
    assert audio.resample(out, 8000, 8000) is out


@pytest.mark.parametrize(("scale", "norm"), [("htk", None), ("slaney", "slaney")])
@pytest.mark.parametrize("centre", [True, False])
def test_log_mel_is_that_of_transformers(scale: str, norm: str | None, centre: bool) -> None:
    other = pytest.importorskip("transformers.audio_utils")
    wave = np.random.default_rng(0).normal(size=3000).astype(np.float32)
    filters = other.mel_filter_bank(129, 40, 0, 4000, 8000, norm=norm, mel_scale=scale)
    np.testing.assert_allclose(audio.mel_filters(8000, 256, 40, scale), filters.T, atol=1e-12)
    window = other.window_function(256, "hann", periodic=True)
    expected = other.spectrogram(
        wave,
        window,
        256,
        80,
        fft_length=256,
        power=2.0,
        center=centre,
        mel_filters=filters,
        mel_floor=1e-6,
        log_mel="log",
    )
    found = audio.log_mel(wave, 8000, 256, 80, 40, scale=scale, centre=centre)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((None, 40, None), ("m", "f")),
        ((None, None, 40), ("f", "m")),
        ((1, 1, 40, None), ("1", "m", "f")),
        ((None, None, 40, 1), ("f", "m", "1")),
        ((None, None, None), ("m", "f")),
        ((None, 40, 40), ("m", "f")),
    ],
)
def test_axes_of_features(tmp_path: Path, shape: Any, axes: tuple[str, ...]) -> None:
    how = plan(shape, features="logmel", mels=40, n_fft=64, hop=16)
    assert how.axes == axes
    array, _ = read(save_wav(tmp_path / "a.wav", tone(1000)), how)
    frames = 40 if shape[2:] == (40,) and shape[1] == 40 else 1 + 1000 // 16
    assert array.shape == tuple({"m": 40, "f": frames, "1": 1}[axis] for axis in axes)


@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("n_fft", [64, 65])
def test_a_fixed_number_of_frames_sets_the_length(tmp_path: Path, centre: bool, n_fft: int) -> None:
    how = plan((1, 8, 20), features="logmel", mels=8, n_fft=n_fft, hop=16, centre=centre)
    for count in (100, 1000):
        assert read(save_wav(tmp_path / "a.wav", tone(count)), how)[0].shape == (8, 20)


@pytest.mark.parametrize(
    ("shape", "keys", "words"),
    [
        ((None, 3, 8, 8), {}, ("features", "raw")),
        ((None, 400), {"length": 300}, ("length", "300", "400")),
        ((None, 400), {"features": "logmel"}, ("features", "logmel")),
        ((None, 64, None), {"features": "logmel", "mels": 40}, ("mels", "64")),
        ((None, 40, 20), {"features": "logmel", "mels": 40, "length": 8000}, ("length", "51 frames", "20")),
    ],
)
def test_tables_that_contradict_the_network(shape: Any, keys: Any, words: tuple[str, ...]) -> None:
    fails(lambda: plan(shape, **keys), *words)


def test_other_networks_and_short_clips(tmp_path: Path) -> None:
    fails(lambda: plan(dtype="int64"), "int64")
    path = save_wav(tmp_path / "a.wav", tone(50))
    fails(
        lambda: read(path, plan((None, 40, None), features="logmel", mels=40, centre=False)),
        path,
        "less than one window",
    )
