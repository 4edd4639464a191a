"""Loads what the engine stands on, quietly."""

from __future__ import annotations

import gc
import os
from functools import cache, partialmethod


@cache
def load() -> None:
    """Import torch and transformers once, without bars and warnings of their own."""
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # nothing here is compiled: its compiler need not be imported
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.disable()  # imports leave no garbage, and looking for it among so many new objects takes over a second
    import transformers.modeling_utils  # noqa: F401
    from tqdm import tqdm  # type: ignore[import-untyped]
    from transformers.utils import logging

    gc.freeze()
    gc.enable()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)
