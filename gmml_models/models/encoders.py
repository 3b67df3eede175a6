"""Builds timm's vision transformers by name, and describes one so that it can be rebuilt."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import timm
import torch
from timm.layers.format import Format
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from gmml_models.models.encoder_options import OF_TIMM, check_options
from gmml_models.models.geometry import final_norm, remember, tell

_BASE, _DISTILLED = "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"
_MICRO = {"embed_dim": 128, "depth": 6, "num_heads": 4}
SHORT_NAMES: dict[str, dict[str, Any]] = {  # small encoders that timm has no name for: arguments on top of vit_tiny_patch16_224
    "vit_micro_patch8_64": {"img_size": 64, "patch_size": 8, **_MICRO},
    "vit_micro_patch4_32": {"img_size": 32, "patch_size": 4, **_MICRO},
    "vit_tiny_patch8_64": {"img_size": 64, "patch_size": 8},
    "vit_tiny_patch4_32": {"img_size": 32, "patch_size": 4},
}
_MODULES = {"vision_transformer", "deit"}
_WITHOUT_WEIGHT = ("Dropout", "DropPath", "PatchDropout", "Identity")  # what regularises only, and need not be described


def build_encoder(
    encoder: str | VisionTransformer,
    *,
    img_size: int | tuple[int, int] | None = None,
    patch_size: int | tuple[int, int] | None = None,
    in_chans: int | None = None,
    pretrained: bool = False,
    **options: Any,
) -> VisionTransformer:
    """Build a timm `VisionTransformer` without a classifier, for images of any size that is a multiple of its patch size.

    For a size other than its own, the position embedding is resampled in every call (timm's ``dynamic_img_size``); weights and
    results at its own size do not change. An encoder that is already built is changed in place to accept any size, and returned.

    The preprocessing (mean, std, interpolation, crop) is in ``pretrained_cfg``, as in timm. Encoders that are already built, or
    built with ``pretrained``, have timm's; new weights have ImageNet's, because timm's values for a name belong to its pretrained
    weights.

    Args:
        encoder: a name of `SHORT_NAMES`, a name of timm's vision transformers, or an encoder that is already built.
        img_size: side of the images, or (height, width); by default that of the named model.
        patch_size: side of a patch, or (height, width); by default that of the named model.
        in_chans: channels of the images; by default those of the named model.
        pretrained: True to load timm's weights, which works only for timm's names.
        options: other arguments of timm's `VisionTransformer`. ``global_pool`` is "token" by default, or "" without a class
            token; a final norm that timm calls ``fc_norm`` keeps that name.

    Raises:
        TypeError: ``encoder`` is of another type, or timm's `VisionTransformer` does not have an option.
        ValueError: timm does not know the name, or it is not a plain vision transformer; options were given for an encoder that
            is already built; the encoder has a classifier or attention pooling; or a size is not a multiple of the patch size.
    """
    given = {"img_size": img_size, "patch_size": patch_size, "in_chans": in_chans}
    given = {name: value for name, value in given.items() if value is not None} | options
    if isinstance(encoder, VisionTransformer):
        if given or pretrained:
            raise ValueError(
                f"build_encoder: {sorted(given) or ['pretrained']} cannot be combined with an encoder that is already built. Give "
                f"them to "
                "timm.create_model, or give the name of the encoder instead."
            )
        return _accept(encoder, "the given encoder")
    if not isinstance(encoder, str):
        raise TypeError(
            f"build_encoder: encoder is a {type(encoder).__name__}. Give a name or timm's VisionTransformer, for example "
            "'vit_small_patch16_224', or timm.create_model('vit_small_patch16_224', num_classes=0)."
        )
    check_options(given)
    short = SHORT_NAMES.get(encoder)
    if short is not None and pretrained:
        raise ValueError(
            f"build_encoder: timm has no weights for {encoder!r}, which is a name of ours. Leave pretrained out, or use "
            "gmml_models.create_model with a name of gmml_models.list_models()."
        )
    if short is None:
        _check_name(encoder)
    arguments = {**(short or {}), **given}
    vit = _accept(_create(_BASE if short is not None else encoder, pretrained, arguments), repr(encoder))
    if not pretrained and not OF_TIMM & given.keys():
        tell(vit, {"architecture": getattr(vit, "pretrained_cfg", {}).get("architecture")})
    if pretrained:
        named: Mapping[str, Any] = getattr(vit, "pretrained_cfg", None) or {}
        remember(vit, {"file": ".".join(filter(None, (named.get("architecture"), named.get("tag")))), "kind": "timm_weights"})
    return vit


def describe_encoder(vit: VisionTransformer) -> tuple[str, dict[str, Any]]:
    """Return a description from which an encoder can be rebuilt: ``timm.create_model(architecture, num_classes=0, **model_args)``.

    The description is verified on torch's meta device before it is returned: it must have the same keys, shapes, layers and
    heads. Dropout and drop path are left out, because they belong to a run, not to the weights.

    Returns:
        The name of an architecture in timm's registry, and the arguments of timm's `VisionTransformer` that differ from it, in JSON
        types.

    Raises:
        ValueError: the encoder cannot be rebuilt in this way; the message names the differences.
    """
    named = str((getattr(vit, "pretrained_cfg", None) or {}).get("architecture") or "")
    candidates = [named] if named and timm.is_model(named) else []
    candidates.append(_DISTILLED if hasattr(vit, "dist_token") else _BASE)
    wanted, problem = _fingerprint(vit), ""
    for architecture in dict.fromkeys(candidates):
        try:
            reference = _read(_named(architecture))
            arguments = {name: value for name, value in _read(vit).items() if value != reference[name]}
            if "global_pool" in arguments:  # timm would derive it from the pooling
                arguments["fc_norm"] = not isinstance(vit.fc_norm, nn.Identity)
            found = _fingerprint(on_meta(architecture, arguments))
        except (AssertionError, RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
            problem = problem or f"timm cannot build it as {architecture}: {error}"
            continue
        if found == wanted:
            return architecture, arguments
        differ = [name for name in sorted({*found, *wanted}) if found.get(name) != wanted.get(name)]
        here, there = (parts.get(differ[0], "absent") for parts in (wanted, found))
        problem = problem or (
            f"against {architecture} with {arguments}, {len(differ)} parts differ, the first is {differ[0]}: {here} here, {there} "
            "there"
        )
    raise ValueError(
        "describe_encoder: this encoder cannot be described by a name in timm's registry with arguments of "
        f"VisionTransformer; {problem}. Build it with timm.create_model(name, num_classes=0, ...) and numbers, True or "
        "False as arguments (a head is "
        "removed by encoder.reset_classifier(0)), or save its state_dict yourself."
    )


def all_tokens(vit: VisionTransformer, images: Tensor) -> Tensor:
    """The tokens (B, P + N, d) of images (B, C, H, W) after the last block and the final norm: P prefix tokens, then N patches."""
    tokens: Tensor = vit.forward_features(images)
    # with average pooling timm keeps the last norm behind its own pooling
    return final_norm(vit)(tokens) if isinstance(vit.norm, nn.Identity) else tokens


def on_meta(architecture: str, arguments: Mapping[str, Any] | None = None) -> Any:
    """Build timm's model on the meta device, without a head: its shape can be read, and it takes no memory."""
    with torch.device("meta"):
        return timm.create_model(architecture, num_classes=0, **_undrawn(), **(arguments or {}))


@cache
def plain_names() -> tuple[str, ...]:
    """Timm's plain vision transformers, without the tags of weights."""
    return tuple(name for module in sorted(_MODULES) for name in timm.list_models(module=module))


def _undrawn() -> dict[str, Any]:
    """The argument that keeps timm from drawing weights on the meta device, which takes nine tenths of the time for nothing."""
    return {"weight_init": "skip"} if torch.get_default_device().type == "meta" else {}


@cache
def _named(architecture: str) -> Any:
    return on_meta(architecture)


def _create(name: str, pretrained: bool, arguments: dict[str, Any]) -> Any:
    pool: dict[str, Any] = {}
    if "global_pool" not in arguments:
        plain = _named(name)
        pool["global_pool"] = "token" if arguments.get("class_token", plain.has_class_token) else ""
        if not isinstance(plain.fc_norm, nn.Identity):  # its last norm keeps the name that timm's weights have
            pool["fc_norm"] = True
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **{**_undrawn(), **pool, **arguments})
    except AssertionError as error:
        raise ValueError(
            f"build_encoder: timm refuses {name!r} with {arguments}: {error or 'no reason given'}. Change "
            "these options, or leave them out."
        ) from error


