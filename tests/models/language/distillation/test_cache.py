"""The teacher's cache: what it holds, that it goes on to the same bytes, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.core import distillation
from bitwright.core.measure import kl
from bitwright.errors import FileError, RecipeError
from bitwright.models.language.compare import decoder_of
from bitwright.models.language.distillation import cache, teacher
from bitwright.models.language.distillation.cache import Cache, Drawn, Header, fill
from bitwright.models.language.evaluate import hidden_states
from bitwright.models.language.text import load_tokenizer
from tests.tiny import make

WINDOWS = 70
"""Two pieces and a part of one."""


def header(**changes: object) -> Header:
    base = Header("drawn", "tiny", "a" * 64, "b" * 64, "c" * 64, WINDOWS, 8, 300, 5, 2.0, 7)
    return replace(base, **changes)  # type: ignore[arg-type]


def records(about: Header) -> Callable[[range], bytes]:
    def answer(windows: range) -> bytes:
        return b"".join(np.random.default_rng(i).bytes(about.record) for i in windows)

    return answer


def test_numbers_come_back(tmp_path: Path) -> None:
    for words, wide in ((300, 2), (1 << 16, 2), (262_144, 3)):
        about, rng = header(words=words), np.random.default_rng(0)
        assert about.layout["words"].shape[-1] == wide
        chosen = rng.integers(0, words, (WINDOWS, 8, 5))
        units, entropy = rng.integers(0, 65536, (WINDOWS, 8, 5)), rng.random(WINDOWS).astype(np.float32)
        path = tmp_path / str(words)

        def answer(n: range) -> bytes:
            part = slice(n.start, n.stop)
            return cache.pack_drawn(about, chosen[part], units[part], entropy[part])  # noqa: B023

        assert [*fill(path, about, answer)] == [0, 32, 64, 70]
        assert path.stat().st_size == about.total
        some = [69, 0, 33]
        found = Cache(path).drawn(some)
        assert np.array_equal(found.words, chosen[some]) and np.array_equal(found.entropy, entropy[some])
        assert np.allclose(found.shares, units[some] / 65535, rtol=1e-6, atol=0)


def test_it_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    about = header()
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert [*fill(whole, about, records(about))] == [0, 32, 64, 70]
    wanted = whole.read_bytes()
    cuts = [0, 100, cache.HEADER, cache.HEADER + 1, cache.HEADER + 32 * about.record + 3, len(wanted) - 1, len(wanted)]
    for cut, known in zip(cuts, [0, 0, 0, 0, 0, 64, 70], strict=True):
        stopped.write_bytes(wanted[:cut])
        assert next(iter(fill(stopped, about, records(about)))) == known
        [*fill(stopped, about, records(about))]
        assert stopped.read_bytes() == wanted


def test_a_damaged_piece_is_made_again(tmp_path: Path) -> None:
    about, path = header(), tmp_path / "cache"
    [*fill(path, about, records(about))]
    wanted = path.read_bytes()
    damaged = bytearray(wanted)
    damaged[cache.HEADER + 40 * about.record] ^= 1
    path.write_bytes(damaged)
    assert [*fill(path, about, records(about))] == [32, 64, 70]
    assert path.read_bytes() == wanted


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"teacher": "other", "teacher_hash": "d" * 64},
            "another teacher says: tiny (aaaaaaaaaaaa), not other (dddddddddddd)",
        ),
        ({"tokenizer": "d" * 64}, "another tokenizer"),
        ({"text": "d" * 64}, "about other text: 70 windows of 8 tokens"),
        ({"length": 9}, "not 70 of 9"),
        ({"seed": 8}, "was made with seed 7, not 8"),
        ({"temperature": 1.0}, "was made with temperature 2.0, not 1.0"),
    ],
)
def test_another_cache_is_refused(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    about, path = header(), tmp_path / "cache"
    [*fill(path, about, records(about))]
    kept, wanted = path.read_bytes(), replace(about, **changes)  # type: ignore[arg-type]
    with pytest.raises(RecipeError) as caught:
        next(iter(fill(path, wanted, records(wanted))))
    assert said in str(caught.value) and str(path) in str(caught.value)
    assert path.read_bytes() == kept


def test_one_process_writes_it(tmp_path: Path) -> None:
    """Whoever comes second is told, and the file is as the first one leaves it."""
    about, path = header(), tmp_path / "cache"
    first = fill(path, about, records(about))
    assert [next(first), next(first)] == [0, 32]
    second = fill(path, about, records(about))
    assert next(second) == 32
    with pytest.raises(RecipeError, match="another process is writing it"):
        next(second)
    assert [*first] == [64, 70]
    wanted = path.read_bytes()
    path.write_bytes(wanted + b"more")
    assert [*fill(path, about, records(about))] == [70]
    assert path.read_bytes() == wanted


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    for data in (b"x" * 5000, b"[]".ljust(5000), header().encode().replace(b'"version": 1', b'"version": 9')):
        path.write_bytes(data)
        with pytest.raises(FileError, match="cache"):
            cache.read_header(path)
    path.write_bytes(header().encode())
    with pytest.raises(FileError, match="all its windows take"):
        Cache(path)


def test_what_a_teacher_says(tmp_path: Path) -> None:
    """Drawn words are those of its own distribution; exact hidden states give its logits; stops change nothing."""
    folder = make("llama", tmp_path / "model")
    decoder, windows = decoder_of(folder), torch.randint(0, 1024, (40, 16), generator=torch.Generator().manual_seed(1))
    found = teacher.Teacher.of(decoder, load_tokenizer(folder))
    made: dict[str, Cache] = {}
    for about in (found.drawn(windows, 1.0, 5), found.exact(windows)):
        path = tmp_path / about.kind
        made[about.kind] = run(found, about, windows, path)
        wanted = path.read_bytes()
        path.write_bytes(wanted[: len(wanted) // 2])
        run(found, about, windows, path)
        assert path.read_bytes() == wanted
    assert made["drawn"].header.record / 16 < 64
    states = finish(hidden_states(decoder, windows[:32], batch=32, budget=1 << 30, folder=None))
    exact = torch.from_numpy(made["exact"].hidden([*range(32)]))
    assert torch.allclose(exact, states[0], atol=1e-4)
    logits = decoder.logits(exact).double()
    drawn: Drawn = made["drawn"].drawn([*range(32)])
    assert np.allclose(drawn.entropy, distillation.entropy(logits).mean(-1), rtol=1e-4)
    rows = torch.arange(32)[:, None, None], torch.arange(16)[None, :, None], torch.from_numpy(drawn.words)
    p = logits.softmax(-1)[rows].numpy()
    assert (drawn.shares >= p - 2e-5).all() and np.allclose(drawn.shares.sum(-1), 1, atol=1e-4)
    other = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
    estimate = distillation.cross_entropy(rows[2], torch.from_numpy(drawn.shares), other) - distillation.entropy(logits)
    full = kl(logits, other)
    error = float((estimate - full).std() / 512**0.5)
    assert abs(float(estimate.mean() - full.mean())) < 5 * error < 0.1 * float(full.mean())


def run(found: teacher.Teacher, about: Header, windows: torch.Tensor, path: Path) -> Cache:
    return finish(teacher.make(found, about, windows, path, budget=1 << 28, spill=None, phase="teach"))  # type: ignore[no-any-return]


def finish(steps):  # type: ignore[no-untyped-def]
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_a_tokenizer_is_known_by_its_words(tmp_path: Path) -> None:
    one = load_tokenizer(make("llama", tmp_path / "one"))
    other = load_tokenizer(make("qwen2", tmp_path / "other"))
    assert teacher.words_hash(one) == teacher.words_hash(other)
    one.add_tokens(["<a word more>"])
    assert teacher.words_hash(one) != teacher.words_hash(other)
