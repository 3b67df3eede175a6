"""Content from elsewhere: `Shuffle`, `Alien(same_place=False)`, and the mean colour."""

from __future__ import annotations

import math

import pytest
import torch

import gmml_aug as ga
from tests.helpers import DTYPES, chi_square_z, random_images, same_bits, some_keys

ELSEWHERE = ga.Alien(same_place=False)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [(11,), (7, 9), (4, 5, 3)], ids=str)
def test_shuffle_moves_the_clean_image_by_one_shift_per_image(
    dtype: torch.dtype, size: tuple[int, ...], device: torch.device
) -> None:
    images = random_images((6, 2, *size), dtype).to(device)
    corrupt = ga.Chain([ga.Constant(value=3.0), ga.Shuffle()], dims=len(size))
    plan = corrupt.sample(images.shape, keys=some_keys(6).to(device))
    found = corrupt.apply(images, plan).images
    (shift,) = plan.drawn[1]
    assert shift.shape == (6, len(size))
    for image in range(6):
        steps = [-step for step in shift[image].tolist()]
        assert same_bits(found[image], images[image].roll(steps, tuple(range(1, len(size) + 1))))


@pytest.mark.parametrize("fill", [ga.Shuffle(), ELSEWHERE], ids=["shuffle", "alien"])
@pytest.mark.parametrize("size", [(13,), (4, 6), (2, 3, 4)], ids=str)
def test_shifts_are_uniform_over_all_other_places(fill: ga.Fill, size: tuple[int, ...]) -> None:
    corrupt = ga.Chain([fill], dims=len(size))
    shift = corrupt.sample((20_000, 1, *size), keys=some_keys(20_000)).drawn[0][-1]
    place = torch.zeros(len(shift), dtype=torch.int64)
    for axis, side in enumerate(size):
        assert ((shift[:, axis] >= 0) & (shift[:, axis] < side)).all()
        place = place * side + shift[:, axis]
    counts = torch.bincount(place, minlength=math.prod(size))
    assert counts[0] == 0
    assert abs(chi_square_z(counts[1:])) < 5


def test_each_step_has_a_shift_of_its_own() -> None:
    plan = ga.Chain([ga.Shuffle(), ga.Shuffle()]).sample((200, 1, 16, 16), keys=some_keys(200))
    assert float((plan.drawn[0][0] != plan.drawn[1][0]).any(1).float().mean()) > 0.95


def test_images_of_one_pixel_are_not_shuffled(device: torch.device) -> None:
    images = random_images((3, 2, 1, 1)).to(device)
    found, mask = ga.Shuffle()(images)
    assert same_bits(found, images)
    assert not mask.any()
    donors = ELSEWHERE(images, donors=images[:1] + 5).images  # an alien there is just the donor
    assert torch.equal(donors, (images[:1] + 5).expand_as(images))


def test_an_alien_from_elsewhere_is_the_donor_moved(device: torch.device) -> None:
    images, bank = random_images((8, 3, 12, 10)).to(device), random_images((5, 3, 12, 10), seed=1).to(device)
    corrupt = ga.InBoxes(ga.Boxes(ratio=0.5), ELSEWHERE)
    for donors in (None, bank):
        pool = images if donors is None else donors
        count = None if donors is None else len(donors)
        plan = corrupt.sample(images.shape, keys=some_keys(8).to(device), bank=count)
        found, mask = corrupt.apply(images, plan, donors=donors)
        number, shift = plan.drawn[0]
        for image in range(8):
            moved = pool[number[image]].roll([-step for step in shift[image].tolist()], (1, 2))
            assert same_bits(found[image], torch.where(mask[image], moved, images[image]))


def test_the_donor_does_not_depend_on_the_place() -> None:
    same, other = (fill.sample((50, 1, 8, 8), keys=some_keys(50)).drawn[0] for fill in (ga.Alien(), ELSEWHERE))
    assert len(same) == 1
    assert torch.equal(same[0], other[0])


