"""Explanations of failed submissions, in the real sandbox."""

from __future__ import annotations

import json
import time
from array import array
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from bitwright.authoring.folder import CONTENT
from bitwright.judge import tiers, values
from bitwright.judge.cases import Test as Given
from bitwright.judge.explain import Explanation, explain
from bitwright.judge.faults import _index
from bitwright.judge.judge import Judge
from bitwright.judge.limits import Limits
from bitwright.judge.pool import Pool
from bitwright.judge.problem import Problem, Shelf
from bitwright.judge.recognise import recognise
from bitwright.judge.relatives import likeness
from bitwright.judge.shrink import Rules, minimize
from bitwright.judge.values import Array
from bitwright.judge.verdict import Verdict

SHELF = Shelf(CONTENT)
SAMPLED = ("product-except-self", "peak-over-a-window", "pair-for-a-budget", "scale-of-a-range", "stable-softmax")
"""Problems whose wrong submissions are all explained: plain and NumPy, forbidden operations, a custom checker."""
HEAD = "def product_except_self(numbers):\n"
RIGHT = """    out = [1] * len(numbers)
    for i in range(len(numbers)):
        for j in range(len(numbers)):
            if i != j:
                out[i] *= numbers[j]
"""


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    tier = tiers.probe()
    if not tier.name:
        pytest.skip(f"programs cannot be run here: {tier.reason}")
    with Pool(tier.name, 1) as pool:
        yield Judge(pool, tmp_path_factory.mktemp("tests"))


@pytest.fixture(scope="module")
def product() -> Problem:
    return replace(SHELF.problem("product-except-self"), limits=Limits(cpu=0.9))


def told(judge: Judge, problem: Problem, code: str) -> Explanation:
    found = explain(judge, problem, code, judge.submit(problem, code))
    assert json.loads(json.dumps(found.json())) == found.json()
    assert found.sentence and found.next and found.honest
    return found


# --- against the problems' own wrong submissions


@pytest.mark.slow
@pytest.mark.parametrize("slug", SAMPLED)
def test_every_wrong_submission_is_explained_by_its_own_entry(judge: Judge, slug: str) -> None:
    problem = SHELF.problem(slug)
    solution = {line.strip() for line in problem.text("solution.py").splitlines() if len(line.strip()) > 24}
    for mistake in problem.mistakes:
        if mistake.verdict == "TLE":
            continue  # these take long: see the test of growth
        code = problem.text(mistake.file)
        result = judge.submit(problem, code)
        start = time.monotonic()
        found = explain(judge, problem, code, result)
        assert time.monotonic() - start < 6, mistake.slug  # alone it takes half a second
        assert found.mistake is not None
        assert (mistake.slug, found.mistake.name) == (mistake.slug, mistake.name)
        assert found.next == mistake.next
        given = json.dumps({**found.json(), "code": ""})
        assert not [line for line in solution - {one.strip() for one in code.splitlines()} if line in given]
        assert found.reference or result.failed is None


def test_a_result_that_was_kept_without_its_arguments_is_explained_alike(judge: Judge, product: Problem) -> None:
    code = product.text("wrong/only-the-left.py")
    result = judge.submit(product, code)
    bare = replace(result, cases=[replace(case, arguments=[]) for case in result.cases])
    kept, again = explain(judge, product, code, bare), explain(judge, product, code)
    assert kept.mistake == again.mistake
    assert kept.case is not None and again.case is not None
    assert kept.case.input == again.case.input


# --- programs of our own


@pytest.mark.parametrize(
    ("body", "name", "how"),
    [
        ("    print(numbers)\n", "Returns nothing", "difference"),
        (f"{RIGHT}    return [-one for one in out]\n", "Wrong sign", "difference"),
        (f"{RIGHT}    return out[::-1]\n", "The other way round", "difference"),
        (f"{RIGHT}    return out[:-1]\n", "The last item is missing", "difference"),
        (f"{RIGHT}    return tuple(out)\n", "Right values, wrong type", "difference"),
        ("    return [numbers[i + 1] for i in range(len(numbers))]\n", "Index one too far", "exception"),
        ("    return nmbers\n", "Unknown name", "exception"),
        ("    return product_except_self(numbers)\n", "Recursion without an end, or too deep", "exception"),
        ("    return sorted(numbers.sort())\n", "None where a value is needed", "exception"),
        ("    raise NotImplementedError\n", "Not written yet", "exception"),
        ("    return max([])\n", "Maximum or minimum of nothing", "exception"),
        ("    return (numbers\n", "Does not compile", "exception"),
        ("    while True: print('x' * 1000)\n", "Too much output", "exception"),
        ("    x = []\n    while True: x.append([0] * 1000000)\n", "Too much memory", "exception"),
        ("    i = 0\n    while i < 9:\n        pass\n", "A loop that does not end", "growth"),
        ("    i = 0\n    while True:\n        i += 1\n", "Does not come to an end", "growth"),
        ("    return [one % 2 for one in numbers]\n", "Uses what is forbidden", "forbidden"),
        ("    import sys\n    sys.exit()\n", "Uses what may not be used here", "forbidden"),
        ("    a = []\n    for _ in range(200): a = [a]\n    return a\n", None, None),
        ("    return '\\ud800'\n", None, None),
    ],
)
def test_what_learners_write(judge: Judge, product: Problem, body: str, name: str | None, how: str | None) -> None:
    found = told(judge, product, HEAD + body)
    assert (found.mistake and found.mistake.name, found.mistake and found.mistake.how) == (name, how)


