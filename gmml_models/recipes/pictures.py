"""Sheets of reconstructions: clean, corrupted, mask, restored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from gmml_models.sheet import Row, Sheet, Tile, edge_of, flat, save

if TYPE_CHECKING:
    from gmml_models.objectives import Reconstruction


def to_pictures(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> list[Image.Image]:
    """Pictures of normalised images (B, C, H, W): colour for three channels, else the mean of the channels as grey."""
    shape = (1, -1, 1, 1)
    undone = images.float().cpu() * torch.tensor(std).view(shape) + torch.tensor(mean).view(shape)
    shown = undone if undone.shape[1] == 3 else undone.mean(1, keepdim=True)
    pixels = (shown.nan_to_num(0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(image if image.shape[2] == 3 else image[:, :, 0]).convert("RGB") for image in pixels]


def reconstructions(
    clean: Tensor, found: Reconstruction, *, mean: Sequence[float], std: Sequence[float], title: str, about: str, code: str = ""
) -> Image.Image:
    """The sheet of a few images.

    Args:
        clean: (B, C, H, W), normalised.
        found: corrupted and restored images of the same shape, mask (B, 1, H, W).
        mean: per channel, what the images were normalised by.
        std: likewise.
        title: on top.
        about: the line under it.
        code: of the corruption.
    """
    edge = edge_of(max(clean.shape[2:]))
    masks = [
        Image.fromarray((mask[0].cpu().numpy() * 255).astype("uint8")).convert("RGB") for mask in found.mask
    ]  # white where corrupted
    stages = [
        ("clean", "", to_pictures(clean, mean, std)),
        ("corrupted", "seen by the model", to_pictures(found.corrupted, mean, std)),
        ("mask", "white: corrupted", masks),
        ("restored", "all of it decoded", to_pictures(found.restored, mean, std)),
    ]
    rows = [Row(name, note, [Tile(flat(picture, edge), "") for picture in pictures]) for name, note, pictures in stages]
    return Sheet(title, about, [""] * len(clean), rows, (), " ".join(code.split())).draw()


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Write a sheet aside and rename it, in a folder that is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save(sheet, path)
