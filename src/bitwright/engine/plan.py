"""What will happen, known before anything does: every tensor's format, the final bytes, memory, time, runtimes."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bitwright.core.formats import named
from bitwright.engine import machine
from bitwright.errors import ModelError, RecipeError, ResourceError, TensorError
from bitwright.files.compressed_tensors import Scheme
from bitwright.files.safetensors import Entry, Layout, Spec
from bitwright.models.language.arch import Architecture, Matrix
from bitwright.recipe import CALIBRATED, Layer, Recipe, nearest
from bitwright.recipe import matches as pattern_matches

SOLVE = 1 << 21
"""Weights that a method gets at once: bounds its working memory at about ten float32 copies of them."""
CACHED = 1 << 17
"""Weights that a data-free method or a check gets at once: a float32 copy stays in the processor's cache, and below
the size that malloc maps anew each time (the page faults would cost ten times the arithmetic)."""
COPY_BYTES = 1 << 18
"""Bytes of a tensor in memory while it is copied: few enough for malloc to use the same ones again."""
BATCH_TOKENS = 2048
"""Tokens that pass through a block at once during calibration."""


@dataclass(frozen=True)
class Item:
    """One matrix and what becomes of it; `note` records a fallback that the recipe allowed."""

    matrix: Matrix
    scheme: Scheme
    layer: Layer
    note: str | None = None


@dataclass
class Plan:
    """A job, decided to the byte. `items` are quantized, `copies` written as they are."""

    source: Path
    out: Path
    recipe: Recipe
    arch: Architecture
    device: str
    ceiling: int | None
    items: dict[str, Item] = field(default_factory=dict)
    copies: list[Entry] = field(default_factory=list)
    layout: Layout = field(default_factory=lambda: Layout([]))
    notes: list[str] = field(default_factory=list)

    @property
    def partial(self) -> Path:
        """Where the work is done: renamed to `out` once certified."""
        return self.out.with_name(self.out.name + ".partial")

    @property
    def calibrated(self) -> bool:
        """Whether any method needs the layers' inputs."""
        return any(item.layer.method in CALIBRATED for item in self.items.values())

    @property
    def uses_text(self) -> bool:
        """Whether any method looks at the layers' inputs: it must, or it may and calibration was named."""
        c = self.recipe.calibration
        return self.calibrated or (c.source != "self" and any(i.layer.method != "rtn" for i in self.items.values()))

    @property
    def untied(self) -> bool:
        """Whether the head is stored apart from the embedding it shared."""
        return self.arch.tied and self.arch.head in self.items

    @property
    def weights(self) -> int:
        """Weights that will be quantized."""
        return sum(item.matrix.rows * item.matrix.columns for item in self.items.values())

    @property
    def stored_bits(self) -> float:
        """Bits on disk per quantized weight: codes, scales and zero points."""
        total = sum(i.scheme.format.stored_bits(i.matrix.rows, i.matrix.columns) for i in self.items.values())
        return total / max(self.weights, 1)

    @property
    def source_bytes(self) -> int:
        """Bytes of the source's tensors."""
        return self.arch.checkpoint.size

    def peak_memory(self) -> int:
        """Bytes of memory at the heaviest moment: an upper estimate, activations beyond it go to disk."""
        size = machine.calibration_dtype(self.device).itemsize
        blocks = [sum(e.count for e in self.arch.tensors_of(b)) for b in range(self.arch.count)]
        stored = max(e.dtype.itemsize for e in self.arch.checkpoint.tensors.values())
        rest = sum(e.count for e in self.arch.tensors_of(None)) * (2 if self.untied else 1)
        widest = max((i.matrix.columns for i in self.items.values()), default=0)
        solver = max((working_memory(i) for i in self.items.values()), default=0)
        config = self.arch.config
        vocabulary, width = int(getattr(config, "vocab_size", 0)), int(getattr(config, "hidden_size", widest))
        # Certification decodes pieces twice (the library unpacks at nearly 24 bytes a weight), then holds both models'
        # heads and one block of each in float32, and logits of 256 positions.
        verdict = 4 * (2 * rest + 2 * max(blocks)) + 8 * 4 * 256 * vocabulary
        piece = max((checked_rows(i) * i.matrix.columns for i in self.items.values()), default=0)
        certify = 40 * torch.get_num_threads() * piece + (verdict if self.evaluates else 0)
        if not self.uses_text:
            return machine.BASE + max(solver, certify)
        length = self.recipe.calibration.length
        tokens = min(max(BATCH_TOKENS, length), self.recipe.calibration.windows * length)
        forward = tokens * (8 * width + 4 * widest) * size + 8 * tokens * length
        moments = self._moments()
        # A block passes its batches and is gone. Then each moment is scaled, and permuted and factorised in four
        # squares more; the two factors stay while its matrices are solved.
        solve = moments + (4 * 4 * widest * widest if self.calibrated else 0) + solver
        calibrate = rest * size + moments + max(max(blocks) * (size + stored) + forward, solve)
        return machine.BASE + max(calibrate, certify)

    def _moments(self) -> int:
        """Bytes of the second moments of all inputs of the block that has most; queries, keys and values share one."""
        sharing = Counter((i.matrix.block, i.matrix.columns, i.matrix.expert) for i in self.items.values())
        found: Counter[int | None] = Counter()
        for (block, columns, expert), matrices in sharing.items():
            found[block] += 4 * columns**2 * (min(matrices, 3) if expert is None else -(-matrices // 2))
        return max(found.values(), default=0)

    @property
    def evaluates(self) -> bool:
        """Whether the verdict will include KL and perplexity on held-out text."""
        c = self.recipe.calibration
        return c.heldout is not None or c.source != "self" or self.calibrated

    def activation_budget(self) -> int:
        """Bytes of hidden states kept in memory; the rest spills to disk."""
        ceiling = self.ceiling or machine.default_ceiling()
        return max(16 * machine.MIB, ceiling - self.peak_memory())

    def seconds(self) -> float:
        """Expected wall time, from this machine's measured matrix-product rate."""
        rate = machine.matmul_rate(machine.calibration_dtype(self.device), self.device)
        slow = machine.matmul_rate(torch.float32, self.device)
        c = self.recipe.calibration
        tokens = c.windows * c.length if self.calibrated else 0
        forward = 2 * tokens * sum(e.count for b in range(self.arch.count) for e in self.arch.tensors_of(b))
        inputs = {(i.matrix.block, i.matrix.columns, i.matrix.expert) for i in self.items.values()}
        moments = sum(2 * tokens * columns**2 for _, columns, _ in inputs) if self.calibrated else 0
        sweeps = max((i.layer.options.sweeps for i in self.items.values()), default=0) if self.calibrated else 0
        solve = sum(2 * i.matrix.rows * i.matrix.columns**2 * (2 + sweeps) for i in self.items.values())
        verdict = 4 * c.heldout_windows * c.length * sum(e.count for e in self.arch.checkpoint.tensors.values())
        copy = (self.source_bytes * 3 + self.layout.total_bytes * 2) / 1e9
        calibrated = solve / (slow / 4) if self.calibrated else 0
        return 6 + (forward * 1.4 + moments) / rate + calibrated + (verdict / slow if self.evaluates else 0) + copy

    def runtimes(self) -> list[str]:
        """Which runtimes load the output as it stands, and what limits them."""
        if self.recipe.output == "float":
            return ["transformers and vLLM (float weights: a study copy, nothing gets smaller)"]
        experts = any(i.matrix.expert is not None for i in self.items.values())
        bits = {i.scheme.format.bits for i in self.items.values()}
        how = " with CompressedTensorsConfig(dequantize=True), because it fuses experts" if experts else ""
        lines = [f"transformers with compressed-tensors{how}"]
        lines.append("vLLM" if bits <= {4, 8} else "not vLLM: it has kernels for 4 and 8 bits only")
        return lines

    def summary(self) -> dict[str, Any]:
        """The plan as plain data for `--json`."""
        return {
            "source": str(self.source),
            "out": str(self.out),
            "quantized": [
                {
                    "name": i.matrix.name,
                    "rows": i.matrix.rows,
                    "columns": i.matrix.columns,
                    "format": describe(i.scheme),
                    "method": i.layer.method,
                    "note": i.note,
                }
                for i in self.items.values()
            ],
            "copied": [e.name for e in self.copies],
            "source_bytes": self.source_bytes,
            "final_bytes": self.layout.total_bytes,
            "stored_bits_per_weight": self.stored_bits,
            "peak_memory_bytes": self.peak_memory(),
            "seconds": self.seconds(),
            "runtimes": self.runtimes(),
            "notes": self.notes,
        }


def piece_rows(item: Item) -> int:
    """Rows of a matrix that are quantized at once: bounded memory, and a whole number of packed words of rows."""
    matrix = item.matrix
    if matrix.transposed or item.scheme.format.block == "tensor":
        return matrix.rows
    if item.layer.method in CALIBRATED:
        return max(32, SOLVE // matrix.columns // 32 * 32)
    return checked_rows(item)


def working_memory(item: Item) -> int:
    """Bytes that quantizing a matrix takes, at most: ten float32 copies of each piece under way, and codebooks."""
    matrix, f = item.matrix, item.scheme.format
    rows = min(piece_rows(item), matrix.rows)
    weights, each = rows * matrix.columns, 10 * 4
    if item.layer.method in CALIBRATED:
        return each * max(weights, min(SOLVE, 4 * weights))  # up to four matrices that share an input go together
    if f.code.table_bits:
        # Sorting, sums in float64, and about 18 numbers a level (measured).
        each += 24 + 8 * 18 * 2**f.bits // f.block_size(matrix.columns)
    return each * weights * (torch.get_num_threads() if rows < matrix.rows else 1)


def checked_rows(item: Item) -> int:
    """Rows of a written matrix that are read back at once: about `CACHED` weights, in whole words of zero points."""
    words = item.scheme.rows_per_word
    return max(words, CACHED // item.matrix.columns // words * words)


def describe(scheme: Scheme) -> str:
    """A scheme in words, e.g. `int4 g128 asym` or `int8 channel + int8 activations`."""
    f = scheme.format
    block = f"g{f.block}" if isinstance(f.block, int) else f.block
    zero = " asym" if f.zero is not None else ""
    activations = f" + {scheme.activations} activations" if scheme.activations != "none" else ""
    return f"{f.name} {block}{zero}{activations}"


def make(
    source: Path, out: Path, recipe: Recipe, *, max_ram: int | None = None, device: str = "cpu", check_out: bool = True
) -> Plan:
    """Decide everything about quantizing the model folder `source` into `out`; nothing is written.

    Raises ModelError, RecipeError, TensorError or ResourceError for anything that could be known to fail.
    """
    if device not in ("cpu", "cuda"):
        raise RecipeError(f"no device is called {device!r}", where="--device", fix="Use --device cpu or cuda")
    if device != "cpu" and not torch.cuda.is_available():
        raise RecipeError("no GPU is available", where="--device", fix="Use --device cpu")
    arch = Architecture.open(source, machine.calibration_dtype(device))
    if hasattr(arch.checkpoint, "quantized"):
        raise ModelError(
            "already quantized: quantizing twice only adds error", where=str(source), fix="Start from the float model"
        )
    plan = Plan(source, out, recipe, arch, device, max_ram)
    _require_patterns(plan)
    for matrix in candidates(arch, recipe):
        item = _item(plan, matrix)
        if item is not None:
            plan.items[matrix.name] = item
    _require_coverage(plan)
    plan.copies = [e for e in arch.checkpoint.tensors.values() if e.name not in plan.items or e.name == arch.embedding]
    plan.layout = Layout(_specs(plan), recipe.max_shard_bytes)
    if arch.outside:
        plan.notes.append(
            f"{len(arch.outside)} tensors outside the network are kept as they are, first {arch.outside[0]}"
        )
    if check_out:
        require_out(plan)
        machine.require_memory(plan.peak_memory(), max_ram)
    return plan


def candidates(arch: Architecture, recipe: Recipe) -> list[Matrix]:
    """The matrices a recipe may quantize: those of the blocks, and the head where a rule names it."""
    chosen = arch.quantizable()
    head = arch.head
    if head is None or not any(_names_head(rule.match, arch) for rule in recipe.rules):
        return chosen
    entry = arch.checkpoint.entry(head)
    if arch.tied and not recipe.untie:
        raise RecipeError(
            "the head shares its tensor with the embedding: quantizing it would quantize both",
            where=head,
            fix="Set untie = true in the recipe to store a quantized head beside the float embedding",
        )
    return [*chosen, Matrix(head, f"{arch.head_module}.weight", entry.shape[0], entry.shape[1], None)]


def _names_head(pattern: str, arch: Architecture) -> bool:
    return arch.head_module is not None and pattern_matches(pattern, arch.head_module) and pattern.strip() != "*"


def _item(plan: Plan, matrix: Matrix) -> Item | None:
    recipe = plan.recipe
    name = f"{plan.arch.head_module}.weight" if matrix.block is None else matrix.name
    layer, _ = recipe.layer_for(name)
    if layer.format == "float":
        return None
    note = None
    kind = "bf16" if plan.arch.checkpoint.entry(matrix.name).dtype == torch.bfloat16 else "fp16"
    scheme = Scheme(named(layer.format, group=layer.group, symmetric=layer.symmetric, scale=kind), layer.activations)
    if not scheme.format.fits(matrix.columns):
        if recipe.indivisible == "error":
            legal = [g for g in (16, 32, 64, 128, 256) if matrix.columns % g == 0]
            raise TensorError(
                f"{matrix.columns} inputs do not divide into groups of {scheme.format.block}",
                where=matrix.name,
                fix=f'Legal groups: {", ".join(map(str, [*legal, "channel"]))}; or set indivisible = "channel" or '
                '"float" in the recipe (--indivisible)',
            )
        if recipe.indivisible == "float":
            plan.notes.append(
                f"{matrix.name}: left float, {matrix.columns} inputs do not divide by {scheme.format.block}"
            )
            return None
        note = f"one scale a row: {matrix.columns} inputs do not divide by {scheme.format.block}"
        plan.notes.append(f"{matrix.name}: {note}")
        scheme = Scheme(named(layer.format, group="channel", symmetric=layer.symmetric, scale=kind), layer.activations)
    if recipe.output == "compressed-tensors":
        scheme.require_packing()
        if matrix.transposed:
            raise TensorError(
                "no runtime reads packed Conv1D weights (stored inputs x outputs)",
                where=matrix.name,
                fix='Use --simulate (output = "float") to study it, or a GGUF or ONNX export once available',
            )
    if layer.method in ("adaround", "lsq"):
        raise RecipeError(
            f"method {layer.method} learns ONNX networks only",
            where=matrix.name,
            fix="Choose rtn, mse, gptq, descent or lloyd",
        )
    if bool(scheme.format.code.table_bits) != (layer.method == "lloyd"):
        raise RecipeError(
            f"method {layer.method} and format {layer.format} do not go together",
            where=matrix.name,
            fix="Codebook formats need --method lloyd, and lloyd needs a codebook format",
        )
    return Item(matrix, scheme, layer, note)


def _require_patterns(plan: Plan) -> None:
    known = [m.name for m in plan.arch.quantizable()]
    head = plan.arch.head_module
    for rule in plan.recipe.rules:
        if any(pattern_matches(rule.match, name) for name in known) or _names_head(rule.match, plan.arch):
            continue
        raise RecipeError(
            f"pattern {rule.match!r} matches no matrix",
            where="recipe: rules",
            fix=nearest(rule.match, [*known, head or ""]),
        )


def _require_coverage(plan: Plan) -> None:
    """Raise where weights of the blocks stay float although nobody asked for it."""
    asked = {m.name for m in plan.arch.quantizable() if plan.recipe.layer_for(m.name)[0].format == "float"}
    total = left = 0
    worst: tuple[int, str] = (0, "")
    for block in range(plan.arch.count):
        for entry in plan.arch.tensors_of(block):
            if len(entry.shape) < 2 or entry.name in asked:
                continue
            total += entry.count
            if entry.name not in plan.items:
                left += entry.count
                worst = max(worst, (entry.count, entry.name))
    if not plan.items:
        raise RecipeError("nothing would be quantized", where=str(plan.source), fix='Give a format other than "float"')
    percent = 100 * left / max(total, 1)
    if percent > plan.recipe.max_float_percent:
        raise RecipeError(
            f"{percent:.1f} % of the decoder blocks' weights would stay float "
            f"(limit {plan.recipe.max_float_percent:g} %), the largest {worst[1]}",
            where=str(plan.source),
            fix="Leave them float on purpose with a rule, or raise max_float_percent in the recipe",
        )


def _specs(plan: Plan) -> list[Spec]:
    """Every tensor of the output, in the source's order of files and offsets."""
    specs: list[Spec] = []
    compressed = plan.recipe.output == "compressed-tensors"
    copied = {e.name for e in plan.copies}
    for entry in plan.arch.checkpoint.tensors.values():
        if entry.name in copied:
            specs.append(Spec(entry.name, entry.dtype, entry.shape))
        item = plan.items.get(entry.name)
        if item is None:
            continue
        module = output_module(plan, item)
        if compressed:
            specs += item.scheme.specs(module, item.matrix.rows, item.matrix.columns)
        else:
            specs.append(Spec(f"{module}.weight", entry.dtype, entry.shape))
    return specs


def output_module(plan: Plan, item: Item) -> str:
    """The module name under which a matrix is stored: its own, or the head's where it was tied to the embedding."""
    head = item.matrix.block is None and plan.arch.tied
    return str(plan.arch.head_module) if head else item.matrix.module


def require_out(plan: Plan) -> None:
    """Raise where the output cannot be written: it exists, the folder is read-only, or the disk is too small."""
    out, parent = plan.out, plan.out.parent
    if out.exists():
        raise RecipeError("the output exists", where=str(out), fix="Choose another -o, or remove it")
    base = parent
    while not base.exists():
        base = base.parent
    if not base.is_dir() or not os.access(base, os.W_OK | os.X_OK):
        raise ResourceError("the output folder cannot be written", where=str(base), fix="Choose another -o")
    free = shutil.disk_usage(base).free
    held = sum(p.stat().st_blocks * 512 for p in plan.partial.glob("*")) if plan.partial.is_dir() else 0
    if plan.layout.total_bytes > free + held:
        raise ResourceError(
            f"the output needs {plan.layout.total_bytes / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free",
            where=str(base),
            fix="Free disk space or choose another -o",
        )
