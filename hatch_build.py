"""Build hook: bundles the studio's pages when Bitwright is installed or packed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_web", Path(__file__).parent / "scripts" / "build_web.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class WebHook(BuildHookInterface[Any]):
    """Runs `scripts/build_web.py`; asks for Node as a build requirement only where the machine has none."""

    def dependencies(self) -> list[str]:
        script = _script()
        return [] if script.node_folder() else [script.PACKAGE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        _script().build()
