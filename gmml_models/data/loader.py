"""Feeds that decode images in worker processes in every epoch, for data sets of any size and transforms of single images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from gmml_aug.chance import keys as make_keys
from gmml_models.data.augment import Finish, cut_one
from gmml_models.data.dataset import Label, Source
from gmml_models.data.decode import to_picture
from gmml_models.data.sampling import Batch, Share, in_steps, order_of_epoch, send, spread
from gmml_models.data.transforms import Numbers, ViewPlan, centre_crops, draw_crops, seeded
from gmml_models.errors import UsageError

Transform = Callable[[Image.Image], Tensor]


class Fetched(NamedTuple):
    """The message of a worker to its feed. Pixels are uint8 if possible, and are transferred to the device as uint8."""

    views: tuple[Tensor, ...]  # each (B, C, H, W): uint8, or what a transform made
    labels: Tensor | None  # (B,) int64, or (B, c) float32
    numbers: list[int]  # of the images
    epoch: int
    broken: dict[str, str]  # those met since the last time
    failed: str | None = None  # why there is nothing


@dataclass(frozen=True)
class Cutter:
    """Turns a whole image into the views of a plan, or into the result of a transform.

    Args:
        plan: the plan of the views.
        transform: a function from a picture to a tensor, used instead of the plan's views; the image's key determines what it
            draws.
        centre: True for one centre crop and nothing random.
    """

    plan: ViewPlan
    transform: Transform | None = None
    centre: bool = False

    def __call__(self, image: Tensor, key: Tensor) -> list[Tensor]:
        """Make the views of one image.

        Args:
            image: (C, H, W) uint8.
            key: (1,) int64.

        Returns:
            (C, height, width) for each view: uint8, or the transform's result.
        """
        if self.transform is not None:
            with seeded(int(key)):
                return [torch.as_tensor(self.transform(to_picture(image)))]
        aspect: Numbers = np.array([image.shape[2] / image.shape[1]])
        if self.centre:
            return cut_one(image, [centre_crops(aspect, self.plan)], [self.plan.size], self.plan.interpolation)
        sizes = [size for size, _ in self.plan.crops]
        crops = [draw_crops(key, view, aspect, self.plan) for view in range(len(sizes))]
        return cut_one(image, crops, sizes, self.plan.interpolation)


def collect(views: Sequence[Sequence[Tensor]], labels: Sequence[Label]) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """Collate the views and labels of images into those of a batch."""
    stacked = tuple(torch.stack(view) for view in zip(*views, strict=True))
    if not labels or labels[0] is None:
        return stacked, None
    return stacked, torch.stack([label if isinstance(label, Tensor) else torch.tensor(label) for label in labels])


class Receiver:
    """The device side: turns fetched images into a batch, and records those that could not be read.

    Args:
        plan: the plan of the views.
        seed: the seed of the run.
        device: the device of the batches.
        plain: True to leave colours and sharpness unchanged.
    """

    def __init__(self, plan: ViewPlan, seed: int, device: torch.device, *, plain: bool) -> None:
        self.seed, self.device, self.plain = seed, device, plain
        self.finish = Finish(plan, device)
        self.broken: dict[str, str] = {}

    def __call__(self, fetched: Fetched) -> Batch:
        """Finish a batch.

        Raises:
            UsageError: the worker could not read a single image.
        """
        self.broken.update(fetched.broken)
        if fetched.failed is not None:
            raise UsageError(fetched.failed)
        index = torch.tensor(fetched.numbers, dtype=torch.int64)
        keys = make_keys(self.seed, fetched.epoch, index)
        views = tuple(
            self.finish(pixels, None if self.plain else view, keys) if pixels.dtype == torch.uint8 else send(pixels, self.device)
            for view, pixels in enumerate(fetched.views)
        )
        labels = None if fetched.labels is None else send(fetched.labels, self.device)
        return Batch(views, send(keys, self.device), labels, index)


@final
class WorkerFeed:
    """A `Feed` whose images are decoded and cropped by worker processes.

    Args:
        source: the data set.
        plan: the plan of the views.
        share: which images belong to this process.
        device: the device of the batches.
        workers: the number of worker processes; 0 to use this process.
        transform: a transform to use instead of the plan's views.
    """

    def __init__(
        self,
        source: Source,
        plan: ViewPlan,
        share: Share,
        *,
        device: torch.device,
        workers: int,
        transform: Transform | None = None,
    ) -> None:
        self.steps_per_epoch, self.images = share.steps_per_epoch, share.images
        self._receive = Receiver(plan, share.seed, device, plain=transform is not None)
        self.broken = self._receive.broken
        self._source, self._plan, self._share, self._device = source, plan, share, device
        self._turns = _Turns(share)
        decoding = Decoding(source, Cutter(plan, transform), share.seed)
        self._loader = loader(decoding, self._turns, workers=workers, device=device, persistent=True)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[Batch, ...]]:
        """See `Feed`."""
        self._turns.begin(epoch, first_step)
        yield from in_steps(map(self._receive, self._loader), self._share.accumulate)

    def sample(self, count: int) -> Batch:
        """See `Feed`."""
        return sample(self._source, self._plan, self._share.seed, self._device, count, self.broken)


def sample(source: Source, plan: ViewPlan, seed: int, device: torch.device, count: int, broken: dict[str, str]) -> Batch:
    """Return a few fixed images as centre crops, decoded immediately; broken images are recorded."""
    receive = Receiver(plan, seed, device, plain=True)
    batch = receive(Decoding(source, Cutter(plan, centre=True), seed)[0, spread(len(source), count).tolist()])
    broken.update(receive.broken)
    return batch


def every_image(
    source: Source,
    plan: ViewPlan,
    numbers: Sequence[Sequence[int]],
    *,
    device: torch.device,
    workers: int,
    transform: Transform | None,
    broken: dict[str, str],
) -> Iterator[Batch]:
    """Load batches of the images with these numbers, as centre crops or through a transform; broken ones are skipped."""
    receive = Receiver(plan, 0, device, plain=True)
    decoding = Decoding(source, Cutter(plan, transform, centre=transform is None), 0, strict=True)
    for fetched in loader(decoding, [(0, list(part)) for part in numbers], workers=workers, device=device, persistent=False):
        if fetched.numbers:
            yield receive(fetched)
        broken.update(fetched.broken)


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processes_here() -> int:
    """The number of processes of a run that share this computer."""
    return max(int(os.environ.get("LOCAL_WORLD_SIZE", 1)), 1)


def workers_for(device: torch.device, asked: int | None) -> int:
    """The number of processes that decode: the number asked for, or one per core, divided among the processes of a run.

    There are at most 8 with a GPU, and at most 2 on a CPU, where they take cores away from the training itself.
    """
    if asked is not None:
        return asked
    return max(min(cores() // processes_here(), 8 if device.type == "cuda" else 2), 1)


def loader(decoding: Dataset[Fetched], turns: Any, *, workers: int, device: torch.device, persistent: bool) -> DataLoader[Fetched]:
    """A `DataLoader` that does not touch torch's global generator and passes on the results of workers unchanged.

    Args:
        decoding: makes batches.
        turns: the requests to it, in order; None if it continues on its own.
        workers: the number of processes; at most one per core is started.
        device: the device of the batches; for a GPU they are in pinned memory.
        persistent: True to keep the workers from epoch to epoch.
    """
    return DataLoader(
        decoding,
        batch_size=None,
        sampler=turns,
        num_workers=min(workers, cores()),
        collate_fn=_as_it_is,
        pin_memory=device.type == "cuda",
        persistent_workers=persistent and workers > 0,
        generator=torch.Generator().manual_seed(0),
    )


def _as_it_is(fetched: Any) -> Any:
    return fetched


@final
class _Turns(Sampler[tuple[int, list[int]]]):
    """Says which images to fetch next: (epoch, numbers) for every part of this process, from a given step on."""

    def __init__(self, share: Share) -> None:
        self._share, self._epoch, self._first_step = share, 0, 0

    def begin(self, epoch: int, first_step: int) -> None:
        """Set where the next pass starts."""
        self._epoch, self._first_step = epoch, first_step

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        epoch, share = self._epoch, self._share
        order = order_of_epoch(share.images, share.seed, epoch)
        for part in share.remaining(order, self._first_step):
            yield epoch, part.tolist()


@final
class Decoding(Dataset[Fetched]):
    """Makes a batch for each requested (epoch, numbers).

    Args:
        source: the data set.
        cutter: the object that makes the views.
        seed: the seed of the run.
        strict: True to skip broken images instead of replacing them.
    """

    def __init__(self, source: Source, cutter: Cutter, seed: int, *, strict: bool = False) -> None:
        self.source, self.cutter, self.seed, self.strict = source, cutter, seed, strict
        self._told = 0

    def __getitem__(self, asked: tuple[int, Sequence[int]]) -> Fetched:
        """Decode and crop one image after the other, so that only one whole image is in memory."""
        epoch, numbers = asked
        views, labels, kept = [], [], []
        for number, key in zip(numbers, make_keys(self.seed, epoch, numbers).split(1), strict=True):
            try:
                found = self.source.read(number) if self.strict else self.source[number]
            except UsageError as error:  # through the loader it would come with the worker's traceback
                return Fetched((), None, [], epoch, self._news(), str(error))
            if found is not None:
                views.append(self.cutter(found[0], key))
                labels.append(found[1])
                kept.append(number)
        return Fetched(*collect(views, labels), kept, epoch, self._news())

    def _news(self) -> dict[str, str]:
        news = dict(list(self.source.broken.items())[self._told :])
        self._told += len(news)
        return news
