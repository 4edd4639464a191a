"""The synthesizer says ten different words, the same ones every time; the bundled network understands it and people."""

from __future__ import annotations

import time
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.errors import DataError
from bitwright.models.demos import speaker, spoken
from bitwright.models.demos.speaker import Voice, resonator, say, speak
from bitwright.recipe import Recipe
from tests.networks import shared

RECORDINGS = shared("data", "speech-digits", "test")


def classify(features: Any) -> Any:
    ort = pytest.importorskip("onnxruntime", reason="needs ONNX Runtime (extra: onnx)")
    session = ort.InferenceSession(str(spoken.MODEL), providers=["CPUExecutionProvider"])
    return session.run(None, {spoken.INPUT: features})[0].argmax(1)


def test_a_resonator_is_one_at_zero_and_highest_at_its_formant() -> None:
    frequency = np.arange(0.0, 4000.0, 5.0)
    response = np.abs(resonator(frequency, 1200.0, 80.0))
    assert abs(response[0] - 1) < 1e-12
    assert abs(frequency[response.argmax()] - 1200) <= 10
    half = frequency[response > response.max() / np.sqrt(2)]  # -3 dB
    assert abs((half[-1] - half[0]) - 80) < 10


def test_a_resonator_is_klatts_difference_equation() -> None:
    c = -np.exp(-2 * np.pi * 100 / 8000)
    b = 2 * np.exp(-np.pi * 100 / 8000) * np.cos(2 * np.pi * 700 / 8000)
    out = np.zeros(4096)
    for n in range(4096):  # y[n] = A x[n] + B y[n-1] + C y[n-2]
        out[n] = (1 - b - c) * (n == 0) + b * out[n - 1] + c * out[n - 2]
    bins = np.fft.rfftfreq(4096, 1 / 8000)
    np.testing.assert_allclose(np.fft.rfft(out), resonator(bins, 700.0, 100.0), atol=1e-9)


@pytest.mark.parametrize("digit", range(10))
def test_a_word_is_sound_of_a_words_length_within_full_scale(digit: int) -> None:
    sound = say(digit, Voice(), np.random.default_rng(0))
    assert sound.dtype == np.float32 and sound.ndim == 1
    assert 0.15 < len(sound) / speaker.RATE < 1.2
    assert np.isfinite(sound).all() and 0.1 < np.abs(sound).max() <= 1
    assert abs(float(sound.mean())) < 0.01


@pytest.mark.parametrize(("sound", "low", "second"), [("iy", 1000, 2290), ("eh", 1200, 1840), ("uw", 600, 870)])
def test_a_vowel_has_its_second_formant_where_it_was_measured(
    sound: str, low: float, second: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speaker, "WORDS", (sound,))
    monkeypatch.setattr(speaker, "SOUNDS", {sound: speaker.SOUNDS[sound]._replace(ms=600)})
    voice = Voice(pitch=80.0, bend=0.0, tilt=4000.0, breath=0.0, background=0.0)
    found = []
    for seed in range(8):
        middle = say(0, voice, np.random.default_rng(seed))[800:2400] * np.hanning(1600)
        bins = np.fft.rfftfreq(1600, 1 / speaker.RATE)
        power = np.where((bins > low) & (bins < 2700), np.abs(np.fft.rfft(middle)) ** 2, 0)
        found.append(bins[power.argmax()])
    assert abs(np.mean(found) / second - 1) < 0.06, found  # each is spoken within some 4 %


def test_the_same_seed_says_the_same_and_another_does_not() -> None:
    first, labels = speak("test", 2)
    again, _ = speak("test", 2)
    other, _ = speak("calibration", 2)
    assert labels.tolist() == [*range(10)] * 2
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert all(len(a) != len(b) or (a != b).any() for a, b in zip(first, other, strict=True))
    assert len({voice[:400].tobytes() for voice in first}) == 20


def test_fewer_voices_are_the_first_of_more() -> None:
    few, _ = speak("train", 1)
    more, _ = speak("train", 3)
    assert all((a == b).all() for a, b in zip(few, more[:10], strict=True))


