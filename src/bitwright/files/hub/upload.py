"""Files that become one commit of a repository of the hub."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bitwright
from bitwright.errors import InputError
from bitwright.files import hub, sidecars

TENSORS = ("*.safetensors", "*.safetensors.index.json")


def require_target(repo: str, revision: str | None, endpoint: str | None) -> str:
    """The address of the hub. InputError where nothing could be sent there: a wrong name or address, no token."""
    from huggingface_hub import constants, get_token

    hub.require_repository(repo, "OWNER/NAME")
    if revision is not None and not hub.REVISION.fullmatch(revision):
        raise InputError(f"{revision!r} is not a branch's name", where="--revision", fix="Give for example main")
    if endpoint is not None and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", endpoint):
        raise InputError(
            f"{endpoint!r} is not an address", where="--endpoint", fix="Give for example https://hub.my.org"
        )
    on = str(endpoint or constants.ENDPOINT).rstrip("/")
    if not get_token():
        raise InputError(f"there is no token for {on}", where=repo, fix=f"To get one, {hub.LOGIN}")
    return on


def upload(files: Mapping[str, Path], repo: str, *, private: bool, revision: str | None, on: str, message: str) -> str:
    """Make `files` one commit of `repo` on the hub at `on`, by their names there; the commit's address.

    The repository and the branch `revision` are made where they are not there; nothing is seen before the commit, and
    what was sent by a call that was stopped is not sent again. Raises InputError where the hub refuses or is not
    reached, where a repository that was to be private is public or holds other weights, and where the commit does not
    hold the very bytes.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(endpoint=on, library_name="bitwright", library_version=bitwright.__version__)
    with hub.bars(), hub.explained(repo, "uploaded", on):
        api.create_repo(repo, private=private or None, exist_ok=True)
        if private and not api.model_info(repo).private:
            fix = "Choose another name, or make it private in its settings"
            raise InputError("the repository exists and is public", where=repo, fix=fix)
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        _require_room(api, repo, revision, files)
        added = [CommitOperationAdd(name, str(path)) for name, path in sorted(files.items())]
        try:
            commit = api.create_commit(repo, added, commit_message=message, revision=revision)
        except RuntimeError as error:  # around whatever went wrong with one file
            raise error.__cause__ or error from error
        _require_there(api, repo, commit.oid, files)
    return str(commit.commit_url)


def _require_room(api: Any, repo: str, revision: str | None, files: Mapping[str, Path]) -> None:
    """InputError where other weights lie in the repository, which runtimes would read with ours or instead of them."""
    there = {file.rfilename for file in api.model_info(repo, revision=revision).siblings or []}
    other = sorted(name for name in there - {*files} if "/" not in name and sidecars.fits(name, TENSORS))
    if other and any(sidecars.fits(name, TENSORS) for name in files):
        fix = "Delete them there, or choose another name or --revision"
        raise InputError(f"it holds other weights: {', '.join(other)}", where=repo, fix=fix)


def _require_there(api: Any, repo: str, commit: str, files: Mapping[str, Path]) -> None:
    """InputError where a commit lacks a file or has other bytes: a repository's .gitignore drops files in silence."""
    listed = api.model_info(repo, revision=commit, files_metadata=True).siblings or []
    there = {file.rfilename: file for file in listed}
    for name, path in files.items():
        found = there.get(name)
        if found is None or not _same(found, path):
            what = f"{name} is not in the commit" if found is None else f"{name} has other bytes in the commit"
            raise InputError(what, where=f"{repo}@{commit}", fix="Look at the repository's .gitignore, and push again")


def _same(found: Any, path: Path) -> bool:
    """Whether a file of a repository has the size and the hash of a file here: SHA-256, or Git's of a small one."""
    if found.size != path.stat().st_size:
        return False
    if found.lfs is not None:
        with path.open("rb") as file:
            return bool(hashlib.file_digest(file, "sha256").hexdigest() == found.lfs.sha256)
    data = path.read_bytes()
    digest = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
    return bool(digest.hexdigest() == found.blob_id)
