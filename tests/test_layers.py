"""The plan of the house, enforced: no import runs upwards, core is pure, every module belongs to a layer."""

from __future__ import annotations

import ast
from pathlib import Path

import bitwright

ROOT = Path(bitwright.__file__).parent
BASE = {"errors", "events", "words", "plugins", "registry", "machine", "parallel", "libraries", "core"}
LIBRARIES = {"methods", "rewrites", "files"}
ENGINE = {*BASE, *LIBRARIES, "recipe", "models", "engine"}
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
    "files": {"errors", "registry", "core"},
    "recipe": {"errors", "methods", "rewrites", "files"},
    "models": {*BASE, *LIBRARIES, "recipe"},
    "engine": ENGINE - {"engine"},
    "library": ENGINE,
    "authoring": {*ENGINE, "judge"},
    "content": {*ENGINE, "authoring"},
    "content.problems": set(),
    "judge": set(),
    "studio": {
        *("errors", "events", "words", "registry", "recipe", "methods", "authoring", "content", "judge"),
        *("core.format", "core.formats", "core.scaling", "files.container", "files.containers"),
        *("models.Kind", "models.kind_at", "models.kind_of", "models.kinds"),
    },
    "studio.worker": {*ENGINE, "authoring", "studio", "content", "judge"},
    "cli": {*ENGINE, "library", "authoring", "studio", "judge"},
}
"""Layer -> what it may import besides itself. `studio.worker` is the one part of the studio that sees the engine;
`content` are the programs of lessons and papers, `content.problems` those that the judge runs, which stand alone."""
OUTSIDE_CORE = {"torch", "io", "os", "pathlib", "shutil", "socket", "subprocess", "sys", "tempfile", "urllib"}
"""Modules that core may not import: it does no I/O and runs without torch."""
OUTSIDE_STUDIO = {"torch", "transformers", "safetensors", "compressed_tensors"}


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
        module = ".".join(part for part in parts if part != "__init__")
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
            elif (layer == "core" and top in OUTSIDE_CORE) or (layer == "studio" and top in OUTSIDE_STUDIO):
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


def calls(tree: ast.Module) -> list[tuple[int, str]]:
    """(line, name) of every call of a plain name."""
    return [(n.lineno, n.func.id) for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]


def test_the_house_stands() -> None:
    assert not wrongs(ROOT)
    modules = [path.relative_to(ROOT).parts[0] for path in ROOT.rglob("*.py")]
    assert {"core", "methods", "files", "models", "engine"} <= set(modules), "nothing was looked at"


def test_a_bad_house_falls(tmp_path: Path) -> None:
    bad = {
        "__init__.py": "",
        "errors.py": "",
        "util.py": "",
        "helpers/thing.py": "",
        "content/lessons/a-good-one/numbers.py": "from bitwright.authoring.figures import Figure\nimport torch\n",
        "content/lessons/up/numbers.py": "from bitwright.studio import app\n",
        "content/papers/up/numbers.py": "from bitwright.content.problems import solution\nimport bitwright.cli\n",
        "content/problems/alone/solution.py": "import numpy\nfrom bitwright.core import grid\n",
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
        "engine/up.py": "from bitwright.cli import app\n",
        "authoring/good.py": "from bitwright.engine.run import run\nfrom bitwright.judge.problem import Problem\n",
        "authoring/up.py": "from bitwright.content.lessons import numbers\n",
        "machine.py": "import torch\nfrom bitwright.errors import ResourceError\n",
        "parallel.py": "from bitwright import machine\nfrom bitwright.core import array\n",
        "registry.py": "from bitwright.errors import RecipeError\nfrom bitwright import words\n",
        "words.py": "import math\nfrom bitwright.errors import nearest\n",
        "recipe.py": "from bitwright import methods\nfrom bitwright.models import kinds\n",
        "judge/alone.py": "import subprocess\nfrom bitwright.errors import InputError\n",
        "studio/app.py": "from bitwright.events import Row\nfrom bitwright import recipe\nimport torch\n",
        "studio/up.py": "from bitwright.engine.run import run\n",
        "studio/worker.py": "from bitwright.engine.run import run\n",
        "studio/across.py": "from bitwright.studio.worker import run\n",
        "cli.py": "from bitwright.engine.run import run\n",
    }
    for name, text in bad.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert wrongs(tmp_path) == [
        "authoring/up.py:1: authoring imports content.lessons.numbers",
        "content/lessons/up/numbers.py:1: content imports studio.app",
        "content/papers/up/numbers.py:1: content imports content.problems.solution",
        "content/papers/up/numbers.py:2: content imports cli",
        "content/problems/alone/solution.py:2: content.problems imports core.grid",
        "core/impure.py:1: core imports torch",
        "core/impure.py:2: core imports pathlib",
        "core/impure.py:6: core calls print",
        "core/impure.py:6: core calls open",
        "core/relative.py:1: core imports files.gguf",
        "core/up.py:1: core imports methods.rtn",
        "engine/up.py:1: engine imports cli.app",
        "files/up.py:1: files imports models.language.arch",
        "helpers/thing.py:1: in no layer",
        "judge/alone.py:2: judge imports errors.InputError",
        "methods/sideways.py:2: methods imports files.safetensors",
        "models/up.py:1: models imports engine",
        "parallel.py:2: parallel imports core.array",
        "recipe.py:2: recipe imports models.kinds",
        "registry.py:2: registry imports words",
        "studio/across.py:1: studio imports studio.worker.run",
        "studio/app.py:3: studio imports torch",
        "studio/up.py:1: studio imports engine.run.run",
        "util.py:1: in no layer",
        "words.py:2: words imports errors.nearest",
    ]