def test_the_function_by_another_name(judge: Judge, product: Problem) -> None:
    found = told(judge, product, "def product(numbers):\n    return numbers\n")
    assert found.mistake is not None
    assert found.mistake.name == "The function is missing"


def test_growth_says_what_was_measured_and_where(judge: Judge, product: Problem) -> None:
    found = told(judge, product, product.text("slow/multiplies-all-others.py"))
    assert found.mistake is not None and found.mistake.how == "growth"
    assert found.mistake.name == "A whole walk for every place"
    assert found.mistake.says.startswith(("Time grew like n^", "Time may grow like n"))
    assert found.steps and found.reference


def test_chance_is_named(judge: Judge) -> None:
    problem = SHELF.problem("longest-rise")
    code = problem.text("solution.py")
    result = judge.submit(problem, f"{code}\ndef longest_rise(scores):\n    return -1\n")
    assert result.verdict is Verdict.WA
    found = explain(judge, problem, code, result)  # as if the same program had answered otherwise before
    assert found.mistake is not None and found.mistake.name == "Not the same answer twice"


FORGED = """import posix, struct
def longest_rise(scores):
    data = {data!r}
    posix.write(0, struct.pack("<I", len(data)) + data)
    posix._exit(0)
"""


@pytest.mark.parametrize(
    "data",
    [
        b'{"results": [1], "steps": [1, {"line": "x"}, {"line": 1, "event": "line", "function": 3, "variables": []}]}',
        b'{"results": [1], "steps": {"a": 1}}', b'{"results": 5}', b'{"error": {}}', b'{"error": 1}', b"[]",
        b'{"error": {"phase": "call", "type": "Forbidden", "text": "x", "line": "a", "stack": []}}',
    ],
)  # fmt: skip
def test_forged_answers_are_explained_without_being_believed(judge: Judge, data: bytes) -> None:
    problem = SHELF.problem("longest-rise")
    found = told(judge, problem, FORGED.format(data=data))
    assert all(isinstance(step["line"], int) for step in found.steps)


def test_the_smallest_input_is_small_and_valid(judge: Judge) -> None:
    problem = SHELF.problem("peak-over-a-window")
    found = told(judge, problem, problem.text("wrong/takes-blocks.py"))
    assert found.smallest and found.case is not None
    given: dict[str, Any] = {}
    exec(found.case.input, given)  # `values = [...]` and `width = ...`
    assert len(given["values"]) == 3 and given["width"] == 2


# --- recognisers


def floats(*items: float, shape: tuple[int, ...] | None = None, dtype: str = "float64") -> Array:
    return Array(dtype, shape or (len(items),), array("d", items))


