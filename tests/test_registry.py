"""Things are found by being there, named without being loaded, and never replaced in silence."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from bitwright import methods, rewrites
from bitwright.errors import RecipeError
from bitwright.files import containers
from bitwright.methods import Method
from bitwright.models import kinds
from bitwright.registry import Registry

ALL: list[Registry[Any]] = [methods.registry, rewrites.registry, containers.registry, kinds]


def test_what_the_house_has() -> None:
    assert set(methods.registry.names()) >= {"rtn", "mse", "gptq", "descent", "lloyd", "adaround", "blockwise", "lsq"}
    assert set(containers.registry.names()) >= {"compressed-tensors", "float", "qdq", "nbits"}
    assert set(rewrites.registry.names()) >= {"equalize", "smooth", "absorb", "bias"}
    assert set(kinds.names()) >= {"language", "network"}
    for registry in ALL:
        assert [thing.name for thing in registry.all()] == registry.names()


def test_names_load_nothing() -> None:
    program = (
        "import sys\nfrom bitwright import methods, rewrites\nfrom bitwright.files import containers\n"
        "from bitwright.models import kinds\n"
        "for r in (methods.registry, rewrites.registry, containers.registry, kinds):\n    assert r.names()\n"
        "loaded = {'torch', 'onnx', 'transformers', 'bitwright.methods.lloyd', 'bitwright.models.language',\n"
        "          'bitwright.rewrites.smooth', 'bitwright.files.containers.qdq'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
        "kinds.all(), containers.registry.all(), rewrites.registry.all()\n"
        "assert not {'torch', 'onnx', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_an_error_that_says_the_nearest() -> None:
    with pytest.raises(
        RecipeError, match=r"layer.method: no method is called 'descnt'. Did you mean descent\?"
    ) as caught:
        methods.registry.get("descnt")
    assert caught.value.key == "layer.method"
    for registry in ALL:
        with pytest.raises(RecipeError, match="is called 'nothing-of-that-name'"):
            registry.get("nothing-of-that-name")


def other(name: str) -> Method:
    return Method(name=name, title="", source="", solve=lambda *_: None)


def test_adding_for_a_while() -> None:
    mine, before = other("mine"), methods.registry.names()
    with methods.registry.adding(mine) as added:
        assert added is mine is methods.registry.get("mine")
        assert methods.registry.names() == [*before, "mine"]
        with pytest.raises(RecipeError, match="there is a method called 'mine' already"):
            methods.registry.add(other("mine"))
        assert methods.registry.get("mine") is mine
    assert methods.registry.names() == before
    with pytest.raises(RecipeError, match="no method is called 'mine'"):
        methods.registry.get("mine")
    with pytest.raises(ZeroDivisionError), methods.registry.adding(mine):
        raise ZeroDivisionError
    assert methods.registry.names() == before


def test_a_taken_name_is_refused_and_nothing_replaced() -> None:
    rtn = methods.registry.get("rtn")
    with pytest.raises(RecipeError, match="there is a method called 'rtn' already"):
        methods.registry.add(other("rtn"))
    assert methods.registry.get("rtn") is rtn


def test_a_module_that_calls_itself_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from bitwright.methods import rtn

    registry: Registry[Any] = Registry(Method, "bitwright.methods", "METHOD", group="nothing", key="layer.method")
    monkeypatch.setattr(rtn, "METHOD", SimpleNamespace(name="rnt"))
    with pytest.raises(RecipeError, match="the method 'rtn' calls itself 'rnt'"):
        registry.get("rtn")
