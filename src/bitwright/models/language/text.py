"""The text of a job, for calibration and for the verdict, with its lint and hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from bitwright import machine
from bitwright.errors import DataError, ModelError, RecipeError, about
from bitwright.events import Event, Note, Progress, Started
from bitwright.files import hub
from bitwright.files.folder import network_of, read_config, require_finite
from bitwright.files.plain import fingerprint
from bitwright.models.language import corpus
from bitwright.models.language.arch import Architecture, load_config
from bitwright.models.language.blocks import release
from bitwright.models.language.data import (
    Part,
    Windows,
    cut,
    few_columns,
    hash_ids,
    load_texts,
    pinned,
    share_seen,
    tell_columns,
    write_own,
)
from bitwright.models.language.domain import domain
from bitwright.models.language.facts import SEEN
from bitwright.models.language.memory import WRITTEN, evaluates, widths, written
from bitwright.models.language.mixture import identity, interleave, shares_of
from bitwright.models.model import Plan
from bitwright.recipe import BROUGHT, Calibration
from bitwright.words import titles

CHECK_BYTES = 1 << 24
"""Bytes of a tensor in memory while it is checked."""
OWN = "self-written.pt"
"""Where text that the model wrote is kept beside a partial output, so that resuming need not write it again."""


@dataclass(frozen=True)
class Text:
    """Token windows int64 [count, length]; `summary` goes into the certificate.

    `heldout` is what the verdict judges by, `others` are further held-out windows by their source. `calibration` is
    empty where nothing looks at it.
    """

    calibration: torch.Tensor
    heldout: torch.Tensor
    others: dict[str, torch.Tensor] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def calibration_hash(self) -> str:
        """SHA-256 of the calibration tokens."""
        return hash_ids(self.calibration)


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer; ModelError where it has none that transformers can load without running its code."""
    from transformers import AutoTokenizer

    read_config(folder)
    try:
        if folder.is_file():
            return AutoTokenizer.from_pretrained(folder.parent, gguf_file=folder.name, local_files_only=True)
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(
            "no tokenizer that can be loaded",
            where=str(folder),
            fix="Copy the model's tokenizer files here, or use --method rtn",
        ) from error


def read_heldout(folder: Path, source: str, count: int, length: int, tokenizer: Any = None) -> Windows:
    """Held-out windows of a source for the tokenizer of `folder`, which is loaded unless given: it may be large."""
    source = pinned(source)
    texts = corpus.read("heldout") if source == BROUGHT else load_texts(source)
    windows = cut(texts, tokenizer or load_tokenizer(folder), count=count, length=length, source=source)
    require_fit(folder, windows.ids)
    return windows


def require_fit(folder: Path, ids: torch.Tensor) -> None:
    """Raise DataError where token windows [count, length] do not fit the model: its vocabulary or its positions."""
    config = load_config(folder).get_text_config()
    vocabulary, top = getattr(config, "vocab_size", None), int(ids.max())
    if vocabulary is not None and top >= vocabulary:
        raise DataError(
            f"the tokenizer gives token {top}, but the model's vocabulary has {vocabulary}",
            where=str(folder),
            fix="Use the tokenizer that belongs to the model, and compare only models that share one",
        )
    require_length(config, folder, ids.shape[1])


def require_length(config: Any, folder: Path, length: int) -> None:
    """Raise DataError where windows of `length` tokens have more positions than the model."""
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and length > positions:
        raise DataError(
            f"windows of {length} tokens, but the model was made for {positions}",
            where=str(folder),
            fix=f"Give --length {positions} or less",
            key="calibration.length",
        )


@dataclass(frozen=True)
class Order:
    """What text a job needs: `calibration` says of what sources and how much.

    `used` and `judged` are the windows that the model writes itself; `widths` are the inputs of the narrowest and the
    widest matrix that look at calibration text. Text of the model's own is kept in `folder`, within `room` bytes of
    memory.
    """

    calibration: Calibration
    used: int
    judged: int
    widths: Mapping[str, int]
    folder: Path
    room: int

    @classmethod
    def of(cls, plan: Plan) -> Order:
        """That of a plan."""
        return cls(plan.recipe.calibration, *written(plan), widths(plan), plan.partial, plan.room)


def prepare(plan: Plan, arch: Architecture, device: str) -> Generator[Event, None, Text | None]:
    """Read or write the text that `plan` needs; None for a data-free job without any text. Raises DataError.

    Yields progress only where the model writes its own text.
    """
    if not evaluates(plan):
        yield Note(
            "no text given: the verdict will compare weights and logits, not perplexity (give --calib or --heldout)"
        )
        return None
    return (yield from gather(Order.of(plan), arch, device))


