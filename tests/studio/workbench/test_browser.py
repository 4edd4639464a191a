"""The workbench as a person uses it: real Chromium, a real studio, the bundled model, from plan to verdict."""

from __future__ import annotations

import json
import re
import shutil
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from bitwright.authoring.folder import CONTENT
from tests.studio.browser import NARROW, WIDE, Look, Running, look, needs_chromium, start

pytestmark = [needs_chromium, pytest.mark.slow]

MODEL = CONTENT / "demo-model"
QUICK = {
    "layer": {"format": "int4", "method": "rtn", "group": 64},
    "calibration": {"source": "stdlib", "windows": 4, "heldout_windows": 2},
}
"""A recipe that takes seconds."""
LONG = 180_000
"""Milliseconds that work of the engine may take on a busy machine."""
SIZES = ".wb-size b.tone-quant"


def ask(running: Running, path: str, body: Any = None) -> Any:
    """Ask the studio's API as its own pages do."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json", "origin": running.url}
    with urllib.request.urlopen(urllib.request.Request(running.url + path, data, headers)) as answer:
        return json.loads(answer.read() or b"null")


def finish(running: Running, model: Path, recipe: dict[str, Any], name: str) -> str:
    """A run that is done; its id."""
    made: str = ask(running, "/api/runs", {"model": str(model), "recipe": recipe, "name": name})["id"]
    deadline = time.monotonic() + LONG / 1000
    while time.monotonic() < deadline:
        run = ask(running, f"/api/runs/{made}")
        if run["state"] in ("done", "failed"):
            assert run["state"] == "done", run["error"]
            return made
        time.sleep(0.3)
    raise AssertionError(f"run {made} did not end")


def end(running: Running) -> None:
    """Stop a studio of one test's own."""
    running.stop()
    if running.process.stdout is not None:
        running.process.stdout.close()


@pytest.fixture(scope="session")
def done(studio: Running) -> str:
    """A finished run of the bundled language model, beside one of other bits for the front."""
    finish(studio, MODEL, {**QUICK, "layer": {**QUICK["layer"], "format": "int8"}}, "eight bits")
    return finish(studio, MODEL, QUICK, "four bits")


@pytest.fixture
def rough(chromium: Browser, studio: Running) -> Iterator[Look]:
    """A tab where things may go wrong: its faults are the test's own matter."""
    opened, context = look(chromium, studio, viewport=WIDE)
    yield opened
    context.close()


def choose(page: Page, name: str, value: str) -> None:
    """Choose one of a set of radio buttons, as a click on its label does."""
    page.locator(f'input[name="{name}"][value="{value}"]').check(force=True)


def planned(page: Page) -> None:
    """Wait until the plan is that of the options."""
    page.wait_for_timeout(250)
    expect(page.locator(".wb-plan")).to_have_attribute("aria-busy", "false", timeout=LONG)


# --- plans


def test_the_plan_follows_the_options_and_the_last_one_wins(tab: Look) -> None:
    page = tab.goto("/workbench/new")
    expect(page.locator(".wb-plan-head")).to_contain_text("Up to date", timeout=LONG)
    expect(page.locator(SIZES)).to_have_text("1.5 MB")
    for format in ("int2", "int1", "int8"):  # faster than plans are made
        choose(page, "format", format)
    planned(page)
    expect(page.locator(SIZES)).to_have_text("2.5 MB")
    expect(page.locator(".wb-figures").first).to_contain_text("8.13")
    page.get_by_text("Every matrix", exact=True).click()
    expect(page.locator(".wb-plan tbody tr")).to_have_count(21)
    choose(page, "format", "int3")
    planned(page)
    expect(page.locator(".wb-options .notice")).to_contain_text("study copy")
    choose(page, "family", "Learned levels")
    planned(page)
    expect(page.locator('input[name="format"]:checked')).to_have_value("codebook3")
    expect(page.locator('input[name="method"]')).to_have_count(1)
    choose(page, "family", "Integers")
    choose(page, "format", "int4")
    planned(page)
    expect(page.locator('input[name="output"]:checked')).to_have_value("compressed-tensors")
    expect(page.locator('input[name="method"]:checked')).to_have_value("descent")
    choose(page, "model", str((CONTENT / "digits" / "model.onnx").resolve()))
    planned(page)
    expect(page.locator(".wb-plan-head")).to_contain_text("Up to date")
    expect(page.locator('input[name="method"][value="adaround"]')).to_have_count(1)
    expect(page.locator('input[name="source"]')).to_have_count(0)


