"""A model of the zoo, a folder or the Hub that restores the page's corrupted picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gmml_models.errors import UsageError, WeightsError
from gmml_models.figures.corruption_steps import MEAN, STD
from gmml_models.models.autoencoder import GMMLAutoencoder
from gmml_models.models.registry import registry


@dataclass(frozen=True)
class Restorer:
    """An autoencoder for pictures in the page's normalisation."""

    name: str
    model: GMMLAutoencoder

    def __call__(self, images: Tensor, clean: Tensor | None = None) -> Tensor:
        """Restored images from corrupted ones: both (B, 3, H, W) float32, normalised by ImageNet's statistics.

        Args:
            images: the corrupted ones.
            clean: likewise before the corruption; a model of normalised patches takes their mean and standard deviation from here.

        Raises:
            ValueError: a size that the model's patches do not divide.
        """
        ours, theirs = (_columns(*statistics) for statistics in ((MEAN, STD), (self.model.mean, self.model.std)))
        with torch.inference_mode():
            given, known = (None if one is None else (one * ours[1] + ours[0] - theirs[0]) / theirs[1] for one in (images, clean))
            assert given is not None
            restored = self.model.restore(given, clean=known)
        return (restored * theirs[1] + theirs[0] - ours[0]) / ours[1]

    @property
    def size(self) -> int:
        """Side of the pictures that the model was trained with, the shorter one."""
        return min(self.model.img_size)

    @property
    def patch(self) -> int:
        """Side of its patches, the shorter one."""
        return min(self.model.patch_size)


def load(weights: str | None) -> Restorer | None:
    """The requested model, or else the first in the package; None if there is none.

    Args:
        weights: a folder, ``owner/name`` on the Hub, or a name of the registry. Only the Hub needs the network.

    Raises:
        UsageError: the weights cannot be loaded, or are not for images with three channels.
    """
    entries = registry()
    if weights is None:
        here = (name for name, entry in entries.items() if entry.folder and entry.about.get("gmml", {}).get("decoder"))
        weights = next(here, None)
    if weights is None:
        return None
    try:
        model = GMMLAutoencoder.from_pretrained(weights)
    except (WeightsError, ValueError) as error:
        raise UsageError(f"gmml play: --weights {weights} cannot be used. {error}") from error
    if model.in_chans != 3:
        raise UsageError(
            f"gmml play: --weights {weights} is a model for images of {model.in_chans} channels, and the page shows colour "
            "photographs. Give one for three channels."
        )
    return Restorer(weights, model)


def _columns(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    return torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
