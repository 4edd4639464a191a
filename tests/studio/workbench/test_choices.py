"""What a run can be told comes from the registries: one more method or format is offered without another word."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from pydantic import Field

from bitwright.core import formats
from bitwright.core.format import Format
from bitwright.core.formats import Asked, Family
from bitwright.core.grid import INT, TERNARY
from bitwright.methods import Options, registry
from bitwright.models import kinds
from bitwright.recipe import Recipe
from bitwright.studio.workbench.choices import choices


class ToyOptions(Options):
    """What the toy may be told."""

    turns: int = Field(3, ge=1, le=9)
    """Times it turns."""


def toy(**changes: Any) -> Any:
    return replace(registry.get("rtn"), name="toy", title="A toy", options=ToyOptions, fallback="mse", **changes)


def names(found: dict[str, Any], what: str) -> list[str]:
    return [each["name"] for each in found[what]]


@contextmanager
def added(family: Family) -> Iterator[None]:
    formats.register(family)
    try:
        yield
    finally:
        formats._added.remove(family)


def test_a_method_appears_where_it_can_be_used() -> None:
    with registry.adding(toy(needs="samples", scope="block")):
        found = choices()
    assert "toy" not in names(found["network"], "methods")
    made = next(method for method in found["language"]["methods"] if method["name"] == "toy")
    assert made["title"] == "A toy"
    assert made["needs"] == "samples"
    assert "int4" in made["formats"]
    turns = made["options"]["turns"]
    assert (turns["type"], turns["default"], turns["minimum"], turns["maximum"]) == ("integer", 3, 1, 9)
    assert turns["description"] == "Times it turns."
    assert all("toy" in fit["methods"] for fit in found["language"]["fits"] if fit["format"] == "int4")
    with registry.adding(toy(needs="samples")):
        found = choices()
    assert all("toy" in names(kind, "methods") for kind in found.values())
    assert "toy" not in names(choices()["network"], "methods")


def test_a_format_appears_where_it_can_be_stored() -> None:
    def make(name: str, asked: Asked) -> Format:
        return Format(name, TERNARY, asked.levels(64))

    with added(Family({"toy3": "three values"}, make, "Toys")):
        found = choices()
    assert "toy3" not in names(found["network"], "formats"), "no graph holds it"
    made = next(each for each in found["language"]["formats"] if each["name"] == "toy3")
    assert made == {"name": "toy3", "title": "three values", "family": "Toys", "bits": 2, "levels": [0, 0.5, 1]}
    [fit] = [fit for fit in found["language"]["fits"] if fit["format"] == "toy3"]
    assert fit["container"] == "float"
    assert fit["block"] == 64
    assert "channel" in fit["groups"]
    assert "descent" in fit["methods"] and "lloyd" not in fit["methods"]


def test_a_format_that_a_runtime_reads_says_so() -> None:
    def make(name: str, asked: Asked) -> Format:
        return Format(name, INT[4], asked.levels())

    with added(Family({"toy4": "four bits"}, make)):
        fits = [fit for fit in choices()["language"]["fits"] if fit["format"] == "toy4"]
    assert [fit["container"] for fit in fits] == ["compressed-tensors", "float"]


@pytest.mark.parametrize("kind", kinds.all(), ids=lambda kind: kind.name)
def test_what_is_offered_is_accepted(kind: Any) -> None:
    """Every fit is a recipe; the defaults are among the fits."""
    found = choices()[kind.name]
    for fit in found["fits"]:
        layer = {key: fit[key] for key in ("format", "symmetric", "activations")}
        for method in fit["methods"]:
            Recipe.read({"layer": {**layer, "group": fit["block"], "method": method}}, "test")
    layer = found["defaults"]["layer"]
    first = next(fit for fit in found["fits"] if fit["format"] == layer["format"])
    assert first["symmetric"] is layer["symmetric"]
    assert layer["method"] in first["methods"]
    assert found["containers"][0]["name"] == first["container"] == kind.output(Recipe())
    assert names(found, "methods")[0] == layer["method"]
    assert all(method["formats"] for method in found["methods"])


def test_budgets_and_mixes_are_offered_where_they_are_taken() -> None:
    found = choices()
    spending = {kind: [c["name"] for c in each["containers"] if c["spends"]] for kind, each in found.items()}
    assert spending == {"language": ["compressed-tensors", "gguf", "float"], "network": ["qdq", "nbits"]}
    assert "q4_k_m" in found["language"]["mixes"] and found["network"]["mixes"] == []
    common = {kind: each["settings"]["recipe"] for kind, each in found.items()}
    assert common["language"]["kv_cache"]["enum"] == ["float", "fp8", "int8", "int4"]
    assert common["network"]["effort"]["enum"] == ["fast", "default", "best"]
    assert "kv_cache" not in common["network"]


def test_activations_go_with_what_they_share_a_type_with() -> None:
    rounded = {(f["format"], f["activations"]) for f in choices()["language"]["fits"] if f["activations"] != "none"}
    assert {("int8", "int8"), ("fp8", "fp8")} <= rounded
    assert {f["activations"] for f in choices()["network"]["fits"]} == {"none"}


def test_nothing_heavy_is_loaded_for_it() -> None:
    program = (
        "from bitwright.studio.workbench.choices import choices; import sys; choices();"
        "print({'torch', 'transformers', 'onnx'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
