"""Tokenizers as metadata: what is known by hash, by definition and by its pieces, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bitwright.errors import BitwrightError, FileError, ModelError
from bitwright.files.containers.gguf import splitting, tokenizer
from tests.files.containers.gguf.models import bytes_tokenizer, pieces_model
from tests.networks import shared

CONFIG: dict[str, Any] = {"model_type": "llama", "vocab_size": 290}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def split(expression: str) -> dict[str, Any]:
    """A splitting by an expression before bytes are merged."""
    first = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [first, BYTE_LEVEL]}


def values(folder: Path, config: Any = CONFIG, pre: str | None = None) -> dict[str, Any]:
    found = tokenizer.facts(folder, config, pre)
    return {key.removeprefix("tokenizer.ggml."): fact.value for key, fact in found.items()}


def written(folder: Path, change: Callable[[dict[str, Any]], Any] = lambda definition: None) -> Path:
    """A folder with a tokenizer of bytes, changed."""
    definition = bytes_tokenizer()
    change(definition)
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    return folder


def pieces(merges: list[list[str]], more: list[str], normalizer: Any = None) -> dict[str, Any]:
    """A tokenizer that merges pieces, as tokenizers without `tokenizer.model` are stored."""
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *more, *("".join(m) for m in merges)]
    definition = bytes_tokenizer()
    model = {"byte_fallback": True, "unk_token": "<unk>", "merges": merges}
    definition["model"] |= model | {"vocab": {text: number for number, text in enumerate(texts)}}
    return definition | {"pre_tokenizer": None, "decoder": None, "normalizer": normalizer}


def test_docs18m_splits_text_like_gpt_2() -> None:
    folder = shared("models", "docs18m")
    if folder is None:
        pytest.skip("needs ../shared/models/docs18m")
    found = values(folder, {"model_type": "llama", "vocab_size": 8192})
    assert (found["model"], found["pre"], len(found["tokens"])) == ("gpt2", "gpt-2", 8192)
    assert (found["bos_token_id"], found["eos_token_id"], found["add_bos_token"]) == (0, 0, False)
    assert found["tokens"][0] == "<|endoftext|>"
    assert found["token_type"][:2] == [3, 1]
    assert found["merges"][0] == "Ġ Ġ"


@pytest.mark.parametrize(
    ("splitter", "whole", "name"),
    [
        (bytes_tokenizer()["pre_tokenizer"], False, "gpt-2"),
        (split(splitting.QWEN2), False, "qwen2"),
        (split(splitting.LLAMA3), True, "llama-bpe"),
        (split(splitting.LLAMA3), False, "smaug-bpe"),
        (
            {"type": "Sequence", "pretokenizers": [
                {"type": "Digits", "individual_digits": True}, bytes_tokenizer()["pre_tokenizer"]
            ]},
            False,
            "smollm",
        ),
    ],
)  # fmt: skip
def test_the_definition_says_how_text_is_split(splitter: Any, whole: bool, name: str, tmp_path: Path) -> None:
    def change(definition: dict[str, Any]) -> None:
        definition["pre_tokenizer"] = splitter
        definition["model"]["ignore_merges"] = whole

    assert values(written(tmp_path, change))["pre"] == name


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(pre_tokenizer=split(r"\p{L}+")), r"(\p{L}+; hash "),
        (lambda d: d["pre_tokenizer"].update(add_prefix_space=True), "(prefix space > ByteLevel; hash "),
        (lambda d: d.update(normalizer={"type": "Lowercase"}), "(normalizer Lowercase > ByteLevel; hash "),
        (lambda d: d.update(pre_tokenizer={"type": "Whitespace"}), "(Whitespace ['type']; hash "),
        (lambda d: d.update(pre_tokenizer=None), "(no split; hash "),
    ],
)
def test_an_unknown_splitting_is_refused_with_its_hash_unless_it_is_said(
    change: Callable[[dict[str, Any]], Any], says: str, tmp_path: Path
) -> None:
    folder = written(tmp_path, change)
    with pytest.raises(ModelError) as error:
        values(folder)
    assert says in str(error.value)
    assert error.value.key == "tokenizer_pre"
    assert values(folder, pre="falcon")["pre"] == "falcon"


def test_tokens_that_the_vocabulary_lacks_are_padding(tmp_path: Path) -> None:
    found = values(written(tmp_path), {**CONFIG, "vocab_size": 292})
    assert found["tokens"][-3:] == [found["tokens"][289], "[PAD290]", "[PAD291]"]
    assert found["token_type"][-3:] == [1, 5, 5]


def test_added_tokens_control_the_model_or_are_the_users(tmp_path: Path) -> None:
    def change(definition: dict[str, Any]) -> None:
        added = dict(definition["added_tokens"][0], special=False)
        definition["added_tokens"] += [dict(added, id=290, content="<|end|>"), dict(added, id=291, content="a b")]

    found = values(written(tmp_path, change), {**CONFIG, "vocab_size": 292})
    assert found["tokens"][-2:] == ["<|end|>", "a b"]
    assert found["token_type"][-2:] == [3, 4]


def test_what_begins_a_text_is_what_the_tokenizer_puts_there(tmp_path: Path) -> None:
    def change(definition: dict[str, Any]) -> None:
        special = {"id": "<s>", "ids": [1], "tokens": ["<s>"]}
        single = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
        definition["post_processor"] = {
            "type": "TemplateProcessing", "single": single, "special_tokens": {"<s>": special},
            "pair": [*single, {"Sequence": {"id": "B", "type_id": 0}}],
        }  # fmt: skip

    assert values(written(tmp_path))["add_bos_token"] is False
    assert values(written(tmp_path, change))["add_bos_token"] is True


def test_pieces_without_their_model_are_merged_by_score_in_the_order_of_their_merges(tmp_path: Path) -> None:
    definition = pieces(
        [["▁", "t"], ["h", "e"], ["▁t", "he"]], ["▁", "t", "h", "e"], {"type": "Prepend", "prepend": "▁"}
    )
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition))
    found = values(tmp_path, {**CONFIG, "vocab_size": 267})
    assert (found["model"], found["pre"]) == ("llama", "default")
    assert not {"merges", "add_space_prefix"} & set(found)
    assert found["tokens"][259:266] == ["▁", "t", "h", "e", "▁t", "he", "▁the"]
    assert found["scores"][259:266] == [-3.0, -4.0, -5.0, -6.0, 0.0, -1.0, -2.0]
    assert found["token_type"][:5] == [3, 3, 3, 6, 6]
    assert (found["tokens"][266], found["token_type"][266]) == ("[PAD266]", 5)


def test_pieces_that_begin_without_a_space_say_so(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(pieces([], ["a"])))
    assert values(tmp_path)["add_space_prefix"] is False


def test_merges_that_runtimes_would_add_to_are_refused(tmp_path: Path) -> None:
    definition = pieces([["a", "b"], ["b", "c"], ["ab", "c"]], ["a", "b", "c"])
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition))
    with pytest.raises(ModelError, match="it never merges 'a' and 'bc' to 'abc'"):
        values(tmp_path)


def test_a_model_of_pieces_goes_before_its_definition(tmp_path: Path) -> None:
    (written(tmp_path) / "tokenizer.model").write_bytes(pieces_model())
    found = values(tmp_path)
    assert (found["model"], found["tokens"][262], found["scores"][262]) == ("llama", "▁the", -2.0)
    assert found["token_type"][:5] == [2, 3, 3, 1, 6]


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("tokenizer.model", pieces_model(kind=1), "does not merge pairs"),
        ("tokenizer.model", pieces_model()[:-1], "no SentencePiece model"),
        ("tokenizer.model", b"\x0a\xff", "no SentencePiece model"),
        ("tokenizer.model", b"\x0a\x03\x0a\x01\xff", "no SentencePiece model"),
        ("tokenizer.json", b"{", "tokenizer.json: cannot be read"),
        ("tokenizer.json", b"[]", "tokenizer.json: no JSON object"),
        ("tokenizer.json", b'{"model": {}}', "tokenizer.json: no tokenizer"),
        ("tokenizer.json", b'{"model": [1]}', "tokenizer.json: no tokenizer"),
        ("tokenizer.json", b'{"model": {"type": "Unigram"}}', "found by Unigram"),
        ("tokenizer_config.json", b"no", "tokenizer_config.json: cannot be read"),
        ("added_tokens.json", b'{"a": "b"}', "is not what these files hold (ValueError: "),
        ("tokenizer_config.json", b'{"added_tokens_decoder": []}', "is not what these files hold (AttributeError: "),
        ("tokenizer_config.json", b'{"added_tokens_decoder": {"1": {}}}', "is not what these files hold (KeyError: "),
        ("tokenizer_config.json", b'{"chat_template": [1]}', "is not what these files hold (AttributeError: "),
        ("README.md", b"", "neither tokenizer.json nor tokenizer.model"),
    ],
)
def test_damaged_and_foreign_files_are_named(file: str, content: bytes, says: str, tmp_path: Path) -> None:
    if "not what these files hold" in says:
        (tmp_path / "tokenizer.model").write_bytes(pieces_model())
    (tmp_path / file).write_bytes(content)
    with pytest.raises(BitwrightError) as error:
        values(tmp_path)
    assert says in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_more_tokens_than_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="tokens go up to 289, the model has 256 rows"):
        values(written(tmp_path), {**CONFIG, "vocab_size": 256})


def test_a_model_of_pieces_that_ends_anywhere_is_refused(tmp_path: Path) -> None:
    whole = pieces_model()
    for end in range(0, len(whole), 41):
        (tmp_path / "tokenizer.model").write_bytes(whole[:end])
        with pytest.raises(FileError, match=r"tokenizer.model: (no|a) SentencePiece model"):
            values(tmp_path)
