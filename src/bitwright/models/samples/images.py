"""From an image file to a network's input: size, mode, scale, mean, layout; nothing is changed without a record."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from bitwright import recipe
from bitwright.errors import DataError, RecipeError, ResourceError
from bitwright.models.samples.preprocess import Array, Notes, Shape

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
SHOWN = 320
"""Most pixels on a side of a picture that is shown."""
EIGHT_BIT = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")


@dataclass(frozen=True)
class Picture:
    """How one network takes images; every choice the recipe left open is made.

    `size` is (height, width), or None where neither the recipe nor the network states one: then the caller's
    first image decides. `table` [channels, 256], of the network's dtype, holds the value of each pixel code,
    computed in double precision.
    """

    size: tuple[int, int] | None
    fit: str
    short: int | None
    filter: str
    mode: str
    convert: bool
    layout: str
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    table: Array

    def settings(self) -> dict[str, Any]:
        """For the certificate: everything that decides the values."""
        names = ("size", "fit", "short", "filter", "mode", "convert", "layout", "scale", "mean", "std")
        found = {name: getattr(self, name) for name in names}
        found = {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}
        return {"image": found | {"dtype": str(self.table.dtype), "pillow": pillow().__version__}}


def resolve(table: recipe.Picture, name: str, dtype: Any, shape: Shape) -> Picture:
    """The recipe's `[data.image]` for a network's input `name` of `shape` [N, C, H, W] or [N, H, W, C].

    Raises RecipeError, naming the key, where the table contradicts the network or itself.
    """

    def wrong(key: str, what: str, fix: str) -> RecipeError:
        return RecipeError(what, where=f"data.image.{key}", fix=fix, key=f"data.image.{key}")

    if len(shape) != 4:
        text = f"input {name!r} has shape {show(shape)}, but images need four axes"
        raise RecipeError(text, where="data.source", fix="Give its arrays themselves, as .npz", key="data.source")
    dtype = np.dtype(dtype)
    layout = table.layout or ("NHWC" if shape[1] not in (1, 3) and shape[3] in (1, 3) else "NCHW")
    channels, *sides = (shape[1], shape[2], shape[3]) if layout == "NCHW" else (shape[3], shape[1], shape[2])
    if channels is not None and channels not in (1, 3):
        fix = "Set data.image.layout, or give its arrays themselves, as .npz"
        raise wrong("layout", f"input {name!r} of shape {show(shape)} would have {channels} channels as {layout}", fix)
    mode = table.mode or ("L" if channels == 1 else "RGB")
    count = 1 if mode == "L" else 3
    if channels not in (None, count):
        raise wrong(
            "mode", f"{mode} has {count} channels, input {name!r} takes {channels}", "Leave it out, or correct it"
        )
    size = table.size
    if None not in sides:
        fixed = (int(sides[0] or 0), int(sides[1] or 0))
        if size not in (None, fixed):
            raise wrong(
                "size", f"{list(size or ())}, but input {name!r} is {list(fixed)}", "Leave it out, or correct it"
            )
        size = fixed
    if size is None and table.fit != "none":
        raise wrong("fit", f"{table.fit!r} without a size: input {name!r} is dynamic", "Set data.image.size")
    if table.short is not None and table.fit != "crop":
        raise wrong("short", f"it means nothing where fit is {table.fit!r}", 'Leave it out, or set fit = "crop"')
    if table.short is not None and size is not None and table.short < min(size):
        raise wrong("short", f"{table.short} is less than the smaller side of {list(size)}", "Give at least that")
    scale = table.scale if table.scale is not None else (1 / 255 if dtype.kind == "f" else 1.0)
    numbers = {}
    for key, value in (("mean", table.mean or (0.0,)), ("std", table.std or (1.0,))):
        if len(value) not in (1, count):
            raise wrong(key, f"{len(value)} numbers for {count} channels", f"Give {count}, or one for all")
        numbers[key] = tuple(value) * (count // len(value))
    codes = np.arange(256) * scale
    values = np.stack([(codes - m) / s for m, s in zip(numbers["mean"], numbers["std"], strict=True)])
    if dtype.kind != "f":
        limits = np.iinfo(dtype)
        if not (np.array_equal(values, values.round()) and limits.min <= values.min() and values.max() <= limits.max):
            raise wrong(
                "scale", f"pixels would not be whole numbers that {dtype} holds", f"Input {name!r} takes {dtype}"
            )
    return Picture(
        size, table.fit, table.short, table.filter, mode, table.convert, layout, scale, **numbers,
        table=values.astype(dtype),
    )  # fmt: skip


def look(data: bytes, path: Path, plan: Picture) -> tuple[int, int]:
    """(height, width) by the header alone; raises DataError where size or mode cannot be used."""
    with _open(data, path) as image:
        _check(image, path, plan)
        return image.height, image.width


def read(data: bytes, path: Path, plan: Picture, notes: Notes, name: str) -> Array:
    """One image as [C, H, W] or [H, W, C], of the network's dtype; what was converted is noted under `name`.

    Raises DataError naming `path` for a file that is damaged, of another size (fit "none") or of another mode.
    """
    with _open(data, path) as image:
        _check(image, path, plan)
        try:
            image.load()
        except _broken() as error:
            raise _damaged(path, error) from error
        pixels = np.asarray(_fit(_mode(image, path, plan, notes, name), plan))
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    if plan.mode == "BGR":
        pixels = pixels[:, :, ::-1]
    planes = [values[pixels[:, :, channel]] for channel, values in enumerate(plan.table)]
    return np.stack(planes, axis=0 if plan.layout == "NCHW" else -1)


def jpeg(array: Array, plan: Picture) -> bytes:
    """A picture that `read` made, as people see it: a JPEG file with at most SHOWN pixels on a side."""
    pixels = array if plan.layout == "NHWC" else np.moveaxis(array, 0, -1)
    pixels = (pixels.astype(np.float64) * plan.std + plan.mean) / plan.scale
    codes = np.clip(np.round(pixels), 0, 255).astype(np.uint8)
    codes = codes[:, :, 0] if plan.mode == "L" else codes[:, :, ::-1] if plan.mode == "BGR" else codes
    picture = pillow().Image.fromarray(np.ascontiguousarray(codes))
    picture.thumbnail((SHOWN, SHOWN))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=90, subsampling=0)
    return stream.getvalue()


def place(plan: Picture, height: int, width: int) -> tuple[float, float, int, int]:
    """(sx, sy, left, top): the point (x, y) of an image lands on (x sx - left, y sy - top) of the network's input."""
    if plan.size is None or plan.fit == "none":
        return 1.0, 1.0, 0, 0
    h, w = plan.size
    if plan.fit == "resize":
        return w / width, h / height, 0, 0
    tall, wide = _cover(plan, height, width)
    return wide / width, tall / height, round((wide - w) / 2), round((tall - h) / 2)


