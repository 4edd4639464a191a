"""Folders of images and sounds, the choice, parts, the summary; and sources that cannot be used."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.models.samples.open import Samples, open_parts, open_samples
from tests.models.samples.sources import IMAGE, WAVE, fails, image_folder, pixels_of, save_image, save_wav, table, tone

pytest.importorskip("PIL")
SHARED = next(
    (p for p in (Path(__file__).parents[4] / "shared", Path(__file__).parents[3] / "shared") if p.exists()), None
)


def names(samples: Samples) -> list[str]:
    return [name for batch in samples for name in batch.names]


def labels(samples: Samples) -> list[Any]:
    return [label for batch in samples for label in batch.labels or ()]


# ---- images -----------------------------------------------------------------------------


def test_class_folders(tmp_path: Path) -> None:
    image_folder(tmp_path, {"dog": 12, "ant": 3, "cat": 9})
    (tmp_path / "dog" / "notes.txt").write_text("x")
    (tmp_path / ".hidden.png").write_text("x")
    save_image(tmp_path / "stray.png")
    samples = open_samples(tmp_path, IMAGE, table(batch=5), count=17)
    assert (len(samples), samples.available, samples.task) == (17, 24, "classify")
    assert samples.classes == ("ant", "cat", "dog")
    assert samples.summary["per_class"] == {"ant": 3, "cat": 7, "dog": 7}
    found = names(samples)
    assert [samples.classes[label] for label in labels(samples)] == [name.split("/")[0] for name in found]
    assert [len(batch.names) for batch in samples] == [5, 5, 5, 2]
    for batch in samples:
        for name, image in zip(batch.names, batch.feeds["image"], strict=True):
            expected = (pixels_of(tmp_path / name) / 255).transpose(2, 0, 1).astype(np.float32)
            np.testing.assert_array_equal(image, expected)
    content = b"".join((tmp_path / name).read_bytes() for name in found)
    assert samples.summary["sha256"] == hashlib.sha256(content).hexdigest()
    dropped = {row["what"]: row["first"] for row in samples.summary["dropped"]}
    assert dropped == {
        "hidden": ".hidden.png",
        "another kind of file, by its name": "dog/notes.txt",
        "in no class folder": "stray.png",
    }
    assert json.loads(json.dumps(samples.summary)) == samples.summary


def test_walks_are_equal_and_parts_are_disjoint(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 10, "b": 10})
    first = open_samples(tmp_path, IMAGE, table(), count=8)
    assert names(first) == names(first) == names(open_samples(tmp_path, IMAGE, table(), count=8))
    rest = open_samples(tmp_path, IMAGE, table(), skip=8)
    assert len(rest) == 12 and not set(names(first)) & set(names(rest))
    assert names(open_samples(tmp_path, IMAGE, table(seed=1), count=8)) != names(first)
    given = open_samples(tmp_path, IMAGE, table(order="given"), count=3)
    assert names(given) == ["a/000.png", "a/001.png", "a/002.png"]
    fails(lambda: open_samples(tmp_path, IMAGE, table(), skip=20), "none left after the first 20")
    fails(lambda: open_samples(tmp_path, IMAGE, table(), count=0), "data.samples")


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    for seed in range(20):
        save_image(tmp_path / f"{seed}.png", seed=seed)
    samples = open_samples(tmp_path, IMAGE, table())
    assert samples.task == "none" and not samples.labelled and next(iter(samples)).labels is None
    asked = open_samples(tmp_path, IMAGE, table(task="classify"))
    assert asked.summary["notes"][0]["what"].startswith("no labels")


def test_declared_classes(tmp_path: Path) -> None:
    image_folder(tmp_path, {"dog": 1, "cat": 1})
    samples = open_samples(tmp_path, IMAGE, table(classes=("dog", "emu", "cat"), order="given"))
    assert labels(samples) == [2, 0] and samples.classes == ("dog", "emu", "cat")
    fails(lambda: open_samples(tmp_path, IMAGE, table(classes=("dog",))), tmp_path, "'cat'")


def test_weak_choices_are_remarked(tmp_path: Path) -> None:
    image_folder(tmp_path, {"dog": 3})
    found = [row["what"] for row in open_samples(tmp_path, IMAGE, table()).summary["notes"]]
    assert found == ["only 3 samples: ranges and accuracies are guesses", "all samples are of one class"]
    numbers = image_folder(tmp_path / "numbers", {"1": 8, "2": 8, "10": 8})
    found = [row["what"] for row in open_samples(numbers, IMAGE, table()).summary["notes"]]
    assert found == ["class numbers sorted as text (1, 10, 2): data.classes says otherwise"]


def test_conversions_are_counted_once(tmp_path: Path) -> None:
    for seed in range(20):
        save_image(tmp_path / f"{seed:02}.png", mode="L" if seed < 3 else "RGB", seed=seed)
    samples = open_samples(tmp_path, IMAGE, table(order="given", image={"convert": True}))
    names(samples), names(samples)
    assert samples.summary["notes"] == [{"what": "image converted from L to RGB", "count": 3, "first": "00.png"}]


def test_fixed_batches(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 5, "b": 6})
    fixed = {"image": ("float32", (4, 3, 4, 6))}
    samples = open_samples(tmp_path, fixed, table())
    assert [len(batch.names) for batch in samples] == [4, 4] and len(samples) == 8
    assert samples.summary["batch"] == 4
    assert samples.summary["dropped"] == [
        {"what": "beyond the last full batch of 4", "count": 3, "first": samples.summary["dropped"][0]["first"]}
    ]
    single = open_samples(tmp_path, {"image": ("float32", (1, 3, 4, 6))}, table())
    assert len(single) == 11 == len(list(single))
    fails(lambda: open_samples(tmp_path, fixed, table(), count=3), "3 samples", "4 at once")


def test_a_dynamic_network_takes_the_size_of_the_first(tmp_path: Path) -> None:
    dynamic = {"image": ("float32", (None, 3, None, None))}
    image_folder(tmp_path, {"a": 3})
    assert next(iter(open_samples(tmp_path, dynamic, table()))).feeds["image"].shape == (3, 3, 4, 6)
    save_image(tmp_path / "a" / "big.png", 9, 9)
    fails(lambda: open_samples(tmp_path, dynamic, table(order="given")), "a/big.png", "9 x 9", "6 x 4")


def test_bad_images_are_named(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 3})
    bad = save_image(tmp_path / "a" / "bad.png", 5, 6)
    fails(lambda: open_samples(tmp_path, IMAGE, table()), bad, "6 x 5", "6 x 4")
    bad.write_bytes(b"oops")
    fails(lambda: open_samples(tmp_path, IMAGE, table()), bad, "not an image")
    bad.write_bytes(save_image(tmp_path / "whole.png").read_bytes()[:60])
    (tmp_path / "whole.png").unlink()
    fails(lambda: names(open_samples(tmp_path, IMAGE, table())), bad, "damaged")
    bad.unlink()
    if os.name == "posix":
        bad.symlink_to(tmp_path / "nowhere.png")
        fails(lambda: open_samples(tmp_path, IMAGE, table()), bad, "cannot be read")


def test_sources_that_cannot_be_used(tmp_path: Path) -> None:
    fails(lambda: open_samples(tmp_path / "absent", IMAGE, table()), tmp_path / "absent", "no such file")
    fails(lambda: open_samples(tmp_path, IMAGE, table()), tmp_path, "no images or WAV files")
    (tmp_path / "a.csv").write_text("1,2")
    fails(lambda: open_samples(tmp_path, IMAGE, table()), tmp_path, ".csv")
    fails(
        lambda: open_samples(tmp_path / "a.csv", IMAGE, table()),
        "a.csv",
        "samples are not read from files of this kind",
    )
    save_image(tmp_path / "a.png")
    fails(lambda: open_samples(tmp_path, IMAGE | WAVE, table()), tmp_path, "'image', 'wave'", ".npz")
    fails(lambda: open_samples(tmp_path, WAVE, table()), "four axes")
    save_wav(tmp_path / "a.wav", tone())
    fails(lambda: open_samples(tmp_path, IMAGE, table()), tmp_path, "images and WAV")
    np.save(tmp_path / "a.npy", np.zeros((3, 2), np.float32))
    scalar = {"x": ("float32", ())}
    fails(lambda: open_samples(tmp_path / "a.npy", scalar, table()), tmp_path)


def test_without_pillow(tmp_path: Path) -> None:
    """A process in which Pillow cannot be imported: images say how to install it, all else works."""
    save_image(tmp_path / "a.png")
    code = f"""
