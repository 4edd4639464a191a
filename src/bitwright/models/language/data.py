"""Calibration and held-out text: from files, a folder or a dataset to windows of tokens.

    load_texts(source) -> texts -> cut(texts, tokenizer) -> Windows(ids [count, length], lint, hash)

Nothing here is random except `write_own`, which is seeded: the same text and tokenizer
always give the same windows, and their hash says so.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from bitwright.errors import DataError, ModelError, RecipeError
from bitwright.files import hub
from bitwright.files.plain import parse, read
from bitwright.models.language import corpus
from bitwright.recipe import BROUGHT

if TYPE_CHECKING:
    import torch

Part = Literal["all", "calibration", "heldout"]
Tokens = npt.NDArray[np.int32]  # one dimension

SUFFIXES = (".jsonl", ".md", ".py", ".txt")  # what is read from a folder
READ_LIMIT = 1 << 30  # bytes of text held in memory at most
CUT_LIMIT = 64_000_000  # characters tokenized at most; a token takes far more memory than its text
PIECE = 1_000_000  # characters given to the tokenizer at once
HELD = 8  # one document in 8 is held out
RUN = 8  # tokens in a run that should not come twice
ENOUGH = 25  # calibration tokens per input column below which what they gain does not all carry over (docs/log.md)


# ---- from a source to texts -------------------------------------------------------------


def load_texts(source: str | Path) -> list[str]:
    """Read the documents of a source, one string each; blank ones are left for `cut` to count.

    A source is a file of UTF-8 text (one document), a .jsonl file ({"text": ...} per line), a
    folder (its .jsonl, .md, .py and .txt files in sorted order, at any depth, hidden folders
    left out), "stdlib" (the calibration part of `corpus`) or "hub:NAME[:split[:column]]" (a
    dataset of the Hugging Face hub; "hub:OWNER/NAME/CONFIG@REVISION" names a configuration and a
    branch, tag or commit; split is "train" and column "text" unless given). A Path is always a file or folder.

    Raises DataError for a source that is missing, blank, not UTF-8, not valid JSON Lines or
    larger than READ_LIMIT.
    """
    if isinstance(source, str) and not source.strip():
        raise DataError("a source without a name", where=repr(source), fix="Name a file, a folder or a dataset.")
    if source == BROUGHT:
        return corpus.read("calibration")
    if isinstance(source, str) and source.startswith(hub.PREFIX):
        texts = read_hub(source)
    else:
        texts = read_path(Path(source).expanduser())
    if not any(text.strip() for text in texts):
        raise DataError("it holds no text", where=str(source), fix="Give a source with some text in it.")
    return texts


def read_path(path: Path) -> list[str]:
    """Read the documents of a file or of all files of a folder; raises DataError as `load_texts` does."""
    if path.is_dir():
        files = list_files(path)
        if not files:
            kinds = ", ".join(SUFFIXES)
            raise DataError(f"the folder holds no {kinds} file", where=str(path), fix="Name a file, or another folder.")
    elif path.exists():
        files = [path]
    else:
        raise DataError("no such file or folder", where=str(path), fix=suggest(path))
    size = sum(file.stat().st_size for file in files if file.exists())
    if size > READ_LIMIT:
        raise too_large(f"{size:,} bytes", str(path), "Give a part of it: some million tokens are plenty.")
    return [text for file in files for text in read_file(file)]


def list_files(folder: Path) -> list[Path]:
    """List the text files of a folder at any depth, sorted by path; hidden files and folders are left out."""
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted((path for path in found if path.suffix.lower() in SUFFIXES), key=Path.as_posix)


def read_file(path: Path) -> list[str]:
    """Read the documents of one file: one per line from .jsonl, otherwise the whole file as one."""
    text = read_utf8(path)
    if path.suffix.lower() != ".jsonl":
        return [text]
    # Not splitlines(): U+2028 and its like may stand inside a JSON string.
    lines = enumerate(text.split("\n"), 1)
    return [read_row(line, f"{path} line {number}") for number, line in lines if line.strip()]


def read_utf8(path: Path) -> str:
    """Read a file as UTF-8, line ends as \\n, without a byte order mark; raises DataError with the byte offset."""
    try:
        data = read(path, READ_LIMIT)
    except OSError as error:
        raise DataError(f"it cannot be read ({error.strerror})", where=str(path), fix="Give a text file") from error
    fix = "Save it as UTF-8 text, for instance with: iconv -f OLD-ENCODING -t UTF-8."
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        value = data[error.start]
        what = f"it is not UTF-8 text: byte {value:#04x} at offset {error.start} has no meaning there"
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            what, fix = f"{what}, it looks like UTF-16", fix.replace("OLD-ENCODING", "UTF-16")
        raise DataError(what, where=str(path), fix=fix) from error
    if (offset := data.find(0)) >= 0:  # UTF-16 without its mark, or no text at all
        raise DataError(f"it is not UTF-8 text: a zero byte at offset {offset}", where=str(path), fix=fix)
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def read_row(line: str, where: str) -> str:
    """Return the "text" of one line of JSON Lines; `where` names the file and line in a DataError."""
    try:
        row = parse(line)
    except ValueError as error:
        said = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        what = f"not valid JSON ({said})"
        raise DataError(what, where=where, fix='Write one {"text": ...} per line.') from error
    if not isinstance(row, dict):
        raise DataError(f"a {type(row).__name__}, not an object", where=where, fix='Write one {"text": ...} per line.')
    if "text" not in row:
        keys = ", ".join(map(repr, row)) or "none"
        fix = 'Put the document under "text".'
        if "messages" in row:  # each model frames a conversation its own way; guessing would be wrong
            fix = 'Apply the model\'s chat template to the conversation and put the result under "text".'
        raise DataError(f'no key "text"; the keys are {keys}', where=where, fix=fix)
    text = row["text"]
    if not isinstance(text, str):
        raise DataError(f'"text" is a {type(text).__name__}, not a string', where=where)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        what = f"half of a surrogate pair at character {error.start} of the text"
        raise DataError(what, where=where, fix="Repair or remove the line.") from error
    return text


class Dataset(NamedTuple):
    """What "hub:OWNER/NAME[/CONFIG][@REVISION][:split[:column]]" means."""

    repo: str
    config: str | None
    revision: str | None
    split: str
    column: str

    @classmethod
    def parse(cls, source: str) -> Dataset:
        """Read a name; DataError where it is none."""
        match = re.fullmatch(r"hub:([^:@]+)(?:@([^:@\s]+))?(?::([^:\[\]]+(?:\[[^\[\]]*\])?))?(?::([^:]+))?", source)
        if match is None:
            fix = "Write hub:NAME, hub:NAME:split or hub:NAME:split:column; hub:NAME@REVISION for a revision."
            raise DataError("not a dataset's name", where=source, fix=fix)
        owner, _, rest = match[1].partition("/")
        name, _, config = rest.partition("/")
        repo = f"{owner}/{name}" if name else owner
        return cls(repo, config or None, match[2], match[3] or "train", match[4] or "text")

    def __str__(self) -> str:
        config = f"/{self.config}" if self.config else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f"hub:{self.repo}{config}{revision}:{self.split}:{self.column}"

    def resolved(self) -> Dataset:
        """The same at the commit that its revision means now; as it is where the hub is not reached, or it lies here.

        Raises InputError where the hub has no such dataset or revision.
        """
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

        if Path(self.repo).is_dir():
            return self
        api = HfApi()
        with hub.explained(str(self), "downloaded", api.endpoint):
            try:
                return self._replace(revision=api.dataset_info(self.repo, revision=self.revision).sha)
            except (HTTPError, OfflineModeIsEnabled) as error:
                if getattr(error, "response", None) is not None:
                    raise  # it was reached, and refuses
                return self  # what was downloaded earlier may be here


def pinned(source: str) -> str:
    """A source of texts as a certificate names it: a dataset of the hub at a commit; any other as it is."""
    if not source.startswith(hub.PREFIX):
        return source
    table = Dataset.parse(source)
    _datasets(source)
    return str(table.resolved())


def _datasets(source: str) -> Any:
    """The library that reads datasets of the hub; DataError where it is not installed."""
    try:
        import datasets  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        fix = "Install it with: pip install datasets, or give a file or folder."
        raise DataError("reading from the hub needs the datasets package", where=source, fix=fix) from error
    return datasets


def read_hub(source: str) -> list[str]:
    """Read one column of a hub dataset, "hub:NAME[@REVISION][:split[:column]]"; raises DataError.

    The split may be a slice, as in "hub:NAME:train[:1000]". Downloads what is not yet here.
    """
    repo, config, revision, split, column = Dataset.parse(source)
    datasets = _datasets(source)
    try:
        table = datasets.load_dataset(repo, config, split=split, revision=revision)
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        what = f"it cannot be loaded ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        raise DataError(what, where=source, fix="Check the name, the configuration and the split.") from error
    if column not in table.column_names:
        columns = ", ".join(table.column_names)
        raise DataError(f"no column {column!r}; the columns are {columns}", where=source)
    texts, size = [], 0
    for number, row in enumerate(table.select_columns([column])):
        text = row[column]
        if not isinstance(text, str):
            raise DataError(f"row {number} of {column!r} is a {type(text).__name__}, not a string", where=source)
        texts.append(text)
        size += len(text)
        if size > READ_LIMIT:
            fix = f"Give a part of it, as in hub:{repo}:{split.split('[')[0]}[:1000]."
            raise too_large(f"over {READ_LIMIT:,} characters", source, fix)
    return texts


def too_large(size: str, where: str, fix: str) -> DataError:
    """Make the error for a source that would not fit in memory."""
    return DataError(f"{size} of text is more than the {READ_LIMIT:,} that are read", where=where, fix=fix)


def suggest(path: Path) -> str:
    """Say what a missing path may have meant: a name like it beside it, or the folder that is missing too."""
    named = "" if path.suffix or path.is_absolute() else f" A dataset of the hub is written hub:{path.as_posix()}."
    if not path.parent.is_dir():
        return f"There is no folder {path.parent} either.{named}"
    beside = sorted(entry.name for entry in path.parent.iterdir())
    close = difflib.get_close_matches(path.name, [*beside, BROUGHT], n=3)
    return f"Did you mean {' or '.join(close)}?" if close else f"Nothing beside it has a name like that.{named}"


# ---- from texts to windows --------------------------------------------------------------


@dataclass(frozen=True)
class Lint:
    """What became of the texts. All counts; shares are in 0..1.

    read = kept + empty + duplicate + other_part.
    """

    read: int  # texts given
    kept: int  # texts of this part
    empty: int  # dropped: blank
    duplicate: int  # dropped: the same as an earlier one, but for blanks around it
    other_part: int  # left to the other of calibration and heldout
    tokens: int  # tokens of this part, with the EOS between texts
    used: int  # tokens of it that are in a window
    windows: int
    wanted: int  # windows asked for
    length: int  # tokens per window, BOS included
    bos: bool  # each window starts with BOS
    eos: bool  # texts are joined by EOS
    unknown: float  # share of the text's tokens the tokenizer has no word for
    distinct: float  # share of the vocabulary seen in the windows
    repeated: float  # share of the runs of 8 tokens in the windows that occurred earlier
    warnings: tuple[str, ...] = ()

    def summary(self) -> dict[str, Any]:
        """Return all fields as plain values that JSON can hold."""
        return {**dataclasses.asdict(self), "warnings": list(self.warnings)}

    def lines(self) -> list[str]:
        """Return the same as a few lines to read, warnings last."""
        dropped = {"empty": self.empty, "duplicate": self.duplicate, "left to the other part": self.other_part}
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in dropped.items() if number)
        frame = [name for name, present in [("BOS first", self.bos), ("EOS between texts", self.eos)] if present]
        size = f"{self.windows:,} windows of {self.length:,} tokens, from {self.tokens:,}"
        seen = f"{self.distinct:.1%} of the vocabulary seen, {self.unknown:.1%} of the tokens unknown"
        return [
            f"{self.read:,} texts read, {self.kept:,} kept" + (f" ({reasons})" if reasons else ""),
            f"{size}; {' and '.join(frame) or 'no BOS, no EOS'}",
            f"{seen}, {self.repeated:.1%} of the runs repeated",
            *(f"warning: {warning}" for warning in self.warnings),
        ]


@dataclass(frozen=True, eq=False)
class Windows:
    """Tokens to calibrate or measure on: `ids` int64 [count, length], no padding, and where they come from."""

    ids: torch.Tensor
    lint: Lint
    hash: str  # hash_ids(ids)
    source: str


def hash_ids(ids: torch.Tensor) -> str:
    """Return the SHA-256, in hex, of the shape and values of `ids`, the same on any machine."""
    head = "x".join(map(str, ids.shape)).encode() + b":"
    return hashlib.sha256(head + ids.cpu().numpy().astype("<i8").tobytes()).hexdigest()


def share_seen(heldout: torch.Tensor, calibration: torch.Tensor, run: int = 16) -> float:
    """Share (0..1) of the runs of `run` tokens of windows `heldout` [n, length] in `calibration` [m, length]."""
    sides = []
    for ids in (heldout, calibration):
        size = min(run, heldout.shape[1], calibration.shape[1])
        runs = np.lib.stride_tricks.sliding_window_view(ids.cpu().numpy().astype("<i4"), size, axis=1)
        sides.append(np.ascontiguousarray(runs.reshape(-1, size)).view(f"V{4 * size}").ravel())
    asked, known = sides
    return float(np.isin(asked, known).mean())


def cut(
    texts: list[str],
    tokenizer: Any,
    *,
    count: int = 128,
    length: int = 256,
    source: str = "",
    part: Part = "all",
) -> Windows:
    """Tokenize texts, join them with EOS and take `count` windows of `length` tokens, evenly spread.

    Windows never overlap. Each starts with BOS when the tokenizer itself puts one before a text
    (and BOS is not EOS, which the joined texts have already). Too little text gives fewer windows
    and a warning in the lint; more than CUT_LIMIT characters are sampled evenly, also with one.

    `part` splits one source in two that share no document: of the distinct texts every 8th is
    held out. With fewer than 8 texts, heldout is the last 1/8 of the tokens instead.

    Raises DataError when there is not one full window, RecipeError when an argument is out of range.
    """
    import torch

    if part not in get_args(Part):
        raise RecipeError(f"no part is called {part!r}", fix=f"Choose one of {', '.join(get_args(Part))}.")
    if count < 1 or length < 2:
        raise RecipeError(f"{count} windows of {length} tokens", fix="Ask for at least 1 window of at least 2 tokens.")
    distinct, empty, duplicate = drop(texts)
    by_document = len(distinct) >= HELD
    kept = choose(distinct, part) if by_document else distinct
    warnings = list(judge_texts(kept))
    documents = sample([split(text) for text in kept])
    if (sampled := sum(map(count_characters, documents))) < (given := sum(map(len, kept))):
        warnings.append(f"only {sampled:,} of {given:,} characters are used, evenly spread: there is more than needed")
    bos = find_bos(tokenizer)
    eos = tokenizer.eos_token_id
    stream, unknown = join(documents, tokenizer, eos)
    if part != "all" and not by_document:
        edge = len(stream) - len(stream) // HELD
        stream = stream[:edge] if part == "calibration" else stream[edge:]
        warnings.append(f"fewer than {HELD} texts: calibration and heldout are different tokens of the same texts")
    step = length if bos is None else length - 1  # tokens of text per window
    possible = len(stream) // step
    if possible < 1:
        text = "the text" if part == "all" else f"the {part} part of the text"
        fix = f"Give more text, or windows of at most {len(stream) + length - step} tokens."
        what = f"{text} is too short: it has {len(stream):,} tokens and one window needs {step:,}"
        raise DataError(what, where=source or None, fix=fix)
    taken = min(count, possible)
    if taken < count:
        warnings.append(f"{count:,} windows were wanted and the text has tokens for {taken:,}")
    # The middle one of each of `taken` equal shares of the stream.
    places = (2 * np.arange(taken) + 1) * possible // (2 * taken)
    rows = stream[: possible * step].reshape(possible, step)[places]
    if bos is not None:
        rows = np.insert(rows, 0, bos, axis=1)
    lint = Lint(
        read=len(texts),
        kept=len(kept),
        empty=empty,
        duplicate=duplicate,
        other_part=len(distinct) - len(kept),
        tokens=len(stream),
        used=taken * step,
        windows=taken,
        wanted=count,
        length=length,
        bos=bos is not None,
        eos=eos is not None,
        unknown=unknown,
        distinct=len(np.unique(rows)) / max(len(tokenizer), 1),
        repeated=measure_repeats(rows),
    )
    warnings += judge_windows(lint, tokenizer.model_max_length)
    ids = torch.from_numpy(rows.astype(np.int64))
    return Windows(ids, dataclasses.replace(lint, warnings=tuple(warnings)), hash_ids(ids), source)


def drop(texts: list[str]) -> tuple[list[str], int, int]:
    """Return the distinct texts in order, the number of blank ones and that of duplicates."""
    kept, seen, empty = [], set(), 0
    for text in texts:
        if not (core := text.strip()):
            empty += 1
            continue
        digest = hashlib.sha256(core.encode("utf-8", "surrogatepass")).digest()
        if digest not in seen:
            seen.add(digest)
            kept.append(text)
    return kept, empty, len(texts) - empty - len(kept)


def choose(texts: list[str], part: Part) -> list[str]:
    """Return the texts of one part: every HELD-th is held out, the others are for calibration."""
    if part == "all":
        return texts
    return [text for place, text in enumerate(texts) if (place % HELD == HELD - 1) == (part == "heldout")]


def split(text: str) -> list[str]:
    """Split a text into pieces of at most PIECE characters, at the end of a line where there is one."""
    pieces, start = [], 0
    while len(text) - start > PIECE:
        end = text.rfind("\n", start + PIECE // 2, start + PIECE) + 1 or start + PIECE
        pieces.append(text[start:end])
        start = end
    return [*pieces, text[start:]]


def sample(documents: list[list[str]]) -> list[list[str]]:
    """Keep at most CUT_LIMIT characters and one piece, evenly spread; each piece kept is then a document."""
    total = sum(map(count_characters, documents))
    if total <= CUT_LIMIT:
        return documents
    kept, credit = [], 0.0
    for piece in (piece for pieces in documents for piece in pieces):
        credit += len(piece) * CUT_LIMIT / total
        if credit > 0:
            kept.append([piece])
            credit -= len(piece)
    return kept


def count_characters(pieces: list[str]) -> int:
    """Return the characters of a document in pieces."""
    return sum(map(len, pieces))


def find_bos(tokenizer: Any) -> int | None:
    """Return the id of BOS if the tokenizer puts it before a text and it is not EOS too."""
    bos = tokenizer.bos_token_id
    if bos is None or bos == tokenizer.eos_token_id:
        return None
    return int(bos) if tokenizer("x")["input_ids"][:1] == [bos] else None


def join(documents: list[list[str]], tokenizer: Any, eos: int | None) -> tuple[Tokens, float]:
    """Return the tokens of all documents, EOS between them [n], and the share of unknown ones (EOS not counted)."""
    pieces = [piece for document in documents for piece in document]
    starts = [place == 0 for document in documents for place in range(len(document))]
    parts: list[Tokens] = []
    total = unknown = 0
    for start, tokens in zip(starts, tokenize(pieces, tokenizer), strict=True):
        if start and parts and eos is not None:
            parts.append(np.array([eos], np.int32))
        parts.append(tokens)
        total += len(tokens)
        if tokenizer.unk_token_id is not None:
            unknown += int((tokens == tokenizer.unk_token_id).sum())
    stream = np.concatenate(parts) if parts else np.empty(0, np.int32)
    return stream, unknown / max(total, 1)


def tokenize(pieces: list[str], tokenizer: Any) -> Iterator[Tokens]:
    """Yield the tokens of each piece, about PIECE characters at a time to bound the tokenizer's memory."""
    batch: list[str] = []
    size = 0
    for place, piece in enumerate(pieces, 1):
        batch.append(piece)
        size += len(piece)
        if size >= PIECE or place == len(pieces):
            # verbose=False: no warning on a text longer than the model's context, as windows are cut later.
            options = {"add_special_tokens": False, "truncation": False, "padding": False, "verbose": False}
            yield from (np.array(ids, np.int32) for ids in tokenizer(batch, **options)["input_ids"])
            batch, size = [], 0


