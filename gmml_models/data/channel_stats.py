"""The mean and standard deviation of a data set's channels, for normalisation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from gmml_models.data.dataset import Label, Source, each, nothing_readable
from gmml_models.data.sampling import Progress
from gmml_models.data.streams import StreamSource

_LEVELS = torch.arange(256, dtype=torch.float64) / 255


@dataclass(frozen=True)
class ChannelStats:
    """What was found.

    Attributes:
        mean: the mean of each channel, for pixels in [0, 1].
        std: per channel.
        images: number of images that were read.
        broken: maps the names of images that could not be read to the reasons.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    images: int
    broken: Mapping[str, str]


def channel_stats(source: Source | StreamSource, *, threads: int = 2, progress: Progress | None = None) -> ChannelStats:
    """Compute the mean and standard deviation of the pixels of a data set, reading each image once.

    Every image has the same weight, whatever its size. The mean is the mean of the images' means; the standard deviation is the
    root of the mean, over images, of the mean squared distance from it. Sums are exact, because pixels are counted by value.

    Args:
        source: the images; for a stream, one epoch is read.
        threads: the number of threads that decode images.
        progress: a function that is called during decoding with the number done and the total.

    Raises:
        UsageError: none of the images can be read.
    """
    first, second = torch.zeros(2, source.channels, dtype=torch.float64)
    count = 0
    for found in _moments(source, threads, progress):
        if found is not None:
            first, second, count = first + found[0], second + found[1], count + 1
    if count == 0:
        raise nothing_readable(source) if isinstance(source, Source) else source.nothing_readable()
    mean = first / count
    spread = (second / count - mean**2).clamp_(min=0.0)  # rounding may leave less than nothing
    return ChannelStats(tuple(mean.tolist()), tuple(map(math.sqrt, spread.tolist())), count, dict(source.broken))


def _moments(source: Source | StreamSource, threads: int, progress: Progress | None) -> Iterator[Tensor | None]:
    """(2, C) float64 for each image: mean, and mean square."""

    def of(image: Tensor, _: Label = None) -> Tensor:
        counts = torch.stack([torch.bincount(plane.flatten(), minlength=256) for plane in image]).double()
        shares = counts / counts.sum(1, keepdim=True)
        return torch.stack([shares @ _LEVELS, shares @ _LEVELS**2])

    if isinstance(source, Source):
        yield from each(source, of, threads, progress)
        return
    for number, record in enumerate(islice(source.records(0, 0), source.images), start=1):
        image = source.decoded(record)
        yield None if image is None else of(image)
        if progress is not None:
            progress(number, source.images)
