"""What the page computes itself is what the engine computes: every live figure against its twin in Python."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest

from bitwright.authoring.compile import load_numbers
from bitwright.authoring.figures import Figure, plain, positions
from bitwright.authoring.folder import CONTENT
from bitwright.authoring.library import Library
from tests.studio.browser import Look, needs_chromium

pytestmark = needs_chromium

LIBRARY = Library(CONTENT, CONTENT)
LIVE = [slug for slug in LIBRARY.lessons if "live(" in (LIBRARY.lesson_folder(slug) / "numbers.py").read_text("utf-8")]
TRIED = 30
"""Combinations of the controls that are compared, spread over all of them."""


def numbers_in(text: str) -> list[float]:
    """The numbers that a reader reads, to compare them as numbers."""
    plain_text = text.replace("\u2212", "-").translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-"))
    return [float(found) for found in re.findall(r"-?\d+(?:\.\d+)?", plain_text.replace(",", ""))]


def assert_alike(page: Any, twin: Any, where: str) -> None:
    """The same table; numbers to a relative 1e-4 (float32 sums are taken in another order)."""
    if isinstance(twin, dict):
        assert {k for k, v in page.items() if v is not None} == {k for k, v in twin.items() if v is not None}, where
        for key, value in twin.items():
            if value is not None:
                assert_alike(page[key], value, f"{where}.{key}")
    elif isinstance(twin, list):
        assert len(page) == len(twin), where
        for i, (a, b) in enumerate(zip(page, twin, strict=True)):
            assert_alike(a, b, f"{where}[{i}]")
    elif isinstance(twin, str):
        assert re.sub(r"[\d.,⁰¹²³⁴⁵⁶⁷⁸⁹⁻\u2212-]+", "#", page) == re.sub(r"[\d.,⁰¹²³⁴⁵⁶⁷⁸⁹⁻\u2212-]+", "#", twin), where
        # A number rounded for reading may fall to the other side of a half: one in its last place.
        assert numbers_in(page) == pytest.approx(numbers_in(twin), rel=0.01, abs=0.11), where
    else:
        assert page == pytest.approx(twin, rel=1e-4, abs=1e-9), where


def test_there_are_live_figures() -> None:
    assert "what-one-bit-costs" in LIVE


@pytest.mark.long
@pytest.mark.parametrize("slug", LIVE)
def test_the_page_computes_what_the_engine_computes(tab: Look, slug: str) -> None:
    figures = {
        k: f for k, f in load_numbers(LIBRARY.lesson_folder(slug)).items() if isinstance(f, Figure) and f.compute
    }
    page = tab.goto(f"/learn/{slug}")
    for name, figure in figures.items():
        assert figure.twin is not None
        places = list(itertools.product(*(range(len(positions(c))) for c in figure.controls.values())))
        for place in places[:: max(1, len(places) // TRIED)]:
            values = {k: positions(c)[i] for (k, c), i in zip(figure.controls.items(), place, strict=True)}
            found = page.evaluate(
                "([name, places]) => { const f = document.querySelector(`bw-figure[name='${name}']`);"
                " f.places = places; return f.view(); }",
                [name, list(place)],
            )
            assert_alike(found, plain(figure.twin(figure.base, **values)), f"{slug}.{name} at {values}")
