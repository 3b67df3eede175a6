"""The batches of a feed: which images of a step belong to which process, and how they get to the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, final

import torch
from torch import Tensor

from gmml_aug.chance import keys as make_keys
from gmml_aug.chance import stream
from gmml_models.errors import UsageError

Progress = Callable[[int, int], None]
"""A function that is called with the number done and the total."""
_ORDER = 0x6F72646572  # the stream of an image's key that says when its turn is


class Batch(NamedTuple):
    """The images of one part of a step that this process computes."""

    views: tuple[Tensor, ...]  # each (B, C, H, W) float32, normalised, on the device
    keys: Tensor  # (B,) int64 = gmml_aug.keys(seed, epoch, index), on the device
    labels: Tensor | None  # (B,) int64 classes, or (B, c) float32 0/1, on the device
    index: Tensor  # type: ignore[assignment]  # (B,) int64 numbers in the data set, on the CPU; tuple.index gives way


class Feed(Protocol):
    """Provides views of the images of a data set, step by step."""

    @property
    def steps_per_epoch(self) -> int:
        """The number of complete steps in an epoch; images that do not fill the last step are left for another epoch."""

    @property
    def images(self) -> int:
        """The length of the data set."""

    @property
    def broken(self) -> Mapping[str, str]:
        """Maps the names of images that this process could not read so far to the reasons."""

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[tuple[Batch, ...]]:
        """Iterate over the steps of an epoch from ``first_step`` on; each yields the batches of this process, one per part."""

    def sample(self, count: int) -> Batch:
        """Return a few fixed images, spread over the data set, as centre crops, for pictures."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """The part of each step that belongs to this process.

    A step takes ``batch_size`` images in the order of the epoch. Process ``rank`` of ``world`` takes a contiguous slice of them and
    splits it into ``accumulate`` parts, so neither number changes which images a step sees.

    Args:
        images: the length of the data set.
        batch_size: the number of images per step, over all processes and parts.
        accumulate: the number of parts into which a process splits its slice.
        rank: the number of this process.
        world: the number of processes.
        seed: the seed of the run.

    Raises:
        UsageError: the batch cannot be split evenly, or the data set is smaller than one step.
    """

    images: int
    batch_size: int
    accumulate: int = 1
    rank: int = 0
    world: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.accumulate < 1 or not 0 <= self.rank < self.world:
            raise UsageError(
                f"gmml: batch_size={self.batch_size}, accumulate={self.accumulate}, rank={self.rank} of {self.world}: "
                "give a batch and parts of at least 1, and a rank below the number of processes."
            )
        cuts = self.accumulate * self.world
        if self.batch_size % cuts:
            raise UsageError(
                f"gmml: batch_size={self.batch_size} cannot be cut into {self.accumulate} parts on each of {self.world} processes. "
                f"Give a multiple of {cuts}, for example {max(cuts, self.batch_size // cuts * cuts)}."
            )
        if self.images < self.batch_size:
            raise UsageError(
                f"gmml: the data set has {self.images} images, fewer than the {self.batch_size} of one step. "
                f"Give a --batch-size of at most {self.images}, or more images."
            )

    @property
    def steps_per_epoch(self) -> int:
        """The number of complete steps in an epoch."""
        return self.images // self.batch_size

    @property
    def part_size(self) -> int:
        """The number of images in one batch of this process."""
        return self.batch_size // (self.accumulate * self.world)

    def parts(self, order: Tensor, step: int) -> tuple[Tensor, ...]:
        """Return the numbers of the images of a step that belong to this process.

        Args:
            order: (images,) int64, the order of the epoch.
            step: the number of the step in its epoch.

        Returns:
            ``accumulate`` tensors of ``part_size`` indices, contiguous in the order.
        """
        mine = self.batch_size // self.world
        start = step * self.batch_size + self.rank * mine
        return tuple(order[start : start + mine].view(self.accumulate, -1))

    def remaining(self, order: Tensor, first_step: int) -> Iterator[Tensor]:
        """The parts of this process from a step to the end of the epoch, one after the other.

        Raises:
            ValueError: the step is not in the epoch.
        """
        if not 0 <= first_step <= self.steps_per_epoch:
            raise ValueError(f"Feed: first_step={first_step} is not in this epoch. Give 0 to {self.steps_per_epoch}.")
        for step in range(first_step, self.steps_per_epoch):
            yield from self.parts(order, step)


def order_of_epoch(images: int, seed: int, epoch: int) -> Tensor:
    """(images,) int64: a permutation that depends only on seed and epoch, the same on every machine.

    The images are sorted by a hash of their keys. The hash is a bijection, so there are no ties to break.
    """
    return torch.argsort(stream(make_keys(seed, epoch, torch.arange(images)), _ORDER))


def spread(images: int, count: int) -> Tensor:
    """(at most count,) int64: indices spread evenly over a data set."""
    count = min(count, images)
    return torch.arange(count) * images // max(count, 1)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor to the device without making the host wait."""
    if device.type != "cuda":
        return tensor.to(device)
    return (tensor if tensor.is_cuda or tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True)


@final
class Shared:
    """A few numbers on their way to the host: on a GPU their copy starts at once, and later kernels run while they are read.

    Args:
        numbers: (n,) float32.
    """

    def __init__(self, numbers: Tensor) -> None:
        self._numbers, self._done = numbers, None
        if numbers.is_cuda:
            self._numbers = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True).copy_(numbers, non_blocking=True)
            self._done = torch.cuda.Event()
            self._done.record()

    @property
    def there(self) -> bool:
        """True if the numbers have arrived, so that reading them does not wait."""
        return self._done is None or self._done.query()

    def wait(self) -> list[float]:
        """Return the numbers, as soon as they have arrived."""
        if self._done is not None:
            self._done.synchronize()
        return [float(number) for number in self._numbers.tolist()]


def in_steps(batches: Iterator[Batch], accumulate: int) -> Iterator[tuple[Batch, ...]]:
    """Group the batches of a feed into tuples of this size."""
    parts: list[Batch] = []
    for batch in batches:
        parts.append(batch)
        if len(parts) == accumulate:
            yield tuple(parts)
            parts = []


@final
class Ahead:
    """The batches of the remaining steps; those of the next step are prepared while a GPU works on a step.

    Args:
        feed: makes them.
        step: the first step.
        last: the step before which to stop.
        epochs: the number of epochs of the run.

    Attributes:
        parts: the batches of the next step, one per part; None after the last step.
        waited: the seconds in which the training waited for batches.
    """

    def __init__(self, feed: Feed, step: int, last: int, epochs: int) -> None:
        epoch, first = divmod(step, feed.steps_per_epoch)
        self._steps = (parts for number in range(epoch, epochs) for parts in feed.epoch(number, first if number == epoch else 0))
        self._left, self.waited = last - step, 0.0
        self.parts: tuple[Batch, ...] | None = None
        self.make_next()

    def make_next(self, busy: Shared | None = None) -> None:
        """Prepare the next step's batches; the time it takes counts as waiting, unless a GPU was busy with ``busy`` throughout."""
        asked = time.monotonic()
        self.parts = next(self._steps, None) if self._left > 0 else None
        self._left -= 1
        if busy is None or busy.there:
            self.waited += time.monotonic() - asked
