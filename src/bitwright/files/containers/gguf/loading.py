"""A GGUF file as transformers loads it: blocks read by gguf-py, weights as floats."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from bitwright.errors import CertificationError, ModelError
from bitwright.files import gguf
from bitwright.files.containers.gguf.checkpoint import file_in
from bitwright.files.containers.gguf.config import config_of
from bitwright.files.containers.gguf.joined import joined


def load(folder: Path) -> Any | None:
    """The network in float32; None where transformers does not read this architecture.

    Its config is ours: what transformers makes of metadata lacks what runtimes take for granted.

    Raises CertificationError where it cannot be loaded although it should.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

    file = file_in(folder)
    found = gguf.read(file)
    try:
        given = {key: value for key, value in config_of(found).items() if key not in gguf.MARK}
    except ModelError:  # it says nothing that a network could be built from
        return None
    if given["model_type"].removesuffix("_text") not in GGUF_CONFIG_MAPPING:
        return None
    config = AutoConfig.for_model(**given)
    try:
        with joined(file) as whole:  # transformers knows no shards
            model = AutoModelForCausalLM.from_pretrained(
                whole.parent,
                gguf_file=whole.name,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
            )
    except (AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CertificationError(
            f"transformers {version('transformers')} cannot load the file "
            f"({type(error).__name__}: {str(error).splitlines()[0]})",
            where=str(file),
            fix="The bytes are right, and this release does not load them: try another release of transformers",
        ) from error
    return model.eval()
