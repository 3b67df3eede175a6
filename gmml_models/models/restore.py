"""From what a decoder says to restored images, in the values of the images.

With a normalised target a decoder does not say how bright and how rich in contrast a patch is: that must come from images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gmml_models.models.patches import Target, denormalise_patches, patch_statistics

if TYPE_CHECKING:
    from torch import Tensor

    from gmml_models.models.autoencoder import GMMLAutoencoder


def restore(model: GMMLAutoencoder, corrupted: Tensor, *, clean: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
    """Restored images, in the values of the images whatever the model's ``target``; the model's mode is the caller's business.

    With a normalised target mean and contrast of a patch come from the clean images where they are given, which is a help that no
    model of pixels has: do not compare the errors of the two. Without them they come from the pixels that were left alone, see
    `gmml_models.models.patches.patch_statistics`.

    Args:
        model: an autoencoder.
        corrupted: (B, C, H, W), normalised, float.
        clean: the images before the corruption, where they are known.
        mask: (B, 1, H, W) bool, True where a pixel was manipulated; without it every pixel counts as seen.

    Returns:
        (B, C, H, W) float32.

    Raises:
        TypeError: as in `gmml_models.models.patches.patch_statistics`.
        ValueError: likewise, and images that do not fit the encoder.
    """
    known, unknown = (corrupted, mask) if clean is None else (clean, None)
    return to_pixels(model(corrupted), known, target=model.target, patch_size=model.patch_size, mask=unknown)


def to_pixels(
    decoded: Tensor, images: Tensor, *, target: Target, patch_size: tuple[int, int], mask: Tensor | None = None
) -> Tensor:
    """What a decoder said, float32, in the values of the images: as it is, or with a normalised target undone.

    Args:
        decoded: (B, C, H, W).
        images: (B, C, H, W), those whose patches say mean and standard deviation: the clean ones, or the corrupted ones.
        target: what the decoder's output stands for.
        patch_size: (height, width) of a patch.
        mask: (B, 1, H, W) bool, True where ``images`` are not to be trusted.

    Raises:
        TypeError: as in `gmml_models.models.patches.patch_statistics`.
        ValueError: likewise.
    """
    if target == "pixels":
        return decoded.float()
    statistics = patch_statistics(images.float(), patch_size, seen=None if mask is None else ~mask)
    return denormalise_patches(decoded.float(), statistics, patch_size)
