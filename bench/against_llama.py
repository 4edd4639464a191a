"""Bitwright's GGUF files against llama.cpp's own quantizer, with and without an importance matrix, at one file size.

    .venv/bin/python bench/against_llama.py [--types q4_k_m,q3_k_m,q2_k] [--only QUANTIZER,...] [--llama FOLDER]
    .venv/bin/python bench/against_llama.py --model FOLDER --calibration TEXT --heldout TEXT --elsewhere TEXT

All start from the same model and the same calibration text, on one thread, one process after the other. What llama.cpp
reads is a BF16 file of the model, and the text of the windows that bench/windows.py chooses from the calibration text:
it makes its own chunks of it, of as many tokens as a window has. bench/referee.py judges every file, loaded by
transformers, on held-out text and on text from elsewhere; llama.cpp's own llama-perplexity judges it on the held-out
text once more. `bitwright-budget` is given the bytes of llama.cpp's file, and no type. An importance matrix counts in
the cost of every file that is made with it. Rows are kept in bench/results/, a file for each model; with --only, those
of other quantizers stand as they were measured. --llama names a folder with llama.cpp's programs; without it they are
built.
"""

import argparse
import re
import shutil
import sys
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gguf import GGUFReader
from llama import programs
from peers import BENCH
from quality import RESULTS, Job, add_job, job_of, judge, keep, succeed

PLAIN, IMATRIX = "llama.cpp", "llama.cpp + imatrix"
EFFORTS = {"bitwright-fast": "fast", "bitwright": "default"}
BUDGET = "bitwright-budget"
QUANTIZERS = (PLAIN, IMATRIX, *EFFORTS, BUDGET)
NORMAL = 1.96
"""Standard errors that a 95 % interval reaches to either side."""


@dataclass(frozen=True)
class Match:
    """What is compared on one model, and where its files lie."""

    job: Job
    llama: Path

    @property
    def place(self):
        """The folder of everything that is written."""
        return RESULTS / f"gguf-{self.job.name}"

    @property
    def float(self):
        """The model's file in BF16."""
        return self.place / "float.gguf"

    @property
    def calibration(self):
        """The text of the calibration windows."""
        return self.place / "calibration.txt"

    @property
    def heldout(self):
        """The text of the held-out windows."""
        return self.place / "heldout.txt"

    def program(self, name, *words):
        """Return the command line of one of llama.cpp's programs."""
        return [str(self.llama / f"llama-{name}"), *map(str, words)]

    def reading(self, name, text, *words):
        """Return that of one which reads text, in chunks of a window's length."""
        return self.program(name, "-f", text, "-c", self.job.length, "-t", 1, "-tb", 1, *words)

    def prepare(self):
        """Write what llama.cpp's programs read.

        In a process of its own, which imports torch: the peak memory of a child begins with its parent's.
        """
        job = self.job
        command = [sys.executable, BENCH / "llama_inputs.py", "--model", job.model, "--float", self.float]
        command += ["--length", job.length, "--calibration", job.calibration, job.windows, self.calibration]
        command += ["--heldout", job.heldout, job.judged, self.heldout]
        self.place.mkdir(parents=True, exist_ok=True)
        succeed(list(map(str, command)), self.place / "inputs.log")

    @cached_property
    def imatrix(self):
        """The importance matrix, and what it cost."""
        file, words = self.place / "imatrix.gguf", ["--parse-special", "--no-ppl"]
        command = self.reading("imatrix", self.calibration, "-m", self.float, "-o", file, *words)
        return file, succeed(command, self.place / "imatrix.log")

    @cached_property
    def base(self):
        """What the float file says of the held-out text, for llama-perplexity."""
        file = self.place / "float.logits"
        words = ["-m", self.float, "--kl-divergence-base", file]
        succeed(self.reading("perplexity", self.heldout, *words), self.place / "float.log")
        return file

    def quantize(self, quantizer, kind, out):
        """Write the file `out`; return the cost of every step by name."""
        log, job = out.with_suffix(".log"), self.job
        if quantizer in EFFORTS or quantizer == BUDGET:
            size = self.file(PLAIN, kind).stat().st_size
            wanted = ["--to", "gguf", "--size", size] if quantizer == BUDGET else ["--type", kind]
            command = [sys.executable, "-m", "bitwright", "quantize", job.model, *wanted, "--threads", 1]
            command += ["--calib", job.calibration, "--windows", job.windows, "--length", job.length]
            command += ["--effort", EFFORTS.get(quantizer, "default"), "-o", out, "--json"]
            return {"quantize": succeed(list(map(str, command)), log)}
        costs, words = {}, []
        if quantizer == IMATRIX:
            file, costs["imatrix"] = self.imatrix
            words = ["--imatrix", file]
        return costs | {"quantize": succeed(self.program("quantize", *words, self.float, out, kind, 1), log)}

    def file(self, quantizer, kind):
        """Return where a file is written."""
        return self.place / f"{quantizer.replace(' ', '')}-{kind}.gguf"

    def second(self, file):
        """Return the mean KL that llama-perplexity finds, with its standard error."""
        log, words = file.with_suffix(".judge.log"), ["--kl-divergence", "--kl-divergence-base", self.base]
        succeed(self.reading("perplexity", self.heldout, "-m", file, *words), log)
        return [float(part) for part in re.search(r"Mean +KLD: +(\S+) ± +(\S+)", log.read_text()).groups()]

    def row(self, quantizer, kind):
        """Quantize and judge; return the row, which names the error where it failed."""
        row = {"peer": quantizer, "type": kind, "date": time.strftime("%Y-%m-%d %H:%M")}
        out = self.file(quantizer, kind)
        for old in self.place.glob(f"{out.stem}.*"):
            shutil.rmtree(old) if old.is_dir() else old.unlink()  # of a run that was killed there is unfinished work
        try:
            steps = self.quantize(quantizer, kind, out)
            row |= {
                "steps": steps,
                "cpu_seconds": sum(cost["cpu_seconds"] for cost in steps.values()),
                "peak_mb": max(cost["peak_mb"] for cost in steps.values()),
                "bytes": out.stat().st_size,
                "tensor_bytes": sum(int(tensor.n_bytes) for tensor in GGUFReader(out).tensors),
            }
            row["kl_llama"], row["kl_llama_se"] = self.second(out)
            return row | judge(self.job, out, sys.executable)
        except (OSError, RuntimeError, ValueError) as error:
            return row | {"error": str(error).replace(f"{BENCH.parent}/", "")[:300]}


