"""Where the tensors of a folder go: laid out to the byte before any is written, and taken over from a trial."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bitwright.engine.journal import Journal
from bitwright.engine.write import Writer
from bitwright.errors import CertificationError
from bitwright.models.language.model import TRIAL, sink_of
from bitwright.models.model import Plan
from tests import jobs, tiny


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make("llama", tmp_path_factory.mktemp("sink") / "llama", num_hidden_layers=1)


def written(plan: Plan) -> Writer:
    plan.partial.mkdir(parents=True, exist_ok=True)
    made = Writer(plan, Journal(plan.partial, "job"))
    list(made.run(None))
    return made


def test_sizes_are_known_before_and_damage_is_named(llama: Path, tmp_path: Path) -> None:
    plan = jobs.made(llama, tmp_path / "out", layer={"method": "rtn", "group": 32, "symmetric": False})
    sink, wanted = sink_of(plan), plan.sink.final_bytes
    made = written(plan)
    [path] = plan.partial.glob("*.safetensors")
    assert path.stat().st_size == wanted
    assert set(made.sums) == set(sink.layout.place) and sink.intact(made.sums)
    sink.require_intact(made.sums)
    name = "model.layers.0.mlp.up_proj.weight_zero_point"
    _, offset, _ = sink.layout.place[name]
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    assert not sink.intact({name: made.sums[name]}) and sink.intact({"lm_head.weight": made.sums["lm_head.weight"]})
    assert not sink.intact({"another.layout": 1})
    with pytest.raises(CertificationError, match=name):
        sink.require_intact(made.sums)


def test_a_trials_matrices_are_taken_over_as_they_are(llama: Path, tmp_path: Path) -> None:
    calibration = {"heldout": "stdlib", "source": "stdlib", "windows": 4, "length": 32, "heldout_windows": 2}
    layer = {"method": "rtn", "group": 32, "symmetric": False}
    plan = jobs.made(llama, tmp_path / "out", layer=layer, calibration=calibration, max_drop=1.0)
    assert sink_of(plan).folder == plan.partial / TRIAL
    made = written(plan)
    names = list(plan.items)
    attempt = plan.without(names[:2], "why")
    assert attempt.sink is plan.sink, "an attempt reads what the trial wrote"
    final = replace(attempt, decided=True, attempt_of=None)
    assert sink_of(final).folder == plan.partial and not final.trial
    last = Writer(final, made.journal, "final:")
    last.adopt(made)
    assert last.done == names[2:] and sink_of(final).intact(last.sums)
    for name, crc in last.sums.items():
        if name in made.sums:
            assert crc == made.sums[name]
            mine, other = (sink_of(p).layout.read(sink_of(p).folder, name) for p in (final, plan))
            assert torch.equal(mine, other)
    assert set(names[:2]) <= set(last.sums), "what stays float is copied"
