"""Float and quantized model side by side: the same prompt, the same noise, so that a difference is the model's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bitwright.errors import InputError, ResourceError
from bitwright.libraries import load


class Pair(NamedTuple):
    """What is kept in memory of the last two models asked."""

    key: tuple[Any, ...]
    tokenizer: Any
    models: dict[str, Any]


_kept: list[Pair] = []


def generate(
    model: str, out: str, prompt: str, tokens: int = 60, temperature: float = 0.0, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """Yields {"side", "token", "index", "same"} for each token of each side, then {"event": "done", ...}.

    Tokens are drawn by the Gumbel trick: argmax(logits / temperature + noise), with noise that depends on `seed` and
    the position alone; at temperature 0 the likeliest token is taken. A side ends early at its end-of-text token.
    """
    pair = _open(Path(model), Path(out))
    ids = _encode(pair.tokenizer, prompt, Path(model))
    config = pair.models["float"].config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None)
    if limit is not None and ids.shape[1] + tokens > limit:
        raise InputError(
            f"{ids.shape[1]} tokens and {tokens} more, the model was made for {limit}", where="prompt",
            fix="Shorten the prompt, or ask for fewer tokens",
        )  # fmt: skip
    stops = _stops(pair)
    sides = {side: Side(found, ids) for side, found in pair.models.items()}
    texts = {side: Words(pair.tokenizer) for side in sides}
    first: int | None = None
    for index in range(tokens):
        noise = _noise(seed, index, pair) if temperature > 0 else None
        drawn = {side: state.draw(noise, temperature) for side, state in sides.items() if not state.ended}
        same = len(set(drawn.values())) == 1 and len(drawn) == len(sides)
        if not same and first is None:
            first = index
        for side, token in drawn.items():
            sides[side].ended = token in stops
            word = "" if token in stops else texts[side].add(token)
            yield {
                "event": "token", "side": side, "token": word, "index": index, "same": same and first is None,
                "end": token in stops,
            }  # fmt: skip
        if all(state.ended for state in sides.values()):
            break
    seconds = {side: round(state.seconds, 4) for side, state in sides.items()}
    yield {"event": "done", "first_difference": first, "seconds": seconds}


class Side:
    """One model's text so far: its cache, and the logits of the next token."""

    def __init__(self, model: Any, ids: torch.Tensor) -> None:
        self.model, self.ids = model, ids
        self.cache: Any = None
        self.seconds = 0.0
        self.ended = False

    @torch.no_grad()
    def draw(self, noise: torch.Tensor | None, temperature: float) -> int:
        """The next token."""
        started = time.perf_counter()
        said = self.model(input_ids=self.ids, past_key_values=self.cache, use_cache=True)
        self.cache = said.past_key_values
        logits = said.logits[0, -1].float()
        if noise is not None:
            logits = logits / temperature + noise[: len(logits)]
        token = int(logits.argmax())
        self.ids = torch.tensor([[token]])
        self.seconds += time.perf_counter() - started
        return token


class Words:
    """Tokens to text, piece by piece: half a character waits for its other half."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.ids: list[int] = []
        self.told = ""

    def add(self, token: int) -> str:
        """What `token` adds to the text."""
        self.ids.append(token)
        text = self.tokenizer.decode(self.ids, skip_special_tokens=True).rstrip("\ufffd")
        new, self.told = text[len(self.told) :], text if len(text) > len(self.told) else self.told
        return str(new)


def _noise(seed: int, index: int, pair: Pair) -> torch.Tensor:
    """Gumbel noise of one position, the same for every side."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + index) % 2**63)
    size = max(model.get_output_embeddings().weight.shape[0] for model in pair.models.values())
    uniform = torch.rand(size, generator=generator).clamp(1e-12, 1 - 1e-7)
    return -torch.log(-torch.log(uniform))


def _encode(tokenizer: Any, prompt: str, source: Path) -> torch.Tensor:
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"] if prompt else torch.empty(1, 0, dtype=torch.int64)
    if ids.shape[1] == 0:
        begin = tokenizer.bos_token_id
        if begin is None:
            raise InputError("is empty", where="prompt", fix="Write a few words for the models to go on from")
        ids = torch.tensor([[begin]])
    return ids.long()  # type: ignore[no-any-return]


def _stops(pair: Pair) -> set[int]:
    """Tokens that end a text."""
    found = pair.models["float"].generation_config.eos_token_id
    listed = found if isinstance(found, list) else [found]
    return {int(token) for token in (*listed, pair.tokenizer.eos_token_id) if token is not None}


def _open(source: Path, out: Path) -> Pair:
    """Both models in float32 and their tokenizer; the last pair stays in memory."""
    load()
    key = (source, out, *(path.stat().st_mtime_ns for path in sorted(source.glob("*.safetensors"))))
    if _kept and _kept[0].key == key:
        return _kept[0]
    _kept.clear()
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig

    from bitwright import machine
    from bitwright.files.folder import open_checkpoint, read_config
    from bitwright.models.language.text import load_tokenizer

    tokenizer = load_tokenizer(source)
    needed = 2 * 4 * sum(entry.count for entry in open_checkpoint(source).tensors.values())
    free = machine.default_ceiling()
    if needed > free:
        raise ResourceError(
            f"two models of this size need {needed / 1e9:,.1f} GB of memory, {free / 1e9:,.1f} GB are free",
            where=source.name,
            fix="Close other programs; the verdict compares both block by block in less memory",
        )
    options: dict[str, Any] = {"dtype": torch.float32, "local_files_only": True, "trust_remote_code": False}
    plain = AutoModelForCausalLM.from_pretrained(source, **options).eval()
    groups = read_config(out).get("quantization_config", {}).get("config_groups", {})
    if groups and not any(group.get("input_activations") for group in groups.values()):
        options["quantization_config"] = CompressedTensorsConfig(dequantize=True)  # decoded once instead of each token
    small = AutoModelForCausalLM.from_pretrained(out, **options).eval().float()
    pair = Pair(key, tokenizer, {"float": plain, "quantized": small})
    _kept.append(pair)
    return pair
