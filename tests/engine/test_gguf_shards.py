"""GGUF outputs in shards, and shards wherever a model is taken."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import transformers
from gguf import GGUFReader
from typer.testing import CliRunner

import bitwright as bw
from bitwright import library
from bitwright.cli import app
from bitwright.engine.run import run
from bitwright.errors import ModelError, RecipeError
from bitwright.events import Finished
from bitwright.files.folder import open_checkpoint
from bitwright.models import kind_at, kind_of
from bitwright.models.model import Plan
from tests import jobs
from tests.files.containers.gguf import models, write

DEMO = Path(__file__).parents[2] / "src/bitwright/content/demo-model"
MOST = 1_000_000
COUNT = 3
"""Shards of the demo model in q8_0."""


def planned(source: Path, out: Path, **recipe: Any) -> Plan:
    given = {"type": "q8_0", "layer": {"method": "rtn"}, "max_shard_bytes": MOST, **recipe}
    return jobs.made(source, out, **given)


def shards(out: Path) -> list[Path]:
    return sorted(out.parent.glob(f"{out.stem}-*-of-*.gguf"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the demo model in one file, `whole.gguf`, and in shards."""
    folder = tmp_path_factory.mktemp("shards")
    jobs.finish(planned(DEMO, folder / "whole.gguf", max_shard_bytes=None))
    jobs.finish(planned(DEMO, folder / "cut.gguf"))
    return folder


@pytest.fixture(scope="module")
def first(made: Path) -> Path:
    return made / f"cut-00001-of-0000{COUNT}.gguf"


def test_shards_hold_what_one_file_holds(made: Path, first: Path) -> None:
    files = shards(made / "cut.gguf")
    assert len(files) == COUNT and files[0] == first and not (made / "cut.gguf").exists()
    assert all(path.stat().st_size <= MOST for path in files)
    whole, readers = GGUFReader(made / "whole.gguf"), [GGUFReader(path) for path in files]
    cut = [tensor for reader in readers for tensor in reader.tensors]
    assert [(t.name, t.tensor_type, t.data.tobytes()) for t in cut] == [
        (t.name, t.tensor_type, t.data.tobytes()) for t in whole.tensors
    ]
    own = {"GGUF.version", "GGUF.tensor_count", "GGUF.kv_count", "split.no", "split.count", "split.tensors.count"}
    assert {*readers[0].fields} == {*whole.fields} | own
    assert {*readers[1].fields} == own


def test_the_certificate_and_the_card_are_of_all(made: Path, first: Path) -> None:
    report = bw.report(first)
    (certificate,) = report.certificates
    files = shards(made / "cut.gguf")
    assert [*certificate["output"]["sha256"]] == [path.name for path in files]
    assert certificate["output"]["bytes"] == sum(path.stat().st_size for path in files)
    assert certificate["loaded_by_transformers"]["max_kl"] < 1e-5
    assert f'llama-cli -m "{first.name}"' in (made / "cut.README.md").read_text()
    assert 'llama-cli -m "whole.gguf"' in (made / "whole.README.md").read_text()
    assert kind_of(first).size(first) == certificate["output"]["bytes"]
    assert kind_of(first).shelved(first).keys() == {*(path.name for path in files), "README.md", "cut.certificate.json"}
    assert bw.check(first).sound
    names = {"cut.README.md", "cut.certificate.json", *(path.name for path in files)}
    assert {path.name for path in made.iterdir() if path.name.startswith("cut")} == names


def test_the_first_stands_for_all(first: Path) -> None:
    later = shards(first.with_name("cut.gguf"))[1]
    assert kind_at(first) is not None and kind_at(later) is None
    result = CliRunner().invoke(app, ["check", str(later)])
    assert result.exit_code == 2 and f"is shard 2 of {COUNT} of a model. Give the first: {first}" in result.output


