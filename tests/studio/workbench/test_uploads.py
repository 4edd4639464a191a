"""What is dropped on check: nothing outside its folder, nothing beyond its limits, nothing left after an error."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from bitwright.errors import InputError, ResourceError
from bitwright.studio.shell.faults import NoSpace, TooLarge, Unknown
from bitwright.studio.workbench.uploads import FILES, Uploads, inside


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path / "uploads", 10_000)


async def body(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def test_files_arrive_whole_and_may_be_sent_again(uploads: Uploads) -> None:
    id = uploads.create()
    assert await uploads.put(id, "model/config.json", body(b"{", b"", b"}")) == 2
    assert await uploads.put(id, "model/deep/er/weights.bin", body(b"x" * 9000), 9000) == 9000
    assert await uploads.put(id, "model/deep/er/weights.bin", body(b"y" * 9000), 9000) == 9000
    assert (uploads.root(id) / "model/deep/er/weights.bin").read_bytes() == b"y" * 9000
    assert everything(uploads.folder / id) == ["files/model/config.json", "files/model/deep/er/weights.bin"]
    uploads.remove(id)
    with pytest.raises(Unknown):
        uploads.root(id)


@pytest.mark.parametrize(
    "place",
    [
        "", "/", "/etc/passwd", "..", "../x", "a/../../x", "a/..", "a//b", ".", "a/./b", "a/", "a\0b", "a\nb", "..\\x",
        "c:\\x", "a\\..\\b", "a/b/c/d/e", "x" * 300, "a/" + "ü" * 150, "a\x7f", "con.", "space ", "\udcff",
    ],
)  # fmt: skip
async def test_names_that_lead_elsewhere(place: str, uploads: Uploads) -> None:
    with pytest.raises(InputError):
        inside(place)
    id = uploads.create()
    with pytest.raises(InputError):
        await uploads.put(id, place, body(b"bad"))
    assert everything(uploads.folder) == []


@pytest.mark.parametrize("name", ["", "..", "../runs", "0" * 15, "0" * 16, "0" * 17, "A" * 16, "0" * 15 + "/"])
async def test_ids_that_are_none(name: str, uploads: Uploads) -> None:
    (uploads.folder / "files").mkdir(parents=True)
    with pytest.raises(Unknown):
        uploads.root(name)
    with pytest.raises(Unknown):
        await uploads.put(name, "a", body(b""))


async def test_too_many_bytes(uploads: Uploads) -> None:
    id = uploads.create()
    await uploads.put(id, "a", body(b"x" * 6000))
    with pytest.raises(TooLarge, match=r"larger than .* in all"):
        await uploads.put(id, "b", body(b"x" * 3000, b"x" * 3000))
    with pytest.raises(TooLarge):
        await uploads.put(id, "b", body(b""), length=4001)
    assert everything(uploads.folder / id) == ["files/a"]
    await uploads.put(id, "a", body(b"x" * 10_000))  # takes its own place
    other = uploads.create()
    await uploads.put(other, "a", body(b"x" * 10_000))


async def test_too_many_bytes_at_once(uploads: Uploads) -> None:
    """Files that come side by side are counted together, also before they are written."""
    id = uploads.create()
    gate = asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"x" * 6000
        await gate.wait()

    first = asyncio.create_task(uploads.put(id, "a", slowly()))
    await asyncio.sleep(0.1)
    with pytest.raises(TooLarge):
        await uploads.put(id, "b", body(b"x" * 6000))
    gate.set()
    assert await first == 6000


async def test_too_many_files(uploads: Uploads) -> None:
    id = uploads.create()
    for i in range(FILES):
        (uploads.root(id) / str(i)).touch()
    with pytest.raises(TooLarge, match="more than 500 files"):
        await uploads.put(id, "more", body(b""))
    await uploads.put(id, "7", body(b"again"))


async def test_a_sender_that_goes_away(uploads: Uploads) -> None:
    id = uploads.create()

    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 100
        raise ConnectionAbortedError("gone")

    with pytest.raises(ResourceError):
        await uploads.put(id, "a", broken())
    with pytest.raises(InputError, match="3 of 5 bytes came"):
        await uploads.put(id, "a", body(b"abc"), length=5)
    waiting = asyncio.create_task(uploads.put(id, "a", never()))
    await asyncio.sleep(0.1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert everything(uploads.folder) == []


async def never() -> AsyncIterator[bytes]:
    yield b"x"
    await asyncio.Event().wait()


async def test_a_file_and_a_folder_of_one_name(uploads: Uploads) -> None:
    id = uploads.create()
    await uploads.put(id, "a", body(b"file"))
    with pytest.raises(InputError, match="one name"):
        await uploads.put(id, "a/b", body(b"x"))
    await uploads.put(id, "c/d", body(b"x"))
    with pytest.raises(InputError, match="one name"):
        await uploads.put(id, "c", body(b"x"))
    assert everything(uploads.folder / id) == ["files/a", "files/c/d"]


async def test_old_uploads_are_swept(uploads: Uploads) -> None:
    old, new = uploads.create(), uploads.create()
    await uploads.put(old, "a", body(b"x"))
    long_ago = time.time() - 2 * 86400
    os.utime(uploads.folder / old, (long_ago, long_ago))
    uploads.sweep()
    assert [path.name for path in uploads.folder.iterdir()] == [new]
    Uploads(uploads.folder / "not there", 1).sweep()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=False)


async def test_a_full_disk(disk: Path) -> None:
    uploads = Uploads(disk / "uploads", 10**9)
    id = uploads.create()
    with pytest.raises(NoSpace, match=r"disk is full.*nothing of this file was kept"):
        await uploads.put(id, "a", body(*[b"x" * 100_000] * 30))
    assert everything(disk) == []
    with pytest.raises(NoSpace, match=r"50 MB are on their way, 1 MB are free"):
        await uploads.put(id, "a", body(b""), length=50_000_000)
    assert await uploads.put(id, "a", body(b"x" * 500_000)) == 500_000
