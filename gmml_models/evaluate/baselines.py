"""Features that need no training, as baselines for the features of a network.

B images, C channels, S the side of the image that is described.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import torch
from torch.nn import functional as F

from gmml_models.evaluate.features import Features

if TYPE_CHECKING:
    from torch import Tensor

    from gmml_models.data.sampling import Batch

Handmade = Literal["thumbnails", "pca", "colours", "hog"]
HANDMADE: tuple[Handmade, ...] = get_args(Handmade)
WORDS: dict[str, str] = {
    "untrained": "untrained encoder of the same shape",
    "thumbnails": "8 x 8 thumbnails",
    "pca": "PCA of the pixels",
    "colours": "colour histogram",
    "hog": "HOG",
}
"""The name of each baseline in a table."""
_THUMBNAIL, _SIDE = 8, 64
_LEVELS, _GREYS = 8, 32  # of each of three channels together, or of each channel by itself
_CELL, _BLOCK, _ORIENTATIONS, _CLIP, _EPS = 8, 2, 9, 0.2, 1e-5


class Handmades(NamedTuple):
    """The data of every image from which all these features are computed, on the CPU.

    Attributes:
        thumbnails: (B, C * 64) float32.
        pixels: (B, C * S * S) uint8, for the PCA; S is at most 64.
        colours: (B, 512) float32 for three channels, (B, 32 C) otherwise.
        hog: (B, 1764) float32.
        labels: as in `Features`.
        numbers: as in `Features`.
    """

    thumbnails: Tensor
    pixels: Tensor
    colours: Tensor
    hog: Tensor
    labels: Tensor | None
    numbers: Tensor


def thumbnails(images: Tensor) -> Tensor:
    """Describe each image by 8 x 8 averages of its pixels, minus mid-grey.

    Shapes:
        (B, C, H, W) float in [0, 1] -> (B, C * 64).
    """
    return (F.adaptive_avg_pool2d(images, _THUMBNAIL) - 0.5).flatten(1)


def colour_histogram(images: Tensor) -> Tensor:
    """Compute the square root of the share of pixels of each colour, so that dot products are Bhattacharyya coefficients.

    With three channels, 8 x 8 x 8 colours; otherwise 32 levels of each channel separately.

    Shapes:
        (B, C, H, W) float in [0, 1] -> (B, 512), or (B, 32 C).
    """
    count, channels = images.shape[:2]
    levels = _LEVELS if channels == 3 else _GREYS
    level = (images * levels).long().clamp(0, levels - 1).flatten(2)  # (B, C, pixels)
    if channels == 3:
        level = (level[:, :1] * levels + level[:, 1:2]) * levels + level[:, 2:]
        levels = levels**3
    found = images.new_zeros(count, level.shape[1], levels)
    found.scatter_add_(2, level, torch.ones_like(level, dtype=images.dtype))
    return (found / level.shape[2]).sqrt().flatten(1)


def hog(images: Tensor) -> Tensor:
    """Compute histograms of oriented gradients at 64 x 64: cells of 8 x 8 pixels, 9 orientations, blocks of 2 x 2 cells.

    The gradient of a pixel is that of the channel in which it is steepest; it votes, weighted by its magnitude, for one of the
    nine orientations of its cell. A block is divided by its norm, clipped at 0.2, and divided by its norm again.

    Shapes:
        (B, C, H, W) float -> (B, 7 * 7 * 4 * 9).

    Source:
        Dalal and Triggs, "Histograms of oriented gradients for human detection" (2005), without interpolation between cells and
        orientations, as in scikit-image's ``hog``.
    """
    if images.shape[2:] != (_SIDE, _SIDE):
        images = F.interpolate(images, (_SIDE, _SIDE), mode="bilinear", antialias=True, align_corners=False)
    down, across = torch.zeros_like(images), torch.zeros_like(images)
    down[:, :, 1:-1] = images[:, :, 2:] - images[:, :, :-2]
    across[:, :, :, 1:-1] = images[:, :, :, 2:] - images[:, :, :, :-2]
    steepness, channel = down.hypot(across).max(1, keepdim=True)  # (B, 1, S, S)
    down, across = down.gather(1, channel), across.gather(1, channel)
    angle = torch.rad2deg(torch.atan2(down, across)) % 180
    which = (angle * (_ORIENTATIONS / 180)).long() % _ORIENTATIONS
    votes = torch.zeros_like(steepness).repeat(1, _ORIENTATIONS, 1, 1).scatter_(1, which, steepness)
    cells = F.avg_pool2d(votes, _CELL)  # (B, 9, 8, 8)
    blocks = cells.unfold(2, _BLOCK, 1).unfold(3, _BLOCK, 1)  # (B, 9, 7, 7, 2, 2)
    blocks = blocks.permute(0, 2, 3, 4, 5, 1).flatten(3)  # (B, 7, 7, 36)
    for clip in (_CLIP, 1.0):
        blocks = (blocks / (blocks.square().sum(-1, keepdim=True) + _EPS**2).sqrt()).clamp(max=clip)
    return blocks.flatten(1)


def handmade(batches: Iterable[Batch]) -> Handmades:
    """Compute from a data set the data that all these features need.

    Args:
        batches: batches with ``views``, of which the first is used, as pixels in [0, 1], not normalised.

    Raises:
        ValueError: no batch.
    """
    found: list[tuple[Tensor, ...]] = []
    labels = []
    for batch in batches:
        images = batch.views[0].float().clamp(0, 1).cpu()
        small = images
        if max(images.shape[2:]) > _SIDE:
            small = F.interpolate(images, (_SIDE, _SIDE), mode="bilinear", antialias=True, align_corners=False)
        pixels = (small * 255).round().byte().flatten(1)
        found.append((thumbnails(images), pixels, colour_histogram(images), hog(images), batch.index.cpu()))
        if batch.labels is not None:
            labels.append(batch.labels.cpu())
    if not found:
        raise ValueError("handmade: no images were given. Give at least one batch.")
    small, pixels, colours, edges, numbers = (torch.cat(part) for part in zip(*found, strict=True))
    return Handmades(small, pixels, colours, edges, torch.cat(labels) if labels else None, numbers)


def pca(train: Tensor, test: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """Project pixels on the directions in which the training images differ most.

    Args:
        train: pixels of the training images, which alone determine the directions.
        test: pixels of the test images.
        components: number of directions; fewer if the images do not have that many.

    Shapes:
        (N, p), (M, p) uint8 -> (N, c), (M, c) float32.
    """
    from sklearn.decomposition import PCA

    count = min(components, *train.shape)
    fitted = PCA(count, svd_solver="randomized", random_state=0).fit(train.numpy().astype("float32") / 255)
    known, given = (torch.from_numpy(fitted.transform(part.numpy().astype("float32") / 255)).float() for part in (train, test))
    return known, given


def features_of(known: Handmades, given: Handmades, kind: Handmade, *, components: int) -> tuple[Features, Features]:
    """Describe training and test images by one of these features.

    Args:
        known: the features of the training images.
        given: the features of the test images.
        kind: which of these features.
        components: the number of components of the PCA.
    """
    if kind == "pca":
        train, test = pca(known.pixels, given.pixels, components)
    else:
        train, test = getattr(known, kind), getattr(given, kind)
    return Features(train, known.labels, known.numbers), Features(test, given.labels, given.numbers)
