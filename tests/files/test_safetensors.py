"""Our reader on what the safetensors library wrote, and the library on what our writer wrote."""

from __future__ import annotations

import json
import random
import zlib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bitwright.errors import ModelError, TensorError
from bitwright.files.safetensors import DTYPES, INDEX, SINGLE, Checkpoint, Layout, Spec, read_header, view_bytes

SHAPES: list[tuple[int, ...]] = [(5, 3), (7,), (), (0,), (0, 4), (4, 0), (2, 3, 4), (1,)]


def random_tensor(dtype: torch.dtype, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Any bytes, so also NaN, Inf and subnormals; of bool only 0 and 1."""
    source = random.Random(seed)
    count = torch.Size(shape).numel() * dtype.itemsize
    raw = torch.tensor([source.randrange(2 if dtype == torch.bool else 256) for _ in range(count)], dtype=torch.uint8)
    return raw.view(dtype).reshape(shape)


def everything() -> dict[str, torch.Tensor]:
    """A tensor of every dtype in every shape, in no order of any use."""
    names = [(f"{name}.{i}", dtype, shape) for name, dtype in DTYPES.items() for i, shape in enumerate(SHAPES)]
    random.Random(0).shuffle(names)
    return {name: random_tensor(dtype, shape, n) for n, (name, dtype, shape) in enumerate(names)}


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """The same dtype, shape and bytes (NaN included)."""
    return a.dtype == b.dtype and a.shape == b.shape and bytes(view_bytes(a)) == bytes(view_bytes(b.contiguous()))


def plan(tensors: dict[str, torch.Tensor], max_shard: int = 5 * 10**9) -> Layout:
    return Layout([Spec(name, t.dtype, tuple(t.shape)) for name, t in tensors.items()], max_shard)


def write(folder: Path, tensors: dict[str, torch.Tensor], layout: Layout, order: list[str] | None = None) -> Layout:
    folder.mkdir(exist_ok=True)
    layout.create(folder)
    for name in order or tensors:
        assert layout.write(folder, name, tensors[name]) == zlib.crc32(view_bytes(tensors[name].contiguous()))
    return layout


def shards(folder: Path, tensors: dict[str, torch.Tensor], count: int) -> None:
    """What `save_pretrained` makes of a large model: numbered files by the library, and an index."""
    names, weights = list(tensors), {}
    for i in range(count):
        file = f"model-{i + 1:05d}-of-{count:05d}.safetensors"
        save_file({name: tensors[name] for name in names[i::count]}, folder / file, metadata={"format": "pt"})
        weights.update(dict.fromkeys(names[i::count], file))
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weights}))


@pytest.mark.parametrize("count", [1, 3])
def test_reads_what_the_library_wrote(count: int, tmp_path: Path) -> None:
    tensors = everything()
    if count == 1:
        save_file(tensors, tmp_path / SINGLE, metadata={"format": "pt", "made by": "a test"})
    else:
        shards(tmp_path, tensors, count)
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.tensors.keys() == tensors.keys()
    assert len(checkpoint.files) == count
    assert checkpoint.metadata == {"format": "pt", **({"made by": "a test"} if count == 1 else {})}
    assert checkpoint.size == sum(t.numel() * t.element_size() for t in tensors.values())
    for name, tensor in tensors.items():
        entry = checkpoint.entry(name)
        assert (entry.dtype, entry.shape, entry.count) == (tensor.dtype, tuple(tensor.shape), tensor.numel())
        assert same(checkpoint.read(name), tensor), name


def test_parts_make_one_tensor_of_the_file(tmp_path: Path) -> None:
    """Slices are written apart, in any order; files name the whole, which no shard cuts, and appear divided again."""
    stack, before = torch.randn(3, 4, 5), torch.randn(7)
    whole = Spec("stack", stack.dtype, tuple(stack.shape))
    parts = [Spec(f"stack.{i}", stack.dtype, (4, 5), whole) for i in range(3)]
    layout = Layout([Spec("before", before.dtype, (7,)), *parts, Spec("after", before.dtype, (7,))], 100)
    layout.create(tmp_path)
    for i in (2, 0, 1):
        layout.write(tmp_path, f"stack.{i}", stack[i])
    layout.write(tmp_path, "before", before)
    layout.write(tmp_path, "after", before)
    checkpoint = Checkpoint(tmp_path)
    assert [len(read_header(path)[0]) for path in checkpoint.files] == [1, 1, 1]
    assert torch.equal(checkpoint.read("stack"), stack)
    assert layout.checksum(tmp_path, "stack.1") == zlib.crc32(stack[1].numpy().tobytes())
    checkpoint.divide("stack", [(f"e.{i}.{half}", (2, 5)) for i in range(3) for half in "ab"])
    assert list(checkpoint.tensors)[1:-1] == [f"e.{i}.{half}" for i in range(3) for half in "ab"]
    assert (
        torch.equal(checkpoint.read("e.1.b", 1), stack[1, 3:]) and checkpoint.size == stack.nbytes + 2 * before.nbytes
    )
    with pytest.raises(ValueError, match="not what its parts make"):
        checkpoint.divide("after", [("half", (3,))])


@pytest.mark.parametrize("max_shard", [5 * 10**9, 1000])
def test_the_library_reads_what_we_wrote(max_shard: int, tmp_path: Path) -> None:
    tensors = everything()
    layout = write(tmp_path, tensors, plan(tensors, max_shard))
    assert (len(layout.files) == 1) == (max_shard > 10**6)
    found: dict[str, torch.Tensor] = {}
    for file in layout.files:
        with safe_open(tmp_path / file, framework="pt") as opened:
            assert opened.metadata() == {"format": "pt"}
            assert not found.keys() & opened.keys()
            found |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    assert found.keys() == tensors.keys()
    own = Checkpoint(tmp_path)
    for name, tensor in tensors.items():
        assert same(found[name], tensor), name
        assert same(own.read(name), tensor), name
        assert layout.checksum(tmp_path, name) == zlib.crc32(view_bytes(tensor))
    if len(layout.files) > 1:
        index = json.loads((tmp_path / INDEX).read_text())
        assert index["metadata"]["total_size"] == layout.tensor_bytes == own.size
        assert index["weight_map"] == {name: file for name, (file, _, _) in layout.place.items()}


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(0, 20), step=st.integers(1, 25), kind=st.sampled_from(["F32", "BF16", "F8_E4M3", "BOOL"]))
def test_chunks_cover_a_tensor_exactly(
    rows: int, step: int, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("chunks")
    tensor = random_tensor(DTYPES[kind], (rows, 3), rows)
    save_file({"a": random_tensor(torch.int8, (5,), 0), "w": tensor}, folder / SINGLE)
    pieces = list(Checkpoint(folder).chunks("w", step))
    assert [start for start, _ in pieces] == list(range(0, rows, step))
    assert all(0 < len(piece) <= step for _, piece in pieces)
    if pieces:
        assert same(torch.cat([piece for _, piece in pieces]), tensor)
    for start in range(0, rows, 3):
        assert same(Checkpoint(folder).read("w", start, start + step), tensor[start : start + step])


def test_a_scalar_is_one_chunk(tmp_path: Path) -> None:
    save_file({"s": torch.tensor(2.5)}, tmp_path / SINGLE)
    [(start, piece)] = Checkpoint(tmp_path).chunks("s", 7)
    assert start == 0 and piece.shape == () and piece == 2.5


def test_bytes_do_not_depend_on_the_order_of_writing(tmp_path: Path) -> None:
    tensors = everything()
    names = list(tensors)
    seen = []
    for i in range(3):
        folder = tmp_path / str(i)
        layout = write(folder, tensors, plan(tensors, 1000), order=random.Random(i).sample(names, len(names)))
        seen.append({path.name: path.read_bytes() for path in sorted(folder.iterdir())})
        assert {name: (file, offset) for name, (file, offset, _) in layout.place.items()} == {
            name: (file, offset) for name, (file, offset, _) in plan(tensors, 1000).place.items()
        }
    assert seen[0] == seen[1] == seen[2] and len(seen[0]) == 3


@settings(max_examples=30, deadline=None)
@given(
    specs=st.lists(
        st.tuples(st.sampled_from(list(DTYPES.values())), st.lists(st.integers(0, 9), max_size=3).map(tuple)),
        max_size=20,
    ),
    max_shard=st.integers(1, 2000),
)
def test_layout(specs: list, max_shard: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("layout")
    layout = Layout([Spec(str(i), dtype, shape) for i, (dtype, shape) in enumerate(specs)], max_shard)
    layout.create(folder)
    files = {path.name: path.stat().st_size for path in folder.glob("*.safetensors")}
    assert files == {file: size for file, (_, size) in layout.files.items()}
    assert layout.total_bytes == sum(files.values())
    assert layout.tensor_bytes == sum(spec.size for _, _, spec in layout.place.values())
    assert all(layout.intact(folder, file) for file in files)
    for file, (head, size) in layout.files.items():
        held = [(offset, spec) for name, offset, spec in layout.place.values() if name == file]
        data = size - len(head)
        assert data <= max_shard or sum(spec.size > 0 for _, spec in held) == 1, "only a lone tensor may be larger"
        at = len(head)
        for offset, spec in sorted(held, key=lambda pair: (pair[0], pair[1].size)):
            assert offset == at, "no gap, no overlap"
            assert offset % spec.dtype.itemsize == 0, "aligned in the file, so in a memory map"
            at += spec.size
        assert at == size
        assert load_file(folder / file).keys() == {spec.name for _, spec in held}
    # Shards are filled in the order given.
    numbers = [list(layout.files).index(layout.place[str(i)][0]) for i in range(len(specs))]
    assert numbers == sorted(numbers)


@settings(max_examples=25, deadline=None)
@given(cuts=st.sets(st.integers(1, 16)), kind=st.sampled_from(["F64", "BF16", "I8", "F8_E5M2"]))
def test_rows_written_piece_by_piece(cuts: set[int], kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    tensor = random_tensor(DTYPES[kind], (17, 5), 1)
    guard = random_tensor(torch.int16, (9,), 2)
    layout = plan({"before": guard, "w": tensor, "after": guard})
    folder = tmp_path_factory.mktemp("rows")
    layout.create(folder)
    for name in ("before", "after"):
        layout.write(folder, name, guard)
    crc, edges = 0, [0, *sorted(cuts), 17]
    for start, stop in zip(edges, edges[1:], strict=False):
        crc = layout.write(folder, "w", tensor[start:stop], start, crc)
    assert crc == zlib.crc32(view_bytes(tensor)) == layout.checksum(folder, "w")
    checkpoint = Checkpoint(folder)
    assert same(checkpoint.read("w"), tensor)
    assert same(checkpoint.read("before"), guard) and same(checkpoint.read("after"), guard)
    # A tensor that is not contiguous, such as a transposed one, is written by value.
    turned = random_tensor(DTYPES[kind], (5, 17), 3).T
    assert layout.write(folder, "w", turned) == layout.checksum(folder, "w")
    assert same(checkpoint.read("w"), turned.contiguous())


def test_files_that_are_there_stay_and_others_are_made_anew(tmp_path: Path) -> None:
    tensors = {str(i): random_tensor(torch.float32, (4, 4), i) for i in range(3)}
    layout = write(tmp_path, tensors, plan(tensors, 64))
    first, second, _ = layout.files
    (tmp_path / second).write_bytes((tmp_path / second).read_bytes()[:-1])
    assert [layout.intact(tmp_path, file) for file in layout.files] == [True, False, True]
    layout.create(tmp_path)
    checkpoint = Checkpoint(tmp_path)
    assert same(checkpoint.read("0"), tensors["0"]) and same(checkpoint.read("2"), tensors["2"])
    assert not checkpoint.read("1").any()
    other = plan({**tensors, "1": tensors["1"].view(torch.int32)}, 64)
    assert not other.intact(tmp_path, second), "another header of the same length is another file"
    assert other.intact(tmp_path, first)


def test_what_was_not_planned_is_refused(tmp_path: Path) -> None:
    tensors = {"w": torch.zeros(4, 3)}
    layout = write(tmp_path, tensors, plan(tensors))
    for wrong in (torch.zeros(4, 3, dtype=torch.float16), torch.zeros(4, 2), torch.zeros(4)):
        with pytest.raises(TensorError, match="was planned as"):
            layout.write(tmp_path, "w", wrong)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.uint16])
def test_a_dtype_we_cannot_read_is_named(dtype: torch.dtype, tmp_path: Path) -> None:
    save_file({"w": torch.zeros(4, dtype=dtype)}, tmp_path / SINGLE)
    with pytest.raises(TensorError, match=r"dtype \w+ is not supported") as caught:
        Checkpoint(tmp_path)
    assert caught.value.where == f"{tmp_path / SINGLE}: w"


def test_an_unknown_name_suggests_the_nearest(tmp_path: Path) -> None:
    save_file({"model.layers.0.mlp.up_proj.weight": torch.zeros(2)}, tmp_path / SINGLE)
    with pytest.raises(ModelError) as caught:
        Checkpoint(tmp_path).read("model.layers.0.mlp.up_prj.weight")
    assert caught.value.fix == "Nearest: model.layers.0.mlp.up_proj.weight"
