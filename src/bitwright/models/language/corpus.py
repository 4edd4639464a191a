"""Text everyone already has: the source of the user's own Python standard library.

The bundled demo model is trained, calibrated and measured on this text, so a
first run needs no download. The text differs a little from one Python version
to the next; figures are only comparable when they come from the same one.
"""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path
from typing import Literal, get_args

from bitwright.errors import DataError

Part = Literal["train", "calibration", "heldout"]

# Pure-Python modules present in every version from 3.11 to 3.14, chosen to vary
# in style. The two lists share no module; everything else is for training.
NAMED: dict[str, tuple[str, ...]] = {
    "calibration": (
        "calendar", "configparser", "dataclasses", "difflib", "gettext", "json",
        "pprint", "random", "smtplib", "statistics", "textwrap", "tokenize",
    ),
    "heldout": (
        "cmd", "csv", "fractions", "ftplib", "heapq", "optparse",
        "plistlib", "queue", "shutil", "socketserver", "tempfile", "uuid",
    ),
}  # fmt: skip

# Folders that are tests, third-party code, build leftovers or generated tables.
SKIPPED_FOLDERS = {
    "__phello__", "__pycache__", "_bundled", "dist-packages", "encodings", "idlelib",
    "lib-dynload", "lib2to3", "pydoc_data", "site-packages", "test", "tests", "turtledemo",
}  # fmt: skip
# Generated files; the first two also hold paths of the machine Python was built on.
SKIPPED_PREFIXES = ("_sysconfigdata", "config-", "html/entities.py", "stringprep.py")


def read(part: Part) -> list[str]:
    """Return one part of the corpus, one string per module file, sorted by path.

    The parts share no module. A module this Python lacks is skipped; raises
    DataError when fewer than half of those a part names are there (for
    "train", of all that the other two name), as figures would then mean little.
    """
    if part not in get_args(Part):
        choices = ", ".join(get_args(Part))
        raise DataError(f"no corpus part is called {part!r}", fix=f"Choose one of {choices}.")
    folder = Path(sysconfig.get_paths()["stdlib"])
    modules = list_modules(folder)
    others = {name for names in NAMED.values() for name in names}
    named = NAMED.get(part, sorted(others))
    found = [name for name in named if name in modules]
    if 2 * len(found) < len(named):
        raise DataError(
            f"only {len(found)} of the {len(named)} standard library modules needed for the "
            f"{part} text have their source here",
            where=str(folder),
            fix="Install the full standard library (on Debian and Ubuntu the python3 package, "
            "not only python3-minimal), or give your own text.",
        )
    chosen = found if part in NAMED else sorted(modules.keys() - others)
    texts = (path.read_text(encoding="utf-8") for name in chosen for path in modules[name])
    return [text for text in texts if text.strip()]


def list_modules(folder: Path) -> dict[str, list[Path]]:
    """Map each top-level module in a standard library folder to its source files, sorted.

    A package counts as one module, so that one that grew out of a single file
    in a later Python stays in the same part.
    """
    paths = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS]  # not walked
        paths += [Path(root, name) for name in names if name.endswith(".py")]
    modules: dict[str, list[Path]] = {}
    for path in sorted(paths):
        inner = path.relative_to(folder)
        if not inner.as_posix().startswith(SKIPPED_PREFIXES):
            modules.setdefault(inner.parts[0].removesuffix(".py"), []).append(path)
    return modules
