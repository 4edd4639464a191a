"""A written float folder, read back by the libraries that people load it with."""

from __future__ import annotations

import gc
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from bitwright import machine
from bitwright.core.measure import kl
from bitwright.errors import CertificationError
from bitwright.files.folder import load_in_transformers, without_bars
from bitwright.files.safetensors import Layout, view_bytes
from bitwright.models.language.blocks import Unchained, release, running
from bitwright.models.language.compare import decoder_of
from bitwright.models.language.memory import LOAD_LIMIT, LOADED
from bitwright.models.language.verify import LOGIT_TOLERANCE, answers

REPORT = "Please report this; the partial output was kept"


def by_safetensors(layout: Layout, folder: Path, sums: Mapping[str, int]) -> None:
    """Raise CertificationError where the safetensors library reads other bytes than those of CRC-32 `sums`."""
    seen = set()
    for file in layout.files:
        with safe_open(folder / file, "pt") as stored:
            for name in stored.keys():  # noqa: SIM118 - it is no mapping
                tensor = stored.get_tensor(name)
                spec = layout.place[name][2]
                if tuple(tensor.shape) != spec.shape or zlib.crc32(view_bytes(tensor.contiguous())) != sums.get(name):
                    raise CertificationError("the safetensors library reads it differently", where=name, fix=REPORT)
                seen.add(name)
    if missing := layout.place.keys() - seen:
        raise CertificationError("the safetensors library does not find it", where=min(missing), fix=REPORT)


def by_transformers(folder: Path, ids: torch.Tensor, weights: int, room: int) -> dict[str, Any]:
    """What happens when transformers loads a folder of `weights` numbers and answers to `ids` [batch, tokens].

    Skipped, and said so, where `room` bytes of memory would not hold it. Raises CertificationError where it cannot
    load it, or answers unlike our own decoder.
    """
    if machine.resident() + LOADED * weights > room:
        return {"checked": False, "why": "the whole model does not fit under the memory ceiling"}
    if 4 * weights > LOAD_LIMIT:
        return {"checked": False, "why": "every tensor was read instead: loading so large a model takes minutes"}
    decoder = decoder_of(folder)
    with torch.no_grad(), without_bars(), running(decoder.arch):
        model = load_in_transformers(folder)
        theirs = model(input_ids=ids, use_cache=False).logits
    del model
    gc.collect()  # a model refers to itself
    release()
    try:
        divergence = float(kl(theirs, answers(decoder, ids)).max())
    except Unchained as error:
        return {"checked": False, "why": f"transformers loads it; answers were not compared: {error.what}"}
    finally:
        decoder.close()
    if not divergence <= LOGIT_TOLERANCE:
        what = f"transformers loads the folder but answers differently (KL {divergence:.2g} nats)"
        raise CertificationError(what, where=str(folder), fix=REPORT)
    return {"checked": True, "max_kl": divergence}
