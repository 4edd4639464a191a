"""The metadata that holds a tokenizer: its tokens and merges, what is put before a text, and the chat template.

Keys: `tokenizer.*` of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; which tokens count as what:
llama.cpp, `conversion/base.py` (`get_vocab_base`, `_create_vocab_sentencepiece`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gguf import MODEL_ARCH, GGUFWriter, Keys, SpecialVocab, TokenType
from tokenizers import Tokenizer

from bitwright.errors import ModelError
from bitwright.files.containers.gguf import sentencepiece, splitting
from bitwright.files.containers.gguf.families import Config, family_of
from bitwright.files.containers.gguf.header import Facts
from bitwright.files.plain import parse, read_text, why

JSON, PIECES, SETTINGS, ADDED = "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "added_tokens.json"
SPACE = "▁"
"""What stands for a space in vocabularies of pieces."""
BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
SPECIAL = -1000.0
"""The score of tokens that are not merged."""
LOOKS_SPECIAL = re.compile(r"<pad>|<mask>|<2mass>|\[@BOS@\]|<\|.*\|>|<｜.*｜>|<unused.*>", re.DOTALL)
"""Added tokens that control a model although its tokenizer does not mark them. Source: `does_token_look_special`."""


@dataclass
class Vocabulary:
    """All tokens by id: text, kind, and score where a model of pieces has them."""

    texts: list[str]
    kinds: list[int]
    scores: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, size: int) -> Vocabulary:
        """One without any tokens."""
        texts = [f"[PAD{i}]" for i in range(size)]
        return cls(texts, [int(TokenType.UNUSED)] * size, [10 * SPECIAL] * size)

    def put(self, number: int, text: str, kind: int, score: float = SPECIAL) -> None:
        """Set one token; one that the model has no row for is left out."""
        if 0 <= number < len(self.texts):
            self.texts[number], self.kinds[number], self.scores[number] = text, int(kind), score

    def add(self, number: int, text: str, special: bool) -> None:
        """Set an added token, with real spaces unless it controls the model."""
        if special or LOOKS_SPECIAL.fullmatch(text):
            self.put(number, text, TokenType.CONTROL)
        else:
            self.put(number, text.replace(SPACE, " "), TokenType.USER_DEFINED)


def facts(folder: Path, config: Config, pre: str | None = None) -> Facts:
    """The metadata of the tokenizer in `folder`; `pre` is llama.cpp's name of how it splits text, where it is said.

    ModelError where there is no tokenizer, or one that runtimes of GGUF files would not follow.
    """
    family = family_of(config)
    writer = GGUFWriter(None, family.name)
    settings, definition = _read(folder / SETTINGS), _without_tokens(_read(folder / JSON))
    tokenizer = _load(folder / JSON, definition) if definition else None
    ids = tokenizer.encode("a").ids if tokenizer else None
    merges = False
    if (folder / PIECES).is_file():
        _add_pieces(writer, *_from_model(folder, settings, int(config["vocab_size"])))
    elif tokenizer is None:
        raise ModelError(
            f"neither {JSON} nor {PIECES}",
            where=str(folder),
            fix="Download the tokenizer too: a GGUF file holds it",
        )
    elif pre or not _has_pieces(definition) or splitting.digest(tokenizer) in splitting.HASHES:
        merges = True
        name = splitting.name_of(tokenizer, definition, str(folder / JSON), pre)
        _add_merging(writer, _from_json(folder, tokenizer, config), name)
    else:
        _add_pieces(writer, *_from_merges(folder, config))
    del tokenizer  # before the package reads it all again: a large one takes hundreds of MiB
    if family.arch is MODEL_ARCH.LLAMA and isinstance(prefix := settings.get("add_prefix_space"), bool):
        writer.add_add_space_prefix(prefix)
    with _quiet(), _reading(folder):
        SpecialVocab(folder, load_merges=merges, n_vocab=int(config["vocab_size"])).add_to_gguf(writer, quiet=True)
    found: Facts = writer.kv_data[0]
    if ids is not None:
        _add_ends(writer, ids, definition)
    del found[Keys.General.ARCHITECTURE]
    return found


def _add_ends(writer: GGUFWriter, ids: list[int], definition: dict[str, Any]) -> None:
    """Say whether a text begins and ends with tokens of their own, as in `ids`, which the tokenizer gave for one.

    Where nothing is said, each runtime has a rule for each kind of tokenizer, which need not be this one's.
    """
    found = writer.kv_data[0]
    if Keys.Tokenizer.ADD_BOS not in found and Keys.Tokenizer.BOS_ID in found:
        writer.add_add_bos_token(ids[:1] == [found[Keys.Tokenizer.BOS_ID].value])
    processor = definition.get("post_processor") or {}
    named = {step.get("type") for step in processor.get("processors", [processor])}
    if Keys.Tokenizer.ADD_EOS not in found and Keys.Tokenizer.EOS_ID in found and "ByteLevel" in named:
        writer.add_add_eos_token(ids[-1:] == [found[Keys.Tokenizer.EOS_ID].value])


@contextmanager
def _quiet() -> Iterator[None]:
    """The package warns of what it finds in templates, to whoever reads the log: nobody here can act on it."""
    logger = logging.getLogger("gguf.vocab")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """What goes wrong inside is a fault of the tokenizer's settings."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelError(
            f"{SETTINGS}, {ADDED}, config.json or a chat template is not what these files hold "
            f"({type(error).__name__}: {error})",
            where=str(folder),
            fix="Download them again",
        ) from error


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no file. ModelError where it is none."""
    if not path.is_file():
        return {}
    try:
        found = parse(read_text(path))
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot be read ({why(error)})", where=str(path), fix="Download it again") from error
    if not isinstance(found, dict):
        raise ModelError("no JSON object", where=str(path), fix="Download it again")
    return found


def _without_tokens(definition: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer's JSON without what makes it large."""
    model = definition.get("model")
    if not isinstance(model, dict):
        return definition
    return {**definition, "model": {key: value for key, value in model.items() if key not in ("vocab", "merges")}}


