"""Is this quantized folder, anyone's, sound? And what did it cost against the float model?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from bitwright.core.measure import Error
from bitwright.engine.certify import hashes
from bitwright.engine.plan import describe
from bitwright.engine.report.certificate import certificate_path, load
from bitwright.errors import BitwrightError, CertificationError
from bitwright.events import Event, Note, Progress, Row, Started
from bitwright.files.compressed_tensors import decode_by_library
from bitwright.files.folder import QuantizedCheckpoint, open_checkpoint, require_finite
from bitwright.files.safetensors import Checkpoint
from bitwright.models.language.arch import Architecture


@dataclass(frozen=True)
class Finding(Event):
    """One thing that was looked at: `good`, and what was seen."""

    what: str
    good: bool
    detail: str = ""


def check(folder: Path, against: Path | None = None) -> Iterator[Event]:
    """Look at every part of a model folder; yields Findings, and Rows against a float folder.

    Checks files and index, the hashes of a certificate where there is one, config against tensors, finite scales and
    weights, that stored integers decode, that the compressed-tensors library decodes them as we do, and how much of
    the blocks is quantized. Raises only for an
    unreadable `against`; everything wrong with `folder` is a Finding that is not good.
    """
    yield Started("check", str(folder))
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
    yield from certified(folder)
    if against is not None:
        yield from compare_weights(open_checkpoint(against), checkpoint)


def certified(out: Path) -> Iterator[Finding]:
    """Whether a folder or ONNX file still has the bytes that its certificate names; nothing where there is none."""
    if not certificate_path(out).exists():
        return
    try:
        named: dict[str, str] = load(out)["output"]["sha256"]
        base = out if out.is_dir() else out.parent
        gone = [name for name in named if not (base / name).is_file()]
        other = [
            name for name, found in hashes(base / n for n in named if n not in gone).items() if found != named[name]
        ]
    except BitwrightError as error:
        yield Finding("certificate", False, str(error))
        return
    for name in gone:
        yield Finding("certificate", False, f"{name} is certified and is not here")
    for name in other:
        yield Finding("certificate", False, f"{name} is not the file that was certified: its SHA-256 is another")
    if not gone and not other:
        yield Finding("certificate", True, f"SHA-256 of {', '.join(named)} as certified")


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
    quantized = len(checkpoint.quantized) if isinstance(checkpoint, QuantizedCheckpoint) else 0
    for text in bad[:8]:
        yield Finding("tensor", False, text)
    if not bad:
        decoders = f", {quantized} matrices decode alike in two decoders" if quantized else ""
        yield Finding("tensors", True, f"{len(names)} tensors, all finite{decoders}")


def _decode(checkpoint: QuantizedCheckpoint, name: str) -> None:
    for suffix, part in checkpoint.parts(name).items():
        require_finite(f"{name.removesuffix('.weight')}.{suffix}", part)
    own = checkpoint.qtensor(name).decode()
    require_finite(name, own)
    theirs = decode_by_library(checkpoint.parts(name), checkpoint.quantized[name][1])
    if not torch.equal(own.to(theirs.dtype), theirs):
        raise CertificationError("two decoders disagree", where=name, fix="Quantize again")


def _coverage(arch: Architecture, checkpoint: Checkpoint) -> Finding:
    matrices = arch.quantizable()
    total = sum(m.rows * m.columns for m in matrices)
    if not isinstance(checkpoint, QuantizedCheckpoint):
        return Finding("coverage", True, "float weights: nothing is quantized")
    left = [m for m in matrices if m.name not in checkpoint.quantized]
    share = 1 - sum(m.rows * m.columns for m in left) / max(total, 1)
    formats = sorted({describe(scheme) for _, scheme in checkpoint.quantized.values()})
    names = f"; float: {', '.join(m.module for m in left[:3])}{' ...' if len(left) > 3 else ''}" if left else ""
    return Finding("coverage", share > 0, f"{share:.1%} of the blocks' weights as {', '.join(formats)}{names}")


def compare_weights(original: Checkpoint, other: Checkpoint) -> Iterator[Event]:
    """A Row for every matrix of one shape that both folders hold under one name and that differs."""
    for name, entry in original.tensors.items():
        if name not in other.tensors:
            yield Note(f"{name} is in {original.folder.name} only")
            continue
        if len(entry.shape) != 2:
            continue
        if other.entry(name).shape != entry.shape:
            yield Note(f"{name}: {list(entry.shape)} against {list(other.entry(name).shape)}, not compared")
            continue
        error = Error()
        quantized = isinstance(other, QuantizedCheckpoint) and name in other.quantized
        rows = entry.shape[0] if quantized else max(1, (1 << 24) // max(entry.row_size, 1))
        for start, piece in original.chunks(name, rows):
            error += Error.between(piece, other.read(name, start, start + rows))
        if error.noise == 0 and not quantized:
            continue
        scheme = other.quantized[name][1] if isinstance(other, QuantizedCheckpoint) and quantized else None
        yield Row(
            name=name,
            format=describe(scheme) if scheme else str(other.entry(name).dtype).removeprefix("torch."),
            method="",
            rows=entry.shape[0],
            columns=entry.shape[1],
            stored_bits=scheme.format.stored_bits(*entry.shape) if scheme else other.entry(name).size * 8,
            mse=error.mse,
            psnr=error.psnr(),
            sqnr=error.sqnr,
            cosine=error.cosine,
        )
