"""The folder that gmml_models, timm and transformers all read, and what joins it to a model.

``model.safetensors`` is the encoder under timm's names, ``decoder.safetensors`` the rest, ``config.json`` timm's description
of the encoder with our part under ``gmml``, ``README.md`` the card. Every file's sha256 stands in the config and is checked
before the file is opened, which shows damage; against exchange by somebody else only a pin helps that comes from elsewhere:
``sha256=``, or a ``revision`` that is a commit.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from gmml_models.errors import WrongKeysError
from gmml_models.hub.config_check import CONFIG
from gmml_models.hub.folder import commit_of, expected_sha256, fetch, read_config, read_tensors
from gmml_models.models.encoders import build_encoder, describe_encoder

ENCODER, DECODER = "model.safetensors", "decoder.safetensors"

_log = logging.getLogger("gmml_models")


@dataclass(frozen=True, kw_only=True)
class WeightsSource:
    """Where weights come from, and what they must be.

    Args:
        name: a local folder, or the Hub's ``owner/name``.
        revision: branch, tag or commit; a commit pins the files.
        sha256: the hash of ``model.safetensors``, or a mapping from file name to hash: checked instead of the folder's own record.
        token: for private and gated repositories; the Hub client's own by default.
        cache_dir: of the Hub client.
        local_files_only: never ask the network.
        force_download: replace what the cache holds, to repair it.
    """

    name: str | os.PathLike[str]
    revision: str | None = None
    sha256: str | Mapping[str, str] | None = None
    token: str | bool | None = None
    cache_dir: str | os.PathLike[str] | None = None
    local_files_only: bool = False
    force_download: bool = False

    def pinned(self) -> WeightsSource:
        """The same source at the commit that it is at now, so that all its files belong together."""
        commit = commit_of(fetch(self.name, CONFIG, **self._options()))
        return self if commit is None else replace(self, name=os.fspath(self.name).partition("@")[0], revision=commit)

    def config(self) -> dict[str, Any]:
        """The folder's config.json."""
        return read_config(self.name, **self._options())

    def tensors(self, filename: str, config: Mapping[str, Any]) -> dict[str, Tensor]:
        """The tensors of one file, after its hash was checked."""
        path = self.file(filename)
        given = {ENCODER: self.sha256} if isinstance(self.sha256, str) else dict(self.sha256 or {})
        expected = given.get(filename)
        kind = "the pin that was given" if expected else "the folder's own record, which shows damage but not exchange"
        expected = expected or expected_sha256(config, filename)
        _log.info(
            "%s of %s: sha256 %s", filename, self.name, f"checked against {kind}" if expected else "not recorded, not checked"
        )
        return read_tensors(path, sha256=expected)

    def file(self, filename: str) -> Path:
        """One file of the folder, on this machine."""
        return fetch(self.name, filename, **self._options())

    def _options(self) -> dict[str, Any]:
        return {
            "revision": self.revision,
            "token": self.token,
            "cache_dir": self.cache_dir,
            "local_files_only": self.local_files_only,
            "force_download": self.force_download,
        }


def make_config(
    encoder: VisionTransformer,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    gmml: Mapping[str, Any],
    license: str | None = None,
) -> dict[str, Any]:
    """The description of an encoder that timm reads, with our part beside it.

    Args:
        encoder: what ``model.safetensors`` will hold.
        mean: per channel, what the images were normalised by.
        std: likewise.
        gmml: decoder, blocks, objective, data, recipe, metrics: what the card tells.
        license: of the weights.
    """
    architecture, arguments = describe_encoder(encoder)
    height, width = encoder.patch_embed.img_size
    channels = encoder.patch_embed.proj.in_channels
    return {
        "architecture": architecture,
        "num_classes": 0,
        "num_features": encoder.num_features,
        "global_pool": encoder.global_pool,
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": [channels, height, width],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": 0.9 if min(height, width) >= 160 else 1.0,
            "mean": list(mean),
            "std": list(std),
            "num_classes": 0,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
            "license": license or "unknown",
        },
        "gmml": dict(gmml),
    }


def load_encoder(source: WeightsSource, config: Mapping[str, Any]) -> VisionTransformer:
    """The encoder of a folder, in evaluation mode; built without initialising weights that are replaced at once."""
    arguments = {"global_pool": config.get("global_pool", "token"), "weight_init": "skip", **config.get("model_args", {})}
    with torch.device("meta"):
        encoder = build_encoder(config["architecture"], **arguments)
    fill(encoder, source.tensors(ENCODER, config), f"{ENCODER} of {source.name}")
    return encoder.eval()


def count(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def fill(module: nn.Module, tensors: Mapping[str, Tensor], who: str) -> None:
    """Put tensors into a module: all of them and no others, each of its shape, as float32.

    Raises:
        WrongKeysError: with the lists of what is missing, surplus or of another shape.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    missing = sorted(set(wanted) - set(tensors))
    surplus = sorted(set(tensors) - set(wanted))
    other = [
        f"{name} is {tuple(tensors[name].shape)}, not {wanted[name]}"
        for name in sorted(set(wanted) & set(tensors))
        if tuple(tensors[name].shape) != wanted[name]
    ]
    if missing or surplus or other:
        raise WrongKeysError(
            f"{who}: the tensors do not fit the model that the config describes."
            + _listed("missing", missing)
            + _listed("surplus", surplus)
            + _listed("another shape", other)
            + " Take the config.json that belongs to these weights, or convert the checkpoint again."
        )
    floats = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    module.load_state_dict(floats, strict=True, assign=True)
    for parameter in module.parameters():
        parameter.requires_grad_(True)


def _listed(what: str, names: list[str]) -> str:
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f" {what.capitalize()}: {', '.join(names[:12])}{more}." if names else ""
