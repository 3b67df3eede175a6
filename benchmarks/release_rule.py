"""The release's rule as a plain loop over images and boxes: what `gmml_reference` is measured against, and checked with.

Written from the description of the rule, not from the release's code.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor


def corrupt_in_a_loop(
    images: Tensor, rng: random.Random, *, noise: float = 0.75, alien: float = 0.3, side: float = 0.3
) -> tuple[Tensor, Tensor]:
    """Corrupt (B, C, H, W) image by image and box by box; the corrupted images and a (B, 1, H, W) bool mask.

    Every image gets either noise, over a share drawn from min(0.5, noise) to noise, or the content of one other image, over the
    share alien. Boxes reach from 1 pixel to ``side`` of each side, start anywhere but in the last row and column, and are
    clipped; painting stops with the box that passes the share.
    """
    batch, _, height, width = images.shape
    out = images.clone()
    mask = torch.zeros(batch, 1, height, width, dtype=torch.bool)
    for i in range(batch):
        noisy = rng.random() < 0.5
        most = noise if noisy else alien
        target = rng.uniform(min(0.5, most), most) * height * width
        donor = (i + rng.randrange(1, batch)) % batch
        covered = mask[i, 0]
        while int(covered.sum()) < target:
            h = rng.randrange(1, max(2, round(side * height)))
            w = rng.randrange(1, max(2, round(side * width)))
            top, left = rng.randrange(height - 1), rng.randrange(width - 1)
            rows, columns = slice(top, min(top + h, height)), slice(left, min(left + w, width))
            covered[rows, columns] = True
            box = out[i, :, rows, columns]
            if noisy:
                box.normal_()
            else:
                box.copy_(images[donor, :, rows, columns])
    return out, mask
