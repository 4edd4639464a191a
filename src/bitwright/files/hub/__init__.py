"""Repositories of the Hugging Face hub: how they are named, and what is said when one cannot be had."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bitwright.errors import InputError

PREFIX = "hub:"
COMMIT = re.compile(r"[0-9a-f]{40}")
PART = r"[A-Za-z0-9](?:[\w.-]*\w)?"
REPOSITORY = re.compile(rf"{PART}/{PART}", re.ASCII)
REVISION = re.compile(r"[^\s@:^~?*\[\\]+")
"""A branch, a tag or a commit, as far as Git allows it to be called."""
LOGIN = "run: hf auth login"


class Origin(NamedTuple):
    """A commit of a repository."""

    repo: str
    commit: str

    def __str__(self) -> str:
        return f"{self.repo}@{self.commit}"


def origin(path: Path) -> Origin | None:
    """The commit that a path in the hub's cache was downloaded from, as its layout says; None for any other path.

    >>> origin(Path("hub/models--me--tiny/snapshots/0123456789012345678901234567890123456789"))
    Origin(repo='me/tiny', commit='0123456789012345678901234567890123456789')
    """
    path = path.absolute()
    for snapshot in (path, *path.parents):
        kept = snapshot.parent.parent.name
        if snapshot.parent.name == "snapshots" and kept.startswith("models--") and COMMIT.fullmatch(snapshot.name):
            return Origin(kept.removeprefix("models--").replace("--", "/"), snapshot.name)
    return None


def folder_of(path: Path) -> Path:
    """The folder of the model at `path`; of a network of the hub its repository, wherever in it the file lies."""
    if path.is_dir():
        return path
    found = origin(path)
    return next((folder for folder in path.absolute().parents if found and folder.name == found.commit), path.parent)


def title(path: Path) -> str:
    """What a model at `path` is called: of the hub by its repository, not by the commit that its folder is named for.

    >>> title(Path("models/tiny"))
    'tiny'
    """
    found = origin(path)
    return found.repo.split("/")[-1] if found and path.name == found.commit else path.name


def require_repository(name: str, where: str) -> None:
    """Raise InputError where `name` is not that of a repository."""
    if not REPOSITORY.fullmatch(name) or "--" in name or ".." in name or len(name) > 96:
        fix = "Write OWNER/NAME, of letters, digits, dots, dashes and underscores"
        raise InputError(f"{name!r} is not a repository's name", where=where, fix=fix)


@contextmanager
def bars() -> Iterator[None]:
    """The library's progress bars meanwhile only where a terminal shows them: it draws some of them in any case."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    hide = not (are_progress_bars_disabled() or sys.stderr.isatty())
    if hide:
        disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            enable_progress_bars()


@contextmanager
def explained(where: str, doing: str, on: str) -> Iterator[None]:
    """Errors of huggingface_hub inside become InputErrors: why `where` cannot be `doing`; `on` names the host."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError as error:
        fix = f"Ask for access on its page, then {LOGIN}"
        raise InputError("is gated: its owner has not given you access", where=where, fix=fix) from error
    except RevisionNotFoundError as error:
        raise InputError("there is no such revision", where=where, fix="Give a branch, a tag or a commit") from error
    except RepositoryNotFoundError as error:
        fix = f"Check the name; for a private one, {LOGIN}"
        raise InputError(f"there is no such repository on {on}, or it is private", where=where, fix=fix) from error
    except LocalTokenNotFoundError as error:
        raise InputError("there is no token to show who you are", where=where, fix=f"To get one, {LOGIN}") from error
    except OfflineModeIsEnabled as error:
        fix = "Unset HF_HUB_OFFLINE, or give a folder"
        raise InputError(f"cannot be {doing}: HF_HUB_OFFLINE forbids the network", where=where, fix=fix) from error
    except HfHubHTTPError as error:
        raise _refused(error, where, doing, on) from error
    except OSError as error:
        if error.errno is not None and not isinstance(error, ConnectionError | EntryNotFoundError):
            raise  # the disk is at fault
        raise InputError(
            f"cannot be {doing} ({_first(error)})", where=where, fix="Run the same command again"
        ) from error
    except ValueError as error:  # metadata that the hub refuses; an answer that is none of a hub's
        what = f"cannot be {doing}: {' '.join(str(error).split())}"
        raise InputError(what, where=where, fix=f"Correct it, if it is here; {on} may be no hub") from error
    except (HTTPError, EntryNotFoundError) as error:
        fix = "Check the network; the same command goes on where this one stopped"
        raise InputError(f"cannot be {doing}: {on} is not reached ({_first(error)})", where=where, fix=fix) from error


def _refused(error: Exception, where: str, doing: str, on: str) -> InputError:
    """The error for an answer that is none of the known ones."""
    response = error.response  # type: ignore[attr-defined]
    code = response.status_code
    said = getattr(error, "server_message", None) or _first(error)
    if code == 401:
        return InputError(f"{on} does not accept the token", where=where, fix=f"For a new one, {LOGIN}")
    if code == 403:
        fix = f"Choose an owner that you may write for, or give a token that may write: {LOGIN}"
        return InputError(f"{on} forbids it ({said})", where=where, fix=fix)
    fix = "Try again later; what was done is kept" if code >= 500 or code == 429 else "Correct it and try again"
    return InputError(f"cannot be {doing}: {on} answers {code} ({said})", where=where, fix=fix)


def _first(error: Exception) -> str:
    """The first line of what an error says, or else its kind."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
