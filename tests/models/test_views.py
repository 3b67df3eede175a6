"""Views: what a key decides about a crop and its looks, and that both data paths carry it out alike."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

import gmml_aug
from gmml_models.data.augment import Finish, blur, change_colours, cut_batch, cut_one, squash
from gmml_models.data.image_files import bundled
from gmml_models.data.transforms import Crops, Looks, ViewPlan, centre_crops, draw_crops, draw_looks, seeded
from gmml_models.errors import UsageError

PLAN = ViewPlan(size=(32, 32), local_size=(12, 16), local_views=2, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
COUNT = 20_000
aspects = st.floats(0.05, 20.0)


def keys(count: int = COUNT, seed: int = 1) -> Tensor:
    return gmml_aug.keys(seed, 0, torch.arange(count))


def photograph() -> Tensor:
    """(3, 120, 160) uint8, a real one."""
    image = Image.open(bundled()[0]).crop((100, 0, 420, 240)).resize((160, 120), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


# crops


def test_the_share_of_the_area_is_uniform_and_the_aspect_log_uniform() -> None:
    for aspect in (1.0, 4 / 3, 0.8):
        boxes = draw_crops(keys(), 0, np.full(COUNT, aspect), PLAN).boxes
        share = boxes[:, 2] * boxes[:, 3]
        assert 0.05 <= share.min() < 0.052
        assert 0.998 < share.max() <= 1.0
        histogram = np.histogram(share, bins=19, range=(0.05, 1.0))[0] / COUNT
        assert np.abs(histogram * 19 - 1).max() < 0.12  # 1053 a bin: below four sigma
        small = boxes[share < 0.4]
        shape = np.log(small[:, 2] / small[:, 3] * aspect) / np.log(4 / 3)
        assert np.abs(np.histogram(shape, bins=10, range=(-1, 1))[0] / len(small) * 10 - 1).max() < 0.15
        assert np.abs(shape).max() <= 1 + 1e-9


def test_places_are_uniform_over_what_is_left() -> None:
    boxes = draw_crops(keys(), 1, np.ones(COUNT), PLAN).boxes
    for axis in range(2):
        place = boxes[:, axis] / (1 - boxes[:, 2 + axis])
        assert np.abs(np.histogram(place, bins=10, range=(0, 1))[0] / COUNT * 10 - 1).max() < 0.1
    assert abs(np.corrcoef(boxes[:, 0] / (1 - boxes[:, 2]), boxes[:, 1] / (1 - boxes[:, 3]))[0, 1]) < 0.03


@given(st.lists(aspects, min_size=1, max_size=8), st.integers(0, 2**62), st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_every_crop_lies_in_its_image(shapes: list[float], seed: int, one: float, other: float) -> None:
    low, high = sorted((one, other))
    plan = ViewPlan(size=(32, 48), scale=(low, high))
    shape = np.array(shapes)
    left, top, width, height = draw_crops(keys(len(shapes), seed), 0, shape, plan).boxes.T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (width > 0).all()
    assert (left + width <= 1 + 1e-12).all()
    assert (top + height <= 1 + 1e-12).all()
    seen = width / height * shape / 1.5  # the stretch that a view of 48 x 32 gives
    share = width * height
    fits = np.minimum(1, np.minimum(shape / 1.5 * 4 / 3, 4 / 3 / (shape / 1.5)))
    assert (share <= np.minimum(high, fits) + 1e-9).all()
    assert (share >= np.minimum(low, fits) - 1e-9).all()
    assert (seen <= 4 / 3 + 1e-9).all()
    assert (seen >= 3 / 4 - 1e-9).all()


def test_large_and_small_views_take_their_own_scales() -> None:
    assert PLAN.crops == (((32, 32), (0.05, 1.0)),) * 2 + (((12, 16), (0.05, 0.25)),) * 2
    for view, most in enumerate([1.0, 1.0, 0.25, 0.25]):
        boxes = draw_crops(keys(), view, np.ones(COUNT), PLAN).boxes
        assert most - 0.01 < (boxes[:, 2] * boxes[:, 3]).max() <= most


@pytest.mark.parametrize("chance", [0.0, 0.3, 1.0])
def test_crops_are_mirrored_as_often_as_asked(chance: float) -> None:
    flips = draw_crops(keys(), 0, np.ones(COUNT), ViewPlan(size=(8, 8), flip=chance)).flip
    assert abs(flips.mean() - chance) < 0.015


def test_the_draws_of_an_image_have_nothing_to_do_with_each_other_nor_with_its_corruption() -> None:
    numbers = keys()
    crops = [draw_crops(numbers, view, np.ones(COUNT), PLAN) for view in range(3)]
    drawn = [(boxes[:, axis] / (1 - boxes[:, axis + 2])) for boxes, _ in crops for axis in range(2)]  # places in what is left
    drawn += [boxes[:, 2] * boxes[:, 3] for boxes, _ in crops] + [flip.astype(float) for _, flip in crops]
    drawn += [draw_looks(numbers, 0, PLAN).factors[:, 0].double().numpy()]
    drawn += [gmml_aug.Chance(numbers, step, (COUNT, 3, 8, 8), COUNT, True).uniform(1)[:, 0].double().numpy() for step in range(3)]
    together = np.abs(np.corrcoef(np.stack(drawn)) - np.eye(len(drawn)))
    assert together.max() < 0.03  # four sigma


def test_what_is_drawn_for_an_image_does_not_depend_on_its_batch() -> None:
    numbers, shape = keys(4001), np.linspace(0.3, 3.0, 4001)
    whole, looks = draw_crops(numbers, 2, shape, PLAN), draw_looks(numbers, 2, PLAN)
    for part in (slice(0, 1), slice(17, 40), slice(4000, 4001)):
        crops = draw_crops(numbers[part], 2, shape[part], PLAN)
        assert np.array_equal(crops.boxes, whole.boxes[part])
        assert np.array_equal(crops.flip, whole.flip[part])
        for one, all_of_them in zip(draw_looks(numbers[part], 2, PLAN), looks, strict=True):
            assert torch.equal(one, all_of_them[part])


@given(aspects)
def test_the_centre_crop_is_the_largest_in_the_middle(aspect: float) -> None:
    left, top, width, height = centre_crops(np.array([aspect]), ViewPlan(size=(24, 36), centre=0.8)).boxes[0]
    assert max(width, height) == pytest.approx(0.8)
    assert width * aspect / height == pytest.approx(1.5)
    assert (left + width / 2, top + height / 2) == pytest.approx((0.5, 0.5))


# looks


def test_looks_are_drawn_within_their_ranges_and_as_often_as_asked() -> None:
    looks = draw_looks(keys(), 0, PLAN)
    assert abs(looks.jitter.double().mean() - 0.3) < 0.015
    assert abs(looks.blur.double().mean() - 0.1) < 0.01
    for column, (low, high) in enumerate([(0.9, 1.1)] * 3 + [(-0.01, 0.01)]):
        shown = looks.factors[:, column]
        assert low <= shown.min() < low + 1e-3
        assert high - 1e-3 < shown.max() <= high
    assert torch.equal(looks.order.sort(1).values, torch.arange(4).expand(COUNT, 4))
    orders = torch.unique(looks.order, dim=0, return_counts=True)[1]
    assert len(orders) == 24
    assert (orders / COUNT * 24 - 1).abs().max() < 0.16
    for sigma in (looks.sigma, looks.sigma[looks.blur]):  # how much has nothing to do with whether
        assert 0.1 <= sigma.min() < 0.11
        assert 1.99 < sigma.max() <= 2.0
    assert abs(looks.factors[looks.jitter, 0].mean() - 1.0) < 0.005
    never = draw_looks(keys(500), 0, ViewPlan(size=(8, 8), jitter_p=0.0, blur_p=0.0))
    assert not never.jitter.any()
    assert not never.blur.any()


def looks_of(jitter: list[bool], factors: list[list[float]], order: list[list[int]], sigma: list[float]) -> Looks:
    return Looks(
        torch.tensor(jitter), torch.tensor(factors), torch.tensor(order), torch.tensor([s > 0 for s in sigma]), torch.tensor(sigma)
    )


def test_colours_change_as_torchvision_changes_them_one_image_at_a_time(device: torch.device) -> None:
    images = photograph().float().div(255)[None, :, :40, :60].repeat(4, 1, 1, 1)
    factors = [[0.6, 1.3, 0.5, 0.1], [1.4, 0.7, 1.6, -0.2], [1.2, 1.2, 1.2, 0.05], [2.0, 2.0, 2.0, 0.5]]
    order = [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [0, 1, 2, 3]]
    moved = images.to(device, copy=True)
    change_colours(moved, looks_of([True, True, True, False], factors, order, [0.0] * 4))
    now = moved.cpu()
    adjust: list[Any] = [
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    ]
    for row in range(3):
        wanted = images[row]
        for op in order[row]:
            wanted = adjust[op](wanted, factors[row][op])
        assert (now[row] - wanted).abs().max() < 2e-3
        assert (now[row] - images[row]).abs().max() > 0.1
    assert torch.equal(now[3], images[3])


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_other_channels_change_in_brightness_and_contrast_alone(channels: int) -> None:
    images = torch.rand(2, channels, 9, 7)
    now = images.clone()
    change_colours(now, looks_of([True, True], [[0.5, 1.0, 9.0, 9.0], [1.0, 0.5, 9.0, 9.0]], [[0, 1, 2, 3]] * 2, [0.0] * 2))
    assert torch.allclose(now[0], images[0] / 2)
    assert torch.allclose(now[1], (images[1] + images[1].mean()) / 2, atol=1e-6)


def test_a_view_is_blurred_by_its_own_sigma_and_no_other_is_touched(device: torch.device) -> None:
    images = photograph().float().div(255)[None, :, :40, :60].repeat(3, 1, 1, 1)
    moved = images.to(device, copy=True)
    blur(moved, looks_of([False] * 3, [[0.0] * 4] * 3, [[0, 1, 2, 3]] * 3, [0.7, 0.0, 2.0]), 2.0)
    now = moved.cpu()
    for row, sigma in ((0, 0.7), (2, 2.0)):
        assert (now[row] - functional.gaussian_blur(images[row], [13, 13], [sigma, sigma])).abs().max() < 1e-5
    assert torch.equal(now[1], images[1])


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (7, 3)])
def test_images_smaller_than_the_kernel_can_be_blurred(size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *size)
    now = images.clone()
    blur(now, looks_of([False] * 2, [[0.0] * 4] * 2, [[0, 1, 2, 3]] * 2, [1.0, 2.0]), 2.0)
    assert (now >= images.amin((2, 3), keepdim=True) - 1e-6).all()
    assert (now <= images.amax((2, 3), keepdim=True) + 1e-6).all()


def test_views_end_normalised() -> None:
    finish = Finish(ViewPlan(size=(8, 8), jitter_p=0.0, blur_p=0.0, mean=PLAN.mean, std=PLAN.std), torch.device("cpu"))
    whole = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 8, 8)
    found = finish(whole, 0, keys(2))
    assert found.dtype == torch.float32
    assert torch.allclose(found[1, :, 3, 4], torch.tensor([(0 - 0.5) / 0.2, (0.2 - 0.4) / 0.3, (1 - 0.3) / 0.4]), atol=1e-6)
    assert whole.dtype == torch.uint8


# cutting


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(32, 32), (90, 20), (13, 200)])
def test_one_image_and_a_batch_are_cut_alike(interpolation: Any, size: tuple[int, int], device: torch.device) -> None:
    image = photograph()
    crops = draw_crops(keys(24), 0, np.full(24, 160 / 120), ViewPlan(size=size))
    boxes, flip = torch.from_numpy(crops.boxes), torch.from_numpy(crops.flip)
    batch = cut_batch(
        image.expand(24, -1, -1, -1).to(device), boxes.to(device), flip.to(device), size, interpolation
    ).cpu()  # in float16 on a GPU
    assert batch.dtype == torch.float32
    assert batch.shape == (24, 3, *size)
    for row in range(24):
        own = Crops(crops.boxes[row : row + 1], crops.flip[row : row + 1])
        one = cut_one(image, [own], [size], interpolation)[0]
        assert one.dtype == torch.uint8
        difference = (batch[row] * 255 - one.float()).abs()
        assert difference.max() < 10  # Pillow rounds, and cuts overshoots, after each of its two passes
        assert difference.mean() < 0.5


def test_all_of_an_image_at_its_own_size_is_the_image(device: torch.device) -> None:
    image = photograph()
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=device).repeat(2, 1)
    flip = torch.tensor([False, True], device=device)
    found = cut_batch(image.expand(2, -1, -1, -1).to(device), whole, flip, (120, 160), "bicubic").cpu()
    assert (found[0] * 255 - image).abs().max() < 1e-2
    assert (found[1] * 255 - image.flip(2)).abs().max() < 1e-2
    assert torch.equal(squash(image, (120, 160), "bicubic"), image)


def test_a_crop_shows_the_part_that_its_box_names() -> None:
    image = torch.zeros(1, 40, 80, dtype=torch.uint8)
    image[:, 10:20, 40:60] = 255
    box = np.array([[0.5, 0.25, 0.25, 0.25]])
    for flip in (False, True):
        one = cut_one(image, [Crops(box, np.array([flip]))], [(16, 16)], "bilinear")[0]
        batch = cut_batch(image[None], torch.from_numpy(box), torch.tensor([flip]), (16, 16), "bilinear")
        assert (one[:, 2:-2, 2:-2] == 255).all()
        assert (batch[0, :, 2:-2, 2:-2] > 0.999).all()
    half = cut_batch(image[None], torch.tensor([[0.25, 0.25, 0.5, 0.25]]), torch.tensor([True]), (16, 16), "bilinear")[0, 0]
    assert (half[2:-2, 2:6] > 0.999).all()  # mirrored, the bright half is left
    assert (half[:, 10:] < 0.001).all()


def test_a_crop_of_a_squashed_image_is_the_crop_of_the_image() -> None:
    image = photograph()  # 160 x 120
    crops = draw_crops(keys(16), 0, np.full(16, 160 / 120), PLAN)
    small = squash(image, (37, 37), "bicubic").expand(16, -1, -1, -1)
    batch = cut_batch(small, torch.from_numpy(crops.boxes), torch.from_numpy(crops.flip), (32, 32), "bicubic")
    for row in range(16):
        own = Crops(crops.boxes[row : row + 1], crops.flip[row : row + 1])
        one = cut_one(image, [own], [(32, 32)], "bicubic")[0].float() / 255
        if own.boxes[0, 2] * own.boxes[0, 3] > 0.5:  # small crops are enlarged from what was kept
            assert (batch[row] - one).abs().mean() < 0.02
        wrong = cut_one(image.flip(2), [own], [(32, 32)], "bicubic")[0].float() / 255
        assert (batch[row] - one).abs().mean() < (batch[row] - wrong).abs().mean() / 2


def test_shrinking_is_antialiased() -> None:
    stripes = torch.zeros(1, 1, 128, 128, dtype=torch.uint8)
    stripes[..., ::2] = 255
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    assert (cut_batch(stripes, whole, torch.tensor([False]), (30, 30), "bicubic")[..., 2:-2] - 0.5).abs().max() < 0.05


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_number_of_channels_is_cut(channels: int) -> None:
    image = torch.arange(channels, dtype=torch.uint8).mul(50).view(-1, 1, 1).expand(channels, 20, 30)
    views = cut_one(image, [draw_crops(keys(1), 0, np.array([1.5]), PLAN)], [(8, 9)], "bicubic")
    assert views[0].shape == (channels, 8, 9)
    assert torch.equal(views[0][:, 4, 4], image[:, 0, 0])


# chance of others


def draws() -> tuple[float, float, float]:
    return torch.rand(()).item(), random.random(), float(np.random.rand())


def test_what_draws_from_the_global_generators_follows_from_the_key_and_leaves_no_trace() -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    found = []
    for key in (5, 5, -5, 6, 2**63 - 1, -(2**63)):
        with seeded(key):
            found.append(draws())
    assert found[0] == found[1]
    assert all(len({draw[one] for draw in found}) == 5 for one in range(3))
    with pytest.raises(ZeroDivisionError), seeded(3):
        found.append((draws()[0] / 0, 0.0, 0.0))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]  # type: ignore[index]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"views": 0}, "views=0"),
        ({"local_views": -1}, "local_views=-1"),
        ({"size": (0, 8)}, r"size=\(0, 8\)"),
        ({"local_size": (8,)}, r"local_size=\(8,\)"),
        ({"scale": (0.0, 1.0)}, "scale"),
        ({"scale": (0.5, 0.2)}, "scale"),
        ({"local_scale": (0.1, 1.1)}, "local_scale"),
        ({"flip": 1.5}, "flip=1.5 is not a probability"),
        ({"jitter_p": float("nan")}, "jitter_p=nan"),
        ({"blur_p": -0.1}, "blur_p"),
        ({"blur_sigma": (0.0, 1.0)}, "blur_sigma"),
        ({"jitter": (0.1, 0.1, 0.1)}, "is not a valid set of four changes"),
        ({"jitter": (0.1, 0.1, 0.1, 0.6)}, "hue from 0 to 0.5"),
        ({"jitter": (1.1, 0.1, 0.1, 0.1)}, "jitter"),
        ({"centre": 0.0}, "centre"),
        ({"mean": (0.5,)}, "do not fit together"),
        ({"std": (0.5, 0.0, 0.5)}, "std above 0"),
        ({"mean": (), "std": ()}, "do not fit"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ViewPlan(**{"size": (8, 8), **options})