import sys
sys.modules["PIL"] = None
from bitwright.models.samples.open import open_samples
from bitwright.recipe import Data
assert "torch" not in sys.modules and "onnxruntime" not in sys.modules
try:
    open_samples({str(tmp_path)!r}, {{"image": ("float32", (None, 3, 4, 6))}}, Data())
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (
        "ResourceError images need Pillow, which is not installed. pip install 'bitwright[onnx]'"
    )


# ---- sounds -----------------------------------------------------------------------------


def test_labels_of_sounds(tmp_path: Path) -> None:
    for digit in (3, 1):
        for number in range(2):
            save_wav(tmp_path / f"{digit}_anna_{number}.wav", tone(300 + digit))
    samples = open_samples(tmp_path, WAVE, table(order="given"))
    assert samples.classes == ("1", "3") and labels(samples) == [0, 0, 1, 1]
    assert [batch.feeds["wave"].shape for batch in samples] == [(2, 1, 301), (2, 1, 303)], "no batch of two lengths"
    assert samples.summary["preprocessing"]["audio"]["rate"] == 8000
    save_wav(tmp_path / "noprefix.wav", tone())
    assert not open_samples(tmp_path, WAVE, table()).labelled
    folder = tmp_path / "folders"
    save_wav(folder / "yes" / "1_a.wav", tone())
    save_wav(folder / "no" / "1_b.wav", tone())
    assert open_samples(folder, WAVE, table()).classes == ("no", "yes")


