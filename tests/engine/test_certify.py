"""Every row of a matrix is checked, in whatever piece it lies, and figures do not depend on the number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from bitwright.engine.run import run
from bitwright.errors import CertificationError, TensorError
from bitwright.events import Finished, Row, Started
from bitwright.files.containers.compressed_tensors import reader
from bitwright.files.containers.compressed_tensors.layout import Scheme
from bitwright.files.folder import open_checkpoint
from bitwright.models.language import compare, memory, verify
from bitwright.models.language.model import sink_of
from bitwright.models.model import Plan
from tests import jobs, tiny
from tests.engine.test_end_to_end import WIDE

NAME = "model.layers.1.mlp.up_proj.weight"
"""256 rows of 128 inputs."""
SCHEMES: list[dict[str, Any]] = [
    {"group": 32},
    {"group": 32, "symmetric": False},
    {"format": "int8", "group": "channel"},
    {"format": "fp8"},
    {"format": "int2", "group": 32, "symmetric": False},
]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make("llama", tmp_path_factory.mktemp("llama") / "llama", **WIDE)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Who uses it has its own name for it.
    for module in (memory, verify, compare):
        monkeypatch.setattr(module, "CACHED", 32 * 128)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def written(source: Path, out: Path, **recipe: Any) -> tuple[Plan, dict[str, Row]]:
    """A job stopped when all is written and nothing certified, and its rows."""
    plan = jobs.made(source, out, **recipe)
    assert plan.model.piece_rows(plan, plan.items[NAME]) == 32
    rows: dict[str, Row] = {}
    for event in run(plan):
        if isinstance(event, Row):
            rows[event.name] = event
        if isinstance(event, Started) and event.phase == "certify":
            return plan, rows
    raise AssertionError("never certified")


def check(plan: Plan, rows: dict[str, Row]) -> None:
    plan.model.finish(plan)  # the config says how the matrices are read
    source = open_checkpoint(plan.source)
    verify.check_matrix(plan, source, open_checkpoint(plan.partial), NAME, plan.items[NAME], rows[NAME])


def overwrite(plan: Plan, suffix: str, row: int, value: int) -> None:
    """Fill one stored row of NAME with a byte."""
    file, offset, spec = sink_of(plan).layout.place[NAME.removesuffix("weight") + suffix]
    size = spec.size // spec.shape[0]
    with (plan.partial / file).open("r+b") as stored:
        stored.seek(offset + row * size)
        stored.write(bytes([value]) * size)


@pytest.mark.parametrize("row", [0, 31, 200, 255])
@pytest.mark.parametrize("layer", SCHEMES[:2])
def test_damage_in_any_piece_is_found(layer: dict[str, Any], row: int, llama: Path, tmp_path: Path) -> None:
    plan, rows = written(llama, tmp_path / "out", layer={"method": "rtn", **layer})
    check(plan, rows)
    overwrite(plan, "weight_packed", row, 0xFF)
    with pytest.raises(CertificationError, match="reads back with SQNR"):
        check(plan, rows)
    overwrite(plan, "weight_scale", row, 0xFF)
    with pytest.raises(TensorError, match=rf"not finite, first nan at \[{row}, 0\]"):
        check(plan, rows)


def test_float_output_is_checked_to_the_last_row(llama: Path, tmp_path: Path) -> None:
    plan, rows = written(llama, tmp_path / "out", layer={"method": "rtn", "format": "nf4", "group": 32}, output="float")
    check(plan, rows)
    overwrite(plan, "weight", 255, 0x40)
    with pytest.raises(CertificationError, match="reads back with SQNR"):
        check(plan, rows)


@pytest.mark.parametrize("last", [True, False])
def test_a_library_that_decodes_one_row_differently(
    last: bool, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, rows = written(llama, tmp_path / "out", layer={"method": "rtn", "group": 32})
    real, seen = reader.decode_by_library, []

    def other(parts: dict[str, torch.Tensor], scheme: Scheme) -> torch.Tensor:
        decoded = real(parts, scheme)
        seen.append(decoded.shape[0])
        if (len(seen) == 8) == last:
            decoded[-1, -1] += 1.5
        return decoded

    monkeypatch.setattr(reader, "decode_by_library", other)
    with pytest.raises(CertificationError, match=r"library decodes it differently \(by up to 1\."):
        check(plan, rows)
    assert not last or seen == [32] * 8


@pytest.mark.slow
@pytest.mark.parametrize("layer", SCHEMES)
def test_any_number_of_threads_gives_the_same_bytes_and_figures(
    layer: dict[str, Any], llama: Path, tmp_path: Path
) -> None:
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        plan = jobs.made(llama, tmp_path / str(threads), layer={"method": "rtn", **layer})
        events = list(run(plan))
        assert isinstance(events[-1], Finished)
        rows = [event for event in events if isinstance(event, Row)]
        figures = [[getattr(r, f.name) for f in fields(r) if f.name != "seconds"] for r in rows]
        certificate = events[-1].certificate
        found.append((certificate["output"], certificate["histogram"], figures))
    assert found[0] == found[1] == found[2]
