"""A learner's practice as a folder or a zip file to take along, and back.

record.json                        lessons, answers and settings; drafts, tests of one's own, hints and cards
<slug>/solution.py                 the program in the editor, or else the last accepted, or else the last submitted
<slug>/notes.md                    the note
<slug>/submissions.json            all submissions with their verdicts
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bitwright.errors import FileError, InputError
from bitwright.judge.problem import SLUG
from bitwright.judge.verdict import Verdict
from bitwright.studio.practice.portable import FIX, Practice, Work, gather, parse, restore
from bitwright.studio.store.database import Database

MOST = 64 << 20
"""Bytes that all files of a folder or zip may have together, unpacked."""
MOST_FILES = 5000
FILES = ("solution.py", "notes.md", "submissions.json")


def files(practice: Practice) -> Iterator[tuple[str, bytes]]:
    """The files of a folder, by their path within it. What a file says stands nowhere else."""
    rest = practice.model_dump(mode="json", exclude={"problems"})
    rest["problems"] = {}
    for slug, work in practice.problems.items():
        kept = work.model_dump(mode="json", exclude={"submissions"})
        solution = _solution(work)
        if solution is not None:
            yield f"{slug}/solution.py", solution.encode()
        if work.draft is not None:
            kept["draft"] = {"when": kept["draft"]["when"], "sha256": _hash(work.draft.text)}
        if work.note is not None:
            yield f"{slug}/notes.md", work.note.text.encode()
            kept["note"] = {"when": kept["note"]["when"], "sha256": _hash(work.note.text)}
        if work.submissions:
            table = [one.model_dump(mode="json") for one in work.submissions]
            yield f"{slug}/submissions.json", json.dumps(table, indent=1).encode()
        rest["problems"][slug] = kept
    yield "record.json", json.dumps(rest, indent=1).encode()


def _solution(work: Work) -> str | None:
    if work.draft is not None:
        return work.draft.text
    good = [one.code for one in work.submissions if one.verdict is Verdict.AC]
    every = good or [one.code for one in work.submissions]
    return every[-1] if every else None


def assemble(found: dict[str, bytes]) -> Practice:
    """Practice from the files of a folder. InputError names the file that does not fit.

    What was changed by hand counts: a program or note that is not what was exported is one of now.
    """
    now = datetime.now(UTC).isoformat()
    record_json = _json("record.json", found.get("record.json", b"null"))
    if not isinstance(record_json, dict):
        raise InputError("is missing, or no object", where="record.json", fix=FIX)
    if not isinstance(record_json.get("problems", {}), dict):
        raise InputError("is no object", where="record.json: problems", fix=FIX)
    table: dict[str, Any] = {
        slug: dict(kept) if isinstance(kept, dict) else kept for slug, kept in record_json.get("problems", {}).items()
    }
    for name, data in found.items():
        slug, _, kind = name.partition("/")
        if not kind:
            continue
        work = table.setdefault(slug, {})
        if not isinstance(work, dict):
            raise InputError("is no object", where=f"record.json: problems: {slug}", fix=FIX)
        if kind == "submissions.json":
            work["submissions"] = _json(name, data)
            continue
        field = "draft" if kind == "solution.py" else "note"
        text = _text(name, data).removeprefix("\ufeff")
        kept = work.get(field)
        if isinstance(kept, dict) and kept.get("sha256") == _hash(text):
            work[field] = {"text": text, "when": kept.get("when")}
        elif kind == "notes.md" or text not in _codes(found.get(f"{slug}/submissions.json")):
            work[field] = {"text": text, "when": now}
    for work in table.values():
        for field in ("draft", "note"):
            if isinstance(work, dict) and isinstance(work.get(field), dict) and "text" not in work[field]:
                del work[field]  # its file was removed
    return parse({**record_json, "problems": table})


def to_zip(practice: Practice) -> bytes:
    """A folder as a zip file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files(practice):
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def from_zip(data: bytes) -> Practice:
    """Practice from a zip file, also one whose files are all in one folder. InputError where it holds anything else,
    or too much."""
    found: dict[str, bytes] = {}
    room = MOST
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(entries) > MOST_FILES:
                raise InputError(f"has more than {MOST_FILES:,} files", where="zip", fix=FIX)
            names = [entry.filename for entry in entries]
            top = next((name[: -len("record.json")] for name in names if name.endswith("record.json")), "")
            for entry in entries:
                name = _name(entry.filename.removeprefix(top))
                if name in found:
                    raise InputError("stands there twice", where=name, fix=FIX)
                with archive.open(entry) as file:
                    found[name] = file.read(room + 1)
                room -= len(found[name])
                if room < 0:
                    raise InputError(f"is larger than {MOST >> 20} MB unpacked", where="zip", fix=FIX)
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        NotImplementedError,
        RuntimeError,
        EOFError,
        OSError,
        zlib.error,
    ) as error:
        raise InputError(f"cannot be read ({error})", where="zip", fix=FIX) from error
    return assemble(found)


def read(data: bytes) -> Practice:
    """Practice from what a browser sent: a zip file or JSON."""
    return from_zip(data) if data[:2] == b"PK" else parse(_json("practice", data))


def export_to(db: Database, learner: int, folder: Path) -> int:
    """Write a learner's practice below a folder, where the rest stays; how many files. FileError where it cannot."""
    count = 0
    try:
        for name, data in files(gather(db, learner)):
            path = folder / _name(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            count += 1
    except OSError as error:
        raise FileError(f"cannot be written ({error})", where=str(folder), fix="Choose another folder") from error
    return count


def import_from(db: Database, learner: int, folder: Path) -> dict[str, int]:
    """Bring a folder that `export_to` wrote back into a profile, as `restore` does; other files are not looked at."""
    found: dict[str, bytes] = {}
    room = MOST
    paths = [folder / "record.json", *(path for name in FILES for path in sorted(folder.glob(f"*/{name}")))]
    try:
        for path in paths:
            if path.is_file() and SLUG.fullmatch(path.parent.name if path.parent != folder else "record"):
                room -= path.stat().st_size
                if room < 0:
                    raise InputError(f"is larger than {MOST >> 20} MB", where=str(folder), fix=FIX)
                found[path.relative_to(folder).as_posix()] = path.read_bytes()
    except OSError as error:
        raise FileError(f"cannot be read ({error})", where=str(folder), fix="Choose an exported folder") from error
    return restore(db, learner, assemble(found))


def _name(name: str) -> str:
    """A file's place within the folder; InputError for any but those above."""
    slug, _, file = name.partition("/")
    if name == "record.json" or (len(slug) <= 100 and SLUG.fullmatch(slug) and file in FILES):
        return name
    raise InputError("is no file of an export", where=repr(name[:80]), fix="Take it out")


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InputError("is not UTF-8", where=name, fix="Save it as UTF-8") from error


def _json(name: str, data: bytes) -> Any:
    try:
        return json.loads(_text(name, data))
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not JSON ({error})", where=name, fix=FIX) from error


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _codes(data: bytes | None) -> set[str]:
    """Programs that were submitted, as far as they can be read here."""
    table = _json("submissions.json", data) if data else []
    return {str(one.get("code")) for one in table if isinstance(one, dict)} if isinstance(table, list) else set()