def _accept(vit: Any, who: str) -> VisionTransformer:
    """Check an encoder, and make it accept images of any size."""
    plain = isinstance(vit, VisionTransformer) and isinstance(vit.patch_embed, PatchEmbed)
    if not plain:
        raise ValueError(
            f"build_encoder: {who} is not a plain timm VisionTransformer with patches from a single convolution. Give, for "
            "example, 'vit_tiny_patch16_224', 'vit_small_patch16_224', 'vit_base_patch16_224' or "
            "'deit_small_distilled_patch16_224'."
        )
    surplus = sorted(name for name, _ in vit.named_parameters() if name.split(".")[0] in ("head", "head_dist", "attn_pool"))
    if surplus:
        pool = "token" if vit.has_class_token else ""
        raise ValueError(
            f"build_encoder: {who} has weights after its last norm ({', '.join(surplus[:4])}) that nothing would train. Build it "
            f"with num_classes=0 and global_pool='{pool}', or call encoder.reset_classifier(0, '{pool}')."
        )
    size, patch = vit.patch_embed.img_size, vit.patch_embed.patch_size
    if size is None or size[0] % patch[0] or size[1] % patch[1] or min(size) < 1:
        raise ValueError(
            f"build_encoder: img_size={size} of {who} is not a multiple of patch_size={patch}. Give another img_size or "
            f"patch_size, for example img_size={tuple(max(p, s - s % p) for s, p in zip(size or patch, patch, strict=True))}."
        )
    accepted: VisionTransformer = vit
    take_any_size(accepted)
    return accepted


