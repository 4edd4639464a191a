"""Independent judge of integer networks: ONNX Runtime and NumPy only, none of Bitwright's code.

Runs a float ONNX file and a quantized one on the same held-out samples and prints JSON: accuracy of both, the mean of
KL(float || integer) of the softmax outputs in nats with its standard error, how often both give the same answer, the
SQNR of the outputs in dB, and the latency of both on one thread, runs interleaved, as medians in milliseconds.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

BATCH = 100
FLOAT = ("Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")


def session(path, optimized=None):
    """Open an ONNX file on one thread; `optimized`: where to leave what ONNX Runtime really runs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if optimized:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def answers(run, feeds):
    """Return the first output of a session for all samples, float64 [samples, classes]."""
    count = len(next(iter(feeds.values())))
    parts = [run.run(None, {n: x[i : i + BATCH] for n, x in feeds.items()})[0] for i in range(0, count, BATCH)]
    return np.concatenate(parts).astype(np.float64)


def log_softmax(z):
    """Return log softmax over the last axis."""
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def quality(z, z_hat, labels):
    """Return the figures that compare float outputs `z` with integer ones `z_hat` [samples, classes]."""
    p, q = log_softmax(z), log_softmax(z_hat)
    kl = (np.exp(p) * (p - q)).sum(-1)
    right, right_hat = z.argmax(-1) == labels, z_hat.argmax(-1) == labels
    gained = right_hat.astype(float) - right
    root = len(labels) ** 0.5
    return {
        "samples": len(labels),
        "accuracy_float": right.mean(),
        "accuracy": right_hat.mean(),
        "change_se": gained.std() / root,
        "kl": kl.mean(),
        "kl_se": kl.std() / root,
        "agreement": (z.argmax(-1) == z_hat.argmax(-1)).mean(),
        "sqnr": 10 * np.log10((z**2).sum() / max(((z - z_hat) ** 2).sum(), 1e-300)),
    }


def latency(runs, feeds, seconds):
    """Return the median milliseconds of each session, taken in turn for `seconds` after a warm-up."""
    times = [[] for _ in runs]
    for run in runs:
        run.run(None, feeds)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 20:
        for run, each in zip(runs, times, strict=True):
            start = time.perf_counter()
            run.run(None, feeds)
            each.append(time.perf_counter() - start)
    return [1e3 * float(np.median(each)) for each in times]


def main():
    """Judge one candidate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="float ONNX file")
    parser.add_argument("--candidate", required=True, help="integer ONNX file")
    parser.add_argument("--heldout", required=True, help=".npz: an array for each input, and `labels`")
    parser.add_argument("--seconds", type=float, default=2.0, help="of timing, for each batch size")
    args = parser.parse_args()
    with np.load(args.heldout) as data:
        feeds = {name: data[name] for name in data.files if name != "labels"}
        labels = data["labels"]
    optimized = Path(args.candidate).with_suffix(".optimized")
    runs = session(args.model), session(args.candidate, optimized)
    ops = Counter(node.op_type for node in onnx.load(optimized).graph.node)
    optimized.unlink()
    row = quality(*(answers(run, feeds) for run in runs), labels)
    row["float_products"] = sum(ops[op] for op in FLOAT)
    row["bytes"], row["bytes_float"] = Path(args.candidate).stat().st_size, Path(args.model).stat().st_size
    for batch in (1, 16):
        row[f"ms_float_{batch}"], row[f"ms_{batch}"] = latency(
            runs, {name: x[:batch] for name, x in feeds.items()}, args.seconds
        )
    print(json.dumps({name: float(value) for name, value in row.items()}))


if __name__ == "__main__":
    main()
