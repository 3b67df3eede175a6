"""Streams: data sets that are read sequentially, such as tar shards and streamed Hugging Face data sets.

A stream of several shards can be read in shares, each with its own shards: see `gmml_models.data.stream_loader`.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, final

from torch import Tensor

from gmml_aug.chance import mix_int
from gmml_models.data.decode import decode
from gmml_models.data.image_files import reason_of
from gmml_models.data.map_dataset import IMAGE_KEYS, split_item
from gmml_models.errors import UsageError, shown

_BUFFER, _LEAST = 512, 32  # images among which the next one is chosen: of a stream, and of each share of one at least
TRIED = 1000  # broken images in a row, after which nothing more is hoped for
_SHUFFLE = 0x73747265616D


class StreamItem(NamedTuple):
    """One image of a stream, not decoded yet."""

    name: str
    image: Any  # what `decode` takes


@final
class StreamSource:
    """Images that are read sequentially, without labels.

    Args:
        begin: a function of (seed, share, shares) that returns the records of one of several shares, in an order determined by
            the seed if possible; share 0 of 1 is everything.
        images: the number of images in an epoch. If the stream is shorter, it starts again; if it is longer, the rest is left for
            an epoch with another order.
        channels: the number of channels of every image.
        shuffles: True if ``begin`` shuffles; otherwise records are drawn from a buffer of 512.
        divides: True if it may give each of several workers a different part, as torch's data sets do; it is then read by at most
            one worker.
        shards: the number of files of the stream; any divisor of it can be the number of shares, which then have about the same
            size.
        where: the name of the data for messages.

    Attributes:
        broken: name -> reason, for records that this process could not read so far.
    """

    def __init__(
        self,
        begin: Callable[[int, int, int], Iterable[StreamItem]],
        *,
        images: int,
        channels: int,
        shuffles: bool = False,
        divides: bool = False,
        shards: int = 1,
        where: str = "the stream",
    ) -> None:
        self.begin, self.images, self.channels, self.shards = begin, images, channels, shards
        self.shuffles, self.divides, self.where = shuffles, divides, where
        self.broken: dict[str, str] = {}

    def records(self, seed: int, epoch: int, share: int = 0, shares: int = 1) -> Iterator[StreamItem]:
        """Yield records without end, in an order determined by seed and epoch: those of a share, then those of the next shares.

        Raises:
            UsageError: the stream is empty.
        """
        chance = mix_int(mix_int(mix_int(seed) + epoch) + _SHUFFLE) % (1 << 32)
        buffer = max(_BUFFER // shares, _LEAST)
        while True:
            met = False
            for turn in range(shares):
                now = (share + turn) % shares
                records = self.begin(chance, now, shares)
                for record in records if self.shuffles else shuffled(records, mix_int(chance + now), buffer):
                    met = True
                    yield record
            if not met:
                raise UsageError(f"gmml: {self.where} holds no images. {self._first_broken()}".rstrip())

    def identity(self) -> None:
        """Always empty, because the whole stream would have to be read."""

    def decoded(self, record: StreamItem) -> Tensor | None:
        """Decode an image to (C, H, W) uint8; if it cannot be read, return None and record it in `broken`."""
        if shown(record.name) in self.broken:
            return None
        try:
            return decode(record.image, self.channels)
        except Exception as error:  # decoders raise nearly anything on damaged bytes
            self.broken[shown(record.name)] = shown(reason_of(error))
            return None

    def nothing_readable(self) -> UsageError:
        """Make the error to raise if no image can be read."""
        return UsageError(f"gmml: {TRIED} images in a row of {self.where} could not be read. {self._first_broken()}")

    def _first_broken(self) -> str:
        return next((f"The first was {name}: {reason}." for name, reason in self.broken.items()), "")


def shuffled(records: Iterable[StreamItem], seed: int, buffer: int = _BUFFER) -> Iterator[StreamItem]:
    """Shuffle records: each one is drawn from a buffer of the next ``buffer`` records."""
    chance = random.Random(seed)
    waiting: list[StreamItem] = []
    for record in records:
        waiting.append(record)
        if len(waiting) > buffer:
            yield waiting.pop(_swap(waiting, chance.randrange(len(waiting))))
    while waiting:
        yield waiting.pop(_swap(waiting, chance.randrange(len(waiting))))


def _swap(waiting: list[StreamItem], place: int) -> int:
    waiting[place], waiting[-1] = waiting[-1], waiting[place]
    return -1


@dataclass(frozen=True)
class Shards:
    """The records of webdataset shards, which are tars in which files that belong together share a name.

    The order of the shards is drawn anew in each pass.

    Args:
        urls: the URLs of the tars, each of which is one shard.
        broken: the dict in which damaged tars are recorded.
    """

    urls: tuple[str, ...]
    broken: dict[str, str]

    def __call__(self, seed: int, share: int = 0, shares: int = 1) -> Iterator[StreamItem]:
        """The records of one share in one pass."""
        read = importlib.import_module("webdataset.tariterators").tarfile_samples
        urls = list(self.urls)
        random.Random(seed).shuffle(urls)
        for url in urls[share::shares]:
            yield from self._tar(url, read)

    def _tar(self, url: str, read: Any) -> Iterator[StreamItem]:
        def note(error: Exception) -> bool:
            self.broken[shown(url)] = shown(reason_of(error))
            return False  # what is left of a damaged tar is not trusted

        opened: dict[str, Any] = {"url": url}
        try:
            for found in read(iter([opened]), handler=note):
                image = next((found[key] for key in (*IMAGE_KEYS, *_ENDINGS) if key in found), None)
                if image is not None:
                    yield StreamItem(f"{url}: {found['__key__']}", image)
        finally:
            if "stream" in opened:  # the library leaves it open
                with suppress(Exception):
                    opened["stream"].close()


_ENDINGS = ("bmp", "tif", "tiff", "gif", "ppm", "pgm", "avif", "jp2")


@dataclass(frozen=True)
class Iterated:
    """The records of any Python iterable that can be iterated repeatedly.

    Args:
        items: images, or tuples or dicts that hold an image.
        image_key: the key of the image in the dicts.
        streamed: True for a Hugging Face stream, which does its own shuffling.
    """

    items: Iterable[Any]
    image_key: str | None = None
    streamed: bool = False

    def __call__(self, seed: int, share: int = 0, shares: int = 1) -> Iterator[StreamItem]:
        """The records of one pass; for a Hugging Face stream, those of one share."""
        whose = f" of share {share}" if shares > 1 else ""
        for number, item in enumerate(self._shuffled(seed, share, shares) if self.streamed else self.items):
            try:
                image = split_item(item, self.image_key)[0]
            except ValueError as error:
                raise UsageError(f"gmml: the items of the data set hold no image: {error}.") from error
            yield StreamItem(f"image {number}{whose}", image)

    def _shuffled(self, seed: int, share: int, shares: int) -> Iterator[Any]:
        stream: Any = self.items
        if shares > 1:
            stream = stream.shard(num_shards=shares, index=share)
        # not iter(): in a worker that gives this worker's part alone
        for batch in stream.shuffle(seed=seed, buffer_size=max(_BUFFER // shares, _LEAST)).iter(batch_size=1):
            yield {key: values[0] for key, values in batch.items()}