def measure_repeats(rows: Tokens) -> float:
    """Return the share of the runs of RUN tokens within rows [count, length] that came before, in 0..1."""
    size = min(RUN, rows.shape[1])
    factor = np.uint64(0x9E3779B97F4A7C15)  # odd, so that the hash (mod 2^64) keeps every bit
    runs = np.zeros((rows.shape[0], rows.shape[1] - size + 1), np.uint64)
    for shift in range(size):
        runs = runs * factor + rows[:, shift : shift + runs.shape[1]].astype(np.uint64)
        runs ^= runs >> np.uint64(29)
    return 1 - len(np.unique(runs)) / runs.size


def judge_texts(texts: list[str]) -> Iterator[str]:
    """Yield a warning for what is wrong in the texts themselves."""
    damaged = [text.count("\ufffd") for text in texts if "\ufffd" in text]
    if damaged:
        yield f"{sum(damaged):,} replacement characters (U+FFFD) in {len(damaged):,} texts: they were decoded wrongly"


def judge_windows(lint: Lint, context: int) -> Iterator[str]:
    """Yield a warning for what makes windows a poor sample; `context` is the model's longest input in tokens."""
    if lint.unknown > 0.01:
        yield f"{lint.unknown:.1%} of the tokens are unknown to the tokenizer: is it another language?"
    if lint.repeated > 0.5:
        yield f"very repetitive: {lint.repeated:.0%} of the runs of {RUN} tokens came before"
    if lint.length > context:
        yield f"windows of {lint.length:,} tokens are longer than the model's context of {context:,}"


