"""Every real model through plan, quantize, check, measure and report, as a stranger would type it: one table row each.

    python scripts/real_models.py FOLDER
    python bench/real.py FOLDER [--only NAME ...] [--text FILE] [--elsewhere FILE] [--peers a,b]

FOLDER holds language models (folders with a config.json) and .onnx files. Language models are quantized to 4 and to
3 bits with all defaults, on 32 windows of the beginning of --text and judged on its end; --elsewhere is text of another
domain; bench/quality.py sets other quantizers beside them, at the largest group that fits all matrices. Networks get
drawn samples: pages of text for PP-OCR, smooth pictures for MTCNN, chirps in noise for Silero VAD;
bench/against_static.py sets ONNX Runtime's static quantizer beside them; beside those with state stands its dynamic
one. tests/test_real_models.py runs a small part.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from onnxruntime.quantization import quantize_dynamic
from PIL import Image, ImageDraw
from quality import SHARED, Job, measure, table

BITWRIGHT = [sys.executable, "-m", "bitwright"]
PEER = Path(__file__).parent / "against_static.py"
SAMPLES, CALLS = 32, 8
"""Samples of calibration, and calls of each sample of a network with state."""
TEXT = ("Quantize", "scale", "4096", "zero point", "INVOICE", "café", "bit by bit", "3.14", "group size", "Total: 82 %")


def pages(count, height, width):
    """Drawn text, float32 [count, 3, height, width] in -1 to 1."""
    found = []
    for number in range(count):
        rng = np.random.default_rng(number)
        paper, ink = ((int(v) for v in rng.integers(low, low + 90, 3)) for low in rng.permutation((0, 166)))
        page, size, ink = Image.new("RGB", (width, height), tuple(paper)), int(rng.integers(18, 36)), tuple(ink)
        draw = ImageDraw.Draw(page)
        for y in range(4, max(height - size, 5), size + 14):
            draw.text((int(rng.integers(0, 12)), y), " ".join(rng.choice(TEXT, 6)), fill=ink, font_size=size)
        found.append(np.asarray(page, np.float32).transpose(2, 0, 1) / 127.5 - 1)
    return np.stack(found)


def pictures(count, size):
    """Smooth random pictures, float32 [count, size, size, 3] in -1 to 1: noise at four scales."""
    rng, found = np.random.default_rng(0), np.zeros((count, size, size, 3))
    for cells in (2, 4, 8, 16):
        coarse = rng.normal(size=(count, cells, cells, 3))
        where = np.linspace(0, cells - 1, size).round().astype(int)
        found += coarse[:, where][:, :, where] / cells**0.5
    return np.tanh(found).astype(np.float32)


def chirps(*shape):
    """Tones that glide, with noise and silence between: float32 [*shape], at 16 kHz."""
    rng, count = np.random.default_rng(0), int(np.prod(shape[:-1]))
    time = np.arange(shape[-1] * count) / 16000
    glide = np.sin(2 * np.pi * (120 * time + 60 * np.sin(2 * np.pi * 0.7 * time))) * (np.sin(2 * np.pi * time / 3) > 0)
    return (0.3 * glide + 0.02 * rng.normal(size=time.shape)).reshape(shape).astype(np.float32)


WHOLE = '[network]\nbatch = { input = "none" }\n'
RATE = "[network]\nconstant = { sr = 16000 }\n"
NETWORKS = (
    ("*det_infer*", 16, lambda count: {"x": pages(count, 160, 320)}, "", ["x.2=160", "x.3=320"]),
    ("*rec_infer*", 16, lambda count: {"x": pages(count, 48, 320)}, "", ["x.2=48", "x.3=320"]),
    ("*cls_infer*", 128, lambda count: {"x": pages(count, 48, 192)}, "", ["x.2=48", "x.3=192"]),
    ("pnet*", 128, lambda count: {"input_1": pictures(count, 48)}, "", ["M1=48", "M2=48"]),
    ("rnet*", 128, lambda count: {"input_2": pictures(count, 24)}, "", []),
    ("onet*", 128, lambda count: {"input_3": pictures(count, 48)}, "", []),
    ("*sequence*", 16, lambda count: {"input": chirps(count, CALLS, 16, 576)}, WHOLE, ["sequence_length=16"]),
    ("*openvino*", 16, lambda count: {"input": chirps(count, CALLS, 1, 576)[:, :, 0]}, "", []),
    ("*half*", 16, lambda count: {"input": chirps(count, CALLS, 576)}, "", ["sequence=576"]),
    ("silero_vad.onnx", 16, lambda count: {"input": chirps(count, CALLS, 576)}, RATE, ["input.1=576"]),
    ("silero*", 16, lambda count: {"input": chirps(count, CALLS, 576)}, RATE, ["sequence=576"]),
)
"""Pattern of a file's name, samples that judge it, all its samples, its recipe, and sizes of its open dimensions."""
STATEFUL = ("silero*",)
"""Networks with state, which ONNX Runtime's static quantizer is not given."""


