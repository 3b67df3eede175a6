"""Calculates the memory of a step, and the number of parts into which it must be split to fit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch

from gmml_models.data.free_memory import free_memory
from gmml_models.data.loader import processes_here
from gmml_models.errors import UsageError
from gmml_models.train.config import TrainConfig, batch_of
from gmml_models.train.parallel import Parallel

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer
    from torch import nn

_HELD = 17  # numbers a token and width that a block of a ViT keeps for its gradients: counted by saved tensors, 16.7 to 17.2
_KEPT = 2  # the same with gradient checkpointing; the block that is recomputed needs the others
_ON_A_CPU = 1 << 30  # bytes of activations: larger parts are no faster there
_OF_A_GPU = 0.6  # share of its memory
_OF_FREE = 0.7  # the share that --accumulate auto uses: activations may take a third more than calculated
_BESIDE = 300 << 20  # bytes, for buffers and libraries: 230 to 340 MiB measured with ViT-T and ViT-S on a CPU

Config = TypeVar("Config", bound=TrainConfig)


class Needs(NamedTuple):
    """The memory that a process needs, in bytes.

    Attributes:
        model: weights, gradients and the optimiser's two moments.
        image: activations of an image.
        resident: images that are kept on the device.
    """

    model: int
    image: int
    resident: int = 0


def needs_of(model: nn.Module, image: int, resident: int, parallel: Parallel) -> Needs:
    """Return the memory that a model needs in float32; with FSDP each process holds a shard. See `Needs`."""
    held = sum((16 if one.requires_grad else 4) * one.numel() for one in model.parameters())
    return Needs(held // (parallel.world if parallel.fsdp else 1), image, resident)


def activation_bytes(encoder: VisionTransformer, *, views: int = 1, more: int = 0) -> int:
    """The approximate number of bytes kept per image between forward and backward pass in float32; in bfloat16 it is less.

    Args:
        encoder: a vision transformer, with or without gradient checkpointing.
        views: the number of views per image that have the encoder's size.
        more: the number of further values per image outside the blocks, such as the logits of a head.
    """
    tokens, width, blocks = int(encoder.patch_embed.num_patches) + 1, int(encoder.embed_dim), len(encoder.blocks)
    held = _KEPT * blocks + _HELD if encoder.grad_checkpointing else blocks * _HELD
    return (views * tokens * width * held + more) * 4


def parts_that_fit(
    batch_size: int, needs: Needs, device: torch.device, *, world: int = 1, pairs: bool = False, free: int | None = None
) -> int:
    """The smallest number of parts of a step whose activations fit into 1 GiB on a CPU, or into 60 % of the memory of a GPU.

    Args:
        batch_size: images per step, over all processes.
        needs: the memory that a process needs.
        device: the device of a process.
        world: number of processes.
        pairs: True to make the sizes of parts even, for MixUp. Otherwise a part has at least two images, because aliens need
            another one.
        free: bytes of free memory; if given, activations, model, resident images and 300 MiB for buffers must fit into 70 %.

    Raises:
        UsageError: the batch cannot be divided evenly, or not even the smallest part fits into the free memory.
    """
    if batch_size % world:
        raise UsageError(
            f"gmml: batch_size={batch_size} cannot be divided evenly among {world} processes. Give a multiple of {world}."
        )
    mine = batch_size // world
    room = _ON_A_CPU
    if device.type == "cuda":
        room = int(_OF_A_GPU * torch.cuda.get_device_properties(device).total_memory)
    left = room if free is None else int(_OF_FREE * free) - needs.model - needs.resident - _BESIDE
    allowed = [parts for parts in range(1, mine + 1) if mine % parts == 0 and (parts == 1 or mine // parts >= 2)]
    even = [parts for parts in allowed if not pairs or mine // parts % 2 == 0] or [1]
    least = mine // even[-1]
    if free is not None and least * needs.image > left:
        amounts = {"weights, gradients and optimiser": needs.model, "resident images": needs.resident, "buffers": _BESIDE}
        amounts[f"a part of {least} image{'s' * (least != 1)}"] = least * needs.image
        raise UsageError(
            f"gmml: {free / 2**20:,.0f} MiB of memory are free, of which --accumulate auto uses {_OF_FREE:.0%}, but training needs "
            f"about {sum(amounts.values()) / 2**20:,.0f} MiB: "
            f"{', '.join(f'{amount / 2**20:,.0f} for {what}' for what, amount in amounts.items())}. Free some memory, or give a "
            f"smaller --model or --img-size, --grad-checkpointing, --resident False, or --accumulate {even[-1]} to try anyway."
        )
    return next((parts for parts in even if mine // parts * needs.image <= min(room, left)), even[-1])


def fitted(config: Config, needs: Needs, parallel: Parallel, *, pairs: bool = False) -> Config:
    """Set the number of parts of a step unless it was given: `parts_that_fit`, and for ``auto`` in the memory that is free now.

    Raises:
        UsageError: ``auto`` was given, and not even the smallest part fits.
    """
    if config.accumulate not in (None, "auto"):
        return config
    free = free_memory(parallel.device) if config.accumulate == "auto" else None
    if free is not None and parallel.world > 1:  # all processes take the same parts
        least = torch.tensor(free if parallel.device.type == "cuda" else free // processes_here(), device=parallel.device)
        torch.distributed.all_reduce(least, torch.distributed.ReduceOp.MIN)
        free = int(least)
    parts = parts_that_fit(batch_of(config), needs, parallel.device, world=parallel.world, pairs=pairs, free=free)
    return replace(config, accumulate=parts)