def gather(order: Order, arch: Architecture, device: str) -> Generator[Event, None, Text]:
    """Read or write text; see `prepare`."""
    c, used, judged, source = order.calibration, order.used, order.judged, arch.checkpoint.folder
    ids, seen = torch.empty(0, c.length, dtype=torch.int64), {}
    parts: dict[str, Windows] = {}
    held: dict[str, Windows] = {}
    if used:
        whole = yield from _write(order, arch, device, used + judged)
        ids, seen = whole[:used], _own(whole[:used], c) | _columns(order, whole[:used])
        for warning in seen["warnings"]:
            yield Note(f"calibration: warning: {warning}")
        if judged:
            return Text(ids, whole[used:], summary={"calibration": seen, "heldout": _own(whole[used:], c)})
    tokenizer = load_tokenizer(source)
    if not c.own:
        with about("calibration.source"):
            parts, held = _cut_sources(source, c, tokenizer)
        ids = _mix(parts)
        seen = _mixture(parts, ids, c, _columns(order, ids))
        for line in _told(parts, seen):
            yield Note(f"calibration: {line}")
    with about("calibration.heldout"):
        for name in c.heldout or ():
            held[name] = read_heldout(source, name, c.heldout_windows, c.length, tokenizer)
    del tokenizer
    release()
    kinds = parts if order.widths else {}  # text that no method looks at makes nothing in domain
    facts = {name: _heldout_facts(windows, ids, kinds) for name, windows in held.items()}
    called = dict(zip(held, titles(held), strict=True))
    for name, found in facts.items():
        which = f"held-out {called[name]}" if len(held) > 1 else "held-out"
        for warning in found["warnings"]:
            yield Note(f"{which}: warning: {warning}")
        if (share := found["seen"]) > SEEN:
            yield Note(
                f"{which}: warning: calibration has {share:.0%} of its 16-token runs, so the verdict is flattered"
            )
    summary = {"calibration": seen} if seen else {}
    summary |= {"heldout" if i == 1 else f"heldout {i}": found for i, found in enumerate(facts.values(), 1)}
    first, *others = held
    return Text(ids, held[first].ids, {called[name]: held[name].ids for name in others}, summary)


def _heldout_facts(windows: Windows, ids: torch.Tensor, parts: Mapping[str, Windows]) -> dict[str, Any]:
    """What is said of held-out text: what share of it calibration `ids` hold, and whether `parts` are of its kind."""
    facts = _facts(windows) | {"seen": share_seen(windows.ids, ids) if len(ids) else 0.0}
    if not parts:
        return facts
    names, held = _names(parts), identity(windows.source)
    own = next((name for source, name in names.items() if identity(source) == held), None)
    placed = domain(windows.ids, {name: parts[source].ids for source, name in names.items()})
    return facts | {"domain": placed if own is None else {"in": True, "nearest": own}}


def _cut_sources(folder: Path, c: Calibration, tokenizer: Any) -> tuple[dict[str, Windows], dict[str, Windows]]:
    """Windows of each source to calibrate on, and others of each for the verdict where no text is named for that."""
    parts, held = {}, {}
    for name, count in shares_of(c).items():
        source = pinned(name)
        if source in parts:
            raise RecipeError(f"{source} is given twice", where=name, fix="Give it once, with one share")
        texts = load_texts(source)
        part: Part = "all"
        if c.heldout is None and source == BROUGHT:
            held[source] = read_heldout(folder, source, c.heldout_windows, c.length, tokenizer)
        elif c.heldout is None:
            part = "calibration"
            held[source] = cut(
                texts, tokenizer, count=c.heldout_windows, length=c.length, source=source, part="heldout"
            )
            require_fit(folder, held[source].ids)
        parts[source] = cut(texts, tokenizer, count=count, length=c.length, source=source, part=part)
        require_fit(folder, parts[source].ids)
    return parts, held


def _mix(parts: Mapping[str, Windows]) -> torch.Tensor:
    """The windows of all sources in one row, as `interleave` orders them."""
    rows = [iter(part.ids) for part in parts.values()]
    return torch.stack([next(rows[i]) for i in interleave([len(part.ids) for part in parts.values()])])


def _mixture(parts: Mapping[str, Windows], ids: torch.Tensor, c: Calibration, more: dict[str, Any]) -> dict[str, Any]:
    """What is said of calibration text: all there is of one source, or of each in a mixture. `more` is of the whole."""
    warned: list[str] = more["warnings"]
    if len(parts) == 1:
        (only,) = map(_facts, parts.values())
        return only | more | {"warnings": only["warnings"] + warned}
    found, names = [], _names(parts)
    for asked, (source, part) in zip(shares_of(c).values(), parts.items(), strict=True):
        share, warnings = len(part.ids) / len(ids), list(part.lint.warnings)
        if len(part.ids) < asked:
            warnings.append(
                f"it is {share:.0%} of the mixture instead of {asked / c.windows:.0%}: give more of it, a "
                "smaller share, or fewer --windows"
            )
        found.append(_facts(part) | {"source": names[source], "share": share})
        warned = warned + [f"{names[source]}: {warning}" for warning in warnings]
    whole = ", ".join(f"{part['source']} ({part['share']:.0%})" for part in found)
    size = {"windows": len(ids), "wanted": c.windows, "length": c.length}
    return {"source": whole, "sha256": hash_ids(ids), **size, **more, "warnings": warned, "sources": found}


