"""Released checkpoints (GMML, SiT, MC-SSL) into our folders, key by key: `translate` says how, `convert_checkpoint` writes.

The three releases save a dict of networks whose keys begin with ``module.backbone.`` (timm's names follow), ``module.head_recons.``
(the decoder) or the names of other heads. What has no place in our models is kept under ``heads.``; nothing is left out.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gmml_models.errors import UnreadableFileError, WeightsError, WrongKeysError

_NETWORKS = {"gmml": ("SiT_model",), "sit": ("student", "teacher"), "mc_ssl": ("student", "teacher")}
_DECODER = {f"mlp.{n}.{kind}": f"layers.{n}.{kind}" for n in (0, 2, 4) for kind in ("weight", "bias")} | {
    f"convTrans.{kind}": f"to_pixels.{kind}" for kind in ("weight", "bias")
}
_SIZES = {192: "tiny", 384: "small", 768: "base", 1024: "large"}
_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_LISTED, _DEPTH, _ARGS, _ITEMS, _LETTERS = 12, 256, 200, 64, 300
_NOTE = """
## Where this comes from

Converted from somebody else's checkpoint, `{file}`, by `gmml convert`. {license} The authors of gmml do not
distribute these weights. Before you do, ask whoever made them.
"""


class Translated(NamedTuple):
    """A checkpoint in our names.

    Attributes:
        encoder: timm's names, no prefix.
        decoder: ``decoder.*`` as in `gmml_models.models.decoders`, and ``heads.*``: all else that was trained, under its own names.
        config: as ``config.json``, without the source.
    """

    encoder: dict[str, Tensor]
    decoder: dict[str, Tensor]
    config: dict[str, Any]


def convert_checkpoint(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    kind: str | None = None,
    teacher: bool | None = None,
    heads: int | None = None,
    force: bool = False,
    license: str | None = None,
) -> Path:
    """Write a released checkpoint as a folder that gmml_models, timm and transformers read. Nothing in the file is run.

    Args:
        path: the .pth file.
        folder: made where it is missing.
        kind: ``"gmml"``, ``"sit"`` or ``"mc_ssl"``; seen from the content by default.
        teacher: take the teacher or the student; by default the teacher where there is one, as the methods do.
        heads: number of attention heads, which no tensor tells; by default what the file's arguments say, or width / 64.
        force: write into a folder that holds something.
        license: of the weights; "unknown" by default.

    Returns:
        The folder.

    Raises:
        FileExistsError: the folder holds something, and ``force`` is off.
        NotThereError: no such checkpoint.
        UnreadableFileError: the file is no checkpoint, is damaged or hostile.
        WrongKeysError: keys are missing or surplus, or of another geometry; the message lists them.
        ValueError: an option that does not fit.
    """
    from gmml_models.convert.torch_checkpoint import read_checkpoint
    from gmml_models.hub.folder import write_folder
    from gmml_models.hub.model_card import model_card
    from gmml_models.hub.safetensors_check import sha256_of

    path, folder = Path(path), Path(folder)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"convert_checkpoint: {folder} is a file. Give a folder.")
    if not force and folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"convert_checkpoint: the folder {folder} holds something. Give another one, or force=True.")
    checkpoint = read_checkpoint(path)
    try:
        done = translate(checkpoint, kind=kind, teacher=teacher, heads=heads, license=license)
    except (WeightsError, ValueError) as error:
        raise type(error)(f"convert_checkpoint: {path}: {str(error).removeprefix('translate: ')}") from error
    source = {"file": path.name, "sha256": sha256_of(path)}
    config = {**done.config, "gmml": {**done.config["gmml"], "source": source}}
    said = f"Its licence is, by whoever converted it: {license}." if license else "Its licence is unknown."
    name = re.sub(r"[^\w.-]", "_", path.name)
    write_folder(
        folder,
        tensors={"model.safetensors": done.encoder} | ({"decoder.safetensors": done.decoder} if done.decoder else {}),
        config=config,
        card=lambda whole: model_card(whole) + _NOTE.format(file=name, license=re.sub(r"[^\w .:,()+-]", "_", said)),
    )
    return folder


def translate(
    checkpoint: Mapping[str, Any],
    *,
    kind: str | None = None,
    teacher: bool | None = None,
    heads: int | None = None,
    license: str | None = None,
) -> Translated:
    """A checkpoint, as `read_checkpoint` gives it, in our names; the options and errors are those of `convert_checkpoint`."""
    from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    from gmml_models.models.pretrained import make_config

    kind = _kind(checkpoint, kind)
    if kind == "gmml" and teacher:
        raise ValueError("translate: teacher=True came with a GMML checkpoint, which has one network. Leave it out.")
    name = "SiT_model" if kind == "gmml" else "student" if teacher is False else "teacher"
    parts = _parts(name, checkpoint.get(name))
    args = _plain(checkpoint["args"]) if isinstance(checkpoint.get("args"), Mapping) else {}
    encoder = _encoder(name, parts["backbone"], args.get("num_heads") if heads is None else heads)
    decoder, kept = _decoder(kind, parts["head_recons"], encoder)
    tensors = {f"decoder.{key}": tensor for key, tensor in decoder.items()} | {
        f"heads.{key}": tensor for key, tensor in {**kept, **parts["heads"]}.items()
    }
    ours = {
        "decoder": None if not decoder else "mc_ssl" if kind == "mc_ssl" else "release",
        "blocks": _blocks(args, len(encoder.blocks)) if kind == "gmml" else [len(encoder.blocks)],
        "objective": kind,
        "network": name,
        "args": args,
        "heads": sorted({".".join(key.split(".")[1:3]) for key in tensors if key.startswith("heads.")}),
    }
    config = make_config(encoder, mean=IMAGENET_DEFAULT_MEAN, std=IMAGENET_DEFAULT_STD, gmml=ours, license=license)
    return Translated(parts["backbone"], tensors, config)


def _kind(checkpoint: Mapping[str, Any], kind: str | None) -> str:
    if kind is not None:
        if kind not in _NETWORKS:
            raise ValueError(f"translate: kind={kind!r} is unknown. Allowed are {', '.join(map(repr, _NETWORKS))}.")
        missing = [name for name in _NETWORKS[kind] if not isinstance(checkpoint.get(name), Mapping)]
        if missing:
            raise WrongKeysError(
                f"translate: kind={kind!r} needs {_listing(_NETWORKS[kind])}, but the checkpoint holds {_listing(checkpoint)}. "
                "Leave kind out to have it recognised."
            )
        return kind
    if isinstance(checkpoint.get("SiT_model"), Mapping):
        return "gmml"
    network = checkpoint.get("teacher", checkpoint.get("student"))
    if isinstance(network, Mapping):
        layers = {key.split("head_recons.mlp.")[1] for key in map(str, network) if "head_recons.mlp." in key}
        return "sit" if "4.weight" in layers else "mc_ssl"  # three layers or two
    raise WrongKeysError(
        f"translate: the checkpoint holds {_listing(checkpoint)}. A released one holds 'SiT_model' (GMML), or 'student' and "
        "'teacher' (SiT, MC-SSL). Give such a file."
    )


def _parts(name: str, network: Any) -> dict[str, dict[str, Tensor]]:
    """The tensors of a network without the prefixes, in three parts; float32, finite, with plain names."""
    if not isinstance(network, Mapping):
        raise WrongKeysError(f"translate: the checkpoint holds no network {name!r}. Give teacher=True or False for the other one.")
    parts: dict[str, dict[str, Tensor]] = {"backbone": {}, "head_recons": {}, "heads": {}}
    wrong = []
    for key, tensor in network.items():
        plain = str(key).removeprefix("module.")
        part, _, rest = plain.partition(".")
        group, name_there = (part, rest) if part in ("backbone", "head_recons") and rest else ("heads", plain)
        if (
            not _NAME.fullmatch(plain)
            or name_there in parts[group]
            or not isinstance(tensor, Tensor)
            or not tensor.isfinite().all()
        ):
            wrong.append(str(key))
        else:
            parts[group][name_there] = tensor.float() if tensor.is_floating_point() else tensor
    if wrong:
        raise UnreadableFileError(
            f"translate: {name} holds values that are no tensors of finite numbers, odd names, or one twice: {_listing(wrong)}. "
            "The run that saved it diverged, or the file is damaged: take another one."
        )
    return parts


def _encoder(name: str, tensors: Mapping[str, Tensor], heads: Any) -> Any:
    """A timm model without memory, of the geometry that the shapes tell; its keys and shapes are those of the tensors."""
    import timm

    from gmml_models.models.encoders import build_encoder

    wanted = {"patch_embed.proj.weight": 4, "pos_embed": 3, "blocks.0.mlp.fc1.weight": 2}
    lacking = [key for key, dims in wanted.items() if key not in tensors or tensors[key].ndim != dims or not tensors[key].numel()]
    if lacking:
        raise WrongKeysError(f"translate: {name} is no vision transformer: {_listing(lacking)} missing or of another shape.")
    width, channels, down, across = tensors["patch_embed.proj.weight"].shape
    side = math.isqrt(max(0, tensors["pos_embed"].shape[1] - 1))
    depth = len({key.split(".")[1] for key in tensors if key.startswith("blocks.")})
    if side < 1 or side * side + 1 != tensors["pos_embed"].shape[1] or depth > _DEPTH:
        raise WrongKeysError(
            f"translate: {name} has {tensors['pos_embed'].shape[1]} positions and {depth} blocks. Known are a class token and a "
            f"square of patches, and at most {_DEPTH} blocks."
        )
    if heads is None and width % 64 == 0:
        heads = width // 64
    if type(heads) is not int or heads < 1 or width % heads:
        came = "the number of heads is not in the file" if heads is None else f"heads={heads!r}"
        raise ValueError(
            f"translate: {came}, and the width is {width}. Give heads=, a divisor of the width: no tensor tells, and the features "
            "depend on it."
        )
    named = f"vit_{_SIZES.get(width)}_patch{down}_224"
    ratio = tensors["blocks.0.mlp.fc1.weight"].shape[0] / width
    options: dict[str, Any] = {"embed_dim": width, "depth": depth, "num_heads": heads, "mlp_ratio": ratio}
    with torch.device("meta"):
        model = build_encoder(
            named if down == across and timm.is_model(named) else "vit_tiny_patch16_224",
            img_size=(side * down, side * across),
            patch_size=(down, across) if down != across else down,
            in_chans=channels,
            **options,
        )
    _check(f"the backbone of {name}", model, tensors)
    return model


def _decoder(kind: str, tensors: Mapping[str, Tensor], encoder: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The decoder in our names, and what fits none of ours: MC-SSL's release has two layers with GELU, our two have ReLU."""
    from gmml_models.models.decoders import build_decoder

    renamed = {_DECODER.get(key, f"head_recons.{key}"): tensor for key, tensor in tensors.items()}
    with torch.device("meta"):
        patch, channels = encoder.patch_embed.patch_size, encoder.patch_embed.proj.in_channels
        ours = build_decoder("mc_ssl" if kind == "mc_ssl" else "release", encoder.embed_dim, patch, channels)
    try:
        _check("the decoder (head_recons)", ours, renamed)
    except WrongKeysError:
        if kind != "mc_ssl":
            raise
        return {}, {f"head_recons.{key}": tensor for key, tensor in tensors.items()}
    return renamed, {}


