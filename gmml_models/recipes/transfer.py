"""To a device and back, without making the host wait for more than it asks for."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """To the device, without making the host wait for it."""
    if device.type != "cuda":
        return tensor.to(device)
    return (tensor if tensor.is_cuda or tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True)


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
