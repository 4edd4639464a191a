"""Layouts of GGUF files: read by other code, written in any order, split, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, quants
from gguf.gguf_writer import GGUFValue

from bitwright.errors import ModelError, TensorError
from bitwright.files import gguf
from bitwright.files.containers.gguf.header import Facts
from bitwright.files.containers.gguf.layout import Layout, Spec, file_name

Q8, F32 = GGMLQuantizationType.Q8_0, GGMLQuantizationType.F32
FACTS: Facts = {
    "general.architecture": GGUFValue("llama", GGUFValueType.STRING),
    "general.name": GGUFValue("Tiny Model", GGUFValueType.STRING),
    "general.size_label": GGUFValue("1K", GGUFValueType.STRING),
    "list": GGUFValue(["a", "b"], GGUFValueType.ARRAY),
}
SPECS = [Spec("a", Q8, (2, 3, 64)), Spec("norm", F32, (5,)), Spec("b", Q8, (4, 32))]


def rows(spec: Spec) -> np.ndarray:
    values = np.random.default_rng(len(spec.name)).normal(size=(spec.rows, spec.columns)).astype(np.float32)
    return quants.quantize(values, spec.type).view(np.uint8)


def test_other_code_reads_what_was_written_in_any_order(tmp_path: Path) -> None:
    layout = Layout("out.gguf", FACTS, SPECS)
    layout.create(tmp_path)
    data = {spec.name: rows(spec) for spec in SPECS}
    order = np.array([5, 0, 1, 4, 3, 2])
    total = layout.write(tmp_path, "a", data["a"][order[:2]], order[:2])
    total = layout.write(tmp_path, "a", data["a"][order[2:]], order[2:], total)
    assert total == layout.write(tmp_path, "a", data["a"]) == layout.checksum(tmp_path, "a")
    layout.write(tmp_path, "norm", data["norm"])
    layout.write(tmp_path, "b", data["b"][2:], 2)
    layout.write(tmp_path, "b", data["b"][:2])
    found = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "out.gguf").tensors}
    assert [*found] == ["a", "norm", "b"]
    for spec in SPECS:
        assert tuple(reversed(found[spec.name].shape.tolist())) == spec.shape
        assert found[spec.name].tensor_type == spec.type
        assert found[spec.name].data.tobytes() == data[spec.name].tobytes()
        assert found[spec.name].data_offset % 32 == 0
    assert [tensor.name for tensor in gguf.read(tmp_path / "out.gguf").tensors] == ["a", "norm", "b"]
    assert (tmp_path / "out.gguf").stat().st_size == layout.total_bytes
    assert np.array_equal(layout.read(tmp_path, "a", 2, 4), data["a"][2:4])


def test_an_interrupted_run_goes_on_in_the_same_file(tmp_path: Path) -> None:
    layout = Layout("out.gguf", FACTS, SPECS)
    layout.create(tmp_path)
    layout.write(tmp_path, "b", rows(SPECS[2]))
    before = (tmp_path / "out.gguf").read_bytes()
    layout.create(tmp_path)
    assert (tmp_path / "out.gguf").read_bytes() == before
    (tmp_path / "out.gguf").write_bytes(before[:8] + b"x" + before[9:])
    assert not layout.intact(tmp_path, "out.gguf")
    layout.create(tmp_path)
    assert layout.intact(tmp_path, "out.gguf")


def test_a_sum_tells_rows_that_changed_places(tmp_path: Path) -> None:
    layout = Layout("out.gguf", FACTS, SPECS)
    layout.create(tmp_path)
    data = rows(SPECS[2])
    assert layout.write(tmp_path, "b", data) != layout.write(tmp_path, "b", data[::-1])


def test_a_large_model_is_split_and_each_file_says_so(tmp_path: Path) -> None:
    layout = Layout("out.gguf", FACTS, SPECS, max_shard=420)
    layout.create(tmp_path)
    names = ["out-00001-of-00002.gguf", "out-00002-of-00002.gguf"]
    assert [*layout.files] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    for spec in SPECS:
        layout.write(tmp_path, spec.name, rows(spec))
    readers = [GGUFReader(tmp_path / name) for name in names]
    assert [[tensor.name for tensor in reader.tensors] for reader in readers] == [["a"], ["norm", "b"]]
    keys = ("split.no", "split.count", "split.tensors.count")
    assert [[reader.fields[key].contents() for key in keys] for reader in readers] == [[0, 2, 3], [1, 2, 3]]
    assert ["list" in reader.fields for reader in readers] == [True, False]
    assert readers[1].tensors[1].data.tobytes() == rows(SPECS[2]).tobytes()
    assert sum((tmp_path / name).stat().st_size for name in names) == layout.total_bytes


def test_rows_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    layout = Layout("out.gguf", FACTS, SPECS)
    layout.create(tmp_path)
    with pytest.raises(TensorError, match=r"b: \[4, 33\] of uint8 for 4 rows of 34 bytes"):
        layout.write(tmp_path, "b", np.zeros((4, 33), np.uint8))
    with pytest.raises(TensorError, match=r"b: rows 3 ... 4 of 4"):
        layout.write(tmp_path, "b", np.zeros((2, 34), np.uint8), 3)
    with pytest.raises(TensorError, match="norm: 48 weights per row are no whole blocks of Q4_K, which has 256"):
        Spec("norm", GGMLQuantizationType.Q4_K, (4, 48))


def test_a_file_that_was_cut_off_is_named(tmp_path: Path) -> None:
    layout = Layout("out.gguf", FACTS, SPECS)
    layout.create(tmp_path)
    with (tmp_path / "out.gguf").open("r+b") as file:
        file.truncate(layout.total_bytes - 32)
    with pytest.raises(TensorError, match=r"out.gguf: b: the file ends within it"):
        layout.checksum(tmp_path, "b")


@pytest.mark.parametrize(
    "fact",
    [
        GGUFValue("much", GGUFValueType.FLOAT32),
        GGUFValue(-1, GGUFValueType.UINT32),
        GGUFValue(1 << 40, GGUFValueType.UINT32),
        GGUFValue(["a", 1], GGUFValueType.ARRAY),
        GGUFValue([None], GGUFValueType.ARRAY),
        GGUFValue(["\ud800"], GGUFValueType.ARRAY),
        GGUFValue(7, GGUFValueType.STRING),
    ],
)
def test_facts_that_cannot_be_stored_are_named(fact: GGUFValue) -> None:
    with pytest.raises(ModelError, match=r"general.sampling.temp: the value .* cannot be stored"):
        Layout("out.gguf", FACTS | {"general.sampling.temp": fact}, SPECS)


def test_files_are_named_by_the_convention_of_gguf() -> None:
    assert file_name(FACTS, "q4_k_m") == "Tiny-Model-1K-Q4_K_M.gguf"
