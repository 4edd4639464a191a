"""The model card beside every output."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

import bitwright as bw
from bitwright.engine import card
from bitwright.files import hub
from bitwright.models.demos import digits
from tests import tiny

DEMO = Path(bw.__file__).parent / "content" / "demo-model"
OPTIONS: dict[str, Any] = dict(method="rtn", calib="stdlib", windows=2, length=32, heldout_windows=2, threads=1)
SOURCE = """---
license: other
license_name: tiny-terms
license_link: LICENSE
language: [en, no]
datasets: [me/books]
tags: [tiny, quantized]
pipeline_tag: text2text-generation
model-index: [{name: x, results: []}]
library_name: other
---

# The float model

It is {{ 7 * 7 }} and | bars |.
"""


def model(folder: Path, **changes: str) -> Path:
    """The bundled model with files of ours."""
    shutil.copytree(DEMO, folder)
    for name, text in {"README.md": SOURCE, "LICENSE": "terms\n"}.items() | changes.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `model` and what became of it, `out`."""
    home = tmp_path_factory.mktemp("card")
    code = {"modeling_x.py": "raise SystemExit\n", "extra/preprocessor_config.json": "{}"}
    bw.quantize(model(home / "model", **code), home / "out", **OPTIONS)
    return home


def test_the_hub_reads_what_holds_of_the_source_for_its_copy_too(made: Path) -> None:
    found = ModelCard.load(made / "out" / "README.md").data.to_dict()
    assert found == {
        "base_model_relation": "quantized", "datasets": ["me/books"], "language": ["en", "no"], "license": "other",
        "license_link": "LICENSE", "license_name": "tiny-terms", "library_name": "transformers",
        "pipeline_tag": "text2text-generation", "quantized_by": "Bitwright",
        "tags": ["tiny", "quantized", "compressed-tensors", "bitwright"],
    }  # fmt: skip


def test_the_figures_are_those_of_the_certificate(made: Path) -> None:
    text = (made / "out" / "README.md").read_text()
    certificate = bw.report(made / "out").certificates[0]
    for fact in bw.engine.report.measures(certificate):
        assert f"| {fact.label} | {fact.before} | {fact.value} | {fact.detail} |" in text
    assert "±" in text and "int4 g128 by rtn" in text and "35.9" not in text
    digest = hashlib.sha256((made / "out" / "certificate.json").read_bytes()).hexdigest()
    assert f"SHA-256 of `certificate.json`: `{digest}`" in text
    assert SOURCE.split("---\n")[2].strip() in text
    assert "`base_model` is left out" in text and "`LICENSE`" in text


def test_it_says_nothing_of_the_machine_that_made_it(made: Path) -> None:
    text = (made / "out" / "README.md").read_text()
    assert str(made) not in text and str(Path.home()) + os.sep not in text


