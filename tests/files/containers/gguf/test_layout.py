"""Layouts of GGUF files: read by other code, written in any order, split, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, quants
from gguf.gguf_writer import GGUFValue

from bitwright.errors import ModelError, RecipeError, TensorError
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


@pytest.mark.parametrize(("align", "held"), [(None, [[], ["a"], ["norm", "b"]]), (128, [[], ["a"], ["norm"], ["b"]])])
def test_a_large_model_is_split_and_each_file_says_so(align: int | None, held: list[list[str]], tmp_path: Path) -> None:
    """Nothing fits beside the metadata, and `a` takes more alone."""
    facts = FACTS | ({} if align is None else {"general.alignment": GGUFValue(align, GGUFValueType.UINT32)})
    layout = Layout("out.gguf", facts, SPECS, most=512)
    layout.create(tmp_path)
    count = len(held)
    names = [f"out-0000{i + 1}-of-0000{count}.gguf" for i in range(count)]
    assert [*layout.files] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    for spec in SPECS:
        layout.write(tmp_path, spec.name, rows(spec))
    readers = [GGUFReader(tmp_path / name) for name in names]
    assert [[tensor.name for tensor in reader.tensors] for reader in readers] == held
    keys = ("split.no", "split.count", "split.tensors.count")
    assert [[reader.fields[key].contents() for key in keys] for reader in readers] == [
        [i, count, 3] for i in range(count)
    ]
    assert ["list" in reader.fields for reader in readers] == [True] + [False] * (count - 1)
    for tensor in [tensor for reader in readers for tensor in reader.tensors]:
        assert tensor.data.tobytes() == rows(next(spec for spec in SPECS if spec.name == tensor.name)).tobytes()
    sizes = {name: (tmp_path / name).stat().st_size for name in names}
    assert sum(sizes.values()) == layout.total_bytes
    (large,) = [name for name, size in sizes.items() if size > 512]
    assert layout.larger(512) == [f"{large} has {sizes[large] / 1e3:.1f} kB: it holds a alone"]
    assert [tensor.name for tensor in gguf.read(tmp_path / names[0]).tensors] == ["a", "norm", "b"]


def test_what_fits_is_one_file() -> None:
    whole = Layout("out.gguf", FACTS, SPECS)
    same, more = (Layout("out.gguf", FACTS, SPECS, most=whole.total_bytes - less) for less in (0, 1))
    assert same.files == whole.files and len(more.files) == 2


def test_metadata_that_are_larger_than_a_file_may_be_are_said() -> None:
    layout = Layout("out.gguf", FACTS, SPECS, most=200)
    assert "out-00001-of-00004.gguf has 0.3 kB: it holds metadata alone" in layout.larger(200)


def test_no_more_shards_are_made_than_can_be_counted() -> None:
    specs = [Spec(f"{i}", F32, (1,)) for i in range(1 << 16)]
    with pytest.raises(RecipeError, match=r"max_shard_bytes: 65,537 shards of 100 bytes, and GGUF counts to 65,535"):
        Layout("out.gguf", FACTS, specs, most=100)


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
