"""Loads encoders and autoencoders from a folder, the Hub or the registry."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from timm.models.vision_transformer import VisionTransformer

from gmml_models.errors import NotThereError
from gmml_models.models.autoencoder import GMMLAutoencoder
from gmml_models.models.encoder_options import check_names
from gmml_models.models.pretrained import load_encoder, load_for
from gmml_models.models.registry import PREFIX, known, located, registry

_OWN_OPTIONS = ("revision", "subfolder", "sha256", "verify", "token", "cache_dir", "local_files_only", "force_download")


def from_pretrained(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    subfolder: str | None = None,
    sha256: str | Mapping[str, str] | None = None,
    verify: bool = True,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    **options: Any,
) -> VisionTransformer:
    """Load a plain timm encoder from a folder, the Hub or the registry, in evaluation mode and float32.

    It takes images of any size that is a multiple of its patch size, and its ``pretrained_cfg`` says how they are prepared.

    Args:
        source: a local folder, ``owner/name`` on the Hub, or a name from `list_models`; timm's prefixes ``local-dir:`` and
            ``hf-hub:`` are accepted.
        revision: a branch, tag or commit.
        subfolder: the subfolder with the weights; 'hf-hub:owner/name/sub' works too.
        sha256: the hash of ``model.safetensors``, checked instead of the one recorded in the folder.
        verify: True to compare the hash recorded in the folder; use False for weights that another program has saved again.
        token: a token for private and gated repositories; by default the Hub client's own.
        cache_dir: the cache folder of the Hub client.
        local_files_only: True to never use the network.
        force_download: True to download again and replace a damaged file in the cache.
        options: arguments of timm that adapt the encoder: ``num_classes``, ``img_size``, ``in_chans``, ``drop_path_rate``, ...;
            timm then resamples position embeddings and adapts the first layer. With ``dynamic_img_size=False`` it accepts only one
            size.

    Raises:
        TypeError: ``source`` is neither a string nor a path, or timm's `VisionTransformer` does not have an option.
        ValueError: timm refuses the options for this encoder.
        WeightsError: the weights cannot be loaded; the subclass says why: not found, no access, no network, wrong bytes,
            unreadable, or wrong keys.
    """
    check_names("from_pretrained", options, also=_OWN_OPTIONS)
    where = located(
        source,
        revision=revision,
        subfolder=subfolder,
        sha256=sha256,
        verify=verify,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        force_download=force_download,
    ).pinned()
    config = where.config()
    return load_for(where, config, options) if options else load_encoder(where, config)


def create_model(name: str, *, pretrained: bool = False, **options: Any) -> GMMLAutoencoder:
    """Create a `GMMLAutoencoder` by name; its ``encoder`` is the plain timm model.

    Args:
        name: ``gmml_<encoder>``, or ``gmml_<encoder>.<data>`` for weights in the registry.
        pretrained: True to load the weights; otherwise they are random.
        options: the options of `GMMLAutoencoder`; not allowed with ``pretrained``.

    Raises:
        TypeError: ``name`` is not a string.
        NotThereError: the weights do not exist; the message lists those that do.
        ValueError: the name does not begin with ``gmml_``, or options were given with ``pretrained``.
    """
    if not isinstance(name, str):
        raise TypeError(f"create_model: name is a {type(name).__name__}. Give, for example, 'gmml_vit_small_patch16_224'.")
    if not name.startswith(PREFIX):
        raise ValueError(
            f"create_model: {name!r} does not begin with {PREFIX!r}. Of a vision transformer, the autoencoder is create_model("
            f"{PREFIX + name!r}), the encoder alone gmml_models.build_encoder({name!r}). Other networks: timm.create_model."
        )
    encoder, _, tag = name.removeprefix(PREFIX).partition(".")
    if name not in registry() and (pretrained or tag):
        raise NotThereError(
            f"create_model: there are no weights named {name!r}. {known(name)} For other people's weights, use "
            f"GMMLAutoencoder.from_pretrained(folder or Hub name); for random ones, use create_model({PREFIX + encoder!r})."
        )
    if not pretrained:
        return GMMLAutoencoder(encoder, **options)
    if options:
        raise ValueError(
            f"create_model: options {sorted(options)} cannot be combined with pretrained=True, because the config of the "
            "weights determines everything. "
            f"Leave them out, or load an adapted encoder: gmml_models.from_pretrained(name, num_classes=10)."
        )
    return GMMLAutoencoder.from_pretrained(name)
