"""Promise 7: alien content comes from one other image, of the batch or of a bank."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import gmml_aug as ga
from tests.helpers import chi_square_z, random_images, same_bits, some_keys

SOME = ga.InBoxes(ga.Boxes(ratio=0.5), ga.Alien())


def numbered(count: int, size: int = 24, first: int = 0) -> torch.Tensor:
    """Images whose every pixel is the number of the image."""
    return torch.arange(first, first + count, dtype=torch.float32).reshape(-1, 1, 1, 1).expand(-1, 3, size, size).contiguous()


def test_a_donor_is_never_the_image_itself(generator: torch.Generator) -> None:
    for batch in (2, 3, 4, 7, 64):
        for _ in range(20):
            donor = SOME.sample((batch, 1, 8, 8), generator=generator).drawn[0][0]
            assert ((donor >= 0) & (donor < batch)).all()
            assert (donor != torch.arange(batch, device=donor.device)).all()


def test_donors_are_uniform_over_the_other_images() -> None:
    batch, rounds = 6, 2000
    counts = torch.zeros(batch, batch, dtype=torch.int64)
    for number in range(rounds):
        donor = ga.Alien().sample((batch, 1, 8, 8), keys=ga.keys(number, 0, range(batch))).drawn[0][0]
        counts[torch.arange(batch), donor] += 1
    assert (counts.diagonal() == 0).all()
    for image in range(batch):
        assert chi_square_z(counts[image][torch.arange(batch) != image]) < 5


def test_all_boxes_of_an_image_come_from_one_donor_at_the_same_place(device: torch.device) -> None:
    position = torch.arange(24 * 24, device=device).reshape(1, 1, 24, 24) / 1000
    images = numbered(20).to(device) + position
    found, mask = SOME(images)
    for image in range(20):
        inside = mask[image].expand_as(found[image])
        sources = {int(v) for v in found[image][inside].unique()}
        assert len(sources) == 1
        assert image not in sources
        (source,) = sources
        assert torch.equal(found[image][inside], images[source][inside])


def test_two_alien_steps_draw_donors_of_their_own() -> None:
    plan = ga.Chain([SOME, SOME]).sample((64, 1, 16, 16), keys=some_keys(64))
    assert 0.7 < float((plan.drawn[0][0] != plan.drawn[1][0]).float().mean()) <= 1.0


def test_aliens_are_clean_even_after_other_steps(device: torch.device) -> None:
    images = numbered(12).to(device)
    found, mask = ga.Chain([ga.Constant(value=-5.0), SOME])(images)
    kinds_of_values = found.unique()
    assert set(kinds_of_values.tolist()) <= {-5.0, *map(float, range(12))}
    assert (found >= 0).float().mean() > 0.49
    assert mask.all()


def test_a_bank_gives_the_donors(device: torch.device) -> None:
    images, bank = numbered(50).to(device), numbered(5, first=100).to(device)
    found, mask = SOME(images, keys=some_keys(50).to(device), donors=bank)
    inside = found[mask.expand_as(found)]
    assert sorted(inside.unique().tolist()) == [100.0, 101.0, 102.0, 103.0, 104.0]
    plan = SOME.sample(images.shape, keys=some_keys(50).to(device), bank=5)
    assert plan.donors == 5
    assert same_bits(SOME.apply(images, plan, donors=bank).images, found)


def test_donors_of_a_bank_are_uniform() -> None:
    donor = ga.Alien().sample((20_000, 1, 8, 8), keys=some_keys(20_000), bank=7).drawn[0][0]
    assert chi_square_z(torch.bincount(donor, minlength=7)) < 5


def test_a_bank_of_one_serves_a_batch_of_one(device: torch.device) -> None:
    image, bank = numbered(1).to(device), numbered(1, first=100).to(device)
    found, mask = SOME(image, donors=bank)
    assert (found[mask.expand_as(found)] == 100).all()
    assert int(mask.sum()) == 288


@pytest.mark.parametrize(
    "corrupt", [ga.Alien(), SOME, ga.presets.gmml(), ga.presets.gmml_reference()], ids=["fill", "boxes", "gmml", "reference"]
)
def test_a_batch_of_one_is_an_error_that_names_drop_last(corrupt: ga.Corruption, generator: torch.Generator) -> None:
    before = generator.get_state()
    with pytest.raises(ValueError, match=r"Alien: .*holds 1.*drop_last"):
        corrupt(torch.zeros(1, 3, 16, 16, device=generator.device), generator=generator)
    with pytest.raises(ValueError, match="drop_last"):
        corrupt.sample((1, 3, 16, 16), generator=generator)
    assert torch.equal(generator.get_state(), before)


def test_skip_leaves_a_batch_of_one_as_it_is_and_marks_nothing(device: torch.device) -> None:
    image = random_images((1, 3, 16, 16)).to(device)
    corrupt = ga.InBoxes(ga.Boxes(ratio=0.5), ga.Alien(alone="skip"))
    found, mask = corrupt(image)
    assert same_bits(found, image)
    assert not mask.any()
    more = numbered(4, 16).to(device)
    assert corrupt(more).mask.flatten(1).any(1).all()
    preset = ga.presets.gmml(alone="skip")
    plan = preset.sample((1, 3, 16, 16), keys=some_keys(1))
    assert 2 not in preset.kinds(plan).unique().tolist()


def test_skip_under_a_budget_leaves_the_room_to_others() -> None:
    half = ga.Boxes(ratio=0.5)
    tree = ga.Chain([ga.InBoxes(half, ga.Alien(alone="skip")), ga.InBoxes(half, ga.Noise())], budget=0.5)
    plan = tree.sample((1, 3, 16, 16), keys=some_keys(1))
    assert int((tree.kinds(plan) == 2).sum()) == 128


@given(first=st.integers(0, 11), count=st.integers(1, 12), seed=st.integers(0, 99))
def test_a_part_of_a_batch_is_replayed_with_the_batch_as_donors(first: int, count: int, seed: int) -> None:
    corrupt = ga.presets.gmml(values=((0.5,) * 3, (0.2,) * 3))
    images = random_images((12, 3, 20, 20))
    plan = corrupt.sample(images.shape, keys=some_keys(12, seed))
    wanted = corrupt.apply(images, plan)
    part = slice(first, min(first + count, 12))
    found = corrupt.apply(images[part], plan[part], donors=images)
    assert same_bits(found.images, wanted.images[part])
    assert torch.equal(found.mask, wanted.mask[part])


def test_a_part_without_its_donors_is_an_error() -> None:
    images = random_images((6, 1, 16, 16))
    plan = SOME.sample(images.shape, keys=some_keys(6))
    with pytest.raises(ValueError, match=r"6 images, but 2 .*donors="):
        SOME.apply(images[:2], plan[:2])
    with pytest.raises(ValueError, match=r"6 images, but 5 .*donors="):
        SOME.apply(images, plan, donors=images[:5])


def test_a_plan_for_a_bank_asks_for_the_bank() -> None:
    images_count = 4
    images = torch.arange(float(images_count)).reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    plan = ga.Alien().sample(images.shape, keys=some_keys(images_count), bank=images_count)
    with pytest.raises(ValueError, match=r"from a bank of 4 images, which was not given.*donors="):
        ga.Alien().apply(images, plan)
    assert ga.Alien().apply(images, plan, donors=images + 10).images.min() >= 10


def test_the_batch_given_as_donors_is_the_batch() -> None:
    images = torch.arange(5.0).reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    for seed in range(20):
        found = ga.Alien()(images, keys=some_keys(5, seed), donors=images).images
        assert (found != images).all()
