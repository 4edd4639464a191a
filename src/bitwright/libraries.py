"""Loads what the engine stands on: quickly, and quietly where asked."""

from __future__ import annotations

import gc
import os
from functools import cache


@cache
def load() -> None:
    """Import torch and transformers, in two thirds of the time it takes by itself, without their bars and warnings.

    Call it before anything else imports NumPy.
    """
    # Nothing here is compiled, but compressed-tensors marks a function for it: torch would import its compiler.
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    # NumPy only visits columns one by one; more threads would wait for one another most of the time.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.disable()  # imports leave no garbage, and looking for it among so many new objects takes over a second
    import transformers.modeling_utils  # noqa: F401
    from transformers.utils import logging

    gc.freeze()
    gc.enable()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
