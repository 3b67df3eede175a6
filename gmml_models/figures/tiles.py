"""Converts tensors to small pictures (images, heat maps, clusters, bars), and photographs to tensors.

B images, C channels, (H, W) their size, (h, w) a grid of patches.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor

from gmml_models.figures.contact_sheet import edge_of
from gmml_models.figures.palette import CLUSTERS, GROUND, HEAT, INK, LINE, PAPER

_VEIL = 0.68  # of a cluster's colour over the grey photograph
_DARK, _LIGHT = 100, 210  # of that photograph: white would wash the colours out, and black drown them


def to_images(pictures: Sequence[Image.Image], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Convert RGB pictures of one size to normalised images (B, C, H, W), float32: in colour for three channels, grey for one.

    Args:
        pictures: squares.
        mean: the mean of each channel, for pixels in [0, 1].
        std: the standard deviation of each channel.

    Raises:
        ValueError: other channels.
    """
    if len(mean) not in (1, 3):
        raise ValueError(
            f"to_images: photographs have 1 channel or 3, but the model takes {len(mean)}. Give a model for 1 or 3 channels."
        )
    pixels = np.stack([np.asarray(picture if len(mean) == 3 else picture.convert("L")) for picture in pictures])
    images = torch.from_numpy(pixels).reshape(len(pixels), *pixels.shape[1:3], len(mean)).permute(0, 3, 1, 2).float() / 255.0
    shape = (1, -1, 1, 1)
    return ((images - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)).contiguous()


def to_pictures(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> list[Image.Image]:
    """Make pictures of normalised images (B, C, H, W), in colour for three channels, or else the mean of the channels as grey."""
    shape = (1, -1, 1, 1)
    undone = images.float().cpu() * torch.tensor(std).view(shape) + torch.tensor(mean).view(shape)
    shown = undone if undone.shape[1] == 3 else undone.mean(1, keepdim=True)
    pixels = (shown.nan_to_num(0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(image if image.shape[2] == 3 else image[:, :, 0]).convert("RGB") for image in pixels]


def heat_tile(values: Tensor, most: float, edge: int) -> Image.Image:
    """Draw numbers (rows, columns) from 0, the darkest, to ``most``, the brightest; larger numbers are equally bright."""
    share = (values.float().cpu() / max(most, 1e-12)).clamp(0, 1).numpy() * (len(HEAT) - 1)
    stops = np.array([_rgb(colour) for colour in HEAT])
    channels = [np.interp(share, np.arange(len(HEAT)), stops[:, channel]) for channel in range(3)]
    return _squares(Image.fromarray(np.stack(channels, -1).round().astype(np.uint8)), edge)


def scale_tile(edge: int) -> Image.Image:
    """Draw the colours of `heat_tile` from left to right, at the bottom of an empty tile."""
    tile = Image.new("RGB", (edge, edge), PAPER)
    strip = heat_tile(torch.linspace(0, 1, edge)[None], 1.0, edge).resize((edge, 14))
    tile.paste(strip, (0, edge - 14))
    return tile


def cluster_tile(labels: Tensor, photograph: Image.Image) -> Image.Image:
    """Draw clusters (h, w) as colours over a grey photograph; the tile has the size of the photograph."""
    colours = np.array([_rgb(colour) for colour in CLUSTERS], dtype=np.uint8)
    flat = Image.fromarray(colours[labels.cpu().numpy() % len(CLUSTERS)])
    grey = ImageOps.autocontrast(photograph.convert("L"), cutoff=1).point(
        [_DARK + round(value * (_LIGHT - _DARK) / 255) for value in range(256)]
    )
    return Image.blend(grey.convert("RGB"), flat.resize(photograph.size, Image.Resampling.NEAREST), _VEIL)


def bars_tile(heights: Sequence[float], colour: str, width: int, edge: int) -> Image.Image:
    """Draw bars of heights in [0, 1] on a baseline, with thin lines at a quarter, a half and three quarters."""
    tile = Image.new("RGB", (width, edge), GROUND)
    pen = ImageDraw.Draw(tile)
    base = edge - 2
    for part in (0.25, 0.5, 0.75):
        y = round(base * (1 - part))
        pen.line((0, y, width, y), LINE)
    pitch = width / len(heights)
    for number, height in enumerate(heights):
        top = round(base * (1.0 - min(max(height, 0.0), 1.0)))
        if top < base:
            left, right = round(number * pitch) + 2, round((number + 1) * pitch) - 2
            pen.rectangle((left, top, max(right, left), base), colour, INK)
    pen.line((0, base, width, base), INK, width=2)
    return tile


def edge_of_many(size: int, rows: int) -> int:
    """The side of the tiles on a sheet: smaller if there are many rows."""
    if rows <= 8:
        return edge_of(size)
    return size * (128 // size) if size <= 128 else 128


def fitted(picture: Image.Image, edge: int) -> Image.Image:
    """Resize a square to the size of the tiles: with sharp pixels if it is enlarged by an integer, otherwise smoothly."""
    if picture.width == edge:
        return picture
    whole = edge % picture.width == 0
    return picture.resize((edge, edge), Image.Resampling.NEAREST if whole else Image.Resampling.LANCZOS)


def _squares(picture: Image.Image, edge: int) -> Image.Image:
    """Draw a small map with its cells as even squares; a map with more cells than pixels is averaged."""
    larger = max(1, -(-edge // max(picture.size)))
    grown = picture.resize((picture.width * larger, picture.height * larger), Image.Resampling.NEAREST)
    return grown.resize((edge, edge), Image.Resampling.BOX)


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))
