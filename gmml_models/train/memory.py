"""The calculated memory of a step, and the number of parts in which it fits."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import torch

from gmml_models.errors import UsageError
from gmml_models.train.config import TrainConfig
from gmml_models.train.parallel import Parallel

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

_HELD = 17  # numbers a token and width that a block of a ViT keeps for its gradients: counted by saved tensors, 16.7 to 17.2
_ON_A_CPU = 1 << 30  # bytes of activations: larger parts are no faster there
_OF_A_GPU = 0.6  # share of its memory

Config = TypeVar("Config", bound=TrainConfig)


def activation_bytes(encoder: VisionTransformer, *, views: int = 1, more: int = 0) -> int:
    """The approximate number of bytes that an image keeps between forward and backward pass in float32; in bfloat16 it is less.

    Args:
        encoder: a vision transformer.
        views: number of views of its size per image.
        more: further numbers per image, outside the blocks: the logits of a head.
    """
    tokens, width = int(encoder.patch_embed.num_patches) + 1, int(encoder.embed_dim)
    return (views * tokens * width * len(encoder.blocks) * _HELD + more) * 4


def parts_that_fit(batch_size: int, of_an_image: int, device: torch.device, *, world: int = 1, pairs: bool = False) -> int:
    """The smallest number of parts of a step whose activations fit into 1 GiB on a CPU, or into 60 % of the memory of a GPU.

    Args:
        batch_size: images per step, over all processes.
        of_an_image: bytes.
        device: the device of a process.
        world: number of processes.
        pairs: make the sizes of parts even, for MixUp. Otherwise a part has at least two images, because aliens need another one.

    Raises:
        UsageError: the batch cannot be divided evenly.
    """
    if batch_size % world:
        raise UsageError(
            f"gmml: batch_size={batch_size} cannot be divided evenly among {world} processes. Give a multiple of {world}."
        )
    mine = batch_size // world
    room = _ON_A_CPU
    if device.type == "cuda":
        room = int(_OF_A_GPU * torch.cuda.get_device_properties(device).total_memory)
    allowed = [parts for parts in range(1, mine + 1) if mine % parts == 0 and (parts == 1 or mine // parts >= 2)]
    even = [parts for parts in allowed if not pairs or mine // parts % 2 == 0]
    return next((parts for parts in even or [1] if mine // parts * of_an_image <= room), (even or [1])[-1])


def fitted(config: Config, of_an_image: int, parallel: Parallel, *, pairs: bool = False) -> Config:
    """The config with the number of parts of a step, by default `parts_that_fit`; more than one is reported on stderr."""
    if config.accumulate is not None:
        return config
    parts = parts_that_fit(config.batch_size, of_an_image, parallel.device, world=parallel.world, pairs=pairs)
    if parts > 1 and parallel.first:
        print(
            f"gmml: a step of {config.batch_size} images is split into {parts} parts, which fit into memory (--accumulate "
            f"{parts}).",
            file=sys.stderr,
        )
    return replace(config, accumulate=parts)
