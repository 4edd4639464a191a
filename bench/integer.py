"""Compare integer quantizers of ONNX networks side by side: quality on held-out samples, latency, CPU time and size.

    python bench/integer.py [--networks resnet20,words] [--tables w8a8,w4a8,steps] [--rows a,b]

Every row calibrates on the same 256 samples and writes an ONNX file in a process of its own; `onnx_referee.py` (ONNX
Runtime and NumPy only) judges it. Bitwright runs as a user runs it, its own certification included. Rows are kept in
bench/results/integer.json and replaced when measured again; the tables are Markdown, for docs/benchmarks.md.
"""

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import onnx_networks
from peers import BENCH, SCRIPTS, environment
from quality import RESULTS, ROOT, measured

ORT = ("MinMax", "Entropy", "Percentile")
AIMET_STEPS = 1000
LAYER = {"format": "int8", "group": "channel", "method": "descent"}
PLAIN = {"equalize": False, "bias": "none", "entrance": "int8"}


@dataclass(frozen=True)
class Row:
    """One line of a table: who, with which options. `recipe` is ours; `activations` False takes them out again."""

    peer: str
    bits: int = 8
    options: tuple = ()
    layer: dict = field(default_factory=dict)
    network: dict = field(default_factory=dict)
    activations: bool = True

    def command(self, network, folder, out):
        """Return the command line that writes `out`; `folder` holds the calibration samples."""
        if self.peer == "bitwright":
            path = folder / f"{out.stem}.toml"
            path.write_text(recipe(self, network))
            command = [Path(sys.executable).parent / "bitwright", "quantize", network.model]
            command += ["--calib", network.calibration, "--recipe", path, "-o", out, "--threads", "1", "--json"]
        else:
            python = environment("aimet") if self.peer == "aimet" else sys.executable
            command = [python, SCRIPTS / f"{self.peer}.py", "--model", network.model, "--bits", self.bits]
            command += ["--calibration", folder / "calibration.npz", "--out", out, *self.options]
        return [str(part) for part in command]


def tables():
    """Return {table: {label: Row}}."""
    eight, four = {"format": "int8"}, {"format": "int4"}
    nearest = {"method": "rtn"}
    w8a8 = {f"ONNX Runtime, {rule}": Row("ort_static", options=("--rule", rule)) for rule in ORT}
    w8a8 |= {
        "aimet-onnx, TF-enhanced": Row("aimet"),
        "Bitwright": Row("bitwright", layer=eight),
        "Bitwright, input in integers too": Row("bitwright", layer=eight, network={"entrance": "int8"}),
    }
    w4a8 = {
        "ONNX Runtime, MinMax, QInt4": Row("ort_static", 4, ("--rule", "MinMax")),
        "ONNX Runtime, Percentile, QInt4": Row("ort_static", 4, ("--rule", "Percentile")),
        "aimet-onnx, TF-enhanced": Row("aimet", 4),
        f"aimet-onnx, AdaRound {AIMET_STEPS:,}": Row("aimet", 4, ("--adaround", str(AIMET_STEPS))),
        "round to nearest (Bitwright's)": Row("bitwright", 4, layer=four | nearest, network=PLAIN),
        "Bitwright": Row("bitwright", 4, layer=four),
        "Bitwright, AdaRound": Row("bitwright", 4, layer=four | {"method": "adaround"}),
    }
    steps = {}
    for bits, form in ((8, eight), (4, four)):
        rounded, equal = form | nearest, PLAIN | {"equalize": True}
        biased = equal | {"bias": "empirical"}
        entrance = biased | {"entrance": "float"}
        for label, layer, network in (
            ("weights only", rounded, PLAIN),
            ("+ activations", rounded, PLAIN),
            ("+ equalization", rounded, equal),
            ("+ bias correction", rounded, biased),
            ("+ learned rounding", form | {"method": "adaround"}, biased),
            ("or error feedback and descent", form, biased),
            ("+ input and first layer float", form, entrance),
            ("the same without equalization", form, entrance | {"equalize": False}),
        ):
            steps[f"{bits} bits: {label}"] = Row("bitwright", bits, (), layer, network, label != "weights only")
    return {"w8a8": w8a8, "w4a8": w4a8, "steps": steps}


def recipe(row, network):
    """Return the TOML of one of our rows."""
    lines = []
    for name, table in (("layer", LAYER | row.layer), ("network", row.network)):
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    return "\n".join([*lines, network.data]) + "\n"


