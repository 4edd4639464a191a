"""Calibration and held-out text: reading sources, cutting windows, and text the model writes itself."""

import hashlib
import json
import struct
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.errors import DataError, InputError, ModelError, RecipeError
from bitwright.models.language import corpus, data
from bitwright.models.language.data import cut, load_texts, write_own
from tests import hub, tiny

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

FOLDER = tiny.DEMO
WORDS = 4000


@pytest.fixture(scope="module")
def tokenizer():
    return transformers.AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model():
    # One thread: these steps are so small that waiting for a second one takes longer.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield transformers.AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()
    torch.set_num_threads(threads)


def make_counter(*, bos=None, eos=None, unknown=None):
    """A real tokenizer of whole words "0", "1", ...: word i is token i. Then come "x" and the special ones."""
    vocabulary = {str(place): place for place in range(WORDS)} | {"x": WORDS}
    for name in dict.fromkeys([bos, eos, unknown]):
        if name is not None:
            vocabulary[name] = len(vocabulary)
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=unknown))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    if bos is not None:
        template = tokenizers.processors.TemplateProcessing
        backend.post_processor = template(single=f"{bos} $A", special_tokens=[(bos, vocabulary[bos])])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=bos, eos_token=eos, unk_token=unknown, model_max_length=512
    )


PLAIN = make_counter()
BOTH = make_counter(bos="<s>", eos="</s>")


def count_up(start, number):
    """A text of `number` words counting up from `start`."""
    return " ".join(str(place) for place in range(start, start + number))


def catch(source):
    """The message of the DataError that reading a source must raise."""
    with pytest.raises(DataError) as caught:
        load_texts(source)
    return str(caught.value)


# ---- load_texts -------------------------------------------------------------------------


def test_any_text_file_is_one_document(tmp_path):
    for name, content in [("a.txt", "größe\n"), ("b.md", "# b\n"), ("c.rst", "c"), ("noext", "→")]:
        (tmp_path / name).write_text(content, encoding="utf-8")
        assert load_texts(tmp_path / name) == [content]
        assert load_texts(str(tmp_path / name)) == [content]


def test_byte_order_mark_and_windows_line_ends_are_taken_off(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert load_texts(tmp_path / "a.txt") == ["one\ntwo\n"]


def test_jsonl_is_one_document_a_line(tmp_path):
    texts = ["one\ntwo", "a\u2028b", "größe 🌍", ""]
    rows = [json.dumps({"text": text, "id": 1}, ensure_ascii=False) for text in texts]
    (tmp_path / "a.jsonl").write_text("\n".join([*rows[:2], "", *rows[2:]]) + "\n", encoding="utf-8")
    assert load_texts(tmp_path / "a.jsonl") == texts


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"text": "a"', ["not valid JSON", "column 13", "{"]),
        ('["a"]', ["a list, not an object"]),
        ('{"text": 3}', ['"text" is a int, not a string']),
        ('{"body": "a", "id": 1}', ['no key "text"', "'body', 'id'", 'under "text"']),
        ('{"messages": [{"role": "user", "content": "a"}]}', ["'messages'", "chat template"]),
        ('{"text": "a\\ud800"}', ["surrogate", "character 1"]),
    ],
)
def test_a_bad_line_is_named(line, expected, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "good"}\n\n' + line + "\n")
    message = catch(path)
    assert message.startswith(f"{path} line 3: ")
    assert all(part in message for part in expected), message


def test_a_folder_is_read_in_sorted_order_at_any_depth(tmp_path):
    files = {
        "b.txt": "B", "a/z.py": "Z = 1", "a/c.md": "C", "a.jsonl": '{"text": "J1"}\n{"text": "J2"}', "D.TXT": "D",
        "skip.bin": "no", ".git/a.txt": "no", "a/.hidden.txt": "no", "empty.txt": "",
    }  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert load_texts(tmp_path) == ["D", "J1", "J2", "C", "Z = 1", "B", ""]


def test_wrong_encoding_names_file_offset_and_fix(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"\xef\xbb\xbfgr" + "öße".encode("latin-1"))
    message = catch(path)
    assert str(path) in message and "byte 0xf6 at offset 5" in message and "iconv" in message


