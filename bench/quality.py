"""Compare weight quantizers side by side: quality on held-out text, CPU time, memory and size.

    python bench/quality.py [--peers a,b] [--bits 4,3] [--group 128]
    python bench/quality.py --model FOLDER --calibration TEXT --heldout TEXT --elsewhere TEXT --windows 32 --judged 12

Every peer quantizes the same model in its own environment and process, on one thread; the referee
judges what comes out, on held-out text and on text from elsewhere. Rows are kept in bench/results/,
a file for each model, and replaced when measured again.
"""

import argparse
import json
import math
import os
import shutil
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from peers import BENCH, PACKED_BITS, PEERS, REFEREE, environment

ROOT = BENCH.parent
SHARED = ROOT.parent / "shared"
TEXT = SHARED / "data" / "text"
RESULTS = BENCH / "results"
ONE_THREAD = {
    **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS", "RAYON")},
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}


@dataclass(frozen=True)
class Job:
    """What every peer is given, and what the referee judges on."""

    model: Path = SHARED / "models" / "docs18m"
    calibration: Path = TEXT / "docs-calibration.jsonl"
    heldout: Path = TEXT / "docs-heldout.jsonl"
    elsewhere: Path | None = None
    windows: int = 128
    judged: int = 64
    length: int = 256

    @property
    def name(self):
        """The model's."""
        return self.model.resolve().name


def measured(command, log):
    """Run a command; return its exit code and its cost: CPU seconds and peak memory, imports included."""
    start = time.monotonic()
    with open(log, "wb") as sink:
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | ONE_THREAD, stdout=sink, stderr=sink)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, {
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss * 1024 / 1e6,
        "wall_seconds": time.monotonic() - start,
        "load_average": os.getloadavg()[0],
    }


def succeed(command, log):
    """Run a command and return its cost; RuntimeError with the last line it said where it fails."""
    code, cost = measured(command, log)
    if code:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise RuntimeError(f"exit {code}: {lines[-1].strip() if lines else 'no output'}")
    return cost


def stored_bits(folder, bits):
    """Return the bits per weight that a packed model folder spends on its quantized layers, or None."""
    total = weights = 0
    for file in folder.glob("*.safetensors"):
        with open(file, "rb") as stream:
            header = json.loads(stream.read(struct.unpack("<Q", stream.read(8))[0]))
        for name, tensor in header.items():
            if name.endswith(("weight_packed", "weight_scale", "weight_zero_point")):
                begin, end = tensor["data_offsets"]
                total += 8 * (end - begin)
                if name.endswith("weight_packed"):
                    weights += 8 * (end - begin) // bits
    return total / weights if weights else None


def judge(job, folder, python=None):
    """Return the referee's figures for a result folder; it runs in its own environment unless a Python is given."""
    texts = [job.heldout] if job.elsewhere is None else [job.heldout, job.elsewhere]
    command = [python or environment(REFEREE), str(BENCH / "referee.py"), "--model", job.model, "--candidate", folder]
    command += ["--windows", str(job.judged), "--length", str(job.length), "--heldout", *texts]
    answer = subprocess.run(command, check=False, env=os.environ | ONE_THREAD, capture_output=True, text=True)
    if answer.returncode:
        raise RuntimeError(f"referee, exit {answer.returncode}: {answer.stderr.strip()[-200:]}")
    return json.loads(answer.stdout)


def measure(job, name, bits, group):
    """Run one peer and judge it; return its row, which names the error when it failed."""
    row = {"peer": name, "bits": bits, "group": group, "date": time.strftime("%Y-%m-%d %H:%M")}
    out = RESULTS / f"{job.name}-{name}-{bits}-{group}"
    log = RESULTS / f"{out.name}.log"
    shutil.rmtree(out, ignore_errors=True)
    try:
        data = {"calibration": job.calibration, "windows": job.windows, "length": job.length}
        settings = {"model": job.model, **data, "bits": bits, "group": group, "out": out}
        cost = succeed(PEERS[name].command(**settings), log)
        info = out / "info.json"
        ours = out / "certificate.json"
        if info.exists():
            row |= json.loads(info.read_text())
        elif ours.exists() and bits not in PACKED_BITS:  # simulated: the bits the format would take
            row["stored_bits_per_weight"] = json.loads(ours.read_text())["stored_bits_per_weight"]
        else:
            row["stored_bits_per_weight"] = stored_bits(out, bits)
        return row | cost | judge(job, out) | {"peer": name}
    except (OSError, RuntimeError, ValueError, subprocess.CalledProcessError) as error:
        return row | {"error": str(error).replace(f"{ROOT}/", "")[:300]}


def table(rows):
    """Return the rows as a Markdown table."""
    lines = [
        "| bits | group | tool | stored bits | KL (nats/token) | elsewhere | top-1 % | perplexity | CPU s | peak MB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row["bits"], row["group"], row["peer"]]
        if "error" in row:
            cells += [f"not available: {row['error'].replace('|', '/')}"] + [""] * 6
        else:
            stored = row["stored_bits_per_weight"]
            cells += [
                f"{stored:.3f}" if stored else "",
                f"{row['kl']:.4f} ± {row['kl_se']:.4f}",
                ", ".join(f"{kl:.4f}" for kl in row["kl_elsewhere"]),
                f"{100 * row['top1']:.1f}",
                f"{row['perplexity']:.2f}",
                f"{row['cpu_seconds']:.0f}",
                f"{row['peak_mb']:.0f}",
            ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def keep(record, row, same=("bits", "group")):
    """Put a row into the record in place of its predecessor; return all rows by what is the `same`, then quality."""
    rows = json.loads(record.read_text()) if record.exists() else []
    rows = [old for old in rows if any(old[key] != row[key] for key in ("peer", *same))] + [row]
    rows.sort(key=lambda each: (*(each[key] for key in same), each.get("kl", math.inf), each["peer"]))
    record.write_text(json.dumps(rows, indent=1) + "\n")
    return rows


def add_job(parser):
    """Add the options that say what every peer is given."""
    for option in ("model", "calibration", "heldout", "elsewhere"):
        parser.add_argument(f"--{option}", type=lambda path: Path(path).resolve(), default=getattr(Job, option))
    parser.add_argument("--windows", type=int, default=Job.windows, help="of calibration")
    parser.add_argument("--judged", type=int, default=Job.judged, help="windows of each held-out text")


def job_of(args):
    """Return the job that those options describe."""
    return Job(args.model, args.calibration, args.heldout, args.elsewhere, args.windows, args.judged)


def main():
    """Measure what was asked for, keep it with the earlier rows, and print them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated; default: all")
    parser.add_argument("--bits", default="4,3", help="comma-separated widths")
    parser.add_argument("--group", type=int, default=128, help="weights that share one scale")
    add_job(parser)
    args = parser.parse_args()
    job = job_of(args)
    RESULTS.mkdir(exist_ok=True)
    for bits in map(int, args.bits.split(",")):
        for name in args.peers.split(","):
            rows = keep(RESULTS / f"quality-{job.name}.json", measure(job, name, bits, args.group))
    print(table(sorted(rows, key=lambda row: -row["bits"])))


if __name__ == "__main__":
    main()
