"""Converts other people's checkpoints to our folders: `translate` maps the keys, `convert_checkpoint` writes the folder.

The releases of GMML, SiT and MC-SSL save a dict of networks whose keys begin with ``module.backbone.`` (timm's names follow),
``module.head_recons.`` (the decoder) or the names of other heads; other files are recognised by `networks`. Tensors that our models
do not have are kept under ``heads.``; nothing is dropped.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gmml_models.convert.networks import RELEASES, pick_network
from gmml_models.convert.shapes import check, encoder_of, preprocessing_of
from gmml_models.convert.timm_names import in_timms_names
from gmml_models.errors import WeightsError, WrongKeysError
from gmml_models.hub.safetensors_check import MOST_BYTES, sha256_of

_DECODER = {f"mlp.{n}.{kind}": f"layers.{n}.{kind}" for n in (0, 2, 4) for kind in ("weight", "bias")} | {
    f"convTrans.{kind}": f"to_pixels.{kind}" for kind in ("weight", "bias")
}
_ARGS, _ITEMS, _LETTERS = 200, 64, 300
METHODS = (*RELEASES, "sit_2021", "dino", "ibot", "mae", "simmim", "beit")
_NOTE = """
## Where this comes from

Converted from somebody else's checkpoint, `{file}`, by `gmml convert`. {license} The authors of gmml do not
distribute these weights. Before you do, ask whoever made them.
"""


class Translated(NamedTuple):
    """A checkpoint under our names.

    Attributes:
        encoder: the tensors of the encoder under timm's names, without a prefix.
        decoder: ``decoder.*`` as in `gmml_models.models.decoders`, and ``heads.*`` for everything else that was trained, under
            its own names.
        config: the content of ``config.json``, without the source.
        kind: the method that made it.
        network: the name of the network in the file.
    """

    encoder: dict[str, Tensor]
    decoder: dict[str, Tensor]
    config: dict[str, Any]
    kind: str
    network: str

    def source(self, path: Path) -> dict[str, str]:
        """The origin of the weights, for config and card."""
        return {"file": path.name, "sha256": sha256_of(path), "kind": self.kind, "network": self.network}


def convert_checkpoint(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    kind: str | None = None,
    teacher: bool | None = None,
    network: str | None = None,
    heads: int | None = None,
    force: bool = False,
    license: str | None = None,
    most_bytes: int = MOST_BYTES,
) -> Path:
    """Convert somebody's checkpoint to a folder that gmml_models, timm and transformers read. No code in the file is run.

    Args:
        path: the file, a checkpoint written by torch.save or safetensors; or a folder written by transformers.
        folder: the folder, which is created if it does not exist.
        kind: the method whose code wrote it, one of `gmml_models.convert.networks.KINDS`; by default recognised from the content.
        teacher: True to use the teacher, False to use the student; by default the teacher if there is one, as in the methods.
        network: which of several networks, by its name in the file.
        heads: number of attention heads, which the tensors do not show; by default the number in the file, or width / 64.
        force: True to write even if the folder is not empty.
        license: the licence of the weights; "unknown" by default.
        most_bytes: the size above which a file is refused.

    Returns:
        The folder.

    Raises:
        FileExistsError: the folder is not empty, and ``force`` is False.
        NotThereError: the checkpoint does not exist.
        UnreadableFileError: the file is not a checkpoint, or is damaged or hostile.
        WrongKeysError: keys are missing or unexpected, or belong to another geometry; the message lists them.
        ValueError: an option does not fit.
    """
    from gmml_models.convert.open_file import opened
    from gmml_models.hub.folder import write_folder
    from gmml_models.hub.model_card import model_card

    path, folder = Path(path), Path(folder)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"convert_checkpoint: {folder} is a file. Give a folder.")
    if not force and folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"convert_checkpoint: the folder {folder} is not empty. Give another folder, or force=True.")
    file = opened(path, most_bytes=most_bytes)
    with said_by("convert_checkpoint", path):
        done = translate(
            file.checkpoint, kind=kind, teacher=teacher, network=network, heads=heads, license=license, beside=file.beside
        )
    config = {**done.config, "gmml": {**done.config["gmml"], "source": done.source(file.path)}}
    said = f"Its licence, according to whoever converted it: {license}." if license else "Its licence is unknown."
    name = re.sub(r"[^\w.-]", "_", file.path.name)

    def card(whole: Mapping[str, Any]) -> str:
        return model_card(whole) + _NOTE.format(file=name, license=re.sub(r"[^\w .:,()+-]", "_", said))

    write_folder(
        folder,
        tensors={"model.safetensors": done.encoder} | ({"decoder.safetensors": done.decoder} if done.decoder else {}),
        config=config,
        card=card,
        who="convert_checkpoint",
    )
    return folder


@contextlib.contextmanager
def said_by(who: str, path: Path) -> Iterator[None]:
    """Replace the caller's name in errors of `translate`, and add the file."""
    try:
        yield
    except (WeightsError, ValueError) as error:
        raise type(error)(f"{who}: {path}: {str(error).removeprefix('translate: ')}") from error