def tell_columns(tokens: int, widths: Mapping[str, int], length: int) -> str:
    """Say how many of `tokens` there are per input column of matrices whose numbers of inputs are `widths`.

    Where those are too few for the widest, also how many windows of `length` tokens would do.
    """
    each = " and ".join(f"{tokens / size:,.3g} of the {name} ({size:,})" for name, size in widths.items())
    told = f"{tokens:,} tokens, per input column {each} matrix"
    if not (widest := few_columns(tokens, widths)):
        return told
    more = f"{-(-ENOUGH * widest // length):,} windows reach that"
    return f"{told}: under {ENOUGH}, less of what calibration gains holds on other text; {more}"


def few_columns(tokens: int, widths: Mapping[str, int]) -> int:
    """Return the inputs of the widest matrix where it has fewer than ENOUGH of `tokens` per column, else 0."""
    widest = max(widths.values(), default=0)
    return widest if tokens < ENOUGH * widest else 0


# ---- text the model writes itself -------------------------------------------------------


def write_own(
    model: Any,
    tokenizer: Any,
    *,
    count: int,
    length: int,
    seed: int,
    batch: int = 8,
    on_step: Callable[[int, int], None] | None = None,
) -> torch.Tensor:
    """Let a causal language model write its own calibration text: int64 [count, length], on the CPU.

    Each row starts with BOS, or EOS, or (with neither) a random token, and goes on by sampling at
    temperature 1; EOS is left out, so that rows are full. Equal arguments give equal rows on one
    machine; `batch` rows are written at a time and change what is drawn. After every token of a
    batch `on_step(tokens done, tokens in all)` is called.

    Raises RecipeError for a length the model cannot take, ModelError when it gives NaN or infinity.
    """
    import torch

    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if count < 1 or batch < 1 or length < 2 or (limit is not None and length > limit):
        fix = "Ask for at least 1 window of at least 2 tokens" + (f" and at most {limit:,}." if limit else ".")
        raise RecipeError(f"{count} windows of {length} tokens, {batch} at a time", fix=fix)
    device = model.get_input_embeddings().weight.device
    generator = torch.Generator(device).manual_seed(seed)
    words = min(len(tokenizer), model.get_input_embeddings().weight.shape[0])  # some models have spare rows
    ends = list_ends(model, tokenizer)
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    ids = torch.empty((count, length), dtype=torch.int64, device=device)
    if first is None:
        ids[:, 0] = torch.randint(words, (count,), generator=generator, device=device)
    else:
        ids[:, 0] = first
    training = model.training
    model.eval()  # dropout would draw from the global generator
    try:
        for start in range(0, count, batch):
            rows = ids[start : start + batch]
            for place, chosen in enumerate(write_rows(model, rows[:, :1], length, words, ends, generator), 1):
                rows[:, place] = chosen
                if on_step is not None:
                    on_step(start * length + (place + 1) * len(rows), count * length)
    finally:
        model.train(training)
    return ids.cpu()