def _told(parts: Mapping[str, Windows], seen: Mapping[str, Any]) -> Iterator[str]:
    """The same while it is read: what became of each source's texts, then the warnings."""
    for source, name in _names(parts).items():
        opening = f"{name}: " if len(parts) > 1 else ""
        yield from (f"{opening}{line}" for line in replace(parts[source].lint, warnings=()).lines())
    yield from (f"warning: {warning}" for warning in seen["warnings"])


def _names(sources: Iterable[str]) -> dict[str, str]:
    """What sources are called where they stand beside each other: data sets in full, others by the ends of paths."""
    known = [*sources]
    return {
        source: source if source.startswith(hub.PREFIX) else title
        for source, title in zip(known, titles(known), strict=True)
    }


def _columns(order: Order, ids: torch.Tensor) -> dict[str, Any]:
    """How many tokens calibration windows have per input column, with a warning where those are few."""
    tokens, wide = ids.numel(), order.widths
    per = {name: {"inputs": size, "tokens": tokens / size} for name, size in wide.items()}
    few = [tell_columns(tokens, wide, ids.shape[1])] if few_columns(tokens, wide) else []
    return {"per_column": per, "warnings": few}


def _facts(windows: Windows) -> dict[str, Any]:
    source = windows.source
    called = source if source.startswith(hub.PREFIX) else Path(source).name
    return {"source": called, "sha256": windows.hash, **windows.lint.summary()}


def _own(ids: torch.Tensor, c: Calibration) -> dict[str, Any]:
    """What is said of text that the model wrote."""
    return {"source": "self", "sha256": hash_ids(ids), "windows": len(ids), "length": c.length, "seed": c.seed}


def _write(order: Order, arch: Architecture, device: str, count: int) -> Generator[Event, None, torch.Tensor]:
    """`count` windows of the model's own text; needs the whole model in memory."""
    c, kept = order.calibration, order.folder / OWN
    held = torch.load(kept, weights_only=True) if kept.exists() else {}
    ids, key = held.get("ids"), _own_key(arch, device, c, count)
    if ids is None or held["key"] != key:
        needed = machine.BASE + 2 * arch.checkpoint.size
        ceiling = order.room
        if needed > ceiling:
            raise DataError(
                f"the model cannot write its own calibration text in {ceiling / machine.MIB:.0f} MiB "
                f"(it needs about {needed / machine.MIB:.0f})",
                where="--calib self",
                fix="Give text with --calib FILE, or use --method rtn",
                key="calibration.source",
            )
        require_length(arch.config.get_text_config(), arch.checkpoint.folder, c.length)
        # A damaged weight is named here; the text would only show that there is one.
        for name, entry in arch.checkpoint.tensors.items():
            for start, piece in arch.checkpoint.chunks(name, max(1, CHECK_BYTES // max(entry.row_size, 1))):
                require_finite(f"{entry.path}: {name}", piece, start)
        yield Started("write", f"{count} windows of calibration text, by the model itself")
        ids = yield from _sample(arch, device, c, count)
        order.folder.mkdir(parents=True, exist_ok=True)
        torch.save({"key": key, "ids": ids}, kept.with_suffix(".tmp"))
        kept.with_suffix(".tmp").rename(kept)
    return ids  # type: ignore[no-any-return]


def _own_key(arch: Architecture, device: str, c: Calibration, count: int) -> str:
    """SHA-256 of what decides the text that the model writes."""
    files = fingerprint([*arch.checkpoint.files, arch.checkpoint.folder / "config.json"])
    facts = [c.seed, count, c.length, device, files]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _sample(arch: Architecture, device: str, c: Calibration, count: int) -> Generator[Event, None, torch.Tensor]:
    source = arch.checkpoint.folder
    tokenizer = load_tokenizer(source)
    model = (
        network_of(load_config(source))
        .from_pretrained(
            source, dtype=machine.calibration_dtype(device), local_files_only=True, trust_remote_code=False
        )
        .to(device)
    )
    parts = []
    for start in range(0, count, WRITTEN):
        rows = min(WRITTEN, count - start)
        parts.append(write_own(model, tokenizer, count=rows, length=c.length, seed=c.seed + start, batch=rows))
        yield Progress("write", start + rows, count, "the model writes its calibration text")
    return torch.cat(parts)
