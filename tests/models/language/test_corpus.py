"""The three parts of the standard library corpus."""

from typing import get_args

import pytest

from bitwright.errors import DataError
from bitwright.models.language import corpus

PARTS = get_args(corpus.Part)


@pytest.fixture(scope="module")
def texts():
    return {part: corpus.read(part) for part in PARTS}


def test_parts_are_large_enough(texts):
    sizes = {part: sum(map(len, texts[part])) for part in PARTS}
    assert sizes["train"] > 3_000_000
    assert sizes["calibration"] > 300_000
    assert sizes["heldout"] > 200_000


def test_no_text_is_blank_or_in_two_parts(texts):
    everything = [text for part in PARTS for text in texts[part]]
    assert all(text.strip() for text in everything)
    for one, other in [("train", "calibration"), ("train", "heldout"), ("calibration", "heldout")]:
        assert not set(texts[one]) & set(texts[other])


def test_reading_twice_gives_the_same(texts):
    assert all(corpus.read(part) == texts[part] for part in PARTS)


def test_named_modules_are_apart_and_all_here():
    calibration, heldout = corpus.NAMED["calibration"], corpus.NAMED["heldout"]
    assert not set(calibration) & set(heldout)
    assert list(calibration) == sorted(calibration) and list(heldout) == sorted(heldout)
    for part in corpus.NAMED:
        assert len(corpus.read(part)) >= len(corpus.NAMED[part])


def write_library(folder, names):
    """Write a stand-in standard library with one-line modules."""
    for name in names:
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"NAME = '{name}'\n")


def use_library(monkeypatch, folder):
    monkeypatch.setattr(corpus.sysconfig, "get_paths", lambda: {"stdlib": str(folder)})


def test_skips_a_missing_module_tests_and_generated_files(tmp_path, monkeypatch):
    calibration, heldout = corpus.NAMED["calibration"], corpus.NAMED["heldout"]
    skipped = ["test/test_ast", "unittest/test/case", "_sysconfigdata_x", "html/entities"]
    write_library(tmp_path, [*calibration[1:], *heldout, "ast", "html/parser", *skipped])
    use_library(monkeypatch, tmp_path)
    assert corpus.read("calibration") == [f"NAME = '{name}'\n" for name in calibration[1:]]
    assert corpus.read("train") == ["NAME = 'ast'\n", "NAME = 'html/parser'\n"]


def test_a_package_is_one_module(tmp_path, monkeypatch):
    files = ["csv/__init__", "csv/reader", *corpus.NAMED["heldout"][2:], "ast"]
    write_library(tmp_path, files)
    use_library(monkeypatch, tmp_path)
    assert corpus.read("heldout")[:2] == ["NAME = 'csv/__init__'\n", "NAME = 'csv/reader'\n"]


@pytest.mark.parametrize("part", PARTS)
def test_too_few_modules_is_an_error_naming_the_folder(part, tmp_path, monkeypatch):
    write_library(tmp_path, ["ast", "csv", "json"])
    use_library(monkeypatch, tmp_path)
    with pytest.raises(DataError) as caught:
        corpus.read(part)
    assert str(tmp_path) in str(caught.value) and "Install" in str(caught.value)


def test_an_unknown_part_is_an_error():
    with pytest.raises(DataError, match="Choose one of train, calibration, heldout"):
        corpus.read("validation")
