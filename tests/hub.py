"""A hub on this machine: as much of the protocol as huggingface_hub speaks for downloads and commits, over loopback.

It holds what it was given in memory, and can break a connection half-way through a file (`breaks`), or refuse whatever
comes (`refuse`). `asked` lists every request: method, path and the Range header.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

LARGE = (".safetensors", ".onnx")
"""What a new repository's .gitattributes keeps as large files."""
TOKEN = "hf_right"
Tree = dict[str, bytes]


def is_large(name: str) -> bool:
    return name.endswith(LARGE)


def described(name: str, data: bytes) -> dict[str, Any]:
    """A file as the hub lists it."""
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    large = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 134}
    return {"size": len(data), "blobId": blob} | ({"lfs": large} if is_large(name) else {})


@dataclass
class Repository:
    """Branches and tags with their commits, and the files of each commit."""

    refs: dict[str, str] = field(default_factory=dict)
    trees: dict[str, Tree] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    ignored: set[str] = field(default_factory=set)
    """Names that its .gitignore leaves out."""

    def commit(self, files: Tree, ref: str = "main") -> str:
        """Add or replace files on a branch; the commit."""
        tree = self.trees.get(self.refs.get(ref, self.refs.get("main", "")), {}) | files
        told = repr([(len(self.trees), name, hashlib.sha256(data).hexdigest()) for name, data in sorted(tree.items())])
        self.refs[ref] = commit = hashlib.sha1(told.encode()).hexdigest()
        self.trees[commit] = tree
        return commit

    def at(self, revision: str) -> str | None:
        """The commit that a revision means."""
        return revision if revision in self.trees else self.refs.get(revision)