@pytest.mark.parametrize(("encoding", "said"), [("utf-16", "UTF-16"), ("utf-16-le", "a zero byte at offset 1")])
def test_utf16_is_not_taken_for_text(encoding, said, tmp_path):
    (tmp_path / "a.txt").write_bytes("hello".encode(encoding))
    assert said in catch(tmp_path / "a.txt")


def test_a_missing_file_suggests_one_beside_it(tmp_path):
    (tmp_path / "calibration.txt").write_text("a")
    assert "Did you mean calibration.txt?" in catch(tmp_path / "calibraton.txt")
    assert "Nothing beside it" in catch(tmp_path / "zzz")
    assert f"no folder {tmp_path / 'gone'} either" in catch(tmp_path / "gone" / "a.txt")


def test_a_misspelt_word_suggests_the_word_or_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "Did you mean stdlib?" in catch("stdlb")
    assert "hub:Owner/wikitext." in catch("Owner/wikitext")


def test_nothing_to_read_is_an_error(tmp_path):
    assert "holds no .jsonl, .md, .py, .txt file" in catch(tmp_path)
    (tmp_path / "a.txt").write_text(" \n\t")
    assert "holds no text" in catch(tmp_path)
    assert "holds no text" in catch(tmp_path / "a.txt")


def test_more_than_fits_in_memory_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "READ_LIMIT", 10)
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("123456")
    assert load_texts(tmp_path / "a.txt") == ["123456"]
    assert "12 bytes of text is more than the 10" in catch(tmp_path)


def test_stdlib_is_the_calibration_corpus_and_a_path_never_is(tmp_path, monkeypatch):
    assert load_texts("stdlib") == corpus.read("calibration")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stdlib").write_text("a file")
    assert load_texts(data.Path("stdlib")) == ["a file"]


def test_the_hub_needs_a_package_that_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)  # as Python marks a module that must not be imported
    assert "pip install datasets" in catch("hub:Owner/name")


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("hub:a", ("a", None, None, "train", "text")),
        ("hub:me/books@v1", ("me/books", None, "v1", "train", "text")),
        ("hub:me/books/raw@refs/pr/1:test[:9]:body", ("me/books", "raw", "refs/pr/1", "test[:9]", "body")),
    ],
)
def test_a_dataset_has_a_configuration_a_revision_a_split_and_a_column(source, parts):
    assert data.Dataset.parse(source) == parts
    assert data.Dataset.parse(str(data.Dataset.parse(source))) == parts


def test_a_dataset_is_recorded_at_its_commit(tmp_path, monkeypatch):
    with hub.served() as server:
        hub.use(server, tmp_path, monkeypatch)
        books = server.add("datasets/me/books", {"train.jsonl": b"{}"})
        first = books.refs["main"]
        later = books.commit({"more.jsonl": b"{}"}, "v2")
        assert str(data.Dataset.parse("hub:me/books").resolved()) == f"hub:me/books@{first}:train:text"
        assert str(data.Dataset.parse("hub:me/books@v2:test").resolved()) == f"hub:me/books@{later}:test:text"
        assert data.Dataset.parse(f"hub:me/books@{first}").resolved().revision == first
        with pytest.raises(InputError, match="no such revision"):
            data.Dataset.parse("hub:me/books@v3").resolved()
        with pytest.raises(InputError, match="no such repository"):
            data.Dataset.parse("hub:me/absent").resolved()
    hub.use(hub.NOBODY, tmp_path, monkeypatch)
    assert data.Dataset.parse("hub:me/books@v2").resolved().revision == "v2", "without a network, as it was named"
    assert data.pinned("stdlib") == "stdlib"


@pytest.mark.parametrize("source", ["hub:", "hub:a:b:c:d", "hub:a:train[:5", "hub:a@", "hub:a@b@c"])
def test_a_malformed_hub_name_is_an_error(source):
    assert "Write hub:NAME" in catch(source)


