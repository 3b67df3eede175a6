"""The autoencoder that pretraining starts from if it continues from weights: a folder, the Hub, the zoo, or timm's.

Its description is kept in ``start.json`` in the folder of the run: a resumed run builds the same model from it and loads its
checkpoint, so the original weights are not needed again.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch

from gmml_models.atomic_write import write_aside
from gmml_models.errors import UsageError, WeightsError
from gmml_models.models import pretrained
from gmml_models.models.autoencoder import GMMLAutoencoder
from gmml_models.models.encoders import build_encoder
from gmml_models.models.geometry import remember, source_of
from gmml_models.models.registry import located, registry
from gmml_models.recipes.config import PretrainConfig
from gmml_models.recipes.start_weights import channels_of, open_weights, read_config
from gmml_models.train import checkpoint
from gmml_models.train.run_folder import read_json

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer
    from torch import Tensor

_WHO = "gmml pretrain"
_FILE = "start.json"


class Beginning(NamedTuple):
    """The model that a run starts from.

    Attributes:
        autoencoder: the autoencoder with the weights loaded, or random if a checkpoint will be loaded.
        about: the description of the model and the origin of the weights, in JSON types.
        told: a description for the user; empty if a run is resumed.
    """

    autoencoder: GMMLAutoencoder
    about: dict[str, Any]
    told: str = ""


def with_channels(config: PretrainConfig) -> PretrainConfig:
    """Return the config with the number of channels of the weights, unless it sets a number other than its default.

    Raises:
        UsageError: the weights cannot be loaded.
    """
    if config.weights is None or config.in_chans != PretrainConfig.in_chans:
        return config
    kept = None if config.overwrite else _kept(config.out)
    if kept is not None:
        return replace(config, in_chans=int(kept["channels"]))
    return config if _of_timm(config.weights) else replace(config, in_chans=channels_of(config.weights, who=_WHO))


def begin(config: PretrainConfig) -> Beginning | None:
    """Return the start from the config's ``weights``, or from the run's own record if it has a checkpoint.

    None for a start from scratch.

    Raises:
        UsageError: the weights cannot be loaded, or the sizes do not fit them.
    """
    if config.weights is None:
        return None
    kept = None if config.overwrite else _kept(config.out)
    if kept is None:
        return _opened(config, config.weights)
    try:
        model = GMMLAutoencoder(**kept["model"], drop_path_rate=config.drop_path)
        if kept.get("source"):  # of the weights that it was begun with; its checkpoint says nothing of them
            remember(model.encoder, dict(kept["source"]))
        return Beginning(model, kept)
    except (TypeError, ValueError, KeyError) as error:
        raise UsageError(
            f"{_WHO}: {config.out / _FILE} does not describe a model of gmml ({error}). Remove it to read --weights again."
        ) from error


def keep(config: PretrainConfig, beginning: Beginning | None) -> None:
    """Write the record of a new start into the run's folder; only one process may call this.

    Raises:
        UsageError: there is no space or no permission.
    """
    if beginning is None or not beginning.told:
        return
    try:
        write_aside(config.out / _FILE, json.dumps(beginning.about, indent=2))
    except OSError as error:
        raise UsageError(f"{_WHO}: cannot write to {config.out} ({error}). Give another --out.") from error


def _kept(folder: Path) -> dict[str, Any] | None:
    begun = checkpoint.newest(folder / "checkpoints") is not None or (folder / "finished.json").exists()
    if not begun or not (folder / _FILE).exists():
        return None
    return read_json(folder / _FILE, "remove it to read --weights again")


def _of_timm(name: str) -> bool:
    """True for a name without a slash that is neither a folder nor in the zoo, or a name in timm's organisation on the Hub."""
    return name.startswith("timm/") or not ("/" in name or Path(name).exists() or name in registry())


