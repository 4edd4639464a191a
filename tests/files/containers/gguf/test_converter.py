"""Files written from folders equal those of llama.cpp's converter: metadata key by key, tensors bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.files.containers.gguf.models import BYTES, CONFIGS, EXPECTED, make, record, summary
from tests.files.containers.gguf.write import floats
from tests.networks import shared


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_of_each_family_is_written_as_the_converter_writes_it(name: str, tmp_path: Path) -> None:
    expected = json.loads(EXPECTED.read_text())[name]
    floats(make(name, tmp_path / name), tmp_path / "out.gguf", "gpt-2" if name in BYTES else None)
    found = record(tmp_path / "out.gguf")
    if name == "gptneox":  # the one family for which the converter forgets it
        assert found["facts"].pop("general.file_type") == "UINT32 32"
    assert found == expected


def test_docs18m_is_written_as_the_converter_writes_it(tmp_path: Path) -> None:
    """The converter does not know the hash of its tokenizer: "gpt-2" was answered, which its definition says here."""
    folder = shared("models", "docs18m")
    if folder is None:
        pytest.skip("needs ../shared/models/docs18m")
    floats(folder, tmp_path / "out.gguf")
    assert summary(tmp_path / "out.gguf") == {"facts": "25 of c2e7c51f", "tensors": "47 of 97368449"}