def test_a_dataset_is_read_by_split_and_column(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)  # a folder here is a dataset of that name
    (tmp_path / "texts").mkdir()
    for split in ("train", "test"):
        rows = [{"text": f"{split} {place}", "other": f"o{place}", "n": place} for place in range(5)]
        (tmp_path / "texts" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert load_texts("hub:texts") == [f"train {place}" for place in range(5)]
    assert load_texts("hub:texts:test[:2]") == ["test 0", "test 1"]
    assert load_texts("hub:texts:test:other") == [f"o{place}" for place in range(5)]
    assert "the columns are text, other, n" in catch("hub:texts:test:body")
    assert "row 0 of 'n' is a int" in catch("hub:texts:test:n")
    assert "cannot be loaded" in catch("hub:texts:nosplit")
    monkeypatch.setattr(data, "READ_LIMIT", 10)
    assert "hub:texts:train[:1000]" in catch("hub:texts")


# ---- cut --------------------------------------------------------------------------------


def test_windows_of_real_text(tokenizer):
    windows = cut(load_texts("stdlib"), tokenizer, count=32, length=64, source="stdlib")
    assert windows.ids.shape == (32, 64) and windows.ids.dtype == torch.int64
    assert windows.source == "stdlib" and windows.lint.windows == windows.lint.wanted == 32
    assert windows.lint.warnings == ()
    everything = tokenizer.eos_token.join(load_texts("stdlib"))
    # Byte-level tokens: a window may begin or end inside a character, nowhere else.
    assert all(tokenizer.decode(row).strip("\ufffd") in everything for row in windows.ids)


def test_the_same_text_gives_the_same_windows_and_hash(tokenizer):
    one, two = (cut(load_texts("stdlib"), tokenizer, count=8, length=32) for _ in range(2))
    assert torch.equal(one.ids, two.ids) and one.hash == two.hash and one.lint == two.lint
    assert cut(load_texts("stdlib"), tokenizer, count=8, length=33).hash != one.hash


def test_the_hash_is_that_of_shape_and_values():
    ids = torch.tensor([[1, 2, 3], [4, 5, 70000]])
    expected = hashlib.sha256(b"2x3:" + struct.pack("<6q", 1, 2, 3, 4, 5, 70000)).hexdigest()
    assert data.hash_ids(ids) == expected
    assert data.hash_ids(ids.reshape(3, 2)) != expected


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 1000), st.integers(1, 50), st.integers(2, 40))
def test_windows_are_consecutive_apart_and_evenly_spread(number, count, length):
    if number < length:
        with pytest.raises(DataError, match=f"has {number:,} tokens and one window needs {length}"):
            cut([count_up(0, number)], PLAIN, count=count, length=length)
        return
    windows = cut([count_up(0, number)], PLAIN, count=count, length=length)
    ids = windows.ids.numpy()
    assert ids.shape == (min(count, number // length), length)
    assert (np.diff(ids, axis=1) == 1).all()  # the text counts up
    starts = ids[:, 0]
    assert (np.diff(starts) >= length).all()
    shares = (starts / length + 0.5) / (number // length) * len(ids)  # the middle of each window
    assert (abs(shares - np.arange(len(ids)) - 0.5) <= 0.5 + 1e-9).all()  # one window in each equal share
    assert (len(windows.lint.warnings) == 1) == (len(ids) < count)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(16, 100), min_size=1, max_size=30), st.integers(2, 12))
def test_calibration_and_heldout_share_nothing(sizes, length):
    starts = np.cumsum([0, *sizes])
    texts = [count_up(int(start), size) for start, size in zip(starts, sizes, strict=False)]
    texts += [f"\n{texts[0]} ", " "]  # a duplicate and a blank belong to neither
    found, lints = {}, {}
    for part in ("calibration", "heldout"):
        try:
            windows = cut(texts, PLAIN, count=10_000, length=length, part=part)
        except DataError as error:  # 1/8 of a short text may be less than a window
            assert len(sizes) < data.HELD and "is too short" in str(error)
            return
        found[part], lints[part] = set(windows.ids.flatten().tolist()), windows.lint
        assert (lints[part].empty, lints[part].duplicate) == (1, 1)
    assert not found["calibration"] & found["heldout"]
    if len(sizes) >= data.HELD:
        owners = {part: set(np.searchsorted(starts, sorted(ids), side="right") - 1) for part, ids in found.items()}
        assert not owners["calibration"] & owners["heldout"]
        assert owners["heldout"] <= {place for place in range(len(sizes)) if place % 8 == 7}
        assert lints["heldout"].kept == lints["calibration"].other_part == len(sizes) // 8
    else:
        assert min(found["heldout"]) > max(found["calibration"])
        share = lints["heldout"].tokens / sum(sizes)
        assert share <= 1 / 8 < share + 1 / sum(sizes)
        assert "fewer than 8 texts" in lints["heldout"].warnings[0]


def test_bos_begins_each_window_and_eos_stands_between_texts():
    bos, eos = BOTH.bos_token_id, BOTH.eos_token_id
    windows = cut([count_up(0, 5), count_up(10, 5)], BOTH, count=3, length=4)
    assert windows.ids.tolist() == [[bos, 0, 1, 2], [bos, 3, 4, eos], [bos, 10, 11, 12]]
    lint = windows.lint
    assert (lint.bos, lint.eos, lint.tokens, lint.used) == (True, True, 11, 9)


def test_bos_is_left_out_when_the_tokenizer_leaves_it_out_or_it_is_eos(tokenizer):
    same = make_counter(bos="<e>", eos="<e>")
    assert same("3")["input_ids"] == [same.bos_token_id, 3]
    assert cut(["1 2", "3"], same, count=1, length=4).ids.tolist() == [[1, 2, same.eos_token_id, 3]]
    silent = make_counter(eos="</s>")
    silent.bos_token = "0"
    assert cut(["1 2 3"], silent, count=1, length=3).ids.tolist() == [[1, 2, 3]]
    assert not cut(["some text here"], tokenizer, count=1, length=4).lint.bos


def test_without_eos_texts_simply_follow_each_other():
    windows = cut(["1 2", "3 4"], PLAIN, count=1, length=4)
    assert windows.ids.tolist() == [[1, 2, 3, 4]] and not windows.lint.eos


def test_the_lint_counts_what_was_dropped_and_reads_as_json_and_text():
    lint = cut(["1 2 3", "", " 1 2 3\n", "4 5", "\n"], PLAIN, count=9, length=2, source="x").lint
    assert (lint.read, lint.kept, lint.empty, lint.duplicate) == (5, 2, 2, 1)
    assert (lint.tokens, lint.used, lint.windows, lint.wanted) == (5, 4, 2, 9)
    assert lint.distinct == 4 / len(PLAIN) and lint.unknown == lint.repeated == 0
    assert lint.warnings == ("9 windows were wanted and the text has tokens for 2",)
    assert json.loads(json.dumps(lint.summary())) == lint.summary()
    assert lint.summary()["warnings"] == list(lint.warnings)
    assert lint.lines() == [
        "5 texts read, 2 kept (2 empty, 1 duplicate)",
        "2 windows of 2 tokens, from 5; no BOS, no EOS",
        "0.1% of the vocabulary seen, 0.0% of the tokens unknown, 0.0% of the runs repeated",
        "warning: 9 windows were wanted and the text has tokens for 2",
    ]


def test_unknown_tokens_are_counted_and_eos_is_not_one_of_them():
    lint = cut(["1 v y 2", "z 3 4 5"], make_counter(unknown="<u>", eos="<u>"), count=1, length=9).lint
    assert lint.unknown == 3 / 8
    assert "unknown to the tokenizer" in lint.warnings[0]


def test_repetitive_damaged_and_overlong_text_is_warned_of():
    lint = cut(["7 8 9 " * 500], PLAIN, count=2, length=600).lint
    assert lint.repeated > 0.9
    assert any("very repetitive" in warning for warning in lint.warnings)
    assert any("longer than the model's context of 512" in warning for warning in lint.warnings)
    damaged = cut(["gr\ufffd\ufffde", "ok \ufffd"], make_counter(unknown="?"), count=1, length=2).lint
    assert damaged.warnings[0].startswith("3 replacement characters (U+FFFD) in 2 texts")


@given(st.lists(st.lists(st.integers(0, 2), min_size=12, max_size=12), min_size=1, max_size=6))
def test_repeats_are_those_a_plain_count_finds(rows):
    runs = [tuple(row[start : start + 8]) for row in rows for start in range(5)]
    assert data.measure_repeats(np.array(rows, np.int32)) == pytest.approx(1 - len(set(runs)) / len(runs))


def test_too_little_text_says_how_much_there_is_and_what_fits():
    with pytest.raises(DataError, match=r"has 3 tokens and one window needs 7.*at most 4 tokens") as caught:
        cut(["1 2 3"], BOTH, count=1, length=8, source="here")
    assert str(caught.value).startswith("here: ")
    assert cut(["1 2 3"], BOTH, count=1, length=4).ids.shape == (1, 4)
    with pytest.raises(DataError, match="too short"):
        cut([], PLAIN)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"length": 1}, {"part": "train"}])
