"""The plan of the house, enforced: no import runs upwards or in a circle, core is pure, every module has a layer."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import bitwright

ROOT = Path(bitwright.__file__).parent
LIBRARY = {"authoring.folder", "authoring.kept", "authoring.library", "authoring.problems"}
"""The modules of authoring that the web process reads: they compute nothing."""
BASE = {"errors", "events", "words", "plugins", "registry", "machine", "parallel", "libraries", "core"}
ENGINE = {*BASE, "methods", "rewrites", "files", "recipe", "stages", "models", "engine"}
DESCRIBED = {
    *("core.format", "core.formats", "core.scaling", "files.container", "files.containers", "methods"),
    *("models.Kind", "models.kind_at", "models.kind_of", "models.kinds"),
}
"""What describes formats, methods, containers and kinds of models; it imports no torch."""
BELOW: dict[str, set[str]] = {
    "errors": set(),
    "events": {"errors"},
    "words": set(),
    "plugins": {"errors"},
    "registry": {"errors", "plugins"},
    "machine": {"errors"},
    "parallel": {"errors", "machine"},
    "libraries": set(),
    "core": {"errors", "plugins"},
    "methods": {"errors", "registry", "core"},
    "rewrites": {"errors", "registry", "core"},
    "files": {"errors", "words", "registry", "core"},
    "recipe": {"errors", "core", "methods", "rewrites", "files"},
    "stages": {"errors", "recipe"},
    "models": {*BASE, "methods", "rewrites", "files", "recipe", "stages"},
    "engine": ENGINE - {"engine"},
    "results": ENGINE,
    "library": {*ENGINE, "results"},
    "judge": set(),
    **{module: {"errors", "judge", *LIBRARY} for module in LIBRARY},
    "authoring": {*ENGINE, "judge", *LIBRARY},
    "content": {*ENGINE, "authoring"},
    "studio": {"errors", "events", "words", "registry", "recipe", "stages", "judge", *LIBRARY, *DESCRIBED},
    "studio.worker": {*ENGINE, "judge", "authoring", "studio"},
    "__main__": {"cli"},
    "cli": {*ENGINE, "library", "judge", "authoring", "studio"},
}
"""Layer -> what it may import besides itself. `studio.worker` is the one part of the studio that sees the engine."""
OUTSIDE_CORE = {"torch", "io", "os", "pathlib", "shutil", "socket", "subprocess", "sys", "tempfile", "urllib"}
"""Modules that core may not import: it does no I/O and runs without torch."""
OUTSIDE_STUDIO = {"torch", "transformers", "safetensors", "compressed_tensors"}
WEB = {"studio", *LIBRARY}
"""What runs in the web process."""


def layer_of(module: str) -> str | None:
    """The layer of a dotted name below `bitwright`, or None where it has none."""
    found = [layer for layer in BELOW if module == layer or module.startswith(layer + ".")]
    return max(found, key=len, default=None)


def imports(tree: ast.Module, package: str) -> list[tuple[int, str]]:
    """(line, absolute dotted name) of everything imported anywhere in a module of `package`, in functions too."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
    return found


def wrongs(root: Path) -> list[str]:
    """Every breach of the plan in the package at `root`, as `path:line: what`."""
    found = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if parts == ("__init__",):
            continue
        module = name_of(path, root)
        where = "/".join(path.relative_to(root).parts)
        layer = layer_of(module)
        if layer is None:
            found.append(f"{where}:1: in no layer")
            continue
        package = ".".join(["bitwright", *parts[:-1]])
        tree = ast.parse(path.read_text("utf-8"))
        for line, name in imports(tree, package):
            top, _, rest = name.partition(".")
            if top == "bitwright":
                if not allowed(layer, rest):
                    found.append(f"{where}:{line}: {layer} imports {rest}")
            elif (layer == "core" and top in OUTSIDE_CORE) or (layer in WEB and top in OUTSIDE_STUDIO):
                found.append(f"{where}:{line}: {layer} imports {top}")
        if layer == "core":
            found += [f"{where}:{line}: core calls {name}" for line, name in calls(tree) if name in ("open", "print")]
    return found


def allowed(layer: str, target: str) -> bool:
    """Whether a module of `layer` may import `target`, a dotted name below `bitwright`."""
    if not target or target.startswith("__") or layer_of(target) == layer:
        return True
    if layer == "studio" and layer_of(target) == "studio.worker":
        return False  # the worker is another process: the web process only speaks to it
    return any(target == below or target.startswith(below + ".") for below in BELOW[layer])


def circle(root: Path) -> list[str]:
    """The modules of a circle of imports in the package at `root`, if there is one. What a module imports when it is
    imported counts, and what it imports for type checkers; what a function imports does not."""
    paths = {name_of(path, root): path for path in sorted(root.rglob("*.py"))}
    paths.pop("", None)  # the package itself loads the library when it is first used
    graph = {}
    for module, path in paths.items():
        package = ".".join(["bitwright", *path.relative_to(root).parts[:-1]])
        tree = ast.Module([*at_import(ast.parse(path.read_text("utf-8")))], [])
        ours = (name for _, name in imports(tree, package) if name.startswith("bitwright.") and "__" not in name)
        names = (name.removeprefix("bitwright.") for name in ours)
        found = {next((one for one in (name, name.rpartition(".")[0]) if one in paths), module) for name in names}
        graph[module] = found - {module}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def name_of(path: Path, root: Path) -> str:
    """The dotted name of a module below `bitwright`; empty for the package itself."""
    return ".".join(part for part in path.relative_to(root).with_suffix("").parts if part != "__init__")


