""".npy, .npz and .jsonl files, and feeds from Python."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.models.samples import given as given_module
from bitwright.models.samples.open import Samples, open_samples
from tests.models.samples.sources import fails, table

ONE = {"x": ("float32", (None, 3))}
TWO = {"ids": ("int64", (None, None)), "mask": ("float32", (None, None))}
X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)


def gather(samples: Samples) -> tuple[dict[str, Any], list[Any]]:
    """All feeds joined, and all labels."""
    batches = list(samples)
    feeds = {name: np.concatenate([batch.feeds[name] for batch in batches]) for name in batches[0].feeds}
    return feeds, [label for batch in batches for label in batch.labels or ()]


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("order", ["given", "spread"])
@pytest.mark.parametrize("form", ["npy", "fortran", "npz", "compressed"])
def test_rows_of_a_file(tmp_path: Path, form: str, order: str) -> None:
    path = tmp_path / ("a.npz" if form in ("npz", "compressed") else "a.npy")
    if path.suffix == ".npy":
        np.save(path, np.asfortranarray(X) if form == "fortran" else X)
    else:
        (np.savez if form == "npz" else np.savez_compressed)(path, x=X)
    samples = open_samples(path, ONE, table(order=order, batch=7), count=20)
    feeds, _ = gather(samples)
    rows = [X.tolist().index(row) for row in feeds["x"].tolist()]
    assert rows == sorted(rows) and len(rows) == 20 and (order == "spread") != (rows == list(range(20)))
    assert [len(batch.names) for batch in samples] == [7, 7, 6]
    rest, _ = gather(open_samples(path, ONE, table(order=order), skip=20))
    assert sorted(np.concatenate([feeds["x"], rest["x"]]).tolist()) == sorted(X.tolist())
    assert samples.summary["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_several_inputs_and_labels(tmp_path: Path) -> None:
    ids, mask = np.arange(40).reshape(20, 2), np.ones((20, 2), np.float32)
    path = save(tmp_path / "a.npz", ids=ids, mask=mask, labels=np.array(["no", "yes"] * 10))
    samples = open_samples(path, TWO, table())
    feeds, labels = gather(samples)
    np.testing.assert_array_equal(feeds["ids"], ids)
    assert feeds["mask"].dtype == np.float32 and labels == [0, 1] * 10
    assert samples.task == "classify" and samples.classes == ("no", "yes")
    assert samples.summary["per_class"] == {"no": 10, "yes": 10}


def test_types_of_one_kind_are_converted_and_noted(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, X.astype(np.float64))
    samples = open_samples(path, ONE, table())
    assert samples.summary["notes"] == []
    feeds, _ = gather(samples)
    assert feeds["x"].dtype == np.float32
    (note,) = samples.summary["notes"]
    assert (note["what"], note["count"]) == ("input 'x' converted from float64 to float32", 40)
    np.save(path, X.astype(np.float64) * 1e39)
    fails(lambda: list(open_samples(path, ONE, table())), path, "row 0", "'x'", "float32")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": X[:, :2]}, ("x", "[?, 3]", "[40, 2]")),
        ({"x": X[:, None]}, ("x", "[40, 1, 3]")),
        ({"x": np.zeros((4, 3), int)}, ("x", "float32", "int64")),
        ({"x": np.zeros((4, 3), np.uint8)}, ("x", "uint8", "as in training")),
        ({"x": X, "y": X}, ("unknown 'y'",)),
        ({"labels": X}, ("no array for input 'x'",)),
        ({"x": X, "labels": np.zeros(39, int)}, ("different lengths", "[39]")),
        ({"x": X, "labels": np.zeros(40)}, ("labels", "float64")),
        ({"x": X[:0]}, ("no samples",)),
        ({"x": np.array([[object()] * 3])}, ("Python objects",)),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, arrays: Any, words: tuple[str, ...]) -> None:
    path = save(tmp_path / "a.npz", **arrays)
    fails(lambda: open_samples(path, ONE, table()), path, *words)


def test_numbers_that_are_none(tmp_path: Path) -> None:
    for value in (np.nan, np.inf):
        bad = X.copy()
        bad[17, 2] = value
        path = save(tmp_path / "a.npz", x=bad)
        fails(lambda path=path: list(open_samples(path, ONE, table())), path, "row 17", "'x'", value, "[2]")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, X)
    whole = path.read_bytes()
    for content in (b"", whole[:20], b"x" * 200):
        path.write_bytes(content)
        fails(lambda: open_samples(path, ONE, table()), path, "damaged")
    path.write_bytes(whole[:-5])
    fails(lambda: list(open_samples(path, ONE, table())), path, "row 39")
    zipped = tmp_path / "a.npz"
    np.savez_compressed(zipped, x=X)
    whole = zipped.read_bytes()
    middle = len(whole) // 2
    zipped.write_bytes(whole[:middle] + bytes(40) + whole[middle + 40 :])
    fails(lambda: list(open_samples(zipped, ONE, table())), zipped)
    zipped.write_bytes(whole[:middle])
    fails(lambda: open_samples(zipped, ONE, table()), zipped, "damaged")


def test_one_array_for_one_input(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", pixels=X)
    samples = open_samples(path, ONE, table())
    assert len(gather(samples)[0]["x"]) == 40
    assert "taken for input 'x'" in samples.summary["notes"][0]["what"]
    np.save(tmp_path / "b.npy", X)
    fails(lambda: open_samples(tmp_path / "b.npy", TWO, table()), "'ids', 'mask'")


# ---- .jsonl -----------------------------------------------------------------------------


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n", "utf-8")
    return path


def test_lines_of_json(tmp_path: Path) -> None:
    rows = [{"x": [index, 0.5, -1], "label": "ab"[index % 2]} for index in range(30)]
    samples = open_samples(lines(tmp_path / "a.jsonl", *rows[:10], "", *rows[10:]), ONE, table(order="given"))
    feeds, labels = gather(samples)
    assert feeds["x"].dtype == np.float32 and feeds["x"][:, 0].tolist() == list(range(30))
    assert labels == [0, 1] * 15 and len(list(samples)) == 1
    chosen = open_samples(tmp_path / "a.jsonl", ONE, table(), count=8)
    assert chosen.summary["per_class"] == {"a": 4, "b": 4}


def test_lines_of_several_lengths_make_batches_of_their_own(tmp_path: Path) -> None:
    rows = [{"ids": [1] * length, "mask": [1.0] * length} for length in (2, 2, 3, 3, 3, 2)]
    samples = open_samples(lines(tmp_path / "a.jsonl", *rows), TWO, table(order="given"))
    assert [batch.feeds["ids"].shape for batch in samples] == [(2, 2), (3, 3), (1, 2)]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{", ("not valid JSON",)),
        ("[1]", ("not a JSON object",)),
        ({"y": [1, 2, 3]}, ("no array for input 'x'", "unknown 'y'")),
        ({"x": [1, 2]}, ("[3]", "[2]")),
        ({"x": [1, [2], 3]}, ("ragged",)),
        ({"x": ["a", "b", "c"]}, ("float32",)),
        ('{"x": [1, NaN, 3]}', ("nan", "[1]")),
        ({"x": [1, 2, 1e300]}, ("float32 cannot hold",)),
        ({"x": [1, 2, 3], "label": 1}, ("no label",)),
    ],
)
def test_lines_that_do_not_fit(tmp_path: Path, row: Any, words: tuple[str, ...]) -> None:
    path = lines(tmp_path / "a.jsonl", {"x": [1, 2, 3]}, row)
    error = fails(lambda: list(open_samples(path, ONE, table())), path, *words)
    assert "line " in str(error)


def test_whole_numbers_are_not_rounded(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"ids": [1.5], "mask": [1]})
    fails(lambda: list(open_samples(path, TWO, table())), "line 1", "'ids'", "int64")


# ---- Python -----------------------------------------------------------------------------


class Loader:
    """Something that can be walked again and again, as a data loader."""

    def __init__(self) -> None:
        self.walks = 0

    def __iter__(self) -> Iterator[Any]:
        self.walks += 1
        return iter([({"x": X[start : start + 4]}, np.arange(start, start + 4) % 2) for start in range(0, 40, 4)])


def test_feeds_are_passed_on() -> None:
    loader = Loader()
    samples = open_samples(loader, ONE, table(), count=18)
    assert len(samples) == 20, "whole feeds, until there are enough"
    for _ in range(2):
        feeds, labels = gather(samples)
        np.testing.assert_array_equal(feeds["x"], X[:20])
        assert labels == [0, 1] * 10
    assert samples.summary["sha256"] == hashlib.sha256(X[:20].tobytes()).hexdigest()
    rest, _ = gather(open_samples(loader, ONE, table(), skip=18))
    np.testing.assert_array_equal(rest["x"], X[20:])


def test_iterators_are_kept() -> None:
    samples = open_samples((row for row in X), ONE, table(), count=10)
    assert len(samples) == 10 and samples.task == "none"
    for _ in range(2):
        np.testing.assert_array_equal(gather(samples)[0]["x"], X[:10])


def test_an_iterator_too_large_to_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given_module, "KEEP", 100)
    fails(lambda: open_samples((row for row in X), ONE, table()), "iterator of more than 100 bytes")
    assert len(open_samples(list(X), ONE, table())) == 40


def test_torch_tensors() -> None:
    torch = pytest.importorskip("torch")
    samples = open_samples([(torch.from_numpy(X), torch.zeros(40, dtype=torch.int64))], ONE, table())
    feeds, labels = gather(samples)
    np.testing.assert_array_equal(feeds["x"], X)
    assert labels == [0] * 40
    assert samples.summary["notes"][0]["what"] == "all samples are of one class"


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([], ("no samples",)),
        ([{"y": X}], ("item 0", "unknown 'y'")),
        ([X, X[:, :2]], ("item 1", "[?, 3]", "[40, 2]")),
        ([(X, [1, 2])], ("item 0", "2 labels for 40 samples")),
        ([(X[:1], 1), X[:1]], ("item 1", "no label")),
        ([(X[:1], -1)], ("label -1",)),
        ([X * np.float32(np.inf)], ("item 0", "'x'", "inf")),
    ],
)
def test_feeds_that_do_not_fit(items: Any, words: tuple[str, ...]) -> None:
    with np.errstate(invalid="ignore"):
        fails(lambda: open_samples(items, ONE, table()), *words)


def test_an_array_needs_one_input() -> None:
    fails(lambda: open_samples([X], TWO, table()), "item 0", "'ids', 'mask'")


def test_items_that_do_not_come_again() -> None:
    class Once:
        left = 2

        def __iter__(self) -> Iterator[Any]:
            self.left -= 1
            return iter([X[:1]] * (3 if self.left > 0 else 1))

    fails(lambda: list(open_samples(Once(), ONE, table())), "1 of 3 items")
