"""A data set of images by index, with labels if it has them; unreadable images are reported and skipped."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar, final

import torch
from torch import Tensor

from gmml_aug.chance import keys as make_keys
from gmml_aug.chance import stream
from gmml_models.data.image_files import reason_of
from gmml_models.data.sampling import Progress
from gmml_models.data.scan import LeftOut, told
from gmml_models.errors import UsageError, shown

Label = int | Tensor | None
Made = TypeVar("Made")
_FEW = 0x666577  # the stream of an image's key that says how early a few-shot choice takes it
_TRIED = 1000  # broken images at the start of a data set, after which nothing more is hoped for
_AT_ONCE = 64  # images a thread has in hand


class Identity(NamedTuple):
    """Identifies a data set, wherever it is stored.

    Attributes:
        images: the number of images.
        bytes: the size of all their files.
        sha256: the hash of their names, sizes and labels, in order.
    """

    images: int
    bytes: int
    sha256: str


class Source(ABC):
    """Images by index, as uint8.

    Args:
        channels: the number of channels of every image.
        classes: the names of the classes, or of the labels if an image can have several; () if there are no labels.
        multi_label: True if labels are (c,) float32 of 0 and 1 instead of an int.

    Attributes:
        broken: name -> reason for the images that could not be read so far in this process.
        where: the location of the images, for messages.
        left: files and folders next to the images that are not part of the data.
        notes: the guesses that were made about the images.
    """

    where: str = ""
    left: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()

    def __init__(self, *, channels: int, classes: Sequence[str] = (), multi_label: bool = False) -> None:
        self.channels = channels
        self.classes = tuple(classes)
        self.multi_label = multi_label
        self.broken: dict[str, str] = {}
        self._bad: set[int] = set()

    @abstractmethod
    def __len__(self) -> int:
        """The number of images, including broken ones."""

    @abstractmethod
    def name(self, index: int) -> str:
        """The name under which a user can find the image."""

    @abstractmethod
    def labels(self) -> Sequence[Label]:
        """Return the label of every image, if possible without reading the images."""

    @abstractmethod
    def item(self, index: int) -> tuple[Tensor, Label]:
        """Return (C, H, W) uint8 and the label of one image; any exception is recorded as the reason why the image is broken."""

    @property
    def parallel(self) -> bool:
        """True if several threads may read at the same time."""
        return True

    @property
    def labelled(self) -> bool:
        """True if there are labels."""
        return bool(self.classes)

    def read(self, index: int) -> tuple[Tensor, Label] | None:
        """Return one image and its label; if it cannot be read, return None and record it in `broken`."""
        if index in self._bad:
            return None
        try:
            return self.item(index)
        except Exception as error:  # decoders raise nearly anything on damaged files
            self._bad.add(index)
            self.broken[shown(self.name(index))] = shown(reason_of(error))
            return None

    def identity(self) -> Identity | None:
        """Return the identity of the data set; None if only its length is known."""
        return None

    def found(self, who: str, what: str = "images") -> list[str]:
        """Summarise the data set in lines for the user; see `gmml_models.data.scan.told`."""
        return told(
            who,
            what,
            self.where or "the data set",
            images=len(self),
            classes=self.classes,
            several=self.multi_label,
            left=self.left,
            notes=self.notes,
        )

    @property
    def lost(self) -> int:
        """The number of files that may be images but are not part of the data, and of images that could not be read so far."""
        return sum(one.lost for one in self.left) + len(self.broken)

    def __getitem__(self, index: int) -> tuple[Tensor, Label]:
        """Return one image and its label; if the image is broken, those of the next one that can be read.

        Returns:
            (C, H, W) uint8, and an int, (c,) float32 of 0 and 1, or None.

        Raises:
            IndexError: the index is out of range.
            UsageError: none of the images can be read.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"Source: there is no image {index}; there are {len(self)}.")
        for step in range(len(self)):
            found = self.read((index + step) % len(self))
            if found is not None:
                return found
        raise nothing_readable(self)


