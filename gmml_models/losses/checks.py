"""What all losses ask of their tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def same(who: str, **tensors: Tensor) -> list[Tensor]:
    """The tensors in the widest of their types and float32, after a check that they are float and of one shape."""
    names, shape = list(tensors), next(iter(tensors.values())).shape
    dtype = torch.float32
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise TypeError(f"{who}: {name} is {tensor.dtype}, not a float type. Give the normalised values, or {name}.float().")
        if tensor.shape != shape:
            raise ValueError(
                f"{who}: {name} has shape {tuple(tensor.shape)} and {names[0]} {tuple(shape)}; they must be alike. Give both for "
                "the same images, in the same order."
            )
        dtype = torch.promote_types(dtype, tensor.dtype)
    if math.prod(shape) == 0 or not shape:
        raise ValueError(f"{who}: {names[0]} has shape {tuple(shape)}: nothing to average. Give one image or more.")
    return [tensor.to(dtype) for tensor in tensors.values()]


def check_temperature(who: str, name: str, value: float) -> None:
    """Refuse what logits cannot be divided by."""
    if not 0.0 < value < math.inf:
        raise ValueError(f"{who}: {name}={value} is not a finite number above 0. Give for example {name}=0.1.")
