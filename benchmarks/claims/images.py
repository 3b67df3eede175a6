"""The data sets of the rows, by name, from a folder of unpacked packs."""

from __future__ import annotations

import gzip
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
from torch import Tensor

from gmml_models.data.dataset import Label, Source, Subset
from gmml_models.data.map_dataset import MapSource
from gmml_models.data.sources import open_source
from gmml_models.errors import UsageError
from gmml_models.recipes.config import FinetuneConfig

CALTECH, FLOWERS = "caltech101_sub", "flowers102_part/15"
_DIGITS = ("mnist_t10k-images-idx3-ubyte.gz", "mnist_t10k-labels-idx1-ubyte.gz")


class Pair(NamedTuple):
    """Images to learn from, and to measure on."""

    train: Source
    test: Source


def open_images(name: str, folder: Path) -> Pair:
    """A data set of `benchmarks.claims.rows`.

    ``PACK`` are the folders ``train`` and ``test`` of a pack, ``PACK/15`` has the first 15 training images of each class alone,
    ``PACK/held`` measures on every fifth training image of each class, which is then not learnt from: the test images are not
    touched. ``PACK/15/held`` does both. ``PACK+PACK`` are the images of several together, without labels, each part as its own name
    says: ``PACK+PACK/held``. ``mnist/N`` are the first N digits of MNIST's test file, in three equal channels.

    Raises:
        UsageError: a pack is missing.
    """
    pack, _, part = name.partition("/")
    if "+" in pack:
        pairs = {one: open_images("/".join(filter(None, (one, part))), folder) for one in pack.split("+")}
        return Pair(*(Together({one: pair[side] for one, pair in pairs.items()}) for side in (0, 1)))
    if pack == "mnist":
        return _digits(folder, int(part))
    if not (folder / pack / "train").is_dir():
        raise UsageError(
            f"claims: {folder} holds no {pack}/train. Unpack {pack}_*.tar there; the README beside the packs says where they "
            "come from. Rows of other data can be run without it, with --only."
        )
    train = open_source(FinetuneConfig(data=str(folder / pack), split="train"), purpose="train")
    place, first = _places(train), part.removesuffix("held").rstrip("/")
    taken = [number for number in range(len(train)) if not first or place[number] < int(first)]
    if part.endswith("held"):
        away = [number for number in taken if place[number] % 5 == 4]
        return Pair(Subset(train, sorted({*taken} - {*away})), Subset(train, away))
    test = open_source(FinetuneConfig(data=str(folder / pack), test_split="test"), purpose="test", classes=train.classes)
    return Pair(Subset(train, taken) if first else train, test)


@final
class Together(Source):
    """The images of several sources, one behind the other, without labels.

    Args:
        sources: by name, of equally many channels.
    """

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self.sources = list(sources.items())
        super().__init__(channels=self.sources[0][1].channels)
        self.ends = list(accumulate(len(source) for source in sources.values()))

    def __len__(self) -> int:
        return self.ends[-1]

    def name(self, index: int) -> str:
        """As in its own source, behind the name of that."""
        (name, source), number = self._at(index)
        return f"{name}/{source.name(number)}"

    def labels(self) -> Sequence[Label]:
        """None for every image."""
        return [None] * len(self)

    def item(self, index: int) -> tuple[Tensor, Label]:
        """As in its own source, without the label."""
        (_, source), number = self._at(index)
        return source.item(number)[0], None

    def _at(self, index: int) -> tuple[tuple[str, Source], int]:
        which = bisect_right(self.ends, index)
        return self.sources[which], index - (self.ends[which - 1] if which else 0)


def _places(source: Source) -> list[int]:
    """How many images of its class come before each image."""
    seen: dict[object, int] = {}
    places = []
    for label in source.labels():
        places.append(seen.get(label, 0))
        seen[label] = places[-1] + 1
    return places


def _digits(folder: Path, count: int) -> Pair:
    try:
        images, labels = (gzip.decompress((folder / name).read_bytes()) for name in _DIGITS)
    except FileNotFoundError as error:
        raise UsageError(
            f"claims: {error.filename} is not there. Put {' and '.join(_DIGITS)} into {folder}: MNIST's test file."
        ) from error
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28, 1).repeat(3, axis=3)
    every = list(zip(pixels, map(int, labels[8:]), strict=True))
    return Pair(*(MapSource(some, channels=3, labelled=True) for some in (every[:count], every[count:])))
