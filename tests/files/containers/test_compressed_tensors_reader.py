"""A quantized matrix read in pieces of rows is the matrix read whole, in both decoders."""

from __future__ import annotations

import json
from pathlib import Path

import compressed_tensors
import pytest
import torch

from bitwright.files.containers.compressed_tensors.layout import Scheme, decode_by_library, quantization_config, unpack
from bitwright.files.containers.compressed_tensors.reader import Reader
from bitwright.files.folder import open_checkpoint
from bitwright.files.safetensors import Layout
from bitwright.methods import rtn
from tests.files.containers.test_compressed_tensors import COLUMNS, SCHEMES, label, matrix, with_scale


def folder(path: Path, scheme: Scheme, rows: int) -> tuple[Reader, torch.Tensor]:
    """A folder that holds one quantized matrix `m`, and what it decodes to."""
    q = rtn.quantize(matrix(rows, seed=rows), scheme.format)
    layout = Layout(scheme.specs("m", rows, COLUMNS))
    layout.create(path)
    for name, part, first in scheme.pack("m", q, rows):
        layout.write(path, name, part, first)
    config = quantization_config({scheme: ["m"]}, [], compressed_tensors.__version__)
    (path / "config.json").write_text(json.dumps({"quantization_config": config}))
    checkpoint = open_checkpoint(path)
    assert isinstance(checkpoint, Reader)
    return checkpoint, q.decode()


@pytest.mark.parametrize("rows", [5, 64, 101])
@pytest.mark.parametrize("scheme", SCHEMES, ids=label)
def test_pieces_decode_to_the_whole(scheme: Scheme, rows: int, tmp_path: Path) -> None:
    scheme = with_scale(scheme, "bf16")
    checkpoint, whole = folder(tmp_path, scheme, rows)
    theirs = decode_by_library(checkpoint.parts("m.weight"), scheme)
    assert torch.equal(checkpoint.qtensor("m.weight").decode(), whole)
    for step in (scheme.rows_per_word, 64):
        for start in range(0, rows, step):
            parts = checkpoint.parts("m.weight", start, start + step)
            assert torch.equal(unpack(parts, scheme).decode(), whole[start : start + step])
            assert torch.equal(decode_by_library(parts, scheme), theirs[start : start + step])
    for start, stop in ((0, 3), (1, 2), (3, rows), (rows - 1, rows)):
        assert torch.equal(checkpoint.read("m.weight", start, stop), theirs[start:stop])


def test_a_piece_begins_at_a_whole_word(tmp_path: Path) -> None:
    scheme = next(s for s in SCHEMES if s.format.bits == 4 and s.format.zero)
    checkpoint, _ = folder(tmp_path, with_scale(scheme, "bf16"), 64)
    assert scheme.rows_per_word == 8
    with pytest.raises(ValueError, match="row 4 does not begin a word of 8 rows"):
        checkpoint.parts("m.weight", 4, 12)