def take_any_size(vit: Any) -> None:
    """Make an encoder accept images of any size that is a multiple of its patch size."""
    vit.dynamic_img_size = True
    vit.patch_embed.strict_img_size, vit.patch_embed.flatten, vit.patch_embed.output_fmt = False, False, Format.NHWC


def _check_name(name: str) -> None:
    if name.split(".")[0] in plain_names():
        return
    what = "is in timm, but not one of its plain vision transformers"
    what = what if timm.is_model(name) else "is known neither to timm nor to gmml"
    close = difflib.get_close_matches(name, [*SHORT_NAMES, *plain_names()], 4, 0.5) or [*SHORT_NAMES, "vit_small_patch16_224"]
    raise ValueError(f"build_encoder: {name!r} {what}. Close names are {', '.join(close)}; or give a VisionTransformer object.")


def _read(vit: VisionTransformer) -> dict[str, Any]:
    """Read from a model the arguments of `VisionTransformer` that determine weights and results."""
    patches, block = vit.patch_embed, vit.blocks[0] if len(vit.blocks) else None
    attn, mlp = getattr(block, "attn", None), getattr(block, "mlp", None)
    qkv, fc1 = getattr(attn, "qkv", None), getattr(mlp, "fc1", None)
    return {
        "img_size": _plain(patches.img_size),
        "patch_size": _plain(patches.patch_size),
        "in_chans": patches.proj.in_channels,
        "global_pool": vit.global_pool,
        "embed_dim": vit.embed_dim,
        "depth": len(vit.blocks),
        "num_heads": getattr(attn, "num_heads", None),
        "mlp_ratio": None if fc1 is None else fc1.out_features / vit.embed_dim,
        "qkv_bias": getattr(qkv, "bias", None) is not None,
        "qk_norm": _has(attn, "q_norm"),
        "scale_attn_norm": _has(attn, "norm"),
        "scale_mlp_norm": _has(mlp, "norm"),
        "proj_bias": getattr(getattr(attn, "proj", None), "bias", None) is not None,
        "init_values": 1e-5 if _has(block, "ls1") else None,  # the value is that of the first step only
        "class_token": vit.cls_token is not None,
        "pos_embed": "none" if vit.pos_embed is None else "learn",
        "no_embed_class": vit.no_embed_class,
        "reg_tokens": vit.num_reg_tokens,
        "pre_norm": not isinstance(vit.norm_pre, nn.Identity),
        "final_norm": not isinstance(final_norm(vit), nn.Identity),
        "fc_norm": not isinstance(vit.fc_norm, nn.Identity),
    }


def _fingerprint(vit: VisionTransformer) -> dict[str, Any]:
    """Everything that two equal encoders share (tensors, layers with their settings, heads), without regularisation."""
    tensors: dict[str, Tensor] = vit.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    layers = {
        f"layer {name}": (_kind(module), module.extra_repr())
        for name, module in vit.named_modules()
        if name and _kind(module) not in _WITHOUT_WEIGHT
    }
    heads = {
        f"heads of {name}": (module.num_heads, getattr(module, "scale", None))
        for name, module in vit.named_modules()
        if hasattr(module, "num_heads")
    }
    size = {"img_size": tuple(vit.patch_embed.img_size), "no_embed_class": vit.no_embed_class, "kind": _kind(vit)}
    return {**shapes, **layers, **heads, **size}


def _kind(module: nn.Module) -> str:
    """The name of a module's class, without the prefix that FSDP 2 adds."""
    return type(module).__name__.removeprefix("FSDP")


def _has(module: nn.Module | None, name: str) -> bool:
    return not isinstance(getattr(module, name, None), (nn.Identity, type(None)))


def _plain(size: tuple[int, int]) -> int | list[int]:
    height, width = (int(side) for side in size)
    return height if height == width else [height, width]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module and all its parts into evaluation mode, and restore each part's own mode afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
