"""A certificate as it was written, and the plain facts in it."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bitwright.errors import ModelError
from bitwright.files.plain import hashes, parse, read_text, why
from bitwright.files.plain import read as read_bytes
from bitwright.models import Kind, kind_of, kinds
from bitwright.models.kind import Words
from bitwright.words import entropy, levels, millions, number, one_line, plural, summed

Certificate = dict[str, Any]


def kind(certificate: Certificate) -> Kind:
    """The kind of model it is of; certificates of earlier releases name only networks."""
    return kinds.get(certificate.get("kind") or "language")


def words(certificate: Certificate) -> Words:
    """What its parts are called."""
    return kind(certificate).words


def certificate_path(out: Path) -> Path:
    """Where the certificate of an output lies: in a folder, beside an ONNX file."""
    return kind_of(out).certificate(out)


def load(out: Path) -> Certificate:
    """The certificate of a quantized folder or ONNX file, with the output's name under "folder". Raises ModelError."""
    path = certificate_path(out)
    if not path.exists():
        what = f"has no {path.name}" if out.exists() else "is not there"
        raise ModelError(what, where=str(out), fix=FIX)
    found = read(path)
    if is_of_another(out, found):
        what = f"has no certificate: {path.name} is that of {next(iter(found['output']['sha256']))}"
        raise ModelError(what, where=str(out), fix=FIX)
    return {**found, "folder": out.resolve().name}


def is_of_another(out: Path, certificate: Certificate) -> bool:
    """Whether a certificate is that of files beside a single file `out`: shards share a name with what was split."""
    named = certificate["output"]["sha256"]
    return out.is_file() and out.name not in named and all((out.parent / name).is_file() for name in named)


FIX = "Give an output of bitwright quantize"


def read(path: Path) -> Certificate:
    """The certificate in a file, its common parts checked to be there. Raises ModelError."""
    try:
        found = parse(read_text(path))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot be read ({why(error)})", where=str(path), fix=FIX) from error
    try:
        _Form.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"is not a certificate of Bitwright ({'.'.join(map(str, first['loc'])) or 'all of it'}: {first['msg']})"
        raise ModelError(what, where=str(path), fix=FIX) from error
    return dict(found)


def stale(out: Path, certificate: Certificate) -> list[str]:
    """What is not as certified: a line for each file that is missing or has other bytes; all files are hashed.

    The model card names the certificate by its hash: neither can be changed alone.
    """
    named: dict[str, str] = certificate["output"]["sha256"]
    base = out if out.is_dir() else out.parent
    here = [name for name in named if Path(name).name == name and (base / name).is_file()]
    found = hashes(base / name for name in here)
    lines = [
        f"{name} is not the certified file: its SHA-256 differs"
        if name in found
        else f"{name} is certified but missing"
        for name in named
        if found.get(name) != named[name]
    ]
    card, path = kind_of(out).card(out), certificate_path(out)
    told = HASH.search(read_bytes(card).decode("utf-8", "replace")) if card.is_file() else None
    if told is not None and told[1] != hashes([path])[path.name]:
        lines.append(f"{path.name} is not the certificate that {card.name} names: its SHA-256 differs")
    return lines


HASH = re.compile(r"^SHA-256 of `[^`]*certificate\.json`: `([0-9a-f]{64})`$", re.MULTILINE)
"""Where a model card names its certificate."""


REMEASURE = "bitwright check OUT --against FLOAT"


class _Table(BaseModel):
    model_config = ConfigDict(strict=True)


class _Files(_Table):
    sha256: dict[str, str] = Field(min_length=1)
    bytes: int


class _Source(_Files):
    folder: str


class _Recipe(_Table):
    sha256: str


class _Row(_Table):
    name: str
    format: str
    method: str
    rows: int = Field(ge=1)
    columns: int = Field(ge=1)
    stored_bits: int
    mse: float | None
    sqnr: float | None
    output_error: float | None
    correction: str | None = None
    notes: list[str]
    levels: int | None = None
    levels_used: int | None = None
    entropy: float | None = None
    input_levels: int | None = None
    input_levels_used: int | None = None
    input_entropy: float | None = None


class _Size(_Table):
    parameters: int
    blocks: int
    bytes: int


class _Part(_Table):
    title: str
    head: list[str]
    rows: list[list[str]]


class _Stage(_Table):
    name: str
    words: str
    lines: list[str]
    before: _Size
    after: _Size
    tables: list[_Part]


