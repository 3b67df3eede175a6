"""What a recipe chooses itself where it is told ``auto``: the model by the device, the number of epochs by the number of images.

The rules are those of docs/recipes.md. A run that is resumed keeps what was chosen when it began: its config.json says it.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import torch

from gmml_models.data.loader import cores, workers_for
from gmml_models.recipes.config import PretrainConfig
from gmml_models.recipes.named import PRETRAIN, recipe_of
from gmml_models.train.config import TrainConfig
from gmml_models.train.parallel import Parallel
from gmml_models.train.run_folder import begun, read_json

_LARGE = 8 << 30  # bytes of a GPU's memory

Config = TypeVar("Config", bound=TrainConfig)


class Length(NamedTuple):
    """How long a run is: as many epochs as show so many images, within limits.

    Attributes:
        without_gpu: images over all epochs.
        with_gpu: likewise.
        most: epochs, GMML's 3.1.
    """

    without_gpu: int
    with_gpu: int
    most: int


_LEAST = 20  # epochs
LENGTHS = {
    "pretrain": Length(480_000, 8_000_000, 800),  # 64 epochs of the 7,450 photographs of the zoo; 800 of 10,000
    "finetune": Length(60_000, 2_000_000, 200),  # 40 epochs of the 1,515 images of docs/reproducing.md; 200 of 10,000
}


def epochs_for(kind: str, images: int, *, gpu: bool) -> int:
    """The number of epochs for a number of images.

    Args:
        kind: pretrain or finetune.
        images: of an epoch.
        gpu: there is one.
    """
    rule = LENGTHS[kind]
    shown = rule.with_gpu if gpu else rule.without_gpu
    return min(max(round(shown / max(images, 1)), _LEAST), rule.most)


def model_for(config: TrainConfig, device: torch.device) -> str:
    """The encoder for a device: that of recipe small without a GPU and in that recipe, ViT-Ti or ViT-S by the GPU's memory."""
    small = str(PRETRAIN["small"]["model"])
    if device.type != "cuda" or (isinstance(config, PretrainConfig) and recipe_of(config) == "small"):
        return small
    large = torch.cuda.get_device_properties(device).total_memory >= _LARGE
    return "vit_small_patch16_224" if large else "vit_tiny_patch16_224"


def chosen(config: Config, images: int, parallel: Parallel, *, who: str) -> Config:
    """The config with a model and a number of epochs in place of ``auto``; what is chosen now is said on stderr.

    Args:
        config: of the run. What it states is kept; with ``weights`` the model is theirs.
        images: of an epoch.
        parallel: where the run computes.
        who: speaks.

    Raises:
        UsageError: the record of the run that is resumed is damaged.
    """
    device = parallel.device
    kept: dict[str, Any] = {}
    if begun(config.out) and not config.overwrite and (config.out / "config.json").exists():
        kept = read_json(config.out / "config.json", "remove it, and give the options that the run began with")
    found: dict[str, Any] = {}
    if config.model == "auto":
        theirs = getattr(config, "weights", None) is not None
        found["model"] = type(config).model if theirs else kept.get("model") or model_for(config, device)
    if config.epochs == "auto":
        found["epochs"] = kept.get("epochs") or epochs_for(config.kind, images, gpu=device.type == "cuda")
    told = [] if kept else [f"--{name} {value}" for name, value in found.items() if name == "epochs" or not theirs]
    if config.workers is None:
        told.append(f"--workers {workers_for(device, None)}")
    if told and parallel.first:
        there = f"{cores()} core{'s' * (cores() != 1)}"
        if device.type == "cuda":
            there += f", a GPU of {torch.cuda.get_device_properties(device).total_memory / 2**30:.0f} GiB"
        else:
            there += ", no GPU"
        print(f"{who}: chosen for {there} and {images:,} images: {' '.join(told)}. Other values may be given.", file=sys.stderr)
    return replace(config, **found)