def call(*words):
    """Run `bitwright` with these words and --json: exit code, events, and its last line where it failed."""
    done = subprocess.run([*BITWRIGHT, *map(str, words), "--json"], capture_output=True, text=True, check=False)
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return done.returncode, events, (done.stderr.strip().splitlines() or [""])[-1]


def run(source, out, *options):
    """Quantize, check and report: the plan's event, the certificate (None after an error), and what came of it."""
    code, events, said = call("quantize", source, "-o", out, "--threads", 1, *options)
    plan = next((event for event in events if event["event"] == "plan"), {})
    if code:
        return plan, None, f"exit code {code}: {said}"
    checked, *_ = call("check", out, "--against", source)
    reported = subprocess.run([*BITWRIGHT, "report", str(out)], capture_output=True, check=False).returncode
    return (
        plan,
        events[-1]["certificate"],
        "sound" if checked == reported == 0 else f"check {checked}, report {reported}",
    )


def split(text, place):
    """Two files: what calibration reads of a text, four fifths, and what is held out."""
    whole = text.read_bytes()
    calibration, held = place / "calibration.txt", place / "held.txt"
    calibration.write_bytes(whole[: len(whole) * 4 // 5])
    held.write_bytes(whole[len(whole) * 4 // 5 :])
    return calibration, held


def language(folder, calibration, held, place, *options, windows=32, judged=12):
    """Take a language model through all commands: its output, the plan's event, the certificate, what came of it."""
    out = place / f"{folder.name}-{'-'.join(options)}"
    data = ["--calib", calibration, "--windows", windows, "--heldout", held, "--heldout-windows", judged]
    return out, *run(folder, out, *data, *options)


def language_rows(folder, text, elsewhere, peers, place):
    """Print the rows of a language model, and what others make of it."""
    calibration, held = split(text, place)
    for bits in (4, 3):
        to = [] if bits == 4 else ["--simulate"]  # 3 bits are packed by compressed-tensors 0.18 and later only
        out, plan, found, said = language(folder, calibration, held, place, "--bits", str(bits), *to)
        if found is None:
            print(f"| {folder.name} | {bits} | {said} |")
            continue
        outside = {}
        if elsewhere is not None:
            outside = call("measure", folder, out, "--heldout", elsewhere, "--windows", 12, "--length", 256)[1][-1]
        verdict, size = found["verdict"], found["output"]["bytes"] / found["source"]["bytes"]
        print(
            f"| {folder.name} | {bits} | {found['stored_bits_per_weight']:.3f} | {size:.0%} "
            f"| {verdict['kl']:.4f} ± {verdict['kl_interval']:.4f} | {outside.get('kl', float('nan')):.4f} "
            f"| {found['peak_memory_bytes'] / 1e6:,.0f} ({plan['peak_memory_bytes'] / 1e6:,.0f}) | {said} |",
            flush=True,
        )
        if peers:
            job = Job(folder.resolve(), calibration, held, elsewhere, windows=32, judged=12)
            group = min(int(size) for row in plan["quantized"] for size in re.findall(r"g(\d+)", row["format"]))
            print("\n" + table([measure(job, name, bits, group) for name in ["bitwright", *peers]]) + "\n", flush=True)


def network(source, place):
    """Take a network through all commands: its output, both data files, the plan's event, the certificate, its end."""
    judged, make, recipe, binds = next(rest for pattern, *rest in NETWORKS if fnmatch(source.name, pattern))
    calibration, held, table = (place / f"{source.stem}{end}" for end in (".npz", "-held.npz", ".toml"))
    samples = make(SAMPLES + judged)
    np.savez(calibration, **{name: x[:SAMPLES] for name, x in samples.items()})
    np.savez(held, **{name: x[SAMPLES:] for name, x in samples.items()})
    table.write_text(recipe)
    options = ["--calib", calibration, "--heldout", held, "--recipe", table]
    options += [word for bind in binds for word in ("--bind", bind)]
    out = place / f"{source.stem}-int.onnx"
    return out, (calibration, held), *run(source, out, *options)


def network_rows(source, place):
    """Print the row of a network, and what ONNX Runtime's quantizer makes of it where it takes such samples."""
    out, data, plan, found, said = network(source, place)
    if found is None:
        print(f"| {source.stem} | {said} |", flush=True)
        return
    verdict, speed = found["verdict"], found["speed"]
    lowest = min(verdict["sqnr_db"].values())
    print(
        f"| {source.stem} | {found['output']['bytes'] / found['source']['bytes']:.0%} | {lowest:.1f} "
        f"| {plan['integer_share']:.0%} | {speed['ratio']:.2f} | {said} |",
        flush=True,
    )
    if any(fnmatch(source.name, pattern) for pattern in STATEFUL):
        print(dynamic(source, out, data[1], place), flush=True)
    else:
        words = [sys.executable, PEER, source, out, *data, "--repeat", "40"]
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
        print(done.stdout or done.stderr[-300:], flush=True)


def dynamic(source, out, held, place):
    """ONNX Runtime's quantize_dynamic beside `out`: size, and lowest SQNR of both with the state that each carries."""
    peer = place / f"{source.stem}-dynamic.onnx"
    try:
        quantize_dynamic(source, peer, extra_options={"EnableSubgraph": True})
    except ValueError as error:
        return f"quantize_dynamic: {str(error).splitlines()[0]}"
    recipe, lowest = place / f"{source.stem}.toml", []
    for file in (out, peer):
        _, events, _ = call("measure", source, file, "--heldout", held, "--recipe", recipe)
        lowest.append(min(events[-1]["sqnr_db"].values()))
    size = peer.stat().st_size / source.stat().st_size
    return f"quantize_dynamic: size {size:.0%}, lowest SQNR {lowest[1]:.1f} dB; of ours {lowest[0]:.1f} dB"


def main():
    """Print the rows of each model of the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=["*"], help="patterns of names")
    parser.add_argument("--text", type=Path, default=SHARED / "data" / "text" / "wikitext2-valid.txt")
    parser.add_argument("--elsewhere", type=Path, default=SHARED / "data" / "text" / "docs-heldout.jsonl")
    parser.add_argument("--peers", default="llm-compressor", help="of bench/peers.py, comma-separated; may be empty")
    args = parser.parse_args()
    chosen = [path for path in sorted(args.folder.iterdir()) if any(fnmatch(path.name, one) for one in args.only)]
    elsewhere = args.elsewhere.resolve() if args.elsewhere.is_file() else None
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        models = [path for path in chosen if (path / "config.json").is_file()]
        if models:
            print("| model | bits | stored bits | size | KL in domain | KL elsewhere | peak MB (plan) | then |")
            print("|---|---|---|---|---|---|---|---|")
        for path in models:
            language_rows(path, args.text, elsewhere, [name for name in args.peers.split(",") if name], place)
        networks = [path for path in chosen if path.suffix == ".onnx"]
        if networks:
            print("| network | size | lowest SQNR (dB) | in integers | speed | then |")
            print("|---|---|---|---|---|---|")
        for path in networks:
            network_rows(path, place)


if __name__ == "__main__":
    main()
