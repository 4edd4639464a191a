"""What a language model does when it is run: it reads a prompt and goes on, always by the likeliest token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from bitwright.errors import DataError, RecipeError
from bitwright.files import gguf
from bitwright.files.containers.gguf.families import FAMILIES
from bitwright.files.folder import container_of, open_checkpoint, read_config
from bitwright.models.language.arch import Architecture, load_config
from bitwright.models.language.runtimes import runtime_for
from bitwright.models.language.text import load_tokenizer, require_fit
from bitwright.models.running import Asked, Task, Turn
from bitwright.words import plural

PROMPT = (
    "Long before there were machines that compute, people counted on their fingers, with pebbles in a bag and with "
    "beads on a wire. Each of these"
)
"""What is gone on from where the user gives nothing."""
TOKENS = 32
"""Tokens that are generated in each turn, unless the user says how many."""
SHORT = 16
"""Tokens of a prompt below which its speed says little."""


def task_of(path: Path, asked: Asked) -> Task:
    """The task of the model at `path`.

    Raises what opening the model raises; DataError for a prompt without tokens, or that does not fit the model;
    RecipeError for a number of tokens that cannot be generated.
    """
    if asked.samples is not None:
        what = "language models go on from a text"
        raise RecipeError(what, where="--samples", fix="Give --prompt TEXT instead")
    if gguf.is_gguf(path):
        gguf.read(path)
    else:
        open_checkpoint(path)
    runtime, config = runtime_for(path), load_config(path).get_text_config()
    memory = 4 * Architecture.open(path).weights if runtime.decodes else 0
    tokenizer = load_tokenizer(path)
    prompt = PROMPT if asked.prompt is None else asked.prompt
    ids = [int(token) for token in tokenizer(prompt)["input_ids"]]
    if not tokenizer(prompt, add_special_tokens=False)["input_ids"]:
        raise DataError("0 tokens to go on from", where="--prompt", fix="Write a few words")
    tokens = TOKENS if asked.tokens is None else asked.tokens
    _require_tokens(len(ids), tokens, getattr(config, "max_position_embeddings", None), path)
    require_fit(path, torch.tensor([ids]))
    notes = []
    if len(ids) < SHORT:
        notes.append(f"a prompt of {plural(len(ids), 'token')} says little on how fast prompts are read")
    if not runtime.writes:
        notes.append(f"{path.name}: the runtime measures speed alone, no text is generated")
    if runtime.decodes and container_of(read_config(path)) is not None:
        notes.append(f"{path.name}: transformers computes with its weights decoded to float32, which is not faster")
    family = FAMILIES.get(config.model_type)  # GGUF has one name for several architectures of transformers
    alike = {"architecture": config.model_type if family is None else family.name}
    alike |= {name: getattr(config, key, None) for key, name in SIZES.items()}
    return Task(
        path,
        {"ids": ids, "tokens": tokens, "threads": asked.threads},
        {**alike, "tokens of the prompt": ids},
        memory,
        tuple(notes),
        _reader(tokenizer, _stops(path, config, tokenizer)),
    )


SIZES = {
    "num_hidden_layers": "decoder blocks", "hidden_size": "width", "num_attention_heads": "heads",
    "intermediate_size": "width of its feed-forward layers", "num_local_experts": "experts",
    "vocab_size": "tokens in the vocabulary",
}  # fmt: skip
"""What two models of one architecture have in common, by its name in their config."""


def _require_tokens(prompt: int, tokens: int, most: int | None, path: Path) -> None:
    """Raise RecipeError where so many tokens cannot follow the prompt."""
    if tokens < 2:
        what = f"{tokens} is too few: speed is measured from the first token to the last"
        raise RecipeError(what, where="--tokens", fix="Choose 2 or more")
    room = (most or MOST) - prompt
    if tokens > room:
        limit = f"{path} was made for {most}" if most else f"{MOST:,} are the most that are run"
        fix = f"Choose at most {room}" if room >= 2 else "Shorten the prompt"
        raise RecipeError(f"{prompt} tokens of the prompt and {tokens:,} more; {limit}", where="--tokens", fix=fix)


MOST = 1 << 17
"""Tokens that are run at most where a model names no limit."""


def _stops(path: Path, config: Any, tokenizer: Any) -> set[int]:
    """Tokens that end a text."""
    found = config.eos_token_id
    if (path / "generation_config.json").is_file():
        from transformers import GenerationConfig

        found = GenerationConfig.from_pretrained(path, local_files_only=True).eos_token_id or found
    listed = found if isinstance(found, list) else [found]
    return {int(token) for token in (*listed, tokenizer.eos_token_id) if token is not None}


def _reader(tokenizer: Any, stops: set[int]) -> Callable[[Turn], str | None]:
    """Reads the text of a turn, up to the token that ends it."""

    def told(turn: Turn) -> str | None:
        ids: Sequence[int] | None = turn.get("ids")
        if ids is None:
            return None
        end = next((i for i, token in enumerate(ids) if token in stops), len(ids))
        return str(tokenizer.decode(ids[:end], skip_special_tokens=True))

    return told
