"""A quantized matrix read in pieces of rows is the matrix read whole, in both decoders."""

from __future__ import annotations

import json
from pathlib import Path

import compressed_tensors
import pytest
import torch

from bitwright.core.formats import named
from bitwright.files.containers.compressed_tensors.layout import Scheme, decode_by_library, quantization_config, unpack
from bitwright.files.containers.compressed_tensors.reader import Reader
from bitwright.files.containers.compressed_tensors.rules import UNEVEN
from bitwright.files.folder import open_checkpoint
from bitwright.files.safetensors import Layout
from bitwright.methods import rtn
from tests.files.containers.test_compressed_tensors import COLUMNS, SCHEMES, label, matrix, with_scale


def folder(
    path: Path, scheme: Scheme, rows: int, columns: int = COLUMNS, release: str = compressed_tensors.__version__
) -> tuple[Reader, torch.Tensor]:
    """A folder that holds one quantized matrix `m`, and what it decodes to."""
    q = rtn.quantize(matrix(rows, columns, seed=rows), scheme.format)
    layout = Layout(scheme.specs("m", rows, columns))
    layout.create(path)
    for name, part, first in scheme.pack("m", q, rows):
        layout.write(path, name, part, first)
    config = quantization_config({scheme: ["m"]}, [], release)
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


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("columns", [64, 11])
@pytest.mark.parametrize(("release", "padded"), [("0.17.1", True), ("0.18.0", False), ("0.20.1", False)])
@pytest.mark.parametrize("bits", UNEVEN)
def test_files_of_any_release(
    bits: int, release: str, padded: bool, columns: int, symmetric: bool, tmp_path: Path
) -> None:
    """3, 5, 6 and 7 bits in the layout of the release that wrote them: by the number of words, else by its name."""
    form = named(f"int{bits}", group="channel", symmetric=symmetric, scale="bf16")
    checkpoint, whole = folder(tmp_path, Scheme(form, padded=padded), 70, columns, release)
    assert torch.equal(checkpoint.qtensor("m.weight").decode(), whole)
    assert torch.equal(checkpoint.by_library("m.weight"), whole.to(torch.bfloat16))
    step = checkpoint.step("m.weight")
    assert step == (32 // bits if padded else 32 if bits % 2 else 16)
    assert torch.equal(checkpoint.read("m.weight", step, step + 3), whole[step : step + 3].to(torch.bfloat16))
