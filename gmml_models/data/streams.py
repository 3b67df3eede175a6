"""Streams: data sets that are read from one end to the other, such as shards of tars and streamed Hugging Face data sets.

Every process and every worker reads the whole stream and decodes only what is its own. So neither their number nor a restart
changes which images a step sees. Reading is cheap beside decoding; where it is not (a slow network, many processes), fetch the
data first.
"""

from __future__ import annotations

import importlib
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from gmml_aug.chance import keys as make_keys
from gmml_aug.chance import mix_int
from gmml_models.data.decode import decode
from gmml_models.data.image_files import reason_of
from gmml_models.data.loader import Cutter, Fetched, Receiver, Transform, collect, loader
from gmml_models.data.map_dataset import IMAGE_KEYS, split_item
from gmml_models.data.sampling import Batch, Share, in_steps
from gmml_models.data.transforms import ViewPlan
from gmml_models.errors import UsageError, shown

_BUFFER = 512  # images among which the next one is chosen
_TRIED = 1000  # broken images in a row, after which nothing more is hoped for
_SHUFFLE = 0x73747265616D


class StreamItem(NamedTuple):
    """One image of a stream, not decoded yet."""

    name: str
    image: Any  # what `decode` takes


@final
class StreamSource:
    """Images one after the other, without labels.

    Args:
        begin: gives the records of a pass; its argument decides their order, where it can be decided.
        images: in an epoch. If the stream ends before, it begins again; if it goes on, the rest waits for another order.
        channels: of every image.
        shuffles: ``begin`` shuffles by itself; else records pass through a buffer of 512 from which they are drawn.
        divides: it may give each of several workers another part, as data sets of torch do, and is then read by one at most.
        where: for messages.

    Attributes:
        broken: name -> reason of what could not be read, as it is met in this process.
    """

    def __init__(
        self,
        begin: Callable[[int], Iterable[StreamItem]],
        *,
        images: int,
        channels: int,
        shuffles: bool = False,
        divides: bool = False,
        where: str = "the stream",
    ) -> None:
        self.begin, self.images, self.channels = begin, images, channels
        self.shuffles, self.divides, self.where = shuffles, divides, where
        self.broken: dict[str, str] = {}

    def records(self, seed: int, epoch: int) -> Iterator[StreamItem]:
        """Records without end, in an order that follows from seed and epoch.

        Raises:
            UsageError: the stream is empty.
        """
        while True:
            chance = mix_int(mix_int(mix_int(seed) + epoch) + _SHUFFLE) % (1 << 32)
            records = iter(self.begin(chance))
            met = False
            for record in records if self.shuffles else shuffled(records, chance):
                met = True
                yield record
            if not met:
                raise UsageError(f"gmml: {self.where} holds no images. {self._first_broken()}".rstrip())

    def identity(self) -> None:
        """Nothing: a stream would have to be read."""

    def decoded(self, record: StreamItem) -> Tensor | None:
        """(C, H, W) uint8; None, and a word in `broken`, if it cannot be read."""
        if shown(record.name) in self.broken:
            return None
        try:
            return decode(record.image, self.channels)
        except Exception as error:  # decoders raise nearly anything on damaged bytes
            self.broken[shown(record.name)] = shown(reason_of(error))
            return None

    def nothing_readable(self) -> UsageError:
        """What to raise where no image can be read."""
        return UsageError(f"gmml: {_TRIED} images in a row of {self.where} could not be read. {self._first_broken()}")

    def _first_broken(self) -> str:
        return next((f"The first was {name}: {reason}." for name, reason in self.broken.items()), "")


def shuffled(records: Iterable[StreamItem], seed: int) -> Iterator[StreamItem]:
    """Records in another order: each one is drawn from the next 512 that wait."""
    chance = random.Random(seed)
    waiting: list[StreamItem] = []
    for record in records:
        waiting.append(record)
        if len(waiting) > _BUFFER:
            yield waiting.pop(_swap(waiting, chance.randrange(len(waiting))))
    while waiting:
        yield waiting.pop(_swap(waiting, chance.randrange(len(waiting))))


def _swap(waiting: list[StreamItem], place: int) -> int:
    waiting[place], waiting[-1] = waiting[-1], waiting[place]
    return -1


@final
class StreamFeed:
    """A `Feed` of a stream; an image's number is its place in the stream of the epoch.

    Args:
        source: of the images.
        plan: of the views.
        share: which images are this process's.
        device: where batches end.
        workers: processes; 0: this one.
        transform: in place of the plan's views.
    """

    def __init__(
        self, source: StreamSource, plan: ViewPlan, share: Share, *, device: torch.device, workers: int, transform: Transform | None
    ) -> None:
        self.steps_per_epoch, self.images = share.steps_per_epoch, share.images
        self._source, self._plan, self._share, self._device = source, plan, share, device
        self._workers = min(workers, 1) if source.divides else workers
        self._cutter = Cutter(plan, transform)
        self._receive = Receiver(plan, share.seed, device, plain=transform is not None)
        self.broken = self._receive.broken

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[Batch, ...]]:
        """See `Feed`. What lies before ``first_step`` is read, but not decoded."""
        parts = [part.tolist() for part in self._share.remaining(torch.arange(self.images), first_step)]
        reading = _Reading(self._source, self._cutter, self._share.seed, epoch, parts)
        fetched = loader(reading, None, workers=self._workers, device=self._device, persistent=False)
        yield from in_steps(map(self._receive, fetched), self._share.accumulate)

    def sample(self, count: int) -> Batch:
        """See `Feed`. The first images of the stream: spreading them would read all of it."""
        numbers = list(range(min(count, self.images)))
        reading = _Reading(self._source, Cutter(self._plan, centre=True), self._share.seed, 0, [numbers])
        receive = Receiver(self._plan, self._share.seed, self._device, plain=True)
        batch = receive(next(iter(reading)))
        self.broken.update(receive.broken)
        return batch


