"""Submissions through the web API while studios are killed at random: none lost, none judged twice.

    .venv/bin/python bench/submissions.py [--count 10000] [--kills 50] [--studios 2] [--clients 8] [--database URL]

Starts studios of its own on one database (SQLite in a temporary folder unless a PostgreSQL URL is given, whose database
must be empty), submits right and wrong programs from several clients at once, and meanwhile kills a studio with SIGKILL
now and then and starts it again. A trigger in the database writes down every verdict that is given. Prints how many
submissions were taken, how many are lost, without a verdict, judged twice or judged wrongly (all must be 0), and the
time from a submission to its verdict as the client sees it (those cut off by a kill aside).
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import httpx2

sys.path.insert(0, str(Path(__file__).parents[1]))
from bitwright.studio.practice import submissions
from bitwright.studio.store import jobs, learners
from bitwright.studio.store.open import open_database
from tests.studio.house import Studio
from tests.studio.practice.test_judging import audited, verdicts
from tests.studio.problems import RIGHT, WRONG, write


class Client(threading.Thread):
    """Submits until the common store of programs is empty."""

    def __init__(self, studios: list[Studio], left: list[str], seed: int) -> None:
        super().__init__(daemon=True)
        self.studios, self.left, self.random = studios, left, random.Random(seed)
        self.sent: dict[int, str] = {}
        self.seconds: list[float] = []
        self.refused = 0

    def run(self) -> None:
        """One after the other; a program that no studio took is sent again."""
        while True:
            try:
                verdict = self.left.pop()
            except IndexError:
                return
            while not self._submit(verdict):
                time.sleep(0.02)

    def _submit(self, verdict: str) -> bool:
        """Whether a studio took it."""
        code = f"{RIGHT if verdict == 'AC' else WRONG}# {self.random.random()}\n"
        path = f"{self.random.choice(self.studios).url}/api/practice/double/submit"
        begun, taken = time.monotonic(), False
        try:
            with httpx2.stream("POST", path, json={"code": code}, timeout=120) as answer:
                if answer.status_code != 200:
                    self.refused += 1
                    return False
                self.sent[int(answer.headers["x-submission"])] = verdict
                taken = True
                for line in answer.iter_lines():
                    if line == "event: result":
                        self.seconds.append(time.monotonic() - begun)
        except (httpx2.HTTPError, httpx2.StreamError):
            pass
        return taken


def main() -> None:
    """Run it and print a table; exit code 1 where something was lost or judged twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, usual in (("count", 10_000), ("kills", 50), ("studios", 2), ("clients", 8), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--database")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        raise SystemExit(bench(asked, Path(folder)))


def bench(asked: argparse.Namespace, folder: Path) -> int:
    """How many submissions came to harm."""
    data, chosen = folder / "data", random.Random(asked.seed)
    database = open_database(asked.database, data)
    learners.current(database)
    audited(database)
    (folder / "content").mkdir()
    options = {"content": str(write(folder / "content")), "database": asked.database}
    studios = [Studio(data, **options).start() for _ in range(asked.studios)]
    left = [chosen.choice(("AC", "WA")) for _ in range(asked.count)]
    clients = [Client(studios, left, seed) for seed in range(asked.clients)]
    begun = time.monotonic()
    for client in clients:
        client.start()
    marks = sorted(chosen.randrange(asked.count) for _ in range(asked.kills))
    for mark in reversed(marks):
        while len(left) > mark:
            time.sleep(0.005)
        one = chosen.choice(studios)
        one.kill()
        one.start()
    for client in clients:
        client.join()
    took = time.monotonic() - begun
    until = time.monotonic() + 120
    while None in (found := verdicts(database))[0].values() and time.monotonic() < until:
        time.sleep(0.2)
    for one in studios:
        one.kill()
    kept, given = found
    sent = {id: verdict for client in clients for id, verdict in client.sent.items()}
    seconds = sorted(second for client in clients for second in client.seconds)
    again = sum(job.attempts > 1 for job in jobs.list(database, submissions.KIND, limit=10 * asked.count))
    harm = {
        "lost": len(set(sent) - set(kept)),
        "without a verdict": sum(verdict is None for verdict in kept.values()),
        "judged twice": sum(count > 1 for count in given.values()),
        "judged wrongly": sum(kept.get(id) != verdict for id, verdict in sent.items()),
    }
    cut = statistics.quantiles(seconds, n=100) if len(seconds) > 1 else [0.0] * 99
    print("| | |\n|---|---|")
    print(f"| submissions taken by {asked.studios} studios | {len(sent):,} in {took:.0f} s |")
    print(f"| kept, also those whose answer a kill cut off | {len(kept):,} |")
    print(f"| kills of a studio | {asked.kills} |")
    print(f"| begun by a studio that was killed, and begun again | {again:,} |")
    for name, count in harm.items():
        print(f"| {name} | {count} |")
    print(f"| verdicts | {dict(Counter(kept.values()))} |")
    print(f"| submission to verdict, p50 / p95 | {cut[49] * 1e3:.0f} / {cut[94] * 1e3:.0f} ms |")
    database.close()
    return sum(harm.values())


if __name__ == "__main__":
    main()
