"""Every page as a person meets it: in Chromium, light and dark, wide and narrow, by keyboard, without motion."""

from __future__ import annotations

import re
from datetime import date
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from bitwright.authoring.folder import CONTENT
from bitwright.authoring.library import Library
from tests.studio.browser import NARROW, WIDE, Look, Running, look, needs_chromium

pytestmark = needs_chromium

LESSONS = tuple(lesson for chapter in Library(CONTENT, CONTENT).chapters for lesson in chapter.lessons)
PAGES = ["/today", "/today/2026-11-23", "/today/2026-11-23/print", "/learn", "/settings", "/no/such/page"]
FIGURE_ROUNDS = "() => [...document.querySelectorAll('bw-figure')].map(f => f.getAttribute('name'))"


WEIGHT = 200_000
"""Most bytes of a page over the wire, everything compressed and nothing cached: the brief of the studio's pages."""


LIGHTS = (("light", WIDE), ("dark", NARROW)), (("dark", WIDE), ("light", NARROW))
"""Lessons share styles, and are many: each is looked at in one of these pairs, the next one in the other."""


@pytest.mark.parametrize(
    ("path", "lights"),
    [(path, LIGHTS[0] + LIGHTS[1]) for path in PAGES]
    + [(f"/learn/{slug}", LIGHTS[i % 2]) for i, slug in enumerate(LESSONS)],
    ids=[*PAGES, *LESSONS],
)
def test_a_page_is_sound_in_every_light_and_width(chromium: Browser, studio: Running, path: str, lights: Any) -> None:
    for scheme, size in lights:
        tab, context = look(chromium, studio, viewport=size, color_scheme=scheme)
        page = tab.goto(path)
        where = f"{path} {scheme} {size['width']}"
        assert tab.axe() == [], where
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], f"{where} scrolls sideways"
        faults = [f for f in tab.faults if path != "/no/such/page" or "404" not in f]
        assert faults == [], where
        context.close()


@pytest.mark.parametrize("path", [*PAGES, *(f"/learn/{slug}" for slug in LESSONS)])
def test_a_page_weighs_no_more_than_its_budget(chromium: Browser, studio: Running, path: str) -> None:
    tab, context = look(chromium, studio)
    protocol = context.new_cdp_session(tab.page)
    protocol.send("Network.enable")
    sizes: list[float] = []
    protocol.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    tab.page.goto(studio.url + path, wait_until="networkidle")
    context.close()
    assert 10_000 < sum(sizes) < WEIGHT, f"{len(sizes)} requests"


@pytest.mark.parametrize("slug", LESSONS)
def test_every_figure_answers_the_keyboard_and_says_so(tab: Look, slug: str) -> None:
    page = tab.goto(f"/learn/{slug}")
    figures = page.locator("bw-figure").all()
    assert figures
    for figure in figures:
        name = figure.get_attribute("name")
        assert figure.get_attribute("alt"), name
        words = figure.locator(".figure-words")
        for slider in figure.locator(".figure-controls input[type=range]").all():
            before, drawn = words.text_content(), figure.locator(".figure-stage").inner_html()
            slider.focus()
            key = "ArrowLeft" if slider.input_value() == slider.get_attribute("max") else "ArrowRight"
            page.keyboard.press(key)
            assert slider.get_attribute("aria-valuetext"), name
            changed = words.text_content() != before or figure.locator(".figure-stage").inner_html() != drawn
            assert changed, f"{slug}: figure {name} does not answer its slider"


def test_a_story_plays_steps_and_scrubs(tab: Look) -> None:
    for slug in LESSONS:
        page = tab.goto(f"/learn/{slug}")
        if page.locator(".story").count():
            break
    story = page.locator(".story").first
    place = story.locator(".control-value")
    expect(place).to_contain_text(" 1 of ")
    story.get_by_role("button", name="Step forward").click()
    expect(place).to_contain_text(" 2 of ")
    story.get_by_role("button", name="Step back").click()
    expect(story.get_by_role("button", name="Step back")).to_be_disabled()
    slider = story.locator("input[type=range]")
    slider.focus()
    page.keyboard.press("End")
    expect(story.get_by_role("button", name="Step forward")).to_be_disabled()
    expect(story.locator(".play")).to_have_text("Again")
    story.locator(".play").click()
    expect(story.locator(".play")).to_have_text("Pause")
    expect(place).to_contain_text(" 2 of ", timeout=10_000)
    story.locator(".play").click()
    expect(story.locator(".play")).to_have_text("Play")


def test_reduced_motion_leaves_nothing_moving(chromium: Browser, studio: Running) -> None:
    tab, context = look(chromium, studio, viewport=WIDE, reduced_motion="reduce")
    page = tab.goto("/learn/what-one-bit-costs")
    page.locator("input[type=range]").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.getAnimations().filter(a => a.playState === 'running').length") == 0
    context.close()


