"""Recognises which networks a checkpoint holds, and which method made them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from gmml_models.convert.pickle_calls import Unread
from gmml_models.errors import UnreadableFileError, WrongKeysError
from gmml_models.models.wrappers import without_prefixes

RELEASES = {"gmml": ("SiT_model",), "sit": ("student", "teacher"), "mc_ssl": ("student", "teacher")}
KINDS = (*RELEASES, "sit_2021", "dino", "ibot", "mae", "simmim", "beit", "timm", "lightning", "transformers", "vit")
_PATCHES = ("patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight")
_BACKBONE = re.compile(
    r"(cls_token|dist_token|reg_token|register_tokens|rot_token|contrastive_token|pos_embed)$"
    r"|(patch_embed|blocks|norm|fc_norm|norm_pre|rel_pos_bias|embeddings|encoder\.layer|layers|layernorm)\."
)
_PREFERRED = ("teacher", "SiT_model", "model", "state_dict")  # after what is an average, as the methods and timm do
_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_LISTED = 12


class Network(NamedTuple):
    """One vision transformer of a checkpoint, without the prefixes of wrappers.

    Attributes:
        name: the network's name in the checkpoint, as accepted by ``network=``.
        kind: the method that made it, one of `KINDS`.
        backbone: the tensors of the vision transformer, under their names in the file without their common prefix.
        decoder: the tensors of ``head_recons`` (GMML, SiT, MC-SSL), without that prefix.
        heads: all other tensors of the network.
    """

    name: str
    kind: str
    backbone: dict[str, Tensor]
    decoder: dict[str, Tensor]
    heads: dict[str, Tensor]


def pick_network(checkpoint: Mapping[str, Any], *, kind: str | None, network: str | None) -> Network:
    """Return the requested network of a checkpoint, or by default the one that its method uses.

    Raises:
        ValueError: ``kind`` is unknown.
        WrongKeysError: there is no vision transformer, there are several candidates, or the requested one is missing.
        UnreadableFileError: values are not tensors of finite numbers, or a name is invalid or occurs twice.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"translate: kind={kind!r} is unknown. Allowed: {', '.join(map(repr, KINDS))}.")
    places = _places(checkpoint)
    if kind in RELEASES:
        missing = [name for name in RELEASES[kind] if not isinstance(checkpoint.get(name), Mapping)]
        if len(missing) == len(RELEASES[kind]):
            raise WrongKeysError(
                f"translate: kind={kind!r} needs {listing(RELEASES[kind])}, but the checkpoint holds {listing(checkpoint)}. "
                "Leave kind out to detect it."
            )
    name = _chosen(checkpoint, places, network)
    held, stem = places[name]
    backbone, decoder, heads = _parts(name, held, stem)
    seen = _kind(checkpoint, name, stem, backbone, decoder, heads)
    return Network(name, kind or seen, backbone, decoder, heads)


def _places(checkpoint: Mapping[str, Any]) -> dict[str, tuple[Mapping[Any, Any], str]]:
    """Every network by name: the dict that holds it, and the prefix of its tensors in that dict."""
    held: dict[str, Mapping[Any, Any]] = {"": checkpoint}
    for key, value in checkpoint.items():
        if isinstance(value, Mapping):
            held[str(key)] = value
            held |= {f"{key}.{inner}": deeper for inner, deeper in value.items() if isinstance(deeper, Mapping)}
    found = {}
    for name, mapping in held.items():
        for key in (without_prefixes(key) for key in mapping if isinstance(key, str)):
            for patches in _PATCHES:
                if key == patches or key.endswith(f".{patches}"):
                    stem = key.removesuffix(patches)
                    plain = stem.removesuffix("vit.").strip(".") if name else stem.strip(".")
                    label = ".".join(part for part in (name, plain if plain not in ("backbone", "encoder") else "") if part)
                    label = label or "the file"
                    found[f"{label}.{stem}".rstrip(".") if label in found else label] = (mapping, stem)
    return found


def _chosen(checkpoint: Mapping[str, Any], places: Mapping[str, Any], network: str | None) -> str:
    names = list(places)
    if network is not None:
        close = [name for name in names if name == network] or [name for name in names if network in name.split(".")]
        if len(close) != 1:
            raise WrongKeysError(
                f"translate: the checkpoint holds no network {network!r}. It holds {listing(names or checkpoint)}."
            )
        return close[0]
    if not names:
        raise WrongKeysError(f"translate: {no_transformer(checkpoint)}")
    slow = [name for name in names if re.search("teacher|ema|momentum|target", name)]
    for alike in (slow, *([name for name in names if word in name.split(".")] for word in _PREFERRED), names):
        if len(alike) == 1:
            return alike[0]
    raise WrongKeysError(f"translate: the checkpoint holds several networks: {listing(names)}. Choose one with network=.")


