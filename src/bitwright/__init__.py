"""Bitwright makes neural networks small and says, honestly, what every bit cost.

    import bitwright as bw
    result = bw.quantize("model", "out", bits=4, calib="text.jsonl")

The functions are those of `bitwright.library`, which is loaded when one of them is first used: importing the package
alone costs nothing.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitwright.library import (
        check,
        distil,
        imatrix,
        measure,
        open,  # noqa: A004
        plan,
        prune,
        push,
        quantize,
        report,
        run,
        sweep,
    )

# From 1.29 on ONNX Runtime reports every session to its makers, with the model's name and hashes; a process that opened
# hundreds of them waits for the upload when it exits. It reads this when it is first imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "check",
    "distil",
    "imatrix",
    "measure",
    "open",
    "plan",
    "prune",
    "push",
    "quantize",
    "report",
    "run",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name.startswith("_") or name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bitwright import library

    return getattr(library, name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
