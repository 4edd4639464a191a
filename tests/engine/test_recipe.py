"""The recipe as text, as rules and as a hash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.errors import RecipeError, nearest
from bitwright.methods import gptq
from bitwright.methods.descent import Options
from bitwright.recipe import Calibration, Data, Layer, Picture, Recipe, Rule, Sound, matches

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
blocks = st.one_of(st.none(), st.sampled_from(["channel", "tensor"]), st.integers(1, 10**6))
methods = st.sampled_from(["rtn", "mse", "gptq", "descent", "lloyd", "adaround", "lsq"])
activations = st.sampled_from(["none", "int8", "fp8"])
damping, order = st.floats(1e-12, 1, exclude_min=True), st.sampled_from(["natural", "activation"])
OPTIONS: dict[str, dict[str, Any]] = {
    "gptq": {"damping": damping, "order": order},
    "descent": {"damping": damping, "order": order, "sweeps": st.integers(0, 100), "output_damping": damping},
    "lsq": {"epochs": st.integers(1, 99), "rate": st.floats(0, exclude_min=True, allow_infinity=False)},
}


def options(method: str) -> Any:
    return st.fixed_dictionaries({}, optional=OPTIONS.get(method, {}))


@st.composite
def layers(draw: Any) -> Layer:
    method = draw(methods)
    values = {
        "format": draw(text),
        "group": draw(blocks),
        "symmetric": draw(st.booleans()),
        "activations": draw(activations),
        "method": method,
        "options": draw(options(method)),
    }
    return Layer.model_validate(values)


@st.composite
def rules(draw: Any) -> Rule:
    method = draw(methods)
    values = {
        "match": draw(text),
        "format": draw(st.none() | text),
        "group": draw(blocks),
        "symmetric": draw(st.none() | st.booleans()),
        "activations": draw(st.none() | activations),
        "method": method,
        "options": draw(st.none() | options(method)),
    }
    return Rule.model_validate(values)


sides = st.integers(1, 4096)
numbers = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(0, exclude_min=True, allow_nan=False, allow_infinity=False)
datas = st.builds(
    Data,
    source=st.none() | text,
    heldout=st.none() | text,
    task=st.none() | st.sampled_from(["classify", "words", "detect", "match", "none"]),
    samples=sides,
    order=st.sampled_from(["spread", "given"]),
    classes=st.lists(text, max_size=4).map(tuple),
    image=st.builds(
        Picture,
        size=st.none() | st.tuples(sides, sides),
        fit=st.sampled_from(["none", "resize", "crop"]),
        mode=st.none() | st.sampled_from(["RGB", "BGR", "L"]),
        convert=st.booleans(),
        scale=st.none() | positive,
        mean=st.lists(numbers, max_size=3).map(tuple),
        std=st.lists(positive, max_size=3).map(tuple),
    ),
    audio=st.builds(
        Sound,
        rate=st.none() | sides,
        length=st.none() | sides,
        features=st.sampled_from(["raw", "logmel"]),
        floor=positive,
        normalize=st.booleans(),
    ),
)
recipes = st.builds(
    Recipe,
    layer=layers(),
    rules=st.lists(rules(), max_size=3).map(tuple),
    calibration=st.builds(
        Calibration,
        source=text,
        windows=st.integers(1, 10**9),
        heldout=st.none() | text,
        seed=st.integers(-(2**63), 2**63 - 1),
    ),
    data=datas,
    output=st.none() | st.sampled_from(["compressed-tensors", "float"]),
    indivisible=st.sampled_from(["error", "channel", "float"]),
    untie=st.booleans(),
    max_float_percent=st.floats(0, 100),
    max_shard_bytes=st.integers(10**6, 2**62),
)


@settings(max_examples=200, deadline=None)
@given(recipe=recipes)
def test_text_and_back(recipe: Recipe) -> None:
    assert Recipe.loads(recipe.dumps()) == recipe
    assert Recipe.loads(recipe.dumps()).hash == recipe.hash


def test_defaults() -> None:
    empty = Recipe.loads("")
    assert empty == Recipe() == Recipe.loads(Recipe().dumps())
    assert empty.layer == Layer(
        format="int4",
        group=None,
        symmetric=True,
        activations="none",
        method="descent",
        options=Options(damping=None, order="activation", sweeps=4, output_damping=0.3),
    )
    assert empty.rules == ()
    assert (empty.calibration.source, empty.calibration.windows, empty.calibration.length) == (["self"], 128, 256)
    assert (empty.output, empty.indivisible, empty.untie) == (None, "error", False)
    assert empty.layer_for("model.layers.0.mlp.up_proj.weight") == (empty.layer, False)


RULES = """
[layer]
format = "int4"
group = 64
options = { sweeps = 5 }

[[rules]]
match = "*.down_proj"
format = "int8"
group = "channel"

[[rules]]
match = "model.layers.0.*"
format = "fp8"

