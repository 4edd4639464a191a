"""Calibration text of several sources: what their names and shares mean, and the order of their windows."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.errors import InputError, RecipeError
from bitwright.models.language.mixture import divide, interleave, shares_of
from bitwright.recipe import Calibration, Share


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a few files, some with names like shares, as the current one."""
    for name in ("a.txt", "b.txt", "a:3", "c.txt", "c.txt:2"):
        (tmp_path / name).write_text("text")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "source", "share"),
    [
        ("a.txt", "a.txt", 1),
        ("a.txt:3", "a.txt", 3),
        ("a.txt:.5", "a.txt", 0.5),
        ("a.txt:1e2", "a.txt", 100),
        ("./:2", "./", 2),
        ("a:3", "a:3", 1),  # a file of this name
        ("c.txt:2", "c.txt:2", 1),
        ("c.txt:2.0", "c.txt", 2),
        ("c.txt:2:4", "c.txt:2", 4),
        ("missing.txt:3", "missing.txt", 3),
        (r"C:\texts\a.txt", r"C:\texts\a.txt", 1),
        (r"C:\texts\a.txt:2", r"C:\texts\a.txt", 2),
        ("stdlib:2", "stdlib", 2),
        ("hub:texts", "hub:texts", 1),
        ("hub:3", "hub:3", 1),
        ("hub:me/texts:3", "hub:me/texts", 3),
        ("hub:me/texts@main:3", "hub:me/texts@main", 3),
        ("hub:me/texts:train:text:3", "hub:me/texts:train:text", 3),
        ("hub:texts:train", "hub:texts:train", 1),
        ("hub:texts:train[:1000]", "hub:texts:train[:1000]", 1),
        ("hub:texts:train[:1000]:2", "hub:texts:train[:1000]", 2),
    ],
)
def test_a_share_follows_the_last_colon(text: str, source: str, share: float, folder: Path) -> None:
    assert Share.read(text) == (source, share)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a.txt:0", "'0' is not a share"),
        ("a.txt:-1", "'-1' is not a share"),
        ("a.txt:x", "'x' is not a share"),
        ("a.txt:nan", "'nan' is not a share"),
        ("a.txt:", "'' is not a share"),
        ("a.txt:1e999", "'1e999' is not a share"),
        ("a.txt:\u0663", "'\u0663' is not a share"),
        ("a.txt:1_0", "'1_0' is not a share"),
        ("missing.txt:0", "'0' is not a share"),
        ("hub:texts:0", "'0' is not a share"),
        ("self:none", "'none' is not a share"),
        (":3", "a share without a source"),
        (":x", "'x' is not a share"),
    ],
)
def test_what_is_no_share_is_named(text: str, says: str, folder: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        Share.read(text)
    assert says in caught.value.what and caught.value.where == text and caught.value.key == "calibration.source"
    assert "docs.jsonl:3" in str(caught.value)


def counted(*source: str, windows: int = 128) -> dict[str, int]:
    return shares_of(Calibration(source=list(source), windows=windows))


def test_windows_are_shared_out(folder: Path) -> None:
    assert counted("a.txt:3", "b.txt") == {"a.txt": 96, "b.txt": 32}
    assert counted("a.txt", "b.txt", "c.txt", windows=8) == {"a.txt": 3, "b.txt": 3, "c.txt": 2}
    assert counted("a.txt:7", windows=1) == {"a.txt": 1}  # one source needs no share, and has all
    assert counted("self") == counted("self:2") == {"self": 128}
    assert Calibration(source=["self:2"]).own and not Calibration(source=["stdlib"]).own


@pytest.mark.parametrize(
    ("sources", "says"),
    [
        (("a.txt:3", "a.txt:1"), "a.txt is given twice"),
        (("a.txt", "a.txt:1"), "a.txt is given twice"),
        (("a.txt", "./a.txt"), "./a.txt and a.txt are the same text"),
        (("hub:texts", "hub:texts:train:2"), "the same text"),
        (("self", "a.txt"), "not mixed with other text"),
        (("a.txt:300", "b.txt"), "its share of 128 windows is 0"),
    ],
)
def test_what_cannot_be_mixed_is_named(sources: tuple[str, ...], says: str, folder: Path) -> None:
    with pytest.raises(InputError, match=says) as caught:
        counted(*sources)
    assert caught.value.key == "calibration.source"


@pytest.mark.parametrize("sources", [("a.txt:300", "b.txt"), ("a.txt:40", "b.txt:1", "c.txt:2")])
def test_the_windows_that_are_said_to_do_are_enough(sources: tuple[str, ...], folder: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        counted(*sources, windows=16)
    said = int(str(caught.value.fix).split("--windows ")[1].split()[0])
    assert min(counted(*sources, windows=said).values()) >= 2


@given(st.integers(1, 3000), st.lists(st.floats(1e-300, 1e300), min_size=1, max_size=5))
def test_parts_are_whole_and_make_up_the_total(total: int, shares: list[float]) -> None:
    counts = divide(total, shares)
    whole = sum(share / max(shares) for share in shares)
    assert sum(counts) == total
    assert all(
        abs(count - total * (share / max(shares)) / whole) < 1 + 1e-6
        for count, share in zip(counts, shares, strict=True)
    )


@settings(max_examples=200)
@given(st.lists(st.integers(1, 100), min_size=1, max_size=4))
def test_both_halves_and_every_beginning_hold_each_source_in_its_share(counts: list[int]) -> None:
    order = interleave(counts)
    total = len(order)
    assert [order.count(i) for i in range(len(counts))] == counts
    for i, count in enumerate(counts):
        assert abs(order[::2].count(i) - order[1::2].count(i)) <= 1
        for length in range(1, total + 1):
            # Two windows of a pair, and for each source one at the end without a partner.
            assert abs(order[:length].count(i) - count * length / total) <= 2 + len(counts)


def test_one_source_stays_in_its_order() -> None:
    assert interleave([5]) == [0] * 5 and interleave([2, 2]) == [0, 0, 1, 1]
