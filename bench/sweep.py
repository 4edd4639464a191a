"""A sweep of twelve recipes on one model: wall time and CPU seconds by workers, and what a kill storm costs.

    .venv/bin/python bench/sweep.py --model ../shared/models/docs18m --text ../shared/data/text/docs-calibration.jsonl
                                    [--workers 1,2] [--kills 10]

The recipes are int4, int3 and int2 in groups of 32 and 64, with efforts "fast" and "default". `passes back` counts the
recipes that made output-side curvature themselves: six need it, and share it as far as it is the same. Then the sweep
is killed (SIGKILL) so often, each time some seconds after it began, and run to its end; its outputs are compared with
the others' byte for byte.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GRID = """
output = "float"
[calibration]
source = {text}
windows = 32
heldout_windows = 8
[grid]
effort = ["fast", "default"]
[grid.layer]
format = ["int4", "int3", "int2"]
group = [32, 64]
"""


def command(model: Path, recipe: Path, out: Path, workers: int) -> list[str]:
    """The sweep on the command line."""
    words = [sys.executable, "-m", "bitwright.cli", "sweep", str(model), str(recipe), "-o", str(out)]
    return [*words, "--workers", str(workers), "--json"]


def hashes(out: Path) -> dict[str, dict[str, str]]:
    """The hashes of all outputs, from their certificates."""
    return {
        path.parent.name: json.loads(path.read_text())["output"]["sha256"] for path in out.glob("*/certificate.json")
    }


def measure(words: list[str]) -> tuple[float, float, int]:
    """Run a sweep: seconds, CPU seconds of all its processes, and how many of its recipes passed back."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    back = {e["name"] for e in events if e["event"] == "member" and "back through" in e["of"].get("label", "")}
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, used, len(back)


def storm(words: list[str], kills: int, seconds: float) -> int:
    """Kill the sweep so often at random moments, within so many seconds of its beginning; how often it was running."""
    chance, hit = random.Random(0), 0
    for _ in range(kills):
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                process.wait(chance.uniform(2, seconds))
            except subprocess.TimeoutExpired:
                process.kill()
                hit += 1
    return hit


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--kills", type=int, default=10)
    given = parser.parse_args()
    counts = [int(count) for count in given.workers.split(",")]
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        recipe = home / "grid.toml"
        recipe.write_text(GRID.format(text=json.dumps(str(given.text.resolve()))))
        print("| workers | seconds | CPU s | passes back |\n|---|---|---|---|")
        made = []
        for count in counts:
            out = home / f"by-{count}"
            seconds, used, back = measure(command(given.model, recipe, out, count))
            made.append(hashes(out))
            print(f"| {count} | {seconds:.0f} | {used:.0f} | {back} |", flush=True)
        print(f"\nthe same {len(made[0])} outputs: {all(found == made[0] for found in made)}")
        if given.kills:
            out = home / "killed"
            words = command(given.model, recipe, out, counts[-1])
            hit = storm(words, given.kills, 60)
            seconds, used, _ = measure(words)
            print(f"killed {hit} times, then done in {seconds:.0f} s: the same outputs: {hashes(out) == made[0]}")
            shutil.rmtree(out)


if __name__ == "__main__":
    main()