def _opened(config: PretrainConfig, name: str) -> Beginning:
    notes = list[str]()
    decoder: dict[str, Tensor] = {}
    chosen: str | None = config.decoder
    blocks = config.blocks
    if _of_timm(name):
        encoder, mean, std, before = _from_timm(config, name.removeprefix("timm/"))
        sha256 = None
        notes.append("it has no decoder, so a new one is used")
    else:
        start = open_weights(
            name,
            who=_WHO,
            img_size=config.img_size,
            patch_size=config.patch_size,
            in_chans=config.in_chans,
            drop_path=config.drop_path,
        )
        encoder, mean, std, sha256 = start.encoder, start.mean, start.std, start.sha256
        told = read_config(name)
        channels, height, width = told.get("pretrained_cfg", {}).get("input_size", (3, *encoder.patch_embed.img_size))
        before = (int(channels), (int(height), int(width)))
        ours = told["gmml"]
        why = _why_not(ours, config, before[0])
        if why:
            notes.append(f"{why}: a new one")
        else:
            decoder, chosen = _decoder_of(name), ours["decoder"]
            blocks = blocks or tuple(ours.get("blocks") or ()) or None
            notes.append(f"with its decoder ({chosen})")
    size, channels = tuple(encoder.patch_embed.img_size), encoder.patch_embed.proj.in_channels
    if size != before[1]:
        notes.append(f"position embedding resampled from {before[1][0]} x {before[1][1]} to {size[0]} x {size[1]}")
    if channels != before[0]:
        notes.append(f"first layer adapted from {before[0]} to {channels} channels")
    named = chosen or _DEFAULTS[config.method][0]
    if blocks is None and _DEFAULTS[config.method][1]:
        blocks = (len(encoder.blocks),)
    torch.manual_seed(config.seed)  # of a new decoder
    try:
        model = GMMLAutoencoder(
            encoder, blocks=blocks, decoder=named, mean=config.mean or mean, std=config.std or std, target=config.target
        )
        if decoder:
            pretrained.fill(model.decoder, decoder, f"{pretrained.DECODER} of {name}")
        described = model.config
    except (TypeError, ValueError, WeightsError) as error:
        raise UsageError(f"{_WHO}: the weights {name!r} cannot be used to continue pretraining. {error}") from error
    about = {
        "weights": Path(name).name if Path(name).exists() else name,
        "sha256": sha256,
        "channels": channels,
        "model": described,
        "source": source_of(encoder),
    }
    return Beginning(model, about, f"{_WHO}: starts from the encoder of {name}; {'; '.join(notes)}.")


# decoder of the objectives where nobody chooses one, and whether it sees the last block alone
_DEFAULTS = {"gmml": ("paper", False), "autoencoder": ("paper", False), "sit": ("release", True), "mc_ssl": ("mc_ssl", True)}


def _why_not(ours: dict[str, Any], config: PretrainConfig, channels: int) -> str:
    """Say why the decoder of a folder is not used; empty if it is used."""
    if ours.get("decoder") is None:
        return "it has no decoder"
    if config.decoder is not None and config.decoder != ours["decoder"]:
        return f"its decoder is {ours['decoder']}, but {config.decoder} is requested"
    if config.target != ours.get("target", "pixels"):
        return f"its decoder predicts {ours.get('target', 'pixels')}, but {config.target} is the target"
    if config.in_chans != channels:
        return f"its decoder outputs {channels} channels"
    return ""


def _decoder_of(name: str) -> dict[str, Tensor]:
    try:
        where = located(name).pinned()
        tensors = where.tensors(pretrained.DECODER, where.config())
    except WeightsError as error:
        raise UsageError(f"{_WHO}: the decoder of {name!r} cannot be loaded. {error}") from error
    return {key.removeprefix("decoder."): tensor for key, tensor in tensors.items() if not key.startswith("heads.")}


def _from_timm(
    config: PretrainConfig, name: str
) -> tuple[VisionTransformer, tuple[float, ...] | None, tuple[float, ...] | None, tuple[int, tuple[int, int]]]:
    """Load timm's weights, adapted by timm, with their channels, their size, and the mean and std that they were trained with."""
    given: dict[str, Any] = {"drop_path_rate": config.drop_path} if config.drop_path else {}
    if config.in_chans != PretrainConfig.in_chans:
        given["in_chans"] = config.in_chans
    try:
        encoder = build_encoder(name, img_size=config.img_size, pretrained=True, **given)
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        raise UsageError(
            f"{_WHO}: {name!r} is neither a folder nor a name in the zoo (gmml models lists them), and timm cannot load its "
            f"weights ({str(error)[:300]}). Give a folder, owner/name on the Hub, or one of timm's vision transformers that "
            "has weights."
        ) from error
    patch = tuple(encoder.patch_embed.patch_size)
    if config.patch_size is not None and patch != (config.patch_size, config.patch_size):
        raise UsageError(
            f"{_WHO}: patch_size={config.patch_size}, but {name} has patches of {patch[0]} x {patch[1]}. Leave patch_size out, or "
            "start from scratch with --model."
        )
    told = cast("dict[str, Any]", encoder.pretrained_cfg)
    channels, height, width = told.get("input_size", (3, 224, 224))
    kept = config.in_chans == int(channels)
    mean, std = (tuple(map(float, told[key])) if kept and key in told else None for key in ("mean", "std"))
    return encoder, mean, std, (int(channels), (int(height), int(width)))
