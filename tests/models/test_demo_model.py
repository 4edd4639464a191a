"""The demo model bundled with the package."""

import json
import math

import pytest

from bitwright.models.language import corpus
from tests import tiny

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

FOLDER = tiny.DEMO


@pytest.fixture(scope="module")
def model():
    return transformers.AutoModelForCausalLM.from_pretrained(FOLDER, dtype="auto").eval()


@pytest.fixture(scope="module")
def tokenizer():
    return transformers.AutoTokenizer.from_pretrained(FOLDER)


def test_folder_is_small_and_complete():
    files = {path.name: path for path in FOLDER.iterdir()}
    assert {"README.md", "config.json", "generation_config.json", "model.safetensors"} <= set(files)
    assert {"tokenizer.json", "tokenizer_config.json"} <= set(files)
    assert sum(path.stat().st_size for path in files.values()) <= 5_000_000


def test_no_file_names_a_path_of_the_machine_it_was_made_on():
    for name in ("README.md", "config.json", "generation_config.json", "tokenizer_config.json"):
        text = (FOLDER / name).read_text(encoding="utf-8")
        assert not any(start in text for start in ("/home/", "/root/", "/tmp/", "/work/", "/Users/"))
    assert "_name_or_path" not in json.loads((FOLDER / "config.json").read_text())


def test_weights_are_bf16_with_dimensions_of_256(model):
    for name, weight in model.named_parameters():
        assert weight.dtype == torch.bfloat16, name
        assert all(size % 256 == 0 for size in weight.shape), name
        assert weight.isfinite().all(), name
    assert model.config.tie_word_embeddings
    assert 2_000_000 < model.num_parameters() < 2_500_000


def test_tokenizer_keeps_text_as_it_is(model, tokenizer):
    text = "def f(x):\n\treturn  [x, 'größe', \"→\"]  # 'don't'\n\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer) == model.config.vocab_size == 1024
    assert tokenizer.eos_token_id == tokenizer.bos_token_id == model.config.eos_token_id == 0


def test_heldout_perplexity_is_that_of_a_trained_model(model, tokenizer):
    losses = []
    for text in corpus.read("heldout")[:4]:
        ids = tokenizer(text[4000:5200], return_tensors="pt")["input_ids"][:, :512]
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, :-1].float()
        losses.append(torch.nn.functional.cross_entropy(logits, ids[0, 1:]).item())
    perplexity = math.exp(sum(losses) / len(losses))
    assert perplexity < 30  # measured 17.7; a model that knows nothing has 1024
