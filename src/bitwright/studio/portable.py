"""What a learner did with problems, as a folder to take along, and back: lossless, and twice the same as once.

    record.json                        lessons, answers and settings; drafts, tests of one's own, hints and cards
    <slug>/solution.py                 the program in the editor, or else the last accepted, or else the last submitted
    <slug>/notes.md                    the note
    <slug>/submissions.json            all submissions with their verdicts

The same as a zip file, and as one JSON object (`gather`), which is what the others are made from and read into.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from fsrs import Rating
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from bitwright.errors import FileError, InputError
from bitwright.judge.problem import SLUG
from bitwright.judge.verdict import Verdict
from bitwright.studio import learner as learners
from bitwright.studio import record, reviews
from bitwright.studio.db import Database, cards, drafts, hints, notes, own_tests, submissions

FORMAT = "bitwright-practice"
VERSION = 1
MOST = 64 << 20
"""Bytes that all files of a folder or zip may have together, unpacked."""
MOST_FILES = 5000
FILES = ("solution.py", "notes.md", "submissions.json")
_FIX = "Choose what the studio exported (Practice, Export)"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


_When = Annotated[AwareDatetime, Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(9000, 1, 1, tzinfo=UTC))]
_Code = Annotated[str, Field(max_length=record.CODE)]


class Text(_Part):
    """A draft or a note."""

    text: str = Field(max_length=record.NOTE)
    when: _When


class Own(_Part):
    """A test of one's own."""

    name: str = Field(max_length=60)
    text: str = Field(max_length=record.OWN)


class Hint(_Part):
    """A hint that was seen."""

    number: int = Field(ge=1, le=record.APPROACH)
    when: _When


class Card(_Part):
    """State of the spaced repetition, as fsrs writes it."""

    state: dict[str, Any]
    due: date


class Tried(_Part):
    """A submission with its verdict."""

    when: _When
    code: _Code
    verdict: Verdict
    result: dict[str, Any] | None = None
    cpu: float | None = None
    memory: int | None = Field(None, ge=0, lt=2**62)
    counted: bool
    rank: dict[str, float] | None = None


class Work(_Part):
    """All that was done with one problem."""

    draft: Text | None = None
    note: Text | None = None
    own: list[Own] = Field(default=[], max_length=record.MOST_OWN)
    hints: list[Hint] = Field(default=[], max_length=record.APPROACH)
    card: Card | None = None
    submissions: list[Tried] = Field(default=[], max_length=10_000)


class Practice(_Part):
    """A learner's practice, and their record (see `learner.export`)."""

    format: Literal["bitwright-practice"]
    version: int = Field(ge=1, le=VERSION)
    learner: dict[str, Any] | None = None
    problems: dict[str, Work] = Field(default={}, max_length=MOST_FILES)


# --- The database's side


def gather(db: Database, learner: int) -> Practice:
    """All that is remembered of a learner's practice; submissions without a verdict are left out."""
    told = learners.export(db, learner)
    found: dict[str, Work] = {}

    def work(row: Any) -> Work:
        return found.setdefault(row.problem, Work())

    with db.read() as connection:

        def rows(table: sa.Table, *order: Any) -> Any:
            return connection.execute(sa.select(table).where(table.c.learner == learner).order_by(*order))

        for row in rows(drafts, drafts.c.problem):
            work(row).draft = Text(text=row.code, when=row.moment)
        for row in rows(notes, notes.c.problem):
            work(row).note = Text(text=row.text, when=row.moment)
        for row in rows(own_tests, own_tests.c.id):
            work(row).own.append(Own(name=row.name, text=row.text))
        for row in rows(hints, hints.c.problem, hints.c.number):
            work(row).hints.append(Hint(number=row.number, when=row.moment))
        for row in rows(cards, cards.c.problem):
            work(row).card = Card(state=row.state, due=row.due)
        for row in rows(submissions, submissions.c.moment, submissions.c.id):
            if row.verdict is not None:
                work(row).submissions.append(
                    Tried(
                        when=row.moment, code=row.code, verdict=Verdict(row.verdict), result=row.result, cpu=row.cpu,
                        memory=row.memory, counted=row.counted, rank=row.rank,
                    )
                )  # fmt: skip
    return Practice(format=FORMAT, version=VERSION, learner=told, problems=dict(sorted(found.items())))


def restore(db: Database, learner: int, practice: Practice) -> dict[str, int]:
    """Bring practice into a profile; how many problems, submissions, notes, drafts and tests of one's own came new.

    Of two drafts or notes the later stays, of two cards the one reviewed later, of a hint the first time; submissions
    and tests are joined. InputError where something does not fit; then nothing of the practice is changed.
    """
    counts = {"problems": 0, "submissions": 0, "notes": 0, "drafts": 0, "own": 0}
    for slug, work in practice.problems.items():
        _look(slug, work)
    if practice.learner is not None:
        learners.restore(db, learner, practice.learner)
    with db.begin() as connection:
        record.lock(connection, learner)
        for slug, work in practice.problems.items():
            new = _restore(connection, learner, slug, work)
            counts["problems"] += any(new.values())
            for name, count in new.items():
                counts[name] += count
    return counts


def _look(slug: str, work: Work) -> None:
    if len(slug) > 100 or not SLUG.fullmatch(slug):
        raise InputError(f"{slug[:40]!r} is not a problem's name", where="problems", fix=_FIX)
    texts = [("draft", work.draft.text if work.draft else ""), ("note", work.note.text if work.note else "")]
    texts += [(name, text) for one in work.own for name, text in (("name", one.name), ("test", one.text))]
    texts += [("code", one.code) for one in work.submissions]
    for where, text in texts:
        record.text_of(f"{slug}: {where}", text, record.NOTE)
    for code in ([work.draft.text] if work.draft else []) + [one.code for one in work.submissions]:
        record.code_of(code)
    if len({one.number for one in work.hints}) < len(work.hints):
        raise InputError("a hint stands there twice", where=slug, fix=_FIX)
    if work.card is not None:
        try:
            reviews.review(work.card.state, Rating.Good, work.card.due)
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise InputError(f"its card cannot be read ({error})", where=slug, fix=_FIX) from error


