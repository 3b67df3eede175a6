"""Augmentation of labelled images, through timm: crops, RandAugment, erasing; MixUp and CutMix over a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch
from torch.nn import functional as F

from gmml_models.data.transforms import ViewPlan, seeded
from gmml_models.errors import UsageError
from gmml_models.recipes.config import FinetuneConfig

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from gmml_models.models.classifier import Classifier

_CROP = (0.08, 1.0)
_SMOOTHING, _MIXUP, _CUTMIX, _ERASING = 0.1, 0.8, 1.0, 0.25


@final
@dataclass(frozen=True, kw_only=True)
class Strength:
    """The strength of the augmentation, with defaults filled in for one class or several labels per image.

    Source:
        With one class, it is DeiT's, which GMML 3.1 and MC-SSL 4.3 follow; DeiT's RandAugment stands in for their "AutoAugment".
        With several labels, MC-SSL 4.2 mentions only RandAugment on resized whole images; the flip is our addition.
    """

    smoothing: float
    mixup: float
    cutmix: float
    erasing: float
    scale: tuple[float, float] | None
    """Share of the area that a crop covers; None stands for the whole image, resized."""

    @property
    def mixes(self) -> bool:
        """True if images are mixed."""
        return self.mixup > 0 or self.cutmix > 0


def strength(config: FinetuneConfig, *, multi_label: bool) -> Strength:
    """Read the strength from a config.

    Raises:
        UsageError: numbers are out of range, or options do not work with several labels.
    """
    who = "gmml finetune"
    for name in ("smoothing", "erasing", "flip"):
        value = getattr(config, name)
        if value is not None and not 0 <= value <= 1:
            raise UsageError(f"{who}: {name}={value} is not between 0 and 1. Give, for example, 0.1.")
    for name in ("mixup", "cutmix"):
        value = getattr(config, name)
        if value is not None and not 0 <= value < float("inf"):
            raise UsageError(f"{who}: {name}={value} is not a number of at least 0. Give, for example, 0.8, or 0 for none.")
    if config.scale is not None and not 0 < config.scale[0] <= config.scale[1] <= 1:
        raise UsageError(f"{who}: scale={config.scale} is not a range of shares. Give 0 < low <= high <= 1, as in 0.08 1.0.")
    if multi_label:
        mixed = [name for name in ("mixup", "cutmix", "smoothing") if getattr(config, name)]
        if mixed:
            raise UsageError(
                f"{who}: {', '.join(f'{name}={getattr(config, name)}' for name in mixed)} cannot be combined with "
                "several labels per image, for which MC-SSL 4.2 uses none of these. Leave it out."
            )
        return Strength(smoothing=0.0, mixup=0.0, cutmix=0.0, erasing=config.erasing or 0.0, scale=config.scale)
    return Strength(
        smoothing=_SMOOTHING if config.smoothing is None else config.smoothing,
        mixup=_MIXUP if config.mixup is None else config.mixup,
        cutmix=_CUTMIX if config.cutmix is None else config.cutmix,
        erasing=_ERASING if config.erasing is None else config.erasing,
        scale=config.scale or _CROP,
    )


def training_transform(config: FinetuneConfig, model: Classifier, how: Strength) -> Callable[[Image.Image], Tensor] | None:
    """Make the transform of one image, on the CPU; None if the crops and flips of a `ViewPlan` are enough.

    Returns:
        PIL image -> (C, H, W) float32, normalised. The transform draws from the global generators of torch, Python and NumPy.

    Raises:
        UsageError: timm does not know the policy, or the images are neither grey nor colour.
    """
    policy = config.auto_augment if config.auto_augment not in ("", "none") else None
    if policy is None and not how.erasing and how.scale is not None:
        return None
    if model.in_chans not in (1, 3):
        raise UsageError(
            f"gmml finetune: auto_augment, erasing and whole images are for 1 or 3 channels, but these images have "
            f"{model.in_chans}. "
            "Give --auto-augment none --erasing 0 --scale 0.08 1.0."
        )
    try:
        return _timm_transform(config, model, how, policy)
    except (AssertionError, KeyError, ValueError) as error:
        raise UsageError(
            f"gmml finetune: timm refuses auto_augment={config.auto_augment!r} ({error}). Give, for example, rand-m9-mstd0.5-inc1, "
            "or none."
        ) from error


def _timm_transform(
    config: FinetuneConfig, model: Classifier, how: Strength, policy: str | None
) -> Callable[[Image.Image], Tensor]:
    from timm.data.transforms_factory import create_transform

    options: dict[str, Any] = {
        "input_size": (model.in_chans, *model.img_size),
        "is_training": True,
        "hflip": config.flip,
        "color_jitter": None,
        "auto_augment": policy,
        "interpolation": "bicubic",
        "mean": model.mean,
        "std": model.std,
        "re_prob": how.erasing,
        "re_mode": "pixel",  # DeiT's
    }
    transform: Callable[[Image.Image], Tensor]
    if how.scale is not None:
        transform = _with_sound_posterize(create_transform(**options, scale=how.scale))
        return transform
    from timm.data.transforms import RandomResizedCropAndInterpolation
    from torchvision import transforms

    resize = transforms.Resize(model.img_size, interpolation=transforms.InterpolationMode.BICUBIC)
    steps = _with_sound_posterize(create_transform(**options, scale=(1.0, 1.0))).transforms
    transform = transforms.Compose([resize if isinstance(one, RandomResizedCropAndInterpolation) else one for one in steps])
    return transform


def _with_sound_posterize(transform: Any) -> Any:
    """Keep one bit where timm's policies ask for none, which Pillow 13 refuses (earlier versions turned the image black)."""
    for step in transform.transforms:
        operations = [*getattr(step, "ops", ()), *(one for part in getattr(step, "policy", ()) for one in part)]
        for one in operations:
            if str(getattr(one, "name", "")).startswith("Posterize"):
                one.aug_fn = _posterize
    return transform


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    from PIL import ImageOps

    return image if bits >= 8 else ImageOps.posterize(image, max(bits, 1))