def test_a_budget_or_a_mix_gives_the_formats(tab: Look) -> None:
    page = tab.goto("/workbench/new")
    expect(page.locator(".wb-plan-head")).to_contain_text("Up to date", timeout=LONG)
    choose(page, "spending", "budget")
    planned(page)
    expect(page.locator(SIZES)).to_have_text("1.6 MB")
    expect(page.locator("#budget-words")).to_contain_text(re.compile(r"Between 1\.5 MB and 2\.5 MB"))
    expect(page.locator('input[name="format"]')).to_have_count(0)
    page.get_by_text("Every matrix", exact=True).click()
    expect(page.locator(".wb-plan tbody tr").first).to_contain_text("one of int4 g128, int8 g128")
    choose(page, "limit", "kl")
    planned(page)
    expect(page.locator("#budget-field")).to_have_value("0.01")
    expect(page.locator(".wb-sizes")).to_contain_text("At most")
    choose(page, "spending", "mix")
    planned(page)
    page.locator("#mix-field").select_option("q2_k")
    planned(page)
    expect(page.locator(".wb-runtimes")).to_contain_text("llama.cpp")
    expect(page.locator('input[name="output"]')).to_have_count(0)
    choose(page, "spending", "same")
    planned(page)
    expect(page.locator('input[name="format"]:checked')).to_have_count(1)
    expect(page.locator(".wb-error")).to_have_count(0)


def test_what_is_wrong_with_a_plan_stands_at_its_option(rough: Look, tmp_path: Path) -> None:
    page = rough.goto("/workbench/new")
    expect(page.locator(".wb-plan-head")).to_contain_text("Up to date", timeout=LONG)
    page.get_by_text("windows to calibrate").first.click()
    page.locator("#heldout-field").fill("1")
    planned(page)
    expect(page.locator("#heldout-error")).to_contain_text("greater than or equal to 2")
    expect(page.locator("#heldout-field")).to_have_attribute("aria-invalid", "true")
    page.locator("#name-field").press("Enter")  # does not start: it leads to what is wrong
    expect(page.locator("#heldout-field")).to_be_focused()
    page.locator("#heldout-field").fill("4")
    planned(page)
    expect(page.locator(".wb-error")).to_have_count(0)
    page.get_by_text("Fine-tune the method").click()
    page.locator("#option-sweeps-field").fill("-1")
    planned(page)
    expect(page.locator("#option-sweeps-error")).to_contain_text("greater than or equal to 0")
    page.locator("#option-sweeps-field").fill("")
    choose(page, "spending", "budget")
    page.locator("#budget-field").fill("0.1")
    planned(page)
    expect(page.locator("#budget-error")).to_contain_text("the smallest output takes")
    choose(page, "spending", "same")
    page.locator("#drop-field").fill("-1")
    planned(page)
    expect(page.locator("#drop-error")).to_contain_text("greater than or equal to 0")
    page.locator("#drop-field").fill("")
    choose(page, "source", "path")
    page.locator("#text-field").fill(str(tmp_path / "elsewhere.txt"))
    planned(page)
    expect(page.locator("#text-error")).to_contain_text("--models")
    choose(page, "source", "stdlib")
    choose(page, "model", str((CONTENT / "digits" / "model.onnx").resolve()))
    choose(page, "output", "nbits")
    planned(page)
    expect(page.locator('input[name="group"]:checked')).to_have_value("128")
    expect(page.locator("#output-error")).to_contain_text("matrix products only")
    choose(page, "model", "other")
    expect(page.locator("#path-field")).to_be_focused()
    page.locator("#path-field").fill("/etc/passwd")
    planned(page)
    expect(page.locator("#model-error")).to_contain_text("outside")
    assert rough.axe() == []


def test_a_studio_that_cannot_plan_now_can_be_asked_again(rough: Look) -> None:
    page = rough.page
    body = json.dumps({"error": {"kind": "ResourceError", "text": "The worker died.", "fix": "Try again"}})
    page.route("**/api/plans", lambda route: route.fulfill(status=503, body=body), times=1)
    page.goto(f"{rough.base}/workbench/new")
    expect(page.locator(".wb-plan .notice")).to_contain_text("The worker died.", timeout=LONG)
    expect(page.locator(".wb-error")).to_have_count(0)  # no option is at fault
    page.get_by_role("button", name="Plan again").click()
    expect(page.locator(".wb-plan-head")).to_contain_text("Up to date", timeout=LONG)


