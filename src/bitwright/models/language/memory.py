"""How much memory and time a plan for a language model takes, and the pieces in which that holds."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import torch

from bitwright import machine
from bitwright.models.effort import Effort
from bitwright.models.language.arch import Architecture
from bitwright.models.model import Estimate, Item, Plan

SOLVE = 1 << 21
"""Weights that a method gets at once: bounds its working memory at about ten float32 copies of them."""
CACHED = 1 << 17
"""Weights that a data-free method or a check gets at once: a float32 copy stays in the processor's cache, and below
the size that malloc maps anew each time (the page faults would cost ten times the arithmetic)."""
COPY_BYTES = 1 << 18
"""Bytes of a tensor in memory while it is copied: few enough for malloc to use the same ones again."""
POSITIONS = 256
"""Positions whose logits exist at once."""
LOGITS = 1 << 22
"""Logits that exist at once, in about ten arrays: 16 MiB of float32 each."""
LOADED = 6.5
"""Bytes per weight at the peak of loading a folder with transformers: float32, what is packed, and what is unpacked
(measured: 5.6 on SmolLM2 135M, 5.9 on Gemma 3 270M)."""
TOKENIZER = 15
"""Bytes in memory per byte of a tokenizer file while it is read (measured: 14.6 on Gemma 3's 33 MB)."""
HOLES = 3
"""Bytes per byte of a tokenizer file that do not come back when it is gone: its many small pieces leave holes."""
TOKEN = 3700
"""Bytes in memory per token of a GGUF file's vocabulary while a tokenizer is built of it (measured: 2,930 on Gemma 3,
3,700 on SmolLM2), and TOKEN_HOLES those that do not come back."""
TOKEN_HOLES = 380
SAMPLED = 25e-9
"""Seconds to draw from one token's probability, and LAYER those that a block's call takes for a single position,
whatever its width (measured on SmolLM2 and Gemma 3, which write 32 rows at a time)."""
LAYER = 6e-4
WRITTEN = 32
"""Rows that a model writes at a time where it makes its own calibration text."""
LOAD_LIMIT = 1 << 30
"""Bytes of float32 weights up to which the whole folder is also loaded as a user would load it."""
BATCH_TOKENS = 2048
"""Tokens that pass through a block at once during calibration."""
GRAPH_TOKENS = 1024
"""Tokens whose way through a block is kept at once for a backward pass."""
KEPT_PER_ROW = 3
"""Numbers that a backward pass keeps, or makes, per output of a block's matrices and token (measured: 1.7 are kept on
docs18m and SmolLM2, 2.4 to 2.6 on Gemma 3, whose norms work in float32)."""
PATH = 48
"""Bytes per weight of a search along a path: its order both ways, targets and errors of the weights on it."""
VISITED = 3e-10
"""Seconds to try one value for one weight on it (measured: 2 to 4e-10)."""
SAMPLES = 1 << 14
"""Rows of its input that a method which learns one matrix from samples sees at most, spread over all batches."""
TRIED = 4096
"""Tokens on which scales of keys are tried, or one batch if it has more; TRIES how often they pass a block for that."""
TRIES = 6
LEARNED = 48
"""Bytes per weight of a block that is learned as a whole: what it should become, its place, how far it moved, slope and
the two means of Adam, the graph of its rounding, and the best codes so far."""
TRAINED = 34
"""Bytes per weight of a model that is trained as a whole: as LEARNED, without the graph, which is of one block
(measured on docs18m)."""
ROUNDED = 5e-8
"""Seconds per weight for one step of such learning beside the products (measured on docs18m)."""
DRAWN = 12e-9
"""Seconds per logit for the softmax, its labels and its gradient (measured: 9 to 13 ns on docs18m and SmolLM2)."""


def needs_text(plan: Plan) -> bool:
    """Whether any method must look at the layers' inputs, which no imatrix tells, or keys and values are looked at."""
    return (plan.calibrated and plan.recipe.imatrix is None) or plan.container.cache is not None


def uses_text(plan: Plan) -> bool:
    """Whether any method looks at the layers' inputs: it must, or it may and calibration was named; or keys are."""
    named = not plan.recipe.calibration.own
    return needs_text(plan) or (named and any(i.method.moments and i.part.multiplied for i in plan.items.values()))


def looks(plan: Plan) -> bool:
    """Whether any method sees the inputs of its matrices, where there is text."""
    seen = (i for i in plan.items.values() if i.part.multiplied)
    return uses_text(plan) and any(i.method.moments or i.method.needs != "nothing" for i in seen)


def widths(plan: Plan) -> dict[str, int]:
    """Inputs of the narrowest and of the widest matrix whose method looks at calibration text; empty without one."""
    looks = [i for i in plan.items.values() if i.method.moments or i.method.needs != "nothing"]
    found = [i.columns for i in looks if i.part.multiplied]
    if not found or not uses_text(plan):
        return {}
    return {"narrowest": min(found), "widest": max(found)} if len({*found}) > 1 else {"widest": found[0]}


def evaluates(plan: Plan) -> bool:
    """Whether the verdict will include KL and perplexity on held-out text."""
    c = plan.recipe.calibration
    return c.heldout is not None or not c.own or needs_text(plan)


def written(plan: Plan) -> tuple[int, int]:
    """Windows that the model writes itself, to calibrate on and to be judged on."""
    c = plan.recipe.calibration
    if not c.own or not evaluates(plan):
        return 0, 0
    judged = c.heldout_windows if c.heldout is None else 0
    return (c.windows if judged or uses_text(plan) or plan.recipe.max_drop is not None else 0), judged


def piece_rows(item: Item, step: int) -> int:
    """Rows of a matrix that are quantized at once: bounded memory, and whole packed words of `step` rows."""
    if item.part.transposed or item.format.block == "tensor" or item.method.scope == "block":
        return item.rows
    if item.method.needs != "nothing":
        unit = math.lcm(32, item.format.code.rows)
        return max(unit, SOLVE // item.columns // unit * unit)
    return checked_rows(item, step)


def checked_rows(item: Item, step: int) -> int:
    """Rows of a written matrix that are read back at once: about `CACHED` weights, in whole words of `step` rows."""
    step = math.lcm(step, item.format.code.rows)
    return max(step, CACHED // item.columns // step * step)


def working_memory(item: Item, step: int) -> int:
    """Bytes that quantizing a matrix takes, at most: ten float32 copies of each piece under way, and codebooks."""
    f, rows = item.format, min(piece_rows(item, step), item.rows)
    weights, each = rows * item.columns, 10 * 4
    path = min(rows, f.code.rows) * item.columns * PATH if f.code.visits else 0
    if item.method.needs != "nothing":
        # Up to four matrices that share an input go together.
        return path + each * max(weights, min(SOLVE, 4 * weights))
    if f.code.table_bits:
        # Sorting, sums in float64, and about 18 numbers per level (measured).
        each += 24 + 8 * 18 * 2**f.bits // f.block_size(item.columns)
    return (path + each * weights) * (torch.get_num_threads() if rows < item.rows else 1)


def activation_budget(plan: Plan) -> int:
    """Bytes of hidden states kept in memory; the rest spills to disk."""
    return max(16 * machine.MIB, plan.room - plan.estimate.needed)


def estimate(plan: Plan, arch: Architecture, device: str, final_bytes: int, untied: bool) -> Estimate:
    """Memory at the heaviest moment and expected wall time."""
    effort = plan.effort
    needed, seconds = memory_of(plan, arch, device, untied, effort), _seconds(plan, arch, device, final_bytes)
    if effort.weighing:
        cost = curvature_cost(plan, arch, device, effort.weighing, plan.recipe.calibration.length)
        needed, seconds = max(needed, cost.needed), seconds + cost.seconds
    return Estimate(needed, seconds, _hidden(plan, arch, device, effort))


def memory_of(plan: Plan, arch: Architecture, device: str, untied: bool, effort: Effort) -> int:
    """Bytes at the heaviest moment with such an effort, but for learning how much outputs count."""
    solving = _solving(plan, arch, device, effort)
    reading, holes = _tokenizer(plan, arch)
    phases = reading - holes, solving, _judging(plan, arch, untied), _loading(plan, arch)
    return machine.BASE + plan.libraries + holes + max(phases)


class Cost(NamedTuple):
    """What output-side curvature costs: bytes of memory at the heaviest moment, of files until it is used, seconds.

    `spillable` bytes more are used where there is room, or else go to disk as well.
    """

    needed: int
    disk: int
    seconds: float
    spillable: int


def curvature_cost(plan: Plan, arch: Architecture, device: str, windows: int, length: int) -> Cost:
    """What `Curvature` costs for the matrices of all blocks, from so many windows of text."""
    dtype, tokens, width = machine.calibration_dtype(device), windows * length, _width(arch, 0)
    size, stored = dtype.itemsize, max(e.dtype.itemsize for e in arch.checkpoint.tensors.values())
    config, at_once = arch.config.get_text_config(), min(tokens, max(GRAPH_TOKENS, length))
    items = [item for item in plan.items.values() if item.part.block is not None]
    grams, outputs = _grams(plan), Counter[int]()
    chosen = int(getattr(config, "num_experts_per_tok", 0) or 0)
    experts = 1 + max((item.part.expert or 0 for item in items), default=0)
    for item in items:
        routed = item.part.expert is not None and chosen
        outputs[item.part.block] += -(-item.rows * chosen // experts) if routed else item.rows
    graph = KEPT_PER_ROW * size * max(outputs.values(), default=0)
    if getattr(config, "_attn_implementation", None) != "sdpa":  # it keeps what each token looks at
        graph += 3 * size * length * int(getattr(config, "num_attention_heads", 0))
    blocks = [sum(e.count for e in arch.tensors_of(block)) for block in range(arch.count)]
    widest, state = max((item.rows for item in items), default=0), tokens * width * size
    back = max(blocks) * (size + stored) + at_once * (graph + 4 * widest) + 2 * max(grams.values(), default=0) + state
    vocabulary = int(getattr(config, "vocab_size", 0))
    head = 10 * 4 * min(LOGITS, POSITIONS * vocabulary)
    outside = size * sum(e.count for e in arch.tensors_of(None))
    disk, rate = sum(grams.values()), machine.matmul_rate(dtype, device)
    # Forward twice and backward once through the blocks, once each through the head; G on and above the diagonal.
    products = tokens * (6 * 1.4 * sum(blocks) + 4 * vocabulary * width + 2 * 0.6 * disk / 4 * 2)
    seconds = products / rate + DRAWN * tokens * vocabulary + 2 * disk / 1e9
    _, holes = _tokenizer(plan, arch)
    needed = machine.BASE + plan.libraries + holes + outside + max(head, back)
    return Cost(needed, disk + 2 * state, seconds, (arch.count + 1) * state)


def _grams(plan: Plan) -> Counter[int]:
    """Bytes of the output-side curvature of each block."""
    grams: Counter[int] = Counter()
    for item in plan.items.values():
        if item.part.block is not None:
            step = min(piece_rows(item, plan.container.step(item.format)), item.rows)
            grams[item.part.block] += 4 * -(-item.rows // step) * step * step
    return grams


def curvature_mode(plan: Plan, cost: Cost, free: int) -> str | None:
    """Why there can be no output-side curvature, or None: it needs memory, and `free` bytes of disk for its files."""
    spilled = max(0, cost.spillable - max(0, plan.room - cost.needed))
    if cost.needed > plan.room:
        return f"it needs {cost.needed / machine.MIB:.0f} MiB of memory, and the limit is {plan.room / machine.MIB:.0f}"
    if cost.disk + spilled > free:
        return f"it needs {(cost.disk + spilled) / machine.MIB:.0f} MiB of disk, and {free / machine.MIB:.0f} are free"
    return None


def _tokenizer(plan: Plan, arch: Architecture) -> tuple[int, int]:
    """Bytes that the tokenizer takes while it is read, where it is, and those of them that do not come back."""
    if not evaluates(plan) and not plan.container.ending:  # GGUF files hold it
        return 0, 0
    return tokenizer_memory(plan.source, arch)


def tokenizer_memory(source: Path, arch: Architecture) -> tuple[int, int]:
    """Bytes that a model's tokenizer takes while it is read, and those of them that do not come back."""
    if source.is_file():
        return TOKEN * arch.vocabulary, TOKEN_HOLES * arch.vocabulary
    file = source / "tokenizer.json"
    size = file.stat().st_size if file.exists() else 0
    return TOKENIZER * size, HOLES * size


def _solving(plan: Plan, arch: Architecture, device: str, effort: Effort) -> int:
    """Bytes at the heaviest block, from its calibration to its codes."""
    size = machine.calibration_dtype(device).itemsize
    blocks = [sum(e.count for e in arch.tensors_of(b)) for b in range(arch.count)]
    stored = max(e.dtype.itemsize for e in arch.checkpoint.tensors.values())
    widest = max((i.columns for i in plan.items.values()), default=0)
    solver = max((working_memory(i, plan.container.step(i.format)) for i in plan.items.values()), default=0)
    if not uses_text(plan):
        # Of an imatrix the moments and the Hessian of one input at a time, and its factor, as below.
        return solver + (0 if plan.recipe.imatrix is None else 6 * 4 * widest * widest)
    rest, length = sum(e.count for e in arch.tensors_of(None)), plan.recipe.calibration.length
    tokens = min(max(BATCH_TOKENS, length), plan.recipe.calibration.windows * length)
    forward = tokens * (8 * _width(arch, widest) + 4 * widest) * size + 8 * tokens * length
    weights = max(blocks) * (size + stored)
    if plan.container.cache is not None:
        # What the block answers to some of the text with keys as they are, and what it was asked.
        forward += max(TRIED, length) * _width(arch, widest) * (size + 8)
    if effort.corrects:
        # Of one input at a time there are H and C of two halves, R of two, and five squares more to fit them; what a
        # pass multiplied by is held to its end, and the block's quantized weights come beside the stored ones.
        moments, fit = _drifts(plan), 5 * 4 * widest * widest
        forward += tokens * max(_outputs(plan).values(), default=0) * size
        weights += max(blocks) * size
    else:
        moments, fit = _moments(plan), 0
    squares = max(_grams(plan).values(), default=0) if effort.weighing else 0
    # A block passes its batches and is gone. Then each moment is scaled, and permuted and factorised in four squares
    # more; the two factors stay while its matrices are solved.
    solve = moments + (4 * 4 * widest * widest if plan.calibrated else 0) + fit + solver
    if effort.corrects:
        learning = max(_learning(plan, tokens, size), _training(plan, arch, tokens, size))
        solve += _samples(plan, size)
        return rest * size + weights + squares + max(moments + forward, solve, learning)
    return rest * size + moments + squares + max(weights + forward, solve)


def _samples(plan: Plan, size: int) -> int:
    """Bytes of the samples of one stage, and of what its matrices make of them, all in float32 besides."""
    c = plan.recipe.calibration
    learned = [i for i in plan.items.values() if i.method.needs == "samples" and i.method.scope == "matrix"]
    widest = max(((size + 8) * i.columns + 3 * 4 * 4 * i.rows for i in learned), default=0)
    return min(SAMPLES, c.windows * c.length) * widest


def _learning(plan: Plan, tokens: int, size: int) -> int:
    """Bytes that learning the heaviest block takes, from a batch of `tokens` in numbers of `size` bytes."""
    weights = Counter[int | None]()
    for item in plan.items.values():
        if item.method.scope == "block":
            weights[item.part.block] += item.rows * item.columns
    if not weights:
        return 0
    graph = KEPT_PER_ROW * size * tokens * max(_outputs(plan).values())
    return LEARNED * max(weights.values()) + graph + _moments(plan)


def _training(plan: Plan, arch: Architecture, tokens: int, size: int) -> int:
    """Bytes that training all matrices together takes, from batches of `tokens` in numbers of `size` bytes."""
    trained = [item for item in plan.items.values() if item.method.scope == "model"]
    if not trained:
        return 0
    graph = KEPT_PER_ROW * size * tokens * max(_outputs(plan).values())
    states = arch.count * tokens * _width(arch, 0) * size
    block = max(sum(e.count for e in arch.tensors_of(b)) for b in range(arch.count))
    weights = TRAINED * sum(item.rows * item.columns for item in trained)
    head = 10 * 4 * min(LOGITS, POSITIONS * int(getattr(arch.config.get_text_config(), "vocab_size", 0)))
    return weights + size * arch.weights + (LEARNED - TRAINED) * block + graph + states + head


def _drifts(plan: Plan) -> int:
    """Bytes of what two halves of the text tell of the inputs of one stage, the heaviest."""
    found: Counter[tuple[int | None, int]] = Counter()
    for item in plan.items.values():
        each = 16 * item.columns**2 + 8 * item.rows * item.columns
        stage = item.part.block, item.columns
        found[stage] = max(found[stage], each) if item.part.expert is None else found[stage] + each // 2
    return max(found.values(), default=0)


def _outputs(plan: Plan) -> Counter[int | None]:
    """Outputs per token of the matrices of each block."""
    found: Counter[int | None] = Counter()
    for item in plan.items.values():
        found[item.part.block] += item.rows
    return found


def _judging(plan: Plan, arch: Architecture, untied: bool) -> int:
    """Bytes of reading back, and of both models side by side, a block at a time and in float32."""
    steps = {item.name: plan.container.step(item.format) for item in plan.items.values()}
    piece = max((checked_rows(i, steps[i.name]) * i.columns for i in plan.items.values()), default=0)
    decode = 40 * torch.get_num_threads() * piece  # the library unpacks at nearly 24 bytes per weight
    if not evaluates(plan):
        return decode
    # What lies outside the blocks is there twice, but for an embedding and a head that both models share.
    outside = {e.name: e.count for e in arch.tensors_of(None)}
    apart = [name for name in outside if name not in (arch.embedding, arch.head) or name in plan.items]
    rest = sum(outside.values()) + sum(outside[name] for name in apart)
    rest += outside.get(arch.embedding or "", 0) if untied else 0
    stored = max(e.dtype.itemsize for e in arch.checkpoint.tensors.values())
    block = max(sum(e.count for e in arch.tensors_of(b)) for b in range(arch.count)) * (4 + stored)
    logits = 10 * 4 * min(LOGITS, POSITIONS * int(getattr(arch.config.get_text_config(), "vocab_size", 0)))
    return decode + 4 * rest + max(block, logits)


def loading_memory(plan: Plan, arch: Architecture) -> int:
    """Bytes that transformers takes for the whole model as a user loads it.

    Modules that share a quantized embedding each have a float32 copy of it once it is decoded, beside its codes
    (measured: 3.13 GB on Gemma 3 270M, of which this says 3.14).
    """
    copies = sum(5 * i.rows * i.columns * len(i.part.shared) for i in plan.items.values())
    return int(LOADED * arch.weights) + copies


def _loading(plan: Plan, arch: Architecture) -> int:
    """The same where it will be loaded, else 0."""
    needed = loading_memory(plan, arch)
    return needed if 4 * arch.weights <= LOAD_LIMIT and machine.BASE + needed <= plan.room else 0


def _hidden(plan: Plan, arch: Architecture, device: str, effort: Effort) -> int:
    """Bytes of all windows' hidden states: those of calibration, or those of both models in the verdict.

    With corrected targets there are those of two streams, and of a block what the float stream feeds its matrices, and
    what it adds their products to: after attention and at the block's end, as a rule.
    """
    c, widest = plan.recipe.calibration, max((i.columns for i in plan.items.values()), default=0)
    per = c.length * _width(arch, widest)
    if effort.corrects:
        inputs: Counter[int | None] = Counter()
        for block, columns, count in _inputs(plan):
            inputs[block] += c.length * columns * count
        per = 4 * per + max(inputs.values(), default=0)
    calibrated = c.windows * per * machine.calibration_dtype(device).itemsize if uses_text(plan) else 0
    judged = 2 * 4 * c.heldout_windows * c.length * _width(arch, widest) if evaluates(plan) else 0
    return max(calibrated, judged)


def _width(arch: Architecture, unless: int) -> int:
    """Numbers in a hidden state."""
    return int(getattr(arch.config.get_text_config(), "hidden_size", unless))


def _moments(plan: Plan) -> int:
    """Bytes of the second moments of all inputs of the block that has most."""
    found: Counter[int | None] = Counter()
    for block, columns, count in _inputs(plan):
        found[block] += 4 * columns**2 * count
    return max(found.values(), default=0)


def _inputs(plan: Plan) -> list[tuple[int | None, int, int]]:
    """(block, width, number) of the inputs that matrices share: queries, keys and values have one."""
    sharing = Counter((i.part.block, i.columns, i.part.expert) for i in plan.items.values())
    return [
        (block, columns, min(matrices, 3) if expert is None else -(-matrices // 2))
        for (block, columns, expert), matrices in sharing.items()
    ]


def _seconds(plan: Plan, arch: Architecture, device: str, final_bytes: int) -> float:
    """From this machine's measured rate of matrix products."""
    rate = machine.matmul_rate(machine.calibration_dtype(device), device)
    slow = machine.matmul_rate(torch.float32, device)
    c, items = plan.recipe.calibration, plan.items.values()
    tokens = c.windows * c.length if uses_text(plan) else 0
    forward: float = 2 * tokens * sum(e.count for b in range(arch.count) for e in arch.tensors_of(b))
    solve = sum(2 * i.rows * i.columns**2 * i.method.work(i.options) for i in items)
    whole = arch.weights
    # Moments are made on and above the diagonal, at half the rate of bfloat16. A verdict's attention, softmax and
    # reading of weights cost nearly as much as its matrix products.
    moments = 2 * tokens * 0.6 * _squares(plan)
    learning = 0.0
    for i in items:  # there and back; what is trained as a whole goes there twice
        at_once, back = (min(tokens, BATCH_TOKENS), 6) if i.method.scope == "block" else (tokens, 8)
        steps = tokens / max(BATCH_TOKENS, c.length) if i.method.scope == "model" else 1
        learning += i.rows * i.columns * i.method.passes(i.options) * (back * at_once / rate + steps * ROUNDED)
    searching = sum(i.rows * i.columns * i.format.code.visits for i in items) * VISITED
    verdict = 4 * c.heldout_windows * c.length * whole * len(c.heldout or c.source) if evaluates(plan) else 0
    copy = (plan.model.source_bytes * 3 + final_bytes * 2) / 1e9
    loaded = 2 + 7e-9 * whole if _loading(plan, arch) else 0
    fits = 0.0
    if plan.effort.corrects and tokens:
        # The float stream passes once, its twin up to each input and then as a whole; C is no symmetric matrix. Three
        # ridges are tried on each half of the text.
        forward, moments = 4.5 * forward, 3 * moments
        fits = sum(3 * 2 * (4 * i.rows * i.columns**2 + i.columns**3 / 3) for i in items)
    if plan.container.cache is not None:
        weights = sum(e.count for b in range(arch.count) for e in arch.tensors_of(b))
        forward += 2 * weights * (2 * tokens + TRIES * min(tokens, TRIED))
    computed = (forward * 1.4 + 2 * moments) / rate + solve / (slow / 4) + fits / slow + verdict / (0.55 * slow)
    return 6 + computed + searching + learning + copy + loaded + _writing(plan, arch, rate, whole)


def _squares(plan: Plan) -> int:
    """Numbers in the second moments of all inputs, if any method wants them."""
    if not uses_text(plan):
        return 0
    return sum(count * columns**2 for _, columns, count in _inputs(plan))


def _writing(plan: Plan, arch: Architecture, rate: float, whole: int) -> float:
    """Seconds that the model takes to write its own calibration text, one position of a few rows at a time."""
    c = plan.recipe.calibration
    batches = -(-sum(written(plan)) // WRITTEN)
    if not batches:
        return 0
    vocabulary = int(getattr(arch.config.get_text_config(), "vocab_size", 0))
    row = WRITTEN * (2 * whole / rate + SAMPLED * vocabulary)
    return batches * c.length * (row + LAYER * arch.count)
