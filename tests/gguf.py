"""GGUF files, byte by byte."""

from __future__ import annotations

import struct

Stored = tuple[int, tuple[int, ...], bytes]
"""A tensor: its type's number, its shape with the longest run first, its bytes."""


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def made(tensors: dict[str, Stored], version: int = 3, align: int = 32) -> bytes:
    """A file that holds these tensors, and a list of two texts in its metadata."""
    facts = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        text("general.alignment") + struct.pack("<II", 4, align),
        text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b"),
        text("tokenizer.ggml.scores") + struct.pack("<IIQ2f", 9, 6, 2, 0.0, 1.0),
    ]
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(facts)) + b"".join(facts)
    data = b""
    for name, (number, shape, raw) in tensors.items():
        data += bytes(-len(data) % align)
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, number, len(data))
        data += raw
    return head + bytes(-len(head) % align) + data