def at_import(tree: ast.Module | ast.ClassDef | ast.If | ast.Try | ast.With) -> Iterator[ast.stmt]:
    """The imports of a module that are outside of functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.ClassDef | ast.If | ast.Try | ast.With):
            yield from at_import(node)


def calls(tree: ast.Module) -> list[tuple[int, str]]:
    """(line, name) of every call of a plain name."""
    return [(n.lineno, n.func.id) for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]


def test_the_house_stands() -> None:
    assert not wrongs(ROOT)
    modules = {path.relative_to(ROOT).parts[0] for path in ROOT.rglob("*.py")}
    assert {"core", "methods", "files", "models", "engine", "authoring", "content"} <= modules, "nothing was looked at"


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert not circle(ROOT), " -> ".join(circle(ROOT))


def test_a_circle_is_found(tmp_path: Path) -> None:
    files = {
        "__init__.py": "",
        "engine/__init__.py": "",
        "engine/plan.py": "from bitwright.engine import run\n",
        "engine/run.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .certify import prove\n",
        "engine/certify.py": "def prove():\n    from bitwright.engine.plan import make\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert circle(tmp_path) == [], "within a function it is none"
    (tmp_path / "engine" / "certify.py").write_text("class Proof:\n    import bitwright.engine.plan\n")
    assert set(circle(tmp_path)) == {"engine.plan", "engine.run", "engine.certify"}


def test_a_bad_house_falls(tmp_path: Path) -> None:
    bad = {
        "__init__.py": "",
        "errors.py": "",
        "util.py": "",
        "helpers/thing.py": "",
        "authoring/lab.py": "import torch\nfrom bitwright.authoring.library import Library\n",
        "authoring/library.py": "import torch\nfrom bitwright.authoring.lab import weight\n",
        "authoring/up.py": "from bitwright.studio.shell.config import Config\n",
        "content/lessons/good/numbers.py": "from bitwright.authoring import lab\nfrom bitwright.core import grid\n",
        "content/lessons/up/numbers.py": "from bitwright.studio import worker\n",
        "core/pure.py": "import numpy\nfrom bitwright.errors import RecipeError\nfrom bitwright.core import grid\n",
        "core/impure.py": "import torch\nfrom pathlib import Path\n\n\ndef f():\n    print(open('x'))\n",
        "core/up.py": "from bitwright.methods import rtn\n",
        "core/relative.py": "from ..files import gguf\n",
        "methods/good.py": "import torch\nfrom ..core.grid import INT\nfrom . import rtn\n",
        "methods/sideways.py": "def f():\n    from bitwright.files import safetensors\n",
        "files/up.py": "import bitwright.models.language.arch\n",
        "models/good.py": "from bitwright.files.folder import open_checkpoint\n",
        "models/up.py": "from bitwright import engine\n",
        "engine/good.py": "import bitwright\nfrom bitwright import __version__\nfrom bitwright.models import arch\n",
        "engine/up.py": "from bitwright.cli import app\nfrom bitwright.content import lessons\n",
        "judge/alone.py": "import subprocess\nfrom bitwright.errors import InputError\n",
        "studio/app.py": "from bitwright.events import Row\nfrom bitwright import recipe\nimport torch\n",
        "studio/up.py": "from bitwright.engine.run import run\n",
        "studio/worker.py": "from bitwright.engine.run import run\n",
        "studio/across.py": "from bitwright.studio.worker import run\n",
        "studio/today.py": "from bitwright.authoring.library import Library\nfrom bitwright.authoring import lab\n",
        "cli.py": "from bitwright.engine.run import run\n",
    }
    for name, text in bad.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert wrongs(tmp_path) == [
        "authoring/library.py:1: authoring.library imports torch",
        "authoring/library.py:2: authoring.library imports authoring.lab.weight",
        "authoring/up.py:1: authoring imports studio.shell.config.Config",
        "content/lessons/up/numbers.py:1: content imports studio.worker",
        "core/impure.py:1: core imports torch",
        "core/impure.py:2: core imports pathlib",
        "core/impure.py:6: core calls print",
        "core/impure.py:6: core calls open",
        "core/relative.py:1: core imports files.gguf",
        "core/up.py:1: core imports methods.rtn",
        "engine/up.py:1: engine imports cli.app",
        "engine/up.py:2: engine imports content.lessons",
        "files/up.py:1: files imports models.language.arch",
        "helpers/thing.py:1: in no layer",
        "judge/alone.py:2: judge imports errors.InputError",
        "methods/sideways.py:2: methods imports files.safetensors",
        "models/up.py:1: models imports engine",
        "studio/across.py:1: studio imports studio.worker.run",
        "studio/app.py:3: studio imports torch",
        "studio/today.py:2: studio imports authoring.lab",
        "studio/up.py:1: studio imports engine.run.run",
        "util.py:1: in no layer",
    ]