def show(shape: Shape) -> str:
    """A shape in words: [?, 3, 32, 32]."""
    return "[" + ", ".join("?" if side is None else str(side) for side in shape) + "]"


def pillow() -> ModuleType:
    """The module PIL; raises ResourceError that says how to install it."""
    try:
        import PIL
        import PIL.Image
    except ImportError as error:
        raise ResourceError(
            "images need Pillow, which is not installed", fix="pip install 'bitwright[onnx]'"
        ) from error
    return PIL


def _open(data: bytes, path: Path) -> Image:
    library = pillow().Image
    try:
        image: Image = library.open(io.BytesIO(data))
    except _broken() as error:
        raise _damaged(path, error) from error
    return image


def _broken() -> tuple[type[Exception], ...]:
    """What Pillow raises for damaged or absurd files."""
    return OSError, SyntaxError, ValueError, EOFError, struct.error, pillow().Image.DecompressionBombError


def _damaged(path: Path, error: Exception) -> DataError:
    what = "not an image that Pillow can read" if type(error).__name__ == "UnidentifiedImageError" else "damaged image"
    detail = "" if what.startswith("not") else f" ({error})"
    return DataError(f"{what}{detail}", where=str(path), fix="Remove it, or replace it by a whole one")


def _check(image: Image, path: Path, plan: Picture) -> None:
    """Whether the header fits the plan; raises DataError."""
    where = str(path)
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # a camera's MPO: the photograph, then previews
        raise DataError("it holds more than one picture", where=where, fix="Save one picture per file")
    if image.mode not in EIGHT_BIT:
        raise DataError(
            f"its pixels are not 8-bit (mode {image.mode})", where=where, fix="Save it with 8 bits per channel"
        )
    if plan.size is not None and plan.fit == "none" and (image.height, image.width) != plan.size:
        found, wanted = f"{image.width} x {image.height}", f"{plan.size[1]} x {plan.size[0]}"
        fix = 'Set data.image.fit = "resize" or "crop", or remove it'
        raise DataError(
            f"the image is {found} pixels (width x height), the network takes {wanted}", where=where, fix=fix
        )
    want = "L" if plan.mode == "L" else "RGB"
    if not plan.convert and not _same(image, want):
        alpha = " with transparency" if image.has_transparency_data else ""
        fix = "Set data.image.convert = true, or remove it"
        raise DataError(f"the image is {image.mode}{alpha}, the network takes {want}", where=where, fix=fix)


def _same(image: Image, want: str) -> bool:
    """Whether `want` holds the image without loss or invention: its own mode, a palette (RGB), black and white (L)."""
    return image.mode in {"RGB": ("RGB", "P"), "L": ("L", "1")}[want] and not image.has_transparency_data


def _mode(image: Image, path: Path, plan: Picture, notes: Notes, name: str) -> Image:
    """The image as RGB or L, with a note where that changed it."""
    want = "L" if plan.mode == "L" else "RGB"
    if image.mode == want and not image.has_transparency_data:
        return image
    if not image.has_transparency_data:
        notes.add(f"image converted from {image.mode} to {want}", name)
        return image.convert(want)
    notes.add(f"image converted from {image.mode} with transparency, over white, to {want}", name)
    over = image.convert("RGBA")
    ground = pillow().Image.new("RGBA", over.size, "white")
    ground.alpha_composite(over)
    return ground.convert(want)  # type: ignore[no-any-return]


def _cover(plan: Picture, height: int, width: int) -> tuple[int, int]:
    """(height, width) of an image after its short side was resized, before the centre is cut out."""
    h, w = plan.size or (height, width)
    if plan.short is None:  # the smallest that covers the size; one side fits exactly
        ratio = max(h / height, w / width)
        return max(h, round(height * ratio)), max(w, round(width * ratio))
    # The long side rounds down, as in torchvision's Resize; but never below what is cut out.
    if height < width:
        return max(h, plan.short), max(w, plan.short * width // height)
    return max(h, plan.short * height // width), max(w, plan.short)


def _fit(image: Image, plan: Picture) -> Image:
    if plan.size is None or plan.fit == "none":
        return image
    h, w = plan.size
    kind = pillow().Image.Resampling[plan.filter.upper()]
    if plan.fit == "resize":
        return image if image.size == (w, h) else image.resize((w, h), kind)
    tall, wide = _cover(plan, image.height, image.width)
    _, _, left, top = place(plan, image.height, image.width)
    if image.size != (wide, tall):
        image = image.resize((wide, tall), kind)
    return image.crop((left, top, left + w, top + h))