class _Form(_Table):
    """What every certificate has, of any kind of model."""

    source: _Source
    output: _Files
    recipe: _Recipe
    runtimes: list[str] = []  # absent in earlier certificates
    rows: list[_Row]
    stages: list[_Stage] = []  # absent where a model was quantized
    verdict: dict[str, Any] | None
    notes: list[str]
    stored_bits_per_weight: float
    quantized_weights: int

    @model_validator(mode="after")
    def _of_something(self) -> _Form:
        if not self.rows and not self.stages:
            raise ValueError("neither rows nor stages")
        return self


# --- rows


def sqnr(row: Certificate) -> float:
    """SQNR in dB; null in the file is infinite: up without error, down where the original was all zeros."""
    if row["sqnr"] is not None:
        return float(row["sqnr"])
    return math.inf if row["mse"] == 0 else -math.inf


def decibel(row: Certificate) -> str:
    """SQNR with its unit, `exact` where nothing was lost."""
    value = sqnr(row)
    return f"{value:.1f} dB" if math.isfinite(value) else "exact" if value > 0 else "-∞ dB"


def worst(certificate: Certificate, key: str) -> Certificate | None:
    """The row with the largest `output_error`, or the smallest `sqnr`; None where no matrix has that measure."""
    rows = certificate["rows"]
    if key == "sqnr":
        return min(rows, key=sqnr, default=None)
    known = [row for row in rows if row["output_error"] is not None]
    return max(known, key=lambda row: number(row["output_error"]), default=None)


def module(name: str) -> str:
    """`model.layers.0.mlp.up_proj.weight` -> `layers.0.mlp.up_proj`, `/stem/Conv` -> `stem/Conv`."""
    return name.removesuffix(".weight").removeprefix("model.").removeprefix("/")


def weight_levels(row: Certificate) -> str:
    """`15 of 16`: unique values of a matrix's codes; `not counted` in certificates of earlier releases."""
    return levels(row.get("levels"), row.get("levels_used")) or UNCOUNTED


def weight_entropy(row: Certificate) -> str:
    """Entropy of a matrix's codes in bits per weight."""
    return entropy(row.get("entropy")) or UNCOUNTED


def input_levels(row: Certificate) -> str:
    """`241 of 256, 6.02`: levels of a matrix's rounded input, entropy in bits per value; `float` where it is not."""
    found = levels(row.get("input_levels"), row.get("input_levels_used"))
    if not found:
        return UNCOUNTED if "input_levels" not in row else "float"
    return f"{found}, {entropy(row['input_entropy']) or 'chosen as it runs'}"


def rounds_inputs(certificate: Certificate) -> bool:
    """Whether any matrix has rounded inputs whose levels are known."""
    return any(row.get("input_levels") for row in certificate["rows"])


def activation_levels(certificate: Certificate) -> tuple[str, str]:
    """Levels of rounded activations, the mean over tensors (or over the inputs of matrices), and their entropy.

    "" where none is rounded, and for an entropy that was not measured.
    """
    seen = [(a.get("levels"), a.get("levels_used"), a.get("entropy")) for a in _activations(certificate)]
    seen = [found for found in seen if found[0]]
    if not seen:
        return "", ""
    there, used, bits = (None if None in column else sum(column) / len(column) for column in zip(*seen, strict=True))
    return levels(there, used), entropy(bits)


def _activations(certificate: Certificate) -> list[Certificate]:
    """What is known of each rounded activation, by the names that a row has for its weights."""
    named: dict[str, Certificate] | None = certificate.get("activations")
    if named:
        return list(named.values())
    keys = {"levels": "input_levels", "levels_used": "input_levels_used", "entropy": "input_entropy"}
    return [{name: row.get(key) for name, key in keys.items()} for row in certificate["rows"]]


UNCOUNTED = "not counted"


# --- formats


def saved(certificate: Certificate) -> str:
    """`57 % smaller`, or what happened instead."""
    ratio = certificate["output"]["bytes"] / max(certificate["source"]["bytes"], 1)
    if abs(ratio - 1) < 0.005:
        return "no smaller"
    return f"{100 * abs(1 - ratio):.0f} % {'smaller' if ratio < 1 else 'larger'}"


def stages(certificate: Certificate) -> list[Certificate]:
    """What was done to the model besides quantizing it, in order."""
    return certificate.get("stages") or []


def bits_told(certificate: Certificate) -> str:
    """Bits per parameter of the whole model, which earlier certificates lack, and per quantized weight."""
    whole, each = certificate.get("bits_per_parameter"), certificate["stored_bits_per_weight"]
    if not certificate["rows"]:
        return f"{millions(certificate['parameters'])} parameters"
    if certificate.get("study"):
        return f"a study copy: floats, not {each:.3f} bits per weight"
    if whole is None:
        return f"{each:.3f} stored bits per quantized weight"
    return f"{whole:.2f} bits per parameter, {each:.3f} per quantized weight"


