"""A GGUF model in shards as the one file that it was, for readers that know no shards."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gguf import GGMLQuantizationType

from bitwright.errors import FileError
from bitwright.files import gguf
from bitwright.files.containers.gguf.layout import Layout, Spec
from bitwright.files.containers.gguf.source import facts


@contextmanager
def joined(path: Path) -> Iterator[Path]:
    """The file itself, or one made of all shards of a model, of which `path` is the first; it goes afterwards.

    FileError for a type that is not known, ResourceError where the disk does not hold it.
    """
    found = gguf.read(path)
    if not found.others:
        yield path
        return
    if unknown := next((tensor for tensor in found.tensors if tensor.type is None), None):
        raise FileError(f"type {unknown.number} is not known here", where=f"{unknown.path}: {unknown.name}")
    with tempfile.TemporaryDirectory() as folder:
        specs = [Spec(t.name, GGMLQuantizationType(t.number), t.shape[::-1]) for t in found.tensors]
        layout = Layout("model.gguf", facts(path), specs)
        layout.create(Path(folder))
        with (Path(folder) / "model.gguf").open("r+b") as out:
            for tensor in found.tensors:
                out.seek(layout.place[tensor.name][1])
                for _, raw in found.pieces(tensor):
                    out.write(raw.data)
        yield Path(folder) / "model.gguf"
