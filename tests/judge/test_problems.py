"""Every problem holds: its reference passes, its starter fails, every wrong or slow submission gets its verdict."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import bitwright
from bitwright.judge.judge import Judge
from bitwright.judge.problem import ProblemError, Shelf
from bitwright.judge.proof import prove
from bitwright.judge.tiers import open_pool

CONTENT = Path(bitwright.__file__).parent / "content"
SHELF = Shelf(CONTENT)
FOLDERS = sorted(path.name for path in (CONTENT / "problems").iterdir() if path.is_dir())
LEAST = {"core": 12, "quantization": 14, "llm": 10}


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with open_pool() as pool:
        yield Judge(pool)


@pytest.mark.parametrize("slug", FOLDERS)
def test_a_problem_holds(judge: Judge, slug: str) -> None:
    [finding] = prove(judge, SHELF.problem(slug))
    assert finding.good, finding.detail


def test_every_problem_stands_in_its_collection_once() -> None:
    assert sorted(SHELF.slugs) == FOLDERS
    for collection in SHELF.collections:
        assert len(collection.problems) >= LEAST[collection.slug]
        for slug in collection.problems:
            assert SHELF.problem(slug).collection == collection.slug
    titles = [problem.title for problem in SHELF]
    assert len(set(titles)) == len(titles)
    assert SHELF.slugs[0] == "product-except-self"


def test_what_is_no_problem_is_said() -> None:
    for slug in ("nothing", "../problems", "Product", ""):
        with pytest.raises(ProblemError, match="there is no problem"):
            SHELF.problem(slug)
