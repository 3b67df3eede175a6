"""A model from the zoo, a folder or the Hub that restores the corrupted picture of the page."""

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
    """An autoencoder for pictures that are normalised as on the page."""

    name: str
    model: GMMLAutoencoder

    def __call__(self, images: Tensor, clean: Tensor | None = None) -> Tensor:
        """Restore corrupted images; both are (B, 3, H, W) float32, normalised by ImageNet's statistics.

        Args:
            images: the corrupted images.
            clean: the same images before the corruption; a model of normalised patches takes the mean and std of patches from them.

        Raises:
            ValueError: the size is not a multiple of the model's patch size.
        """
        ours, theirs = (_columns(*statistics) for statistics in ((MEAN, STD), (self.model.mean, self.model.std)))
        with torch.inference_mode():
            given, known = (None if one is None else (one * ours[1] + ours[0] - theirs[0]) / theirs[1] for one in (images, clean))
            assert given is not None
            restored = self.model.restore(given, clean=known)
        return (restored * theirs[1] + theirs[0] - ours[0]) / ours[1]

    @property
    def size(self) -> int:
        """The shorter side of the pictures that the model was trained with."""
        return min(self.model.img_size)

    @property
    def patch(self) -> int:
        """The shorter side of its patches."""
        return min(self.model.patch_size)


def load(weights: str | None) -> Restorer | None:
    """Load the requested model, or else the first in the package; None if the package has none.

    Args:
        weights: a folder, ``owner/name`` on the Hub, or a name in the registry. Only names on the Hub need the network.

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
            f"gmml play: --weights {weights} is a model for images of {model.in_chans} channels, but the page shows colour "
            "photographs. Give a model for three channels."
        )
    return Restorer(weights, model)


def _columns(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    return torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
