"""What a fill sees when it makes its pixels, and nothing else."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from gmml_aug.values import Values

Tensors = tuple[Tensor, ...]


class Scene(NamedTuple):
    """What a fill sees when it makes its pixels; read it, never write to it.

    Attributes:
        now: (B, C, *S) as the earlier steps left them.
        clean: (B, C, *S) as they came.
        donors: (N, C, *S) where aliens come from: the whole clean batch, or the bank.
        mask: (B, 1, *S) bool: pixels are used only here.
        values: the value range, see `gmml_aug.Chain`.
    """

    now: Tensor
    clean: Tensor
    donors: Tensor
    mask: Tensor
    values: Values