def test_arguments_out_of_range_are_an_error(wrong):
    with pytest.raises(RecipeError):
        cut(["1 2 3"], PLAIN, **wrong)


def test_a_text_longer_than_the_context_makes_no_noise(caplog):
    # A tokenizer of its own, as transformers warns once for each.
    fresh = transformers.AutoTokenizer.from_pretrained(FOLDER)
    with caplog.at_level("WARNING", logger="transformers"):
        cut(["word " * 3000], fresh, count=1, length=16)
        assert "longer than" not in caplog.text
        fresh(["word " * 3000])
        assert "longer than" in caplog.text  # so the test can fail


@settings(deadline=None)
@given(st.text("ab\n", max_size=60), st.integers(1, 10))
def test_a_long_text_is_split_without_loss(text, piece):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "PIECE", piece)
        pieces = data.split(text)
    assert "".join(pieces) == text and max(map(len, pieces)) <= piece


def test_splitting_and_batching_do_not_change_the_tokens(monkeypatch):
    texts = [count_up(0, 50).replace(" ", "\n"), *(count_up(100 * place, 30) for place in range(1, 9))]
    whole = cut(texts, BOTH, count=1000, length=5)
    monkeypatch.setattr(data, "PIECE", 40)
    assert len(data.split(texts[0])) > 3
    assert cut(texts[:1], BOTH, count=1, length=51).ids.tolist() == [[BOTH.bos_token_id, *range(50)]]
    monkeypatch.setattr(data, "PIECE", 500)
    assert cut(texts, BOTH, count=1000, length=5).hash == whole.hash


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.integers(40, 400))
def test_sampling_keeps_to_its_limit_and_spreads(sizes, limit):
    documents = [[str(place).ljust(size, "x")[:size] for _ in range(1)] for place, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "CUT_LIMIT", limit)
        kept = data.sample(documents)
    total, taken = sum(sizes), sum(len(piece) for [piece] in kept)
    if total <= limit:
        assert kept == documents
    else:
        assert limit - max(sizes) <= taken <= limit + max(sizes)