# --- a run


def test_from_a_plan_to_the_verdict(tab: Look, studio: Running) -> None:
    page = tab.goto("/workbench/new")
    expect(page.locator(".wb-plan-head")).to_contain_text("Up to date", timeout=LONG)
    page.get_by_text("windows to calibrate").first.click()
    page.locator("#windows-field").fill("32")
    page.locator("#heldout-field").fill("2")
    page.locator("#name-field").fill("my first run")
    planned(page)
    page.locator(".wb-start").click()

    expect(page.locator("h1")).to_have_text("my first run", timeout=LONG)
    expect(page.locator("h1")).to_be_focused()
    expect(page.locator(".wb-row").first).to_be_visible(timeout=LONG)
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".wb-now-state")).to_have_text("Stopped", timeout=LONG)
    kept = page.locator(".wb-row").count()
    assert 1 <= kept <= 21
    assert page.title().startswith("Stopped")
    page.reload()
    expect(page.locator(".wb-row")).to_have_count(kept)
    page.get_by_role("button", name="Resume").click()

    verdict = page.locator(".wb-verdict")
    expect(verdict).to_be_visible(timeout=LONG)
    expect(verdict).to_contain_text("float model")
    expect(verdict).to_contain_text(re.compile(r"KL [\d.]+ ± [\d.]+ nats per token"))
    expect(page.locator(".wb-row")).to_have_count(21)
    assert page.title().startswith("Done")

    choose(page, "order", "worst")
    decibels = [float(text.split()[0]) for text in page.locator(".wb-row-number:nth-child(4)").all_inner_texts()
                if re.match(r"[\d.]+ dB", text)]  # fmt: skip
    assert decibels == sorted(decibels)
    row = page.locator(".wb-row button").first
    expect(row.locator(".wb-row-levels")).to_contain_text(re.compile(r"1\d of 16 · 3\.\d\d"))
    row.press("Enter")
    expect(row).to_have_attribute("aria-expanded", "true")
    expect(page.locator(".wb-detail-box .area")).to_have_count(2, timeout=LONG)
    assert page.locator(".wb-detail-box .figure-stage").get_attribute("aria-label")

    page.get_by_role("button", name="Write").click()
    expect(page.locator(".wb-outcome")).to_contain_text("token", timeout=LONG)
    texts = page.locator(".wb-text pre").all_inner_texts()
    assert all(text.startswith("import os") and len(text) > 60 for text in texts)
    if texts[0] != texts[1]:
        assert page.locator(".wb-text .wb-other").count() > 0

    with page.expect_download() as download:
        page.get_by_text("Download the certificate").click()
    assert json.loads(download.value.path().read_text())["verdict"]
    with page.context.expect_page() as opened:
        page.get_by_text("Open the report").click()
    expect(opened.value.locator("body")).to_contain_text("demo-model", timeout=LONG)
    opened.value.close()

    page.get_by_text("Check the written file").click()
    expect(page.locator("#result-title")).to_contain_text("is sound", timeout=LONG)
    expect(page.locator(".wb-findings li")).to_have_count(7)
    page.get_by_text("Levels and entropy of every weight").click()
    expect(page.locator(".wb-result tbody tr")).to_have_count(21)
    expect(page.locator(".wb-result tbody tr").first).to_contain_text(re.compile(r"1\d of 16 · 3\.\d\d"))
    page.go_back()
    expect(verdict).to_be_visible(timeout=LONG)
    page.get_by_role("button", name="Remove").click()
    page.locator("dialog").get_by_role("button", name="Keep").click()
    page.get_by_role("button", name="Remove").click()
    page.locator("dialog").get_by_role("button", name="Remove").click()
    expect(page.locator("h1")).to_have_text("Workbench")
    assert all(run["name"] != "my first run" for run in ask(studio, "/api/runs")["runs"])


