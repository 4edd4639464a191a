"""A model folder of either kind, float or compressed-tensors, read as float tensors under their original names."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bitwright.core.array import float32
from bitwright.core.qtensor import QTensor
from bitwright.errors import FileError, ModelError, TensorError
from bitwright.files.compressed_tensors import SUFFIXES, WORD, Scheme, scheme_of, unpack
from bitwright.files.safetensors import Checkpoint, Entry

SIDECARS = (
    "*.json",
    "*.model",
    "*.txt",
    "*.jinja",
    "*.tiktoken",
    "LICENSE*",
    "LICENCE*",
    "NOTICE*",
    "USE_POLICY*",
    "*.md",
)
"""What is copied beside the weights; code (`*.py`) never is, because loading would run it."""
WEIGHTS = (
    "*.safetensors",
    "*.safetensors.index.json",
    "*.bin",
    "*.bin.index.json",
    "*.gguf",
    "*.pth",
    "certificate.json",
)


def read_config(folder: Path) -> dict[str, Any]:
    """config.json as a table; ModelError where it is absent or not JSON."""
    path = folder / "config.json"
    if not folder.is_dir():
        Checkpoint(folder)  # raises, naming the nearest folder
    if not path.is_file():
        raise ModelError("not a model: no config.json", where=str(folder), fix="Give a Hugging Face model folder")
    try:
        config = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ModelError(f"config.json cannot be read ({error})", where=str(path), fix="Download it again") from error
    if not isinstance(config, dict):
        raise ModelError("config.json is not a table", where=str(path), fix="Download it again")
    return config


def open_checkpoint(folder: Path) -> Checkpoint:
    """The folder's tensors: a plain `Checkpoint`, or a `QuantizedCheckpoint` where config.json says so."""
    config = read_config(folder)
    quantization = config.get("quantization_config")
    if not quantization:
        return Checkpoint(folder)
    if not isinstance(quantization, dict):
        raise ModelError(
            "quantization_config is not a table", where=str(folder / "config.json"), fix="Download it again"
        )
    method = quantization.get("quant_method")
    if method != "compressed-tensors":
        raise ModelError(
            f"quantized with {method!r}, which Bitwright does not read",
            where=str(folder),
            fix="Supported: compressed-tensors",
        )
    return QuantizedCheckpoint(folder, quantization)


