"""Networks under a budget beside the mixes that come to mind, all at the bytes of the budget's output or a little more.

    python bench/budgets.py NETWORK.onnx --calib DATA --heldout DATA [--recipe FILE] [--share 0.25 0.5 0.75]
    python bench/budgets.py FOLDER/NETWORK.onnx --drawn [--share 0.5]

A share is that of the way from the smallest output (all layers int4) to the largest (all int8). With --drawn the
network is one of bench/real.py's, and gets its samples. Printed are bytes, KL (of class scores) and lowest SQNR on the
held-out samples, and what the budget predicted. The mixes are int4 for: the first layers, the last ones, the largest,
those whose weights lose the least (SQNR of their rows at int4), and those that bring back least of the error of the
output when they alone stay float (as --max-drop ranks layers).
"""

import argparse
import math
import tempfile
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from real import NETWORKS, SAMPLES

import bitwright
from bitwright.engine.journal import Journal
from bitwright.engine.write import Writer
from bitwright.recipe import Recipe

PACKED = {"storage": "int4"}


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

    def plan(self, **more):
        """A plan of all layers, with tables or options of its own."""
        network = {**self.tables.get("network", {}), **PACKED}
        tables = {**self.tables, "network": network, "rules": more.pop("rules", [])}
        self.made += 1
        out = self.place / f"{self.made}.onnx"
        return bitwright.plan(self.source, out, recipe=tables, threads=1, **self.options, **more)

    def run(self, **more):
        """The certificate of such a job."""
        *_, last = self.plan(**more).run()
        return last.certificate

    def mix(self, order, limit):
        """The certificate with int4 for the first layers of `order` that bring the output down to `limit` bytes."""
        for count in range(1, len(order) + 1):
            rules = [{"match": name, "format": "int4"} for name in order[:count]]
            plan = self.plan(bits=8, rules=rules)
            if plan.job.model._size(plan.job) <= limit:
                return self.run(bits=8, rules=rules)
        return None

    def ranked(self):
        """Layers by what of the output's error each brings back at int4 when it alone stays float, least first."""
        plan = self.plan(bits=4).job
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
    lowest = min(verdict["sqnr_db"].values())
    predicted = found.get("budget", {}).get("predicted", {})
    told = f"{predicted['kl']:.4f}" if "kl" in predicted else ""
    if "noise" in predicted:
        told = f"{-10 * math.log10(predicted['noise']):.1f} dB"
    fours = sum(row["format"].startswith("int4") for row in found["rows"])
    print(
        f"| {name} | {found['output']['bytes']:,} | {fours} of {len(found['rows'])} | {kl} | {lowest:.1f} | {told} |",
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
        job = Job(args.network, tables, options, place)
        print("| layers at int4 | bytes | how many | KL | lowest SQNR (dB) | predicted |\n|---|---|---|---|---|---|")
        ends = [job.run(bits=bits) for bits in (4, 8)]
        for name, found in zip(("all", "none"), ends, strict=True):
            row(name, found)
        least, most = (found["output"]["bytes"] for found in ends)
        names = [each["name"] for each in ends[0]["rows"]]
        size = {each["name"]: each["rows"] * each["columns"] for each in ends[0]["rows"]}
        quiet = {each["name"]: each["sqnr"] for each in ends[0]["rows"]}
        for share in args.share:
            found = job.run(size=round(least + share * (most - least)))
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
                mixed = job.mix(order, limit + (most - least) // 100)
                if mixed is not None:
                    row(name, mixed)


if __name__ == "__main__":
    main()
