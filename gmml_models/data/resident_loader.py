"""Keeps a data set on the device as uint8 and crops it there in batches, so that training never waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import numpy as np
import torch
from torch import Tensor

from gmml_aug.chance import keys as make_keys
from gmml_models.data.augment import Finish, cut_batch, squash
from gmml_models.data.dataset import Label, Source, each, nothing_readable
from gmml_models.data.free_memory import free_memory
from gmml_models.data.sampling import Batch, Progress, Share, in_steps, order_of_epoch, send, spread
from gmml_models.data.transforms import Crops, Numbers, ViewPlan, centre_crops, draw_crops
from gmml_models.errors import UsageError

_LARGER = 1.15  # images than views, so that a crop of all of it still has something to choose from
_GENTLE, _MOST = 0.25, 0.9  # of the free memory: what is taken unasked, and at all


@final
class ResidentFeed:
    """A `Feed` of images that are decoded once.

    Every image is resized to one size, ignoring its aspect; crops are shares of width and height, and undo the distortion
    exactly. A crop that is smaller than its view at the stored size is enlarged: see ``size``.

    Args:
        source: the data set.
        plan: the plan of the views.
        share: which images belong to this process. All images are kept, since any may belong to this process in the next epoch.
        device: the device on which the images are kept.
        size: the height and width at which images are kept.
        threads: the number of threads that decode images.
        progress: a function that is called during decoding with the number done and the total.

    Raises:
        UsageError: none of the images can be read.
    """

    def __init__(
        self,
        source: Source,
        plan: ViewPlan,
        share: Share,
        *,
        device: torch.device,
        size: tuple[int, int],
        threads: int,
        progress: Progress | None = None,
    ) -> None:
        self.steps_per_epoch, self.images = share.steps_per_epoch, share.images
        self.broken = source.broken
        self._plan, self._share, self._device = plan, share, device
        self._finish = Finish(plan, device)
        self._pixels, self._aspects, self._labels = keep(source, plan, size, device, threads, progress)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[Batch, ...]]:
        """See `Feed`."""
        order = order_of_epoch(self.images, self._share.seed, epoch)
        parts = self._share.remaining(order, first_step)
        yield from in_steps((self._batch(index, epoch) for index in parts), self._share.accumulate)

    def sample(self, count: int) -> Batch:
        """See `Feed`."""
        index = spread(self.images, count)
        keys = make_keys(self._share.seed, 0, index)
        pixels = self._pixels.index_select(0, send(index, self._device))
        view = self._view(pixels, centre_crops(self._aspects[index.numpy()], self._plan), self._plan.size, None, keys)
        return self._whole((view,), keys, index)

    def _batch(self, index: Tensor, epoch: int) -> Batch:
        keys = make_keys(self._share.seed, epoch, index)
        pixels, aspects = self._pixels.index_select(0, send(index, self._device)), self._aspects[index.numpy()]
        views = tuple(
            self._view(pixels, draw_crops(keys, view, aspects, self._plan), size, view, keys)
            for view, (size, _) in enumerate(self._plan.crops)
        )
        return self._whole(views, keys, index)

    def _view(self, pixels: Tensor, crops: Crops, size: tuple[int, int], view: int | None, keys: Tensor) -> Tensor:
        boxes = send(torch.from_numpy(crops.boxes).float(), self._device)
        flip = send(torch.from_numpy(crops.flip), self._device)
        return self._finish(cut_batch(pixels, boxes, flip, size, self._plan.interpolation), view, keys)

    def _whole(self, views: tuple[Tensor, ...], keys: Tensor, index: Tensor) -> Batch:
        labels = None if self._labels is None else send(self._labels[index], self._device)
        return Batch(views, send(keys, self._device), labels, index)


def keep(
    source: Source, plan: ViewPlan, size: tuple[int, int], device: torch.device, threads: int, progress: Progress | None
) -> tuple[Tensor, Numbers, Tensor | None]:
    """Decode all images.

    Returns:
        The images, (N, C, *size) uint8, on the device; their width / height, (N,); and their labels, on the CPU. A broken
        image is replaced by the next readable one, as in `Source`.

    Raises:
        UsageError: none of the images can be read.
    """

    def small(image: Tensor, label: Label) -> tuple[Tensor, float, Label]:
        return squash(image, size, plan.interpolation), image.shape[2] / image.shape[1], label

    count = len(source)
    pixels = torch.empty((count, source.channels, *size), dtype=torch.uint8, device=device)
    aspects: Numbers = np.ones(count)
    labels: list[Label] = [None] * count
    bad: list[int] = []
    for number, found in enumerate(each(source, small, threads, progress)):
        if found is None:
            bad.append(number)
        else:
            pixels[number] = found[0].to(device)
            aspects[number], labels[number] = found[1:]
    if len(bad) == count:
        raise nothing_readable(source)
    gone = set(bad)
    for number in bad:
        healthy = next(one % count for one in range(number + 1, number + count) if one % count not in gone)
        pixels[number], aspects[number], labels[number] = pixels[healthy], aspects[healthy], labels[healthy]
    if not source.labelled:
        return pixels, aspects, None
    return pixels, aspects, torch.stack([label if isinstance(label, Tensor) else torch.tensor(label) for label in labels])


def size_kept(plan: ViewPlan, resident_size: int | None) -> tuple[int, int]:
    """The height and width at which images are kept: the user's, or 1.15 times those of the large views."""
    if resident_size is not None:
        if resident_size < 1:
            raise UsageError(
                f"gmml: resident_size={resident_size} is not a side in pixels. Give, for example, {round(_LARGER * plan.size[0])}."
            )
        return resident_size, resident_size
    height, width = plan.size
    return round(_LARGER * height), round(_LARGER * width)


def bytes_kept(source: Source, size: tuple[int, int], device: torch.device, asked: bool | None) -> int:
    """The number of bytes of a data set that is kept on the device; 0 if it is not.

    Args:
        source: the data set.
        size: the height and width at which they would be kept.
        device: the device on which they would be kept.
        asked: True to require it, False for never, None to do so on a GPU if it takes less than a quarter of the free memory.

    Raises:
        UsageError: it must be kept there, but there is not enough memory.
    """
    if asked is False or (asked is None and device.type != "cuda"):
        return 0
    needed = len(source) * source.channels * size[0] * size[1]
    free = free_memory(device)
    if asked is None:
        return needed if free is not None and needed < _GENTLE * free else 0
    if free is not None and needed > _MOST * free:
        raise UsageError(
            f"gmml: keeping {len(source)} images of {source.channels} x {size[0]} x {size[1]} on the {device.type} takes "
            f"{needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free. Give a smaller --resident-size, or leave --resident out."
        )
    return needed
