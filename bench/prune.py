"""Structured pruning: a language model cut to a share of its blocks' parameters, against simpler ways at equal size.

    python bench/prune.py [--model FOLDER] [--keep 0.8,0.6] [--windows 64] [--judged 32]

Run it with the Python that has bitwright. The rivals are written here, in torch and transformers alone: channels of the
MLP by the norm of their weights (magnitude) or by that of the down projection's column times its input's (Wanda, in
whole columns), and blocks by how little they turn their input (ShortGPT). Every model is saved as a folder, and judged
by bench/referee.py. Speed is that of transformers in float32 on one thread: all take turns, medians are told.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from quality import TEXT, Job, judge, measured
from transformers import AutoModelForCausalLM
from windows import token_windows

TURNS, PROMPT, WRITTEN = 5, 256, 32
"""Turns of each model, tokens that it reads, and tokens that it then writes."""


def bitwright(job, out, keep, *more):
    """Prune with Bitwright; seconds of CPU time."""
    words = ["prune", job.model, "--keep", keep, "--calib", job.calibration, "--windows", job.windows]
    words += ["--length", job.length, "--heldout", job.heldout, "--heldout-windows", 2, "--threads", 1]
    log = out.with_suffix(".log")
    code, cost = measured([sys.executable, "-m", "bitwright", *map(str, [*words, *more, "-o", out])], log)
    if code:
        sys.exit(f"exit {code}\n{log.read_text(errors='replace')[-2000:]}")
    return cost["cpu_seconds"]


def load(folder):
    """A folder in float32."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def magnitude(model, _):
    """The squared norm of all weights that belong to a channel, for each block."""
    return [
        block.mlp.gate_proj.weight.square().sum(1)
        + block.mlp.up_proj.weight.square().sum(1)
        + block.mlp.down_proj.weight.square().sum(0)
        for block in model.model.layers
    ]


def wanda(model, ids):
    """The norm of a column of the down projection times that of its input, for each block."""
    sums = [0.0] * len(model.model.layers)
    hooks = []
    for i, block in enumerate(model.model.layers):

        def add(_, args, i=i):
            sums[i] = sums[i] + args[0].flatten(0, -2).square().sum(0)

        hooks.append(block.mlp.down_proj.register_forward_pre_hook(add))
    run(model, ids)
    for hook in hooks:
        hook.remove()
    return [
        total.sqrt() * block.mlp.down_proj.weight.norm(dim=0)
        for total, block in zip(sums, model.model.layers, strict=True)
    ]


def turning(model, ids):
    """One minus the mean cosine of what goes into a block and what comes out, for each block."""
    found = torch.zeros(len(model.model.layers))
    for piece in ids.split(4):
        states = model(input_ids=piece, use_cache=False, output_hidden_states=True).hidden_states
        # The last state has passed the final norm, which no cosine sees through: the block is run again for it.
        for i in range(len(found)):
            after = states[i + 1] if i + 1 < len(found) else last(model, piece)
            found[i] += (1 - torch.cosine_similarity(states[i], after, dim=-1)).mean() * len(piece) / len(ids)
    return found


def last(model, piece):
    """What comes out of the last block."""
    seen = []
    hook = model.model.layers[-1].register_forward_hook(lambda _, __, out: seen.append(out))
    model(input_ids=piece, use_cache=False)
    hook.remove()
    return seen[0][0] if isinstance(seen[0], tuple) else seen[0]


def run(model, ids):
    """Pass windows [count, length] through a model."""
    for piece in ids.split(4):
        model(input_ids=piece, use_cache=False)


def narrow(job, out, ids, width, scores):
    """Keep the `width` channels of each block with the largest scores."""
    model = load(job.model)
    for block, score in zip(model.model.layers, scores(model, ids), strict=True):
        kept = score.topk(width).indices.sort().values
        mlp = block.mlp
        mlp.gate_proj.weight.data, mlp.up_proj.weight.data = mlp.gate_proj.weight[kept], mlp.up_proj.weight[kept]
        mlp.down_proj.weight.data = mlp.down_proj.weight[:, kept].contiguous()
    model.config.intermediate_size = width
    save(job, model, out)


