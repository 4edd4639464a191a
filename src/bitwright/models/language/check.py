"""Checks a quantized folder or GGUF file from any tool, and measures its error against the float model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from bitwright.core.measure import Error, Usage
from bitwright.errors import BitwrightError, CertificationError, ModelError
from bitwright.events import Event, Finding, Note, Precision, Progress, Row
from bitwright.files import gguf
from bitwright.files.containers.gguf import reader
from bitwright.files.folder import open_checkpoint, require_finite
from bitwright.files.quantized import QuantizedCheckpoint
from bitwright.files.safetensors import Checkpoint
from bitwright.models import precision
from bitwright.models.language.arch import Architecture
from bitwright.models.language.cache import read_back
from bitwright.models.language.memory import SOLVE
from bitwright.models.language.modules import modules
from bitwright.models.model import levels_of
from bitwright.words import plural, some

SHOWN = 8
"""Bad tensors that are named; the others are counted."""
UNRELATED = 1.0
"""SQNR in dB below which two matrices are not copies of one another: one bit has 4, other weights have -3."""


def check(path: Path, against: Path | None = None) -> Iterator[Event]:
    """Check every part of a model folder, or what a GGUF file shows; yields Findings, and Rows against a float folder.

    Checks files and index, config against tensors, finite scales and weights, that stored integers decode, that the
    container's independent decoder decodes them as we do, and how much of the blocks is quantized; tells the Precision
    of every quantized matrix. What is not known here is said to be so, without a verdict. Raises only for an unreadable
    `against`, and for a shard that is not the first; everything wrong with `path` is a Finding that is not good.
    """
    original = None if against is None else _original(against)
    held: dict[str, Precision] = {}
    if gguf.is_gguf(path):
        checkpoint = yield from _gguf(path, held)
    else:
        checkpoint = yield from _folder(path, held)
    if original is None:
        return
    if checkpoint is None:
        yield Finding("against", None, f"nothing could be compared with {original.folder}")
        return
    yield from compare_weights(original, checkpoint, held)


def _original(folder: Path) -> Checkpoint:
    """The tensors of a float folder, experts one by one where its network is known."""
    checkpoint = open_checkpoint(folder)
    try:
        return Architecture.open(folder).checkpoint
    except ModelError:
        return checkpoint


def _folder(folder: Path, held: dict[str, Precision]) -> Generator[Event, None, Checkpoint | None]:
    """The findings about a folder; its tensors where all of them are understood and sound.

    How finely its quantized matrices are stored is told, and kept in `held`.
    """
    try:
        checkpoint = open_checkpoint(folder)
    except BitwrightError as error:
        yield Finding("files, config and tensors", None if error.foreign else False, str(error))
        if error.foreign:
            yield from _unknown(folder)
        return None
    yield Finding("files", True, f"{len(checkpoint.files)} weight files, {checkpoint.size / 1e6:,.1f} MB decoded")
    try:
        arch = Architecture.open(folder)
    except BitwrightError as error:
        yield Finding("config and tensors", None if error.foreign else False, str(error))
        if not error.foreign:
            return None
        yield from _contents(checkpoint, held)
        return checkpoint
    yield Finding("config and tensors", True, f"{type(arch.config).__name__}, {arch.count} blocks")
    yield from _contents(checkpoint, held)
    yield _coverage(arch, checkpoint)
    if isinstance(checkpoint, QuantizedCheckpoint):
        yield from _cache(arch, checkpoint)
        yield from _runtimes(arch, checkpoint)
    return arch.checkpoint


def _unknown(folder: Path) -> Iterator[Event]:
    """The files of a folder whose meaning is not known: whole, and finite where they hold floats."""
    try:
        checkpoint = Checkpoint(folder)
    except BitwrightError as error:
        yield Finding("files", None if error.foreign else False, str(error))
        return
    yield Finding("files", True, f"{len(checkpoint.files)} weight files, {checkpoint.size / 1e6:,.1f} MB")
    yield from _contents(checkpoint, {})


def _gguf(path: Path, held: dict[str, Precision]) -> Generator[Event, None, Checkpoint | None]:
    """What a GGUF file is, that it is whole, that its scales and floats are finite, and which levels its codes use.

    Returns its tensors under the names of its network, where that is known; how they are stored is kept in `held`.
    """
    try:
        found = gguf.read(path)
    except gguf.LaterShardError:
        raise  # nothing is wrong with it
    except BitwrightError as error:
        yield Finding("file", None if error.foreign else False, str(error))
        return None
    types = Counter(tensor.type.name if tensor.type else f"type {tensor.number}" for tensor in found.tensors)
    kinds = ", ".join(f"{count} {name}" for name, count in types.most_common())
    architecture = found.facts.get("general.architecture", "of an unnamed architecture")
    several = f" in {len(found.files)} shards" if found.others else ""
    told = f"GGUF version {found.version}, {architecture}, {len(found.tensors)} tensors{several}: {kinds}"
    yield Finding("file", True, told)
    bad: list[str] = []
    known = [tensor for tensor in found.tensors if tensor.type is not None]
    usages: dict[str, Usage] = {}
    rows: list[Precision] = []
    for done, tensor in enumerate(known, 1):
        if (wrong := found.bad_halves(tensor)) is not None:
            bad.append(f"{tensor.path}: {tensor.name}: {wrong} is no scale or weight")
        if (usage := reader.usage(found, tensor)) is not None:
            usages[tensor.name] = usage
            rows.append(_stored(tensor, usage))
            yield rows[-1]
        yield Progress("check", done, len(known), tensor.name)
    for text in bad[:SHOWN]:
        yield Finding("tensor", False, text)
    if len(bad) > SHOWN:
        yield Finding("tensor", False, f"{len(bad) - SHOWN} more tensors like these")
    if not bad:
        yield Finding("tensors", True, f"{len(known)} tensors whole, their scales and floats finite")
    yield from precision.findings(rows, usages, "tensors")
    vectors = [tensor.name for tensor in known if tensor.type and tensor.type.name in reader.VECTORS]
    if vectors:
        told = f"those of {plural(len(vectors), 'tensor')} stand for several weights at once (first {vectors[0]})"
        yield Finding("codes", None, f"{told}: no weight has levels of its own")
    return None if bad else (yield from _network(path, held))


def _network(path: Path, held: dict[str, Precision]) -> Generator[Event, None, Checkpoint | None]:
    """That the tensors of a GGUF file are those of its network, and that two decoders agree; the tensors."""
    try:
        arch = Architecture.open(path)
    except BitwrightError as error:
        yield Finding("network", None if error.foreign else False, str(error))
        return None
    checkpoint = arch.checkpoint
    assert isinstance(checkpoint, QuantizedCheckpoint)
    yield Finding("network", True, f"{type(arch.config).__name__}, {arch.count} blocks")
    for done, name in enumerate(checkpoint.quantized, 1):
        try:
            held[name] = _held(checkpoint, name, _decode(checkpoint, name))
        except BitwrightError as error:
            yield Finding("tensor", False, str(error))
            return None
        yield Progress("check", done, len(checkpoint.quantized), f"decoding {name}")
    yield Finding("codes", True, f"{len(checkpoint.quantized)} matrices decode alike in two decoders")
    yield _coverage(arch, checkpoint)
    return checkpoint


def _stored(tensor: gguf.Tensor, usage: Usage) -> Precision:
    """How finely a tensor of a GGUF file is stored."""
    assert tensor.type is not None
    return Precision(
        name=tensor.name, format=tensor.type.name, rows=tensor.rows, columns=tensor.columns,
        stored_bits=8 * tensor.size, levels=usage.levels, levels_used=usage.used,
        entropy=usage.entropy,
    )  # fmt: skip


def _contents(checkpoint: Checkpoint, held: dict[str, Precision]) -> Iterator[Event]:
    """Finite values everywhere, two decoders that agree, and which levels the codes use; the last in `held`, too."""
    bad: list[str] = []
    usages: dict[str, Usage] = {}
    names = list(checkpoint.tensors)
    for done, name in enumerate(names, 1):
        try:
            if isinstance(checkpoint, QuantizedCheckpoint) and name in checkpoint.quantized:
                usages[name] = _decode(checkpoint, name)
                held[name] = _held(checkpoint, name, usages[name])
                yield held[name]
            else:
                rows = max(1, (1 << 24) // max(checkpoint.entry(name).row_size, 1))
                for start, piece in checkpoint.chunks(name, rows):
                    require_finite(name, piece, start)
        except BitwrightError as error:
            bad.append(str(error))
        yield Progress("check", done, len(names), name)
    for text in bad[:SHOWN]:
        yield Finding("tensor", False, text)
    if len(bad) > SHOWN:
        yield Finding("tensor", False, f"{len(bad) - SHOWN} more tensors like these")
    if not bad:
        quantized = len(checkpoint.quantized)
        decoders = f", {quantized} matrices decode alike in two decoders" if quantized else ""
        yield Finding("tensors", True, f"{len(names)} tensors, all finite{decoders}")
    yield from precision.findings(list(held.values()), usages, "matrices")


def _held(checkpoint: QuantizedCheckpoint, name: str, usage: Usage) -> Precision:
    """How finely a quantized matrix is stored."""
    held, shape = checkpoint.quantized[name], checkpoint.entry(name).shape
    rows, columns = math.prod(shape[:-1]), shape[-1]
    return Precision(
        name=name, format=held.words, rows=rows, columns=columns,
        stored_bits=held.format.stored_bits(rows, columns), levels=usage.levels, levels_used=usage.used,
        entropy=usage.entropy, input_levels=levels_of(held.activations),
    )  # fmt: skip


def _decode(checkpoint: QuantizedCheckpoint, name: str) -> Usage:
    """How the levels of a matrix are used. Raises CertificationError where two decoders differ, TensorError for NaN."""
    code = checkpoint.quantized[name].format.code
    usage = Usage.of(torch.zeros(0, dtype=torch.uint8), code)
    for start, stop in _pieces(checkpoint, name):
        for part, tensor in checkpoint.parts(name, start, stop).items():
            require_finite(f"{name.removesuffix('.weight')}.{part}", tensor, start)
        q = checkpoint.qtensor(name, start, stop)
        own = q.decode()
        require_finite(name, own, start)
        theirs = checkpoint.by_library(name, start, stop)
        if not torch.equal(own.to(theirs.dtype), theirs):
            raise CertificationError("two decoders disagree", where=name, fix="Quantize again")
        usage += Usage.of(q.codes, code)
    return usage


def _pieces(checkpoint: QuantizedCheckpoint, name: str) -> list[tuple[int, int]]:
    """Runs of rows of a quantized matrix, in whole words: decoding them takes 24 bytes per weight."""
    rows, *rest = checkpoint.entry(name).shape
    columns = math.prod(rest)
    least = checkpoint.step(name)
    step = max(1, SOLVE // columns // least) * least
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]


def _coverage(arch: Architecture, checkpoint: Checkpoint) -> Finding:
    matrices = arch.quantizable()
    total = sum(m.rows * m.columns for m in matrices)
    if not isinstance(checkpoint, QuantizedCheckpoint):
        return Finding("coverage", True, "float weights: nothing is quantized")
    left = [m for m in matrices if m.name not in checkpoint.quantized]
    share = 1 - sum(m.rows * m.columns for m in left) / max(total, 1)
    inside = {m.name for m in matrices}
    formats = sorted({held.words for name, held in checkpoint.quantized.items() if name in inside})
    names = f"; float: {', '.join(m.module for m in left[:3])}{' ...' if len(left) > 3 else ''}" if left else ""
    told = f"{share:.1%} of the blocks' weights" + (f" as {', '.join(formats)}" if formats else "")
    tables = {arch.head: "head", arch.embedding: "embedding and head" if arch.tied else "embedding"}
    for name, held in checkpoint.quantized.items():
        if name in tables:
            told += f", {tables[name]} as {held.words}"
    bits = 8 * sum(file.stat().st_size for file in checkpoint.files) / max(arch.weights, 1)
    return Finding("coverage", bool(checkpoint.quantized), f"{told}; {bits:.2f} bits per parameter{names}")


def _cache(arch: Architecture, checkpoint: QuantizedCheckpoint) -> Iterator[Finding]:
    """Whether the scales of keys and values are there and sound, where config.json says that these are rounded."""
    try:
        held, kept = checkpoint.cache(arch.model), read_back(checkpoint, arch)
    except BitwrightError as error:
        yield Finding("keys and values", None if error.foreign else False, str(error))
        return
    if held is not None and kept is not None:
        count = plural(len(kept.attentions), "attention")
        yield Finding("keys and values", True, f"{held.words}: {count}, all scales finite and positive")


def _runtimes(arch: Architecture, checkpoint: QuantizedCheckpoint) -> Iterator[Finding]:
    """Whether config.json tells float layers from quantized ones, and what loads the folder."""
    found = modules(arch, checkpoint.quantized)
    if bare := checkpoint.unmarked(found):
        names = some(bare, SHOWN)
        yield Finding("config", False, f"stored in float, and said to be quantized: {names}. Name them in ignore")
    if loads := checkpoint.runtimes(found, arch.unpacks):
        yield Finding("loads in", True, "; ".join(loads))


def compare_weights(original: Checkpoint, other: Checkpoint, held: Mapping[str, Precision]) -> Iterator[Event]:
    """A Row for every matrix that both folders hold with the same name and shape, and that differs.

    `held` says how finely the quantized ones are stored.

    Raises ModelError where there is none that both hold. What is held by one alone, or in another shape, is summed up.
    """
    both = [name for name in original.tensors if name in other.tensors]
    matrices = [name for name in both if len(original.entry(name).shape) == 2]
    alike = [name for name in matrices if other.entry(name).shape == original.entry(name).shape]
    if not alike:
        what = f"nothing could be compared: it has no matrix of the name and shape of one in {other.folder}"
        raise ModelError(what, where=str(original.folder), fix="Give the float model that it was made from")
    if gone := [name for name in original.tensors if name not in other.tensors]:
        yield Note(f"{len(gone)} tensors are in {original.folder.name} only, first {gone[0]}")
    if odd := [name for name in matrices if name not in alike]:
        shapes = f"{list(original.entry(odd[0]).shape)} against {list(other.entry(odd[0]).shape)}"
        yield Note(f"{len(odd)} matrices differ in shape and were not compared, first {odd[0]}: {shapes}")
    best = -math.inf
    for name in alike:
        row = _compare(original, other, name, held.get(name))
        if row is None:
            best = math.inf  # it is the same matrix
        else:
            best = max(best, row.sqnr)
            yield row
    if best < UNRELATED:
        detail = f"no matrix of {original.folder} is nearer than {best:.1f} dB SQNR: it is not what this was made from"
        yield Finding("against", None, f"nothing could be compared: {detail}")


def _compare(original: Checkpoint, other: Checkpoint, name: str, held: Precision | None) -> Row | None:
    """The Row of one matrix; None for one that is float, and the same."""
    entry, error = original.entry(name), Error()
    rows = max(1, (1 << 24) // max(entry.row_size, 1))
    for start, piece in original.chunks(name, rows):
        error += Error.between(piece, other.read(name, start, start + rows))
    if error.noise == 0 and not held:
        return None
    stored = held or Precision(
        name=name,
        format=str(other.entry(name).dtype).removeprefix("torch."),
        rows=entry.shape[0],
        columns=entry.shape[1],
        stored_bits=other.entry(name).size * 8,
    )
    return Row(
        **asdict(stored),
        method="",
        mse=error.mse,
        psnr=error.psnr(),
        sqnr=error.sqnr,
        cosine=error.cosine,
    )
