"""What an output keeps of a model's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitwright.engine import journal, partial
from bitwright.files import sidecars
from bitwright.models.language.model import TRIAL

KEPT = [
    "LICENSE", "NOTICE.txt", "USE_POLICY.md", "added_tokens.json", "additional_chat_templates/tools.jinja",
    "assets/logo.png", "chat_template.jinja", "chat_template.json", "generation_config.json", "merges.txt",
    "1_Pooling/config.json", "preprocessor_config.json", "processor_config.json", "sentencepiece.bpe.model",
    "tokenizer.json", "tokenizer.spm", "vocab.tiktoken",
]  # fmt: skip
CODE = ["modeling_other.py", "scaler.pkl", "sub/more.py"]
OTHERS = {
    "onnx": ["onnx/config.json", "onnx/model.onnx"],
    "original": ["original/consolidated.00.pth", "original/params.json"],
    "checkpoint-5": ["checkpoint-5/optimizer.pt", "checkpoint-5/trainer_state.json"],
}  # fmt: skip
WORK = ["journal.jsonl", "trial/config.json"]
OURS = ["config.json", "README.md", "certificate.json"]
WEIGHTS = ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "tf_model.h5", "x.gguf"]
HIDDEN = [".gitattributes", ".git/HEAD", ".cache/huggingface/x.json", "__pycache__/a.cpython-311.pyc"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in [*KEPT, *CODE, *OURS, *WORK, *WEIGHTS, *HIDDEN, *(name for names in OTHERS.values() for name in names)]:
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "model"


@pytest.mark.parametrize("code", [False, True])
def test_everything_is_kept_but_weights_code_and_what_belongs_to_tools(
    folder: Path, tmp_path: Path, code: bool
) -> None:
    wanted = sorted([*KEPT, *(CODE if code else [])])
    assert sorted(sidecars.copy(folder, tmp_path / "out", code)) == wanted
    assert sidecars.listed(tmp_path / "out") == wanted
    assert all((tmp_path / "out" / name).read_text() == name for name in wanted)


def test_what_is_left_is_said(folder: Path) -> None:
    code, others, work = sidecars.left(folder, code=False)
    assert all(name in code for name in CODE) and "--copy-code" in code
    assert all(name in others for name in OTHERS)
    assert work.endswith(": journal.jsonl, trial")
    assert sidecars.left(folder, code=True) == [others, work]
    assert {journal.NAME, partial.MARK, TRIAL} == {*sidecars.WORK}


def test_a_link_out_of_the_folder_is_a_file_and_a_folder_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (folder / "linked.json").symlink_to(folder / "tokenizer.json")  # as in the hub's cache
    (folder / "round").symlink_to(folder)
    (folder / "nowhere.json").symlink_to(tmp_path / "absent")
    assert set(sidecars.listed(folder)) & {"linked.json", "round", "nowhere.json"} == {"linked.json"}
