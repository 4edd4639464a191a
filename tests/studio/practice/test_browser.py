"""Practice as a person uses it: real typing in Chromium, a real judge, from a wrong answer to an accepted one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from bitwright.judge import tiers
from bitwright.studio.shell.templates import environment
from bitwright.studio.store.settings import Settings
from tests.studio.browser import NARROW, WIDE, Look, Running, look, needs_chromium
from tests.studio.tutor.chat import Server

pytestmark = [needs_chromium, pytest.mark.skipif(not tiers.probe().name, reason="programs cannot be run safely here")]

LONG = 60_000
"""Milliseconds that judging may take on a busy machine."""
WEIGHT = 600_000
"""Most bytes of a problem's page over the wire, with the editor: the brief."""
PRODUCT = "product-except-self"
LEFT = """\
def product_except_self(numbers: list[int]) -> list[int]:
    answer = [1] * len(numbers)
    left = 1
    for i in range(len(numbers)):
        answer[i] = left
        left *= numbers[i]
    return answer"""
RIGHT = """\
def product_except_self(numbers: list[int]) -> list[int]:
    answer = [1] * len(numbers)
    left = 1
    for i in range(len(numbers)):
        answer[i] = left
        left *= numbers[i]
    right = 1
    for i in reversed(range(len(numbers))):
        answer[i] *= right
        right *= numbers[i]
    return answer"""
SLOW = """\
def product_except_self(numbers: list[int]) -> list[int]:
    answer = []
    for i in range(len(numbers)):
        product = 1
        for j, number in enumerate(numbers):
            if j != i:
                product *= number
        answer.append(product)
    return answer"""
RAISES = """\
def product_except_self(numbers: list[int]) -> list[int]:
    answer = []
    answer[0] = 1
    return answer"""


@pytest.fixture
def rough(chromium: Browser, studio: Running) -> Iterator[Look]:
    """A tab where things may go wrong: its faults are the test's own matter."""
    opened, context = look(chromium, studio, viewport=WIDE)
    yield opened
    context.close()


def solve(tab: Look, slug: str) -> Page:
    """Open a problem, and wait until its editor is there."""
    page = tab.page
    page.goto(f"{tab.base}/practice/{slug}")
    expect(page.locator(".cm-content")).to_be_visible(timeout=LONG)
    return page


