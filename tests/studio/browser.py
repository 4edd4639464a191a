"""A real studio process and a real Chromium, for tests that look at pages as a person does."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

import bitwright.studio
from bitwright.authoring.folder import CONTENT
from bitwright.authoring.library import Library

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
AXE = Path(bitwright.studio.__file__).parent / "web" / "node_modules" / "axe-core" / "axe.min.js"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
]  # fmt: skip
LESSONS = Path(__file__).parents[2] / ".pytest_cache" / "lessons"
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium")


@dataclass
class Running:
    """A studio process: its address, its data folder, and what it said."""

    url: str
    data: Path
    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)

    def stop(self) -> None:
        """Stop it as Ctrl-C does."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()


def start(data: Path, *options: str, port: str = "0", timeout: float = 60) -> Running:
    """Start `bitwright studio` on 127.0.0.1, on a free port unless one is given, and wait for its address."""
    words = [
        sys.executable,
        "-m",
        "bitwright.cli",
        "studio",
        "--no-browser",
        "--port",
        port,
        "--data",
        str(data),
        *options,
    ]
    log = data.parent / f"{data.name}.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=stderr, text=True)
    assert process.stdout is not None
    deadline = time.monotonic() + timeout
    for line in process.stdout:
        found = re.search(r"studio: (http://\S+)", line)
        if found:
            return Running(found[1].rstrip("/"), data, process)
        if time.monotonic() > deadline:
            break
    process.kill()
    raise AssertionError(f"the studio did not start: {log.read_text()[-2000:]}")


COMPILE = """
import sys, traceback
from pathlib import Path
from filelock import FileLock, Timeout
from bitwright.libraries import load
load()
from bitwright.errors import BitwrightError
from bitwright.studio.worker.prepare import lesson
content, cache, *slugs = sys.argv[1:]
for timeout in (0, -1):  # what nobody else is computing; then what somebody else was
    for slug in slugs:
        try:
            with FileLock(Path(cache) / f"{slug}.lock", timeout):
                lesson(content, cache, slug)
        except Timeout:
            pass
        except BitwrightError:
            traceback.print_exc()
"""
"""Lessons shared out among all processes that run this at once. One that cannot be computed is left out: the tests that
need it say so, and only they."""


@pytest.fixture(scope="session")
def compiled() -> Path:
    """A folder with the compiled pages of all lessons, computed once by all workers together, kept from run to run."""
    LESSONS.mkdir(parents=True, exist_ok=True)
    library = Library(CONTENT, LESSONS)
    if missing := [slug for slug in library.lessons if library.page(slug) is None]:
        subprocess.run([sys.executable, "-c", COMPILE, str(CONTENT), str(LESSONS), *missing], check=True)
    return LESSONS


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory, compiled: Path) -> Iterator[Running]:
    """A running studio whose lessons are computed already."""
    data = tmp_path_factory.mktemp("studio") / "data"
    shutil.copytree(compiled, data / "lessons", ignore=shutil.ignore_patterns("*lock"))
    running = start(data, "--models", str(data.parent))
    yield running
    running.stop()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """A browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Look:
    """A tab, with what went wrong in it: console errors, failed or foreign requests."""

    page: Page
    base: str
    faults: list[str] = field(default_factory=list)

    def goto(self, path: str) -> Page:
        """Open a path and wait until its figures are drawn."""
        self.page.goto(self.base + path)
        self.page.wait_for_function(
            "() => document.querySelector('script[type=module]') === null || !document.querySelector('bw-wait') &&"
            " [...document.querySelectorAll('bw-figure')].every(f => f.querySelector('.figure-stage > *'))"
        )
        return self.page

    def axe(self) -> list[str]:
        """What axe-core objects to on the page as it is now: `rule: selector` lines."""
        if not self.page.evaluate("() => 'axe' in window"):
            self.page.evaluate(AXE.read_text("utf-8"))
        # All of a long page, not only what is near the window and so laid out.
        self.page.evaluate(
            "() => document.querySelectorAll('.prose > *').forEach(e => e.style.contentVisibility = 'visible')"
        )
        result: dict[str, Any] = self.page.evaluate(
            "async () => await axe.run(document, {resultTypes: ['violations']})"
        )
        return [
            f"{v['id']}: {node['target']} {json.dumps(node.get('any', [])[:1])[:200]}"
            for v in result["violations"]
            for node in v["nodes"]
        ]


def look(browser: Browser, running: Running, **context: Any) -> tuple[Look, BrowserContext]:
    """A tab that notes console errors and any request to another place than the studio."""
    made = browser.new_context(**context)
    page = made.new_page()
    tab = Look(page, running.url)
    page.on("console", lambda m: tab.faults.append(f"console: {m.text}") if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: tab.faults.append(f"error: {e}"))

    def asked(request: Any) -> None:
        if not request.url.startswith((running.url, "data:", "blob:")):
            tab.faults.append(f"foreign request: {request.url}")

    page.on("request", asked)
    page.on("response", lambda r: tab.faults.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
    return tab, made


@pytest.fixture
def tab(chromium: Browser, studio: Running) -> Iterator[Look]:
    """A tab of a wide window on the running studio; the test fails where anything went wrong in it."""
    opened, context = look(chromium, studio, viewport=WIDE)
    yield opened
    context.close()
    assert opened.faults == []
