"""Every problem holds: its reference passes, its starter fails, every wrong or slow submission gets its verdict."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import bitwright
from bitwright.cli.content import TEMPLATE
from bitwright.judge.judge import Judge
from bitwright.judge.problem import ProblemError, Shelf, read
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


@pytest.mark.slow
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


TIES = "def generate(rng, size):\n    return ([rng.randint(0, 9) + 0.5],)\n"
ROUNDED = "def answer(numbers):\n    return sum(round(n) for n in numbers)\n"
TWICE = "def hidden():\n    return [(name, ([1, -2],)) for name in ('a', 'b', 'c', 'd', 'a')]\n"
SHAKY = "import random\n\n\ndef answer(numbers):\n    return random.random()\n"
FAULTS: list[tuple[str, list[tuple[str, str, str]]]] = [
    (
        "solution.py: inputs changed by a unit in the last place differ on random",
        [("cases.py", "", TIES), ("solution.py", "", ROUNDED)],
    ),
    ("solution.py: two runs differ on TODO", [("solution.py", "", SHAKY)]),
    ("starter.py: is accepted as it stands", [("starter.py", "raise NotImplementedError", "return sum(numbers)")]),
    ("wrong/counts.py: should get WA, gets RTE", [("wrong/counts.py", "len(numbers)", "numbers[9]")]),
    ("cases.py: two cases have one name", [("cases.py", "", TWICE)]),
    ("problem.md: shows no samples: a line [[ samples ]] is missing", [("problem.md", "[[ samples ]]", "")]),
    ("hints.md: needs `## Hint` 3 times", [("hints.md", "## Approach", "## Another")]),
    ("explain.toml: mistakes.forgets-the-last needs", [("explain.toml", '"WA"', '"OK"')]),
    ("explain.toml: has no entry mistakes.another", [("wrong/another.py", "", "")]),
    ("problem.md: difficulty = 'simple' is none of", [("problem.md", "easy", "simple")]),
    ("problem.md: growht is not known", [("problem.md", "[check]", "[growht]\nexponent = 1\n[check]")]),
]


@pytest.mark.parametrize(("told", "changes"), FAULTS, ids=[told for told, _ in FAULTS])
def test_a_fault_is_found_and_named(
    judge: Judge, told: str, changes: list[tuple[str, str, str]], tmp_path: Path
) -> None:
    folder = tmp_path / "made-here"
    files = dict(TEMPLATE)
    for name, old, new in changes:  # what a program defines last is what holds
        text = files.get(name, "")
        files[name] = text.replace(old, new) if old else text + new
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    try:
        found = [finding.detail for finding in prove(judge, read(folder)) if not finding.good]
    except ProblemError as error:
        found = [str(error).removeprefix("made-here/")]
    assert any(detail.startswith(told) for detail in found), found


def test_what_is_no_problem_is_said() -> None:
    for slug in ("nothing", "../problems", "Product", ""):
        with pytest.raises(ProblemError, match="there is no problem"):
            SHELF.problem(slug)
