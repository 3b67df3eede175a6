"""Renames tensors of plain vision transformers to timm's names, from those of transformers, DINOv2, BEiT and SiT's first code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gmml_models.errors import WrongKeysError

_HUGGING_FACE = [
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^embeddings\.cls_token$", "cls_token"),
        (r"^embeddings\.distillation_token$", "dist_token"),
        (r"^embeddings\.register_tokens$", "register_tokens"),
        (r"^embeddings\.position_embeddings$", "pos_embed"),
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^(encoder\.layer|layers)\.(\d+)\.", r"blocks.\2."),
        (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
        (r"\.attention\.([qkv])_proj\.", r".attn.\1_proj."),
        (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"\.output\.dense\.", ".mlp.fc2."),
        (r"\.layernorm_before\.", ".norm1."),
        (r"\.layernorm_after\.", ".norm2."),
        (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
        (r"\.lambda_(\d)$", r".ls\1.gamma"),
        (r"^layernorm\.", "norm."),
    )
]
_QKV = {"query": 0, "key": 1, "value": 2, "q_proj": 0, "k_proj": 1, "v_proj": 2}


def in_timms_names(name: str, given: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors under timm's names, and the resulting arguments of timm's `VisionTransformer`.

    Args:
        name: the name of the network, for errors.
        given: the tensors of a backbone.

    Raises:
        WrongKeysError: timm's `VisionTransformer` does not support the architecture; the message says how to proceed.
    """
    tensors = dict(given)
    if any("rel_pos" in key or "relative_position" in key for key in tensors):
        raise WrongKeysError(
            f"translate: {name} has relative positions, as in BEiT, SimMIM and data2vec; timm's VisionTransformer, which GMML "
            "pretrains, has none. timm has such models for features: timm.create_model('beit_base_patch16_224', pretrained=True)."
        )
    if any(re.search(r"\.mlp\.(w12|w3|w1|w2|fc1_g)\.", key) for key in tensors):
        raise WrongKeysError(
            f"translate: {name} has gated (SwiGLU) layers, which our config cannot describe. timm has such models for "
            "features: timm.create_model('vit_giant_patch14_dinov2', pretrained=True)."
        )
    if any(key.startswith("embeddings.") for key in tensors):
        tensors = _from_hugging_face(tensors)
    for key in [key for key in tensors if key.endswith((".gamma_1", ".gamma_2"))]:
        tensors[f"{key[:-8]}.ls{key[-1]}.gamma"] = tensors.pop(key)
    for key in [key for key in tensors if key.endswith(".q_bias")]:
        query, value = tensors.pop(key), tensors.pop(key[:-6] + "v_bias", None)
        if value is None:
            raise WrongKeysError(f"translate: {name} has {key}, but no matching v_bias.")
        tensors[key[:-6] + "qkv.bias"] = torch.cat([query, torch.zeros_like(query), value])
    if "rot_token" in tensors:  # SiT's first code: the rotation and the contrast have a token each
        tensors["cls_token"], tensors["reg_token"] = tensors.pop("rot_token"), tensors.pop("contrastive_token")
    options: dict[str, Any] = {}
    if "register_tokens" in tensors and "cls_token" in tensors and "pos_embed" in tensors:  # DINOv2: these have no position
        tensors["reg_token"] = tensors.pop("register_tokens")
        positions = tensors["pos_embed"]
        tensors["cls_token"], tensors["pos_embed"] = tensors["cls_token"] + positions[:, :1], positions[:, 1:].clone()
        options["no_embed_class"] = True
    if "reg_token" in tensors and tensors["reg_token"].ndim == 3:
        options["reg_tokens"] = tensors["reg_token"].shape[1]
    if "cls_token" not in tensors:
        options |= {"class_token": False, "global_pool": ""}
    if any(key.endswith(".ls1.gamma") for key in tensors):
        options["init_values"] = 1e-5
    if any(key.endswith(".attn.q_norm.weight") for key in tensors):
        options["qk_norm"] = True
    if any(key.startswith("norm_pre.") for key in tensors):
        options["pre_norm"] = True
    if "fc_norm.weight" in tensors and "norm.weight" not in tensors:
        options |= {"global_pool": "avg", "fc_norm": True}
    return tensors, options


def _from_hugging_face(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    split: dict[str, dict[int, Tensor]] = {}
    for key, tensor in given.items():
        if key == "embeddings.mask_token":
            continue
        for pattern, name in _HUGGING_FACE:
            key = pattern.sub(name, key)
        part = re.fullmatch(r"(blocks\.\d+\.attn\.)(query|key|value|[qkv]_proj)\.(weight|bias)", key)
        if part:
            split.setdefault(f"{part[1]}qkv.{part[3]}", {})[_QKV[part[2]]] = tensor
        else:
            found[key] = tensor
    for key, parts in split.items():  # BEiT's keys have no bias
        like = next(iter(parts.values()))
        found[key] = torch.cat([parts.get(number, torch.zeros_like(like)) for number in range(3)])
    return found
