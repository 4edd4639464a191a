"""A whole float file from a folder, by the parts of the container."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType, LlamaFileType, quants
from gguf.gguf_writer import GGUFValue
from transformers import AutoConfig

from bitwright.files.containers.gguf import header, names, tokenizer
from bitwright.files.containers.gguf.layout import Layout, Spec
from bitwright.files.safetensors import Checkpoint

F32, BF16 = GGMLQuantizationType.F32, GGMLQuantizationType.BF16


def floats(
    folder: Path, into: Path, pre: str | None = None, most: int | None = None, more: dict[str, str] | None = None
) -> Layout:
    """Write the model in `folder` as the file `into`, in BF16 as the converter does it; `more` metadata are texts."""
    config = AutoConfig.from_pretrained(folder).to_dict()
    checkpoint = Checkpoint(folder)
    targets = names.targets(config, {name: entry.shape for name, entry in checkpoint.tensors.items()})
    facts = header.facts(folder, config, targets, LlamaFileType.MOSTLY_BF16) | tokenizer.facts(folder, config, pre)
    facts |= {key: GGUFValue(text, GGUFValueType.STRING) for key, text in (more or {}).items()}
    layout = Layout(into.name, facts, [Spec(t.name, BF16 if t.quantizable else F32, t.shape) for t in targets], most)
    layout.create(into.parent)
    for target in targets:
        total = 0
        if not target.quantizable:
            values = target.whole(checkpoint.read)
            total = layout.write(into.parent, target.name, values.reshape(-1, target.shape[-1]))
        for piece in target.pieces if target.quantizable else ():
            values = checkpoint.read(piece.source).float().numpy().reshape(-1, target.shape[-1])
            places = piece.places(0, len(values))
            data = quants.quantize(np.ascontiguousarray(values[places >= 0]), BF16)
            total = layout.write(into.parent, target.name, data, places[places >= 0], total)
        assert layout.checksum(into.parent, target.name) == total
    return layout
