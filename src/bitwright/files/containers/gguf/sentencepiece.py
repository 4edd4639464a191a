"""`tokenizer.model`, a SentencePiece vocabulary: its pieces with their scores and kinds.

Source: sentencepiece_model.proto of https://github.com/google/sentencepiece, on the wire format of Protocol Buffers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bitwright.errors import FileError
from bitwright.files.plain import read, why

PIECES, TRAINER, NORMALIZER = 1, 2, 3
"""Fields of the whole; of a piece its text, score and kind, of the trainer its model's type, of the normalizer whether
a space is put before the text."""
TEXT, SCORE, KIND, MODEL_TYPE, DUMMY_PREFIX = 1, 2, 3, 3, 3
NORMAL, BPE = 1, 2


@dataclass
class Vocabulary:
    """Pieces (text, score, kind as GGUF numbers them too) by id."""

    pieces: list[tuple[str, float, int]] = field(default_factory=list)
    prefix: bool = True
    """Whether a space is put before the text."""
    kind: int = 1
    """1 unigram, 2 pairs (BPE), 3 words, 4 characters."""


def vocabulary(path: Path) -> Vocabulary:
    """What the file holds. FileError where it is damaged, or splits text by other rules than pairs."""
    try:
        found = _parse(read(path))
    except (OSError, ValueError, struct.error, IndexError) as error:
        raise FileError(f"no SentencePiece model ({why(error)})", where=str(path), fix="Download it again") from error
    if found.kind != BPE:
        raise FileError(
            "a SentencePiece model that does not merge pairs (BPE): GGUF runtimes would split text otherwise",
            where=str(path),
            fix="Choose another output",
        )
    return found


def _parse(data: bytes) -> Vocabulary:
    found = Vocabulary()
    for number, value in _fields(data):
        if number == PIECES and isinstance(value, bytes):
            piece = dict(_fields(value))
            text, score, kind = piece.get(TEXT, b""), piece.get(SCORE, 0.0), piece.get(KIND, NORMAL)
            if not isinstance(text, bytes):
                raise ValueError("a piece without text")
            found.pieces.append((text.decode("utf-8"), float(score), int(kind)))
        elif number == TRAINER and isinstance(value, bytes):
            found.kind = int(dict(_fields(value)).get(MODEL_TYPE, found.kind))
        elif number == NORMALIZER and isinstance(value, bytes):
            found.prefix = bool(dict(_fields(value)).get(DUMMY_PREFIX, found.prefix))
    return found


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int | float]]:
    """(number, value) of a message: integers, float32 and what has a length."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
        elif kind == 1:
            at += 8
        elif kind == 2:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("truncated")
            yield tag >> 3, data[at : at + size]
            at += size
        elif kind == 5:
            yield tag >> 3, struct.unpack_from("<f", data, at)[0]
            at += 4
        else:
            raise ValueError(f"wire type {kind}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """(number, place after it)."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