def size(row, plain):
    """Say how large a file is, and by what it differs from llama.cpp's without an importance matrix."""
    more, weights = (row[name] - plain[name] for name in ("bytes", "tensor_bytes"))
    said = f"{row['bytes']:,}"
    return f"{said} ({weights:+,} in tensors, {more - weights:+,} in metadata)" if more else said


def entry(row, name, elsewhere):
    """Return a figure of a row, on the first text from elsewhere where so asked; None where the row has none."""
    return row.get(f"{name}_elsewhere", [None])[0] if elsewhere else row.get(name)


def figure(name, digits, scale=1, elsewhere=False):
    """Return a column's function: a figure, with its 95 % interval where it has a standard error."""

    def cell(row, plain, imatrix):
        value, error = (entry(row, each, elsewhere) for each in (name, f"{name}_se"))
        said = f"{scale * value:,.{digits}f}"
        return said if error is None else f"{said} ± {NORMAL * scale * error:.{digits}f}"

    return cell


def ratio(name, elsewhere=False):
    """Return a column's function: a figure as a share of that of llama.cpp with an importance matrix."""
    return lambda row, plain, imatrix: f"{entry(row, name, elsewhere) / entry(imatrix, name, elsewhere):.2f}"


QUALITY = {
    "KL": figure("kl", 5),
    "ratio": ratio("kl"),
    "99.9 % KL": figure("kl_999", 3),
    "top-1 %": figure("top1", 2, 100),
    "perplexity": figure("perplexity", 3),
    "KL by llama-perplexity": figure("kl_llama", 5),
    "its ratio": ratio("kl_llama"),
}
ELSEWHERE = {
    "KL elsewhere": figure("kl", 5, elsewhere=True),
    "ratio": ratio("kl", elsewhere=True),
    "99.9 % KL": figure("kl_999", 3, elsewhere=True),
    "top-1 %": figure("top1", 2, 100, elsewhere=True),
    "perplexity": figure("perplexity", 2, elsewhere=True),
}
COST = {
    "bytes": lambda row, plain, imatrix: size(row, plain),
    "CPU s": figure("cpu_seconds", 1),
    "ratio": ratio("cpu_seconds"),
    "peak MB": figure("peak_mb", 0),
}


def table(rows, types, columns):
    """Yield these columns of the rows of these types as a Markdown table."""
    yield f"| type | quantizer | {' | '.join(columns)} |"
    yield "|" + "---|" * (2 + len(columns))
    for kind in types:
        found = {row["peer"]: row for row in rows if row["type"] == kind}
        for name in QUANTIZERS:
            row, *rivals = (found[each] for each in (name, PLAIN, IMATRIX))
            failed = next((each["error"] for each in (row, *rivals) if "error" in each), None)
            cells = [f"not available: {failed.replace('|', '/')}"] + [""] * (len(columns) - 1) if failed else None
            cells = cells or [cell(row, *rivals) for cell in columns.values()]
            yield f"| {' | '.join([kind.upper(), name, *cells])} |"


def tell(rows, types, elsewhere):
    """Yield what was measured, as lines of Markdown; ratios are to llama.cpp with an importance matrix."""
    for columns in (QUALITY, *([ELSEWHERE] if elsewhere else []), COST):
        yield from table(rows, types, columns)
        yield ""
    whole = next((row for row in rows if "error" not in row), None)
    if whole:
        floats = [whole["perplexity_float"], *whole["perplexity_float_elsewhere"]]
        yield f"Perplexity of the float model: {', elsewhere '.join(f'{each:.3f}' for each in floats)}"


def main():
    """Measure what was asked for, keep the rows, and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", default="q4_k_m,q3_k_m,q2_k", help="comma-separated mixes")
    parser.add_argument("--only", default=",".join(QUANTIZERS), help="comma-separated quantizers")
    parser.add_argument("--llama", type=Path, help="folder of llama.cpp's programs; default: built on first use")
    add_job(parser)
    args = parser.parse_args()
    match = Match(job_of(args), args.llama.resolve() if args.llama else programs())
    match.prepare()
    types = args.types.split(",")
    for kind in types:
        for quantizer in args.only.split(","):
            rows = keep(RESULTS / f"gguf-{match.job.name}.json", match.row(quantizer, kind), ("type",))
    print("\n".join(tell(rows, types, match.job.elsewhere)))


if __name__ == "__main__":
    main()