[[rules]]
match = "*.layers.1.*.weight"
method = "gptq"
options = { damping = 0.5 }
"""


def test_later_rules_win_and_leave_the_rest() -> None:
    recipe = Recipe.loads(RULES)

    def layer(name: str) -> Layer:
        layer, named = recipe.layer_for(name)
        assert named == (layer != recipe.layer)
        return layer

    plain = recipe.layer
    assert layer("model.layers.2.mlp.up_proj.weight") == plain
    assert layer("model.layers.2.mlp.down_proj.weight") == plain.model_copy(update=dict(format="int8", group="channel"))
    # Both match: the second's format, the group of the first, on which the second is silent.
    assert layer("model.layers.0.mlp.down_proj.weight") == plain.model_copy(update=dict(format="fp8", group="channel"))
    assert layer("model.layers.0.mlp.up_proj.weight") == plain.model_copy(update=dict(format="fp8"))
    last = layer("model.layers.1.mlp.down_proj.weight")
    assert (last.format, last.group, last.method, last.options) == (
        "int8", "channel", "gptq", gptq.Options(damping=0.5)
    )  # fmt: skip
    assert layer("model.layers.2.mlp.up_proj.weight").options == Options(sweeps=5)
    turned = recipe.model_copy(update=dict(rules=recipe.rules[::-1]))
    assert turned.layer_for("model.layers.0.mlp.down_proj.weight")[0].format == "int8"


def test_a_rule_that_repeats_the_default_still_names_the_matrix() -> None:
    recipe = Recipe(rules=(Rule(match="lm_head", format="int4"),))
    assert recipe.layer_for("lm_head.weight") == (recipe.layer, True)
    assert recipe.layer_for("model.lm_head.weight") == (recipe.layer, False)


@pytest.mark.parametrize(
    ("pattern", "name", "means"),
    [
        ("lm_head", "lm_head.weight", True),
        ("lm_head.weight", "lm_head.weight", True),
        ("*.mlp.*", "model.layers.3.mlp.up_proj.weight", True),
        ("*up_proj", "model.layers.3.mlp.up_proj.weight", True),
        ("*.layers.[12].*", "model.layers.2.mlp.up_proj.weight", True),
        ("*.layers.[12].*", "model.layers.12.mlp.up_proj.weight", False),
        ("up_proj", "model.layers.3.mlp.up_proj.weight", False),
        ("*UP_PROJ", "model.layers.3.mlp.up_proj.weight", False),
    ],
)
def test_patterns(pattern: str, name: str, means: bool) -> None:
    assert matches(pattern, name) == means


@pytest.mark.parametrize(
    ("toml", "where", "what", "fix"),
    [
        ("[layer]\nfromat = 'int4'", "r.toml: layer.fromat", "unknown option 'fromat'", "Did you mean format?"),
        ("[layers]\nformat = 'int4'", "r.toml: layers", "unknown option 'layers'", "Did you mean layer"),
        ("[layer.options]\nsweep = 2", "r.toml: layer.options.sweep", "unknown option 'sweep'", "Did you mean sweeps?"),
        ("[[rules]]\nmatch = '*'\ngroups = 8", "r.toml: rules.0.groups", "unknown option 'groups'", "mean group?"),
        (
            "[[rules]]\nmatch = '*'\n[[rules]]\nmatch = '*'\n[rules.options]\ndamp = 1",
            "r.toml: rules.1.options.damp",
            "unknown option 'damp'",
            "Did you mean damping?",
        ),
        ("[calibration]\nlenght = 9", "r.toml: calibration.lenght", "unknown option 'lenght'", "mean length?"),
        ("[data]\nsorce = 'x'", "r.toml: data.sorce", "unknown option 'sorce'", "Did you mean source"),
        ("[data.image]\nmeen = [0.5]", "r.toml: data.image.meen", "unknown option 'meen'", "Did you mean mean"),
        ("[data.audio]\nrates = 8000", "r.toml: data.audio.rates", "unknown option 'rates'", "Did you mean rate"),
        ("[data.image]\nfit = 'crpo'", "r.toml: data.image.fit", "got 'crpo'", "Did you mean crop?"),
        ("[data]\ntask = 'detection'", "r.toml: data.task", "got 'detection'", "Did you mean detect?"),
        ("[data.image]\nstd = [0.2, 0, 0.2]", "r.toml: data.image.std.1", "greater than 0 (got 0)", ""),
        ("[data.image]\nsize = [32]", "r.toml: data.image.size", "field required", ""),
        ("[data.image]\nscale = inf", "r.toml: data.image.scale", "finite", ""),
        ("zzzzzz = 1", "r.toml: zzzzzz", "unknown option 'zzzzzz'", "Known: layer, rules, calibration"),
        ("[layer]\nmethod = 'gtpq'", "r.toml: layer.method", "no method is called 'gtpq'", "Did you mean gptq?"),
        ("[layer]\ngroup = 'chanel'", "r.toml: layer.group", "got 'chanel'", "Did you mean channel?"),
        ("[layer]\ngroup = 0", "r.toml: layer.group", "got 0", ""),
        ("[layer.options]\ndamping = 0", "r.toml: layer.options.damping", "greater than 0 (got 0)", ""),
        (
            "[layer]\nmethod = 'lsq'\noptions = { rate = 0, step_rate = 0 }",
            "r.toml: layer.options",
            "rate and step_rate of 0 leave nothing to learn",
            "",
        ),
        (
            "[layer]\nmethod = 'rtn'\n[layer.options]\ndamping = 0.1",
            "r.toml: layer.options.damping",
            "unknown",
            "has no op",
        ),
        (
            "[layer]\nmethod = 'gptq'\noptions.sweeps = 1",
            "r.toml: layer.options.sweeps",
            "unknown option",
            "Known: damp",
        ),
        ("[[rules]]\nmatch = '*'\nmethod = 'gtpq'", "r.toml: rules.0.method", "no method is called", "mean gptq?"),
        ("[network]\nmax_drop = 1", "r.toml: network.max_drop", "unknown option", "at the top of the recipe"),
        ("[network.training]\nepochs = 1", "r.toml: network.training", "unknown option", "[layer.options]"),
        ("[layer]\nformat = 4", "r.toml: layer.format", "valid string (got 4)", ""),
        ("[[rules]]\nformat = 'int8'", "r.toml: rules.0.match", "field required", ""),
        ("[layer\n", "r.toml", "not valid TOML", "Correct the line named"),
    ],
)
def test_mistakes_are_named(toml: str, where: str, what: str, fix: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.loads(toml, "r.toml")
    error = caught.value
    assert error.where is not None and error.where.startswith(where)
    assert what in error.what and not error.what.startswith("value error")
    assert error.fix is not None and fix in error.fix
    assert "\n" not in str(error)


def test_nearest() -> None:
    assert nearest("gtpq", ["rtn", "gptq"]) == "Did you mean gptq?"
    assert nearest("q", ["rtn", "gptq"]) == "Known: rtn, gptq"


CHANGES: list[dict[str, Any]] = [
    {"layer": {"format": "int8"}},
    {"layer": {"group": 32}},
    {"layer": {"group": "channel"}},
    {"layer": {"symmetric": False}},
    {"layer": {"options": {"damping": 0.02}}},
    {"layer": {"options": {"sweeps": 2}}},
    {"rules": [{"match": "a", "format": "int8"}, {"match": "b", "format": "int8"}]},
    {"rules": [{"match": "b", "format": "int8"}, {"match": "a", "format": "int8"}]},
    {"calibration": {"seed": 1}},
    {"data": {"seed": 1}},
    {"data": {"classes": ["a", "b"]}},
    {"data": {"classes": ["b", "a"]}},
    {"data": {"image": {"mean": [0.5]}}},
    {"data": {"audio": {"rate": 8000}}},
    {"output": "float"},
    {"max_shard_bytes": 10**9},
]


def test_lists_of_values() -> None:
    recipe = Recipe(data=Data(classes=("a", '"'), image=Picture(size=(32, 48), mean=(0.485, 0.456, 1e-7))))
    text = recipe.dumps()
    assert 'classes = ["a", "\\""]\n' in text
    assert "size = [32, 48]\n" in text and "mean = [0.485, 0.456, 1e-07]\n" in text and "std" not in text
    assert Recipe.loads(text) == recipe


def test_hash_is_of_the_content() -> None:
    found = [Recipe.read(change, "test").hash for change in ({}, *CHANGES)]
    assert len(set(found)) == len(found)
    assert all(len(h) == 64 for h in found)
    spelled = Recipe.loads('[layer.options]\nsweeps = 4\n[layer]\nformat = "int4"  # the default\n')
    assert spelled.hash == Recipe().hash, "how it was written does not matter"


def test_a_recipe_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe().layer.format = "int8"  # type: ignore[misc]


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    recipe = Recipe.loads(RULES)
    path.write_text(recipe.dumps(), "utf-8")
    assert Recipe.load(path) == recipe
    path.write_bytes(b"\xff\xfe")
    for bad in (path, tmp_path / "absent.toml", tmp_path):
        with pytest.raises(RecipeError, match="cannot be read") as caught:
            Recipe.load(bad)
        assert caught.value.where == str(bad)


def test_a_rule_changes_only_the_options_it_names() -> None:
    recipe = Recipe.loads("[layer.options]\ndamping = 0.05\n[[rules]]\nmatch = '*'\n[rules.options]\nsweeps = 7\n")
    layer, named = recipe.layer_for("model.layers.0.mlp.up_proj.weight")
    assert named
    assert (layer.options.damping, layer.options.sweeps) == (0.05, 7)


def test_options_that_another_method_lacks_stay_behind() -> None:
    recipe = Recipe.loads(
        "[layer.options]\ndamping = 0.05\nsweeps = 7\n[[rules]]\nmatch = 'a'\nmethod = 'gptq'\n"
        "[[rules]]\nmatch = 'b'\nmethod = 'rtn'\n"
    )
    assert recipe.layer_for("a")[0].options == gptq.Options(damping=0.05)
    assert recipe.layer_for("b")[0].options.model_dump() == {}


def test_a_byte_order_mark_is_no_part_of_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(b'\xef\xbb\xbf[layer]\nformat = "int8"\n')
    assert Recipe.load(path).layer.format == "int8"
