"""State that moves by small steps, an average or a centre: float32 or wider, whatever the dtype of the model around it.

A teacher that stays by 0.996 at a step moves by less than the last bit of bfloat16, so that it would never move at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

NARROW = (torch.float16, torch.bfloat16)


class SlowState(nn.Module):
    """A module whose tensors no ``.half()``, ``.bfloat16()`` or ``.to(dtype)`` narrows; devices and wider types are followed."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(keeping_width(fn), recurse)  # type: ignore[no-untyped-call]  # torch gives it no types
        return self


def keeping_width(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """What ``Module._apply`` is given, without what it does to the precision of wider tensors."""

    def kept(tensor: Tensor) -> Tensor:
        out = fn(tensor)
        narrows = tensor.is_floating_point() and out.dtype in NARROW and tensor.dtype not in NARROW
        return tensor.to(out.device) if narrows else out

    return kept


def widen(module: nn.Module) -> None:
    """Bring half-precision parameters and buffers of a module to float32, in place."""
    module._apply(lambda tensor: tensor.float() if tensor.dtype in NARROW else tensor)
