"""Numbers on their way from a device to the host, without making the host wait for what was asked of the device later."""

from __future__ import annotations

from typing import NamedTuple, final

import torch
from torch import Tensor


@final
class Shared:
    """A few numbers; on a GPU their copy begins at once, and whatever is launched after it runs while they are read.

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
        """True if nobody would have to wait for them."""
        return self._done is None or self._done.query()

    def wait(self) -> list[float]:
        """They, as soon as they are there."""
        if self._done is not None:
            self._done.synchronize()
        return [float(number) for number in self._numbers.tolist()]


class Begun(NamedTuple):
    """A step whose gradients are being computed.

    Attributes:
        names: of the shared numbers, but for the last one, which says whether to stop.
        shared: they.
        lr: of this step.
        decay: its weight decay.
    """

    names: tuple[str, ...]
    shared: Shared
    lr: float
    decay: float
