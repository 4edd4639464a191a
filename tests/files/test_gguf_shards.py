"""Models in shards: what gguf-py splits is read as one, and shards that do not belong together are named."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter
from hypothesis import given
from hypothesis import strategies as st

from bitwright.errors import FileError
from bitwright.files import gguf_shards as shards
from bitwright.files.gguf import LaterShardError, read

NAMES = ("a", "b", "c")
Broken = Callable[[Path], str]
"""Makes shards that are wrong in a folder; returns the name of the one to read."""


def values(name: str) -> np.ndarray:
    return np.full((2, 32), ord(name), np.float32)


def finish(writer: GGUFWriter, names: Iterable[str]) -> None:
    """Write these tensors."""
    for name in names:
        writer.add_tensor(name, values(name))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def split(folder: Path) -> Path:
    """A model in three shards of a tensor each, as gguf-py writes it; its first."""
    writer = GGUFWriter(folder / "m.gguf", "llama", split_max_tensors=1)
    writer.add_name("whole")
    finish(writer, NAMES)
    return folder / "m-00001-of-00003.gguf"


def shard(path: Path, number: int, count: int, total: int, names: str, arch: str = "") -> Path:
    """One shard that says this of itself."""
    writer = GGUFWriter(path, "")
    writer.kv_data[0].clear()
    writer.add_uint16(shards.NUMBER, number)
    writer.add_uint16(shards.COUNT, count)
    writer.add_int32(shards.TENSORS, total)
    if arch:
        writer.add_string("general.architecture", arch)
    finish(writer, names)
    return path


def test_what_gguf_py_splits_is_one_model(tmp_path: Path) -> None:
    found = read(split(tmp_path))
    assert [path.name for path in found.files] == [f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    assert found.facts["general.name"] == "whole"
    assert [tensor.name for tensor in found.tensors] == [*NAMES]
    for tensor in found.tensors:
        assert found.raw(tensor, 0, tensor.blocks).tobytes() == values(tensor.name).tobytes()
        assert found.bad_halves(tensor) is None


def test_a_first_shard_may_hold_metadata_alone(tmp_path: Path) -> None:
    first = shard(tmp_path / "m-00001-of-00002.gguf", 0, 2, 2, "", "llama")
    shard(tmp_path / "m-00002-of-00002.gguf", 1, 2, 2, "ab")
    assert [tensor.path.name for tensor in read(first).tensors] == ["m-00002-of-00002.gguf"] * 2


def test_a_merged_file_is_no_shard(tmp_path: Path) -> None:
    """`gguf-split --merge` leaves a count of 0, and one file alone may count itself."""
    for count in (0, 1):
        assert len(read(shard(tmp_path / "m.gguf", 0, count, 3, "abc", "llama")).tensors) == 3


def test_another_shard_names_the_first(tmp_path: Path) -> None:
    first = split(tmp_path)
    with pytest.raises(LaterShardError) as error:
        read(tmp_path / "m-00002-of-00003.gguf")
    assert str(error.value).endswith(f"m-00002-of-00003.gguf: is shard 2 of 3 of a model. Give the first: {first}")


def renamed(folder: Path) -> str:
    split(folder).rename(folder / "model.gguf")
    return "model.gguf"


def without(folder: Path) -> str:
    (split(folder).parent / "m-00002-of-00003.gguf").unlink()
    return "m-00001-of-00003.gguf"


def swapped(folder: Path) -> str:
    split(folder)
    shutil.copyfile(folder / "m-00003-of-00003.gguf", folder / "m-00002-of-00003.gguf")
    return "m-00001-of-00003.gguf"


def cut_off(folder: Path) -> str:
    path = split(folder).with_name("m-00002-of-00003.gguf")
    path.write_bytes(path.read_bytes()[:-40])
    return "m-00001-of-00003.gguf"


def other(number: int = 1, count: int = 3, total: int = 3, names: str = "b", arch: str = "") -> Broken:
    def made(folder: Path) -> str:
        split(folder)
        shard(folder / "m-00002-of-00003.gguf", number, count, total, names, arch)
        return "m-00001-of-00003.gguf"

    return made


def lying(folder: Path) -> str:
    shard(folder / "m-00001-of-00002.gguf", 0, 2, 5, "a", "llama")
    shard(folder / "m-00002-of-00002.gguf", 1, 2, 5, "bc")
    return "m-00001-of-00002.gguf"


def counting(count: str | int) -> Broken:
    def made(folder: Path) -> str:
        writer = GGUFWriter(folder / "m.gguf", "llama")
        add = writer.add_string if isinstance(count, str) else writer.add_uint64
        add(shards.COUNT, count)  # type: ignore[operator]
        finish(writer, "a")
        return "m.gguf"

    return made


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (renamed, r"model\.gguf: says that it is shard 1 of 3, .* Name it model-00001-of-00003\.gguf, and the others"),
        (without, r"m-00002-of-00003\.gguf: is missing: shard 2 of 3\. Put it beside m-00001-of-00003\.gguf"),
        (swapped, r"m-00002-of-00003\.gguf: says that it is shard 3, and is named as shard 2"),
        (cut_off, r"m-00002-of-00003\.gguf: b: truncated"),
        (other(names="bc"), r"m-00003-of-00003\.gguf: c: lies in m-00002-of-00003\.gguf, too"),
        (other(names=""), r"m-00001-of-00003\.gguf: split\.tensors\.count is 3, and its 3 shards hold 2 tensors"),
        (other(count=5), r"m-00002-of-00003\.gguf: belongs to another model: it says 5 shards of 3 tensors"),
        (other(total=7), r"m-00002-of-00003\.gguf: belongs to another model: it says 3 shards of 7 tensors"),
        (other(arch="gpt2"), r"m-00002-of-00003\.gguf: belongs to another model: .* is 'gpt2', in .* 'llama'"),
        (lying, r"m-00001-of-00002\.gguf: split\.tensors\.count is 5, and its 2 shards hold 3 tensors"),
        (counting("three"), r"m\.gguf: split\.count is 'three', no number of shards"),
        (counting(1 << 60), r"m\.gguf: split\.count is 1152921504606846976, no number of shards"),
    ],
)
def test_shards_that_do_not_belong_together(broken: Broken, told: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=told):
        read(tmp_path / broken(tmp_path))


@given(st.lists(st.tuples(st.integers(25, 60), st.integers(1, 500)), min_size=1, max_size=30), st.integers(1, 900))
def test_shards_are_no_larger_than_asked_for(tensors: list[tuple[int, int]], most: int) -> None:
    heads, align = (150, 90), 32
    found = shards.cut(tensors, heads, most, align)
    assert [number for each in found for number in each] == [*range(len(tensors))]
    sizes = []
    for number, each in enumerate(found):
        head = heads[number > 0] + sum(tensors[i][0] for i in each)
        sizes.append(shards.padded(head, align) + sum(shards.padded(tensors[i][1], align) for i in each))
        assert sizes[-1] <= most or len(each) == (number > 0), "only a lone tensor, or metadata, may be larger"
    for before, (first, *_) in zip(sizes, found[1:], strict=False):
        entry, size = tensors[first]
        assert before + entry + shards.padded(size, align) + align > most, "and none is begun without need"


def test_names(tmp_path: Path) -> None:
    for name in ("m-00002-of-00003.gguf", "m-00001-of-00003.gguf", "m.gguf", "m-1-of-3.gguf", "mm-00001-of-00001.gguf"):
        (tmp_path / name).touch()
    one, two, three = (tmp_path / f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3))
    assert shards.named_by(two) == [one, two, three] and shards.named_by(tmp_path / "m.gguf") == [tmp_path / "m.gguf"]
    assert shards.lying(tmp_path / "m.gguf") == [one, two]
    assert (shards.is_later(one), shards.is_later(two), shards.is_later(tmp_path / "m-1-of-3.gguf")) == (
        False,
        True,
        False,
    )
    assert shards.stem_of(two) == shards.stem_of(tmp_path / "m.gguf") == "m"
