"""The CPU's short cuts say the same as the masks they stand for: rectangles, short lines."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import gmml_aug as ga
from gmml_aug.backends.cpu.rectangles import Pieces, cut_at_borders
from gmml_aug.backends.cpu.rows import blend_lines_, touched_lines
from gmml_aug.backends.reference.coverage import boxes_to_mask
from tests.helpers import DTYPES, lay_out, random_bits, random_images, same_bits, some_keys

sizes = st.lists(st.integers(1, 24), min_size=1, max_size=3)


@st.composite
def some_boxes(draw: st.DrawFn, size: Sequence[int], batch: int) -> Tensor:
    """(batch, N, 2 D): any start, any extent from none to the whole axis."""
    count = draw(st.integers(0, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    starts = [torch.randint(length, (batch, count), generator=generator) for length in size]
    extents = [torch.randint(length + 1, (batch, count), generator=generator) for length in size]
    boxes = torch.stack(starts + extents, dim=2)
    return boxes.masked_fill((boxes[..., len(size) :] == 0).any(-1, keepdim=True), 0).to(torch.int32)


@given(st.data(), sizes, st.integers(1, 4), st.integers(1, 3))
def test_pieces_are_the_boxes_of_their_place(data: st.DataObject, size: list[int], batch: int, places: int) -> None:
    boxes = [data.draw(some_boxes(size, batch)) for _ in range(places)]
    for one, found in zip(boxes, cut_at_borders(boxes, size), strict=True):
        assert found is not None
        assert torch.equal(found.mask(batch, size), boxes_to_mask(one, size))
        assert all(
            0 <= part.start < part.stop <= length for window in found.window for part, length in zip(window[1:], size, strict=True)
        )
        middle = batch // 2
        halves = [found.between(0, middle).mask(middle, size), found.between(middle, batch).mask(batch - middle, size)]
        assert torch.equal(torch.cat(halves), found.mask(batch, size))
        works = [image % 2 == 0 for image in range(batch)]
        kept = boxes_to_mask(one, size) & torch.tensor(works).reshape(-1, 1, *[1] * len(size))
        assert torch.equal(found.where(works).mask(batch, size), kept)


def test_too_many_boxes_are_no_pieces_and_leave_the_others_alone() -> None:
    many, one = torch.tensor([[[1, 1, 2, 2]] * 300]), torch.tensor([[[3, 4, 5, 6]]])
    crowd, alone = cut_at_borders([many, one], (16, 16))
    assert crowd is None
    assert alone is not None
    assert alone == Pieces([0], [(slice(None), slice(3, 8), slice(4, 10))])


def test_a_box_over_a_border_is_several_pieces() -> None:
    (found,) = cut_at_borders([torch.tensor([[[6, 0, 4, 4]], [[0, 0, 4, 4]]])], (8, 8))
    assert found is not None
    assert not found.one_an_image
    assert found.between(1, 2).one_an_image
    assert found.between(1, 2) == Pieces([0], [(slice(None), slice(0, 4), slice(0, 4))])


@pytest.mark.parametrize("numpy", [True, False])
@given(data=st.data(), size=sizes, batch=st.integers(1, 3), layout=st.sampled_from(["contiguous", "channels_last"]))
def test_what_is_copied_is_every_bit_of_the_pieces(
    numpy: bool, data: st.DataObject, size: list[int], batch: int, layout: str
) -> None:
    dtype = data.draw(st.sampled_from(DTYPES))
    images, source = (random_bits((batch, 3, *size), dtype, seed) for seed in (0, 1))
    if layout == "contiguous" or len(size) > 1:
        images, source = lay_out(images, layout), lay_out(source, layout)
    boxes = data.draw(some_boxes(size, batch))
    (found,) = cut_at_borders([boxes], size)
    assert found is not None
    other = [batch - 1 - image for image in range(batch)]
    wanted = torch.where(boxes_to_mask(boxes, size), source[other], images)
    with pytest.MonkeyPatch.context() as patch:
        if not numpy:
            patch.setattr(Tensor, "numpy", _no_numpy)
        found.copy(images, source, other)
        mask = found.mask(batch, size)
    assert same_bits(images, wanted)
    assert torch.equal(mask, boxes_to_mask(boxes, size))


def _no_numpy(_: Tensor) -> None:
    raise RuntimeError("Numpy is not available")  # as torch says where it is not installed


@given(sizes, st.integers(1, 3), st.floats(0, 1), st.integers(0, 99))
def test_lines_hold_all_that_a_mask_touches(size: list[int], channels: int, share: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand((2, 1, *size), generator=generator) < share
    now, new = random_images((2, channels, *size)), random_images((2, channels, *size), seed=1)
    lines = touched_lines(mask)
    assert size[-1] % lines.width == 0
    assert int(lines.mask.sum()) == int(mask.sum())
    assert lines.mask.any(1).all()
    wanted = torch.where(mask, new, now)
    rows = new.reshape(-1, lines.width)
    blend_lines_(now, [rows[lines.of_channel(c, channels)] for c in range(channels)], lines)
    assert same_bits(now, wanted)


@pytest.mark.parametrize("side", [20, 60])
def test_what_is_not_finite_stays_within_the_kernel(side: int) -> None:
    images = torch.zeros(2, 1, side, side)
    images[0, 0, 3, 3] = math.inf
    blurred = ga.Blur(sigma=1.0, kernel=5)(images, keys=some_keys(2)).images
    assert torch.isfinite(blurred[1]).all()
    assert torch.isfinite(blurred[0, 0, 7:]).all()
    assert not torch.isfinite(blurred[0, 0, 3, 3])
