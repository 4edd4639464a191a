"""Slices of the vocabulary give the very figures that whole logits give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bitwright.errors import DataError
from bitwright.models.language import scores
from bitwright.models.language.compare import decoder_of, same_bytes
from tests import tiny


def hidden(seed: int, width: int = 64) -> torch.Tensor:
    return torch.randn(2, 40, width, generator=torch.Generator().manual_seed(seed))


def expected(a: torch.Tensor, b: torch.Tensor, ids: torch.Tensor) -> list[torch.Tensor]:
    """KL, agreement and losses by their formulas, in float64."""
    log_p, log_q = (torch.log_softmax(x.double(), -1) for x in (a, b))
    kl = (log_p.exp() * (log_p - log_q)).sum(-1).mean(-1)
    same = (log_p.argmax(-1) == log_q.argmax(-1)).double().mean(-1)
    return [kl, same, *(-x[:, :-1].gather(-1, ids[:, 1:, None])[..., 0].mean(-1) for x in (log_p, log_q))]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma", "gemma3", "phi", "opt", "gpt2", "mixtral"])
@pytest.mark.parametrize("words", [1024, 333, 50])
def test_any_slices_give_the_same(kind: str, words: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = decoder_of(tiny.make(kind, tmp_path / kind))
    assert decoder.separable and decoder.vocabulary == 1024
    p, q = hidden(1), hidden(1) + 0.1 * hidden(2)
    ids = torch.randint(1024, (2, 40), generator=torch.Generator().manual_seed(3))
    monkeypatch.setattr(scores, "POSITIONS", 30)
    monkeypatch.setattr(scores, "LOGITS", 30 * words)
    found = scores.score(decoder, decoder, p, q, ids)
    for value, right in zip(found, expected(decoder.logits(p), decoder.logits(q), ids), strict=True):
        torch.testing.assert_close(value, right, rtol=1e-5, atol=1e-6)
    assert scores.score(decoder, decoder, p, p, ids)[0].tolist() == [0, 0]


def test_logits_that_depend_on_one_another_are_never_sliced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = decoder_of(tiny.make("llama", tmp_path / "llama"))
    forward = decoder.model.forward

    def normalised(*args: Any, **kwargs: Any) -> Any:
        out = forward(*args, **kwargs)
        out.logits = out.logits - out.logits.mean(-1, keepdim=True)
        return out

    monkeypatch.setattr(decoder.model, "forward", normalised)
    assert not decoder.separable


def test_logits_that_are_not_finite_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = decoder_of(tiny.make("llama", tmp_path / "llama"))
    monkeypatch.setattr(scores, "LOGITS", 5000)
    with pytest.raises(DataError, match="not finite"):
        scores.score(decoder, decoder, hidden(1), hidden(1) * torch.nan, torch.zeros(2, 40, dtype=torch.int64))


def test_vocabularies_must_agree(tmp_path: Path) -> None:
    a, b = (decoder_of(tiny.make("llama", tmp_path / str(n), vocab_size=n)) for n in (1024, 1000))
    with pytest.raises(DataError, match="vocabularies differ: 1024 and 1000"):
        scores.score(a, b, hidden(1), hidden(1), torch.zeros(2, 40, dtype=torch.int64))


@pytest.mark.parametrize("tied", [True, False])
def test_what_two_folders_share_is_held_once(tied: bool, tmp_path: Path) -> None:
    folder = tiny.make("llama", tmp_path / "a", tie_word_embeddings=tied)
    p = decoder_of(folder)
    q = decoder_of(folder, like=p)
    for part in ("get_input_embeddings", "get_output_embeddings"):
        one, other = (getattr(d.model, part)().weight for d in (p, q))
        assert one.data_ptr() == other.data_ptr() and torch.equal(one, other)
    assert q.model.model.norm.weight.data_ptr() != p.model.model.norm.weight.data_ptr()


def test_what_differs_is_not_shared(tmp_path: Path) -> None:
    folder, other = (tiny.make("llama", tmp_path / name) for name in ("a", "b"))
    tensors = load_file(other / "model.safetensors")
    tensors["model.embed_tokens.weight"][1000] *= 2
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    p = decoder_of(folder)
    q = decoder_of(other, like=p)
    assert not same_bytes(p.arch.checkpoint, q.arch.checkpoint, "model.embed_tokens.weight")
    alone = decoder_of(other)
    assert torch.equal(q.model.get_input_embeddings().weight, alone.model.get_input_embeddings().weight)
    assert not torch.equal(alone.model.get_input_embeddings().weight, p.model.get_input_embeddings().weight)