def translate(
    checkpoint: Mapping[str, Any],
    *,
    kind: str | None = None,
    teacher: bool | None = None,
    network: str | None = None,
    heads: int | None = None,
    img_size: tuple[int, int] | None = None,
    license: str | None = None,
    beside: Mapping[str, Mapping[str, Any]] | None = None,
) -> Translated:
    """Translate a checkpoint from `read_checkpoint` to our names; the options and errors are those of `convert_checkpoint`.

    Args:
        checkpoint: the content of the file.
        kind: the method whose code wrote the file.
        teacher: True for the teacher, False for the student.
        network: which of several networks.
        heads: number of attention heads.
        img_size: (height, width) of the images, if the patches do not form a square.
        license: the licence of the weights.
        beside: the content of transformers' JSON files next to it, as ``config`` and ``preprocessor``.
    """
    from gmml_models.models.geometry import tell
    from gmml_models.models.pretrained import make_config

    one = isinstance(checkpoint.get("SiT_model"), Mapping) and kind in (None, "gmml")
    if one and teacher:
        raise ValueError("translate: teacher=True was given for a GMML checkpoint, which has one network. Leave it out.")
    if teacher is not None and not one:
        network = "teacher" if teacher else "student"
    found = pick_network(checkpoint, kind=kind, network=network)
    kind, args = found.kind, _arguments(checkpoint)
    try:
        tensors, options = (found.backbone, {}) if kind in RELEASES else in_timms_names(found.name, found.backbone)
    except (RuntimeError, IndexError, TypeError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WrongKeysError(f"translate: {found.name} has tensors of shapes that do not belong together ({error}).") from error
    said = dict(args) | ({"num_heads": heads} if heads is not None else {})
    encoder, inside = encoder_of(found.name, tensors, said, options, beside=beside, strict=kind in RELEASES, img_size=img_size)
    left = {key: tensor for key, tensor in tensors.items() if key not in inside}
    theirs = {f"head_recons.{key}": tensor for key, tensor in found.decoder.items()}
    decoder, kept = _decoder(kind, found.decoder, encoder) if kind in RELEASES else ({}, theirs)
    rest = {f"decoder.{key}": tensor for key, tensor in decoder.items()} | {
        f"heads.{key}": tensor for key, tensor in {**kept, **found.heads, **left}.items()
    }
    facts = preprocessing_of(kind, said, beside)
    tell(encoder, {"architecture": encoder.pretrained_cfg["architecture"], **facts})
    ours = {
        "decoder": None if not decoder else "mc_ssl" if kind == "mc_ssl" else "release",
        "blocks": _blocks(args, len(encoder.blocks)) if kind == "gmml" else [len(encoder.blocks)],
        "objective": kind if kind in METHODS else None,
        "network": found.name,
        "args": args,
        "heads": sorted({".".join(key.split(".")[1:3]) for key in rest if key.startswith("heads.")}),
    }
    mean, std = (encoder.pretrained_cfg[name] for name in ("mean", "std"))
    config = make_config(encoder, mean=mean, std=std, gmml=ours, license=license)
    return Translated(inside, rest, config, kind, found.name)


def _arguments(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the run that wrote a file, as plain data."""
    for name in ("args", "hyper_parameters"):
        if isinstance(checkpoint.get(name), Mapping):
            found: dict[str, Any] = _plain(checkpoint[name])
            return found | ({"arch": checkpoint["arch"]} if isinstance(checkpoint.get("arch"), str) else {})
    return {"arch": checkpoint["arch"]} if isinstance(checkpoint.get("arch"), str) else {}


def _decoder(kind: str, tensors: Mapping[str, Tensor], encoder: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The decoder under our names, and tensors that fit none of ours: MC-SSL's release has two layers with GELU, ours with ReLU."""
    from gmml_models.models.decoders import build_decoder

    renamed = {_DECODER.get(key, f"head_recons.{key}"): tensor for key, tensor in tensors.items()}
    with torch.device("meta"):
        patch, channels = encoder.patch_embed.patch_size, encoder.patch_embed.proj.in_channels
        ours = build_decoder("mc_ssl" if kind == "mc_ssl" else "release", encoder.embed_dim, patch, channels)
    try:
        check("the decoder (head_recons)", ours, renamed)
    except WrongKeysError:
        if kind != "mc_ssl":
            raise
        return {}, {f"head_recons.{key}": tensor for key, tensor in tensors.items()}
    return renamed, {}


def _blocks(args: Mapping[str, Any], depth: int) -> list[int]:
    """The blocks that the decoder reads: those in the file's arguments, or the usual ones."""
    from gmml_models.models.geometry import default_blocks

    said = args.get("recons_blocks")
    if isinstance(said, str) and re.fullmatch(r"\d{1,3}(-\d{1,3})*", said):
        blocks = [int(number) for number in said.split("-")]
        if blocks == sorted(set(blocks) & set(range(1, depth + 1))):
            return blocks
    return list(default_blocks(depth))


def _plain(value: Any, deep: int = 3) -> Any:
    """The part of a run's arguments that a config may hold: no tensors, nothing long, no paths of the machine that it ran on."""
    if value is None or isinstance(value, bool) or (isinstance(value, int) and abs(value) < 1 << 53):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return None if value.startswith(("/", "~", "\\")) or value[1:3] == ":\\" else value[:_LETTERS]
    if isinstance(value, Mapping) and deep:
        return {key[:_LETTERS]: _plain(each, deep - 1) for key, each in list(value.items())[:_ARGS] if isinstance(key, str)}
    if isinstance(value, list | tuple) and deep:
        return [_plain(each, deep - 1) for each in value[:_ITEMS]]
    return None
