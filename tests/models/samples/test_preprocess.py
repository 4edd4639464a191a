"""The choice of samples, and the record of what was done to them."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from bitwright.models.samples.preprocess import Notes, spread, whole

labels = st.lists(st.sampled_from("abc"), min_size=1, max_size=40)


@given(labels, st.integers(0, 5))
def test_every_beginning_is_spread_over_the_classes(found: list[str], seed: int) -> None:
    names = [str(index) for index in range(len(found))]
    order = spread(names, found, seed)
    assert sorted(order) == list(range(len(found)))
    total = Counter(found)
    for stop in range(1, len(order) + 1):
        seen = Counter(found[index] for index in order[:stop])
        most = max(seen.values())
        assert all(seen[label] >= min(most - 1, total[label]) for label in total)


def test_the_choice_depends_on_seed_and_name_alone() -> None:
    names = [f"{index}.png" for index in range(50)]
    assert spread(names, None, 0) != spread(names, None, 1)
    chosen = [names[index] for index in spread(names, None, 0)]
    assert [names[::-1][index] for index in spread(names[::-1], None, 0)] == chosen
    fewer = names[:25]
    assert [fewer[index] for index in spread(fewer, None, 0)] == [name for name in chosen if name in fewer]
    assert chosen[:3] == ["15.png", "46.png", "31.png"], "the same on every machine and with every version"


def test_notes_count_a_sample_once() -> None:
    notes = Notes()
    for name in ("a", "b", "a"):
        notes.add("cut", name)
    notes.add("grey", "b")
    assert notes.rows() == [{"what": "cut", "count": 2, "first": "a"}, {"what": "grey", "count": 1, "first": "b"}]


def test_whole_numbers() -> None:
    assert [whole(x) for x in (3, True, 3.0, "3", None)] == [3, None, None, None, None]
