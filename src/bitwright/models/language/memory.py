"""How much memory and time a plan for a language model takes, and the pieces in which that holds."""

from __future__ import annotations

from collections import Counter

import torch

from bitwright import machine
from bitwright.models.language.arch import Architecture
from bitwright.models.model import Estimate, Item, Plan

SOLVE = 1 << 21
"""Weights that a method gets at once: bounds its working memory at about ten float32 copies of them."""
CACHED = 1 << 17
"""Weights that a data-free method or a check gets at once: a float32 copy stays in the processor's cache, and below
the size that malloc maps anew each time (the page faults would cost ten times the arithmetic)."""
COPY_BYTES = 1 << 18
"""Bytes of a tensor in memory while it is copied: few enough for malloc to use the same ones again."""
BATCH_TOKENS = 2048
"""Tokens that pass through a block at once during calibration."""


def uses_text(plan: Plan) -> bool:
    """Whether any method looks at the layers' inputs: it must, or it may and calibration was named."""
    named = plan.recipe.calibration.source != "self"
    return plan.calibrated or (named and any(item.method.moments for item in plan.items.values()))


def evaluates(plan: Plan) -> bool:
    """Whether the verdict will include KL and perplexity on held-out text."""
    c = plan.recipe.calibration
    return c.heldout is not None or c.source != "self" or plan.calibrated


def piece_rows(item: Item, step: int) -> int:
    """Rows of a matrix that are quantized at once: bounded memory, and whole packed words of `step` rows."""
    if item.part.transposed or item.format.block == "tensor":
        return item.rows
    if item.method.needs != "nothing":
        return max(32, SOLVE // item.columns // 32 * 32)
    return checked_rows(item, step)


def checked_rows(item: Item, step: int) -> int:
    """Rows of a written matrix that are read back at once: about `CACHED` weights, in whole words of `step` rows."""
    return max(step, CACHED // item.columns // step * step)


def working_memory(item: Item, step: int) -> int:
    """Bytes that quantizing a matrix takes, at most: ten float32 copies of each piece under way, and codebooks."""
    f, rows = item.format, min(piece_rows(item, step), item.rows)
    weights, each = rows * item.columns, 10 * 4
    if item.method.needs != "nothing":
        return each * max(weights, min(SOLVE, 4 * weights))  # up to four matrices that share an input go together
    if f.code.table_bits:
        # Sorting, sums in float64, and about 18 numbers per level (measured).
        each += 24 + 8 * 18 * 2**f.bits // f.block_size(item.columns)
    return each * weights * (torch.get_num_threads() if rows < item.rows else 1)


def activation_budget(plan: Plan) -> int:
    """Bytes of hidden states kept in memory; the rest spills to disk."""
    return max(16 * machine.MIB, plan.room - plan.estimate.memory)


def estimate(plan: Plan, arch: Architecture, device: str, final_bytes: int, untied: bool) -> Estimate:
    """Memory at the heaviest moment and expected wall time."""
    return Estimate(_memory(plan, arch, device, untied), _seconds(plan, arch, device, final_bytes))


def _memory(plan: Plan, arch: Architecture, device: str, untied: bool) -> int:
    size = machine.calibration_dtype(device).itemsize
    steps = {item.name: plan.container.step(item.format) for item in plan.items.values()}
    blocks = [sum(e.count for e in arch.tensors_of(b)) for b in range(arch.count)]
    stored = max(e.dtype.itemsize for e in arch.checkpoint.tensors.values())
    rest = sum(e.count for e in arch.tensors_of(None)) * (2 if untied else 1)
    widest = max((i.columns for i in plan.items.values()), default=0)
    solver = max((working_memory(i, steps[i.name]) for i in plan.items.values()), default=0)
    vocabulary, width = int(getattr(arch.config, "vocab_size", 0)), int(getattr(arch.config, "hidden_size", widest))
    # Certification decodes pieces twice (the library unpacks at nearly 24 bytes per weight), then holds both models'
    # heads and one block of each in float32, and logits of 256 positions.
    verdict = 4 * (2 * rest + 2 * max(blocks)) + 8 * 4 * 256 * vocabulary
    piece = max((checked_rows(i, steps[i.name]) * i.columns for i in plan.items.values()), default=0)
    certify = 40 * torch.get_num_threads() * piece + (verdict if evaluates(plan) else 0)
    if not uses_text(plan):
        return machine.BASE + max(solver, certify)
    length = plan.recipe.calibration.length
    tokens = min(max(BATCH_TOKENS, length), plan.recipe.calibration.windows * length)
    forward = tokens * (8 * width + 4 * widest) * size + 8 * tokens * length
    moments = _moments(plan)
    # A block passes its batches and is gone. Then each moment is scaled, and permuted and factorised in four squares
    # more; the two factors stay while its matrices are solved.
    solve = moments + (4 * 4 * widest * widest if plan.calibrated else 0) + solver
    calibrate = rest * size + moments + max(max(blocks) * (size + stored) + forward, solve)
    return machine.BASE + max(calibrate, certify)


def _moments(plan: Plan) -> int:
    """Bytes of the second moments of all inputs of the block that has most; queries, keys and values share one."""
    sharing = Counter((i.part.block, i.columns, i.part.expert) for i in plan.items.values())
    found: Counter[int | None] = Counter()
    for (block, columns, expert), matrices in sharing.items():
        found[block] += 4 * columns**2 * (min(matrices, 3) if expert is None else -(-matrices // 2))
    return max(found.values(), default=0)


def _seconds(plan: Plan, arch: Architecture, device: str, final_bytes: int) -> float:
    """From this machine's measured rate of matrix products."""
    rate = machine.matmul_rate(machine.calibration_dtype(device), device)
    slow = machine.matmul_rate(torch.float32, device)
    c, items = plan.recipe.calibration, plan.items.values()
    tokens = c.windows * c.length if plan.calibrated else 0
    forward = 2 * tokens * sum(e.count for b in range(arch.count) for e in arch.tensors_of(b))
    inputs = {(i.part.block, i.columns, i.part.expert) for i in items} if plan.calibrated else set()
    moments = sum(2 * tokens * columns**2 for _, columns, _ in inputs)
    solve = sum(2 * i.rows * i.columns**2 * i.method.work(i.options) for i in items)
    verdict = 4 * c.heldout_windows * c.length * sum(e.count for e in arch.checkpoint.tensors.values())
    copy = (plan.model.source_bytes * 3 + final_bytes * 2) / 1e9
    return 6 + (forward * 1.4 + moments) / rate + solve / (slow / 4) + (verdict / slow if evaluates(plan) else 0) + copy
