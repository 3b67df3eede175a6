"""All randomness, in integers: a counter-based hash of one int64 key per image.

The key determines everything that happens to its image. `mix` is the finaliser of splitmix64 in wrapping int64, about eleven
operations for 64 bits; it gives the same integers on every device, eager or compiled. Counters are only ever *added* to a hashed
key: Inductor folds ``arange * constant`` in unbounded integers, so large constants may only multiply loaded values.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, distributed

from gmml_aug.checks import check_integer

if TYPE_CHECKING:
    from numpy.typing import NDArray

GATES, BOXES, FIRST_STEP = 0, 1, 2  # streams of a key: of gates, of boxes, of the first step and so on
AHEAD = 4  # words of each step's stream that are hashed beforehand: as many as a fill draws for an image, as a rule

_BITS = 1 << 64
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # Stafford's variant 13, as splitmix64 has it
_SHIFTS = (30, 27, 31)


def _signed(value: int) -> int:
    value %= _BITS
    return value - _BITS if value >= _BITS >> 1 else value


_FIRST, _SECOND = map(_signed, _MULTIPLIERS)
_KEEP = tuple((1 << (64 - shift)) - 1 for shift in _SHIFTS)  # turns the arithmetic shift of int64 into a logical one


def mix(z: Tensor) -> Tensor:
    """Hash each int64 of ``z``: a bijection of 64 bits in which every input bit moves about half of the output bits."""
    # each line is z ^ (z >>> shift), and makes one new tensor only: memory is what the CPU waits for here
    z = (z >> _SHIFTS[0]).bitwise_and_(_KEEP[0]).bitwise_xor_(z).mul_(_FIRST)
    z = (z >> _SHIFTS[1]).bitwise_and_(_KEEP[1]).bitwise_xor_(z).mul_(_SECOND)
    return (z >> _SHIFTS[2]).bitwise_and_(_KEEP[2]).bitwise_xor_(z)


def mix_int(z: int) -> int:
    """`mix` of one Python integer (taken modulo 2**64), as a signed 64-bit integer."""
    z %= _BITS
    z = (z ^ (z >> _SHIFTS[0])) * _MULTIPLIERS[0] % _BITS
    z = (z ^ (z >> _SHIFTS[1])) * _MULTIPLIERS[1] % _BITS
    return _signed(z ^ (z >> _SHIFTS[2]))


def keys(
    seed: int,
    epoch: int,
    index: Tensor | Sequence[int] | NDArray[Any],
    *,
    visit: int | Tensor | Sequence[int] | NDArray[Any] = 0,
    device: torch.device | str | None = None,
) -> Tensor:
    """One key per image, from seed, epoch and index: the key alone decides how the image is corrupted.

    A run with these keys draws the same corruptions when it is resumed or distributed over a different number of processes.

    Args:
        seed: any integer, one per run.
        epoch: any integer.
        index: (B,) integers, the index of each image in its data set; any integer type, NumPy's included.
        visit: the number of times that the image has been seen before in this epoch, one integer for all images or one for each:
            the same index gets another key on another visit. Use it for several views of an image, repeated augmentation, and
            sampling with replacement.
        device: the device on which the keys are created, by default the device of ``index``. It must be the device of the images.

    Returns:
        (B,) int64; different indices of one visit have different keys.

    Raises:
        TypeError: ``seed`` or ``epoch`` is not an integer, or ``index`` or ``visit`` does not hold integers.
        ValueError: ``index`` does not have exactly one axis, or is empty; or ``visit`` and ``index`` have different lengths.
    """
    start = mix_int(mix_int(check_integer("keys", "seed", seed)) + check_integer("keys", "epoch", epoch))
    numbers = _integers("index", index, device) + start
    if isinstance(visit, Sequence) or getattr(visit, "ndim", None):
        visits = _integers("visit", visit, numbers.device)
        if visits.shape != numbers.shape:
            raise ValueError(
                f"keys: got {len(visits)} visits for {len(numbers)} indices. Give one for each, or one integer for all."
            )
        return mix(numbers + mix(visits))  # the hash of visit 0 is 0
    return mix(numbers + mix_int(check_integer("keys", "visit", visit)))


def _integers(name: str, given: object, device: torch.device | str | None) -> Tensor:
    """(B,) int64, from whatever integers the caller gave."""
    what = f"keys: {name} is {given!r}" if not hasattr(given, "dtype") else f"keys: {name} holds {given.dtype}"
    mend = "Give the integer number of each image in its data set, as a tensor, an array or a list."
    if isinstance(given, str | bytes) or not (isinstance(given, Sequence) or hasattr(given, "dtype")):
        raise TypeError(f"{what}. {mend}")
    try:
        if isinstance(given, list | tuple) and hasattr(next(iter(given), None), "dtype"):  # NumPy's, not all of which torch takes
            given = [one.__index__() for one in given]
        numbers = torch.as_tensor(given, device=device)
    except (AttributeError, TypeError, ValueError, RuntimeError, OverflowError):
        raise TypeError(f"{what}, not a list of integers of up to 64 bits. {mend}") from None
    if not numbers.numel():
        raise ValueError(f"keys: {name} is empty. Give one integer per image, and skip empty batches.")
    if numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool:
        raise TypeError(f"{what}. {mend}")
    if numbers.ndim != 1:
        raise ValueError(f"keys: {name} has shape {tuple(numbers.shape)}. Give one integer per image, shape (B,).")
    return numbers.long()


def draw_keys(count: int, device: torch.device, generator: torch.Generator | None, rank: int | None = None) -> Tensor:
    """(count,) new int64 keys from the generator, or from torch's global one for that device.

    Processes that train together often have the same seed and would draw the same keys, so each adds a constant that depends on its
    rank. Rank 0 adds nothing: it draws what a single process would draw.
    """
    number = own_rank() if rank is None else check_integer("gmml_aug", "rank", rank, 0)
    drawn = torch.randint(-(1 << 63), (1 << 63) - 1, (count,), dtype=torch.int64, device=device, generator=generator)
    return drawn + mix_int(number) if number else drawn


def own_rank() -> int:
    """The rank of this process: its rank in the process group, or else the ``RANK`` set by a launcher, or else 0."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank()
    return _LAUNCHED if torch.compiler.is_compiling() else _launched()


