"""One network of anybody's against ONNX Runtime's quantizer: SQNR of each output, and latency, one thread.

    python bench/against_static.py FLOAT.onnx OURS.onnx CALIBRATION.npz HELD.npz [--rules MinMax Percentile]

OURS is what `bitwright quantize FLOAT.onnx --calib CALIBRATION.npz` wrote. The peer (bench/peers/ort_static.py)
calibrates on the same samples; those held out judge both. It is given the network with operator set 13, for it
fails on older ones. Sessions take turns, so that all see the same machine; the figure is the ratio of medians to the
float network's.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from bitwright.files.opset import upgrade

PEER = Path(__file__).parent / "peers" / "ort_static.py"


def session(path):
    """A session of one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def sqnr(x, y):
    """10 log10(sum x^2 / sum (x - y)^2) in dB."""
    x, y = (np.concatenate([part.reshape(-1) for part in parts]).astype(np.float64) for parts in (x, y))
    return 10 * np.log10((x**2).sum() / max(((x - y) ** 2).sum(), 1e-300))


def main():
    """Quantize with the peer, run all, print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("float", type=Path)
    parser.add_argument("ours", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("held", type=Path)
    parser.add_argument("--rules", nargs="*", default=["MinMax", "Percentile"])
    parser.add_argument("--repeat", type=int, default=80)
    args = parser.parse_args()
    with np.load(args.held) as data:
        held = {name: data[name] for name in data.files}
    count = len(next(iter(held.values())))
    one = {name: x[:1] for name, x in held.items()}
    with tempfile.TemporaryDirectory() as folder:
        files = {"float": args.float, "ours": args.ours}
        raised = Path(folder) / "raised.onnx"
        onnx.save(upgrade(onnx.load(args.float), 13), raised)
        for rule in args.rules:
            files[rule] = Path(folder) / f"{rule}.onnx"
            command = [sys.executable, PEER, "--model", raised, "--calibration", args.calibration,
                       "--rule", rule, "--batch", "1", "--plain-shapes", "--out", files[rule]]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{rule}: {done.stderr.strip().splitlines()[-1][:150]}")
                del files[rule]
        sessions = {name: session(path) for name, path in files.items()}
        names = [value.name for value in sessions["float"].get_outputs()]
        answers = {
            name: [s.run(names, {k: x[i : i + 1] for k, x in held.items()}) for i in range(count)]
            for name, s in sessions.items()
        }
        times = {name: [] for name in sessions}
        for _ in range(args.repeat):
            for name, s in sessions.items():
                start = time.perf_counter()
                s.run(names, one)
                times[name].append(1000 * (time.perf_counter() - start))
        base = np.median(times["float"])
        for name in sessions:
            parts = zip(zip(*answers["float"], strict=True), zip(*answers[name], strict=True), strict=True)
            levels = " ".join(f"{n} {sqnr(x, y):.1f} dB" for n, (x, y) in zip(names, parts, strict=True))
            size, ms = files[name].stat().st_size / 1e6, np.median(times[name])
            said = "" if name == "float" else levels
            print(f"{name:10s} {size:6.2f} MB {ms:8.3f} ms  {base / ms:5.2f} times the float's speed  {said}")


if __name__ == "__main__":
    main()
