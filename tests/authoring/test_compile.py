"""Lessons compile to pages, and what a reader would stumble over is an error with its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from bitwright.authoring import compile as compiling
from bitwright.authoring.compile import compile_lesson, fill
from bitwright.authoring.figures import Choice, Histogram, Slider, Steps, explore, plain, still, views
from bitwright.authoring.filters import scientific, significant
from bitwright.authoring.markdown import Document, formula
from bitwright.authoring.proof import typed_numbers
from bitwright.authoring.trace import run_code
from bitwright.errors import InputError

HEAD = '+++\ntitle = "T"\nlead = "Half is [[ half | n ]]."\n+++\n'
FIGURE = '```figure\nkind = "numberline"\ndata = "line"\nalt = "A line."\ncaption = "C."\n```\n'
QUESTION = '```question\nask = "Which?"\noptions = ["a", "b"]\nanswer = 2\nwhy = "Since [[ half ]]."\n```\n'
NUMBERS = """
from bitwright.authoring.figures import still
def numbers():
    return {"half": 0.5, "line": still(low=0.0, high=1.0, say="A line from 0 to 1.")}
"""
Lesson = Callable[..., Path]


@pytest.fixture
def lesson(tmp_path: Path) -> Lesson:
    def write(body: str = FIGURE, head: str = HEAD, numbers: str = NUMBERS) -> Path:
        folder = tmp_path / "a-lesson"
        folder.mkdir(exist_ok=True)
        (folder / "lesson.md").write_text(head + body, "utf-8")
        (folder / "numbers.py").write_text(numbers, "utf-8")
        return folder

    return write


def test_a_lesson_becomes_a_page(lesson: Lesson) -> None:
    page = compile_lesson(lesson(f"## Two words\n\nHere [[ half | percent ]] is :quant[orange].\n\n{FIGURE}{QUESTION}"))
    assert page["lead"] == "Half is 0.500."
    assert 'Here 50.0 % is <span class="tone-quant">orange</span>.' in page["html"]
    assert page["sections"] == [{"id": "two-words", "title": "Two words"}]
    assert page["figures"] == [{"name": "line", "kind": "numberline", "alt": "A line."}]
    assert page["questions"][0]["answer"] == 2
    assert page["questions"][0]["why"] == "Since 0.5."
    assert page["opening"].endswith("</figure>")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (f"[[ whole ]] {FIGURE}", "'whole' is undefined"),
        (FIGURE.replace('"line"', '"lines"'), "no figure 'lines'"),
        (FIGURE.replace("numberline", "pie"), "no figure is called 'pie'"),
        (FIGURE.replace('alt = "A line."\n', ""), "alt"),
        (FIGURE.replace("caption", "capton"), "capton"),
        (FIGURE.replace('"C."', "C"), "not valid TOML"),
        (f"$\\frac{{1}}$ {FIGURE}", "cannot be set"),
        (FIGURE.replace("numberline", "histogram"), "counts"),
        (QUESTION.replace("answer = 2", "") + FIGURE, "answer"),
        ("", "is not shown"),
    ],
)
def test_a_fault_is_named_with_its_place(lesson: Lesson, body: str, said: str) -> None:
    folder = lesson(body)
    with pytest.raises(InputError) as caught:
        compile_lesson(folder)
    assert said in str(caught.value)
    assert "lesson.md" in str(caught.value) or "formula" in str(caught.value)


def test_the_line_of_a_fault_is_that_of_the_file(lesson: Lesson) -> None:
    folder = lesson(f"Text.\n\n{FIGURE.replace('caption', 'capton')}")
    with pytest.raises(InputError, match="figure in line 7"):
        compile_lesson(folder)


@pytest.mark.parametrize("head", ["", "+++\ntitle = 1\n+++\n", "+++\ntitle=\n+++\n", '+++\ntitle = "T"\n+++\n'])
def test_a_head_that_does_not_fit_is_named(lesson: Lesson, head: str) -> None:
    with pytest.raises(InputError, match=r"lesson\.md"):
        compile_lesson(lesson(head=head))


def test_a_view_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be drawn"):
        still(say="x", low=float("nan"))


def test_every_view_says_what_it_shows() -> None:
    with pytest.raises(ValidationError, match="say"):
        Histogram.model_validate({"low": 0, "high": 1, "counts": [1]})


def test_states_are_in_the_order_of_the_controls() -> None:
    figure = explore(
        lambda bits, kind, step: {"say": f"{bits}{kind}{step}", "same": 1},
        bits=Slider(label="Bits", values=(1, 2, 3), start=2),
        kind=Choice(label="Kind", options={"a": "A", "b": "B"}, start="b"),
        step=Steps(captions=("x", "y")),
    )
    assert figure.base == {"same": 1}
    assert [v["say"] for v in views(figure)][:5] == ["1a0", "1a1", "1b0", "1b1", "2a0"]
    first = compiling.payload(figure)["first"]
    assert first["say"] == "2b0"  # sliders and choices where they start, stories at their beginning


def test_numbers_as_prose_writes_them() -> None:
    assert [significant(x) for x in (0.012345, 12345.6, -2.5, 0.0, 1.0)] == ["0.0123", "12,300", "−2.50", "0", "1.00"]
    assert scientific(0.0123) == "1.23 × 10⁻²"
    text = fill("[[ a | db ]] [[ b | whole ]] [[ c | fixed(1) ]]", {"a": -3.21, "b": 1e6, "c": 2.25}, "x")
    assert text == "−3.2 dB 1,000,000 2.2"
    assert plain(np.float32(1 / 3)) == 0.333333


def test_a_formula_carries_its_colours_and_its_words() -> None:
    html = formula(r"\hat x = \tone{quant}{s}\,(q - z)")
    assert 'class="enclosing tone-quant"' in html
    assert "<math" in html and "application/x-tex" in html


def test_html_in_prose_is_text() -> None:
    assert "<script>" not in Document().render("<script>alert(1)</script> [x](javascript:alert(1))")
    assert 'href="javascript' not in Document().render("[x](javascript:alert(1))")


def test_typed_numbers_are_found_where_a_reader_sees_them(tmp_path: Path) -> None:
    path = tmp_path / "lesson.md"
    path.write_text(
        HEAD + "INT4 and W4A16, `3` and $2^b$, [[ x ]].\nIt costs 3.5 dB (2015).\n\n"
        '```figure\nkind = "bars"\ncaption = "About 7 times."\n```\n```python\nx = 5\n```\n1. item\n',
        "utf-8",
    )
    assert typed_numbers(path) == [
        "line 6: 3.5 is typed in, not computed",
        "line 10: 7 is typed in, not computed",
    ]


def test_a_program_is_told_line_by_line() -> None:
    figure = run_code("a = 1\nfor i in range(2):\n    a += i\nprint(a)", ["a", "i"])
    lines = [state["line"] for state in figure.states]
    assert lines == [1, 2, 3, 2, 3, 2, 4]
    last: dict[str, Any] = figure.states[-1]
    assert last["output"] == "2\n"
    assert {v["symbol"]: v["value"] for v in last["variables"]} == {"a": "2", "i": "1"}


def test_a_program_that_never_ends_is_cut_off() -> None:
    with pytest.raises(ValueError, match="more than 60 steps"):
        run_code("while True:\n    pass", [])
