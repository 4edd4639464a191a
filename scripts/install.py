"""Install Bitwright into the environment whose Python runs this; say beforehand what pip will download, and how much.

    .venv/bin/python scripts/install.py [INDEX]

INDEX is where PyTorch's builds for processors lie: on Linux that of PyPI is for GPUs and brings gigabytes with it. Of
both pip prefers the former. Where INDEX is empty or cannot be reached, pip's own configuration decides alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

HOME = Path(__file__).resolve().parents[1]
STEPS = (("torch", "numpy"), ("--editable", ".[onnx,studio,postgres,docs,dev]"))
"""What is installed: PyTorch first, alone with its index, so that nothing else comes from there."""
PATIENCE = 10.0
"""Seconds to wait for an index."""
LARGE = 5_000_000
"""Bytes from which a download is named."""


def reachable(index: str) -> bool:
    """Whether an index answers."""
    try:
        with urllib.request.urlopen(f"{index.rstrip('/')}/torch/", timeout=PATIENCE):
            return True
    except (OSError, ValueError):
        return False


def size(url: str) -> int | None:
    """Bytes of a wheel, on disk or where it is downloaded from; None where that is not told."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return 0  # it is here already
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE) as answer:
            length = answer.headers["Content-Length"]
            return int(length) if length else None
    except (OSError, ValueError):
        return None


def told(packages: Iterable[dict[str, Any]], sizes: Iterable[int | None]) -> list[str]:
    """What will be downloaded, in lines: `packages` as in pip's report (its key "install"), with their bytes."""
    pairs = [
        (f"{p['metadata']['name']} {p['metadata']['version']}", bytes) for p, bytes in zip(packages, sizes, strict=True)
    ]
    coming = [(name, bytes) for name, bytes in pairs if bytes != 0]
    if not coming:
        return [f"installing {len(pairs)} packages; all of them are on this machine"] if pairs else []
    known = sum(bytes or 0 for _, bytes in coming)
    unknown = sum(bytes is None for _, bytes in coming)
    total = f"{known / 1e6:,.0f} MB" + (f" and {unknown} of unknown size" if unknown else "")
    large = sorted(((bytes, name) for name, bytes in coming if bytes and bytes >= LARGE), reverse=True)
    named = ", ".join(f"{name} {bytes / 1e6:,.0f} MB" for bytes, name in large[:8])
    lines = [f"downloading {len(coming)} packages, {total}" + (f": {named}" if named else "")]
    if any(name.startswith("nvidia-") for name, _ in coming):
        lines.append(
            "this PyTorch is for NVIDIA GPUs; for a processor, stop here and give a TORCH_INDEX that can be reached"
        )
    return lines


def pip(*words: str, errors: int | None = None) -> int:
    """Run pip, and show which files it downloads while it does; its exit code. `errors` is where its complaints go."""
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off", *words]
    with subprocess.Popen(command, cwd=HOME, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip().startswith("Downloading") and ".metadata" not in line:
                print(f"  {unquote(line.strip())}", flush=True)
    return process.returncode


def foretell(words: list[str]) -> list[str]:
    """What installing will download, in lines; what is wrong with it, pip says when it does install."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        if pip("--dry-run", "--report", str(report), *words, errors=subprocess.DEVNULL):
            return ["pip cannot say beforehand what it will download"]
        packages = json.loads(report.read_text("utf-8"))["install"]
    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(lambda package: size(package["download_info"]["url"]), packages))
    return told(packages, sizes)


def install(what: tuple[str, ...], *options: str) -> None:
    """Install requirements, after telling what that downloads. Ends this program where pip fails."""
    words = ["--constraint", "constraints.txt", *options, *what]
    for line in foretell(words):
        print(line, flush=True)
    if code := pip(*words):
        sys.exit(code)


def main(index: str) -> None:
    """Install everything."""
    if index and not reachable(index):
        print(f"{index} cannot be reached: PyTorch comes from where pip is configured to look", flush=True)
        index = ""
    first, rest = STEPS
    install(first, *(("--extra-index-url", index) if index else ()))
    install(rest)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
