"""The content proves itself, and the proof can fail."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bitwright.authoring.folder import CONTENT
from bitwright.authoring.library import Library
from bitwright.authoring.proof import links, prove, wants
from bitwright.cli import app
from bitwright.errors import InputError

LIBRARY = Library(CONTENT, CONTENT)


@pytest.mark.parametrize("slug", LIBRARY.lessons)
def test_a_lesson_is_sound(compiled: Path, slug: str) -> None:
    findings = list(prove(Library(CONTENT, compiled), [slug]))
    assert [f.detail for f in findings if not f.good] == []
    assert len(findings) == 1


def test_the_quantization_chapter_is_whole() -> None:
    chapters = {chapter.slug: chapter.lessons for chapter in LIBRARY.chapters}
    assert list(chapters) == ["numbers", "quantization", "pruning", "distillation", "deployment"]
    assert len(chapters["quantization"]) == 12 and len(chapters["numbers"]) == 2


def test_every_lesson_is_computed_from_the_engine() -> None:
    for slug in LIBRARY.lessons:
        source = (LIBRARY.lesson_folder(slug) / "numbers.py").read_text("utf-8")
        assert "bitwright.core" in source or "bitwright.methods" in source, slug
        assert "lab." in source, f"{slug} uses no real weights"


def test_faults_are_found(compiled: Path) -> None:
    library = Library(CONTENT, compiled)
    slug = LIBRARY.lessons[0]
    good = library.page(slug)
    assert good is not None
    assert wants(good) == [] and links(library, good) == []
    assert wants({**good, "figures": []}) == ["has no figure"]
    assert wants({**good, "lead": "x" * 241}) == ["its lead has 241 characters, more than 240"]
    assert "answer 9 of 2" in wants({**good, "questions": [{"id": "q", "answer": 9, "options": ["a", "b"]}]})[0]
    broken = {**good, "html": good["html"] + '<a href="/learn/nowhere">x</a><a href="#gone">y</a><img src="z.png">'}
    assert links(library, broken) == [
        "picture z.png has no text alternative",
        "link to /learn/nowhere leads nowhere",
        "link to #gone leads nowhere",
    ]


def test_a_lesson_outside_the_plan_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "content"
    (folder / "lessons" / "stray").mkdir(parents=True)
    shutil.copy(CONTENT / "features.toml", folder)
    (folder / "chapters.toml").write_text('title = "P"\nsummary = "S"\nchapters = []\n')
    (finding,) = prove(Library(folder, tmp_path / "cache"))
    assert not finding.good and "stands in no chapter" in finding.detail


def test_an_unknown_lesson_is_an_error_with_a_name() -> None:
    with pytest.raises(InputError, match="no lesson is called 'nowhere'"):
        list(prove(LIBRARY, ["nowhere"]))
    result = CliRunner().invoke(app, ["content", "check", "nowhere"])
    assert result.exit_code == 2 and "nowhere" in result.output
