"""A certificate as it was written, of a language model's folder or an ONNX network, and the plain facts in it."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from bitwright.words import number, one_line, plural, share, some
from bitwright.errors import ModelError

Certificate = dict[str, Any]
NAME = "certificate.json"


class Kind(NamedTuple):
    """What the things in a certificate are called: `whole` has `parts`, and is judged on `sample`s."""

    whole: str
    part: str
    parts: str
    data: str
    sample: str
    unmeasured: str
    remedy: str


LANGUAGE = Kind(
    "model", "matrix", "matrices", "text", "token",
    "Quality on text was not measured", "bitwright measure FLOAT OUT --heldout FILE",
)  # fmt: skip
NETWORK = Kind(
    "network", "layer", "layers", "data", "sample",
    "Quality was not measured", "bitwright quantize FLOAT.onnx --calib DATA -o OUT.onnx",
)  # fmt: skip


def kind(certificate: Certificate) -> Kind:
    """Whether it is of a language model or of an ONNX network."""
    return NETWORK if certificate.get("kind") == "network" else LANGUAGE


def certificate_path(out: Path) -> Path:
    """Where the certificate of an output lies: in a folder, beside an ONNX file."""
    return out.with_name(f"{out.stem}.{NAME}") if out.suffix == ".onnx" else out / NAME


def load(out: Path) -> Certificate:
    """The certificate of a quantized folder or ONNX file, with the output's name under "folder". Raises ModelError."""
    path = certificate_path(out)
    fix = f"Give {'an .onnx file' if out.suffix == '.onnx' else 'a folder'} made by bitwright quantize"
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"has no {path.name}", where=str(out), fix=fix) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot be read ({error})", where=str(path), fix=fix) from error
    needed = {"source", "output", "recipe", "rows", "verdict"}
    if not isinstance(found, dict) or not needed <= found.keys() or not found["rows"]:
        raise ModelError("is not a certificate of Bitwright", where=str(path), fix=fix)
    return {**found, "folder": out.resolve().name}


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


# --- formats


def saved(certificate: Certificate) -> str:
    """`57 % smaller`, or what happened instead."""
    ratio = certificate["output"]["bytes"] / max(certificate["source"]["bytes"], 1)
    if abs(ratio - 1) < 0.005:
        return "no smaller"
    return f"{100 * abs(1 - ratio):.0f} % {'smaller' if ratio < 1 else 'larger'}"


def activations(certificate: Certificate) -> str:
    """How a network's tensors between layers are rounded: `uint8 activations`; "" where they are not, or by row."""
    if not certificate.get("activations"):
        return ""
    network = certificate["recipe"]["network"]
    return f"{'u' if network['target'] == 'x86' else ''}{network['activations']} activations"


def scheme(certificate: Certificate) -> str:
    """Formats and methods with the parts each took, the most used first: `int4 g128 by descent (35 matrices)`."""
    found = Counter((row["format"], row["method"]) for row in certificate["rows"]).most_common()
    words = ", ".join(f"{form} by {method} ({count})" for (form, method), count in found)
    if len(found) == 1:
        (form, method), count = found[0]
        words = f"{form} by {method} ({plural(count, kind(certificate).part, kind(certificate).parts)})"
    rounded = activations(certificate)
    return f"{words}, {rounded} ({len(certificate['activations'])} tensors)" if rounded else words


def short_scheme(certificate: Certificate) -> str:
    """The most used format and method, how many others there are, and the activations."""
    found = Counter((row["format"], row["method"]) for row in certificate["rows"]).most_common()
    (form, method), _ = found[0]
    words = f"{form} by {method}" + (f" and {len(found) - 1} more" if len(found) > 1 else "")
    return ", ".join(filter(None, (words, activations(certificate))))


def label(certificate: Certificate) -> str:
    """How a certificate is called among others: its folder or file, where known, and its scheme."""
    folder = certificate.get("folder")
    return f"{folder}: {short_scheme(certificate)}" if folder else short_scheme(certificate)


def rounds_activations(certificate: Certificate) -> bool:
    """Whether the runtime also rounds activations, whose cost is not in the verdict."""
    return any(row["format"].endswith(" activations") for row in certificate["rows"])


def floats(certificate: Certificate) -> list[tuple[str, list[str]]]:
    """What stays float in a network: reasons with the names of layers or nodes, the most frequent first."""
    kept = list(certificate.get("kept_float") or [])
    reasons: dict[str, list[str]] = {}
    for name, reason in (certificate.get("float_nodes") or {}).items():
        if name not in kept:
            reasons.setdefault(reason, []).append(name)
    found = sorted(reasons.items(), key=lambda pair: -len(pair[1]))
    if not kept:
        return found
    limit = certificate["recipe"]["network"]["max_drop"]
    return [(f"so sensitive that float was kept, to lose at most {limit:g} points", kept), *found]


# --- proof


def fallbacks(certificate: Certificate) -> list[str]:
    """What did not go the recipe's way, and every other note, a line each: those of the plan, then of matrices."""
    lines = list(certificate["notes"])
    lines += [f"{row['name']}: {note}" for row in certificate["rows"] for note in row["notes"]]
    return list(dict.fromkeys(lines))