def write(page: Page, code: str) -> None:
    """Replace what is in the editor, key by key as a person does: it indents by itself, Backspace takes that back."""
    page.locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.press("Delete")
    given = 0
    for number, line in enumerate(code.split("\n")):
        if number:
            page.keyboard.press("Enter")
        wanted = len(line) - len(line.lstrip())
        for _ in range((given - wanted) // 4):
            page.keyboard.press("Backspace")
        page.keyboard.type(line.lstrip())
        given = wanted + 4 if line.endswith(":") else wanted
    assert text(page) == code


def text(page: Page) -> str:
    """The program in the editor."""
    return "\n".join(line.replace("\u200b", "") for line in page.locator(".cm-line").all_inner_texts()).replace(
        "\n\n", "\n"
    )


def judged(page: Page, keys: str = "Control+Shift+Enter") -> str:
    """Submit, or run, and wait for the sentence."""
    page.keyboard.press(keys)
    title = page.locator("#verdict-title")
    expect(title).to_have_class(re.compile("tone-"), timeout=LONG)
    return title.inner_text()


def test_a_wrong_answer_is_shown_explained_and_put_right(tab: Look) -> None:
    page = solve(tab, PRODUCT)
    write(page, LEFT)
    assert "Wrong answer on test 1 of 3" in judged(page, "Control+Enter")
    expect(page.locator(".pb-tests tbody tr")).to_have_count(3)  # all samples, whatever fails
    expect(page.get_by_role("button", name="Explain")).to_have_count(0)  # a run is not an attempt
    expect(page.get_by_role("button", name="Submissions (0)")).to_be_disabled()

    assert "Wrong answer on test 1 of" in judged(page)
    expect(page.locator(".pb-tests tbody tr")).to_have_count(1)
    expect(page.locator(".pb-tests tbody tr").first).to_contain_text("wrong answer")
    expect(page.locator(".pb-tests tbody tr td").nth(2)).to_contain_text("ms")
    expect(page.locator(".pb-tests tbody tr td").nth(3)).to_contain_text("MB")
    expect(page.locator(".pb-values")).to_contain_text("expected 24")
    expect(page.locator(".pb-values")).to_contain_text("yours 1")
    expect(page.locator(".pb-values")).to_contain_text("at [0]")
    expect(page.locator(".pb-distances")).to_contain_text("3 of 4")
    expect(page.locator('#work [role="status"]').last).to_contain_text("Wrong answer on test 1")

    page.get_by_role("button", name="Explain").click()
    expect(page.locator("#explain-title")).to_be_focused(timeout=LONG)
    expect(page.locator("#explain-title")).to_have_text("Left side only")
    explain = page.locator(".pb-explain")
    expect(explain).to_contain_text("Try next")
    expect(explain).to_contain_text("The smallest input found that fails")
    expect(explain.locator(".pb-texts").first).to_contain_text("numbers = [")
    _step_through(page)

    write(page, RIGHT)
    assert "Accepted" in judged(page)
    expect(page.locator(".pb-tests tbody .tone-error")).to_have_count(0)
    expect(page.locator(".pb-growth tbody tr")).to_have_count(4)
    expect(page.get_by_role("button", name="Show the approach")).to_be_visible()
    past = page.get_by_role("button", name="Submissions (2)")
    past.click()
    rows = page.locator(".pb-past li")
    expect(rows.first).to_contain_text("accepted")
    rows.last.get_by_role("button").click()
    expect(rows.last.locator("pre")).to_have_text(LEFT)
    rows.last.get_by_role("button", name="Put it into the editor").click()
    assert text(page) == LEFT
    page.keyboard.press("Control+z")
    assert text(page) == RIGHT

    page.goto(f"{tab.base}/practice")
    expect(page.locator(f'.pb-rows a[href="/practice/{PRODUCT}"] svg')).to_have_attribute("aria-label", "solved")


def _step_through(page: Page) -> None:
    """The story of an explanation: steps, arrow keys, scrubbing, playing."""
    steps = page.locator(".pb-steps")
    place, now = steps.locator("output"), steps.locator(".line.now .number")
    expect(place).to_contain_text("Step 1 of")
    first = now.inner_text()
    steps.get_by_role("button", name="Step forward").click()
    expect(place).to_contain_text("Step 2 of")
    page.keyboard.press("ArrowRight")
    expect(place).to_contain_text("Step 3 of")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(now).to_have_text(first)
    slider = steps.get_by_role("slider")
    slider.focus()
    page.keyboard.press("End")
    expect(steps.get_by_role("button", name="Step forward")).to_be_disabled()
    expect(steps.locator(".pb-caption")).to_contain_text("returns")
    expect(steps.locator(".pb-names")).to_contain_text("left")
    expect(slider).to_have_attribute("aria-valuetext", re.compile("returns"))
    steps.locator(".play").click()
    expect(steps.locator(".play")).to_have_text("Pause")
    expect(place).to_contain_text("Step 2 of", timeout=10_000)
    steps.locator(".play").click()
    expect(steps.locator(".play")).to_have_text("Play")
    expect(page.locator(".pb-ideal")).to_contain_text("right")  # the reference's values, not its code


def test_an_exception_and_a_syntax_error_point_at_their_line(tab: Look) -> None:
    page = solve(tab, PRODUCT)
    write(page, RAISES)
    assert "Error while running on test 1" in judged(page)
    expect(page.locator(".cm-line.pb-fault")).to_have_text("    answer[0] = 1")
    expect(page.locator(".pb-case")).to_contain_text("IndexError")
    page.locator(".pb-stack button").last.click()
    expect(page.locator(".cm-content")).to_be_focused()
    page.keyboard.type(" ")
    expect(page.locator(".pb-fault")).to_have_count(0)  # it is another line now
    write(page, "def product_except_self(numbers):\n    return = 1")
    assert "Does not compile: line 2" in judged(page)
    expect(page.locator(".cm-line.pb-fault")).to_have_text("    return = 1")
    expect(page.locator(".pb-verdict")).to_contain_text("SyntaxError")


def test_growth_is_shown_with_sizes_and_seconds(tab: Look) -> None:
    page = solve(tab, PRODUCT)
    write(page, SLOW)
    assert "Too slow" in judged(page)
    expect(page.locator(".pb-growth")).to_contain_text("n = 1,500")
    expect(page.locator(".pb-case")).to_contain_text("Time may grow like n")
    page.get_by_role("button", name="Explain").click()
    expect(page.locator("#explain-title")).to_have_text("A whole walk for every place", timeout=LONG)


def test_a_numeric_difference_has_its_place_and_tolerance(tab: Look) -> None:
    page = solve(tab, "stable-softmax")
    starter = text(page)
    name = re.search(r"def (\w+)\((\w+)", starter)
    assert name
    write(
        page, f"import numpy as np\n\ndef {name[1]}({name[2]}, *more):\n    return np.asarray({name[2]}) * 0.0 + 0.25"
    )
    assert "Wrong answer" in judged(page)
    for word in ("absolute", "relative", "tolerance", "places that differ"):
        expect(page.locator(".pb-distances")).to_contain_text(word)
    expect(page.locator(".pb-values")).to_contain_text("at [")
    page.get_by_role("button", name="Own input").click()
    page.get_by_role("button", name="Add an input").click()  # begins as a sample: arrays are typed as lists
    judged(page, "Control+Enter")
    expect(page.locator(".pb-tests tbody tr").last).to_contain_text("own 1")


def test_own_input_is_run_kept_and_told_where_it_does_not_fit(rough: Look) -> None:
    page = solve(rough, "largest-run-sum")
    page.get_by_role("button", name="Own input").click()
    page.get_by_role("button", name="Add an input").click()
    box = page.locator(".pb-own textarea")
    expect(box).to_be_focused()
    argument = box.input_value().partition(" =")[0]
    page.keyboard.press("Control+a")
    page.keyboard.type(f"{argument} = [1, x]")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".pb-own-fault")).to_contain_text("literal", timeout=LONG)
    expect(box).to_have_attribute("aria-invalid", "true")
    assert rough.axe() == []
    box.focus()
    page.keyboard.press("Control+a")
    with page.expect_response(lambda r: r.url.endswith("/own") and r.request.method == "POST"):
        page.keyboard.type(f"{argument} = [3, -1, 4]")
        page.keyboard.press("Tab")
    judged(page, "Control+Enter")
    own = page.locator(".pb-tests tbody tr").last
    expect(own).to_contain_text("own 1")
    page.reload()
    page.get_by_role("button", name="Own input (1)").click()
    expect(box).to_have_value(f"{argument} = [3, -1, 4]")
    with page.expect_response(lambda r: "/own/" in r.url and r.request.method == "DELETE"):
        page.get_by_role("button", name="Remove own 1").click()
    expect(page.locator(".pb-own")).to_have_count(0)
    assert [fault for fault in rough.faults if "400" not in fault] == []