@dataclass
class Hub:
    """The state of the server at `url`; a dataset is a repository `datasets/OWNER/NAME`."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: Tree = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    breaks: int = 0
    """How many downloads of large files end after half of what is left."""
    refuse: tuple[int, str] | None = None
    """Status and text of every answer, where not None."""
    held: tuple[threading.Event, threading.Event] | None = None
    """Where not None, large files that arrive set the first, and wait for the second."""
    owners: set[str] = field(default_factory=lambda: {"me"})
    """Whose repositories the token may write."""

    def add(self, name: str, files: Tree, **facts: Any) -> Repository:
        """A repository with one commit."""
        self.repositories[name] = repository = Repository(**facts)
        repository.commit(files)
        return repository

    def tree(self, name: str, revision: str = "main") -> Tree:
        """The files of a revision."""
        repository = self.repositories[name]
        return repository.trees[repository.at(revision) or ""]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:  # the other side has had enough
            self.close_connection = True

    def do_GET(self) -> None:
        self.work()

    do_HEAD = do_POST = do_PUT = do_GET

    def work(self) -> None:
        address = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(address.path)
        self.hub.asked.append((self.command, path, self.headers.get("Range")))
        body = self.body()
        if self.hub.refuse is not None:
            self.say(*self.hub.refuse)
            return
        parts = path.strip("/").split("/")
        if self.command == "PUT" and parts[0] == "objects":
            if self.hub.held is not None:
                self.hub.held[0].set()
                self.hub.held[1].wait()
            assert hashlib.sha256(body).hexdigest() == parts[1]
            self.hub.objects[parts[1]] = body
            self.say(200, "")
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif path == "/api/validate-yaml":
            wrong = "license: unheard-of" in json.loads(body)["content"]
            told = [{"message": '"license" must be one of [apache-2.0, mit, ...]'}] if wrong else []
            self.say(400 if wrong else 200, {"errors": told, "warnings": []})
        elif path.endswith(".git/info/lfs/objects/batch"):
            self.batch(json.loads(body))
        elif parts[:2] == ["api", "models"]:
            self.api("/".join(parts[2:4]), parts[4:], body)
        elif parts[:2] == ["api", "datasets"]:
            self.api("/".join(parts[1:4]), parts[4:], body)
        elif parts[2:3] == ["resolve"]:
            self.resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self.say(404, "nothing here")

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def say(self, code: int, told: Any, **headers: str) -> None:
        data = told.encode() if isinstance(told, str) else json.dumps(told).encode()
        self.send_response(code)
        kind = "text/plain" if isinstance(told, str) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def writable(self, name: str) -> bool:
        """Whether the token may write; says so where it may not."""
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.say(401, {"error": "Invalid credentials in Authorization header"})
            return False
        if name.split("/")[0] not in self.hub.owners:
            self.say(403, {"error": "You don't have the rights to create a model under this namespace"})
            return False
        return True

    def create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if not self.writable(name):
            return
        if name in self.hub.repositories:
            self.say(409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"})
            return
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.hub.add(name, {".gitattributes": b""}, private=private)
        self.say(200, {"url": f"{self.hub.url}/{name}", "name": name})

    def found(self, name: str, revision: str) -> tuple[Repository, str] | None:
        """A repository and a commit of it; says what is wrong where there is none."""
        repository = self.hub.repositories.get(name)
        right = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository is None or (repository.private and not right):
            self.say(401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            return None
        commit = repository.at(revision)
        if commit is None:
            self.say(404, {"error": f"Invalid rev id: {revision}"}, X_Error_Code="RevisionNotFound")
            return None
        return repository, commit

    def api(self, name: str, rest: list[str], body: bytes) -> None:
        verb, revision = (rest[0], "/".join(rest[1:]) or "main") if rest else ("revision", "main")
        if verb == "branch":
            if self.writable(name) and (found := self.found(name, "main")) is not None:
                if revision in found[0].refs:
                    self.say(409, {"error": "Reference already exists"})
                    return
                found[0].refs[revision] = found[1]
                self.say(200, {})
            return
        found = self.found(name, "main" if verb == "refs" else revision)
        if found is None:
            return
        repository, commit = found
        if verb == "refs":
            branches = [{"name": r, "ref": f"refs/heads/{r}", "targetCommit": c} for r, c in repository.refs.items()]
            self.say(200, {"branches": branches, "tags": [], "converts": []})
        elif verb == "revision":
            files = [{"rfilename": file, **described(file, data)} for file, data in repository.trees[commit].items()]
            facts = {"id": name, "modelId": name, "sha": commit, "private": repository.private, "tags": []}
            self.say(200, facts | {"siblings": files, "gated": repository.gated})
        elif verb == "tree":
            rows = []
            for file, data in repository.trees[commit].items():
                facts = described(file, data)
                lfs = {"lfs": facts["lfs"] | {"oid": facts["lfs"]["sha256"]}} if "lfs" in facts else {}
                rows.append({"type": "file", "path": file, "size": facts["size"], "oid": facts["blobId"]} | lfs)
            self.say(200, rows)
        elif verb == "preupload" and self.writable(name):
            answer = [
                {
                    "path": file["path"], "uploadMode": "lfs" if is_large(file["path"]) else "regular",
                    "shouldIgnore": file["path"] in repository.ignored, "oid": None,
                }
                for file in json.loads(body)["files"]
            ]  # fmt: skip
            self.say(200, {"files": answer})
        elif verb == "commit" and self.writable(name):
            files: Tree = {}
            for line in map(json.loads, body.decode().splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = self.hub.objects[value["oid"]]
            made = repository.commit(files, revision)
            self.say(200, {"success": True, "commitOid": made, "commitUrl": f"{self.hub.url}/{name}/commit/{made}"})

    def batch(self, asked: dict[str, Any]) -> None:
        objects = []
        for each in asked["objects"]:
            put = {"upload": {"href": f"{self.hub.url}/objects/{each['oid']}"}}
            objects.append(each | ({} if each["oid"] in self.hub.objects else {"actions": put}))
        self.say(200, {"transfer": "basic", "objects": objects})

    def resolve(self, name: str, revision: str, file: str) -> None:
        found = self.found(name, revision)
        if found is None:
            return
        repository, commit = found
        if repository.gated:
            self.say(403, {"error": "Access to model is restricted"}, X_Error_Code="GatedRepo")
            return
        data = repository.trees[commit].get(file)
        if data is None:
            self.say(404, "Entry not found", X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            return
        facts = described(file, data)
        start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        etag = facts["lfs"]["sha256"] if "lfs" in facts else facts["blobId"]
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.breaks and is_large(file):
            self.hub.breaks -= 1
            self.wfile.write(data[start : start + (len(data) - start) // 2])
            self.close_connection = True
            return
        self.wfile.write(data[start:])


@contextmanager
def served() -> Iterator[Hub]:
    """A hub that answers meanwhile, on a free port of this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


NOBODY = Hub("http://127.0.0.1:9")
"""A hub that is not reached: nothing listens on the port of discarding."""


def settings(hub: Hub, cache: Path) -> dict[str, str]:
    """huggingface_hub's own settings, for a process that shall speak to this hub."""
    return {
        "HF_ENDPOINT": hub.url, "HF_HOME": str(cache), "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    }  # fmt: skip


def use(hub: Hub, cache: Path, patch: pytest.MonkeyPatch) -> None:
    """Have this process speak to this hub: what the settings are when the library is imported."""
    patch.setattr(constants, "ENDPOINT", hub.url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    patch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 64_000)  # what of a broken download is kept: whole pieces
    patch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    patch.setenv("HF_TOKEN", TOKEN)


def read(folder: Path) -> Tree:
    """All files of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