def without_activations(path):
    """Take all rounding between layers out of an ONNX file: weights alone stay quantized.

    QuantizeLinear, and DequantizeLinear of anything but a constant, become wires; what ran on codes between them
    (Slice, Pad with zeros, pooling) then runs on floats.
    """
    model = onnx.load(path)
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    wires = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "QuantizeLinear" or (node.op_type == "DequantizeLinear" and node.input[0] not in constants)
    }
    kept = [node for node in graph.node if node.output[0] not in wires]
    for node in kept:
        for i, name in enumerate(node.input):
            while name in wires:
                name = wires[name]
            node.input[i] = name
        if node.op_type == "Pad" and len(node.input) > 2:
            node.input[2] = ""  # the code of zero, which is 0 in floats too
    del graph.node[:], graph.value_info[:]
    graph.node.extend(kept)
    onnx.save(model, path)


def measure(label, row, network, folder):
    """Run one row and judge it; the answer names the error when it failed."""
    out = folder / f"{''.join(c if c.isalnum() else '-' for c in label)}-{row.bits}.onnx"
    log = out.with_suffix(".log")
    for old in (out, out.with_name(f"{out.stem}.certificate.json")):
        old.unlink(missing_ok=True)
    found = {"network": network.name, "label": label, "bits": row.bits}
    try:
        code, cost = measured(row.command(network, folder, out), log)
        if code:
            lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            raise RuntimeError(f"exit {code}: {lines[-1].strip() if lines else 'no output'}")
        if not row.activations:
            without_activations(out)
        command = [sys.executable, BENCH / "onnx_referee.py", "--model", network.model, "--candidate", out]
        command += ["--heldout", folder / "heldout.npz"]
        answer = subprocess.run([str(part) for part in command], check=False, capture_output=True, text=True)
        if answer.returncode:
            raise RuntimeError(f"referee, exit {answer.returncode}: {answer.stderr.strip()[-200:]}")
        return found | cost | json.loads(answer.stdout)
    except (OSError, RuntimeError, ValueError, subprocess.CalledProcessError) as error:
        return found | {"error": str(error).replace(f"{ROOT}/", "")[:300]}


COLUMNS = ("accuracy %", "KL (nats)", "same answer %", "SQNR dB", "ms, batch 1", "ms, batch 16", "CPU s", "kB")


def cells(row, timed):
    """Return the cells of one measured row; latencies stand beside those of the float file in the same minute."""
    if "error" in row:
        return [f"not available: {row['error'].replace('|', '/')}"] + [""] * (len(COLUMNS) - 1)
    speeds = [f"{row[f'ms_{b}']:.2f} ({row[f'ms_{b}'] / row[f'ms_float_{b}']:.2f} of float)" for b in (1, 16)]
    return [
        f"{100 * row['accuracy']:.2f}",
        f"{row['kl']:.6f} ± {row['kl_se']:.6f}",
        f"{100 * row['agreement']:.2f}",
        f"{row['sqnr']:.1f}",
        *(speeds if timed else ("", "")),
        f"{row['cpu_seconds']:.0f}",
        f"{row['bytes'] / 1e3:.0f}",
    ]


def table(rows, title):
    """Return rows of one network as a Markdown table with the float network's accuracy in the title."""
    whole = [row for row in rows if "error" not in row]
    lines = []
    if whole:
        first = whole[0]
        lines.append(
            f"{title}: float {100 * first['accuracy_float']:.2f} % of {first['samples']:,.0f} samples "
            f"(standard error of a change: {100 * max(row['change_se'] for row in whole):.2f} points at most), "
            f"{first['bytes_float'] / 1e3:.0f} kB"
        )
    lines += ["", "| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for row in rows:
        lines.append(f"| {row['label']} | " + " | ".join(cells(row, "weights only" not in row["label"])) + " |")
    return "\n".join(lines)


def main():
    """Measure what was asked for, keep it with the earlier rows, and print the tables."""
    every = tables()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default=",".join(onnx_networks.NAMES), help="comma-separated; default: all")
    parser.add_argument("--tables", default=",".join(every), help="comma-separated; default: all")
    parser.add_argument("--rows", default="", help="measure only the rows whose label contains one of these, a,b")
    parser.add_argument("--print", action="store_true", dest="only_print", help="measure nothing, print what is kept")
    args = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    record = RESULTS / "integer.json"
    kept = {tuple(row["key"]): row for row in json.loads(record.read_text())} if record.exists() else {}
    for name in args.networks.split(","):
        folder = RESULTS / f"integer-{name}"
        if not args.only_print:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            network = onnx_networks.open_network(name, folder)
        for kind in args.tables.split(","):
            for label, row in every[kind].items():
                key = (name, kind, label)
                wanted = not args.rows or any(part in label for part in args.rows.split(","))
                if wanted and not args.only_print:
                    kept[key] = {"key": key, **measure(label, row, network, folder)}
                    record.write_text(json.dumps(list(kept.values()), indent=1) + "\n")
            rows = [kept[key] for label in every[kind] if (key := (name, kind, label)) in kept]
            print(f"\n{table(rows, f'{name}, {kind}')}", flush=True)


if __name__ == "__main__":
    main()
