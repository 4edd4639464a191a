"""Models of the hub: revisions, what is fetched, and downloads that break. The hub is tests/hub.py, on this machine."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bitwright.errors import InputError, ResourceError
from bitwright.files import hub as names
from bitwright.files.hub.download import Name, download
from tests import hub

WEIGHTS = bytes(range(256)) * 4000
TINY = {
    "config.json": b"{}", "README.md": b"card", "model.safetensors": WEIGHTS, "tokenizer.json": b"{}", "a.py": b"1",
    "LICENSE": b"terms", "chat/template.jinja": b"t", "pytorch_model.bin": b"pickle", ".gitattributes": b"",
    "onnx/model.onnx": b"graph" * 500, "onnx/model.onnx_data": b"data", "onnx/config.json": b"{}",
    "consolidated.safetensors": b"the same once more",
}  # fmt: skip
NEEDED = {
    "config.json", "README.md", "model.safetensors", "tokenizer.json", "a.py", "LICENSE", "chat/template.jinja",
}  # fmt: skip


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[hub.Hub]:
    with hub.served() as found:
        hub.use(found, tmp_path / "home", monkeypatch)
        found.add("me/tiny", TINY)
        yield found


def fetched(text: str) -> tuple[Path, list[str]]:
    said: list[str] = []
    return download(text, said.append), said


def fault(text: str) -> str:
    with pytest.raises(InputError) as caught:
        download(text, lambda line: None)
    return str(caught.value)


def test_what_a_model_is_and_no_more_is_fetched_once(server: hub.Hub) -> None:
    folder, said = fetched("hub:me/tiny")
    assert hub.read(folder) == {name: TINY[name] for name in NEEDED}
    commit = server.repositories["me/tiny"].refs["main"]
    assert names.origin(folder) == ("me/tiny", commit)
    assert said == [f"downloading me/tiny@{commit[:12]}: 7 files, 1.0 MB"]
    server.asked.clear()
    again, said = fetched("hub:me/tiny@main")
    assert (again, said) == (folder, [])
    assert not any("resolve" in path for _, path, _ in server.asked)


def test_a_branch_a_tag_and_a_commit(server: hub.Hub) -> None:
    repository = server.repositories["me/tiny"]
    first = repository.refs["main"]
    second = repository.commit({"tokenizer.json": b'{"new": 1}'}, "refs/pr/1")
    repository.commit({"config.json": b'{"old": 1}'}, "v1.0")
    for text, commit, name, data in (
        (f"@{first}", first, "tokenizer.json", b"{}"),
        ("@refs/pr/1", second, "tokenizer.json", b'{"new": 1}'),
        ("@v1.0", repository.refs["v1.0"], "config.json", b'{"old": 1}'),
    ):
        folder, _ = fetched(f"hub:me/tiny{text}")
        assert folder.name == commit and (folder / name).read_bytes() == data


def test_a_broken_connection_goes_on_where_it_broke(server: hub.Hub) -> None:
    server.breaks = 2
    folder, _ = fetched("hub:me/tiny")
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    size = len(WEIGHTS)
    ranges = [asked for method, path, asked in server.asked if path.endswith("model.safetensors") and method == "GET"]
    assert ranges == [None, f"bytes={size // 2}-", f"bytes={size * 3 // 4}-"]


def test_a_download_that_was_stopped_goes_on_where_it_stopped(server: hub.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.breaks = 1

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("time.sleep", stop)  # what the library does before it tries again
        with pytest.raises(KeyboardInterrupt):
            download("hub:me/tiny", lambda line: None)
    server.asked.clear()
    folder, said = fetched("hub:me/tiny")
    assert said[0].endswith(": 7 files, 0.51 MB (0.51 MB of a broken download are here)")
    asked = [asked for method, path, asked in server.asked if path.endswith("model.safetensors") and method == "GET"]
    assert asked == [f"bytes={len(WEIGHTS) // 2}-"]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_a_part_of_something_else_is_found_out_and_fetched_anew(server: hub.Hub, tmp_path: Path) -> None:
    blobs = tmp_path / "home" / "hub" / "models--me--tiny" / "blobs"
    blobs.mkdir(parents=True)
    part = blobs / f"{hashlib.sha256(WEIGHTS).hexdigest()}.incomplete"
    part.write_bytes(b"x" * 1000)
    assert "another SHA-256" in fault("hub:me/tiny")
    assert (fetched("hub:me/tiny")[0] / "model.safetensors").read_bytes() == WEIGHTS
    assert not part.exists()


def test_a_hash_that_is_none_leads_nowhere(server: hub.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = hub.described

    def forged(name: str, data: bytes) -> dict[str, Any]:
        found = honest(name, data)
        return found | ({"lfs": found["lfs"] | {"sha256": "../../evil/" + "0" * 64}} if "lfs" in found else {})

    monkeypatch.setattr(hub, "described", forged)
    assert "is not a hash" in fault("hub:me/tiny")
    assert not list(tmp_path.rglob("0" * 64 + "*"))


def test_shards_are_those_of_the_index(server: hub.Hub) -> None:
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    files = {
        "config.json": b"{}", "one.safetensors": b"1", "two.safetensors": b"2", "consolidated.safetensors": b"3",
        "model.safetensors.index.json": json.dumps(index).encode(),
    }  # fmt: skip
    server.add("me/shards", files)
    folder, said = fetched("hub:me/shards")
    assert hub.read(folder) == {name: data for name, data in files.items() if name != "consolidated.safetensors"}
    assert len(said) == 1


def test_a_network_comes_with_what_belongs_to_it(server: hub.Hub) -> None:
    path, _ = fetched("hub:me/tiny/onnx/model.onnx")
    assert path.read_bytes() == TINY["onnx/model.onnx"]
    folder = path.parent.parent
    assert set(hub.read(folder)) == {"LICENSE", "README.md", "onnx/model.onnx", "onnx/model.onnx_data"}
    assert names.title(path) == "model.onnx" and names.folder_of(path) == folder


def test_what_cannot_be_had_is_one_line(server: hub.Hub) -> None:
    server.add("me/secret", TINY, private=True)
    server.add("me/gated", TINY, gated=True)
    server.add("me/pickles", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    server.add("me/onnx", {"onnx/model.onnx": b"x"})
    for text, *parts in (
        ("hub:me/absent", "no such repository", "hf auth login"),
        ("hub:me/gated", "gated", "Ask for access"),
        ("hub:me/tiny@mian", "no revision 'mian'", "Did you mean main?"),
        ("hub:me/tiny@" + "0" * 40, "no revision"),
        ("hub:me/pickles", "no safetensors weights"),
        ("hub:me/onnx", "no config.json", "hub:me/onnx/onnx/model.onnx"),
        ("hub:me/tiny/onnx/model2.onnx", "there is no onnx/model2.onnx", "Did you mean onnx/model.onnx?"),
    ):
        found = fault(text)
        assert all(part in found for part in (text, *parts)), found
        assert "\n" not in found
    server.refuse = (500, "out of order")
    assert "answers 500" in fault("hub:me/tiny")


@pytest.mark.parametrize(
    "text",
    ["hub:", "hub:tiny", "hub:/tiny", "hub:me/", "hub:me/tiny@", "hub:me/tiny@a b", "hub:me/tiny@a@b",
     "hub:me/tiny/x.bin",
     "hub:../tiny", "hub:me/..", "hub:me/ti--ny", "hub:me/tiny?x", "hub:https://huggingface.co/me/tiny"],
)  # fmt: skip
def test_a_malformed_name_never_touches_the_network(text: str, server: hub.Hub) -> None:
    assert text in fault(text)
    assert not server.asked


def test_without_a_network_what_was_downloaded_earlier_serves(server: hub.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = fetched("hub:me/tiny")
    hub.use(hub.NOBODY, folder.parents[3], monkeypatch)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder.parents[2]))
    again, said = fetched("hub:me/tiny")
    assert again == folder and said == [f"{hub.NOBODY.url} is not reached: hub:me/tiny is what was downloaded earlier"]
    assert "is not reached" in fault("hub:me/other") and "Check the network" in fault("hub:me/other")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert fetched("hub:me/tiny")[0] == folder
    assert "HF_HUB_OFFLINE" in fault("hub:me/other")


def test_no_room_is_said_before_anything_is_fetched(server: hub.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type(shutil.disk_usage("/"))(10, 10, 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(ResourceError, match=r"needs 1\.0 MB, but only 1\.0 kB are free"):
        download("hub:me/tiny", lambda line: None)
    assert not any("resolve" in path for _, path, _ in server.asked)


def test_a_name_says_repository_file_and_revision() -> None:
    assert Name.parse("hub:me/tiny")[1:] == ("me/tiny", "", "main")
    assert Name.parse("hub:me/tiny@refs/pr/1")[1:] == ("me/tiny", "", "refs/pr/1")