def test_too_much_text_is_sampled_from_all_of_it_and_said(monkeypatch):
    texts = [count_up(100 * place, 20) for place in range(40)]
    monkeypatch.setattr(data, "CUT_LIMIT", sum(map(len, texts)) // 4)
    windows = cut(texts, PLAIN, count=1000, length=20)
    sources = (windows.ids[:, 0] // 100).tolist()
    assert 9 <= len(sources) <= 11 and sources[0] < 4 and sources[-1] > 34
    assert max(np.diff(sources)) <= 6
    assert "characters are used, evenly spread" in windows.lint.warnings[0]
    parts = [cut(texts, PLAIN, count=1000, length=20, part=part).ids for part in ("calibration", "heldout")]
    assert not set(parts[0].flatten().tolist()) & set(parts[1].flatten().tolist())


# ---- write_own --------------------------------------------------------------------------


def replay(model, ids, words, ends, seed):
    """Draw each next token again from a full pass over the true beginning: what sampling must have drawn."""
    generator = torch.Generator().manual_seed(seed)
    for place in range(1, ids.shape[1]):
        with torch.no_grad():
            logits = model(input_ids=ids[:, :place], use_cache=False).logits[:, -1].float()
        logits[:, ends] = -torch.inf
        logits[:, words:] = -torch.inf
        yield torch.multinomial(logits[:, :words].softmax(-1), 1, generator=generator)[:, 0]


def test_own_text_is_sampled_from_the_model_itself(model, tokenizer):
    ids = write_own(model, tokenizer, count=4, length=24, seed=3)
    assert ids.shape == (4, 24) and ids.dtype == torch.int64
    assert (ids[:, 0] == tokenizer.bos_token_id).all()
    expected = list(replay(model, ids, len(tokenizer), [tokenizer.eos_token_id], seed=3))
    assert torch.equal(ids[:, 1:], torch.stack(expected, 1))


def test_own_text_is_repeatable_and_leaves_no_trace(model, tokenizer):
    torch.manual_seed(0)
    before, training = torch.get_rng_state(), model.training
    model.train()
    one, two = (write_own(model, tokenizer, count=3, length=8, seed=1) for _ in range(2))
    assert model.training
    model.train(training)
    assert torch.equal(one, two)
    assert not torch.equal(one, write_own(model, tokenizer, count=3, length=8, seed=2))
    assert torch.equal(torch.get_rng_state(), before)
    assert len({tuple(row) for row in one.tolist()}) == 3


def test_progress_comes_after_each_token_and_ends_at_all(model, tokenizer):
    steps = []
    ids = write_own(model, tokenizer, count=5, length=4, seed=0, batch=2, on_step=lambda *step: steps.append(step))
    assert ids.shape == (5, 4)
    assert steps == [(done, 20) for done in (4, 6, 8, 12, 14, 16, 18, 19, 20)]


def make_small(kind, **config):
    """A tiny model with random weights."""
    torch.manual_seed(0)
    made = getattr(transformers, f"{kind}Config")(bos_token_id=None, eos_token_id=None, **config)
    return getattr(transformers, f"{kind}ForCausalLM")(made).eval()


def make_llama(vocabulary):
    return make_small(
        "Llama", vocab_size=vocabulary, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=32,
    )  # fmt: skip


def test_own_text_never_ends_early():
    tokenizer = make_counter(eos="</s>")
    model = make_llama(len(tokenizer))
    model.generation_config.eos_token_id = [5, 6]
    with torch.no_grad():  # the ends are all that this model would write
        model.lm_head.weight.zero_()
        model.model.norm.weight.fill_(1)
        model.lm_head = torch.nn.Linear(16, len(tokenizer))
        model.lm_head.weight.zero_()
        model.lm_head.bias.zero_()
        model.lm_head.bias[[5, 6, tokenizer.eos_token_id]] = 50
    ids = write_own(model, tokenizer, count=4, length=16, seed=0)
    assert (ids[:, 0] == tokenizer.eos_token_id).all()
    assert not set(ids[:, 1:].flatten().tolist()) & {5, 6, tokenizer.eos_token_id}


def test_without_bos_and_eos_rows_start_at_random_and_spare_rows_are_not_drawn():
    ids = write_own(make_llama(8 * WORDS), PLAIN, count=16, length=16, seed=0)
    assert len(set(ids[:, 0].tolist())) > 12
    assert int(ids.max()) < len(PLAIN)


def test_a_model_without_a_key_value_cache_writes_too():
    model = make_small("Mamba", vocab_size=WORDS, hidden_size=16, num_hidden_layers=1, state_size=4, pad_token_id=None)
    tokenizer = make_counter(unknown="0")
    tokenizer.bos_token = "1"
    ids = write_own(model, tokenizer, count=2, length=8, seed=0)
    assert torch.equal(ids[:, 1:], torch.stack(list(replay(model, ids, WORDS, [], seed=0)), 1))


def test_own_text_longer_than_the_model_takes_is_an_error(model, tokenizer):
    with pytest.raises(RecipeError, match="at most 512"):
        write_own(model, tokenizer, count=1, length=513, seed=0)
    with pytest.raises(RecipeError):
        write_own(model, tokenizer, count=0, length=8, seed=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_model_is_an_error_not_text(value):
    model = make_llama(WORDS)
    with torch.no_grad():
        model.lm_head.weight[7, 3] = value
    with pytest.raises(ModelError, match="NaN or infinity"):
        write_own(model, PLAIN, count=2, length=8, seed=0)


def test_text_that_calibration_has_seen_is_told() -> None:
    ids = torch.randint(1000, (4, 64), generator=torch.Generator().manual_seed(0))
    assert data.share_seen(ids, ids) == 1
    assert data.share_seen(ids, ids + 1000) == 0
    assert data.share_seen(ids, torch.cat([ids[:2], ids[2:] + 1000])) == pytest.approx(0.5)
    shifted = torch.roll(ids.reshape(-1), 5).reshape(4, 64)  # windows need not begin at the same place
    assert data.share_seen(ids, shifted) > 0.8