def _launched() -> int:
    told = os.environ.get("RANK", "")
    return int(told) if told.isdigit() else 0


_LAUNCHED = _launched()  # for a compiled graph, which cannot ask the environment


def stream(keys: Tensor, number: int) -> Tensor:
    """(B,) int64 keys of an independent stream: each step of a program has its own, by its number."""
    return mix(keys + mix_int(number + 1))


def words(key: Tensor, count: int, start: int = 0) -> Tensor:
    """(B, count) int64 hashes for each key (B,), at the counters ``start`` to ``start + count - 1``."""
    return mix(key[:, None] + torch.arange(start, start + count, device=key.device))


def first_words(keys: Tensor, numbers: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """For each stream number, its keys (B,) and their first words (B, `AHEAD`), all hashed in one pass."""
    own = mix(torch.stack([keys + mix_int(number + 1) for number in numbers]))
    ahead = mix(own[..., None] + torch.arange(AHEAD, device=keys.device))
    return list(zip(own.unbind(0), ahead.unbind(0), strict=True))


def to_uniform(word: Tensor) -> Tensor:
    """Float32 in [0, 1), from the upper 24 bits of each word; every value is exact on every device."""
    return ((word >> 40) & 0xFFFFFF).to(torch.float32) * 2.0**-24


def high_half(word: Tensor) -> Tensor:
    """The upper 32 bits of each word as a non-negative int64."""
    return (word >> 32) & 0xFFFFFFFF


def low_half(word: Tensor) -> Tensor:
    """The lower 32 bits of each word as a non-negative int64."""
    return word & 0xFFFFFFFF


def scale(half: Tensor, span: Tensor | int) -> Tensor:
    """Integers uniform from 0 to ``span - 1``, from 32 random bits (bias below span / 2**32), for spans below 2**31."""
    return (half * span) >> 32


def below(word: Tensor, span: int) -> Tensor:
    """Integers uniform from 0 to ``span - 1``, from one word each: its upper 32 bits, or all 64 for spans of 2**31 to 2**46."""
    if span < 1 << 31:
        return scale(high_half(word), span)
    found = torch.zeros_like(word)
    for shift in (0, 16, 32, 48):  # a product of 64 and 46 bits, 16 bits at a time
        found = (((word >> shift) & 0xFFFF) * span + found) >> 16
    return found


@cache
def normal_table() -> Tensor:
    """(65536,) float32: `to_normal` of all 16-bit values, on the CPU."""
    return to_normal(torch.arange(1 << 16, device="cpu")).contiguous()


def to_normal(bits: Tensor, *, table: bool = False) -> Tensor:
    """Float32 N(0, 1) from 16 random bits each (int64, 0 to 65535): |z| <= 4.33, variance 0.99998.

    With ``table`` the 65,536 values are read from memory instead of computed; this is for the CPU, outside compiled code.
    """
    if table:  # index_select is nine times faster than indexing here
        return normal_table().index_select(0, bits.flatten()).view(bits.shape)
    centred = bits.to(torch.float32) * 2.0**-15 - (1.0 - 2.0**-16)  # exact: 17 bits are enough for it
    return torch.erfinv(centred) * math.sqrt(2.0)


@final
class Chance:
    """The random numbers of one step for a batch; `Fill.draw` receives it.

    Every method returns the next numbers of the step's own stream. Except for `donor`, they do not depend on the batch that an
    image is in.

    Attributes:
        keys: (B,) int64, for random numbers that are drawn per pixel later, in `Fill.pixels`.
        shape: (B, C, *S) of the images.
        donors: number of images a donor can be chosen from.
        from_batch: True if the donors are the batch itself, so that an image must not choose itself.
    """

    def __init__(
        self,
        keys: Tensor,
        number: int,
        shape: Sequence[int],
        donors: int,
        from_batch: bool,
        *,
        hashed: tuple[Tensor, Tensor] | None = None,  # this stream's keys and first words, where they are known
    ) -> None:
        self.keys = stream(keys, number) if hashed is None else hashed[0]
        self._ahead = None if hashed is None else hashed[1]
        self.shape = tuple(shape)
        self.donors = donors
        self.from_batch = from_batch
        self._used = 0

    def words(self, count: int) -> Tensor:
        """(B, count) int64, 64 random bits each."""
        self._used += count
        if self._ahead is not None and self._used <= self._ahead.shape[1]:
            return self._ahead[:, self._used - count : self._used]
        return words(self.keys, count, self._used - count)

    def uniform(self, *shape: int) -> Tensor:
        """(B, *shape) float32 in [0, 1).

        Raises:
            TypeError: the shape holds a number that is not whole, as a range would.
        """
        if any(isinstance(length, float) for length in shape):
            raise TypeError(
                f"chance.uniform: the shape is {shape}, but lengths are whole numbers. It draws from 0 to 1; for another range: "
                "low + (high - low) * chance.uniform()."
            )
        return to_uniform(self.words(math.prod(shape))).reshape(-1, *shape)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """(B, *shape) int64, uniform from low to high, both included."""
        return (low + below(self.words(math.prod(shape)), high - low + 1)).reshape(-1, *shape)

    def donor(self) -> Tensor:
        """(B,) int64: the number of another image of the batch, or of any image of a bank."""
        chosen = high_half(self.words(1))[:, 0]
        if not self.from_batch:
            return scale(chosen, self.donors)
        me = torch.arange(chosen.shape[0], device=chosen.device)
        other = me + 1 + scale(chosen, max(self.donors - 1, 1))
        return torch.where(other >= self.donors, other - self.donors, other)
