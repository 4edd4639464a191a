"""The text of a job: what methods calibrate on and what the verdict is measured on, with its lint and hash."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bitwright.engine import machine
from bitwright.engine.events import Event, Note, Progress, Started
from bitwright.engine.plan import Plan
from bitwright.engine.recipe import Calibration
from bitwright.errors import DataError, ModelError
from bitwright.models import corpus
from bitwright.models.data import Windows, cut, hash_ids, load_texts, write_own

OWN = "self-written.pt"
"""Where text that the model wrote is kept beside a partial output, so that resuming need not write it again."""


@dataclass(frozen=True)
class Text:
    """Token windows int64 [count, length]; `summary` goes into the certificate."""

    calibration: torch.Tensor
    heldout: torch.Tensor
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def calibration_hash(self) -> str:
        """SHA-256 of the calibration tokens."""
        return hash_ids(self.calibration)


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer; ModelError where it has none that transformers can load without running its code."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            "no tokenizer that can be loaded",
            where=str(folder),
            fix="Copy the model's tokenizer files here, or use --method rtn",
        ) from error


def read_heldout(folder: Path, source: str, count: int, length: int) -> Windows:
    """Held-out windows of a source for the tokenizer of `folder`."""
    texts = corpus.read("heldout") if source == "stdlib" else load_texts(source)
    return cut(texts, load_tokenizer(folder), count=count, length=length, source=source)


def prepare(plan: Plan) -> Generator[Event, None, Text | None]:
    """Read or write the text that `plan` needs; None for a data-free job without any text. Raises DataError.

    Yields progress only where the model writes its own text.
    """
    c = plan.recipe.calibration
    if not plan.evaluates:
        yield Note(
            "no text given: the verdict will compare weights and logits, not perplexity (give --calib or --heldout)"
        )
        return None
    if c.source == "self":
        return (yield from _write(plan, c))
    tokenizer = load_tokenizer(plan.source)
    if c.source == "stdlib":
        calibration = cut(load_texts("stdlib"), tokenizer, count=c.windows, length=c.length, source="stdlib")
        heldout = read_heldout(plan.source, c.heldout or "stdlib", c.heldout_windows, c.length)
    else:
        texts = load_texts(c.source)
        part = "all" if c.heldout else "calibration"
        calibration = cut(texts, tokenizer, count=c.windows, length=c.length, source=c.source, part=part)
        if c.heldout:
            heldout = read_heldout(plan.source, c.heldout, c.heldout_windows, c.length)
        else:
            heldout = cut(texts, tokenizer, count=c.heldout_windows, length=c.length, source=c.source, part="heldout")
    for line in calibration.lint.lines():
        yield Note(f"calibration: {line}")
    for warning in heldout.lint.warnings:
        yield Note(f"held-out: warning: {warning}")
    return Text(calibration.ids, heldout.ids, _summary(calibration, heldout))


def _summary(calibration: Windows, heldout: Windows) -> dict[str, Any]:
    return {
        kind: {"source": Path(w.source).name, "sha256": w.hash, **w.lint.summary()}
        for kind, w in (("calibration", calibration), ("heldout", heldout))
    }


def _write(plan: Plan, c: Calibration) -> Generator[Event, None, Text]:
    """The model's own text; needs the whole model in memory. The last windows are the held-out ones."""
    count = c.windows + c.heldout_windows
    kept = plan.partial / OWN
    ids = torch.load(kept, weights_only=True) if kept.exists() else None
    if ids is None or tuple(ids.shape) != (count, c.length):
        needed = machine.BASE + 2 * plan.source_bytes
        ceiling = plan.ceiling or machine.default_ceiling()
        if needed > ceiling:
            raise DataError(
                f"the model cannot write its own calibration text in {ceiling / machine.MIB:.0f} MiB "
                f"(it needs about {needed / machine.MIB:.0f})",
                where="--calib self",
                fix="Give text with --calib FILE, or use --method rtn",
            )
        yield Started("write", f"{count} windows of calibration text, by the model itself")
        ids = yield from _sample(plan, c, count)
        plan.partial.mkdir(parents=True, exist_ok=True)
        torch.save(ids, kept.with_suffix(".tmp"))
        kept.with_suffix(".tmp").rename(kept)
    calibration, heldout = ids[: c.windows], ids[c.windows :]
    summary = {
        kind: {"source": "self", "sha256": hash_ids(part), "windows": len(part), "length": c.length, "seed": c.seed}
        for kind, part in (("calibration", calibration), ("heldout", heldout))
    }
    return Text(calibration, heldout, summary)


def _sample(plan: Plan, c: Calibration, count: int) -> Generator[Event, None, torch.Tensor]:
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(plan.source)
    model = AutoModelForCausalLM.from_pretrained(
        plan.source, dtype=machine.calibration_dtype(plan.device), local_files_only=True, trust_remote_code=False
    ).to(plan.device)
    parts = []
    batch = 32
    for start in range(0, count, batch):
        rows = min(batch, count - start)
        parts.append(write_own(model, tokenizer, count=rows, length=c.length, seed=c.seed + start, batch=rows))
        yield Progress("write", start + rows, count, "the model writes its calibration text")
    return torch.cat(parts)
