"""Feeds of streams, in which every process and every worker reads the shards that contain its own images.

The images of a step depend only on the number of shards, the batch size and the steps of an epoch, as described in `Shares`, so
neither the number of processes and workers nor a restart changes them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from gmml_aug.chance import keys as make_keys
from gmml_models.data.loader import Cutter, Fetched, Receiver, Transform, collect, loader
from gmml_models.data.sampling import Batch, Share, in_steps
from gmml_models.data.streams import TRIED, StreamItem, StreamSource
from gmml_models.data.transforms import ViewPlan
from gmml_models.errors import UsageError

_MOST = 8  # blocks of a batch, and turns of the steps: where one process reads all shares, 64 files are open at once


@final
@dataclass(frozen=True)
class Shares:
    """Determines the share of a stream that each image of an epoch is taken from, and its position in that share.

    Every batch is cut into ``blocks``, and the steps take ``turns``: block b of step s takes the next images of share
    (s mod turns) * blocks + b. So with up to one process per block and one worker per turn, each reads only its own shards; with
    more, some shards are read more than once, and with fewer, each reads several shares.

    Args:
        batch_size: the number of images per step, over all processes.
        blocks: the number of blocks of a batch; it divides the batch size.
        turns: the number of turns that the steps take.
    """

    batch_size: int
    blocks: int
    turns: int

    @classmethod
    def of(cls, shards: int, batch_size: int, steps: int) -> Shares:
        """The largest numbers, up to 8 blocks and 8 turns, that give all shares the same numbers of shards and of images per epoch.

        Args:
            shards: the number of shards of the stream.
            batch_size: the number of images per step.
            steps: the number of steps in an epoch.
        """
        blocks = _divisor(math.gcd(batch_size, shards))
        return cls(batch_size, blocks, _divisor(math.gcd(shards // blocks, steps)))

    @property
    def count(self) -> int:
        """How many shares."""
        return self.blocks * self.turns

    def find(self, number: int) -> tuple[int, int]:
        """The share of the image with this number in the epoch, and its position in the share."""
        step, place = divmod(number, self.batch_size)
        block, place = divmod(place, self.batch_size // self.blocks)
        return step % self.turns * self.blocks + block, step // self.turns * (self.batch_size // self.blocks) + place


def _divisor(number: int) -> int:
    return max(one for one in range(1, _MOST + 1) if number % one == 0)


@final
class StreamFeed:
    """A `Feed` of a stream, in which an image's number is its position in the epoch.

    Args:
        source: the data set.
        plan: the plan of the views.
        share: which images belong to this process.
        device: the device of the batches.
        workers: the number of worker processes; 0 to use this process.
        transform: a transform to use instead of the plan's views.
    """

    def __init__(
        self, source: StreamSource, plan: ViewPlan, share: Share, *, device: torch.device, workers: int, transform: Transform | None
    ) -> None:
        self.steps_per_epoch, self.images = share.steps_per_epoch, share.images
        self._source, self._plan, self._share, self._device = source, plan, share, device
        self._shares = Shares.of(source.shards, share.batch_size, share.steps_per_epoch)
        self._workers = min(workers, 1) if source.divides else workers
        self._cutter = Cutter(plan, transform)
        self._receive = Receiver(plan, share.seed, device, plain=transform is not None)
        self.broken = self._receive.broken

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[Batch, ...]]:
        """See `Feed`. Images before ``first_step`` in this process's shares are read, but not decoded."""
        parts = [part.tolist() for part in self._share.remaining(torch.arange(self.images), first_step)]
        reading = _Reading(self._source, self._shares, self._cutter, self._share.seed, epoch, parts)
        fetched = loader(reading, None, workers=self._workers, device=self._device, persistent=False)
        yield from in_steps(map(self._receive, fetched), self._share.accumulate)

    def sample(self, count: int) -> Batch:
        """See `Feed`. Return the first images of the stream, because spreading them out would require reading all of it."""
        numbers = list(range(min(count, self.images)))
        reading = _Reading(self._source, self._shares, Cutter(self._plan, centre=True), self._share.seed, 0, [numbers])
        receive = Receiver(self._plan, self._share.seed, self._device, plain=True)
        batch = receive(next(iter(reading)))
        self.broken.update(receive.broken)
        return batch


@final
@dataclass
class _Reading(IterableDataset[Fetched]):
    """The batches of some parts of a stream; with several workers, each worker makes every n-th batch."""

    source: StreamSource
    shares: Shares
    cutter: Cutter
    seed: int
    epoch: int
    parts: Sequence[Sequence[int]]  # numbers in the stream, contiguous and rising

    def __iter__(self) -> Iterator[Fetched]:
        worker = get_worker_info()
        first, every = (0, 1) if worker is None else (worker.id, worker.num_workers)
        told = 0
        try:
            ahead: dict[int, _Ahead] = {}
            for numbers in self.parts[first::every]:
                keys = make_keys(self.seed, self.epoch, numbers).split(1)
                views = [self.cutter(self._healthy(ahead, number), key) for number, key in zip(numbers, keys, strict=True)]
                news = dict(list(self.source.broken.items())[told:])
                told += len(news)
                yield Fetched(*collect(views, []), list(numbers), self.epoch, news)
        except UsageError as error:  # through the loader it would come with the worker's traceback
            yield Fetched((), None, [], self.epoch, dict(self.source.broken), str(error))

    def _healthy(self, ahead: dict[int, _Ahead], number: int) -> Tensor:
        """The image with this number; if it is broken, the next one of its share that can be read."""
        share, first = self.shares.find(number)
        if share not in ahead:
            ahead[share] = _Ahead(self.source.records(self.seed, self.epoch, share, self.shares.count))
        for place in range(first, first + TRIED):
            image = self.source.decoded(ahead[share].get(place, first))
            if image is not None:
                return image
        raise self.source.nothing_readable()


class _Ahead:
    """Gives records by number; records that were already discarded cannot be requested again."""

    def __init__(self, records: Iterator[StreamItem]) -> None:
        self._records, self._held, self._first = records, deque[StreamItem](), 0

    def get(self, number: int, oldest: int) -> StreamItem:
        """Return a record; those before ``oldest`` are discarded."""
        while self._held and self._first < oldest:
            self._held.popleft()
            self._first += 1
        while self._first < oldest:
            next(self._records)
            self._first += 1
        while self._first + len(self._held) <= number:
            self._held.append(next(self._records))
        return self._held[number - self._first]
