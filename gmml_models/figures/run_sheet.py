"""The sheet that a run draws regularly: clean images, corrupted images, masks, restored images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from torch import Tensor

from gmml_models.figures.contact_sheet import Sheet, SheetRow, Tile, edge_of, flat, save
from gmml_models.figures.tiles import to_pictures

if TYPE_CHECKING:
    from gmml_models.objectives import Reconstruction


def run_sheet(
    clean: Tensor, found: Reconstruction, *, mean: Sequence[float], std: Sequence[float], title: str, about: str, code: str = ""
) -> Image.Image:
    """Make the sheet of a few images.

    Args:
        clean: (B, C, H, W), normalised.
        found: corrupted and restored images of the same shape, and the mask (B, 1, H, W).
        mean: the mean per channel that the images were normalised by.
        std: the standard deviation per channel, in the same form.
        title: on top.
        about: the line of text below the pictures.
        code: the code of the corruption.
    """
    edge = edge_of(max(clean.shape[2:]))
    masks = [
        Image.fromarray((mask[0].cpu().numpy() * 255).astype("uint8")).convert("RGB") for mask in found.mask
    ]  # white where corrupted
    stages = [
        ("clean", "", to_pictures(clean, mean, std)),
        ("corrupted", "the model's input", to_pictures(found.corrupted, mean, std)),
        ("mask", "white: corrupted", masks),
        ("restored", "as decoded", to_pictures(found.restored, mean, std)),
    ]
    rows = [SheetRow(name, note, [Tile(flat(picture, edge), "") for picture in pictures]) for name, note, pictures in stages]
    return Sheet(title, about, [""] * len(clean), rows, (), " ".join(code.split())).draw()


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Write a sheet under another name and rename it, in a folder that is created if necessary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save(sheet, path)