@final
@dataclass
class _Reading(IterableDataset[Fetched]):
    """The batches of some parts of a stream; of several workers each makes every so manieth."""

    source: StreamSource
    cutter: Cutter
    seed: int
    epoch: int
    parts: Sequence[Sequence[int]]  # numbers in the stream, contiguous and rising

    def __iter__(self) -> Iterator[Fetched]:
        worker = get_worker_info()
        first, every = (0, 1) if worker is None else (worker.id, worker.num_workers)
        told = 0
        try:
            ahead = _Ahead(self.source.records(self.seed, self.epoch))
            for numbers in self.parts[first::every]:
                keys = make_keys(self.seed, self.epoch, numbers).split(1)
                views = [self.cutter(self._healthy(ahead, number), key) for number, key in zip(numbers, keys, strict=True)]
                news = dict(list(self.source.broken.items())[told:])
                told += len(news)
                yield Fetched(*collect(views, []), list(numbers), self.epoch, news)
        except UsageError as error:  # through the loader it would come with the worker's traceback
            yield Fetched((), None, [], self.epoch, dict(self.source.broken), str(error))

    def _healthy(self, ahead: _Ahead, number: int) -> Tensor:
        """The image with this number, or for a broken one the next that can be read."""
        for place in range(number, number + _TRIED):
            image = self.source.decoded(ahead.get(place, number))
            if image is not None:
                return image
        raise self.source.nothing_readable()


class _Ahead:
    """Records by number, as long as nobody asks for one before those that were given up."""

    def __init__(self, records: Iterator[StreamItem]) -> None:
        self._records, self._held, self._first = records, deque[StreamItem](), 0

    def get(self, number: int, oldest: int) -> StreamItem:
        """A record; those before ``oldest`` are given up."""
        while self._held and self._first < oldest:
            self._held.popleft()
            self._first += 1
        while self._first < oldest:
            next(self._records)
            self._first += 1
        while self._first + len(self._held) <= number:
            self._held.append(next(self._records))
        return self._held[number - self._first]


@dataclass(frozen=True)
class Shards:
    """Records of webdataset shards: tars in which what belongs together has one name. Their order is drawn anew each time.

    Args:
        urls: of the tars.
        broken: where damaged tars are noted.
    """

    urls: tuple[str, ...]
    broken: dict[str, str]

    def __call__(self, seed: int) -> Iterator[StreamItem]:
        """The records of one pass."""
        read = importlib.import_module("webdataset.tariterators").tarfile_samples
        urls = list(self.urls)
        random.Random(seed).shuffle(urls)
        for url in urls:
            yield from self._tar(url, read)

    def _tar(self, url: str, read: Any) -> Iterator[StreamItem]:
        def note(error: Exception) -> bool:
            self.broken[shown(url)] = shown(reason_of(error))
            return False  # what is left of a damaged tar is not trusted

        for found in read(iter([{"url": url}]), handler=note):
            image = next((found[key] for key in (*IMAGE_KEYS, *_ENDINGS) if key in found), None)
            if image is not None:
                yield StreamItem(f"{url}: {found['__key__']}", image)


_ENDINGS = ("bmp", "tif", "tiff", "gif", "ppm", "pgm", "avif", "jp2")


@dataclass(frozen=True)
class Iterated:
    """Records of anything in Python that can be iterated, time and again.

    Args:
        items: images, or tuples or dicts that hold one.
        image_key: of the dicts.
        streamed: a Hugging Face stream, which shuffles by itself.
    """

    items: Iterable[Any]
    image_key: str | None = None
    streamed: bool = False

    def __call__(self, seed: int) -> Iterator[StreamItem]:
        """The records of one pass."""
        for number, item in enumerate(self._shuffled(seed) if self.streamed else self.items):
            try:
                image = split_item(item, self.image_key)[0]
            except ValueError as error:
                raise UsageError(f"gmml: the items of the data set hold no image: {error}.") from error
            yield StreamItem(f"image {number}", image)

    def _shuffled(self, seed: int) -> Iterator[Any]:
        stream: Any = self.items
        # not iter(): in a worker that gives this worker's part alone
        for batch in stream.shuffle(seed=seed, buffer_size=_BUFFER).iter(batch_size=1):
            yield {key: values[0] for key, values in batch.items()}
