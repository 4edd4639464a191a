"""Pictures everyone can have: scikit-learn's handwritten digits, for the bundled vision demo.

1,797 grey images of 8 x 8 pixels, values 0 .. 16, that come inside the scikit-learn package (E. Alpaydin and
C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998, CC BY 4.0); nothing is
downloaded. The parts are runs of the file's order, so that one part's images were not written between another's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from bitwright.errors import DataError

Part = Literal["train", "calibration", "test"]
PARTS: dict[str, slice] = {
    "train": slice(0, 1041),
    "calibration": slice(1041, 1297),
    "test": slice(1297, 1797),
}
"""Indices into `load_digits()`: 1,041 images to learn from, 256 to calibrate with, 500 to judge by."""
CLASSES = tuple("0123456789")
MODEL = Path(__file__).parents[2] / "content" / "digits" / "model.onnx"
"""The bundled network; see the card beside it."""
INPUT = "image"


def read(part: Part) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """(images float32 [n, 1, 8, 8] in 0 .. 1, labels int64 [n]) of one part, ready to be fed as `INPUT`.

    Raises DataError for another part, or where scikit-learn is not installed.
    """
    if part not in get_args(Part):
        raise DataError(f"no part of the digits is called {part!r}", fix=f"Choose one of {', '.join(PARTS)}")
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]
    except ImportError as error:
        raise DataError(
            "the handwritten digits come with scikit-learn, which is not installed", fix="pip install scikit-learn"
        ) from error
    data: Any = load_digits()
    images = (data.images[PARTS[part]] / 16).astype(np.float32)[:, None]
    return images, data.target[PARTS[part]].astype(np.int64)


def write(path: Path, part: Part) -> Path:
    """Write `read(part)` to `path`, an .npz file of `INPUT` and `labels` as `--calib` takes it; returns `path`."""
    images, labels = read(part)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, labels=labels, **{INPUT: images})  # type: ignore[arg-type]
    return path
