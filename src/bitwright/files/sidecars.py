"""What a model's folder holds beside the weights that are read: what an output keeps of it, and what not.

Everything is kept but other weights, with the folders that hold them, and code, which loading would run. The same rule
says what is downloaded of a repository.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from bitwright.files import hub
from bitwright.files.gguf_shards import stem_of

CONFIG, CARD, CERTIFICATE = "config.json", "README.md", "certificate.json"
"""Files that an output has of its own."""
WORK = ("journal.jsonl", "bitwright.lock", "trial")
"""What unfinished work is called in an output; a file or folder of the source has no place there under these names."""
WEIGHTS = (
    *("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.gguf", "*.pt", "*.pth", "*.ckpt"),
    *("*.h5", "*.msgpack", "*.ot", "*.onnx", "*.onnx.data", "*.onnx_data", "*.tflite", "*.npz", "*.tar", "*.nemo"),
)
CODE = ("*.py", "*.pyc", "*.pkl", "*.pickle", "*.so", "*.sh")
"""What runs when it is loaded, pickles included."""
PAPERS = ("LICENSE*", "LICENCE*", "COPYING*", "NOTICE*", "USE_POLICY*")
"""Terms of use, which go wherever the weights go."""


class Sorted(NamedTuple):
    """Files, relative to a model's folder: kept as they are, and code; folders with other weights; names in `WORK`."""

    kept: list[str]
    code: list[str]
    others: list[str]
    work: list[str]


def sort(names: Iterable[str]) -> Sorted:
    """What becomes of the files of a model's folder that are not its weights, config or card; hidden ones are no part.

    >>> sort(["config.json", "merges.txt", "a.py", "onnx/model.onnx", "1_Pooling/config.json", ".git/HEAD"])
    Sorted(kept=['1_Pooling/config.json', 'merges.txt'], code=['a.py'], others=['onnx'], work=[])
    """
    seen = sorted(name for name in names if not any(hidden(part) for part in PurePosixPath(name).parts))
    others = {name.split("/")[0] for name in seen if "/" in name and is_weights(name)}
    work = sorted({name.split("/")[0] for name in seen} & {*WORK} - others)
    left = {*others, *work}
    rest = [name for name in seen if name.split("/")[0] not in left and not is_weights(name)]
    rest = [name for name in rest if name not in (CONFIG, CARD, CERTIFICATE)]
    code = [name for name in rest if fits(name, CODE)]
    return Sorted([name for name in rest if name not in code], code, sorted(others), work)


def hidden(part: str) -> bool:
    """Whether a file or folder belongs to a tool and not to the model."""
    return part.startswith(".") or part == "__pycache__"


def is_weights(name: str) -> bool:
    """Whether a file holds weights, of any framework, or their index."""
    return fits(name, WEIGHTS)


def fits(name: str, patterns: Iterable[str]) -> bool:
    """Whether the last part of a name fits one of the patterns."""
    return any(fnmatch.fnmatch(PurePosixPath(name).name, pattern) for pattern in patterns)


def listed(folder: Path) -> list[str]:
    """Names of all regular files below `folder`, relative to it; links to folders are not followed."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not hidden(name)]
        found += [path for name in files if (path := Path(place) / name).is_file()]
    return sorted(path.relative_to(folder).as_posix() for path in found)


def beside(file: Path, name: str) -> Path:
    """Where what belongs to a model of one file, or of shards, lies: beside it, under its name."""
    return file.with_name(f"{stem_of(file)}.{name}")


def shelved(file: Path) -> dict[str, Path]:
    """What belongs to an output of one file, by the names in a repository of its own; the file itself not."""
    stem = stem_of(file)
    found = {path.name.removeprefix(f"{stem}."): path for path in file.parent.glob(f"{glob.escape(stem)}.*")}
    found = {name: path for name, path in found.items() if fits(name, PAPERS)}
    certificate, card = beside(file, CERTIFICATE), beside(file, CARD)
    found |= {certificate.name: certificate} if certificate.is_file() else {}
    return found | ({CARD: card} if card.is_file() else {})


def papers(model: Path) -> list[Path]:
    """Terms of use in a model's folder, or beside its file."""
    return sorted(path for path in hub.folder_of(model).iterdir() if fits(path.name, PAPERS) and path.is_file())


def unread(folder: Path, read: Iterable[Path]) -> list[str]:
    """Weight files of `folder` besides those that are `read`: other copies of the model, or parts of something else."""
    from bitwright.files.safetensors import INDEX

    known = {*(path.name for path in read), INDEX}
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    return [name for name in names if name not in known and is_weights(name)]


def left(folder: Path, code: bool) -> list[str]:
    """What an output keeps not of `folder`, in words; `code` says whether it may keep code."""
    found, lines = sort(listed(folder)), []
    if found.code and not code:
        names = ", ".join(found.code)
        lines.append(f"code is not copied, as loading would run it: {names} (--copy-code copies it)")
    if found.others:
        lines.append(f"folders with weights of their own are not copied: {', '.join(found.others)}")
    if found.work:
        lines.append(f"not copied, as unfinished work is called so: {', '.join(found.work)}")
    return lines


def copy(folder: Path, out: Path, code: bool) -> list[str]:
    """Copy what an output keeps of `folder`; returns the names."""
    found = sort(listed(folder))
    names = [*found.kept, *(found.code if code else [])]
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, out / name)
    return names
