"""Embeddings and raw detectors through the command line: what the verdict says, and one line for a wrong setup."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from bitwright.cli import app
from tests.models.samples import sources
from tests.networks import Net

QUANTIZE = "quantize {tmp}/net.onnx -o {tmp}/out.onnx --calib {tmp}/data --recipe {tmp}/recipe.toml --method rtn"


def run(command: str, tmp: Path) -> Any:
    return CliRunner().invoke(app, command.format(tmp=tmp).split())


def certificate(tmp: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp / "out.certificate.json").read_text())
    return found


def encoder(width: int = 12, pool: bool = True) -> onnx.ModelProto:
    """Pictures [batch, 3, 16, 16] to embeddings [batch, width]; without `pool`, one for each place."""
    n = Net()
    x = n.add("Relu", n.conv("x", 3, 16))
    x = n.add("Relu", n.conv(x, 16, 16, strides=[2, 2]))
    if not pool:
        return n.model({"x": ["batch", 3, 16, 16]}, [n.conv(x, 16, width, 1)])
    x = n.add("Flatten", n.add("GlobalAveragePool", x))
    return n.model({"x": ["batch", 3, 16, 16]}, [n.add("Gemm", x, n.weight(width, 16), transB=1)])


def faces(folder: Path, people: int = 6, each: int = 6) -> Path:
    """A folder per person: the same pattern each, and a little noise."""
    image = pytest.importorskip("PIL.Image")
    for person in range(people):
        rng = np.random.default_rng(person)
        face = rng.integers(0, 256, (4, 4, 3)).repeat(4, 0).repeat(4, 1)
        for i in range(each):
            pixels = np.clip(face + rng.normal(0, 12, face.shape), 0, 255).astype(np.uint8)
            path = folder / f"person{person}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.fromarray(pixels).save(path)
    return folder


MATCH = '[data]\ntask = "match"\nsamples = 12\n'


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("match")
    onnx.save(encoder(), folder / "net.onnx")
    faces(folder / "data")
    (folder / "recipe.toml").write_text(MATCH)
    done = run(QUANTIZE, folder)
    assert done.exit_code == 0, done.output
    (folder / "said.txt").write_text(done.output)
    return folder


def test_embeddings_are_judged_by_cosine_and_pairs(embedded: Path) -> None:
    assert "verified on 36 pairs of one identity and 36 of two" in (embedded / "said.txt").read_text()
    found = certificate(embedded)
    verdict, heldout = found["verdict"], found["data"]["heldout"]
    assert heldout["pairs"] == {"same": 36, "different": 36, "file": None, "most": 3000}
    assert (heldout["samples"], heldout["identities"], heldout["seed"]) == (24, 6, 0)
    assert "pairs" not in found["data"]["calibration"], "only the verdict needs them"
    assert verdict["pairs"] == 72 and verdict["match_float"] > 0.9
    assert verdict["cosine"] > 0.99 >= verdict["cosine_worst"] - 0.01
    assert verdict["match_change"] == pytest.approx(verdict["match_quantized"] - verdict["match_float"])
    assert "tar_float" not in verdict, "36 pairs are too few for one in a hundred"
    words = run("report {tmp}/out.onnx --format md", embedded).stdout
    for text in (
        "mean cosine 0.99",
        "Accuracy of verification",
        "EER (equal error rate)",
        "36 pairs of one identity and 36 of",
    ):
        assert text in words
    assert "cosine of" in run("report {tmp}/out.onnx --format html", embedded).stdout


def test_measure_makes_the_same_pairs(embedded: Path) -> None:
    command = "measure {tmp}/net.onnx {tmp}/out.onnx --heldout {tmp}/data --recipe {tmp}/recipe.toml"
    found = json.loads(run(f"{command} --json", embedded).stdout.splitlines()[-1])
    assert found["pairs"] == 180, "all of 36 pictures: the recipe's number is calibration's"
    again = json.loads(run(f"{command} --json", embedded).stdout.splitlines()[-1])
    assert again == found
    assert "verification" in run(command, embedded).stdout


def test_pairs_from_a_file(embedded: Path, tmp_path: Path) -> None:
    lines = [f"person{i}/0.png person{i}/1.png 1" for i in range(6)]
    lines += [f"person{i}/0.png person{(i + 1) % 6}/1.png 0" for i in range(6)]
    (tmp_path / "pairs.txt").write_text("\n".join(lines))
    (tmp_path / "recipe.toml").write_text(f'{MATCH}[data.match]\npairs = "{tmp_path}/pairs.txt"\n')
    command = (
        f"measure {embedded}/net.onnx {embedded}/out.onnx --heldout {embedded}/data --recipe {{tmp}}/recipe.toml --json"
    )
    assert json.loads(run(command, tmp_path).stdout.splitlines()[-1])["pairs"] == 12


def test_the_drop_is_of_verification(embedded: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(MATCH)
    onnx.save(encoder(), tmp_path / "net.onnx")
    faces(tmp_path / "data")
    done = run(f"{QUANTIZE} --max-drop 20", tmp_path)
    assert done.exit_code == 0, done.output
    assert certificate(tmp_path)["data"]["calibration"]["pairs"]["same"] > 1


def one_identity(tmp: Path) -> None:
    faces(tmp / "data", 1, 20)


def one_file_each(tmp: Path) -> None:
    faces(tmp / "data", 20, 1)


def maps(tmp: Path) -> None:
    faces(tmp / "data")
    onnx.save(encoder(pool=False), tmp / "net.onnx")


def recipe(text: str) -> Callable[[Path], None]:
    def write(tmp: Path) -> None:
        faces(tmp / "data")
        (tmp / "recipe.toml").write_text(text)

    return write


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (one_identity, ("{tmp}/data: ", "one identity", "at least two")),
        (one_file_each, ("{tmp}/data: ", "one sample each", "two samples or more")),
        (maps, ("[1, 12, 8, 8]", "one row per sample", "data.task")),
        (recipe(MATCH + "[data.match]\noutput = 'face'"), ("data.match.output: no output is called 'face'", "Known: ")),
        (recipe(MATCH + "[data.match]\npairs = 'none.txt'"), ("none.txt: cannot be read",)),
        (recipe(MATCH + "[data.match]\npair = 'x'"), ("unknown option 'pair'", "Did you mean pairs?")),
        (recipe(MATCH.replace("match", "matches")), ("data.task", "Did you mean match?")),
        (recipe('[data]\ntask = "words"\nclasses = ["a", "b"]\n'), ("data.classes: ", "[1, 12]", "2 words or symbols")),
    ],
)
def test_a_wrong_setup_is_one_line(damage: Callable[[Path], None], words: tuple[str, ...], tmp_path: Path) -> None:
    onnx.save(encoder(), tmp_path / "net.onnx")
    (tmp_path / "recipe.toml").write_text(MATCH)
    damage(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    for command in (QUANTIZE, QUANTIZE.replace("quantize", "plan").replace("-o {tmp}/out.onnx ", "")):
        done = run(command, tmp_path)
        assert done.exit_code == 2, done.output
        assert done.stderr.startswith("bitwright: ") and done.stderr.count("\n") == 1
        for word in words:
            assert word.format(tmp=tmp_path) in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_without_folders_cosines_are_all_there_is(tmp_path: Path) -> None:
    onnx.save(encoder(), tmp_path / "net.onnx")
    for i in range(20):
        sources.save_image(tmp_path / "data" / f"{i}.png", 16, 16, seed=i)
    (tmp_path / "recipe.toml").write_text(MATCH)
    done = run(QUANTIZE, tmp_path)
    assert done.exit_code == 0, done.output
    verdict = certificate(tmp_path)["verdict"]
    assert verdict["cosine"] > 0.9 and "match_float" not in verdict
    assert "--max-drop" not in done.output
    refused = run(f"{QUANTIZE} --max-drop 1".replace("out.onnx", "new.onnx"), tmp_path)
    assert refused.exit_code == 2 and "no labels to measure a drop with" in refused.stderr


def test_identities_are_no_classes_to_learn(tmp_path: Path) -> None:
    """More people than numbers in an embedding: a method that trains takes the float network for its teacher."""
    onnx.save(encoder(width=8), tmp_path / "net.onnx")
    faces(tmp_path / "data", people=10, each=3)
    (tmp_path / "recipe.toml").write_text(MATCH + '[layer]\nmethod = "lsq"\n[layer.options]\nepochs = 1\n')
    done = run(QUANTIZE.replace(" --method rtn", ""), tmp_path)
    assert done.exit_code == 0, done.output
    assert certificate(tmp_path)["verdict"]["pairs"] >= 4


# ---- raw detectors --------------------------------------------------------------------------


def detector(classes: int = 2, objectness: bool = False, rows: bool = False) -> onnx.ModelProto:
    """A raw head as YOLO's over pictures [batch, 3, 16, 16]: 16 cells, boxes of about 8 pixels around their centres."""
    n = Net()
    x = n.add("Relu", n.conv("x", 3, 16, strides=[2, 2]))
    x = n.add("Relu", n.conv(x, 16, 16, strides=[2, 2]))
    flat = n.value([0, 0, -1], np.int64)
    boxes = n.add("Reshape", n.conv(x, 16, 4, 1), flat)
    y, x_ = np.mgrid[2:16:4, 2:16:4]
    grid = np.stack([x_.ravel(), y.ravel(), np.full(16, 8), np.full(16, 8)])[None].astype(np.float32)
    boxes = n.add("Add", boxes, n.value(grid))
    scores = n.add("Sigmoid", n.add("Reshape", n.conv(x, 16, classes + objectness, 1), flat))
    out = n.add("Concat", boxes, scores, axis=1)
    if rows:
        out = n.add("Transpose", out, perm=[0, 2, 1])
    return n.model({"x": ["batch", 3, 16, 16]}, [out])


