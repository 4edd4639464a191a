"""What each part of the solver is worth, and which damping suits how much text: the tables of docs/solver.md.

    python bench/solver.py [--bits 3,4] [--windows 128] [--judged 64]     # with the Python that has bitwright
    python bench/solver.py --damping

Every row is a command line of its own, on one thread, judged by bench/referee.py on held-out text in and out of domain.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from quality import TEXT, Job, judge, measured

PARTS = {
    "descent alone: `fast`": (False, 0),
    "+ corrected targets": (True, 0),
    "+ outputs weighed": (False, 16),
    "both: `default`": (True, 16),
    "both, outputs from all windows: `best`": (True, 128),
}
"""Whether targets are corrected, and windows on which outputs are weighed."""
DAMPINGS = (0.01, 0.03, 0.1, 0.3, 1.0)
LAYERS = ("0.mlp.gate_proj", "1.self_attn.o_proj", "2.self_attn.q_proj", "2.mlp.gate_proj", "2.mlp.down_proj")
TOKENS = (2, 8, 16)
"""Per input column."""
GROUP = 128


def quantize(part, words):
    """Run the command line in this process, its default effort being a part of the solver."""
    from bitwright.cli import app
    from bitwright.models.effort import EFFORTS, Effort

    EFFORTS["default"] = Effort(*PARTS[part])
    app(["quantize", *words], prog_name="bitwright")


def row(job, part, bits, folder):
    """Quantize in a process of its own and judge what comes out; return the row of the table."""
    out, log = folder / "out", folder / "log"
    shutil.rmtree(out, ignore_errors=True)
    words = [job.model, "--bits", bits, "--group", GROUP, "--calib", job.calibration, "--windows", job.windows]
    words += ["--length", job.length, "--threads", 1, "--heldout-windows", 2, "--simulate", "--json", "-o", out]
    code, cost = measured([sys.executable, __file__, "--part", part, "--", *map(str, words)], log)
    if code:
        sys.exit(f"{part}, {bits} bits: exit {code}\n{log.read_text(errors='replace')[-2000:]}")
    effort = json.loads(log.read_text().splitlines()[0])["effort"]  # of the plan
    if (effort["corrects"], effort["weighing"]) != (PARTS[part][0], min(PARTS[part][1], job.windows)):
        sys.exit(f"{part}: what ran was {effort}")
    found = judge(job, out, sys.executable)
    figures = [f"{found['kl']:.4f} ± {found['kl_se']:.4f}", f"{found['kl_elsewhere'][0]:.4f}"]
    return [bits, part, *figures, f"{cost['cpu_seconds']:.0f}", f"{cost['peak_mb']:.0f}"]


def parts(job, widths):
    """The ablation, a row at a time."""
    yield ["bits", "what", "KL on docs", "on WikiText", "CPU s", "peak MB"]
    with tempfile.TemporaryDirectory() as folder:
        for bits in widths:
            for part in PARTS:
                yield row(job, part, bits, Path(folder))


def dampings(job):
    """Error on other tokens, over that of the best damping, with the rule's and with constant ones."""
    import torch
    from transformers import AutoModelForCausalLM
    from windows import token_windows

    from bitwright.core.formats import named
    from bitwright.core.measure import layer_error
    from bitwright.core.stats import Stats
    from bitwright.methods import descent, gptq

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32).eval()
    modules = {layer: model.get_submodule(f"model.layers.{layer}") for layer in LAYERS}
    seen = {layer: [] for layer in LAYERS}
    for layer, module in modules.items():
        module.register_forward_pre_hook(lambda _, args, rows=seen[layer]: rows.append(args[0].flatten(0, 1)))
    with torch.inference_mode():
        for batch in token_windows(job.model, job.calibration, 96, job.length).split(8):
            model.model(batch)
    yield ["layer", "tokens per column", "the rule says", "its error", *(f"with {each:g}" for each in DAMPINGS)]
    for layer, module in modules.items():
        x, w = torch.cat(seen[layer]).numpy(), module.weight.detach().numpy()
        half, format = len(x) // 2, named("int4", group=GROUP)
        other = Stats.of(x[half:]).hessian
        for each in TOKENS:
            if each * w.shape[1] > half:
                continue
            stats = Stats.of(x[: each * w.shape[1]])
            rule = gptq.damp(stats)
            errors = {
                damping: layer_error(w - descent.quantize(w, format, stats, damping=damping).decode(), other)
                for damping in (rule, *DAMPINGS)
            }
            told = [f"{error / min(errors.values()) - 1:+.0%}".replace("%", " %") for error in errors.values()]
            yield [layer, each, f"{rule:.3g}", *told]


def main():
    """Print one table as its rows come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", default="3,4", help="comma-separated widths")
    parser.add_argument("--windows", type=int, default=Job.windows, help="of calibration")
    parser.add_argument("--judged", type=int, default=Job.judged, help="windows of each held-out text")
    parser.add_argument("--damping", action="store_true", help="try dampings instead")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        quantize(args.part, args.words)
        return
    job = Job(elsewhere=TEXT / "wikitext2-valid.txt", windows=args.windows, judged=args.judged)
    table = dampings(job) if args.damping else parts(job, map(int, args.bits.split(",")))
    for i, cells in enumerate(table):
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
        if i == 0:
            print("|" + "---|" * len(cells), flush=True)


if __name__ == "__main__":
    main()
