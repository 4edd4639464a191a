"""A student comes nearer to its teacher, whatever stops it on the way, and never loses its best weights."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from bitwright.errors import TrainingError
from bitwright.models.language.distillation import training
from bitwright.models.language.distillation.lessons import Objective
from bitwright.models.language.distillation.state import BEST, STATE, Keeper, Record
from bitwright.models.language.distillation.student import Student
from bitwright.models.language.distillation.training import Course, Step, train
from tests.models.language.distillation.lessons import School, finish

COURSE = Course(steps=40, batch=4, rate=2e-3, seed=3)


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> School:
    return School(tmp_path_factory.mktemp("school"), Objective())


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def learn(school: School, folder: Path, course: Course = COURSE) -> tuple[Student, Record]:
    folder.mkdir(exist_ok=True)
    student = school.student()
    return student, finish(train(student, school.lessons, school.judge, course, Keeper(folder)))


def test_it_comes_nearer(school: School, tmp_path: Path) -> None:
    student, record = learn(school, tmp_path)
    first, (step, least) = record.looks[0][1], record.best
    assert least < 0.9 * first and step > 0
    assert school.judge.kl(student) == pytest.approx(least, rel=1e-6)
    assert record.step == 40 and len(record.looks) == 21


@pytest.mark.parametrize(
    "objective",
    [
        Objective("reverse"),
        Objective("jensen-shannon", temperature=2.0),
        Objective("forward", temperature=2.0),
        Objective("forward", labels=0.2, hidden=1.0),
    ],
    ids=lambda o: f"{o.divergence}-{o.temperature:g}-{o.labels:g}-{o.hidden:g}",
)
def test_so_it_does_with_each_loss(objective: Objective, tmp_path: Path) -> None:
    _, record = learn(School(tmp_path, objective, exact=True), tmp_path / "kept")
    assert record.best[1] < 0.95 * record.looks[0][1]


def test_a_drawn_cache_has_the_loss_of_an_exact_one(school: School, tmp_path: Path) -> None:
    exact = School(tmp_path, Objective(), exact=True)
    student, numbers = school.student(), [*range(24)]
    drawn = float(school.lessons.loss(student, numbers).detach())
    assert drawn == pytest.approx(float(exact.lessons.loss(student, numbers).detach()), rel=0.1)


def test_labels_alone_need_no_teacher(school: School) -> None:
    student, numbers = school.student(), [0, 1]
    lessons = replace(school.lessons, cache=None, objective=Objective(labels=1.0))
    ids = lessons.windows[numbers]
    wanted = student.network(input_ids=ids, labels=ids).loss
    assert float(lessons.loss(student, numbers).detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)


def test_pieces_add_up(school: School, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slopes of a batch in pieces are those of the whole."""
    whole, apart = school.student(), school.student()
    assert len(school.lessons.pieces([*range(6)], 1024)) == 1
    school.lessons.loss(whole, [*range(6)]).backward()  # type: ignore[no-untyped-call]
    monkeypatch.setattr("bitwright.models.language.distillation.lessons.AT_ONCE", 4 * 12 * 1024)
    pieces = school.lessons.pieces([*range(6)], 1024)
    assert pieces == [[0, 1, 2, 3], [4, 5]]
    for piece in pieces:
        (school.lessons.loss(apart, piece) * (len(piece) / 6)).backward()  # type: ignore[no-untyped-call]
    for one, other in zip(whole.parameters(), apart.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        assert torch.allclose(one.grad, other.grad, atol=1e-6)


@pytest.mark.parametrize("stop", [1, 3, 17, 40])
def test_it_goes_on_exactly(school: School, tmp_path: Path, stop: int) -> None:
    """Stopped after any step, also before anything is kept: the same losses and weights to the last bit."""
    wanted, record = learn(school, tmp_path / "whole")
    (tmp_path / "kept").mkdir()
    stopped = train(school.student(), school.lessons, school.judge, COURSE, Keeper(tmp_path / "kept"))
    before = [*islice(stopped, stop + 1)]
    stopped.close()
    kept = Keeper(tmp_path / "kept")
    student = school.student()
    steps: list[Step] = []
    going = train(student, school.lessons, school.judge, COURSE, kept)
    while True:
        try:
            steps.append(next(going))
        except StopIteration as end:
            assert end.value == record
            break
    assert steps[: stop + 1] == before
    assert [step.loss for step in steps[1:]] == record.losses
    for one, other in zip(student.parameters(), wanted.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_half_written_file_is_no_harm(school: School, tmp_path: Path) -> None:
    wanted, record = learn(school, tmp_path / "whole")
    folder = tmp_path / "kept"
    folder.mkdir()
    going = train(school.student(), school.lessons, school.judge, COURSE, Keeper(folder))
    [*islice(going, 10)]
    going.close()
    (folder / f"{STATE}.new").write_bytes(b"half")
    (folder / f"{BEST}.new").write_bytes(b"half")
    student, again = learn(school, folder)
    assert again == record
    assert all(torch.equal(a, b) for a, b in zip(student.parameters(), wanted.parameters(), strict=True))
    Keeper(folder).remove()
    assert not [*folder.iterdir()]


def test_patience_ends_it(school: School, tmp_path: Path) -> None:
    """With a rate that only harms, it ends after so many looks, with the weights that it began with."""
    student, record = learn(school, tmp_path, replace(COURSE, rate=3.0, patience=2))
    assert record.best[0] == 0 and len(record.looks) == 3 and record.step < 40
    assert all(torch.equal(a, b) for a, b in zip(student.parameters(), school.student().parameters(), strict=True))


def test_a_loss_that_is_not_finite(school: School, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops, names the step, and the weights of the best look are kept."""
    plain, calls = training.Lessons.loss, Counter[str]()

    def loss(self: training.Lessons, student: Student, numbers: list[int]) -> torch.Tensor:
        calls["loss"] += 1
        return plain(self, student, numbers) * (math.nan if calls["loss"] == 8 else 1.0)

    monkeypatch.setattr(training.Lessons, "loss", loss)
    with pytest.raises(
        TrainingError, match=r"NaN at step 8 of 40\. Lower --rate, now 0\.002; .*best\.pt holds"
    ) as caught:
        learn(school, tmp_path)
    assert caught.value.exit_code == 5
    best = torch.load(tmp_path / BEST, weights_only=True)
    assert all(bool(tensor.isfinite().all()) for tensor in best.values())
    state = torch.load(tmp_path / STATE, weights_only=True)
    assert len(state["losses"]) == 6 and all(map(math.isfinite, state["losses"]))


def test_a_rate_that_is_far_too_high_is_named(school: School, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="Lower --rate, now 1e\\+30"):
        learn(school, tmp_path, replace(COURSE, rate=1e30))


def test_each_window_comes_once_before_one_comes_again() -> None:
    course = Course(steps=9, batch=4, seed=1)
    seen = [window for step in range(9) for window in course.windows(step, 12)]
    assert all(sorted(seen[start : start + 12]) == [*range(12)] for start in (0, 12, 24))
    assert seen[:12] != seen[12:24]
    assert seen[:12] != [w for step in range(3) for w in replace(course, seed=2).windows(step, 12)]


def test_rates_rise_and_fall() -> None:
    course = Course(steps=100, rate=0.1, warmup=0.1)
    rates = [course.rate_at(step) for step in range(100)]
    assert rates[9] == rates[10] == max(rates) == 0.1 and rates[0] == pytest.approx(0.01)
    assert rates[10:] == sorted(rates[10:], reverse=True) and 0 < rates[-1] < 1e-3
    assert Course(steps=1, rate=0.1).rate_at(0) > 0