def coco(folder: Path, count: int = 24) -> Path:
    """A COCO folder of noise, two boxes each."""
    for i in range(count):
        sources.save_image(folder / "images" / f"{i}.png", 16, 16, seed=i)
    rng = np.random.default_rng(0)
    rows = []
    for i in range(2 * count):
        x, y = rng.integers(0, 8, 2).tolist()
        rows.append({"id": i, "image_id": i // 2, "category_id": i % 2, "bbox": [x, y, 8, 8], "area": 64, "iscrowd": 0})
    table = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 16, "width": 16} for i in range(count)],
        "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
        "annotations": rows,
    }
    (folder / "instances.json").write_text(json.dumps(table))
    return folder


RAW = '[data.detection]\nboxes = "cxcywh"\n'


@pytest.mark.parametrize(
    ("form", "text"), [({}, RAW), ({"objectness": True, "rows": True}, RAW + "objectness = true\nnms = 0.6\n")]
)
def test_a_raw_head_is_judged_by_map(form: dict[str, bool], text: str, tmp_path: Path) -> None:
    onnx.save(detector(**form), tmp_path / "net.onnx")
    coco(tmp_path / "data")
    (tmp_path / "recipe.toml").write_text(text + "pictures = 2\n")
    done = run(QUANTIZE, tmp_path)
    assert done.exit_code == 0, done.output
    found = certificate(tmp_path)
    verdict = found["verdict"]
    assert verdict["task"] == "detect" and verdict["objects"] == 2 * verdict["images"]
    assert 0 < verdict["map_float"] < 1 and abs(verdict["map_change"]) < 0.2
    assert 0.8 < verdict["boxes_agreement"] <= 1
    shown = found["pictures"]["shown"]
    assert len(shown) == 2 and found["pictures"]["score"] == 0.25
    names = {row[4] for row in shown[0]["truth"]}
    assert names <= {"cat", "dog"} and all(len(row) == 6 for row in shown[0]["float"] + shown[0]["quantized"])
    page = run("report {tmp}/out.onnx --format html", tmp_path).stdout
    assert page.count("data:image/jpeg;base64,") == 2 and page.count("<use ") == 4
    assert shown[1]["name"] in page and "What it finds" in page


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("no boxes found in outputs", "[data.detection]")),
        (RAW + "objectness = true\n", ("7 values each (4 + 3)", "[1, 6, 16]")),
        (RAW + "relative = true\n", ("are not shares of the input",)),
        (RAW + 'layout = "rows"\n', ("no boxes with 6 values each", "1 images")),
        ('[data.detection]\nobjectness = true\n', ("data.detection: objectness is for a raw head",)),
        (RAW + "nms = 1.5\n", ("data.detection.nms", "got 1.5")),
    ],
)  # fmt: skip
def test_a_head_that_is_not_as_told_is_one_line(text: str, words: tuple[str, ...], tmp_path: Path) -> None:
    onnx.save(detector(), tmp_path / "net.onnx")
    coco(tmp_path / "data")
    (tmp_path / "recipe.toml").write_text(text)
    done = run(QUANTIZE, tmp_path)
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("bitwright: ") and done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr
    assert not list(tmp_path.glob("out*"))


def test_pictures_of_arrays_are_refused(tmp_path: Path) -> None:
    onnx.save(detector(), tmp_path / "net.onnx")
    x = np.random.default_rng(0).normal(size=(20, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x)
    told = '[data]\ntask = "detect"\nclasses = ["cat", "dog"]\n' + RAW
    (tmp_path / "recipe.toml").write_text(told + "pictures = 1\n")
    command = QUANTIZE.replace("{tmp}/data", "{tmp}/data.npz")
    done = run(command, tmp_path)
    assert done.exit_code == 2 and "data.detection.pictures: " in done.stderr and "no pictures" in done.stderr
    (tmp_path / "recipe.toml").write_text(told)
    done = run(command, tmp_path)
    assert done.exit_code == 0, done.output
    verdict = certificate(tmp_path)["verdict"]
    assert verdict["boxes_agreement"] > 0.8 and "map_float" not in verdict, "without boxes the two are compared"
