"""Makes a timm encoder from a file that somebody else wrote."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from timm.models.vision_transformer import VisionTransformer

from gmml_models.convert.open_file import opened
from gmml_models.convert.releases import said_by, translate
from gmml_models.hub.safetensors_check import MOST_BYTES
from gmml_models.models.encoders import build_encoder
from gmml_models.models.geometry import remember, tell
from gmml_models.models.pretrained import fill


def encoder_from(
    path: str | os.PathLike[str],
    *,
    network: str | None = None,
    heads: int | None = None,
    img_size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    most_bytes: int = MOST_BYTES,
) -> VisionTransformer:
    """Load the plain vision transformer in somebody else's file as a timm encoder, in evaluation mode and float32.

    No code in the file is run.

    It reads checkpoints of torch.save (GMML, SiT, MC-SSL, DINO, iBOT, MAE, timm's ``.pth.tar``, Lightning's ``.ckpt``, ``.bin`` of
    transformers), safetensors, and folders of transformers; prefixes of wrappers are removed. The origin is recorded:
    ``GMMLAutoencoder(encoder).save_pretrained(folder)`` writes the file's name, its hash and its kind into config and card.

    Args:
        path: the file, or a folder of transformers.
        network: which of several networks, by its name in the file; by default an average or teacher, if there is one.
        heads: number of attention heads, which the tensors do not show; by default the number in the file, or width / 64.
        img_size: side of the images, or (height, width), if the patches do not form a square.
        mean: the mean per channel that the images were normalised by; by default the values in the file, or the usual values of
            its method: 0.5 for BEiT and transformers' ViT, ImageNet's otherwise.
        std: the standard deviation per channel, in the same form.
        most_bytes: the size above which a file is refused.

    Raises:
        NotThereError: the file does not exist.
        UnreadableFileError: the file is something else, is damaged, or contains a function call.
        WrongKeysError: the file holds no plain vision transformer; the message says what it holds and how to proceed.
        ValueError: an option does not fit.
    """
    file = opened(Path(path), most_bytes=most_bytes)
    size = (img_size, img_size) if isinstance(img_size, int) else img_size
    with said_by("encoder_from", file.path):
        done = translate(file.checkpoint, network=network, heads=heads, img_size=size, beside=file.beside)
    config = done.config
    facts = dict(config["pretrained_cfg"]) | {
        name: tuple(value) for name, value in (("mean", mean), ("std", std)) if value is not None
    }
    with torch.device("meta"):
        encoder = build_encoder(config["architecture"], **{"global_pool": config["global_pool"], **config["model_args"]})
    fill(encoder, {name: tensor.clone() for name, tensor in done.encoder.items()}, os.fspath(file.path))
    tell(encoder, {"architecture": config["architecture"], **facts})
    remember(encoder, done.source(file.path))
    return encoder.eval()
