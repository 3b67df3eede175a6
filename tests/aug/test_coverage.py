"""Promise 5: with the default placement every pixel is equally likely, at any ratio; 6: patches do not matter."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import gmml_aug as ga
from tests.helpers import chi_square_z, masks_of, raw_boxes, some_keys, z_of_mean

# size, options of the boxes, number of masks
CASES: list[tuple[tuple[int, ...], dict[str, Any], int]] = [
    ((40, 40), {"ratio": 0.02}, 40_000),
    ((40, 40), {"ratio": 0.1}, 40_000),
    ((40, 40), {"ratio": 0.7}, 40_000),
    ((40, 40), {"ratio": 0.9}, 40_000),
    ((40, 33), {"ratio": 0.35, "side": (0.05, 0.1)}, 40_000),
    ((200,), {"ratio": 0.35}, 40_000),
    ((12, 13, 11), {"ratio": 0.35}, 40_000),
    ((20, 20, 20), {"ratio": 0.35, "side": (0.05, 0.1)}, 2_000),
]


def edge_ring(size: tuple[int, ...], width: int = 1) -> Tensor:
    """True on the pixels at the border of the image."""
    ring = torch.ones(size, dtype=torch.bool)
    ring[tuple(slice(width, length - width) for length in size)] = False
    return ring


def corners(size: tuple[int, ...]) -> Tensor:
    """True on the corner pixels."""
    found = torch.ones((), dtype=torch.bool)
    for length in size:
        line = torch.zeros(length, dtype=torch.bool)
        line[[0, -1]] = True
        found = found[..., None] & line
    return found


@pytest.mark.parametrize(("size", "options", "count"), CASES, ids=str)
def test_no_pixel_row_column_or_border_is_favoured(size: tuple[int, ...], options: dict[str, Any], count: int) -> None:
    dims, pixels = len(size), math.prod(size)
    corrupt = ga.InBoxes(ga.Boxes(dims=dims, **options), ga.Zeros())
    wanted = round(options["ratio"] * pixels)
    ring, corner = edge_ring(size), corners(size)
    on_ring, on_corners, each = [], [], torch.zeros(size, dtype=torch.int64)
    lines: list[list[Tensor]] = [[] for _ in size]
    for masks in masks_of(corrupt, (1, *size), count, chunk=1000 if dims < 3 else 200):
        assert (masks.flatten(1).sum(1) == wanted).all()
        on_ring.append(masks[:, ring].sum(1))
        on_corners.append(masks[:, corner].sum(1))
        each += masks.sum(0)
        for axis in range(dims):
            others = [d + 1 for d in range(dims) if d != axis]
            lines[axis].append((masks.sum(others) if others else masks).to(torch.int32))
    share = wanted / pixels  # images are independent of each other, so the spread of their sums gives the error
    assert abs(float(z_of_mean(torch.cat(on_ring), share * int(ring.sum())))) < 5
    assert abs(float(z_of_mean(torch.cat(on_corners), share * int(corner.sum())))) < 5
    for axis in range(dims):
        z = z_of_mean(torch.cat(lines[axis]), share * pixels / size[axis])
        assert float(z.abs().max()) < 5
    pixel = (each / count - share) / math.sqrt(share * (1 - share) / count)
    assert float(pixel.abs().max()) < 5.5


def test_the_check_above_would_find_the_bias_of_clipped_boxes() -> None:
    corrupt = ga.InBoxes(ga.Boxes(ratio=0.1, placement="inside"), ga.Zeros())
    ring = edge_ring((40, 40))
    on_ring = torch.cat([masks[:, ring].sum(1) for masks in masks_of(corrupt, (1, 40, 40), 2000)])
    assert abs(float(z_of_mean(on_ring, 0.1 * int(ring.sum())))) > 20


def test_no_slice_is_full_while_others_are_empty() -> None:
    corrupt = ga.InBoxes(ga.Boxes(ratio=0.35, side=(0.05, 0.1), dims=3), ga.Zeros())
    for masks in masks_of(corrupt, (1, 20, 20, 20), 200, chunk=200):
        for axis in (1, 2, 3):
            share = masks.float().mean([a for a in (1, 2, 3) if a != axis])
            assert float(share.max()) < 0.75
            assert float(share.min()) > 0.05


def test_the_trim_favours_no_side_of_the_last_box() -> None:
    # one box over more than the target: only the trim decides where the pixels lie
    corrupt = ga.InBoxes(ga.Boxes(ratio=0.3, side=0.9), ga.Zeros())
    masks = torch.cat(list(masks_of(corrupt, (1, 16, 18), 40_000)))
    assert (masks.flatten(1).sum(1) == round(0.3 * 16 * 18)).all()
    share = round(0.3 * 16 * 18) / (16 * 18)
    z = (masks.double().mean(0) - share) / math.sqrt(share * (1 - share) / 40_000)
    assert float(z.abs().max()) < 5.5


@pytest.mark.parametrize("patch", [4, 7, 16])
def test_boxes_ignore_the_patch_grid(patch: int) -> None:
    boxes = raw_boxes(ga.Boxes(ratio=0.35), (112, 112), 4000)[:, :-1].flatten(0, 1)
    for axis in (0, 1):
        start = boxes[:, axis]
        assert chi_square_z(torch.bincount(start % patch, minlength=patch)) < 5
        assert chi_square_z(torch.bincount((start + boxes[:, 2 + axis]) % patch, minlength=patch)) < 5


def test_masks_cut_through_patches() -> None:
    mask = ga.presets.gmml()(torch.randn(64, 3, 64, 64), keys=some_keys(64)).mask
    share = ga.patch_mask(mask, 16)
    partly = ((share > 0) & (share < 1)).float().mean()
    assert partly > 0.3