def test_a_word_is_made_in_a_moment() -> None:
    start = time.process_time()
    speak("train", 3)
    assert (time.process_time() - start) / 30 < 0.25


def test_what_is_no_digit_or_part_is_an_error() -> None:
    with pytest.raises(DataError, match="10 is no digit"):
        say(10, Voice(), np.random.default_rng(0))
    with pytest.raises(DataError, match="Choose one of train, calibration, test"):
        speak("validation", 1)  # type: ignore[arg-type]


def test_written_files_are_16_bit_wav_named_by_digit(tmp_path: Path) -> None:
    paths = speaker.write(tmp_path / "deep" / "folder", "test", 2)
    assert [path.name for path in paths[8:12]] == ["8_voice0.wav", "9_voice0.wav", "0_voice1.wav", "1_voice1.wav"]
    sounds, _ = speak("test", 2)
    with wave.open(str(paths[11]), "rb") as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (8000, 1, 2)
        stored = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767
    np.testing.assert_allclose(stored, sounds[11], atol=1 / 32767)


def test_words_are_distinct_their_averages_tell_them_apart() -> None:
    """Without any network and whatever the tempo: the nearest of ten averages of other voices is right at 4x chance."""
    known, labels = spoken.read("train", 12)
    unknown, truth = spoken.read("calibration", 6)
    means = np.stack([known[labels == digit].mean(0) for digit in range(10)])
    found = ((unknown[:, None] - means) ** 2).mean((2, 3)).argmin(1)
    assert (found == truth).mean() > 0.4


def test_the_bundled_network_understands_voices_it_was_not_trained_on() -> None:
    features, labels = spoken.read("test")
    assert features.shape == (500, spoken.MELS, 101) and features.dtype == np.float32
    assert (classify(features) == labels).mean() >= 0.99  # 99.8 % where it was trained
    assert spoken.MODEL.stat().st_size < 500_000


@pytest.mark.skipif(RECORDINGS is None, reason="no recordings (shared/data/speech-digits) beside this checkout")
def test_the_bundled_network_understands_recorded_people() -> None:
    from bitwright.models.samples import wav

    assert RECORDINGS is not None
    paths = sorted(RECORDINGS.glob("*.wav"))
    waves = [wav.decode(path.read_bytes(), path)[1][:, 0] for path in paths]
    truth = np.array([int(path.name[0]) for path in paths])
    assert len(paths) == 200
    assert (classify(spoken.features(waves)) == truth).mean() >= 0.97  # 99.5 % where it was trained


def test_the_recipe_reads_files_to_the_very_features_the_network_learnt_from(tmp_path: Path) -> None:
    from bitwright.models.samples import audio, wav
    from bitwright.models.samples.preprocess import Notes

    recipe = Recipe.load(spoken.MODEL.with_name("recipe.toml"))
    plan = audio.resolve(recipe.data.audio, spoken.INPUT, np.float32, (None, spoken.MELS, 101))
    paths = speaker.write(tmp_path, "calibration", 1)
    read = [audio.read(path.read_bytes(), path, plan, Notes(), path.name) for path in paths]
    waves = [wav.decode(path.read_bytes(), path)[1][:, 0] for path in paths]
    np.testing.assert_allclose(np.stack(read), spoken.features(waves), atol=1e-5)


def test_a_folder_of_spoken_words_is_read_by_the_recipe(tmp_path: Path) -> None:
    from bitwright.models.samples.open import open_samples

    recipe = Recipe.load(spoken.MODEL.with_name("recipe.toml"))
    speaker.write(tmp_path, "calibration", 3)
    samples = open_samples(tmp_path, {spoken.INPUT: ("float32", (None, spoken.MELS, 101))}, recipe.data)
    assert (len(samples), samples.task, samples.classes) == (30, "classify", spoken.CLASSES)
    truth = [label for batch in samples for label in batch.labels or ()]
    assert sorted(truth) == sorted([*range(10)] * 3)
    found = [digit for batch in samples for digit in classify(batch.feeds[spoken.INPUT])]
    assert np.mean(np.array(found) == truth) >= 0.9
