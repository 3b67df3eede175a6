"""GMML, which restores the manipulated pixels, and its control, which has nothing to restore."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from gmml_aug import Corruption, presets
from gmml_models.models.autoencoder import GMMLAutoencoder
from gmml_models.models.patches import Target
from gmml_models.objectives.build import build_autoencoder
from gmml_models.objectives.objective import Loss, Objective


@final
class GMML(Objective):
    """Group Masked Model Learning: the absolute difference between restored and clean images, where they were manipulated.

    It takes any number of views of any size; the loss is the mean over all of them. Part: ``reconstruction``.

    Args:
        encoder: a name or a timm `VisionTransformer`, as in `GMMLAutoencoder`, or an autoencoder, which is then trained itself.
        corrupt: the corruption of the views; `gmml_aug.presets.gmml` with the autoencoder's mean and std by default.
        decoder: as in `GMMLAutoencoder`; "paper" by default.
        blocks: as in `GMMLAutoencoder`; the last one must be among them.
        mean: as in `GMMLAutoencoder`.
        std: as in `GMMLAutoencoder`.
        target: as in `GMMLAutoencoder`.
        loss: the comparison of the reconstruction: ``"l1"`` or ``"l2"``.
        options: ``img_size``, ``patch_size``, ``in_chans``, and arguments of timm's `VisionTransformer`.

    Raises:
        TypeError: a value has the wrong type.
        ValueError: `GMMLAutoencoder` refuses an argument; the last block is missing from the blocks; or options were given
            together with an autoencoder.

    Source:
        GMML 2.3, equation 1, which sums: see `masked_l1` for the means. The paper uses one view; the release uses several.
    """

    def __init__(
        self,
        encoder: str | VisionTransformer | GMMLAutoencoder,
        *,
        corrupt: Corruption | None = None,
        decoder: str | None = None,
        blocks: Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        target: Target | None = None,
        loss: Loss = "l1",
        **options: Any,
    ) -> None:
        autoencoder = build_autoencoder(
            "GMML",
            encoder,
            blocks=blocks,
            decoder=decoder,
            mean=mean,
            std=std,
            target=target,
            default="paper",
            last=False,
            options=options,
        )
        super().__init__(
            autoencoder, presets.gmml(values=(autoencoder.mean, autoencoder.std)) if corrupt is None else corrupt, loss
        )
        self._check_depth()

    def forward(self, views: Sequence[Tensor], *, keys: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and the part ``reconstruction``; see `Objective`."""
        errors = []
        for numbers in self._sizes(views, keys):
            clean, corrupted, mask = self._batch(views, keys, numbers)
            errors.append(self._error(self.autoencoder(corrupted), clean, mask))
        loss = torch.cat(errors).mean()
        return loss, {"reconstruction": loss.detach()}


@final
class Autoencode(Objective):
    """The control: nothing is corrupted, and the loss is the absolute difference over the whole image.

    Arguments, views and errors are those of `GMML`; keys are required, but not used.

    Source:
        GMML 2.1, "the baseline is to pretrain the transformer based autoencoder without any masking", and 3.3.1: it reconstructs
        perfectly after a few epochs, and learns little that is useful.
    """

    def __init__(
        self,
        encoder: str | VisionTransformer | GMMLAutoencoder,
        *,
        decoder: str | None = None,
        blocks: Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        target: Target | None = None,
        loss: Loss = "l1",
        **options: Any,
    ) -> None:
        autoencoder = build_autoencoder(
            "Autoencode",
            encoder,
            blocks=blocks,
            decoder=decoder,
            mean=mean,
            std=std,
            target=target,
            default="paper",
            last=False,
            options=options,
        )
        super().__init__(autoencoder, None, loss)
        self._check_depth()

    def forward(self, views: Sequence[Tensor], *, keys: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and the part ``reconstruction``; see `Objective`."""
        errors = []
        for numbers in self._sizes(views, keys):
            clean = self._batch(views, keys, numbers).clean
            errors.append(self._error(self.autoencoder(clean), clean))
        loss = torch.cat(errors).mean()
        return loss, {"reconstruction": loss.detach()}