def test_what_is_printed_is_shown(tab: Look) -> None:
    page = solve(tab, PRODUCT)
    write(page, RIGHT.replace("    left = 1", '    print("here", numbers)\n    left = 1', 1))
    assert "All 3 tests passed" in judged(page, "Control+Enter")
    expect(page.locator(".pb-case")).to_contain_text("Printed")
    expect(page.locator(".pb-case")).to_contain_text("here [5, 2, 3, 4]")


def test_code_is_saved_and_the_starter_can_be_had_back_and_undone(tab: Look) -> None:
    page = solve(tab, "merge-lifetimes")
    starter = text(page)
    write(page, "mine = 1")
    expect(page.locator(".pb-status")).to_contain_text("Saved", timeout=10_000)
    page.keyboard.type("2")
    page.reload()  # before the quiet time is over: the page saves as it goes
    expect(page.locator(".cm-content")).to_have_text("mine = 12")
    page.get_by_role("button", name="Reset").click()
    page.get_by_role("button", name="Keep my code").click()
    expect(page.locator(".cm-content")).to_have_text("mine = 12")
    page.get_by_role("button", name="Reset").click()
    assert tab.axe() == []
    page.get_by_role("button", name="Put it back").click()
    assert text(page) == starter
    expect(page.locator("#undo")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".cm-content")).to_have_text("mine = 12")
    expect(page.locator(".cm-content")).to_be_focused()
    page.get_by_role("button", name="Reset").click()
    page.get_by_role("button", name="Put it back").click()
    page.reload()
    expect(page.locator(".cm-content")).to_contain_text("NotImplementedError")