def test_a_changed_shard_is_found(made: Path, tmp_path: Path) -> None:
    for path in made.glob("cut*"):
        shutil.copyfile(path, tmp_path / path.name)
    files = shards(tmp_path / "cut.gguf")
    data = bytearray(files[2].read_bytes())
    data[-1000] ^= 1
    files[2].write_bytes(data)
    details = [finding.detail for finding in bw.check(files[0]).findings if finding.good is False]
    assert details == [
        f"{files[2].name} is not the certified file: its SHA-256 differs; its figures are not re-measured"
    ]
    files[2].unlink()
    assert "is missing: shard 3 of 3" in str(bw.check(files[0]))


def test_shards_that_others_made_beside_an_output_are_not_certified(made: Path, tmp_path: Path) -> None:
    for path in (*made.glob("cut*.gguf"), *made.glob("whole.*")):
        shutil.copyfile(path, tmp_path / path.name.replace("cut", "whole"))
    first = shards(tmp_path / "whole.gguf")[0]
    found = bw.check(first)
    assert found.sound and all(finding.what != "certificate" for finding in found.findings)
    with pytest.raises(ModelError, match=r"has no certificate: whole.certificate.json is that of whole.gguf"):
        bw.report(first)


@pytest.mark.parametrize("point", [5, 20])
def test_stopped_and_continued(point: int, made: Path, tmp_path: Path) -> None:
    jobs.stop_after(planned(DEMO, tmp_path / "cut.gguf"), point)
    assert not shards(tmp_path / "cut.gguf")
    last = [*run(planned(DEMO, tmp_path / "cut.gguf"))][-1]
    assert isinstance(last, Finished) and last.out == str(tmp_path / f"cut-00001-of-0000{COUNT}.gguf")
    for one, other in zip(shards(tmp_path / "cut.gguf"), shards(made / "cut.gguf"), strict=True):
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("moved", [1, 2])
def test_stopped_while_shards_get_their_names(
    moved: int, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first comes last: what lacks it is no model, and the same command makes it one."""
    done, rename = [], Path.rename

    def stop(self: Path, target: Path) -> Path:
        if self.suffix == ".gguf":
            if len(done) == moved:
                raise KeyboardInterrupt
            done.append(target)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stop)
    with pytest.raises(KeyboardInterrupt):
        jobs.finish(planned(DEMO, tmp_path / "cut.gguf"))
    monkeypatch.undo()
    files, kind = shards(made / "cut.gguf"), kind_of(tmp_path / "cut.gguf")
    assert kind.standing(tmp_path / "cut.gguf") == tmp_path / "cut.gguf"
    assert [path.name for path in done] == [path.name for path in files[::-1][:moved]]
    jobs.finish(planned(DEMO, tmp_path / "cut.gguf"))
    assert [path.read_bytes() for path in shards(tmp_path / "cut.gguf")] == [path.read_bytes() for path in files]
    assert kind.standing(tmp_path / "cut.gguf") == tmp_path / files[0].name


def test_a_budget_counts_all_shards(tmp_path: Path) -> None:
    text, size = jobs.text(tmp_path), 1_900_000
    recipe = {"effort": "fast", "calibration": jobs.words(text), "layer": {}, "type": None}
    plan = planned(DEMO, tmp_path / "cut.gguf", budget={"size": size}, **recipe)
    assert any(line.strip() == "1 to 3 files of at most 1.0 MB each" for line in str(library.Planned(plan)).split("\n"))
    certificate = jobs.finish(plan)
    files = shards(tmp_path / "cut.gguf")
    written = sum(path.stat().st_size for path in files)
    assert len(files) == 2 and 0.97 * size < written <= size
    assert certificate["output"]["bytes"] == certificate["budget"]["bytes"] == written


def test_what_fits_is_one_file_as_ever(tmp_path: Path, made: Path) -> None:
    plan = planned(DEMO, tmp_path / "x.gguf", max_shard_bytes=10 * MOST)
    assert "1 file of at most 10.0 MB each" in str(library.Planned(plan))
    jobs.finish(plan)
    assert (tmp_path / "x.gguf").read_bytes() == (made / "whole.gguf").read_bytes()


def test_a_tensor_that_is_larger_is_said(tmp_path: Path) -> None:
    source = models.make("llama", tmp_path / "llama")
    config = transformers.LlamaConfig(**models.BASE | {"intermediate_size": 16_000})
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(source)
    plan = planned(source, tmp_path / "x.gguf")
    told = "x-00003-of-00005.gguf has 1.1 MB: it holds blk.0.ffn_gate.weight alone"
    assert told in str(library.Planned(plan))
    assert told in jobs.finish(plan)["notes"]


def test_shards_are_a_source_like_one_file(tmp_path: Path) -> None:
    write.floats(DEMO, tmp_path / "float.gguf")
    write.floats(DEMO, tmp_path / "cut.gguf", most=MOST)
    files = shards(tmp_path / "cut.gguf")
    assert len(files) > 3
    recipe = {"type": "q4_k_m", "max_shard_bytes": None}
    one, other = (
        planned(tmp_path / "float.gguf", tmp_path / "a.gguf", **recipe),
        planned(files[0], tmp_path / "b.gguf", **recipe),
    )
    assert other.model.identity() != one.model.identity()
    jobs.finish(one)
    certificate = jobs.finish(other)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
    assert [*certificate["source"]["sha256"]] == [path.name for path in files]
    assert kind_of(files[0]).beside(files[0], ".gguf") == Path("cut-small.gguf")
    a, b = (open_checkpoint(path) for path in (tmp_path / "float.gguf", files[0]))
    assert a.size == b.size and b.files == files
    words = bw.measure(DEMO, files[0], windows=2, length=32).summary
    assert words["kl"] < 1e-9
    bw.imatrix(files[0], tmp_path / "imatrix.gguf", calib=str(jobs.text(tmp_path)), windows=2, length=32, watch=False)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llama_cpp") is not None, reason="llama-cpp-python is installed, and comes first")
def test_shards_run_in_transformers(made: Path, first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    asked = {"prompt": "def read", "tokens": 4, "threads": 1, "watch": False}
    whole, cut = (bw.run(path, **asked).summary["model"] for path in (made / "whole.gguf", first))
    assert cut["text"] == whole["text"] and cut["bytes"] > whole["bytes"]


@pytest.mark.skipif(find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
def test_shards_run_in_llama_cpp(made: Path, first: Path) -> None:
    asked = {"prompt": "def read", "tokens": 4, "threads": 1, "watch": False}
    whole, cut = (bw.run(path, **asked).summary["model"] for path in (made / "whole.gguf", first))
    assert cut["runtime"].startswith("llama.cpp ") and cut["text"] == whole["text"]


@pytest.mark.parametrize(
    ("options", "name", "told"),
    [
        ({"type": "q8_0", "max_shard_size": "large"}, "x.gguf", "--max-shard-size: 'large' is not a size"),
        ({"type": "q8_0"}, "x-00001-of-00002.gguf", r"is the name of a shard\. Give -o x\.gguf"),
        ({"type": "q8_0"}, "cut.gguf", r"cut-00001-of-00003\.gguf: the output exists, in shards\. Choose another -o"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(
    options: dict[str, Any], name: str, told: str, first: Path, tmp_path: Path
) -> None:
    shutil.copyfile(first, tmp_path / first.name)
    with pytest.raises(RecipeError, match=told):
        library.plan(DEMO, tmp_path / name, method="rtn", **{"max_shard_size": "1MB", **options})
    assert [path.name for path in tmp_path.iterdir()] == [first.name]


def test_folders_come_in_shards_of_the_same_size(tmp_path: Path) -> None:
    job = library.plan(DEMO, tmp_path / "out", method="rtn", bits=8, max_shard_size="1MB")
    files = job.summary["files"]
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert f"  {len(files)} files of at most 1.0 MB each" in str(job)
