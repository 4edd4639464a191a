"""Models of the hub, brought into its cache: only what is needed, and a broken download goes on where it broke."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import bitwright
from bitwright.errors import InputError, ResourceError, nearest
from bitwright.files import hub, sidecars
from bitwright.files.plain import parse, read_text
from bitwright.words import megabytes, plural

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
NETWORK = ".onnx"
Tell = Callable[[str], None]


class Name(NamedTuple):
    """What `hub:OWNER/NAME[/FILE.onnx][@REVISION]` means; `text` is the whole of it."""

    text: str
    repo: str
    file: str = ""
    revision: str = "main"

    @classmethod
    def parse(cls, text: str) -> Name:
        """Read a name; InputError where it is none.

        >>> Name.parse("hub:me/tiny/onnx/model.onnx@v1")[1:]
        ('me/tiny', 'onnx/model.onnx', 'v1')
        """
        body, sign, revision = text.removeprefix(hub.PREFIX).partition("@")
        owner, _, rest = body.partition("/")
        name, _, file = rest.partition("/")
        hub.require_repository(f"{owner}/{name}", text)
        if file and not file.endswith(NETWORK):
            fix = f"Write hub:OWNER/NAME@REVISION, or hub:OWNER/NAME/FILE{NETWORK}"
            raise InputError(f"{file!r} is not a network's file", where=text, fix=fix)
        if sign and not hub.REVISION.fullmatch(revision):
            raise InputError("has an empty or impossible revision", where=text, fix="Give a branch, a tag or a commit")
        return cls(text, f"{owner}/{name}", file, revision or "main")


def download(text: str, tell: Tell) -> Path:
    """The folder or network that `text` names (`Name`), in the hub's cache; `tell` hears what is downloaded beforehand.

    Files that are here are not fetched again. Raises InputError where it cannot be had, ResourceError without room.
    """
    from huggingface_hub import HfApi, constants, hf_hub_download, hf_hub_url, snapshot_download
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled, RevisionNotFoundError

    name = Name.parse(text)
    api = HfApi(library_name="bitwright", library_version=bitwright.__version__)
    with hub.bars(), hub.explained(text, "downloaded", api.endpoint):
        try:
            info = api.model_info(name.repo, revision=name.revision, files_metadata=True)
        except RevisionNotFoundError as error:
            refs = api.list_repo_refs(name.repo)
            known = [ref.name for ref in (*refs.branches, *refs.tags)]
            fix = f"{nearest(name.revision, known)} Or give a commit"
            raise InputError(f"there is no revision {name.revision!r}", where=text, fix=fix) from error
        except (HTTPError, OfflineModeIsEnabled) as error:
            if getattr(error, "response", None) is not None:
                raise  # it was reached, and refuses
            kept = _kept(name)
            if kept is None:
                raise
            tell(f"{api.endpoint} is not reached: {name.text} is what was downloaded earlier")
            return kept
        store = Path(constants.HF_HUB_CACHE).expanduser() / f"models--{name.repo.replace('/', '--')}"
        cache = Cache(
            store, store / "snapshots" / str(info.sha), {file.rfilename: file for file in info.siblings or []}
        )
        wanted = _wanted(name, cache.files)
        if INDEX in wanted:  # it names the shards, and others may lie beside them
            shards = _shards(Path(hf_hub_download(name.repo, INDEX, revision=str(info.sha))))
            wanted = [file for file in wanted if not _top_weights(file) or file in shards]
        missing = [file for file in wanted if not cache.holds(file)]
        if missing:
            _announce(f"{name.repo}@{str(info.sha)[:12]}", cache, missing, tell)
        for file in missing:  # the library keeps no part of what broke: large files are fetched here
            if cache.files[file].lfs is not None:
                url = hf_hub_url(name.repo, file, revision=str(info.sha), endpoint=api.endpoint)
                _fetch(url, cache.blob(file), cache.files[file].size, f"{name.text}: {file}")
        patterns = [glob.escape(file) for file in wanted]
        return Path(snapshot_download(name.repo, revision=name.revision, allow_patterns=patterns)) / name.file


class Cache(NamedTuple):
    """Where the hub's library keeps a commit of a repository, whose files it lists by name.

    The layout is described in https://huggingface.co/docs/huggingface_hub/guides/manage-cache.
    """

    store: Path
    snapshot: Path
    files: Mapping[str, Any]

    def blob(self, file: str) -> Path:
        """The content of a file, which all its names link to. InputError where the hub states no hash."""
        found = self.files[file]
        digest = str(found.lfs.sha256 if found.lfs is not None else found.blob_id)
        if not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", digest):
            raise InputError(f"{digest!r} is not a hash", where=file, fix="Give a hub that keeps its protocol")
        return self.store / "blobs" / digest

    def holds(self, file: str) -> bool:
        """Whether the content of a file is here."""
        return self.blob(file).exists() or (self.snapshot / file).exists()

    def begun(self, file: str) -> int:
        """Bytes of a file that an earlier download left."""
        part = _part(self.blob(file))
        return min(part.stat().st_size, int(self.files[file].size)) if part.exists() else 0


def _part(blob: Path) -> Path:
    """What the content of a file is called until it is whole."""
    return blob.with_name(f"{blob.name}.incomplete")


def _top_weights(file: str) -> bool:
    return "/" not in file and file.endswith(".safetensors")


def _wanted(name: Name, files: Mapping[str, Any]) -> list[str]:
    """The files of a repository that a model is: its weights, and what an output keeps beside them.

    Raises InputError where it holds no such model.
    """
    networks = [file for file in files if file.endswith(NETWORK)]
    if name.file:
        if name.file not in files:
            raise InputError(f"there is no {name.file}", where=name.text, fix=nearest(name.file, networks or files))
        papers = [f for f in files if "/" not in f and (f == sidecars.CARD or sidecars.fits(f, sidecars.PAPERS))]
        return sorted({*(file for file in files if file.startswith(name.file)), *papers})
    weights = [file for file in files if _top_weights(file)]
    if sidecars.CONFIG not in files or not weights:
        what = f"no {sidecars.CONFIG}" if sidecars.CONFIG not in files else "no safetensors weights"
        fix = "Give the repository or revision that holds them"
        if networks:
            fix = f"For one of its networks, give hub:{name.repo}/{networks[0]}"
        raise InputError(f"holds {what}", where=name.text, fix=fix)
    weights = [SINGLE] if SINGLE in weights else [*weights, *(file for file in files if file == INDEX)]
    found = sidecars.sort(files)
    own = [file for file in (sidecars.CONFIG, sidecars.CARD) if file in files]
    return sorted({*own, *weights, *found.kept, *found.code})


def _shards(index: Path) -> set[str]:
    """The files that an index names; InputError where it is none."""
    try:
        return set(parse(read_text(index))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError("the index cannot be read", where=str(index), fix="Choose another revision") from error


def _announce(title: str, cache: Cache, missing: list[str], tell: Tell) -> None:
    """Say what is going to be downloaded. ResourceError where there is no room for it."""
    begun = sum(map(cache.begun, missing))
    left = sum(int(cache.files[file].size) for file in missing) - begun
    base = next(folder for folder in cache.store.parents if folder.exists())
    free = shutil.disk_usage(base).free
    if left > free:
        what = f"{title} needs {megabytes(left)}, but only {megabytes(free)} are free"
        raise ResourceError(what, where=str(base), fix="Free disk space, or set HF_HOME to a folder on another disk")
    goes_on = f" ({megabytes(begun)} of a broken download are here)" if begun else ""
    tell(f"downloading {title}: {plural(len(missing), 'file')}, {megabytes(left)}{goes_on}")


def _kept(name: Name) -> Path | None:
    """What was downloaded of it earlier; None where nothing was."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import EntryNotFoundError

    file = name.file or sidecars.CONFIG
    try:
        folder = snapshot_download(
            name.repo, revision=name.revision, allow_patterns=[glob.escape(file)], local_files_only=True
        )
    except EntryNotFoundError:
        return None
    path = Path(folder) / name.file
    return path if (Path(folder) / file).is_file() else None


def _fetch(url: str, blob: Path, size: int, where: str) -> None:
    """Fetch a large file, the rest of it where a part is there; whole, it must have the SHA-256 that is its name."""
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    blob.parent.mkdir(parents=True, exist_ok=True)
    part = _part(blob)
    with part.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # another process may be at it
        if blob.exists():
            return
        if file.tell() > size:
            file.truncate(0)
        headers = build_hf_headers(library_name="bitwright", library_version=bitwright.__version__)
        start = min(file.tell(), size)
        http_get(url, file, resume_size=start, headers=headers, expected_size=size, displayed_filename=where)
        file.flush()
        with part.open("rb") as whole:
            if hashlib.file_digest(whole, "sha256").hexdigest() != blob.name:
                file.truncate(0)
                fix = "Run the same command again: it is downloaded anew"
                raise InputError("what was downloaded has another SHA-256 than the hub says", where=where, fix=fix)
        part.rename(blob)