def test_a_network_runs_and_is_judged_by_its_task(tab: Look, studio: Running) -> None:
    layer = {"format": "int8", "group": "channel", "method": "rtn"}
    run = finish(studio, CONTENT / "digits" / "model.onnx", {"layer": layer}, "digits in integers")
    page = tab.goto(f"/workbench/runs/{run}")
    expect(page.locator(".wb-verdict")).to_contain_text("Accuracy")
    expect(page.locator(".wb-row")).to_have_count(9)
    expect(page.locator(".wb-row-levels small").last).to_contain_text(re.compile(r"inputs \d+ of 256 · \d\.\d\d"))
    expect(page.get_by_role("button", name="Write")).to_have_count(0)
    page.get_by_text("Vary the options").click()
    expect(page.locator('input[name="method"][value="rtn"]')).to_be_checked()
    expect(page.locator('input[name="format"][value="int8"]')).to_be_checked()


def test_a_failed_run_says_why_and_what_to_do(rough: Look, tmp_path_factory: pytest.TempPathFactory) -> None:
    data = tmp_path_factory.mktemp("failing") / "data"
    copy = data.parent / "model"
    shutil.copytree(MODEL, copy)
    running = start(data, "--models", str(data.parent))
    try:
        made = ask(running, "/api/runs", {"model": str(copy), "recipe": QUICK})["id"]
        # Weights that are not finite are found while they are read.
        weights = copy / "model.safetensors"
        raw = bytearray(weights.read_bytes())
        raw[-4000:] = b"\xff" * 4000
        weights.write_bytes(raw)
        page = rough.page
        page.goto(f"{running.url}/workbench/runs/{made}")
        expect(page.locator(".wb-now-state")).to_have_text("Failed", timeout=LONG)
        expect(page.locator(".wb-now .notice")).to_contain_text("What to do")
        expect(page.get_by_role("button", name="Try again")).to_be_visible()
    finally:
        end(running)


