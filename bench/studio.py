"""How fast the studio's pages appear, how much they weigh, and how quickly a slider answers.

    .venv/bin/python bench/studio.py [--data FOLDER] [--runs 5]

Starts a studio of its own on a free loopback port, computes what is missing, and opens every page in Chromium with an
empty cache. Prints a Markdown table: first contentful paint (median ms), bytes over the wire (compressed), the number
of requests, and for lessons the slowest figure's answer to one step of its first slider (median ms of work).
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
PROBLEM = "product-except-self"
STEP = """
async (figure) => {
  const input = figure.querySelector('input[type=range]');
  if (!input) return null;
  const times = [];
  for (let i = 0; i < 20; i++) {
    const at = input.valueAsNumber, top = Number(input.max);
    input.value = String(at === top ? at - 1 : at + 1);
    const start = performance.now();
    input.dispatchEvent(new Event('input', {bubbles: true}));
    figure.getBoundingClientRect();
    times.push(performance.now() - start);
    await new Promise(requestAnimationFrame);
  }
  return times.sort((a, b) => a - b)[10];
}
"""
"""One step of a figure's first slider, including style and layout; the browser paints after it."""


@contextmanager
def studio(data: Path) -> Iterator[str]:
    """A running studio's address."""
    command = [sys.executable, "-m", "bitwright.cli", "studio", "--no-browser", "--port", "0", "--data", str(data)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = next(found[1] for line in process.stdout if (found := re.search(r"studio: (http://\S+)/", line)))
        yield address
    finally:
        process.terminate()
        process.wait(30)


def visit(browser: Browser, address: str, path: str) -> dict[str, Any]:
    """One visit with an empty cache."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    protocol = context.new_cdp_session(page)
    protocol.send("Network.enable")
    sizes: list[float] = []
    protocol.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    page.goto(address + path, wait_until="networkidle")
    painted = page.evaluate("() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime")
    slowest = None
    for figure in page.query_selector_all("bw-figure"):
        answer = page.evaluate(STEP, figure)
        slowest = answer if slowest is None else max(slowest, answer or 0)
    context.close()
    return {"fcp": painted, "bytes": sum(sizes), "requests": len(sizes), "step": slowest}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, studio(options.data or Path(folder)) as address:
        entries = json.load(urllib.request.urlopen(f"{address}/api/palette"))
        lessons = [entry["href"] for entry in entries if entry["kind"] == "lesson"]
        for path in lessons:
            urllib.request.urlopen(f"{address}/api/ready/{path.removeprefix('/learn/')}").read()
        urllib.request.urlopen(f"{address}/api/practice/{PROBLEM}/ready").read()
        program = shutil.which("chromium")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
            visit(browser, address, "/learn")  # the first page of a browser pays for its start
            print("| page | first paint ms | kB | requests | slider step ms |\n|---|---|---|---|---|", flush=True)
            for path in ["/today", "/learn", "/practice", f"/practice/{PROBLEM}", "/workbench", "/settings", *lessons]:
                seen = [visit(browser, address, path) for _ in range(options.runs)]
                painted = statistics.median(one["fcp"] for one in seen)
                steps = [one["step"] for one in seen if one["step"] is not None]
                step = f"{statistics.median(steps):.1f}" if steps else ""
                print(
                    f"| {path} | {painted:.0f} | {seen[-1]['bytes'] / 1000:.0f} | {seen[-1]['requests']} | {step} |",
                    flush=True,
                )
            browser.close()


if __name__ == "__main__":
    main()
