"""GMML's figure 9: images that the decoder reconstructs from the features of each single block.

L blocks, B images, C channels, (H, W) their size. Blocks count from 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gmml_aug import Alien, Boxes, Chain, Corruption, InBoxes, Noise
from gmml_aug.values import Values
from gmml_models.models.autoencoder import GMMLAutoencoder
from gmml_models.models.decoders import Encoded
from gmml_models.models.encoders import evaluating
from gmml_models.models.geometry import check_blocks, check_images


class Reconstructions(NamedTuple):
    """Reconstructions of corrupted images by an autoencoder.

    Attributes:
        corrupted: (B, C, H, W) the input of the model.
        mask: (B, 1, H, W) bool, True where a pixel was corrupted.
        by_block: (L, B, C, H, W) float32, decoded from the features of one block each.
        fused: (B, C, H, W) float32, decoded from the average of the model's own blocks, as in training: ``model(corrupted)``. A
            normalised target is converted back with the mean and standard deviation of the clean patches, in ``by_block`` too.
        blocks: (L,) the blocks.
    """

    corrupted: Tensor
    mask: Tensor
    by_block: Tensor
    fused: Tensor
    blocks: tuple[int, ...]

    def errors(self, clean: Tensor) -> Tensor:
        """(L + 1, B) float32: the mean absolute error over the corrupted pixels, of every block and then of the average.

        Args:
            clean: (B, C, H, W) the images before the corruption.

        Returns:
            Errors are in the units of the images, and 0 for an image without corrupted pixels.
        """
        every = torch.cat([self.by_block, self.fused[None]])  # (L + 1, B, C, H, W)
        off = (every - clean.float()).abs() * self.mask
        return off.sum((2, 3, 4)) / (self.mask.sum((1, 2, 3)) * clean.shape[1]).clamp(min=1)


def reconstructions(
    model: GMMLAutoencoder, images: Tensor, *, corrupt: Corruption, keys: Tensor, blocks: Sequence[int] | None = None
) -> Reconstructions:
    """Corrupt images, and decode the patch tokens of each block separately, through the final norm and the decoder.

    The model runs in evaluation mode and without gradients; its mode is restored afterwards.

    Args:
        model: the autoencoder.
        images: (B, C, H, W), normalised, float, on the device of the model.
        corrupt: the corruption to apply, for example one of `corruptions`.
        keys: (B,) int64, one per image, from `gmml_aug.keys`; they determine how the images are corrupted.
        blocks: the blocks to use, in ascending order; all by default.

    Raises:
        TypeError: ``model`` is not an autoencoder, or the images are not float.
        ValueError: the encoder does not have the blocks, the images do not fit it, the keys do not fit the images, or alien
            content was requested for a single image.

    Source:
        GMML 4 and figure 9, "Reconstructed images from different transformer blocks". The paper does not say how a single block is
        decoded. The decoder was trained on the average of several blocks, and the features of other blocks were not trained to
        suit it: the final norm brings them to one scale, and other differences remain visible.
    """
    if not isinstance(model, GMMLAutoencoder):
        raise TypeError(
            f"reconstructions: model is a {type(model).__name__}, which has no decoder. Give a GMMLAutoencoder, for example "
            "GMMLAutoencoder.from_pretrained(folder)."
        )
    check_images("reconstructions", model.encoder, images)
    every = tuple(range(1, len(model.encoder.blocks) + 1))
    chosen = every if blocks is None else check_blocks("reconstructions: blocks", blocks, len(every), example=every)
    with torch.no_grad(), evaluating(model):
        corrupted, mask = corrupt(images, keys=keys)
        wanted = sorted({*chosen, *model.blocks})
        encoded = model.encode(corrupted, wanted)
        features = dict(zip(wanted, encoded.features, strict=True))

        def decoded(*numbers: int) -> Tensor:
            parts = Encoded(None, encoded.patches, tuple(features[number] for number in numbers), encoded.grid)
            return model.pixels(model.decode(parts), images)

        by_block = torch.stack([decoded(number) for number in chosen])
        return Reconstructions(corrupted, mask, by_block, decoded(*model.blocks), chosen)


def corruptions(values: Values | None = None, *, ratio: float = 0.3) -> dict[str, Corruption]:
    """The two corruptions of figure 9 by name: ``"noise"``, and ``"alien"`` (the paper's "Replace").

    Args:
        values: the value range of the images; ``(mean, std)`` for normalised ones; see `gmml_aug.Chain`.
        ratio: the share of every image that is corrupted, exact to the pixel.

    Source:
        GMML figure 9, "For simplicity, we only corrupt the images by 30%". Boxes with sides of 5 to 25 % are those of 3.1.
    """
    boxes = Boxes(ratio=ratio, side=(0.05, 0.25))
    return {"noise": Chain([InBoxes(boxes, Noise())], values=values), "alien": Chain([InBoxes(boxes, Alien())], values=values)}
