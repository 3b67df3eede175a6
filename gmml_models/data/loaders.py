"""Makes feeds, which turn images on a disk into normalised views on the device, by the method that suits the data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gmml_models.data.loader import WorkerFeed, every_image, workers_for
from gmml_models.data.resident_loader import ResidentFeed, bytes_kept, size_kept
from gmml_models.data.sampling import Batch, Feed, Progress, Share
from gmml_models.data.stream_loader import StreamFeed
from gmml_models.data.streams import StreamSource
from gmml_models.data.transforms import ViewPlan
from gmml_models.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image

    from gmml_models.data.dataset import Source

__all__ = ["Batch", "Feed", "Progress", "Share", "ViewPlan", "in_order", "make_feed"]


def make_feed(
    source: Source | StreamSource,
    plan: ViewPlan,
    *,
    batch_size: int,
    accumulate: int = 1,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
    device: torch.device | str = "cpu",
    workers: int | None = None,
    resident: bool | None = None,
    resident_size: int | None = None,
    transform: Callable[[Image.Image], Tensor] | None = None,
    progress: Progress | None = None,
) -> Feed:
    """Make a feed of views of a data set.

    The images of a step depend only on (seed, epoch, step), not on the processes, parts or workers that prepare them.

    Args:
        source: see `open_source`.
        plan: the plan of the views; with a ``transform`` only its size, mean and std are used, by `Feed.sample`.
        batch_size: the number of images per step, over all processes and parts.
        accumulate: the number of parts into which a process splits its images of a step.
        seed: the seed of the run.
        rank: the number of this process.
        world: the number of processes.
        device: the device of the batches.
        workers: the number of processes that decode, or of threads if images are decoded once; 0 uses this process; None uses
            `workers_for`.
        resident: True to keep all images on the device; None to do so on a GPU if they take less than a quarter of its free
            memory.
        resident_size: the side in pixels at which they are kept there; None for 1.15 times the large views.
        transform: a function from a Pillow image to a tensor, used instead of the plan's views. It runs in the workers, and the
            numbers that it draws from torch, `random` or NumPy are determined by the image's key. uint8 is normalised by the
            plan; floats are not changed.
        progress: a function that is called while images are decoded to be kept.

    Raises:
        UsageError: the batch cannot be split evenly or is larger than the data set, the channels do not fit the plan's mean and
            std, or there is not enough memory for resident images.
    """
    where = torch.device(device)
    workers = workers_for(where, workers)
    if source.channels != len(plan.mean):
        raise UsageError(
            f"gmml: the images have {source.channels} channels, but mean and std have {len(plan.mean)}. Give one number per "
            "channel."
        )
    if transform is not None and source.channels not in (1, 3):
        raise UsageError(f"gmml: a transform takes pictures of 1 or 3 channels, but in_chans is {source.channels}.")
    count = source.images if isinstance(source, StreamSource) else len(source)
    share = Share(images=count, batch_size=batch_size, accumulate=accumulate, rank=rank, world=world, seed=seed)
    kept = resident_bytes(source, plan, device=where, resident=resident, resident_size=resident_size, transform=transform)
    if isinstance(source, StreamSource):
        return StreamFeed(source, plan, share, device=where, workers=workers, transform=transform)
    if kept:
        size = size_kept(plan, resident_size)
        return ResidentFeed(source, plan, share, device=where, size=size, threads=workers, progress=progress)
    return WorkerFeed(source, plan, share, device=where, workers=workers, transform=transform)


def resident_bytes(
    source: Source | StreamSource,
    plan: ViewPlan,
    *,
    device: torch.device,
    resident: bool | None = None,
    resident_size: int | None = None,
    transform: Callable[[Image.Image], Tensor] | None = None,
) -> int:
    """The bytes of images that `make_feed` would keep on the device with these arguments; 0 if it would not.

    Raises:
        UsageError: they must be kept, but they are a stream, have their own transform, or do not fit the memory.
    """
    if isinstance(source, StreamSource) or transform is not None:
        if resident:
            what = "a stream" if isinstance(source, StreamSource) else "a data set with its own transform"
            raise UsageError(f"gmml: {what} cannot be resident on the device. Leave --resident out.")
        return 0
    return bytes_kept(source, size_kept(plan, resident_size), device, resident)


def in_order(
    source: Source,
    plan: ViewPlan,
    *,
    batch_size: int,
    rank: int = 0,
    world: int = 1,
    device: torch.device | str = "cpu",
    workers: int | None = None,
    transform: Callable[[Image.Image], Tensor] | None = None,
    progress: Progress | None = None,
) -> Iterator[Batch]:
    """Return a feed of every image once, in order, for measuring. Broken ones are skipped and listed in ``source.broken``.

    Args:
        source: see `open_source`.
        plan: a plan whose size, centre, mean and std define the centre crop.
        batch_size: the number of images per batch; the last batch may be smaller.
        rank: the number of this process; each has a contiguous part of the data set.
        world: the number of processes.
        device: the device of the batches.
        workers: the number of processes that decode; 0 uses this process; None uses `workers_for`.
        transform: a function from a Pillow image to a tensor, used instead of the centre crop; see `make_feed`.
        progress: a function that is called whenever the caller is done with a batch.
    """
    first, last = rank * len(source) // world, (rank + 1) * len(source) // world
    numbers = [range(start, min(start + batch_size, last)) for start in range(first, last, batch_size)]
    where = torch.device(device)
    workers = workers_for(where, workers)
    batches = every_image(source, plan, numbers, device=where, workers=workers, transform=transform, broken=source.broken)
    return batches if progress is None else _counted(batches, last - first, progress)


def _counted(batches: Iterator[Batch], images: int, progress: Progress) -> Iterator[Batch]:
    done = 0
    for batch in batches:
        yield batch
        done += len(batch.index)
        progress(done, images)