def write_rows(
    model: Any, start: torch.Tensor, length: int, words: int, ends: list[int], generator: torch.Generator
) -> Iterator[torch.Tensor]:
    """Yield the next token of each row, int64 [rows], until rows that began as `start` [rows, 1] have `length`."""
    import torch

    written, cache = start, None
    for place in range(1, length):
        with torch.no_grad():
            # A model that gives back no cache reads the whole row again: slower, as right.
            if cache is None:
                out = model(input_ids=written, use_cache=True)
            else:
                out = model(input_ids=written[:, -1:], past_key_values=cache, use_cache=True)
        cache = getattr(out, "past_key_values", None)
        logits = out.logits[:, -1, :words].float()
        logits[:, ends] = -torch.inf
        share = logits.softmax(-1)
        if not bool(share.isfinite().all()):
            fix = "Its weights may be damaged, or too large for its dtype."
            raise ModelError("the model gives NaN or infinity", where=f"token {place} of its own text", fix=fix)
        chosen = torch.multinomial(share, 1, generator=generator)
        written = torch.cat([written, chosen], dim=1)
        yield chosen[:, 0]


def list_ends(model: Any, tokenizer: Any) -> list[int]:
    """Return the ids that end a text, by the tokenizer and by the model's generation config."""
    known = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = [*(known if isinstance(known, list) else [known]), tokenizer.eos_token_id]
    return sorted({int(end) for end in ids if end is not None and end < len(tokenizer)})
