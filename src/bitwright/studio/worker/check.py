"""Is this model, anyone's, sound? Findings one by one, and helpful ones for what is no model folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bitwright.engine.check import check as look
from bitwright.errors import BitwrightError
from bitwright.events import Event, Finding
from bitwright.models import kind_of, kinds

READS = "Check reads folders of safetensors files with their config.json, .onnx and .gguf files"
OTHERS = {
    ".bin": "a PyTorch pickle, which can run code when it is opened",
    ".pt": "a PyTorch pickle, which can run code when it is opened",
    ".pth": "a PyTorch pickle, which can run code when it is opened",
    ".ckpt": "a PyTorch pickle, which can run code when it is opened",
    ".pkl": "a pickle, which can run code when it is opened",
    ".h5": "a Keras file",
    ".keras": "a Keras file",
    ".tflite": "a TensorFlow Lite file",
    ".mlmodel": "a Core ML file",
    ".npz": "a file of arrays",
    ".zip": "an archive: unpack it first",
    ".gz": "an archive: unpack it first",
    ".tar": "an archive: unpack it first",
}
"""Endings of files that are dropped by mistake, and what they are."""
MOST = 8
"""Models of one folder that are looked at."""


def check(path: str, against: str | None = None, hide: str | None = None) -> Iterator[Event | dict[str, Any]]:
    """Findings about the model folder or .onnx file at `path`, or about what lies there instead.

    Ends with {"event": "done", "sound": bool or None for no verdict, "text": a sentence}. `hide` is the beginning of
    paths that readers need not see: the folder of an upload.
    """
    given, bad, unknown, looked = Path(path), 0, 0, False
    try:
        for event in _look(given, Path(against) if against else None):
            told = event.json()
            if hide and "detail" in told:
                told["detail"] = told["detail"].replace(f"{hide}/", "").replace(hide, "what was dropped")
            bad += told["event"] == "finding" and told["good"] is False
            unknown += told["event"] == "finding" and told["good"] is None
            looked |= told["event"] == "started"
            yield told
    except BitwrightError as error:
        bad += 1
        detail = str(error).replace(f"{hide}/", "") if hide else str(error)
        yield Finding("against the float model" if against else "check", False, detail).json()
    text = "Sound: everything that was looked at is right."
    if unknown:
        text = "No verdict: what could be looked at is right, the rest is not known here."
    if bad:
        text = f"Not sound: {bad} finding{'s are' if bad > 1 else ' is'} bad. Do not use it."
    if not looked:
        text = "Nothing was checked: there is no model that check can read."
    yield {"event": "done", "sound": False if bad else None if unknown else True, "text": text}


def _look(given: Path, against: Path | None) -> Iterator[Event]:
    """The findings about every model at or below `given`."""
    known = kinds.all()
    models = [path for path in (given, *sorted(given.rglob("*"))) if any(kind.checks(path) for kind in known)]
    for path in models[:MOST]:
        yield from look(path, against if against and kind_of(against) is kind_of(path) else None)
    if len(models) > MOST:
        yield Finding("models", False, f"{len(models)} models, {MOST} were looked at; drop the others alone")
    if not models:
        yield _nothing(given)


def _nothing(given: Path) -> Finding:
    """What is there instead of a model, and what would help."""
    if not given.exists():
        return Finding("files", False, f"{given}: does not exist")
    files = [given] if given.is_file() else sorted(path for path in given.rglob("*") if path.is_file())
    names = {path.name for path in files}
    weights = next((path for path in files if path.suffix == ".safetensors"), None)
    if weights is not None:
        return Finding(
            "config.json", False,
            f"{weights.name} came without its config.json, which says what the tensors are. Drop the whole folder: "
            "config.json, the .safetensors files and, where there are several, their index",
        )  # fmt: skip
    for path in files:
        if path.suffix.lower() in OTHERS:
            return Finding("format", False, f"{path.name} is {OTHERS[path.suffix.lower()]}. {READS}")
    if "config.json" in names:
        return Finding("weights", False, f"There is a config.json, but no .safetensors file beside it. {READS}")
    if not files:
        return Finding("files", False, f"There is no file. {READS}")
    first = ", ".join(sorted(names)[:3])
    return Finding("format", False, f"No model among {len(files)} file{'s' * (len(files) > 1)} ({first}). {READS}")
