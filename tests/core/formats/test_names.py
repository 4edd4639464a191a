"""The registry: names, what they make, and families found by being there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bitwright.core import formats
from bitwright.core.code import Codebook
from bitwright.core.format import Format
from bitwright.core.formats import Asked, Family, named, names, register, spans
from bitwright.core.grid import INT, NARROW, TERNARY
from bitwright.core.scaling import Levels
from bitwright.errors import RecipeError


@pytest.mark.parametrize("name", names())
def test_every_name_makes_a_format(name: str) -> None:
    format = named(name)
    assert format.name == name and 1 <= format.bits <= 8
    assert format.stored_bits(256, 256) >= 256 * format.code.row_bits(256)
    title = names()[name]
    assert title and "\n" not in title and title == title.strip(" .")
    for asked in ({"group": "channel"}, {"symmetric": False}, {"scale": "bf16"}, {"group": 32, "scale": "fp32"}):
        assert named(name, **asked).name == name


def test_what_is_asked_applies_where_the_format_leaves_it_open() -> None:
    assert [named(f"int{b}").code for b in range(2, 9)] == [INT[b] for b in range(2, 9)]
    assert [named(f"int{b}_narrow").code for b in range(2, 9)] == [NARROW[b] for b in range(2, 9)]
    assert [named(f"codebook{b}").code for b in range(1, 9)] == [Codebook(f"codebook{b}", b) for b in range(1, 9)]
    assert named("int1").grid.values == (-0.5, 0.5)
    assert named("int1", symmetric=False).grid.values == (-1.0, 0.0)
    assert named("int4").zero is None
    assert named("int4", group=32, symmetric=False).zero == Levels.of((32, "i4"), zeros=True)
    assert named("int4", scale="bf16").scale == Levels.of((128, "bf16"))
    assert named("mxfp4", group=64, scale="fp16").scale == Levels.of((32, "e8m0"))
    assert named("nvfp4").scale == Levels.of((16, "e4m3"), ("tensor", "fp32"))
    assert named("fp8").block == "channel" and named("fp8", group=64).block == 64 and named("int4").block == 128


def test_int4_has_one_meaning_and_the_other_range_another_name() -> None:
    assert (named("int4").grid.low, named("int4").grid.high) == (-8, 7)
    assert (named("int4_narrow").grid.low, named("int4_narrow").grid.high) == (-7, 7)
    assert {grid.name for grid in INT.values()}.isdisjoint(grid.name for grid in NARROW.values())


@pytest.mark.parametrize(
    "name", ["int0", "int9", "int16", "int44", "int", "int1_narrow", "codebook16", "midrise", "INT4", "fp16", "", "4"]
)
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=r"no format is called .*Choose one of"):
        named(name)


def test_a_near_miss_is_met_with_a_suggestion() -> None:
    with pytest.raises(RecipeError, match=r"Did you mean nvfp4 or .*\? Choose one of: .*int1\.\.int8, int2_narrow\.\."):
        named("NVFP-4")
    with pytest.raises(RecipeError) as told:
        named("zzz")
    assert "Did you mean" not in str(told.value)


def test_an_unknown_type_of_scale_is_refused() -> None:
    with pytest.raises(RecipeError, match="no type of scale is called 'fp8'"):
        named("int4", scale="fp8")


def test_spans() -> None:
    assert spans(["int1", "int2", "int3", "nf4", "fp8", "q2_k", "q3_k"]) == ["int1..int3", "nf4", "fp8", "q2_k..q3_k"]


def test_register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_added", [])
    family = Family({"mine": "a test"}, lambda name, asked: Format(name, TERNARY, asked.levels(16)))
    register(family)
    assert named("mine").block == 16 and named("mine", group=8).block == 8 and names()["mine"] == "a test"
    for taken in (family, Family({"int4": "another"}, lambda name, asked: named("int8"))):
        with pytest.raises(ValueError, match=r"a format called .* exists"):
            register(taken)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(tmp_path)])
    formats._found.cache_clear()
    yield tmp_path
    sys.modules.pop(f"{formats.__name__}.thirds", None)
    formats._found.cache_clear()


def test_a_file_is_a_family_by_being_there(folder: Path) -> None:
    (folder / "thirds.py").write_text(
        "from bitwright.core.format import Format\n"
        "from bitwright.core.formats import Family\n"
        "from bitwright.core.grid import Grid\n"
        "THIRDS = Grid('thirds', (-1 / 3, 0.0, 1 / 3))\n"
        "FAMILY = Family({'thirds': 'a test'}, lambda name, asked: Format(name, THIRDS, asked.levels()))\n"
    )
    assert named("thirds").grid.high == 1 / 3 and "thirds" in names()


def test_asked() -> None:
    assert Asked().levels() == Levels.of((128, "fp16")) and Asked().levels(16).block == 16
    assert Asked("channel", scale="bf16").levels(zeros=True) == Levels.of(("channel", "bf16"), zeros=True)


def test_listing_names_imports_nothing_heavy() -> None:
    program = "import sys\nfrom bitwright.core import formats\nformats.names()\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "bitwright.core.formats.gguf" in loaded
    assert not {"torch", "scipy", "onnx", "transformers", "pydantic", "compressed_tensors"} & set(loaded)