def test_hints_come_one_by_one_the_approach_last_and_notes_are_kept(tab: Look) -> None:
    page = solve(tab, "fewest-stages")
    expect(page.get_by_role("button", name="Show the approach")).to_have_count(0)
    for number in (1, 2, 3):
        page.get_by_role("button", name=f"Hint {number} of 3").click()
        expect(page.locator(f"#hint-{number}")).to_be_focused()
    page.get_by_role("button", name="Show the approach").click()
    expect(page.locator("#hint-4")).to_have_text("Approach")
    page.get_by_role("button", name="Step through a solution").click()
    story = page.get_by_role("group", name="A solution, step by step")
    expect(story.get_by_role("slider")).to_have_value("0")
    story.get_by_role("button", name="Step forward").click()
    expect(story.locator("output")).to_contain_text("Step 2 of")
    assert tab.axe() == []
    page.get_by_role("button", name="Notes").click()
    page.get_by_label("Notes", exact=True).fill("A table, filled from the left. <b>Not bold</b>")
    expect(page.locator(".pb-notes")).to_contain_text("Saved", timeout=10_000)
    page.reload()
    expect(page.get_by_label("Notes", exact=True)).to_have_value("A table, filled from the left. <b>Not bold</b>")
    expect(page.locator(".pb-hint")).to_have_count(4)


def test_everything_by_keyboard(tab: Look) -> None:
    page = tab.goto("/today")
    page.keyboard.press("g")
    page.keyboard.press("p")
    page.wait_for_url("**/practice")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("j")
    slug = page.evaluate("document.activeElement.getAttribute('href')")
    assert slug == page.locator(".pb-rows a").nth(1).get_attribute("href")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{slug}")
    expect(page.locator(".cm-content")).to_be_visible(timeout=LONG)
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_contain_text("Submit")
    expect(page.locator("#keys")).to_contain_text("Leave the editor")
    page.keyboard.press("Escape")
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.cm-content')"):
            break
    expect(page.locator(".cm-content")).to_be_focused()
    page.keyboard.press("Control+Home")
    page.keyboard.press("Tab")  # indents
    assert text(page).startswith("    ")
    page.keyboard.press("Shift+Tab")
    assert not text(page).startswith(" ")
    page.keyboard.press("Escape")
    expect(page.locator("#editor-help")).to_have_text("Tab leaves the editor now")
    expect(page.locator('#work [role="status"]').last).to_have_text("Tab leaves the editor now.")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Submit")).to_be_focused()
    expect(page.locator("#editor-help")).to_have_text("Esc then Tab leaves the editor")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Run")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#verdict-title")).to_have_class(re.compile("tone-error"), timeout=LONG)
    page.keyboard.press("n")
    page.wait_for_url(lambda url: not url.endswith(str(slug)))


def test_the_list_is_filtered_and_the_address_keeps_it(tab: Look) -> None:
    page = tab.goto("/practice")
    rows = page.locator(".pb-rows > li:visible")
    everything = rows.count()
    page.get_by_label("Difficulty").select_option("easy")
    easy = rows.count()
    assert 0 < easy < everything
    expect(page.locator(".pb-count")).to_have_text(f"{easy} of {everything} problems")
    page.reload()
    assert rows.count() == easy
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.checkVisibility()")
    page.get_by_label("Tag").select_option(index=1)
    page.get_by_label("State").select_option("due")
    expect(page.locator("#filter-none")).to_be_visible()
    page.get_by_role("button", name="Show all").click()
    expect(page.locator(".pb-count")).to_have_text(f"{everything} problems")
    assert page.url.endswith("/practice")
    with page.expect_download() as download:
        page.get_by_role("link", name="Export").click()
    page.locator("#import").set_input_files(download.value.path())  # a file without a name's ending is refused by none
    expect(page.locator("#import-said")).to_contain_text("Brought back", timeout=10_000)


