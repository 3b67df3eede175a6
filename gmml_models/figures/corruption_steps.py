"""Shows what each step of a corruption does to a batch on its own, and what all of them do together, in numbers and pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gmml_aug import Alien, Blur, Corruption, Plan
from gmml_models.figures import palette
from gmml_models.figures.contact_sheet import SheetRow, Swatch, Tile, faint, flat, outlined
from gmml_models.figures.tiles import to_pictures as normalised_to_pictures

# ImageNet's, for three channels
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Stage:
    """One step applied alone."""

    name: str
    colour: str
    outline: bool  # the step keeps content, so that its boxes are hard to see
    images: Tensor  # (shown, 3, H, W) the first ones, as the step left them
    mask: Tensor  # (B, 1, H, W) bool
    captions: tuple[str, ...]  # per image, its share and what the step drew

    @property
    def shares(self) -> list[float]:
        """The share of each image that the step touched."""
        return shares(self.mask)


def step_names(corrupt: Corruption) -> list[str]:
    """The name of each step's fill in lower case, numbered if it occurs several times."""
    names = [type(step.fill).__name__.lower() for step in corrupt.program.steps]
    times, seen = Counter(names), Counter[str]()
    for number, name in enumerate(names):
        seen[name] += 1
        names[number] = name if times[name] == 1 else f"{name} {seen[name]}"
    return names


def stages(corrupt: Corruption, batch: Tensor, plan: Plan, shown: int, *, donors: Tensor | None = None) -> list[Stage]:
    """Apply every step of a plan on its own; the plan is unchanged, so the boxes are those of the whole corruption.

    Args:
        corrupt: the corruption.
        batch: (B, 3, H, W), normalised.
        plan: the plan of the corruption for the batch.
        shown: number of images to keep for display.
        donors: the whole batch that the plan was sampled for, if batch and plan are only a part of it.
    """
    others = cycle(palette.OTHER_STEPS)
    found = []
    for number, name in enumerate(step_names(corrupt)):
        step = corrupt.program.steps[number]
        done = corrupt.apply(batch, plan.only(number), donors=donors)
        found.append(
            Stage(
                name=name,
                colour=palette.STEPS.get(name) or next(others),
                outline=not step.fill.replaces,
                images=done.images[:shown].clone(),
                mask=done.mask,
                captions=_captions(corrupt, plan, number, shares(done.mask)),
            )
        )
    return found


def shares(mask: Tensor) -> list[float]:
    """The share of True pixels in each image."""
    return [float(share) for share in mask.flatten(1).float().mean(1).tolist()]


def to_batch(pictures: Sequence[Image.Image]) -> Tensor:
    """Stack RGB pictures of one size as (B, 3, H, W) uint8."""
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2).contiguous()


def normalise(pictures: Tensor) -> Tensor:
    """Convert (B, 3, H, W) uint8 to float32, normalised by ImageNet's statistics."""
    return (pictures.float() / 255.0 - _column(MEAN, pictures)) / _column(STD, pictures)


def to_pictures(images: Tensor) -> list[Image.Image]:
    """Convert normalised images back to pictures; values outside 0 to 255, such as noise, are clamped."""
    return normalised_to_pictures(images, MEAN, STD)


def rows(
    corrupt: Corruption,
    batch: Tensor,
    plan: Plan,
    alone: Sequence[Stage],
    shown: int,
    edge: int,
    *,
    donors: Tensor | None = None,
) -> list[SheetRow]:
    """Make the rows of the contact sheet: the clean images, each step on its own, all steps, and the last step at every pixel.

    Args:
        corrupt: the corruption.
        batch: (B, 3, H, W), normalised.
        plan: the plan of the corruption for the batch.
        alone: from `stages`.
        shown: the number of images that get a column.
        edge: side of the pictures on the sheet, in pixels.
        donors: as in `stages`.
    """
    clean = [flat(picture, edge) for picture in to_pictures(batch[:shown])]
    found = [SheetRow("clean", "", [Tile(picture, "") for picture in clean])]
    for stage in alone:
        pictures = [flat(picture, edge) for picture in to_pictures(stage.images)]
        if stage.outline:
            masks = _masks(stage.mask[:shown], edge)
            pictures = [outlined(picture, mask, stage.colour) for picture, mask in zip(pictures, masks, strict=True)]
        tiles = [Tile(picture, caption) for picture, caption in zip(pictures, stage.captions, strict=False)]
        found.append(SheetRow(stage.name, mean(stage.shares), tiles, colour=stage.colour, section=stage is alone[0]))
    done = corrupt.apply(batch, plan, donors=donors)
    every = [flat(picture, edge) for picture in to_pictures(done.images[:shown])]
    touched = shares(done.mask)
    tiles = [Tile(picture, percent(share)) for picture, share in zip(every, touched, strict=False)]
    found.append(SheetRow("all", mean(touched), tiles, section=True))
    kinds = corrupt.kinds(plan)
    layers = [(stage.colour, _masks(kinds[:shown] == number, edge)) for number, stage in enumerate(alone, start=1)]
    tiles = []
    for column, picture in enumerate(clean):
        picture = faint(picture)
        for colour, masks in layers:
            picture.paste(colour, mask=masks[column])
        tiles.append(Tile(picture, ""))
    found.append(SheetRow("mask", "by last step", tiles))
    return found


def legend(corrupt: Corruption, plan: Plan, alone: Sequence[Stage]) -> list[Swatch]:
    """The colours of the mask, each with its share of the pixels."""
    kinds = corrupt.kinds(plan)
    found = [Swatch(stage.colour, f"{stage.name}  {mean(shares(kinds == number))}") for number, stage in enumerate(alone, start=1)]
    return [*found, Swatch(palette.UNTOUCHED, f"untouched  {mean(shares(kinds == 0))}")]


def percent(share: float) -> str:
    """Format a share as text: 0.173 is 17.3 %."""
    return f"{100.0 * share:.1f} %"


def mean(values: Sequence[float]) -> str:
    """Format the mean share as text."""
    return percent(sum(values) / len(values))


def _captions(corrupt: Corruption, plan: Plan, number: int, shares: Sequence[float]) -> tuple[str, ...]:
    fill, drawn = corrupt.program.steps[number].fill, plan.drawn[number]
    words = [percent(share) for share in shares]
    if isinstance(fill, Alien):
        words = [f"{word}, from {donor + 1}" for word, donor in zip(words, drawn[0].tolist(), strict=True)]
    elif isinstance(fill, Blur):
        words = [f"{word}, sigma {sigma:.2f}" for word, sigma in zip(words, drawn[0].tolist(), strict=True)]
    idle = "needs another image" if isinstance(fill, Alien) and plan.donors < 2 else "not chosen"
    return tuple(word if active else idle for word, active in zip(words, plan.active[:, number].tolist(), strict=True))


def _masks(mask: Tensor, edge: int) -> list[Image.Image]:
    pixels = mask[:, 0].to(torch.uint8).mul(255).cpu().numpy()
    return [Image.fromarray(layer).resize((edge, edge), Image.Resampling.NEAREST) for layer in pixels]


def _column(numbers: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(numbers, device=like.device)[:, None, None]