@final
class Subset(Source):
    """Some images of a source.

    Args:
        source: the whole.
        chosen: the indices of the images in it.
        classes: the names by which labels are numbered; they include all that occur.
    """

    def __init__(self, source: Source, chosen: Sequence[int], classes: Sequence[str] | None = None) -> None:
        names = source.classes if classes is None else classes
        super().__init__(channels=source.channels, classes=names, multi_label=source.multi_label)
        self.source, self.chosen = source, chosen
        self._place = [self.classes.index(name) for name in source.classes]
        self.where, self.left, self.notes = source.where, source.left, source.notes

    def __len__(self) -> int:
        return len(self.chosen)

    def name(self, index: int) -> str:
        """The name of the image in the whole source."""
        return self.source.name(self.chosen[index])

    def identity(self) -> Identity | None:
        """The identity of the whole source, because the config determines which images are chosen."""
        return self.source.identity()

    def labels(self) -> Sequence[Label]:
        """The labels of the whole source, renumbered."""
        labels = self.source.labels()
        return [self._renumbered(labels[number]) for number in self.chosen]

    def item(self, index: int) -> tuple[Tensor, Label]:
        """Load an image of the whole source, with its label renumbered."""
        image, label = self.source.item(self.chosen[index])
        return image, self._renumbered(label)

    @property
    def parallel(self) -> bool:
        """As the whole."""
        return self.source.parallel

    def _renumbered(self, label: Label) -> Label:
        if isinstance(label, Tensor):
            return torch.zeros(len(self.classes)).index_copy_(0, torch.tensor(self._place), label)
        return None if label is None else self._place[label]


def few_shot(source: Source, share: float, seed: int) -> Source:
    """Select a share of the images of each class, with at least one of each.

    Each seed determines an order of the images, and the first ones of every class are taken, so a smaller share is part of a
    larger one. With several labels per image, an image is chosen if it is chosen for any of its labels; images without labels
    form a class.

    Args:
        source: with labels.
        share: the share of the images, above 0 and at most 1 (all of them).
        seed: decides which.

    Raises:
        UsageError: there are no labels, or the share is out of range.
    """
    if not 0 < share <= 1:
        raise UsageError(f"gmml: few_shot={share} is not a share of the images. Give a number above 0 and at most 1.")
    if share == 1:
        return source
    if not source.labelled:
        raise UsageError(
            f"gmml: few_shot={share} takes a share of each class, but the images have no labels. Give labelled images."
        )
    classes: dict[int, list[int]] = defaultdict(list)
    labels = source.labels()
    order = torch.argsort(stream(make_keys(seed, 0, torch.arange(len(source))), _FEW))
    for number in order.tolist():
        label = labels[number]
        for one in _classes_of(label):
            classes[one].append(number)
    chosen = {number for held in classes.values() for number in held[: max(1, round(share * len(held)))]}
    return Subset(source, sorted(chosen))


def each(
    source: Source, work: Callable[[Tensor, Label], Made], threads: int, progress: Progress | None = None
) -> Iterator[Made | None]:
    """Apply a function to every image, in order; yields None for broken images.

    Args:
        source: the data set.
        work: the function, called with image and label, in several threads at once if the source allows it (decoders release the
            GIL).
        threads: the largest number of threads.
        progress: a function that is called after every few images.
    """
    count = len(source)

    def one(index: int) -> Made | None:
        found = source.read(index)
        return None if found is None else work(*found)

    threads = max(1, threads) if source.parallel else 1
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, count, threads * _AT_ONCE):
            stop = min(start + threads * _AT_ONCE, count)
            yield from pool.map(one, range(start, stop)) if threads > 1 else map(one, range(start, stop))
            if progress is not None:
                progress(stop, count)


def check_readable(source: Source) -> None:
    """Read images until one can be read.

    Raises:
        UsageError: none can.
    """
    if all(source.read(index) is None for index in range(min(len(source), _TRIED))):
        raise nothing_readable(source)


def nothing_readable(source: Source) -> UsageError:
    """Make the error to raise if no image can be read."""
    tried = f"the {len(source)}" if len(source) <= _TRIED else f"the first {_TRIED}"
    name, reason = next(iter(source.broken.items()), ("?", "?"))
    return UsageError(f"gmml: none of {tried} images could be read. The first was {name}: {reason}.")


def _classes_of(label: Label) -> list[int]:
    if isinstance(label, Tensor):
        return label.nonzero().flatten().tolist() or [-1]
    return [-1 if label is None else label]
