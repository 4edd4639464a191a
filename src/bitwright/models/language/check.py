"""Checks a quantized folder from any tool, and measures its error against the float model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from bitwright.core.measure import Error
from bitwright.errors import BitwrightError, CertificationError, ModelError
from bitwright.events import Event, Finding, Note, Progress, Row
from bitwright.files.folder import open_checkpoint, require_finite
from bitwright.files.quantized import QuantizedCheckpoint
from bitwright.files.safetensors import Checkpoint
from bitwright.models.language.arch import Architecture
from bitwright.models.model import describe


def check(folder: Path, against: Path | None = None) -> Iterator[Event]:
    """Check every part of a model folder; yields Findings, and Rows against a float folder.

    Checks files and index, config against tensors, finite scales and weights, that stored integers decode, that the
    container's independent decoder decodes them as we do, and how much of the blocks is quantized. Raises only for an
    unreadable `against`; everything wrong with `folder` is a Finding that is not good.
    """
    try:
        checkpoint = open_checkpoint(folder)
        yield Finding("files", True, f"{len(checkpoint.files)} weight files, {checkpoint.size / 1e6:,.1f} MB decoded")
        arch = Architecture.open(folder)
    except BitwrightError as error:
        yield Finding("files, config and tensors", False, str(error))
        return
    yield Finding("config and tensors", True, f"{type(arch.config).__name__}, {arch.count} blocks")
    yield from _contents(checkpoint)
    yield _coverage(arch, checkpoint)
    if against is not None:
        yield from compare_weights(open_checkpoint(against), checkpoint)


def _contents(checkpoint: Checkpoint) -> Iterator[Event]:
    """Finite values everywhere, and two decoders that agree."""
    bad: list[str] = []
    names = list(checkpoint.tensors)
    for done, name in enumerate(names, 1):
        try:
            if isinstance(checkpoint, QuantizedCheckpoint) and name in checkpoint.quantized:
                _decode(checkpoint, name)
            else:
                rows = max(1, (1 << 24) // max(checkpoint.entry(name).row_size, 1))
                for start, piece in checkpoint.chunks(name, rows):
                    require_finite(name, piece, start)
        except BitwrightError as error:
            bad.append(str(error))
        yield Progress("check", done, len(names), name)
    for text in bad[:8]:
        yield Finding("tensor", False, text)
    if not bad:
        quantized = len(checkpoint.quantized)
        decoders = f", {quantized} matrices decode alike in two decoders" if quantized else ""
        yield Finding("tensors", True, f"{len(names)} tensors, all finite{decoders}")


def _decode(checkpoint: QuantizedCheckpoint, name: str) -> None:
    for part, tensor in checkpoint.parts(name).items():
        require_finite(f"{name.removesuffix('.weight')}.{part}", tensor)
    own = checkpoint.qtensor(name).decode()
    require_finite(name, own)
    theirs = checkpoint.by_library(name)
    if not torch.equal(own.to(theirs.dtype), theirs):
        raise CertificationError("two decoders disagree", where=name, fix="Quantize again")


def _coverage(arch: Architecture, checkpoint: Checkpoint) -> Finding:
    matrices = arch.quantizable()
    total = sum(m.rows * m.columns for m in matrices)
    if not isinstance(checkpoint, QuantizedCheckpoint):
        return Finding("coverage", True, "float weights: nothing is quantized")
    left = [m for m in matrices if m.name not in checkpoint.quantized]
    share = 1 - sum(m.rows * m.columns for m in left) / max(total, 1)
    formats = sorted({describe(*held) for held in checkpoint.quantized.values()})
    names = f"; float: {', '.join(m.module for m in left[:3])}{' ...' if len(left) > 3 else ''}" if left else ""
    return Finding("coverage", share > 0, f"{share:.1%} of the blocks' weights as {', '.join(formats)}{names}")


def compare_weights(original: Checkpoint, other: Checkpoint) -> Iterator[Event]:
    """A Row for every matrix that both folders hold with the same name and shape, and that differs."""
    if not original.tensors.keys() & other.tensors.keys():
        what = f"has none of the tensors of {other.folder}"
        raise ModelError(what, where=str(original.folder), fix="Give the float model that it was made from")
    for name, entry in original.tensors.items():
        if name not in other.tensors:
            yield Note(f"{name} is in {original.folder.name} only")
            continue
        if len(entry.shape) != 2:
            continue
        if other.entry(name).shape != entry.shape:
            yield Note(f"{name}: {list(entry.shape)} against {list(other.entry(name).shape)}, not compared")
            continue
        error, held = Error(), other.quantized.get(name)
        rows = entry.shape[0] if held else max(1, (1 << 24) // max(entry.row_size, 1))
        for start, piece in original.chunks(name, rows):
            error += Error.between(piece, other.read(name, start, start + rows))
        if error.noise == 0 and not held:
            continue
        yield Row(
            name=name,
            format=describe(*held) if held else str(other.entry(name).dtype).removeprefix("torch."),
            method="",
            rows=entry.shape[0],
            columns=entry.shape[1],
            stored_bits=held.format.stored_bits(*entry.shape) if held else other.entry(name).size * 8,
            mse=error.mse,
            psnr=error.psnr(),
            sqnr=error.sqnr,
            cosine=error.cosine,
        )