def _check(what: str, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    missing, surplus = sorted(set(shapes) - set(tensors)), sorted(set(tensors) - set(shapes))
    both = [(key, tuple(tensors[key].shape), shapes[key]) for key in sorted(set(shapes) & set(tensors))]
    other = [f"{key} is {came}, not {wanted}" for key, came, wanted in both if came != wanted]
    lists = {"Missing": missing, "Surplus": surplus, "Of another shape": other}
    problems = [f"{word}: {_listing(found)}." for word, found in lists.items() if found]
    if problems:
        raise WrongKeysError(
            f"translate: {what} is not that of the release. {' '.join(problems)} Give a checkpoint that the release itself saved, "
            "or another kind."
        )


def _blocks(args: Mapping[str, Any], depth: int) -> list[int]:
    """The blocks that the decoder reads: as the file's arguments say, or the usual ones."""
    from gmml_models.models.geometry import default_blocks

    said = args.get("recons_blocks")
    if isinstance(said, str) and re.fullmatch(r"\d{1,3}(-\d{1,3})*", said):
        blocks = [int(number) for number in said.split("-")]
        if blocks == sorted(set(blocks) & set(range(1, depth + 1))):
            return blocks
    return list(default_blocks(depth))


def _plain(value: Any, deep: int = 3) -> Any:
    """What a config may hold of a run's arguments: no tensors, nothing long, no paths of the machine that it ran on."""
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


def _listing(names: Any) -> str:
    found = ["".join(letter if letter.isprintable() else "?" for letter in str(name)[:100]) for name in names]
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return (", ".join(found[:_LISTED]) + more) or "nothing"
