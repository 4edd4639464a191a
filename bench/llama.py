"""llama.cpp's own programs, built on first use from the source package of llama-cpp-python."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

from peers import ENVIRONMENTS, environment

SOURCE = "llama-cpp-python==0.3.36"
PROGRAMS = ("llama-quantize", "llama-imatrix", "llama-perplexity")
OFF = ("LLAMA_CURL", "LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES", "LLAMA_BUILD_SERVER", "BUILD_SHARED_LIBS")


def programs():
    """Return the folder of llama.cpp's programs below bench/.envs, made with the cmake of peers/llama.txt."""
    folder = ENVIRONMENTS / "llama"
    found = folder / "build" / "bin"
    if all((found / program).exists() for program in PROGRAMS):
        return found
    python = environment("llama")
    print(f"building {SOURCE.replace('==', ' ')}'s llama.cpp", file=sys.stderr)
    download = [python, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", SOURCE.split("==")[0]]
    subprocess.run([*download, "--dest", folder, SOURCE], check=True, stdout=sys.stderr)
    [package] = folder.glob("*.tar.gz")
    with tarfile.open(package) as archive:
        archive.extractall(folder, filter="data")
    source, cmake = folder / package.name.removesuffix(".tar.gz"), Path(python).parent / "cmake"
    options = ["-DCMAKE_BUILD_TYPE=Release", *(f"-D{name}=OFF" for name in OFF)]
    for words in (
        ["-S", source / "vendor" / "llama.cpp", "-B", folder / "build", *options],
        ["--build", folder / "build", "--parallel", str(os.cpu_count()), "--target", *PROGRAMS],
    ):
        subprocess.run([cmake, *words], check=True, stdout=sys.stderr)
    return found