def scheme(certificate: Certificate) -> str:
    """Formats and methods with the parts each took, the most used first: `int4 g128 by descent (35 matrices)`."""
    if not certificate["rows"]:
        return short_scheme(certificate)
    found = Counter((row["format"], row["method"]) for row in certificate["rows"]).most_common()
    told = ", ".join(f"{form} by {method} ({count})" for (form, method), count in found)
    if len(found) == 1:
        (form, method), count = found[0]
        told = f"{form} by {method} ({plural(count, words(certificate).part, words(certificate).parts)})"
    rounded = kind(certificate).activations(certificate)
    return f"{told}, {rounded} ({len(certificate['activations'])} tensors)" if rounded else told


def short_scheme(certificate: Certificate) -> str:
    """The most used format and method, how many others there are, and the activations; or what stages did."""
    if not certificate["rows"]:
        return ", ".join(stage["words"] for stage in stages(certificate))
    found = Counter((row["format"], row["method"]) for row in certificate["rows"]).most_common()
    (form, method), _ = found[0]
    told = f"{form} by {method}" + (f" and {len(found) - 1} more" if len(found) > 1 else "")
    return ", ".join(filter(None, (told, kind(certificate).activations(certificate))))


def label(certificate: Certificate) -> str:
    """How a certificate is called among others: its folder or file, where known, and its scheme."""
    folder = certificate.get("folder")
    return f"{folder}: {short_scheme(certificate)}" if folder else short_scheme(certificate)


def leaves_out_activations(certificate: Certificate) -> bool:
    """Whether the runtime also rounds activations, whose cost an older release's verdict did not include."""
    verdict = certificate["verdict"] or {}
    return not verdict.get("rounded_inputs") and any(
        row["format"].endswith(" activations") for row in certificate["rows"]
    )


def floats(certificate: Certificate) -> list[tuple[str, list[str]]]:
    """What stays float though it could be quantized: reasons with names of parts or nodes, most frequent first."""
    reasons: dict[str, list[str]] = {}
    kept: dict[str, str] = certificate.get("kept_float") or {}
    for name, reason in {**(certificate.get("float_nodes") or {}), **kept}.items():
        reasons.setdefault(reason, []).append(name)
    return sorted(reasons.items(), key=lambda pair: -len(pair[1]))


# --- proof


def fallbacks(certificate: Certificate) -> list[str]:
    """What did not go the recipe's way, and every other note, a line for each kind: those of the plan come first."""
    lines = list(certificate["notes"])
    told = ((row["name"], note) for row in certificate["rows"] for note in row["notes"])
    lines += summed(told, words(certificate).parts)
    return list(dict.fromkeys(lines))


def corrections(certificate: Certificate) -> list[str]:
    """How far targets make up for earlier errors, a line for each kind."""
    told = ((row["name"], row["correction"]) for row in certificate["rows"] if row.get("correction"))
    return summed(told, words(certificate).parts)


def readers(certificate: Certificate) -> list[str]:
    """Whose code read the written bytes back, and the result."""
    return kind(certificate).readers(certificate)


def runtimes(certificate: Certificate) -> list[str]:
    """What loads the output by its own rules, on what, or why it does not; nothing in earlier certificates."""
    return list(certificate.get("runtimes", []))


def proofs(certificate: Certificate) -> list[tuple[str, str]]:
    """What was hashed, and its SHA-256."""
    found = [(f"source {name}", digest) for name, digest in certificate["source"]["sha256"].items()]
    found += [(f"output {name}", digest) for name, digest in certificate["output"]["sha256"].items()]
    found.append(("recipe", certificate["recipe"]["sha256"]))
    word = words(certificate).data
    return found + [(f"{part} {word}", table["sha256"]) for part, table in data(certificate).items()]


# --- data


def data(certificate: Certificate) -> dict[str, Certificate]:
    """The text or samples it was calibrated and judged on: {"calibration": ..., "heldout": ...}, or nothing."""
    return certificate.get(words(certificate).data) or {}


def lint(certificate: Certificate, part: Certificate) -> list[str]:
    """What one part of its text or samples was made of, in sentences."""
    return kind(certificate).describe(part)


def remarks(part: Certificate) -> list[str]:
    """What was noticed in it, or left out of it, a line each."""
    found = list(part.get("warnings", []))
    for word in ("dropped", "notes"):
        opening = "left out: " if word == "dropped" else ""
        found += [f"{opening}{row['what']} ({row['count']:,}, first {row['first']})" for row in part.get(word, [])]
    return [one_line(line) for line in found]