def _load(path: Path, definition: dict[str, Any]) -> Tokenizer:
    """The tokenizer that runs. ModelError where it does not merge pairs."""
    model = definition.get("model")
    kind = model.get("type", "BPE") if isinstance(model, dict) else "BPE"
    if kind != "BPE":
        raise ModelError(
            f"its tokens are found by {kind}: GGUF files are written for tokenizers that merge pairs (BPE)",
            where=str(path),
            fix="Choose another output",
        )
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more special
        raise ModelError(f"no tokenizer ({error})", where=str(path), fix="Download it again") from error


def _has_pieces(definition: dict[str, Any]) -> bool:
    """Whether a tokenizer merges pieces of text, unknown characters as bytes, rather than bytes."""
    return bool(definition["model"].get("byte_fallback"))


def _add_merging(writer: GGUFWriter, found: Vocabulary, pre: str) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(found.texts)
    writer.add_token_types(found.kinds)


def _add_pieces(writer: GGUFWriter, found: Vocabulary, prefix: bool) -> None:
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(found.texts)
    writer.add_token_scores(found.scores)
    writer.add_token_types(found.kinds)
    if not prefix:
        writer.add_add_space_prefix(False)


def _require_rows(highest: int, config: Config, path: Path) -> None:
    if highest >= int(config["vocab_size"]):
        raise ModelError(
            f"its tokens go up to {highest}, the model has {config['vocab_size']} rows for them",
            where=str(path),
            fix="Use the tokenizer that belongs to these weights",
        )


def _from_json(folder: Path, tokenizer: Tokenizer, config: Config) -> Vocabulary:
    """The tokens of a byte-level tokenizer."""
    base, added = tokenizer.get_vocab(with_added_tokens=False), tokenizer.get_added_tokens_decoder()
    _require_rows(max(base.values(), default=0), config, folder / JSON)
    found = Vocabulary.of(int(config["vocab_size"]))
    for text, number in base.items():
        found.put(number, text, TokenType.NORMAL)
    for number, token in added.items():
        text = token.content
        if not token.normalized:  # runtimes look for it in the text as it is
            text = tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids, skip_special_tokens=False)
        found.add(number, text, token.special)
    return found


def _from_merges(folder: Path, config: Config) -> tuple[Vocabulary, bool]:
    """The tokens of a vocabulary of pieces, which runtimes merge by score: the earlier its merge, the higher.

    ModelError where the merges are not those of such a vocabulary: runtimes merge any two whose whole is a token.
    """
    path = folder / JSON
    definition = _read(path)
    vocab = definition["model"]["vocab"]
    _require_rows(max(vocab.values(), default=0), config, path)
    pairs = [
        tuple(pair.split(" ", 1)) if isinstance(pair, str) else tuple(pair) for pair in definition["model"]["merges"]
    ]
    order = list(dict.fromkeys("".join(pair) for pair in pairs))
    _require_whole(path, vocab, set(pairs), order)
    ranks = {text: rank for rank, text in enumerate(order)}
    added = {token["id"]: token for token in definition.get("added_tokens", [])}
    found, unmerged = Vocabulary.of(int(config["vocab_size"])), len(ranks)
    for text, number in sorted(vocab.items(), key=lambda entry: entry[1]):
        if number in added:
            continue
        if BYTE.fullmatch(text):
            found.put(number, text, TokenType.BYTE, 0.0)
            continue
        rank = ranks.get(text)
        if rank is None:
            rank, unmerged = unmerged, unmerged + 1
        found.put(number, text, TokenType.NORMAL, -float(rank))
    for number, token in added.items():
        found.add(number, token["content"], token["special"])
    return found, _prefixes(definition)


def _require_whole(path: Path, vocab: dict[str, int], pairs: set[tuple[str, ...]], order: list[str]) -> None:
    for text in order:
        for cut in range(1, len(text)):
            if text[:cut] in vocab and text[cut:] in vocab and (text[:cut], text[cut:]) not in pairs:
                raise ModelError(
                    f"it never merges {text[:cut]!r} and {text[cut:]!r} to {text!r}, which GGUF runtimes would",
                    where=str(path),
                    fix=f"Give the {PIECES} it was made of, or choose another output",
                )


def _prefixes(definition: dict[str, Any]) -> bool:
    """Whether a space is put before a text."""
    normalizer, splitter = definition.get("normalizer") or {}, definition.get("pre_tokenizer") or {}
    steps = normalizer.get("normalizers", [normalizer])
    return any(step.get("type") == "Prepend" for step in steps) or (
        splitter.get("type") == "Metaspace" and splitter.get("prepend_scheme", "always") != "never"
    )


def _from_model(folder: Path, settings: dict[str, Any], size: int) -> tuple[Vocabulary, bool]:
    """The tokens of `tokenizer.model`, and those that were added to it beside it."""
    given = sentencepiece.vocabulary(folder / PIECES)
    found = Vocabulary.of(size)
    for number, (text, score, kind) in enumerate(given.pieces):
        # Pieces that its author defined are merged like others, unless they are among the added tokens.
        found.put(number, text, TokenType.NORMAL if kind == TokenType.USER_DEFINED else kind, score)
    with _reading(folder):
        for text, number in _read(folder / ADDED).items():
            found.put(int(number), text, TokenType.USER_DEFINED)
        for number, token in settings.get("added_tokens_decoder", {}).items():
            found.add(int(number), token["content"], bool(token.get("special")))
    return found, given.prefix