def test_difficulty_can_be_hidden(tab: Look) -> None:
    page = tab.goto("/settings")
    page.get_by_label("New profile").fill("Hides difficulty")
    page.get_by_role("button", name="Add").click()
    page.locator('input[name="difficulty"][value="no"]').check(force=True)
    page.locator('form[action="/settings"] button').click()
    expect(page.locator('input[name="difficulty"][value="no"]')).to_be_checked()
    tab.goto("/practice")
    expect(page.get_by_label("Difficulty")).to_have_count(0)
    expect(page.locator(".pb-list > .eyebrow")).to_have_text(re.compile("problems solved$"))
    expect(page.locator(".pb-meta").first).not_to_contain_text(re.compile("Easy|Medium|Hard"))
    solve(tab, PRODUCT)
    expect(page.locator(".pb-text .eyebrow")).not_to_contain_text(re.compile("Easy|Medium|Hard"))


# --- every state in every light and width


def fresh(page: Page) -> None:
    """A problem as it is opened."""


def failed(page: Page) -> None:
    """A wrong answer with its explanation."""
    page.locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(LEFT)
    judged(page)
    page.get_by_role("button", name="Explain").click()
    expect(page.locator(".pb-explain")).to_be_visible(timeout=LONG)


def passed(page: Page) -> None:
    """An accepted answer, and all that helps opened."""
    page.locator(".cm-content").click()
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(RIGHT)
    judged(page)
    page.get_by_role("button", name="Own input").click()
    page.get_by_role("button", name="Submissions").click()
    page.locator(".pb-past li button").first.click()
    expect(page.locator(".pb-past pre")).to_be_visible()


def leaderboard() -> str:
    """A leaderboard with rows: which problems have one is no matter of the page's."""
    rows = [
        {"rank": 1, "name": "Ada with a name that is rather long", "quality": 31.24, "bits": 3.98, "mine": False},
        {"rank": 2, "name": "Local", "quality": 30.1, "bits": 4, "mine": True},
    ]
    page = environment().get_template("leaderboard.html")
    about = {"slug": PRODUCT, "title": "Product"}
    return page.render(
        room="/practice", settings=Settings(), streak=0, status=200, problem=about, measure="SQNR, dB", rows=rows
    )


@pytest.mark.parametrize("state", [fresh, failed, passed])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_problem_is_sound_in_every_light_and_width(
    chromium: Browser, studio: Running, scheme: Any, state: Callable[[Page], None]
) -> None:
    for size in (WIDE, NARROW):
        tab, context = look(chromium, studio, viewport=size, color_scheme=scheme)
        page = solve(tab, PRODUCT)
        state(page)
        where = f"{state.__name__} {scheme} {size['width']}"
        assert tab.axe() == [], where
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], f"{where} scrolls sideways"
        assert tab.faults == [], where
        context.close()


@pytest.mark.parametrize("path", ["/practice", "/practice?state=due", "/practice/leaderboard/given"])
def test_the_other_pages_are_sound_in_every_light_and_width(chromium: Browser, studio: Running, path: str) -> None:
    for scheme in ("light", "dark"):
        for size in (WIDE, NARROW):
            tab, context = look(chromium, studio, viewport=size, color_scheme=scheme)
            tab.page.route("**/practice/leaderboard/given", lambda route: route.fulfill(body=leaderboard()))
            page = tab.goto(path)
            assert tab.axe() == [], f"{path} {scheme} {size['width']}"
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], path
            assert tab.faults == [], path
            context.close()


@pytest.mark.parametrize(("path", "most"), [(f"/practice/{PRODUCT}", WEIGHT), ("/practice", 200_000)])
def test_a_page_weighs_no_more_than_its_budget(
    chromium: Browser, studio: Running, tab: Look, path: str, most: int
) -> None:
    if path.endswith(PRODUCT):
        solve(tab, PRODUCT)  # compiled by now
    opened, context = look(chromium, studio)
    protocol = context.new_cdp_session(opened.page)
    protocol.send("Network.enable")
    sizes: list[float] = []
    protocol.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    opened.page.goto(studio.url + path, wait_until="networkidle")
    context.close()
    assert 10_000 < sum(sizes) < most, f"{len(sizes)} requests"


def test_reduced_motion_jumps_to_the_end_of_the_story(chromium: Browser, studio: Running) -> None:
    tab, context = look(chromium, studio, viewport=WIDE, reduced_motion="reduce")
    page = solve(tab, PRODUCT)
    failed(page)
    page.locator(".pb-steps .play").click()
    expect(page.locator(".pb-steps").get_by_role("button", name="Step forward")).to_be_disabled()
    moving = "document.getAnimations().filter(a => a.playState === 'running').map(a => String(a.animationName))"
    assert page.evaluate(moving) == []
    context.close()


