"""Networks under a budget beside the mixes that come to mind, all at the bytes of the budget's output or a little more.

    python bench/budgets.py NETWORK.onnx --calib DATA --heldout DATA [--recipe FILE] [--share 0.25 0.5 0.75]
    python bench/budgets.py FOLDER/NETWORK.onnx --drawn [--share 0.5]

A share is that of the way from the smallest output (all layers int4) to the largest (all int8). With --drawn the
network is one of bench/real.py's, and gets its samples. Printed are bytes, KL (of class scores), the SQNR that the mean
noise of the outputs makes (in brackets the lowest of an output) on the held-out samples, and what was predicted. The
mixes are int4 for: the first layers, the last ones, the largest, those whose weights lose the least (SQNR at int4), and
those that bring back least of the output's error when they alone stay float (as --max-drop ranks layers).
"""

import argparse
import math
import tempfile
from bisect import bisect_left
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from real import NETWORKS, SAMPLES

import bitwright
from bitwright.engine.journal import Journal
from bitwright.engine.write import Writer
from bitwright.recipe import Recipe

WIDE = 1000.0
"""Bits per parameter that any output keeps to: formats are then those that rules, or `formats`, leave."""


def drawn(source, place):
    """The tables and options of a network's samples, drawn as bench/real.py draws them."""
    judged, make, recipe, binds = next(rest for pattern, *rest in NETWORKS if fnmatch(source.name, pattern))
    samples, files = make(SAMPLES + judged), [place / "calibration.npz", place / "held.npz"]
    for file, part in zip(files, (slice(SAMPLES), slice(SAMPLES, None)), strict=True):
        np.savez(file, **{name: x[part] for name, x in samples.items()})
    tables = Recipe.loads(recipe).model_dump(exclude_unset=True)
    return tables, {"calib": str(files[0]), "heldout": str(files[1]), "bind": binds_of(binds)}


def binds_of(binds):
    """{dimension: size} of words such as x.2=48."""
    return {name: int(size) for name, _, size in (bind.partition("=") for bind in binds)}


class Job:
    """One network, its recipe and its samples; outputs go to `place`."""

    def __init__(self, source, tables, options, place):
        self.source, self.tables, self.options, self.place, self.made = source, tables, options, place, 0

    def plan(self, rules=(), budget=None, **options):
        """A plan of all layers under a budget: by default a wide one, so that files differ by their codes alone."""
        tables = {**self.tables, "rules": list(rules), "budget": budget or {"bpw": WIDE}}
        self.made += 1
        return bitwright.plan(
            self.source, self.place / f"{self.made}.onnx", recipe=tables, threads=1, **self.options, **options
        )

    def run(self, **given):
        """The certificate of such a job."""
        *_, last = self.plan(**given).run()
        return last.certificate

    def mix(self, order, limit):
        """The certificate with int4 for the first layers of `order` that bring the output down to `limit` bytes."""

        def rules(count):
            return [{"match": name, "format": "int4" if i < count else "int8"} for i, name in enumerate(order)]

        def fits(count):
            return self.plan(rules=rules(count)).job.ends[0].sink.final_bytes <= limit

        count = bisect_left(range(len(order) + 1), True, key=fits)
        return self.run(rules=rules(count))

    def ranked(self):
        """Layers by what of the output's error each brings back at int4 when it alone stays float, least first."""
        plan = self.plan(budget={"bpw": WIDE, "formats": ["int4"]}).job
        plan.partial.mkdir()
        list(Writer(plan, Journal(plan.partial, "rank")).run(plan.model.samples))
        steps = plan.model.rank(plan, plan.model.samples)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value[::-1]


def row(name, found):
    """A line of the table."""
    verdict = found["verdict"]
    kl = f"{verdict['kl']:.4f} ± {verdict['kl_interval']:.4f}" if "kl" in verdict else "-"
    levels = list(verdict["sqnr_db"].values())
    noise = sum(10 ** (-level / 10) for level in levels) / len(levels)
    predicted = found["budget"]["predicted"]
    told = f"KL {predicted['kl']:.4f}" if "kl" in predicted else f"{-10 * math.log10(predicted['noise']):.1f} dB"
    fours = sum(row["format"].startswith("int4") for row in found["rows"])
    print(
        f"| {name} | {found['output']['bytes']:,} | {fours} of {len(found['rows'])} | {kl} "
        f"| {-10 * math.log10(noise):.1f} ({min(levels):.1f}) | {told} |",
        flush=True,
    )


def main():
    """Print the rows of each share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path)
    parser.add_argument("--calib")
    parser.add_argument("--heldout")
    parser.add_argument("--recipe", type=Path)
    parser.add_argument("--drawn", action="store_true")
    parser.add_argument("--task", help="data.task of drawn samples")
    parser.add_argument("--share", type=float, nargs="+", default=[0.5])
    parser.add_argument("--mixes", type=float, nargs="*", default=[0.5], help="shares at which mixes are run, too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if args.drawn:
            tables, options = drawn(args.network, place)
        else:
            tables = Recipe.load(args.recipe).model_dump(exclude_unset=True) if args.recipe else {}
            options = {"calib": args.calib, "heldout": args.heldout}
        tables.pop("layer", None)
        if args.task:
            tables["data"] = {**tables.get("data", {}), "task": args.task}
        job = Job(args.network, tables, options, place)
        print("| layers at int4 | bytes | how many | KL | SQNR (dB) | predicted |\n|---|---|---|---|---|---|")
        ends = [job.run(budget={"bpw": WIDE, "formats": [name]}) for name in ("int4", "int8")]
        for name, found in zip(("all", "none"), ends, strict=True):
            row(name, found)
        least, most = (found["output"]["bytes"] for found in ends)
        names = [each["name"] for each in ends[0]["rows"]]
        size = {each["name"]: each["rows"] * each["columns"] for each in ends[0]["rows"]}
        quiet = {each["name"]: math.inf if each["sqnr"] is None else each["sqnr"] for each in ends[0]["rows"]}
        for share in args.share:
            found = job.run(budget={"size": round(least + share * (most - least))})
            row(f"a budget of {share:.0%}", found)
            if share not in args.mixes:
                continue
            limit = found["output"]["bytes"]
            orders = {
                "the first": names,
                "the last": names[::-1],
                "the largest": sorted(names, key=lambda name: -size[name]),
                "the finest weights": sorted(names, key=lambda name: -quiet[name]),
                "the least of --max-drop": job.ranked(),
            }
            for name, order in orders.items():
                row(name, job.mix(order, limit + (most - least) // 100))


if __name__ == "__main__":
    main()