def shallow(job, out, ids, count):
    """Keep the `count` blocks that turn their input most."""
    model = load(job.model)
    kept = turning(model, ids).topk(count).indices.sort().values.tolist()
    model.model.layers = torch.nn.ModuleList([model.model.layers[i] for i in kept])
    model.config.num_hidden_layers = count
    save(job, model, out)


def save(job, model, out):
    """A folder in the dtype of the source, with its tokenizer."""
    model.to(torch.bfloat16).save_pretrained(out)
    for file in job.model.glob("tokenizer*"):
        shutil.copy(file, out / file.name)


def share(model):
    """Parameters of a model's blocks."""
    return sum(param.numel() for param in model.model.layers.parameters())


def speeds(folders, ids):
    """Tokens per second that each folder's model reads and writes, medians of turns."""
    models, found = [load(folder) for folder in folders], [[] for _ in folders]
    prompt = ids[:1, :PROMPT]
    for _ in range(TURNS):
        for model, times in zip(models, found, strict=True):
            start = time.perf_counter()
            model(input_ids=prompt, use_cache=False)
            middle = time.perf_counter()
            model.generate(prompt, max_new_tokens=WRITTEN, min_new_tokens=WRITTEN, do_sample=False)
            end = time.perf_counter()
            times.append((prompt.numel() / (middle - start), WRITTEN / (end - middle - (middle - start))))
    return [tuple(statistics.median(column) for column in zip(*times, strict=True)) for times in found]


def rows(job, keeps, home, ids):
    """Prune in all ways, and judge; what Bitwright made stays below `home`."""
    yield ["kept", "way", "of the blocks", "KL on docs", "on WikiText", "perplexity"]
    whole = share(load(job.model))
    for keep in keeps:
        ways = {}
        for name, more in (("Bitwright", ()), ("Bitwright, cut alone", ("--no-repair",))):
            ways[name] = home / f"{keep}-{len(ways)}"
            bitwright(job, ways[name], keep, *more)
        width = load(ways["Bitwright"]).config.intermediate_size
        for name, scores in (("Wanda, in columns", wanda), ("magnitude", magnitude)):
            ways[name] = home / f"{keep}-{len(ways)}"
            narrow(job, ways[name], ids, width, scores)
        ways["ShortGPT, in blocks"] = home / f"{keep}-{len(ways)}"
        shallow(job, ways["ShortGPT, in blocks"], ids, round(keep * load(job.model).config.num_hidden_layers))
        for name, out in ways.items():
            found = judge(job, out, sys.executable)
            part = f"{100 * share(load(out)) / whole:.1f} %"
            change = f"{found['perplexity_float']:.2f} → {found['perplexity']:.2f}"
            figures = [f"{found['kl']:.4f} ± {1.96 * found['kl_se']:.4f}", f"{found['kl_elsewhere'][0]:.4f}"]
            yield [f"{keep:.0%}".replace("%", " %"), name, part, *figures, change]


def paces(job, keeps, home, ids):
    """How fast the float model and each of Bitwright's is."""
    yield ["kept", "reads tokens per second", "writes tokens per second"]
    found = speeds([job.model, *(home / f"{keep}-0" for keep in keeps)], ids)
    for keep, (reads, writes) in zip((1, *keeps), found, strict=True):
        yield [f"{keep:.0%}".replace("%", " %"), f"{reads:.0f}", f"{writes:.1f}"]


def tell(table):
    """Print a table as its rows come."""
    for i, cells in enumerate(table):
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
        if i == 0:
            print("|" + "---|" * len(cells), flush=True)


@torch.no_grad()
def main():
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Job.model)
    parser.add_argument("--keep", default="0.8,0.6", help="shares of the blocks' parameters")
    parser.add_argument("--windows", type=int, default=64, help="of calibration")
    parser.add_argument("--judged", type=int, default=32, help="windows of each held-out text")
    args = parser.parse_args()
    torch.set_num_threads(1)
    job = Job(args.model, elsewhere=TEXT / "wikitext2-valid.txt", windows=args.windows, judged=args.judged)
    ids = token_windows(job.model, job.calibration, job.windows, job.length)
    keeps = [float(part) for part in args.keep.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        tell(rows(job, keeps, Path(folder), ids))
        print()
        tell(paces(job, keeps, Path(folder), ids))


if __name__ == "__main__":
    main()