def readers(certificate: Certificate) -> list[str]:
    """Whose code read the written bytes back, and what came of it."""
    return _network_readers(certificate) if kind(certificate) is NETWORK else _language_readers(certificate)


def _language_readers(certificate: Certificate) -> list[str]:
    versions, loaded = certificate["decoder"], certificate["loaded_by_transformers"]
    if certificate["recipe"].get("output") == "float":
        lines = ["Read back as float weights and compared with what was meant"]
    else:
        lines = [f"Decoded by compressed-tensors {versions['compressed-tensors']}, bit for bit as by Bitwright"]
    if not loaded or not loaded["checked"]:
        return [*lines, f"Not loaded by transformers: {loaded['why'] if loaded else 'not tried'}"]
    how = " with dequantize=True" if loaded.get("dequantize") else ""
    same = f"same answers (max KL {loaded['max_kl']:.2g} nats)"
    lines.append(f"Loaded by transformers {versions['transformers']}{how}, {same}")
    if "activations_kl" in loaded:
        lines.append(f"Rounding activations adds about {loaded['activations_kl']:.2g} nats, not in the verdict's KL")
    return lines


def _network_readers(certificate: Certificate) -> list[str]:
    versions, simulated = certificate["decoder"], certificate["simulation"]
    lines = [f"Accepted by onnx {versions['onnx']}; every weight decodes to what was meant, bit for bit"]
    runtime = f"ONNX Runtime {versions['onnxruntime']}"
    if not simulated:
        return [*lines, f"Not run by {runtime}: there were no samples"]
    found = [f"{level(part['sqnr_db'])} ({name})" for name, part in simulated.items()]
    return [*lines, f"{runtime} answers as our own simulation does: SQNR {some(found, 3)}"]


def level(value: float | None) -> str:
    """SQNR of an output: None is infinite, without any error."""
    return "exact" if value is None else f"{value:.1f} dB"


def proofs(certificate: Certificate) -> list[tuple[str, str]]:
    """What was hashed, and its SHA-256."""
    found = [(f"source {name}", digest) for name, digest in certificate["source"]["sha256"].items()]
    found += [(f"output {name}", digest) for name, digest in certificate["output"]["sha256"].items()]
    found.append(("recipe", certificate["recipe"]["sha256"]))
    word = kind(certificate).data
    return found + [(f"{part} {word}", table["sha256"]) for part, table in data(certificate).items()]


# --- data


def data(certificate: Certificate) -> dict[str, Certificate]:
    """The text or samples it was calibrated and judged on: {"calibration": ..., "heldout": ...}, or nothing."""
    return certificate.get(kind(certificate).data) or {}


def lint(part: Certificate) -> list[str]:
    """What text or samples were made of, in sentences; text that the model wrote itself has only its windows."""
    return _text(part) if "windows" in part else _samples(part)


def remarks(part: Certificate) -> list[str]:
    """What was noticed in it, or left out of it, a line each."""
    found = list(part.get("warnings", []))
    for word in ("dropped", "notes"):
        opening = "left out: " if word == "dropped" else ""
        found += [f"{opening}{row['what']} ({row['count']:,}, first {row['first']})" for row in part.get(word, [])]
    return [one_line(line) for line in found]


def _text(part: Certificate) -> list[str]:
    size = f"{part['windows']:,} windows of {part['length']:,} tokens"
    if "read" not in part:
        return [f"{size}, written by the model itself" if part["source"] == "self" else size]
    dropped = {"blank": part["empty"], "duplicate": part["duplicate"], "left to the other part": part["other_part"]}
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items() if count)
    asked = f" of {part['wanted']:,} asked for" if part["windows"] != part["wanted"] else ""
    return [
        f"{size}{asked}, from {part['tokens']:,} tokens",
        f"{part['read']:,} texts read, {part['kept']:,} kept" + (f" ({reasons})" if reasons else ""),
        f"{share(part['distinct'])} of the vocabulary seen, {share(part['unknown'])} of the tokens unknown",
        f"{share(part['repeated'])} of the runs of 8 tokens came before",
    ]


def _samples(part: Certificate) -> list[str]:
    labelled = "labelled" if part["labelled"] else "without labels"
    lines = [f"{part['samples']:,} of {part['available']:,} samples ({part['kind']}), {labelled}"]
    if part["per_class"]:
        low, high = min(part["per_class"].values()), max(part["per_class"].values())
        each = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        lines.append(f"{plural(len(part['per_class']), 'class', 'classes')}, {each} samples each")
    elif part["classes"]:
        lines.append(plural(len(part["classes"]), "class", "classes"))
    order = f"spread over the classes, seed {part['seed']}" if part["order"] == "spread" else "in the order given"
    lines.append(f"chosen {order}; {part['batch']:,} at once")
    for what, settings in part["preprocessing"].items():
        told = [f"{key} {_setting(value)}" for key, value in settings.items() if value not in (None, False, [], "none")]
        lines.append(f"{what}: {', '.join(told)}")
    return lines


def _setting(value: object) -> str:
    """`0.5`, `0.5 0.5 0.5`, `bilinear`."""
    if isinstance(value, list):
        return " ".join(map(_setting, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
