"""Shows what a composition does to one picture of a batch, as pictures with captions; independent of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from gmml_aug import Alien, Corruption, Plan, keys, patch_mask
from gmml_models.figures import corruption_steps
from gmml_models.figures.contact_sheet import Swatch, edge_of, faint, flat
from gmml_models.figures.palette import MARK, PAPER
from gmml_models.play.reconstruction import Restorer

_ROOM = 28  # pixels of a patch on the page that numbers need


@dataclass(frozen=True)
class Captioned:
    """One picture of the page."""

    name: str
    picture: Image.Image
    words: str
    colour: str | None = None  # of the step


@dataclass(frozen=True)
class Look:
    """The content of the page for one composition and key."""

    whole: tuple[Captioned, ...]  # clean, corrupted, mask, patch mask, who did what, and the reconstruction if there is a model
    steps: tuple[Captioned, ...]  # every step alone, an alien one with its donor behind it
    legend: tuple[Swatch, ...]


def look(
    corrupt: Corruption,
    pictures: Sequence[tuple[str, Image.Image]],
    key: int,
    patch: int,
    reconstruction: Restorer | None = None,
) -> Look:
    """Corrupt the pictures as one batch and show the first one; the others serve as donors.

    Args:
        corrupt: a composition for images normalised by ImageNet's statistics.
        pictures: the names, and RGB squares of one size.
        key: the seed of `gmml_aug.keys`; the same key gives the same pictures.
        patch: the side in pixels of the patches of the patch mask.
        reconstruction: the model that restores the corrupted picture.

    Raises:
        TypeError: the key is not an integer.
        ValueError: the pictures and the composition do not fit together (with the library's error).
    """
    batch = corruption_steps.normalise(corruption_steps.to_batch([picture for _, picture in pictures]))
    first, plan = batch[:1], corrupt.sample(batch.shape, keys=keys(key, 0, range(len(batch))))[:1]
    alone = corruption_steps.stages(corrupt, first, plan, 1, donors=batch)
    done = corrupt.apply(first, plan, donors=batch)
    edge = edge_of(batch.shape[-1])
    rows = corruption_steps.rows(corrupt, first, plan, alone, 1, edge, donors=batch)
    clean, every, kinds = rows[0].tiles[0].picture, rows[-2].tiles[0], rows[-1].tiles[0].picture
    share = patch_mask(done.mask, patch)[0]
    many = int((share > 0.5).sum())
    whole = [
        Captioned("clean", clean, pictures[0][0]),
        Captioned("corrupted", every.picture, f"{every.caption} touched"),
        Captioned("mask", _mask_picture(clean, done.mask[0, 0]), "dark where touched"),
        Captioned(
            "patch mask", _patch_picture(clean, share, edge * patch / batch.shape[-1]), f"{many} of {share.numel()} above half"
        ),
        Captioned("who did what", kinds, "last step at each pixel"),
    ]
    if reconstruction is not None:
        whole.append(_restored(reconstruction, first, done.images, done.mask, edge))
    steps = []
    for number, (stage, row) in enumerate(zip(alone, rows[1:-2], strict=True)):
        steps.append(Captioned(stage.name, row.tiles[0].picture, row.tiles[0].caption, stage.colour))
        donor = _donor(corrupt, plan, number)
        if donor is not None:
            steps.append(Captioned(f"picture {donor + 1}", flat(pictures[donor][1], edge), f"{pictures[donor][0]}, its donor"))
    return Look(tuple(whole), tuple(steps), tuple(corruption_steps.legend(corrupt, plan, alone)))


def _restored(reconstruction: Restorer, clean: Tensor, corrupted: Tensor, mask: Tensor, edge: int) -> Captioned:
    """Restore the corrupted picture with the model, with the error over touched pixels; or show the model's error message."""
    try:
        restored = reconstruction(corrupted, clean)
    except ValueError as error:  # a size that its patches do not divide
        return Captioned("reconstruction", Image.new("RGB", (edge, edge), PAPER), str(error))
    words = f"error over touched pixels {_error(restored, clean, mask)}, was {_error(corrupted, clean, mask)}" if mask.any() else ""
    if reconstruction.model.target == "normalised":
        words += f"{', ' if words else ''}brightness and contrast of patches from the clean picture"
    return Captioned("reconstruction", flat(corruption_steps.to_pictures(restored)[0], edge), words)


def _error(images: Tensor, clean: Tensor, mask: Tensor) -> str:
    """The mean absolute difference of the pictures shown, where the mask is True, on the scale of 0 to 255."""
    shown, true = (corruption_steps.to_batch(corruption_steps.to_pictures(part)).float() for part in (images, clean))
    return f"{float((shown - true).abs()[mask.expand_as(true)].mean()):.1f}"


def _mask_picture(clean: Image.Image, mask: Tensor) -> Image.Image:
    layer = Image.fromarray(mask.to(torch.uint8).mul(255).numpy()).resize(clean.size, Image.Resampling.NEAREST)
    picture = faint(clean)
    picture.paste(MARK, mask=layer)
    return picture


def _patch_picture(clean: Image.Image, share: Tensor, side: float) -> Image.Image:
    """Draw the share of every patch as the depth of its colour, with lines between patches of ``side`` pixels.

    Numbers are added if there is room.
    """
    down, across = share.shape
    whole = (round(across * side), round(down * side))  # the last patches may reach over the border
    depth = Image.fromarray(share.mul(255).round().to(torch.uint8).numpy()).resize(whole, Image.Resampling.NEAREST)
    picture = faint(clean)
    picture.paste(MARK, mask=depth.crop((0, 0, *clean.size)))
    pen = ImageDraw.Draw(picture)
    for number in range(1, max(down, across)):
        at = round(number * side)
        pen.line((at, 0, at, clean.height), PAPER)
        pen.line((0, at, clean.width, at), PAPER)
    if side >= _ROOM:
        for row in range(down):
            for column in range(across):
                value = float(share[row, column])
                middle = ((column + 0.5) * side, (row + 0.5) * side)
                pen.text(middle, f"{100 * value:.0f}", PAPER if value > 0.4 else MARK, anchor="mm", font_size=11)
    return picture


def _donor(corrupt: Corruption, plan: Plan, number: int) -> int | None:
    """The picture from which an alien step takes its content, if it works on the first picture."""
    if not isinstance(corrupt.program.steps[number].fill, Alien) or not bool(plan.active[0, number]):
        return None
    return int(plan.drawn[number][0][0])