def test_pages_can_be_read_without_scripts(chromium: Browser, studio: Running) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{studio.url}/learn/what-one-bit-costs")
    expect(page.locator(".figure-plain p").first).to_be_visible()
    page.get_by_role("button", name="Done").click()
    expect(page).not_to_have_url(f"{studio.url}/learn/what-one-bit-costs")
    context.close()


def test_a_question_is_answered_and_the_answer_kept(tab: Look) -> None:
    page = tab.goto("/learn/what-one-bit-costs")
    question = page.locator("bw-question").first
    question.get_by_role("button", name="Check").click()
    expect(question.locator(".verdict")).to_have_text("Choose an answer first.")
    right = int(question.get_attribute("answer") or 0)
    wrong = 2 if right == 1 else 1
    question.locator("input").nth(wrong - 1).check()
    question.get_by_role("button", name="Check").click()
    expect(question.locator(".verdict")).to_contain_text("Not this one")
    question.locator("input").nth(right - 1).check()
    with page.expect_response("**/api/answers") as answer:
        question.get_by_role("button", name="Check").click()
    expect(question.locator(".verdict")).to_contain_text("Right")
    expect(question.locator(".why")).to_be_visible()
    assert answer.value.status == 200


def test_the_studio_remembers_where_one_was(tab: Look) -> None:
    slug = LESSONS[3]
    page = tab.goto(f"/learn/{slug}")
    heading = page.locator(".prose h2[id]").nth(1)
    with page.expect_request(lambda r: "/api/progress" in r.url and (r.post_data_json or {}).get("section")):
        heading.scroll_into_view_if_needed()
        page.keyboard.press("PageDown")
    page.wait_for_timeout(200)
    tab.goto("/learn")
    assert page.locator("a.button.primary").get_attribute("href", timeout=2000).startswith(f"/learn/{slug}#")  # type: ignore[union-attr]


def test_the_keyboard_reaches_everything(tab: Look) -> None:
    page = tab.goto("/learn")
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).not_to_be_visible()
    page.keyboard.press("Control+k")
    expect(page.locator("#palette input")).to_be_focused()
    page.keyboard.type("one bit")
    expect(page.locator("#palette li").first).to_have_text(re.compile("^What one bit costs"))
    assert tab.axe() == []
    page.keyboard.press("Enter")
    page.wait_for_url("**/learn/what-one-bit-costs")
    page.keyboard.press("g")
    page.keyboard.press("t")
    page.wait_for_url("**/today")
    page.goto(f"{tab.base}/learn/what-one-bit-costs")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.matches('.prose h2')")
    page.keyboard.press("n")
    page.wait_for_url("**/learn/scale-and-zero-point")


def test_tab_shows_where_it_is(tab: Look) -> None:
    page = tab.goto("/learn/what-one-bit-costs")
    for _ in range(14):
        page.keyboard.press("Tab")
        outline = page.evaluate(
            "() => { const e = document.activeElement, s = getComputedStyle(e);"
            " const near = e.nextElementSibling ? getComputedStyle(e.nextElementSibling) : s;"
            " return s.outlineStyle !== 'none' || near.outlineStyle !== 'none'; }"
        )
        assert outline, page.evaluate("document.activeElement.outerHTML.slice(0, 200)")


def test_settings_are_kept_and_take_effect(tab: Look) -> None:
    page = tab.goto("/settings")
    page.get_by_text("Dark", exact=True).click()
    page.get_by_role("button", name="Save", exact=True).first.click()
    expect(page.get_by_role("status")).to_contain_text("Saved")
    assert page.locator("html").get_attribute("data-theme") == "dark"
    page.locator("input[name=theme][value=auto]").check(force=True)
    page.get_by_role("button", name="Save", exact=True).first.click()
    assert page.locator("html").get_attribute("data-theme") is None


def test_profiles_have_their_own_progress(tab: Look) -> None:
    page = tab.goto("/settings")
    page.get_by_label("New profile").fill("Ada")
    page.get_by_role("button", name="Add").click()
    expect(page.locator(".lead")).to_contain_text("Ada")
    tab.goto("/learn")
    expect(page.locator(".eyebrow").first).to_contain_text("0 of")


def test_today_leads_to_the_lesson_and_to_other_days(tab: Look) -> None:
    page = tab.goto("/today")
    expect(page.locator(".masthead .date")).to_contain_text(str(date.today().year))
    page.get_by_role("link", name="The day before").click()
    expect(page.get_by_role("link", name="The day after")).to_be_visible()
    page.get_by_role("link", name="Read on").click()
    expect(page.locator("article[data-lesson]")).to_be_visible()


def test_a_page_that_is_not_there_says_so_and_leads_on(tab: Look) -> None:
    page = tab.page
    page.goto(f"{tab.base}/learn/no-such-lesson")
    expect(page.get_by_role("heading", level=1)).to_have_text("Not here")
    expect(page.get_by_role("link", name="Study plan")).to_be_visible()
    page.goto(f"{tab.base}/today/2026-02-31")
    expect(page.locator(".lead")).to_contain_text("is not a date")
    tab.faults.clear()  # the browser notes that these pages were refused
