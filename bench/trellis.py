"""Trellis codes: their error on a normal distribution, and a language model beside integers of as many bits.

    python bench/trellis.py                    # with the Python that has bitwright: the table of the distribution
    python bench/trellis.py --model [--windows 128] [--judged 64]

In the second table every row is a command line of its own, on one thread, judged by bench/referee.py on held-out text.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from quality import TEXT, Job, judge, measured

ROWS, COLUMNS = 256, 1024
MODELS = (("int2", 128), ("int2", 64), ("trellis2", None), ("int3", 128), ("trellis3", None))
"""Formats and groups; a trellis has one scale per row."""


def distribution():
    """Mean squared error of each code on unit normal weights, and over what theory allows."""
    import numpy as np

    from bitwright.core.formats import named
    from bitwright.methods import lloyd

    w = np.random.default_rng(0).normal(size=(ROWS, COLUMNS)).astype(np.float32)
    w /= np.sqrt((w * w).mean())
    yield ["bits", "limit", "trellis", "above the limit", "Lloyd-Max", "above the limit"]
    for bits in (2, 3, 4):
        code, book = named(f"trellis{bits}").code, named(f"codebook{bits}", group="tensor")
        x = (w / code.suits).astype(np.float32)[:, None]
        decoded = code.decode(code.nearest(x))[:, 0] * code.suits
        errors = [float(((w - each) ** 2).mean()) for each in (decoded, lloyd.quantize(w, book).decode())]
        limit = 4.0**-bits
        told = [text for error in errors for text in (f"{error:.5f}", f"{error / limit - 1:.1%}".replace("%", " %"))]
        yield [bits, f"{limit:.5f}", *told]


def models(job):
    """Quantize and judge each of `MODELS`."""
    yield ["format", "stored bits per weight", "KL on docs", "on WikiText", "CPU s", "peak MB"]
    for format, group in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            out, log = Path(folder) / "out", Path(folder) / "log"
            words = ["quantize", job.model, "--format", format]
            words += ["--group", group] if group else ["--method", "trellis"]
            words += ["--calib", job.calibration, "--windows", job.windows, "--length", job.length, "--threads", 1]
            words += ["--heldout-windows", 2, "--simulate", "--json", "-o", out]
            code, cost = measured([sys.executable, "-m", "bitwright", *map(str, words)], log)
            if code:
                sys.exit(f"{format}: exit {code}\n{log.read_text(errors='replace')[-2000:]}")
            bits = json.loads(log.read_text().splitlines()[0])["stored_bits_per_weight"]
            found = judge(job, out, sys.executable)
            shutil.rmtree(out)
        figures = [f"{found['kl']:.4f} ± {found['kl_se']:.4f}", f"{found['kl_elsewhere'][0]:.4f}"]
        costs = [f"{cost['cpu_seconds']:.0f}", f"{cost['peak_mb']:.0f}"]
        yield [f"{format} g{group}" if group else format, f"{bits:.3f}", *figures, *costs]


def main():
    """Print one table as its rows come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="store_true", help="quantize docs18m instead")
    parser.add_argument("--windows", type=int, default=Job.windows, help="of calibration")
    parser.add_argument("--judged", type=int, default=Job.judged, help="windows of each held-out text")
    args = parser.parse_args()
    job = Job(elsewhere=TEXT / "wikitext2-valid.txt", windows=args.windows, judged=args.judged)
    for i, cells in enumerate(models(job) if args.model else distribution()):
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
        if i == 0:
            print("|" + "---|" * len(cells), flush=True)


if __name__ == "__main__":
    main()