def test_a_plan_from_the_same_place_is_refused_by_an_alien_from_another_one() -> None:
    images = random_images((5, 3, 9, 9))
    for fill, other in ((ga.Alien(), ELSEWHERE), (ELSEWHERE, ga.Alien())):
        plan = fill.sample(images.shape, keys=some_keys(5))
        with pytest.raises(ValueError, match="other settings"):
            other.apply(images, plan)


def test_part_of_a_batch_is_replayed() -> None:
    corrupt = ga.Chain([ga.InBoxes(ga.Boxes(ratio=0.4), fill) for fill in (ELSEWHERE, ga.Shuffle())])
    images = random_images((9, 3, 20, 20))
    plan = corrupt.sample(images.shape, keys=some_keys(9))
    wanted = corrupt.apply(images, plan).images
    assert same_bits(corrupt.apply(images[2:7], plan[2:7], donors=images).images, wanted[2:7])


def test_gradients_go_where_the_content_came_from() -> None:
    images = random_images((4, 2, 9, 8)).requires_grad_()
    corrupt = ga.InBoxes(ga.Boxes(ratio=0.5), ga.Shuffle())
    plan = corrupt.sample(images.shape, keys=some_keys(4))
    found, mask = corrupt.apply(images, plan)
    (gradient,) = torch.autograd.grad(found.sum(), images)
    for image, shift in enumerate(plan.drawn[0][0].tolist()):
        inside = mask[image].float()
        assert torch.equal(gradient[image], (1 - inside + inside.roll(shift, (1, 2))).expand(2, -1, -1))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_mean_is_the_mean_of_each_clean_channel(dtype: torch.dtype, channels: int, device: torch.device) -> None:
    images = random_images((5, channels, 20, 30), dtype).to(device)
    corrupt = ga.Chain([ga.InBoxes(ga.Boxes(ratio=0.5), ga.Constant(value=50.0)), ga.InBoxes(ga.Boxes(ratio=0.5), ga.Mean())])
    plan = corrupt.sample(images.shape, keys=some_keys(5).to(device))
    found = corrupt.apply(images, plan).images.double()
    inside = (corrupt.kinds(plan) == 2).expand_as(found)
    wanted = images.double().mean((2, 3), keepdim=True).expand_as(found)
    step = 0.501 if dtype == torch.uint8 else max(torch.finfo(dtype).eps, 1e-6)
    assert float((found - wanted)[inside].abs().max()) <= step


def test_the_mean_is_exact_where_16_bits_would_not_hold_the_sum(device: torch.device) -> None:
    images = torch.full((2, 1, 300, 300), 100.0, dtype=torch.float16, device=device)  # the sum is 9 million
    images[1] = 3.0
    assert ga.Mean()(images).images.flatten(1).unique(dim=1).tolist() == [[100.0], [3.0]]


@pytest.mark.parametrize("fill", [ga.Shuffle(), ga.Mean(), ELSEWHERE, ga.Noise(distribution="matched")], ids=repr)
def test_they_count_for_a_budget(fill: ga.Fill) -> None:
    corrupt = ga.Chain([ga.InBoxes(ga.Boxes(ratio=0.4), fill), ga.InBoxes(ga.Boxes(ratio=0.4), ga.Noise())], budget=0.5)
    mask = corrupt(random_images((6, 3, 20, 20)), keys=some_keys(6)).mask
    assert (mask.flatten(1).sum(1) <= 200).all()
    whole = ga.Chain([ga.InBoxes(ga.Boxes(ratio=0.4), fill)], budget=0.1)(random_images((6, 3, 20, 20)), keys=some_keys(6)).mask
    assert (whole.flatten(1).sum(1) == 40).all()


def test_a_place_that_is_no_switch_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"Alien: same_place='no' is not a boolean\. Give True or False"):
        ga.Alien(same_place="no")  # type: ignore[arg-type]