def test_a_problem_can_be_read_without_scripts(chromium: Browser, studio: Running, tab: Look) -> None:
    solve(tab, PRODUCT)
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{studio.url}/practice/{PRODUCT}")
    expect(page.locator(".pb-sample").first).to_contain_text("[24, 60, 40, 30]")
    assert f"bitwright practice submit {PRODUCT}.py" in page.content()
    context.close()


# --- what cannot be had from a studio that works


def events(route: Route, *told: dict[str, Any]) -> None:
    """Answer with a stream of events."""
    body = "".join(f"event: {one['event']}\ndata: {json.dumps(one)}\n\n" for one in told)
    route.fulfill(status=200, content_type="text/event-stream", body=body)


def test_our_own_fault_is_said_and_not_counted(rough: Look) -> None:
    page = solve(rough, "longest-rise")
    result = {
        "event": "result", "id": 7, "verdict": "IE", "words": "our fault, not counted", "cases": [], "total": 9,
        "sentence": "The judge itself failed", "cpu": 0, "memory": 0, "tier": "A", "reason": "", "line": 0,
        "growth": None, "due": None,
    }  # fmt: skip
    page.route("**/submit", lambda route: events(route, result))
    page.locator(".cm-content").click()
    judged(page)
    expect(page.locator(".pb-verdict")).to_contain_text("Our fault, not counted.")
    expect(page.locator("#verdict-title")).to_have_class(re.compile("tone-warn"))
    expect(page.get_by_role("button", name="Explain")).to_have_count(0)
    page.get_by_role("button", name="Submissions (1)").click()
    expect(page.locator(".pb-past li")).to_contain_text("our fault, not counted")


def test_a_judge_that_cannot_be_had_says_why_and_what_helps(rough: Look) -> None:
    page = solve(rough, "longest-rise")
    error = {"kind": "ResourceError", "text": "Programs cannot be run safely here.", "fix": "Update to Linux 6.2"}
    page.route("**/run", lambda route: route.fulfill(status=503, json={"error": error}))
    page.locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("Programs cannot be run safely here.")
    expect(alert).to_contain_text("Update to Linux 6.2")
    assert rough.axe() == []
    page.route("**/draft", lambda route: route.abort())
    page.locator(".cm-content").click()
    page.keyboard.type("#")
    expect(page.locator(".pb-status")).to_contain_text("Not saved. The studio does not answer.", timeout=10_000)
    page.unroute("**/draft")
    page.keyboard.type("#")
    expect(page.locator(".pb-status")).to_contain_text("Saved", timeout=10_000)


def test_the_tutor_answers_in_text_only_and_its_errors_are_plain(rough: Look) -> None:
    page = rough.page
    with Server() as server:
        page.goto(f"{rough.base}/settings")
        page.get_by_label("Address").fill(server.address)
        page.get_by_label("Model").fill("hostile")
        page.get_by_role("button", name="Save", exact=True).last.click()
        expect(page.get_by_label("Model")).to_have_value("hostile")
        assert rough.axe() == []
        solve(rough, PRODUCT)
        expect(page.locator(".pb-tutor")).to_contain_text("hostile")
        page.get_by_label("Your question").fill("Why only the last place?")
        page.get_by_role("button", name="Ask").click()
        expect(page.locator(".pb-answer")).to_contain_text("<img src=x onerror=alert(2)>")
        expect(page.locator(".pb-answer")).to_contain_text("What is the product of nothing? é")
        expect(page.locator(".pb-answer strong")).to_have_text("hostile-1")
        assert page.locator(".pb-answer img, .pb-answer script, .pb-answer b").count() == 0
        said = json.dumps(server.asked[-1]["messages"])
        assert "Why only the last place?" in said
        assert "def product_except_self" in said
        assert rough.axe() == []
    page.get_by_label("Your question").fill("And now?")
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("alert")).to_contain_text(server.address)
    expect(page.get_by_label("Your question")).to_have_value("And now?")
    page.goto(f"{rough.base}/settings")
    page.get_by_label("Address").fill("")
    page.get_by_role("button", name="Save", exact=True).last.click()
    solve(rough, PRODUCT)
    expect(page.locator(".pb-tutor")).to_have_count(0)