class QuantizedCheckpoint(Checkpoint):
    """A compressed-tensors folder whose quantized matrices appear as one float tensor each, decoded when read.

    `quantized[name]` tells the stored tensors and the scheme of each matrix; reading gives the scale's dtype, which is
    what the runtime's own decoder gives.
    """

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        """Open `folder` under its `quantization_config`; FileError or ModelError where they disagree."""
        super().__init__(folder)
        self.config = config
        self.stored = dict(self.tensors)
        self.quantized: dict[str, tuple[dict[str, Entry], Scheme]] = {}
        for name in list(self.stored):
            if name.endswith(".weight_scale"):
                self._adopt(name.removesuffix(".weight_scale"))

    def _adopt(self, module: str) -> None:
        where = f"{self.folder}: {module}"
        suffixes = (*SUFFIXES, "weight")
        parts = {s: self.stored[f"{module}.{s}"] for s in suffixes if f"{module}.{s}" in self.stored}
        scale = parts["weight_scale"]
        scheme = scheme_of(self._group(module), scale.dtype, where)
        if "weight" not in parts and not {"weight_packed", "weight_shape"} <= set(parts):
            raise FileError("a scale without codes", where=where, fix="The file is incomplete: write it again")
        for suffix in parts:
            self.tensors.pop(f"{module}.{suffix}", None)
        name = f"{module}.weight"
        if "weight" in parts:
            shape = parts["weight"].shape
        else:
            shape = tuple(int(n) for n in super().read_entry(parts["weight_shape"]))
        f = scheme.format
        if len(shape) == 2:
            rows, columns = shape
            expected = {s.name.rpartition(".")[2]: s for s in scheme.specs(module, rows, columns)}
            for suffix, spec in expected.items():
                got = parts.get(suffix)
                want = (1,) if f.block == "tensor" and suffix == "weight_scale" else spec.shape
                if got is None or (got.shape != want and got.shape != spec.shape):
                    raise FileError(
                        f"{suffix} is {list(got.shape) if got else 'absent'}, "
                        f"{f.name} of {list(shape)} needs {list(want)}",
                        where=where,
                        fix="config.json and the weights disagree: quantize again",
                    )
        self.tensors[name] = replace(
            scale, name=name, shape=shape, size=shape[0] * shape[1] * scale.dtype.itemsize, offset=-1
        )
        self.quantized[name] = (parts, scheme)

    def _group(self, module: str) -> dict[str, Any]:
        groups = list((self.config.get("config_groups") or {}).values())
        for group in groups:
            for target in group.get("targets", ()):
                exact = module == target or module.endswith("." + target)
                if exact or (target.startswith("re:") and re.match(target[3:], module)):
                    return dict(group)
        for group in groups:
            if "Linear" in group.get("targets", ()):
                return dict(group)
        raise FileError(
            "quantized, but no config group targets it",
            where=f"{self.folder}: {module}",
            fix="Repair quantization_config",
        )

    def parts(self, name: str, start: int = 0, stop: int | None = None) -> dict[str, torch.Tensor]:
        """The stored tensors of rows [start, stop) of a quantized matrix, by suffix: a smaller matrix of their own.

        `start` is a multiple of the scheme's `rows_per_word`, so that no word of zero points is cut.
        """
        entries, scheme = self.quantized[name]
        rows = self.tensors[name].shape[0]
        stop = rows if stop is None else min(stop, rows)
        if start % scheme.rows_per_word:
            raise ValueError(f"row {start} does not begin a word of {scheme.rows_per_word} rows")
        if (start, stop) == (0, rows):
            return {suffix: self.read_entry(entry) for suffix, entry in entries.items()}
        parts = {}
        for suffix, entry in entries.items():
            if suffix == "weight_shape":
                parts[suffix] = torch.tensor([stop - start, self.tensors[name].shape[1]])
            elif suffix == "weight_zero_point":
                bits = scheme.format.bits
                parts[suffix] = self.read_entry(entry, start * bits // WORD, -(-stop * bits // WORD))
            elif suffix == "weight_scale" and scheme.format.block == "tensor":
                parts[suffix] = self.read_entry(entry)
            else:
                parts[suffix] = self.read_entry(entry, start, stop)
        return parts

    def qtensor(self, name: str, start: int = 0, stop: int | None = None) -> QTensor:
        """Rows [start, stop) of a quantized matrix as codes, scales and zeros; `start` as for `parts`."""
        return unpack(self.parts(name, start, stop), self.quantized[name][1])

    def read(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Rows [start, stop) of a tensor; a quantized matrix comes decoded, in its scale's dtype."""
        if name not in self.quantized:
            return super().read(name, start, stop)
        first = start - start % self.quantized[name][1].rows_per_word
        decoded: torch.Tensor = self.qtensor(name, first, stop).decode()
        return decoded.to(self.tensors[name].dtype)[start - first :]


def copy_sidecars(source: Path, out: Path) -> list[str]:
    """Copy tokenizer, templates, generation config, licence and the like; returns the names. Never code or weights."""
    copied = []
    for path in sorted(source.iterdir()):
        wanted = any(fnmatch.fnmatch(path.name, pattern) for pattern in SIDECARS)
        weights = any(fnmatch.fnmatch(path.name, pattern) for pattern in WEIGHTS)
        if path.is_file() and wanted and not weights and path.name not in ("config.json", "README.md"):
            shutil.copyfile(path, out / path.name)
            copied.append(path.name)
    return copied


def require_finite(name: str, tensor: torch.Tensor, first_row: int = 0) -> None:
    """Raise TensorError naming the first NaN or Inf of `tensor`, whose first row is row `first_row` of `name`."""
    # A sum carries any NaN or Inf: one cheap pass in the usual case.
    if not tensor.is_floating_point() or bool(torch.isfinite(float32(tensor).sum())):
        return
    bad = ~torch.isfinite(float32(tensor))
    if not bool(bad.any()):
        return
    index = [int(i) for i in bad.nonzero()[0]]
    value = float(float32(tensor)[tuple(index)])
    if index:
        index[0] += first_row
    raise TensorError(
        f"{int(bad.sum())} values are not finite, first {value} at {index}",
        where=name,
        fix="Repair or download the weights again: no quantizer can encode NaN or Inf",
    )