def no_transformer(checkpoint: Mapping[str, Any]) -> str:
    """Say what a checkpoint without a plain vision transformer holds instead, and how to proceed."""
    holders = [checkpoint, *(value for value in checkpoint.values() if isinstance(value, Mapping))]
    keys = {str(key) for holder in holders for key in holder}
    told = (
        (r"lora_", "holds adapters (LoRA), not a network. Merge them into their model first, with peft's merge_and_unload()"),
        (r"layers\.\d+\.blocks\.\d+\.", "is a Swin transformer, not a plain one. timm has these for features: "
         "timm.create_model('swin_tiny_patch4_window7_224', pretrained=True)"),
        (r"visual\.(conv1|class_embedding|transformer)", "is OpenAI's CLIP. timm has it as a plain vision transformer: "
         "GMMLAutoencoder(timm.create_model('vit_base_patch16_clip_224', pretrained=True, num_classes=0))"),
        (r"(^|\.)layer1\.0\.conv1", "is a convolutional network, which has no tokens. Give a vision transformer"),
        (r"(^|\.)stages\.\d", "is a network of several stages, not a plain vision transformer. Give a plain one"),
    )  # fmt: skip
    for pattern, words in told:
        if any(re.search(pattern, key) for key in keys):
            return f"the checkpoint {words}."
    shown = [f"{key}{_unread(value)}" for key, value in checkpoint.items()]
    return (
        f"the checkpoint holds {listing(shown)}, and no vision transformer: none has patch_embed.proj.weight. The "
        "supported files are those of GMML ('SiT_model'), SiT, MC-SSL, DINO and iBOT ('student', 'teacher'), MAE and "
        "SimMIM ('model'), timm and Lightning "
        "('state_dict'), and plain tensors under the names of timm or transformers."
    )


def _unread(value: Any) -> str:
    """Describe the part of a value that the reader skipped, for a message."""
    inner = (
        [*value.keys(), *value.values()] if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else [value]
    )
    return next((f" ({one})" for one in inner if isinstance(one, Unread)), "")


def _parts(name: str, network: Mapping[Any, Any], stem: str) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Split the tensors of a network into three parts, as finite float32 tensors with plain names."""
    backbone: dict[str, Tensor] = {}
    decoder: dict[str, Tensor] = {}
    heads: dict[str, Tensor] = {}
    wrong = []
    flat = name.partition(".")[0] not in ("student", "teacher", "SiT_model")  # the dict may hold other things than tensors
    for key, tensor in network.items():
        plain = without_prefixes(key) if isinstance(key, str) else str(key)
        part, rest = heads, plain
        if plain.startswith(stem) and _BACKBONE.match(plain.removeprefix(stem)):
            part, rest = backbone, plain.removeprefix(stem)
        elif plain.startswith("head_recons."):
            part, rest = decoder, plain.removeprefix("head_recons.")
        if part is heads and flat and not isinstance(tensor, Tensor):
            continue
        sound = isinstance(tensor, Tensor) and ((part is heads and flat) or bool(tensor.isfinite().all()))
        if not _NAME.fullmatch(plain) or rest in part or not sound:
            wrong.append(f"{key}{_unread(tensor)}")
        elif not tensor.is_complex():
            part[rest] = tensor.float() if tensor.is_floating_point() else tensor
    if wrong:
        raise UnreadableFileError(
            f"translate: {name} holds values that are not tensors of finite numbers, or names that are invalid or occur twice: "
            f"{listing(wrong)}. "
            "The run that saved it diverged, or the file is damaged: use another file."
        )
    return backbone, decoder, heads


def _kind(
    checkpoint: Mapping[str, Any],
    name: str,
    stem: str,
    backbone: Mapping[str, Tensor],
    decoder: Mapping[str, Tensor],
    heads: Mapping[str, Tensor],
) -> str:
    """Recognise, by the tensors of a network and by other entries of the checkpoint, the method that made it."""
    beside = [value for value in checkpoint.values() if isinstance(value, Mapping)]
    every = {without_prefixes(key) for value in beside for key in value if isinstance(key, str)} | set(heads)
    if {"rot_token", "contrastive_token"} <= backbone.keys():
        return "sit_2021"
    if "SiT_model" in name:
        return "gmml"
    if decoder:
        return "sit" if "mlp.4.weight" in decoder else "mc_ssl"  # three layers or two
    if "ibot_loss" in checkpoint or any(
        key.endswith(("masked_embed", "head.last_layer2.weight_g", "mlp2.0.weight")) for key in every
    ):
        return "ibot"
    if "dino_loss" in checkpoint or any("head.last_layer." in key for key in every):
        return "dino"
    if {"decoder_embed.weight", "decoder_pos_embed"} & heads.keys():
        return "mae"
    if stem.endswith("encoder.") and "decoder.0.weight" in heads:
        return "simmim"
    if any("rel_pos" in key or "relative_position" in key or key.endswith(".q_bias") for key in backbone):
        return "beit"
    if "pytorch-lightning_version" in checkpoint:
        return "lightning"
    if any(key.startswith("embeddings.") for key in backbone):
        return "transformers"
    return "timm" if isinstance(checkpoint.get("arch"), str) else "vit"


def listing(names: Any) -> str:
    """List names for a message: the first few of them, with unprintable characters escaped."""
    found = ["".join(letter if letter.isprintable() else "?" for letter in str(name)[:100]) for name in names]
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return (", ".join(found[:_LISTED]) + more) or "nothing"