def test_texts_beside_sounds(tmp_path: Path) -> None:
    for name, text in (("a", "turn it  on\n"), ("b", "off")):
        save_wav(tmp_path / f"{name}.wav", tone())
        (tmp_path / f"{name}.txt").write_text(text, "utf-8")
    samples = open_samples(tmp_path, WAVE, table(task="words", order="given"))
    assert labels(samples) == ["turn it on", "off"] and not samples.summary["dropped"]
    (tmp_path / "b.txt").unlink()
    fails(lambda: open_samples(tmp_path, WAVE, table(task="words")), "b.txt", "cannot be read")
    (tmp_path / "b.txt").write_bytes(b"\xff")
    fails(lambda: open_samples(tmp_path, WAVE, table(task="words")), "b.txt", "UTF-8")


def test_bad_sounds_are_named(tmp_path: Path) -> None:
    for number in range(3):
        save_wav(tmp_path / f"0_{number}.wav", tone())
    bad = save_wav(tmp_path / "1_bad.wav", np.zeros(100))
    fails(lambda: open_samples(tmp_path, WAVE, table()), bad, "silence")
    save_wav(bad, [])
    fails(lambda: open_samples(tmp_path, WAVE, table()), bad, "no sound")
    save_wav(bad, tone(), rate=11025)
    fails(lambda: open_samples(tmp_path, WAVE, table(order="given")), bad, "11,025 Hz", "8,000 Hz")
    bad.write_bytes(b"")
    fails(lambda: open_samples(tmp_path, WAVE, table()), bad, "empty")


# ---- two parts --------------------------------------------------------------------------


def test_parts_of_one_source(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 20, "b": 20})
    first, second = open_parts(table(source=str(tmp_path), samples=16), IMAGE)
    assert (len(first), len(second)) == (16, 24) and not set(names(first)) & set(names(second))
    first, second = open_parts(table(source=str(tmp_path), samples=16, heldout_samples=5), IMAGE)
    assert (len(first), len(second)) == (16, 5)
    first, second = open_parts(table(source=str(tmp_path), samples=256), IMAGE)
    assert (len(first), len(second)) == (30, 10), "a small source is shared three to one"


def test_parts_of_two_sources(tmp_path: Path) -> None:
    one, two = image_folder(tmp_path / "1", {"a": 4, "b": 4}), image_folder(tmp_path / "2", {"a": 3, "b": 3})
    first, second = open_parts(table(source=str(one), heldout=str(two), samples=6), IMAGE)
    assert (len(first), len(second)) == (6, 6)
    image_folder(two, {"c": 1})
    fails(lambda: open_parts(table(source=str(one), heldout=str(two)), IMAGE), two, "3 in data.heldout", "c")
    declared = table(source=str(one), heldout=str(two), classes=("a", "b", "c"))
    assert len(open_parts(declared, IMAGE)[1]) == 7
    fails(lambda: open_parts(table(source=str(one), heldout=str(one) + "/"), IMAGE), "data.heldout")
    fails(lambda: open_parts(table(), IMAGE), "data.source")


# ---- the shared data --------------------------------------------------------------------


@pytest.mark.skipif(SHARED is None, reason="no shared data beside this checkout")
def test_cifar() -> None:
    network = {"image": ("float32", (None, 3, 32, 32))}
    norm = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    assert SHARED is not None
    samples = open_samples(SHARED / "data" / "cifar10" / "calibration", network, table(image=norm), count=256)
    assert set(samples.summary["per_class"].values()) == {25, 26} and len(samples.classes or ()) == 10
    feeds = np.concatenate([batch.feeds["image"] for batch in samples])
    assert feeds.shape == (256, 3, 32, 32) and abs(feeds.mean()) < 0.5 and 0.5 < feeds.std() < 2


@pytest.mark.skipif(SHARED is None, reason="no shared data beside this checkout")
def test_digits_spoken() -> None:
    network = {"features": ("float32", (None, 40, None))}
    how = {"rate": 8000, "features": "logmel", "n_fft": 256, "hop": 80, "mels": 40}
    assert SHARED is not None
    samples = open_samples(SHARED / "data" / "speech-digits" / "test", network, table(audio=how), count=50)
    assert samples.classes == tuple("0123456789") and len(samples) == 50
    assert all(np.isfinite(batch.feeds["features"]).all() for batch in samples)