def test_a_page_that_lost_its_studio_finds_it_again(
    chromium: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = tmp_path_factory.mktemp("killed") / "data"
    running = start(data)
    recipe = {**QUICK, "layer": {"format": "int4", "method": "descent"}}
    recipe["calibration"] = {**QUICK["calibration"], "windows": 8}
    made = ask(running, "/api/runs", {"model": str(MODEL), "recipe": recipe})["id"]
    tab, context = look(chromium, running, viewport=WIDE)
    page = tab.goto(f"/workbench/runs/{made}")
    expect(page.locator(".wb-row").first).to_be_visible(timeout=LONG)
    running.process.kill()
    running.process.wait()
    end(running)
    expect(page.locator(".wb > .notice")).to_contain_text("connection is lost")
    again = start(data, port=running.url.rsplit(":", 1)[1])
    try:
        expect(page.locator(".wb-verdict")).to_be_visible(timeout=LONG)
        expect(page.locator(".wb-row")).to_have_count(21)
        expect(page.locator(".wb > .notice")).to_have_count(0)
    finally:
        context.close()
        end(again)


# --- lists


def test_lists_change_by_themselves_and_points_lead_to_runs(tab: Look, studio: Running, done: str) -> None:
    page = tab.goto("/workbench")
    expect(page.locator(".wb-point").first).to_be_visible(timeout=LONG)
    before = page.locator(".wb-run").count()
    made = ask(studio, "/api/runs", {"model": str(MODEL), "recipe": QUICK, "name": "from elsewhere"})["id"]
    expect(page.locator(".wb-run")).to_have_count(before + 1)
    row = page.locator(".wb-run", has_text="from elsewhere")
    expect(row).to_contain_text("Done", timeout=LONG)
    expect(row).to_contain_text("KL")
    page.locator(f'.wb-point[href$="/{done}"]').press("Enter")
    expect(page.locator("h1")).to_have_text("four bits")
    expect(page.locator("h1")).to_be_focused()
    page.go_back()
    expect(page.locator("h1")).to_have_text("Workbench")
    page.get_by_text("As a table").click()
    expect(page.locator(".wb-figure-table")).to_contain_text("four bits")
    urllib.request.urlopen(
        urllib.request.Request(f"{studio.url}/api/runs/{made}", headers={"origin": studio.url}, method="DELETE")
    )
    expect(page.locator(".wb-run", has_text="from elsewhere")).to_have_count(0)


def test_everything_goes_by_keyboard(tab: Look) -> None:
    page = tab.goto("/workbench")
    page.get_by_role("link", name="Quantize a model").press("Enter")
    expect(page.locator("h1")).to_have_text("Quantize a model")
    expect(page.locator("h1")).to_be_focused()
    assert page.url.endswith("/workbench/new")
    planned(page)
    page.locator('input[name="format"]:checked').press("ArrowRight")
    expect(page.locator('input[name="format"][value="int5"]')).to_be_checked()
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.wb-start')"):
            break
    else:
        raise AssertionError("Tab does not reach Start")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert float(outline.removesuffix("px")) >= 2


# --- check


def drop(page: Page, path: Path) -> None:
    """Drop a file or folder of this machine on the page, as a file manager does."""
    box = page.locator(".wb-drop").bounding_box()
    assert box
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        session.send("Input.dispatchDragEvent", {"type": kind, "x": box["x"] + 40, "y": box["y"] + 40, "data": data})


def test_a_dropped_folder_is_checked_and_a_damaged_one_found_out(
    tab: Look, studio: Running, done: str, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(studio.data / "runs" / done / "out", folder)
    page = tab.goto("/workbench/check")
    drop(page, folder)
    title = page.locator("#result-title")
    expect(title).to_contain_text("mine is sound", timeout=LONG)
    expect(title).to_be_focused()
    expect(page.locator(".wb-findings")).to_contain_text("two decoders")
    assert tab.axe() == []

    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] = 5
    (folder / "config.json").write_text(json.dumps(config))
    drop(page, folder)
    expect(title).to_contain_text("mine is not sound", timeout=LONG)
    expect(page.locator(".wb-findings")).to_contain_text("BAD")
    assert tab.axe() == []


def test_what_cannot_be_checked_is_said_before_it_is_copied(tab: Look, tmp_path: Path) -> None:
    page = tab.goto("/workbench/check")
    for name, words in (("model.safetensors", "config.json"), ("model.bin", "not opened")):
        (tmp_path / name).write_bytes(b"1234")
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Choose files").click()
        chooser.value.set_files(tmp_path / name)
        expect(page.locator(".wb-trouble")).to_contain_text(words)
        expect(page.locator(".wb-trouble")).to_contain_text("What to do")
    (tmp_path / "broken.onnx").write_bytes(b"1234" * 100)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose files").click()
    chooser.value.set_files(tmp_path / "broken.onnx")
    expect(page.locator("#result-title")).to_contain_text("broken.onnx is not sound", timeout=LONG)


# --- every screen


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_every_screen_is_accessible_and_fits(
    chromium: Browser, studio: Running, done: str, scheme: Any, size: Any
) -> None:
    tab, context = look(chromium, studio, viewport=size, color_scheme=scheme)
    screens = {
        "/workbench": ".wb-point",
        "/workbench/new": ".wb-figures dd",
        f"/workbench/runs/{done}": ".wb-verdict",
        "/workbench/check": ".wb-drop",
        "/workbench/compare": ".wb-point",
        "/workbench/nowhere": "h1",
    }
    for path, sign in screens.items():
        page = tab.goto(path)
        expect(page.locator(sign).first).to_be_visible(timeout=LONG)
        if "/runs/" in path:
            page.locator(".wb-row button").first.click()
            expect(page.locator(".wb-detail-box svg")).to_be_visible(timeout=LONG)
        if path.endswith("/new"):
            planned(page)
        page.wait_for_timeout(500)  # colours on their way are neither the old nor the new ones
        assert tab.axe() == [], path
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], f"{path} scrolls sideways"
        assert page.locator("h1").count() == 1
    page = tab.page
    assert tab.faults == []
    page.goto(f"{studio.url}/workbench/runs/987654")
    expect(page.locator(".wb-trouble")).to_contain_text("no run")
    assert tab.axe() == []
    context.close()


def test_motion_stops_where_none_is_wanted(chromium: Browser, studio: Running, done: str) -> None:
    tab, context = look(chromium, studio, viewport=WIDE, reduced_motion="reduce")
    page = tab.goto(f"/workbench/runs/{done}")
    expect(page.locator(".wb-row").first).to_be_visible(timeout=LONG)
    choose(page, "order", "worst")
    moving = page.evaluate(
        "() => document.getAnimations().filter(a => a.effect.getComputedTiming().duration > 0).length"
    )
    assert moving == 0
    context.close()
    assert tab.faults == []
