"""The contenders of ``gmml bench``: lower limits, our presets, a small adapter for each peer, and the user's ``module:function``.

Packages are loaded when a contender is created, so that only torch is required. Every table says what a contender does (its
``does``): most do less than `gmml_aug.presets.gmml`, and no two do the same.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import gmml_aug as ga
from gmml_aug.presets import masked as masking
from gmml_models.bench.timing import CLONE, COPY, Call, Peer
from gmml_models.errors import UsageError

_SCALE, _SIDE, _TAPS, _SIGMA = (0.02, 0.35), (0.05, 0.25), 9, (0.1, 1.1)  # those of gmml; 9 is the mean of its taps
_TOKEN = 16


def _copy(images: Tensor) -> Call:
    target = torch.empty_like(images)
    return lambda: target.copy_(images)


def _ours(build: Callable[[], ga.Corruption], *, compiled: bool = False, **options: Any) -> Callable[[Tensor], Call]:
    def make(images: Tensor) -> Call:
        corrupt: Any = build()
        if not compiled:
            return lambda: corrupt(images, **options)
        keys = ga.keys(0, 0, range(len(images))).to(images.device)
        run = torch.compile(lambda images, keys: corrupt(images, keys=keys, **options), fullgraph=True)
        return lambda: run(images, keys)

    return make


def _gmml() -> ga.Corruption:
    return ga.presets.gmml(alone="skip")  # the same, but that a batch of one is no error


def _reference() -> ga.Corruption:
    return ga.presets.gmml_reference(alone="skip")


def _filled(fill: ga.Fill) -> Callable[[], ga.Corruption]:
    return lambda: ga.InBoxes(ga.Boxes(ratio=(0.0, 0.35), side=_SIDE), fill)


def _volume() -> ga.Corruption:
    boxes = ga.Boxes(ratio=(0.0, 0.35), side=(0.1, 0.4), dims=3)
    return ga.Chain([ga.InBoxes(boxes, ga.Noise()), ga.InBoxes(boxes, ga.Alien())])


def _timm(images: Tensor) -> Call:
    load = importlib.import_module("timm.data.random_erasing")
    low, high = _SCALE
    options = {"mode": "pixel", "min_count": 10, "max_count": 10, "device": images.device.type}
    erase = load.RandomErasing(probability=1.0, min_area=low, max_area=high, **options)
    own = images.clone()  # it writes to what it is given
    return lambda: erase(own)


def _vision(name: str, *words: Any, labels: bool = False, **options: Any) -> Callable[[Tensor], Call]:
    def make(images: Tensor) -> Call:
        transform = getattr(importlib.import_module("torchvision.transforms.v2"), name)(*words, **options)
        numbers = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        return (lambda: transform(images, numbers)) if labels else (lambda: transform(images))

    return make


def _kornia(*parts: str) -> Callable[[Tensor], Call]:
    def make(images: Tensor) -> Call:
        load = importlib.import_module("kornia.augmentation")
        build: dict[str, Callable[[], Any]] = {
            "erasing": lambda: load.RandomErasing(p=1.0, scale=_SCALE),
            "blur": lambda: load.RandomGaussianBlur((_TAPS, _TAPS), _SIGMA, p=1.0),
            "grey": lambda: load.RandomGrayscale(p=1.0),
            "cutmix": lambda: load.RandomCutMixV2(p=1.0, data_keys=["input", "class"], use_correct_lambda=True),
        }
        if parts == ("cutmix",):
            mix, numbers = build["cutmix"](), torch.zeros(len(images), dtype=torch.int64, device=images.device)
            return lambda: mix(images, numbers)
        run = torch.nn.Sequential(*(build[part]() for part in parts))
        return lambda: run(images)

    return make


def _grid(images: Tensor) -> tuple[int, int]:
    height, width = images.shape[-2:]
    return max(1, height // _TOKEN), max(1, width // _TOKEN)


def _transformers(images: Tensor) -> Call:
    load = importlib.import_module("transformers.models.vit_mae.modeling_vit_mae")
    config = importlib.import_module("transformers").ViTMAEConfig(hidden_size=8, image_size=2 * _TOKEN, patch_size=_TOKEN)
    model = load.ViTMAEEmbeddings(config).to(images.device)
    rows, columns = _grid(images)
    tokens = torch.zeros(len(images), rows * columns, 8, device=images.device)
    return lambda: model.random_masking(tokens)


def _lightly(blocks: bool) -> Callable[[Tensor], Call]:
    def make(images: Tensor) -> Call:
        load = importlib.import_module("lightly.models.utils")
        batch, (rows, columns) = len(images), _grid(images)
        if blocks:
            return lambda: load.random_block_mask((batch, rows, columns), device=images.device)
        return lambda: load.random_token_mask((batch, rows * columns), device=images.device)

    return make


def _albumentations(images: Tensor) -> Call:
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else importing it asks the network for a newer one
    load = importlib.import_module("albumentations")
    sides = {"hole_height_range": _SIDE, "hole_width_range": _SIDE}
    drop = load.CoarseDropout(num_holes_range=(10, 10), fill="random", p=1.0, **sides)
    pictures = [image.movedim(0, -1).contiguous().numpy() for image in images]
    return lambda: [drop(image=picture)["image"] for picture in pictures]


def _own() -> list[Peer]:
    found = [
        Peer("gmml", "noise, alien, grey, blur in boxes drawn per image; mask", _ours(_gmml), "ours"),
        Peer("gmml_reference", "noise or alien per image, the release's rule; mask", _ours(_reference), "ours"),
        Peer("mae", "zeros in 75 % of the patches; mask", _ours(masking.mae), "ours"),
        Peer("tubes", "zeros in 90 % of the patches, the same in every frame; mask", _ours(masking.tubes), "ours", None, (3,)),
        Peer("noise and alien, 3-D", "noise, then alien in boxes drawn per volume; mask", _ours(_volume), "ours", None, (3,)),
    ]
    for fill in (ga.Noise(), ga.Zeros(), ga.Alien(), ga.Grey(), ga.Blur(sigma=_SIGMA, kernel=(3, 15))):
        name = type(fill).__name__
        found.append(Peer(name, f"{name.lower()} in boxes, 0 to 35 % per image; mask", _ours(_filled(fill)), "ours"))
    whole = "as gmml"
    found.append(Peer("gmml, compiled", whole, _ours(_gmml, compiled=True), "ours", device="cuda", first=True))
    found.append(Peer("gmml, torch path", whole, _ours(_gmml, backend="torch"), "ours", device="cuda"))
    return found


_ANY = (1, 2, 3)
_DROP: dict[str, Any] = {"p": 1.0, "scale": _SCALE}
PEERS: Sequence[Peer] = (
    Peer(COPY, "one read, one write, into memory that is there", _copy, "limit", dims=_ANY),
    Peer(CLONE, "one read, one write, into new memory", lambda images: images.clone, "limit", dims=_ANY),
    *_own(),
    Peer("timm RandomErasing", "noise in 10 boxes per image, in place", _timm, package="timm"),
    Peer(
        "torchvision RandomErasing",
        "noise in one box, the same for all images",
        _vision("RandomErasing", value="random", **_DROP),
        package="torchvision",
    ),
    Peer(
        "torchvision CutMix",
        "alien in one box, the same for all images; labels",
        _vision("CutMix", num_classes=10, labels=True),
        package="torchvision",
    ),
    Peer(
        "torchvision GaussianBlur",
        "blur of whole images, 9 taps, one sigma for all",
        _vision("GaussianBlur", _TAPS, _SIGMA),
        package="torchvision",
    ),
    Peer("kornia RandomErasing", "zeros in one box per image", _kornia("erasing"), package="kornia"),
    Peer("kornia RandomCutMixV2", "alien in one box per image; labels", _kornia("cutmix"), package="kornia"),
    Peer("kornia RandomGaussianBlur", "blur of whole images, 9 taps, sigma per image", _kornia("blur"), package="kornia"),
    Peer("kornia RandomGrayscale", "grey whole images", _kornia("grey"), package="kornia"),
    Peer(
        "kornia erasing + blur + grey",
        "zeros in one box per image; blur and grey of whole images",
        _kornia("erasing", "blur", "grey"),
        package="kornia",
    ),
    Peer(
        "transformers ViTMAE mask",
        "75 % of the tokens chosen, 8 numbers each gathered; no pixels",
        _transformers,
        package="transformers",
    ),
    Peer("lightly random_token_mask", "60 % of the tokens chosen; no pixels", _lightly(False), package="lightly"),
    Peer("lightly random_block_mask", "blocks of tokens, up to half; no pixels", _lightly(True), package="lightly"),
    Peer(
        "albumentations CoarseDropout",
        "noise in 10 boxes per image, NumPy, image by image on one thread",
        _albumentations,
        package="albumentations",
        device="cpu",
    ),
)


def present(peers: Sequence[Peer] = PEERS) -> tuple[list[Peer], dict[str, str]]:
    """The peers that can be run here, and the reasons why the others cannot."""
    absent = {
        peer.name: f"{peer.package} is not installed"
        for peer in peers
        if peer.package and not importlib.util.find_spec(peer.package)
    }
    return [peer for peer in peers if peer.name not in absent], absent


def own_peer(written: str) -> Peer:
    """Import the user's ``module:function``, also from the current folder; the function takes the batch and may return anything.

    Raises:
        UsageError: the module or function does not exist, or cannot be called.
    """
    module, colon, name = written.partition(":")
    if not (module and colon and name):
        raise UsageError(
            f"gmml bench: --peer {written} is not of the form MODULE:FUNCTION. Give, for example, --peer mine:corrupt."
        )
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # it is theirs: whatever it raises is to be told, not to be traced
        raise UsageError(f"gmml bench: --peer {written}: {module} cannot be imported ({type(error).__name__}: {error}).") from error
    if not callable(function):
        raise UsageError(
            f"gmml bench: --peer {written}: {module} has no function {name}. It must be a function of the batch, a tensor."
        )
    does = (inspect.getdoc(function) or "not said").partition("\n")[0]
    return Peer(written, does, lambda images: lambda: function(images), "yours", dims=_ANY)
