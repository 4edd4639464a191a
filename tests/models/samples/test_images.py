"""Images to arrays: sizes, modes, values; and files that cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.models.samples import images
from bitwright.models.samples.preprocess import Notes
from tests.models.samples.sources import fails, pixels_of, save_image, table

pytest.importorskip("PIL")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def plan(dtype: str = "float32", shape: tuple[int | None, ...] = (None, 3, 4, 6), **keys: Any) -> images.Picture:
    return images.resolve(table(image=keys).image, "image", dtype, shape)


def read(path: Path, how: images.Picture) -> Any:
    notes = Notes()
    array = images.read(path.read_bytes(), path, how, notes, path.name)
    return array, [row["what"] for row in notes.rows()]


def test_values_are_those_of_training(tmp_path: Path) -> None:
    path = save_image(tmp_path / "a.png")
    array, notes = read(path, plan(mean=MEAN, std=STD))
    expected = (pixels_of(path) / 255 - MEAN) / STD
    assert array.dtype == np.float32 and array.shape == (3, 4, 6) and not notes
    np.testing.assert_array_equal(array, expected.transpose(2, 0, 1).astype(np.float32))


def test_layout_and_order_of_channels(tmp_path: Path) -> None:
    path = save_image(tmp_path / "a.png")
    rgb, _ = read(path, plan())
    bgr, _ = read(path, plan(mode="BGR"))
    last, _ = read(path, plan(shape=(None, 4, 6, 3)))
    np.testing.assert_array_equal(bgr, rgb[::-1])
    np.testing.assert_array_equal(last, rgb.transpose(1, 2, 0))
    assert plan(shape=(None, None, None, None), size=(4, 6)).layout == "NCHW"


def test_integer_networks_take_pixels_as_they_are(tmp_path: Path) -> None:
    path = save_image(tmp_path / "a.png")
    array, _ = read(path, plan("uint8", (1, 4, 6, 3)))
    np.testing.assert_array_equal(array, pixels_of(path))
    signed, _ = read(path, plan("int8", (1, 4, 6, 3), mean=(128,)))
    np.testing.assert_array_equal(signed, pixels_of(path).astype(int) - 128)
    fails(lambda: plan("uint8", scale=1 / 255), "data.image.scale", "uint8")
    fails(lambda: plan("int8"), "data.image.scale", "int8")


def test_grey_network(tmp_path: Path) -> None:
    path = save_image(tmp_path / "a.png", mode="L")
    array, notes = read(path, plan(shape=(None, 1, 4, 6)))
    np.testing.assert_array_equal(array[0], (pixels_of(path, "L") / 255).astype(np.float32))
    assert not notes


def test_resize_and_crop(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    path = save_image(tmp_path / "a.png", 20, 31)
    with image.open(path) as opened:
        small = np.asarray(opened.resize((6, 4), image.Resampling.BILINEAR))
        # torchvision: Resize(9) gives 9 x int(9 * 31 / 20); CenterCrop((4, 6)) begins at the rounded half of the rest.
        cut = np.asarray(opened.resize((13, 9), image.Resampling.BICUBIC))[2:6, 4:10]
    stretched, _ = read(path, plan(fit="resize", scale=1))
    np.testing.assert_array_equal(stretched, small.transpose(2, 0, 1))
    cropped, _ = read(path, plan(fit="crop", short=9, filter="bicubic", scale=1))
    np.testing.assert_array_equal(cropped, cut.transpose(2, 0, 1))
    for height, width in ((4, 6), (5, 6), (400, 6), (4, 601), (7, 7)):
        assert read(save_image(tmp_path / "b.png", height, width), plan(fit="crop"))[0].shape == (3, 4, 6)


def test_place_follows_the_pixels() -> None:
    """The corners of what is cut out land on the corners of the network's input."""
    how = plan(fit="crop", short=9)
    sx, sy, left, top = images.place(how, 20, 31)
    assert (sx, sy, left, top) == (13 / 31, 9 / 20, 4, 2)
    assert images.place(plan(fit="resize"), 8, 3) == (2, 0.5, 0, 0)
    assert images.place(plan(), 4, 6) == (1, 1, 0, 0)


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "png"), ("RGBA", "png"), ("LA", "png"), ("CMYK", "jpg"), ("1", "png")]
)
def test_another_mode_is_an_error_or_recorded(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"odd.{suffix}"
    if mode == "1":
        image = pytest.importorskip("PIL.Image")
        image.new("1", (6, 4), 1).save(path)
    else:
        save_image(path, mode=mode)
    error = fails(lambda: read(path, plan()), path, mode, "RGB")
    assert "data.image.convert" in str(error)
    fails(lambda: images.look(path.read_bytes(), path, plan()), path, mode)
    array, notes = read(path, plan(convert=True, scale=1))
    assert array.shape == (3, 4, 6)
    assert len(notes) == 1 and mode in notes[0]


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "glass.png"
    image.new("RGBA", (6, 4), (200, 100, 0, 0)).save(path)
    array, notes = read(path, plan(convert=True, scale=1))
    assert (array == 255).all() and "over white" in notes[0]


def test_a_palette_is_another_way_to_write_rgb(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "p.png"
    picture = image.new("P", (6, 4))
    picture.putpalette([10, 20, 30, 250, 240, 230])
    picture.putpixel((0, 0), 1)
    picture.save(path)
    array, notes = read(path, plan(scale=1))
    assert array[:, 0, 0].tolist() == [250, 240, 230] and array[:, 1, 1].tolist() == [10, 20, 30]
    assert notes == ["image converted from P to RGB"]
    picture.save(path, transparency=0)
    fails(lambda: read(path, plan()), path, "transparency")


def test_bad_files_are_named(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    whole = save_image(tmp_path / "whole.jpg", 60, 60).read_bytes()
    bad = tmp_path / "bad.jpg"
    how = plan(shape=(None, 3, 60, 60))
    bad.write_bytes(whole[: len(whole) // 2])
    images.look(bad.read_bytes(), bad, how)  # the header is whole
    fails(lambda: read(bad, how), bad, "damaged image")
    for content in (b"", b"not an image", whole[:40], whole[2:]):
        bad.write_bytes(content)
        fails(lambda: read(bad, how), bad)
    png = save_image(tmp_path / "a.png", 60, 60).read_bytes()
    for content in (png[:200], png[:-300], png[:60] + bytes(50) + png[110:]):
        bad.write_bytes(content)
        fails(lambda: read(bad, how), bad)
    deep = tmp_path / "deep.png"
    image.fromarray(np.zeros((4, 6), np.uint16)).save(deep)
    fails(lambda: read(deep, plan(shape=(None, 1, 4, 6), convert=True)), deep, "8-bit")
    film = tmp_path / "film.gif"
    image.new("RGB", (6, 4)).save(film, save_all=True, append_images=[image.new("RGB", (6, 4), "red")])
    fails(lambda: read(film, plan(convert=True)), film, "more than one picture")


def test_another_size_is_an_error(tmp_path: Path) -> None:
    path = save_image(tmp_path / "a.png", 5, 6)
    error = fails(lambda: read(path, plan()), path, "6 x 5", "6 x 4")
    assert "data.image.fit" in str(error)


@pytest.mark.parametrize(
    ("shape", "keys", "words"),
    [
        ((None, 64), {}, ("four axes", "[?, 64]")),
        ((None, 5, 4, 6), {}, ("layout", "5 channels")),
        ((None, 3, 4, 6), {"layout": "NHWC"}, ("layout", "6 channels")),
        ((None, 3, 4, 6), {"mode": "L"}, ("mode", "takes 3")),
        ((None, 3, 4, 6), {"size": (6, 4)}, ("size", "[6, 4]", "[4, 6]")),
        ((None, 3, 4, 6), {"mean": (0.1, 0.2)}, ("mean", "2 numbers for 3")),
        ((None, 3, 4, 6), {"short": 9}, ("short", "none")),
        ((None, 3, 4, 6), {"short": 3, "fit": "crop"}, ("short", "less than")),
        ((None, 3, None, None), {"fit": "crop"}, ("fit", "dynamic")),
    ],
)
def test_tables_that_contradict_the_network(shape: Any, keys: Any, words: tuple[str, ...]) -> None:
    fails(lambda: plan(shape=shape, **keys), *words)
