"""Pairs for verification: balanced, the same everywhere, from labels or a file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from bitwright.models.samples import pairs
from bitwright.models.samples.open import open_parts, open_samples
from bitwright.models.samples.pairs import draw_pairs, read_pairs
from bitwright.recipe import Match
from tests.models.samples.sources import IMAGE, fails, image_folder, table

NAMES = [f"{person}/{i}" for person in "abcde" for i in range(4)]
PEOPLE = [number for number in range(5) for _ in range(4)]


def test_pairs_are_balanced_and_true() -> None:
    found = draw_pairs(NAMES, PEOPLE, 0, "x")
    assert Counter(pair.same for pair in found) == {True: 30, False: 30}
    assert all((PEOPLE[a] == PEOPLE[b]) is same and a != b for a, b, same in found)
    assert len({frozenset(pair[:2]) for pair in found}) == 60
    assert found == draw_pairs(NAMES, PEOPLE, 0, "x") != draw_pairs(NAMES, PEOPLE, 1, "x")
    assert Counter(PEOPLE[a] for a, _, same in found if same) == dict.fromkeys(range(5), 6)


def test_no_identity_crowds_out_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "MOST", 10)
    people = [0] * 50 + [1] * 3 + [2] * 3
    found = draw_pairs([str(i) for i in range(56)], people, 0, "x")
    assert len(found) == 20
    assert Counter(people[a] for a, _, same in found if same) == {0: 4, 1: 3, 2: 3}


def test_the_scarcer_kind_sets_the_number() -> None:
    found = draw_pairs([str(i) for i in range(12)], [0] * 10 + [1] + [2], 0, "x")
    assert Counter(pair.same for pair in found) == {True: 21, False: 21}


def test_too_few() -> None:
    fails(lambda: draw_pairs(NAMES[:4], PEOPLE[:4], 0, "faces"), "faces", "one identity", "at least two")
    fails(lambda: draw_pairs(NAMES[::4], PEOPLE[::4], 0, "faces"), "5 identities with one sample each", "two samples")
    fails(lambda: draw_pairs(["a", "b", "c"], [0, 0, 1], 0, "faces"), "one pair")


def test_a_file_of_pairs(tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    path.write_text("# mine\na/0 a/1 1\n\na/0\tb/1\t0\n1 c/0 c/1\nd/0, e/0, 0\n")
    found = read_pairs(path, NAMES)
    assert found == [(0, 1, True), (0, 5, False), (8, 9, True), (12, 16, False)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a/0 a/1\n", ("line 1", "no pair: 'a/0 a/1'")),
        ("a/0 a/1 yes\n", ("line 1", "no pair")),
        ("a/0 a/1 1\na/0 z/1 0\n", ("line 2", "'z/1'", "data.heldout")),
        ("a/0 a/0 1\n", ("line 1", "with itself")),
        ("a/0 a/1 1\na/0 a/2 1\n", ("fewer than 2", "two identities")),
        ("", ("fewer than 2",)),
    ],
)
def test_a_bad_file_of_pairs(text: str, words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text(text)
    assert fails(lambda: read_pairs(tmp_path / "pairs.txt", NAMES), *words, "pairs.txt").key == "data.match.pairs"
    assert fails(lambda: read_pairs(tmp_path / "no.txt", NAMES), "no.txt", "cannot be read").key == "data.match.pairs"


def test_samples_have_pairs(tmp_path: Path) -> None:
    image_folder(tmp_path / "faces", {"ann": 3, "bob": 3, "cid": 1})
    samples = open_samples(tmp_path / "faces", IMAGE, table(task="match", batch=2))
    assert samples.paired and samples.task == "match" and samples.classes is None
    names = [name for batch in samples for name in batch.names]
    people = [name.split("/")[0] for name in names]
    assert all((people[a] == people[b]) is same for a, b, same in samples.pairs) and len(samples.pairs) == 12
    assert samples.summary["pairs"] == {"same": 6, "different": 6, "file": None, "most": 3000}
    assert samples.summary["identities"] == 3
    flat = open_samples(tmp_path / "faces" / "ann", IMAGE, table(task="match"))
    assert not flat.paired, "without identities cosines are all there is"


def test_a_file_of_pairs_is_of_the_verdicts_samples(tmp_path: Path) -> None:
    image_folder(tmp_path / "calibration", {"ann": 3, "bob": 3})
    image_folder(tmp_path / "test", {"cid": 2, "dan": 2})
    path = tmp_path / "pairs.txt"
    lines = ["cid/000.png cid/001.png 1", "dan/000.png dan/001.png 1"]
    lines += [f"cid/000.png dan/00{i}.png 0" for i in (0, 1)]
    path.write_text("\n".join(lines))
    data = table(
        source=str(tmp_path / "calibration"), heldout=str(tmp_path / "test"), task="match", match=Match(pairs=str(path))
    )
    first, second = open_parts(data, IMAGE)
    assert len(second.pairs) == 4 and second.summary["pairs"]["file"] == str(path)
    assert all(pair.same in (True, False) for pair in first.pairs), "calibration's are drawn from its own identities"