def _restore(connection: sa.Connection, learner: int, slug: str, work: Work) -> dict[str, int]:
    """What came new of one problem."""
    key = {"learner": learner, "problem": slug}

    def mine(table: sa.Table) -> Any:
        return connection.execute(sa.select(table).where(table.c.learner == learner, table.c.problem == slug)).all()

    def put(table: sa.Table, there: bool, values: dict[str, Any]) -> None:
        if there:
            at = sa.and_(table.c.learner == learner, table.c.problem == slug)
            connection.execute(sa.update(table).where(at).values(**values))
        else:
            connection.execute(sa.insert(table).values(**key, **values))

    new = {"drafts": 0, "notes": 0, "own": 0, "submissions": 0}
    for name, table, given, field in (("drafts", drafts, work.draft, "code"), ("notes", notes, work.note, "text")):
        old = mine(table)
        if given is not None and (not old or given.when > old[0].moment):
            new[name] += not old or getattr(old[0], field) != given.text
            put(table, bool(old), {field: given.text, "moment": given.when})
    known = {(row.name, row.text) for row in mine(own_tests)}
    for one in work.own:
        if (one.name, one.text) not in known and len(known) < record.MOST_OWN:
            known.add((one.name, one.text))
            connection.execute(sa.insert(own_tests).values(**key, name=one.name, text=one.text))
            new["own"] += 1
    seen = {row.number: row.moment for row in mine(hints)}
    for hint in work.hints:
        if hint.number not in seen:
            connection.execute(sa.insert(hints).values(**key, number=hint.number, moment=hint.when))
        elif hint.when < seen[hint.number]:
            at = sa.and_(hints.c.learner == learner, hints.c.problem == slug, hints.c.number == hint.number)
            connection.execute(sa.update(hints).where(at).values(moment=hint.when))
    card = mine(cards)
    if work.card is not None and (not card or _reviewed(work.card.state) > _reviewed(card[0].state)):
        put(cards, bool(card), {"state": work.card.state, "due": work.card.due})
    moments = {row.moment for row in mine(submissions)}
    for tried in work.submissions:
        if tried.when not in moments:
            values = tried.model_dump(exclude={"when", "verdict", "result", "rank"}) | {
                "verdict": tried.verdict.value, "result": record.plain(tried.result), "rank": record.plain(tried.rank),
            }  # fmt: skip
            connection.execute(sa.insert(submissions).values(**key, **values, moment=tried.when))
            new["submissions"] += 1
    return new


def _reviewed(state: dict[str, Any]) -> str:
    return str(state.get("last_review") or "")


# --- The files' side


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
        raise InputError("is missing, or no object", where="record.json", fix=_FIX)
    if not isinstance(record_json.get("problems", {}), dict):
        raise InputError("is no object", where="record.json: problems", fix=_FIX)
    table: dict[str, Any] = {
        slug: dict(kept) if isinstance(kept, dict) else kept for slug, kept in record_json.get("problems", {}).items()
    }
    for name, data in found.items():
        slug, _, kind = name.partition("/")
        if not kind:
            continue
        work = table.setdefault(slug, {})
        if not isinstance(work, dict):
            raise InputError("is no object", where=f"record.json: problems: {slug}", fix=_FIX)
        if kind == "submissions.json":
            work["submissions"] = _json(name, data)
            continue
        field = "draft" if kind == "solution.py" else "note"
        text = _text(name, data)
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


def parse(data: Any) -> Practice:
    """Practice from JSON. InputError says what does not fit."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InputError("not a learner's practice", where="record.json", fix=_FIX)
    version = data.get("version")
    if isinstance(version, int) and version > VERSION:
        what = f"written by a newer Bitwright (version {version}, this one knows up to {VERSION})"
        raise InputError(what, where="record.json", fix="Update Bitwright: pip install -U bitwright")
    try:
        return Practice.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ": ".join(str(part) for part in first["loc"])
        raise InputError(first["msg"].lower(), where=place, fix=_FIX) from error


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
                raise InputError(f"has more than {MOST_FILES:,} files", where="zip", fix=_FIX)
            names = [entry.filename for entry in entries]
            top = next((name[: -len("record.json")] for name in names if name.endswith("record.json")), "")
            for entry in entries:
                name = _name(entry.filename.removeprefix(top))
                if name in found:
                    raise InputError("stands there twice", where=name, fix=_FIX)
                with archive.open(entry) as file:
                    found[name] = file.read(room + 1)
                room -= len(found[name])
                if room < 0:
                    raise InputError(f"is larger than {MOST >> 20} MB unpacked", where="zip", fix=_FIX)
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        NotImplementedError,
        RuntimeError,
        EOFError,
        OSError,
        zlib.error,
    ) as error:
        raise InputError(f"cannot be read ({error})", where="zip", fix=_FIX) from error
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
                    raise InputError(f"is larger than {MOST >> 20} MB", where=str(folder), fix=_FIX)
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
        raise InputError(f"is not JSON ({error})", where=name, fix=_FIX) from error


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _codes(data: bytes | None) -> set[str]:
    """Programs that were submitted, as far as they can be read here."""
    table = _json("submissions.json", data) if data else []
    return {str(one.get("code")) for one in table if isinstance(one, dict)} if isinstance(table, list) else set()
