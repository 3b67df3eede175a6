"""Photographs of any size and mode, from files and folders, as squares of one size.

A file that cannot be read is not an error here: it is returned with the reason, for the caller to report.
"""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# not all that Pillow knows: EPS, for one, would start another program
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "MPO", "AVIF", "JPEG2000", "TGA", "HEIF")
_WHITE = (255, 255, 255, 255)


@dataclass(frozen=True)
class Photograph:
    """A picture that was read."""

    path: Path
    picture: Image.Image  # RGB, a square of the size that was asked for


@dataclass(frozen=True)
class Skipped:
    """A file or folder that was not read, with the reason."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Reading:
    """The result of reading."""

    photographs: tuple[Photograph, ...]
    skipped: tuple[Skipped, ...]
    left: int  # files that were not looked at, because there were enough


def read_photographs(paths: Sequence[Path], size: int, most: int, *, without: Path | None = None) -> Reading:
    """Read image files until there are ``most`` photographs.

    Args:
        paths: files and folders; of a folder, the image files directly inside it are read in the order of their names, or, if
            there are none, those in its subfolders.
        size: the side of the squares in pixels; each is the centre of a picture whose shorter side is resized to this.
        most: the largest number of photographs to read.
        without: a file to ignore in folders, such as the one that is about to be written.
    """
    photographs: list[Photograph] = []
    skipped: list[Skipped] = []
    files = list(_files(paths, without))
    looked_at = 0
    for found in files:
        if len(photographs) == most:
            break
        looked_at += 1
        if isinstance(found, Skipped):
            skipped.append(found)
            continue
        try:
            photographs.append(Photograph(found, read_square(found, size)))
        # Pillow's decoders raise nearly anything on damaged files
        except Exception as error:
            skipped.append(Skipped(found, reason_of(error)))
    return Reading(tuple(photographs), tuple(skipped), len(files) - looked_at)


def read_square(path: Path, size: int) -> Image.Image:
    """Read one file as an RGB square: rotated upright, cropped to the centre, with transparent parts turned white.

    Raises:
        Exception: anything that Pillow raises for a file that is missing, damaged, not an image, or too large to be decoded
            safely.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        upright = open_upright(path)
    # the square is cut out first: resizing all of a very long strip would need all of its length at the new scale
    width, height = upright.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = to_rgb(upright.crop((left, top, left + side, top + side)))
    return square if side == size else square.resize((size, size), Image.Resampling.BICUBIC)


def open_upright(file: Path | IO[bytes]) -> Image.Image:
    """Decode the first frame of an image file, rotated upright.

    Raises:
        Exception: anything that Pillow raises for a file that is missing, damaged, not an image, or too large to be decoded
            safely.
    """
    with Image.open(file, formats=formats_of_pillow()) as image:
        limit = Image.MAX_IMAGE_PIXELS
        if limit and image.width * image.height > limit:  # Pillow itself only warns, up to twice of it
            raise Image.DecompressionBombError
        image.load()  # raises if the file is truncated
        upright = ImageOps.exif_transpose(image)
        # whole numbers of 32 bits, or with a sign: no agreed range, as for floats. 16 bits without one are I;16
        return upright.convert("F") if image.format == "TIFF" and upright.mode == "I" else upright


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any of Pillow's modes to RGB: transparent parts become white, and 16-bit grey keeps only its upper eight bits."""
    if image.mode.startswith("I"):  # I;16 and its kin; older versions of Pillow read 16-bit PNG files as I
        return _grey(np.clip(np.asarray(image).astype(np.float64) / 257.0, 0.0, 255.0))
    if image.mode == "F":  # no agreed range: from the darkest to the brightest
        values = np.asarray(image).astype(np.float64)
        low, high = float(values.min()), float(values.max())
        if not np.isfinite([low, high]).all():
            raise ValueError("it holds values that are not finite")
        return _grey((values - low) * (255.0 / max(high - low, 1e-12)))
    if image.has_transparency_data:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, _WHITE), over).convert("RGB")
    return image.convert("RGB")


def bundled() -> tuple[Path, ...]:
    """The colour photographs inside scikit-image's package, by path: nothing is imported or downloaded. Empty without it."""
    found = find_spec("skimage")
    if found is None or found.origin is None:
        return ()
    folder = Path(found.origin).parent / "data"
    names = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")
    return tuple(folder / name for name in names if (folder / name).is_file())


def _grey(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Image.Image:
    return Image.fromarray(values.round().astype(np.uint8)).convert("RGB")


@cache
def formats_of_pillow() -> tuple[str, ...]:
    """The formats that the installed Pillow can read; pillow-heif adds HEIC, and AVIF for an older Pillow."""
    Image.init()
    if find_spec("pillow_heif") is not None:
        plugin: Any = import_module("pillow_heif")
        plugin.register_heif_opener()
        if "AVIF" not in Image.OPEN and hasattr(plugin, "register_avif_opener"):
            plugin.register_avif_opener()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def endings_of_pillow() -> frozenset[str]:
    """The extensions of these formats, in lower case, with their dot."""
    formats = formats_of_pillow()
    found = {ending for ending, name in Image.registered_extensions().items() if name in formats}
    return frozenset(found | ({".mpo"} if "JPEG" in formats else set()))  # several JPEGs in one file, of which the first is read


def known_endings() -> str:
    """The extensions as text, the common ones first."""
    usual = (".png", ".jpg", ".jpeg")
    return ", ".join([*usual, *sorted(endings_of_pillow() - set(usual))])


def _files(paths: Sequence[Path], without: Path | None) -> Iterator[Path | Skipped]:
    endings = endings_of_pillow()

    def wanted(file: Path) -> bool:
        if file.suffix.lower() not in endings or file.name.startswith("."):
            return False
        return without is None or file.name != without.name or file.resolve() != without.resolve()

    for path in paths:
        try:
            if path.is_file() or not path.exists():
                yield path  # what is not there is named when it is read
                continue
            if not path.is_dir():
                yield Skipped(path, "it is neither a file nor a folder")
                continue
            inside = sorted(file for file in path.iterdir() if wanted(file) and file.is_file())
        except OSError as error:
            yield Skipped(path, reason_of(error))
            continue
        if not inside:
            everything = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
            inside = sorted(file for file in everything if wanted(file))
        if inside:
            yield from inside
        else:
            yield Skipped(path, "the folder holds no image files")


def reason_of(error: Exception) -> str:
    """Say in a few words why an image could not be read."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file or folder"
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or in a format that is not supported"
    if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError):
        return f"more than {Image.MAX_IMAGE_PIXELS:,} pixels, too large to be decoded safely"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    if isinstance(error, OSError) and error.errno is not None:
        return error.strerror or str(error)
    damaged = isinstance(error, OSError | SyntaxError | EOFError | struct.error)
    return f"{'damaged' if damaged else 'cannot be decoded'}: {str(error) or type(error).__name__}"
