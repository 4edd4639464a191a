"""Running block by block gives the model's own logits, for every architecture, with no code that knows it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from bitwright.models.language.activations import Activations
from bitwright.models.language.arch import Architecture
from bitwright.models.language.blocks import Decoder, Passage
from bitwright.models.language.watch import Recorder, addresses
from tests import tiny


@pytest.mark.parametrize("kind", [*tiny.CONFIGS, *tiny.STACKED])
def test_logits_equal_the_whole_model(kind: str, tmp_path: Path) -> None:
    folder = tiny.make(kind, tmp_path / kind)
    ids = torch.randint(1, 1000, (3, 40), generator=torch.Generator().manual_seed(1))
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = reference(ids).logits

    arch = Architecture.open(folder)
    decoder, passage = Decoder(arch), Passage(ids)
    hidden = decoder.enter(passage)
    seen: dict[str, int] = {}
    for block in range(arch.count):
        mine = [m for m in arch.quantizable() if m.block == block]
        with decoder.loaded(block) as module, Recorder(addresses(module, f"{arch.blocks}.{block}", mine)) as recorder:
            hidden = decoder.run(block, hidden, passage)
        seen |= {name: recorder.stats[leader].n for name, leader in recorder.leader.items()}
        assert all(p.device.type == "meta" for p in module.parameters())
    torch.testing.assert_close(decoder.logits(hidden), expected, rtol=2e-4, atol=2e-4)

    dense = [m for m in arch.quantizable() if m.expert is None]
    assert dense, "an architecture without a single dense matrix"
    assert all(seen[m.name] == ids.numel() for m in dense)
    experts = [m for m in arch.quantizable() if m.expert is not None]
    if "num_experts_per_tok" in str(tiny.CONFIGS.get(kind)):
        assert len(experts) == 2 * 4 * 3
        assert sum(seen.get(m.name, 0) for m in experts) == ids.numel() * 2 * 3 * arch.count


def test_activations_spill_to_disk_and_come_back(tmp_path: Path) -> None:
    batches = [torch.randn(2, 3, 4).to(torch.bfloat16) for _ in range(5)]
    store = Activations(budget=2 * batches[0].nbytes, folder=tmp_path)
    for batch in batches:
        store.append(batch)
    assert len(list(tmp_path.iterdir())) == 1
    for i in (4, 0, 3):
        store[i] = batches[i] * 2
    for i, batch in enumerate(batches):
        expected = batch * 2 if i in (4, 0, 3) else batch
        assert torch.equal(store[i], expected)
