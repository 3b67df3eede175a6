"""The processes of a run: how many there are, and what they hold together. Without a process group there is one."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def ranks() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if ranks() > 1 else 0


def gather(tensor: Tensor) -> Tensor:
    """The tensors of all ranks, of one shape, one behind the other; no gradient passes."""
    if ranks() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(ranks())]
    distributed.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def sum_over_ranks(tensor: Tensor) -> None:
    """Add up the tensors of all ranks, in place."""
    if ranks() > 1:
        distributed.all_reduce(tensor)
