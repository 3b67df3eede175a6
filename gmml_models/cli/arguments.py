"""Checks that drawing commands make before any work: the output file, the images, the device, numbers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gmml_models.errors import UsageError, shown

if TYPE_CHECKING:
    import torch

    from gmml_models.data.image_files import Reading
    from gmml_models.figures.contact_sheet import Sheet

ENDINGS = (".png", ".pdf")


def check_range(who: str, name: str, value: int, low: int, high: int) -> None:
    """Refuse a number outside ``low`` to ``high``.

    Raises:
        UsageError: the number is out of range; the message names the option.
    """
    if not low <= value <= high:
        raise UsageError(f"{who}: --{name} {value} is out of range. Allowed: {low} to {high}.")


def check_output(who: str, output: Path, images: Sequence[Path]) -> None:
    """Refuse a file that could not be written, or that is one of the images.

    Raises:
        UsageError: saying why.
    """
    if output.suffix.lower() not in ENDINGS:
        raise UsageError(f"{who}: -o {output} does not end in {' or '.join(ENDINGS)}. Give such a name, for example figure.png.")
    try:
        if output.is_dir():
            raise UsageError(f"{who}: -o {output} is a folder. Give a file, for example -o {output / 'sheet.png'}.")
        if not output.parent.is_dir():
            raise UsageError(f"{who}: -o {output} is in a folder that does not exist, {output.parent}. Make it first.")
        if output.exists() and any(path.exists() and path.samefile(output) for path in images):
            raise UsageError(f"{who}: -o {output} is one of the IMAGES, which are never written to. Give another name.")
    except OSError as error:
        raise _unwritable(who, output, error) from error


def bundled_photographs(who: str, why: str) -> Sequence[Path]:
    """The paths of the photographs that come with scikit-image.

    Args:
        who: the name of the caller, for errors.
        why: the purpose of the photographs, for the error.

    Raises:
        UsageError: scikit-image is not installed.
    """
    from gmml_models.data.image_files import bundled

    found = bundled()
    if not found:
        raise UsageError(
            f"{who}: {why} shows photographs that come with scikit-image, which is not installed. "
            'Install it with pip install ".[demo]" in a clone of the repository, or give IMAGES.'
        )
    return found


def device_of(who: str, name: str) -> torch.device:
    """The device for ``auto``, ``cpu`` or ``cuda``.

    Raises:
        UsageError: the device does not exist.
    """
    import torch

    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise UsageError(f"{who}: --device cuda, but torch finds no CUDA device here. Give --device cpu or auto.")
    return torch.device("cpu" if name == "cpu" or not there else "cuda")


def read_images(who: str, paths: Sequence[Path], size: int, most: int, output: Path, advice: str = "") -> Reading:
    """Read photographs from files and folders; those that cannot be read are listed on stderr.

    Args:
        who: speaks.
        paths: files and folders.
        size: the side of the squares in pixels.
        most: the largest number of photographs to read.
        output: the file of the figure, which must not be one of the images.
        advice: alternatives that the error suggests.

    Raises:
        UsageError: none of the images could be read.
    """
    from gmml_models.data.image_files import read_photographs

    reading = read_photographs(paths, size, most, without=output)
    for skipped in reading.skipped:
        print(f"{who}: {shown(str(skipped.path))} is skipped: {skipped.reason}.", file=sys.stderr)
    if not reading.photographs:
        raise UsageError(
            f"{who}: none of the images could be read, so nothing was written. Give image files, or folders of them{advice}."
        )
    return reading


def write_sheet(who: str, sheet: Sheet, output: Path) -> str:
    """Write a figure, and return its file and size as text.

    Raises:
        UsageError: the figure could not be written; no partial file is left.
    """
    try:
        width, height = sheet.write(output)
    except OSError as error:
        raise _unwritable(who, output, error) from error
    return f"{output} ({width} x {height})"


def several(count: int, thing: str) -> str:
    """Format a count with its noun in the singular or plural."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _unwritable(who: str, output: Path, error: OSError) -> UsageError:
    return UsageError(f"{who}: {output} could not be written: {error.strerror or error}. Choose another file with -o.")
