"""Only regular files are read, only so much of them, and what JSON says; a file is known by its content."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bitwright.errors import RecipeError
from bitwright.files import plain
from bitwright.files.plain import fingerprint, parse, read, require_new


def test_a_pipe_a_device_and_a_folder_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match="not a regular file"):
            read(path)


def test_no_more_is_read_than_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"x" * 1000)
    assert read(path, 1000) == b"x" * 1000
    with pytest.raises(OSError, match="larger than"):
        read(path, 999)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[1, 2", b"\xff"])
def test_what_is_not_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"nested too deep|Expecting|utf-8"):
        parse(text)


def test_a_fingerprint_follows_the_content_and_not_the_time(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(range(256)) * 4000)
    before, times = fingerprint([path]), (1, 1)
    os.utime(path, times)
    assert fingerprint([path]) == before
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    os.utime(path, times)
    assert fingerprint([path]) != before


def test_samples_tell_a_large_file_from_another_of_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "SAMPLES", 4)
    monkeypatch.setattr(plain, "SAMPLE", 8)
    path, seen = tmp_path / "weights", []
    for data in (bytes(1000), bytes(999) + b"x", b"x" + bytes(999), bytes(300) + b"x" * 100 + bytes(600)):
        path.write_bytes(data)
        os.utime(path, (1, 1))
        seen.append(str(fingerprint([path])))
    os.utime(path, (2, 2))  # what no sample saw may have changed
    assert len({*seen, str(fingerprint([path]))}) == 5


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("there", "the output exists"),
        ("dangling", "link to nothing"),
        ("x" * 256, "255 bytes"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_a_name_that_cannot_be_given(name: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(RecipeError, match=says):
        require_new(tmp_path / name)


def test_a_new_name(tmp_path: Path) -> None:
    require_new(tmp_path / "new-é.json")
