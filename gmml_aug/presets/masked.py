"""The masking rules of related methods as corruptions; `gmml_aug.presets` lists them.

These methods mask tokens inside a model. Here the same masks are applied to pixels, filled with zeros (the mean colour of
normalised images) unless another fill is given; ``gmml_aug.patch_mask(mask, patch_size=patch, form="flat")`` is the token mask that
their models take.
"""

from __future__ import annotations

from gmml_aug.checks import check_number
from gmml_aug.compose import Chain, InBoxes
from gmml_aug.fills.base import Fill
from gmml_aug.fills.replace import Zeros
from gmml_aug.places.boxes import Boxes
from gmml_aug.places.grid import Blocks, Cells
from gmml_aug.values import Values


def mae(*, patch: int | tuple[int, ...] = 16, ratio: float = 0.75, fill: Fill | None = None, values: Values | None = None) -> Chain:
    """Random patches: 75 % of them, the same number in every image.

    Args:
        patch: edge of a patch in pixels, as one number or one per axis.
        ratio: share of the patches; ceil(ratio n) of n patches are masked.
        fill: the fill for the masked patches; `Zeros` by default.
        values: the value range of float images; see `Chain`.

    Source:
        MAE (He et al. 2021): 75 %, uniform without replacement. Setting pixels to zero instead of dropping tokens is our choice.
    """
    return Chain([InBoxes(Cells(size=patch, ratio=ratio), fill or Zeros())], values=values)


def simmim(
    *, cell: int | tuple[int, ...] = 32, ratio: float = 0.6, fill: Fill | None = None, values: Values | None = None
) -> Chain:
    """Random cells larger than patches: 60 % of the cells of 32 pixels, the same number in every image.

    Args:
        cell: edge of a cell in pixels, as one number or one per axis; a multiple of the model's patch size.
        ratio: share of the cells; ceil(ratio n) of n cells are masked.
        fill: the fill for the masked cells; `Zeros` by default.
        values: the value range of float images; see `Chain`.

    Source:
        SimMIM (Xie et al. 2021): cells of 32 pixels, 60 %.
    """
    return Chain([InBoxes(Cells(size=cell, ratio=ratio), fill or Zeros())], values=values)


def beit(
    *,
    patch: int | tuple[int, ...] = 16,
    ratio: float = 0.4,
    least: int = 16,
    fill: Fill | None = None,
    values: Values | None = None,
) -> Chain:
    """Blocks of patches, until 40 % of the patches are masked, never more.

    Args:
        patch: edge of a patch in pixels, as one number or one per axis.
        ratio: share of the patches at which the blocks end.
        least: number of patches of the smallest block.
        fill: the fill for the masked patches; `Zeros` by default.
        values: the value range of float images; see `Chain`.

    Source:
        BEiT (Bao et al. 2021): at least 16 patches per block, aspect ratio log-uniform in 0.3 to 1 / 0.3, 40 %.
    """
    return Chain([InBoxes(Blocks(size=patch, ratio=ratio, least=least), fill or Zeros())], values=values)


def ibot(
    *,
    patch: int | tuple[int, ...] = 16,
    ratio: float = 0.3,
    spread: float = 0.2,
    p: float = 0.5,
    fill: Fill | None = None,
    values: Values | None = None,
) -> Chain:
    """Half of the images stay clean; the others get blocks of patches as in `beit`, over a share drawn per image.

    Args:
        patch: edge of a patch in pixels, as one number or one per axis.
        ratio: mean share of the patches at which the blocks end.
        spread: the share is drawn uniformly from ratio - spread to ratio + spread.
        p: share of the images that are masked.
        fill: the fill for the masked patches; `Zeros` by default.
        values: the value range of float images; see `Chain`.

    Raises:
        ValueError: ratio - spread is below 0, or ratio + spread above 1.

    Source:
        iBOT (Zhou et al. 2021): no mask with probability 0.5, otherwise a ratio of 0.3 with a spread of 0.2. Its blocks are
        BEiT's.
    """
    spread = check_number("presets.ibot", "spread", spread, 0.0, min(ratio, 1.0 - ratio))
    blocks = Blocks(size=patch, ratio=(ratio - spread, ratio + spread))
    return Chain([InBoxes(blocks, fill or Zeros(), p=p)], values=values)


def dinov2(
    *,
    patch: int | tuple[int, ...] = 16,
    ratio: tuple[float, float] = (0.1, 0.5),
    p: float = 0.5,
    fill: Fill | None = None,
    values: Values | None = None,
) -> Chain:
    """Half of the images stay clean; the others get blocks of patches as in `beit`, over a share drawn per image.

    DINOv2 spreads the shares evenly over a batch instead of drawing each independently. To do the same, set ``p=1.0`` and pass the
    shares in the call: ``dinov2(p=1.0)(images, ratios=functional.spread_ratios(len(images), 0.1, 0.5, share=0.5))``.

    Args:
        patch: edge of a patch in pixels, as one number or one per axis.
        ratio: (low, high) share of the patches at which the blocks end.
        p: share of the images that are masked.
        fill: the fill for the masked patches; `Zeros` by default.
        values: the value range of float images; see `Chain`.

    Source:
        DINOv2 (Oquab et al. 2023): iBOT's masks, over 10 to 50 % of the patches, in half of the images. Blocks of at least 4
        patches are those of its release.
    """
    return Chain([InBoxes(Blocks(size=patch, ratio=ratio, least=4), fill or Zeros(), p=p)], values=values)


def specaugment(
    *, bands: int = 2, frequency: float = 0.2, time: float = 0.2, fill: Fill | None = None, values: Values | None = None
) -> Chain:
    """Bands of frequencies and bands of time steps in spectrograms (B, C, F, T).

    Args:
        bands: number of bands of each kind.
        frequency: widest band of frequencies, as a share of F; the width is uniform from one line to this.
        time: widest band of time steps, as a share of T.
        fill: the fill for the bands; `Zeros` by default.
        values: the value range of float images; see `Chain`.

    Source:
        SpecAugment (Park et al. 2019): widths uniform up to a maximum, two bands of each in its larger policies. Its widths are
        numbers of lines and may be 0; using shares of the image, with a minimum of one line, is our choice.
    """
    lines = Boxes(count=bands, side=(0.0, frequency), placement="inside", shared=(1,))
    columns = Boxes(count=bands, side=(0.0, time), placement="inside", shared=(0,))
    return Chain([InBoxes(lines, fill or Zeros()), InBoxes(columns, fill or Zeros())], values=values)


def tubes(
    *, patch: int | tuple[int, ...] = 16, ratio: float = 0.9, fill: Fill | None = None, values: Values | None = None
) -> Chain:
    """The same random patches in all frames of a clip (B, C, T, H, W): 90 % of them.

    Args:
        patch: edge of a patch in pixels, as one number or one per axis.
        ratio: share of the patches; ceil(ratio n) of n patches are masked.
        fill: the fill for the masked patches; `Zeros` by default.
        values: the value range of float images; see `Chain`.

    Source:
        VideoMAE (Tong et al. 2022): tube masking, 90 %.
    """
    return Chain([InBoxes(Cells(size=patch, ratio=ratio, shared=(0,), dims=3), fill or Zeros())], values=values)