def test_the_program_in_it_loads_the_model(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made / "out")
    [program] = re.findall(r"```python\n(.*?)```", (made / "out" / "README.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(program, names)
    ids = names["tokenizer"]("import ", return_tensors="pt").input_ids
    assert names["model"](input_ids=ids).logits.shape == (*ids.shape, 1024)


@pytest.mark.parametrize(
    ("kind", "options", "shown"),
    [
        ("mixtral", {}, ["With transformers"]),  # two groups among the experts, which vLLM fuses
        ("llama", {"output": "float"}, ["With transformers", "With vLLM"]),
        ("mixtral", {"group": 32}, ["With transformers", "With vLLM"]),
    ],
)
def test_only_runtimes_that_read_it_are_shown(
    kind: str, options: dict[str, Any], shown: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bw.quantize(tiny.make(kind, tmp_path / "model"), tmp_path / "out", **OPTIONS | options)
    text = (tmp_path / "out" / "README.md").read_text()
    assert re.findall("^(With .*):$", text, re.MULTILINE) == shown
    monkeypatch.chdir(tmp_path / "out")
    [program] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that quantization_config is given, and stands in the file too
        exec(program, names)
    assert names["model"].config.model_type == kind


def test_the_rest_of_the_source_is_there_but_its_code(made: Path) -> None:
    out = made / "out"
    assert (out / "LICENSE").read_text() == "terms\n"
    assert (out / "extra" / "preprocessor_config.json").read_text() == "{}"
    assert not (out / "modeling_x.py").exists()
    assert any("modeling_x.py (--copy-code" in note for note in bw.report(out).certificates[0]["notes"])
    bw.quantize(made / "model", made / "trusted", copy_code=True, **OPTIONS)
    assert (made / "trusted" / "modeling_x.py").read_text() == "raise SystemExit\n"
    assert not any("modeling_x" in note for note in bw.report(made / "trusted").certificates[0]["notes"])


def test_the_same_certificate_gives_the_same_bytes(made: Path) -> None:
    planned = bw.plan(made / "model", made / "again", **OPTIONS)
    list(planned.run())
    written = (made / "again" / "certificate.json").read_text()
    text = (made / "again" / "README.md").read_text()
    assert card.of(planned.job, json.loads(written), written) == text
    first = (made / "out" / "README.md").read_text()
    varied = re.compile(r"`[0-9a-f]{64}`$", re.MULTILINE)
    assert varied.sub("", first, 1) == varied.sub("", text, 1)


def test_a_changed_certificate_no_longer_has_its_card(made: Path, tmp_path: Path) -> None:
    out = shutil.copytree(made / "out", tmp_path / "out")
    assert bw.check(out).sound
    certificate = json.loads((out / "certificate.json").read_text())
    certificate["verdict"]["kl"] /= 10
    (out / "certificate.json").write_text(json.dumps(certificate))
    wrong = [finding.detail for finding in bw.check(out).findings if not finding.good]
    assert wrong == [
        "certificate.json is not the certificate that README.md names: its SHA-256 differs; its figures are not "
        "re-measured"
    ]
    assert "README.md names" in bw.report(out).markdown
    (out / "README.md").write_text("My own words.\n")
    assert bw.check(out).sound, "whoever writes another card may"


# ---- what it was made from ------------------------------------------------------------------


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_the_name_of_the_source_comes_from_the_hub_its_card_or_its_config(tmp_path: Path) -> None:
    cached = tmp_path / "models--me--tiny" / "snapshots" / COMMIT
    model(cached)
    assert card.base_model(cached, {"base_model": "a/b"})[0] == "me/tiny"
    assert hub.title(cached) == "tiny"
    plain = model(tmp_path / "plain")
    assert card.base_model(plain, {"base_model": ["a/b", "c/d"]})[0] == ["a/b", "c/d"]
    for name, found in {"me/base": "me/base", "/home/me/base": None, "gpt2": None, "../me": None, "": None}.items():
        config = json.loads((DEMO / "config.json").read_text()) | {"_name_or_path": name}
        (plain / "config.json").write_text(json.dumps(config))
        assert card.base_model(plain, {})[0] == found


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", ""),
        ("no metadata\n", ""),
        ("\ufeff---\nlicense: mit\n---\nafter a mark\n", ""),
        ("---\nlicense: [\n---\nbroken\n", "not YAML"),
        ("---\n- a\n- b\n---\na list\n", ""),
        ("---\n" + "[" * 3000 + "\n---\ndeep\n", "not YAML"),
        ("---\nlicense: {a: b}\nlanguage: no\ntags: x\n---\nodd\n", ""),
    ],
)
def test_cards_of_any_kind_are_read(text: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(text, "utf-8")
    found = card.read_source(tmp_path / "README.md")
    assert fault in found.fault and bool(fault) == bool(found.fault)
    last = text.rstrip().splitlines()[-1:]
    assert found.text.rstrip().splitlines()[-1:] == last
    assert "---" not in found.text
    if "odd" in text:
        assert [card.plain(found.metadata[key]) for key in ("license", "language", "tags")] == [None, "no", "x"]


def test_a_card_that_is_no_text_is_kept_as_far_as_it_can_be(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(b"caf\xe9\n")
    assert card.read_source(tmp_path / "README.md").text == "caf\ufffd\n"


# ---- networks -------------------------------------------------------------------------------


def test_a_network_has_its_card_and_terms_beside_it(tmp_path: Path) -> None:
    path = shutil.copy(DEMO.parent / "digits" / "model.onnx", tmp_path / "net.onnx")
    digits.write(tmp_path / "samples.npz", "calibration")
    (tmp_path / "LICENSE").write_text("terms\n")
    (tmp_path / "README.md").write_text("# The project of somebody\n")
    result = bw.quantize(path, tmp_path / "out.onnx", calib=str(tmp_path / "samples.npz"), method="rtn")
    found = ModelCard.load(tmp_path / "out.README.md")
    assert found.data.library_name == "onnx" and found.data.tags == ["quantized", "qdq", "bitwright"]
    assert found.data.pipeline_tag is None and "project of somebody" not in found.text
    assert str(tmp_path) not in found.text
    assert (tmp_path / "out.LICENSE").read_text() == "terms\n"
    assert "onnxruntime.InferenceSession" in found.text and result.out == tmp_path / "out.onnx"
    (tmp_path / "README.md").write_text(SOURCE)
    bw.quantize(path, tmp_path / "two.onnx", calib=str(tmp_path / "samples.npz"), method="rtn")
    assert ModelCard.load(tmp_path / "two.README.md").data.license_name == "tiny-terms"