def view_plan(config: FinetuneConfig, model: Classifier, how: Strength) -> ViewPlan:
    """Make the plan of a view: its size, its crops if there is no transform, and the centre crop for evaluation."""
    return ViewPlan(
        size=model.img_size,
        views=1,
        scale=how.scale or _CROP,
        flip=config.flip,
        jitter_p=0.0,
        blur_p=0.0,
        centre=centre_of(model.img_size),
        mean=model.mean,
        std=model.std,
    )


def centre_of(size: tuple[int, int]) -> float:
    """The share of the shorter side that a centre crop shows; `gmml_models.models.pretrained` records it as ``crop_pct``.

    Source:
        DeiT crops 224 of 256, a share of 0.875; 0.9, and the whole image below 160 pixels, are our choice.
    """
    return 0.9 if min(size) >= 160 else 1.0


@final
class Mixing:
    """Apply timm's MixUp and CutMix to a batch.

    Args:
        how: the parameters of MixUp and CutMix, and the label smoothing.
        classes: c.

    Shapes:
        images (B, C, H, W) with B even, labels (B,) int64 -> images of that shape, targets (B, c) float32.

    Source:
        As in DeiT, one of the two is chosen at random for each batch, and each image is mixed with its counterpart from the other
        end of the batch.
    """

    def __init__(self, how: Strength, classes: int) -> None:
        from timm.data.mixup import Mixup

        build: Any = Mixup  # its arguments have no types
        self._mixup = build(
            mixup_alpha=how.mixup, cutmix_alpha=how.cutmix, label_smoothing=how.smoothing, num_classes=classes, mode="batch"
        )

    def __call__(self, images: Tensor, labels: Tensor, key: int) -> tuple[Tensor, Tensor]:
        """Return mixed images and soft targets; ``key`` determines all random numbers, and the given images are not changed."""
        with seeded(key):
            mixed, targets = self._mixup(images.clone(), labels)
        return mixed, targets.float()


def loss_of(scores: Tensor, labels: Tensor, *, multi_label: bool, smoothing: float = 0.0) -> Tensor:
    """The fine-tuning loss, () float32.

    Args:
        scores: (B, c), before softmax or sigmoid.
        labels: (B,) int64 classes, (B, c) float shares of classes, or, with ``multi_label``, (B, c) of 0 and 1.
        multi_label: True for several labels per image, which need another loss.
        smoothing: the label smoothing, for labels that are not shares yet.

    Source:
        With one class, it is DeiT's cross-entropy against smoothed or mixed labels. With several labels, it is equation 5 of
        MC-SSL 4.2, averaged over labels and images; the equation has no minus sign.
    """
    from gmml_models.losses import multi_label_loss

    if multi_label:
        return multi_label_loss(scores, labels, reduction="mean")
    if labels.ndim == 2:
        return torch.sum(-labels * F.log_softmax(scores.float(), dim=-1), dim=-1).mean()
    return F.cross_entropy(scores.float(), labels, label_smoothing=smoothing)
