"""State that changes in small steps, such as an average or a centre, kept in float32 or wider whatever the model's dtype.

With a momentum of 0.996, a teacher moves by less than the last bit of bfloat16 per step, so in bfloat16 it would never move.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

NARROW = (torch.float16, torch.bfloat16)


class SlowState(nn.Module):
    """A module whose tensors are not narrowed by ``.half()``, ``.bfloat16()`` or ``.to(dtype)``.

    It can still be moved to another device or to a wider dtype.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(keeping_width(fn), recurse)  # type: ignore[no-untyped-call]  # torch gives it no types
        return self


def keeping_width(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Wrap the function given to ``Module._apply`` so that it does not reduce precision."""

    def kept(tensor: Tensor) -> Tensor:
        out = fn(tensor)
        narrows = tensor.is_floating_point() and out.dtype in NARROW and tensor.dtype not in NARROW
        return tensor.to(out.device) if narrows else out

    return kept


def widen(module: nn.Module) -> None:
    """Convert half-precision parameters and buffers of a module to float32, in place."""
    module._apply(lambda tensor: tensor.float() if tensor.dtype in NARROW else tensor)