@pytest.mark.parametrize(
    ("expected", "yours", "arguments", "name"),
    [
        ([1, 2], None, [], "Returns nothing"),
        (None, [0, 1], [], "An answer where there is none"),
        (4, 4.0, [], "A float for an integer"),
        (floats(1, 2), floats(1, 2, dtype="float32"), [], "Right values, wrong dtype"),
        (floats(1, 2, 3, shape=(1, 3)), floats(1, 2, 3, shape=(3, 1)), [], "Transposed"),
        (floats(1, 2, 3), floats(1, 2, 3, shape=(3, 1)), [], "An axis of length one too many, or missing"),
        (floats(1, 2, 3, 4, shape=(2, 2)), floats(1, 2), [], "Reduces too many axes"),
        (floats(1, 2, 3, 4, shape=(2, 2)), floats(1, 3, 2, 4, shape=(2, 2)), [], "Transposed"),
        ([1, 2, 3], [], [], "Nothing is collected"),
        ([1, 2, 3], [2, 3], [], "The first item is missing"),
        ([1, 2, 2], [1, 2, 2, 5], [], "The last item is too many"),
        ([1, 2, 2, 3, 3], [1, 2, 3], [], "Equal items are left out"),
        ([3, 1, 2], [1, 2, 3], [], "Right items, wrong order"),
        (floats(1, 2), floats(1, float("nan")), [], "NaN"),
        (floats(1, 2), floats(1, float("inf")), [], "Infinity"),
        (True, False, [], "The opposite"),
        (floats(1, -2), floats(-1, 2), [], "Wrong sign"),
        (3, 4, [], "Off by one"),
        ([3, 8, 1], [5, 10, 3], [], "Shifted by a constant"),
        (0.5, 0.5 * 2.302585092994046, [], "Off by a factor"),
        (2.0, 8.0, [floats(1, 2, 3, 2)], "Off by a factor"),
        (floats(4, 9), floats(16, 81), [], "A root is missing"),
        ([1, 2, 3, 4], [0, 1, 2, 3], [[9]], "Off by one"),
        ([5, 1, 7, 2], [1, 7, 2, 0], [], "Shifted by one place"),
        (floats(-8, 3, 7), floats(-9, 3, 12), [], "Not clipped"),
        ([2, -4, 6, 1], [1, -3, 6, 1], [], "Rounds another way"),
        (floats(1, 2, 5), floats(1, 1, 1), [], "The same everywhere"),
        ([4, 5, 6], [1, 7, 3], [[1, 7, 3]], "Returns its input"),
        (floats(0.3, 7), floats(0.3000001, 7.000002), [], "Not precise enough"),
        ((1.0, 5), (1.0, 6), [], "Off by one (result 1)"),
        ([1, 2], "x", [], None),
        ([1, 2], [1, 2], [], None),
    ],
)
def test_recognisers(expected: Any, yours: Any, arguments: list[Any], name: str | None) -> None:
    found = recognise(expected, yours, arguments)
    assert (found.name if found else None) == name


def test_a_factor_that_the_size_explains_is_said() -> None:
    found = recognise(2.0, 2.0 * 4 / 3, [floats(1, 2, 3, 2)])
    assert found is not None and "divided by one less than the 4" in found.says


def test_an_index_is_worked_out_from_the_steps() -> None:
    steps = [{"line": 2, "event": "line", "function": "f", "variables": {"i": "2", "xs": "[1, 2, 3]"}}]
    assert _index("def f(xs, i):\n    return xs[i + 1]\n", 2, steps) == "i + 1 is 3, but the last place of xs is 2."
    assert _index("def f(xs, i):\n    return xs[i - 9]\n", 2, steps) == ""


def test_likeness_sees_structure_not_names() -> None:
    one, other = "def f(a):\n    return [sum(a[:i]) for i in a]\n", "def f(b):\n    return [sum(b[:j]) for j in b]\n"
    assert likeness(one, other) == 1
    assert likeness(one, "def f(a):\n    while a:\n        a = a - 1\n    return a\n") < 0.5


# --- shrinking


def given_tests(*given: tuple[list[Any], Any]) -> list[Given]:
    return [Given("t", "hidden", values.encode(arguments), values.encode(expected)) for arguments, expected in given]


def test_lists_of_one_length_lose_the_same_places() -> None:
    rules = Rules(given_tests(([[1], [2], 0], 1), ([[1, 2, 3], [4, 5, 6], 2], 1)))
    found = minimize([[1, 7, 3, 4], [5, 6, 8, 9], 1], rules, lambda one: 7 in one[0])
    assert found == [[7], [6], 1]


def test_a_bound_that_always_held_is_kept() -> None:
    rules = Rules(given_tests(([[1, 2], 1], []), ([[1, 2, 3], 3], [])))
    found = minimize([[1, 7, 3, 4], 3], rules, lambda one: 7 in one[0])
    assert len(found[0]) == 3 and 7 in found[0]


def test_arrays_are_left_to_generate() -> None:
    array_ = values.encode_items("float64", [2], [1.0, 2.0])
    rules = Rules([Given("t", "hidden", [array_, [1, 2]], 1)])
    assert rules.groups == []
    assert minimize([array_, [1, 2]], rules, lambda one: True) == [array_, [1, 2]]


def test_answers_of_a_kind_that_was_never_seen_are_not_valid() -> None:
    rules = Rules(given_tests(([[1]], [0, 1]), ([[2]], [1, 2])))
    assert rules.allow_answer([3]) and not rules.allow_answer(None) and not rules.allow_answer([])
