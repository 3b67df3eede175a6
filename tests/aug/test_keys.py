"""Promise 8: everything follows from one key per image, and the hash behind it is as good as chance."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import gmml_aug as ga
from gmml_aug import chance
from tests.helpers import chi_square_z, leaves, plans_equal, random_images, same_bits, some_keys

MASK = (1 << 64) - 1
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


def splitmix_finaliser(z: int) -> int:
    """Written from Steele, Lea and Flood 2014 with Stafford's variant 13, in Python's own integers, unsigned."""
    z &= MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def signed(z: int) -> int:
    """The same 64 bits as a signed integer."""
    return z - (1 << 64) if z >> 63 else z


def some_words(count: int) -> Tensor:
    """Hashes of successive counters under one key: what all chance is made of."""
    return chance.words(some_keys(1), count)[0]


@given(st.lists(INT64, min_size=1, max_size=20))
def test_mix_is_the_finaliser_of_splitmix64(numbers: list[int]) -> None:
    wanted = [signed(splitmix_finaliser(z)) for z in numbers]
    tensor = torch.tensor(numbers)
    assert chance.mix(tensor).tolist() == wanted
    assert tensor.tolist() == numbers
    assert [chance.mix_int(z) for z in numbers] == wanted


def test_the_finaliser_gives_the_published_numbers() -> None:
    # the first outputs of Vigna's splitmix64.c with seed 1234567
    golden = 0x9E3779B97F4A7C15
    found = [splitmix_finaliser(1234567 + golden * n) for n in range(1, 4)]
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_every_input_bit_moves_half_of_the_output_bits() -> None:
    start = torch.arange(2000) * 7919 + 13
    hashed = chance.mix(start)
    for bit in range(64):
        flipped = chance.mix(start ^ signed(1 << bit)) ^ hashed
        share = torch.stack([((flipped >> out) & 1).double().mean() for out in range(64)])
        assert float((share - 0.5).abs().max()) < 0.07  # 6 sigma of 2000 coins
        assert abs(float(share.mean()) - 0.5) < 0.01


def test_uniforms_are_uniform_and_successive_ones_independent() -> None:
    uniform = chance.to_uniform(some_words(200_000))
    assert float(uniform.min()) >= 0.0
    assert float(uniform.max()) < 1.0
    cells = (uniform * 50).long()
    assert abs(chi_square_z(torch.bincount(cells))) < 5
    assert abs(chi_square_z(torch.bincount(cells[:-1] * 50 + cells[1:], minlength=2500))) < 5


@pytest.mark.parametrize("shift", [0, 8, 16, 24, 32, 40, 48, 56])
def test_every_byte_of_the_hash_is_uniform(shift: int) -> None:
    assert abs(chi_square_z(torch.bincount((some_words(100_000) >> shift) & 255, minlength=256))) < 5


def noise_of(shape: tuple[int, ...], device: torch.device) -> Tensor:
    return ga.Noise()(torch.zeros(shape, device=device), keys=some_keys(shape[0]).to(device)).images.double()


def test_noise_is_normal(device: torch.device) -> None:
    noise = noise_of((8, 5, 100, 101), device).flatten()
    count = len(noise)
    assert abs(float(noise.mean())) < 5 / count**0.5
    assert abs(float(noise.var()) - 0.99998) < 5 * (2 / count) ** 0.5
    assert abs(float((noise**3).mean())) < 5 * (15 / count) ** 0.5
    assert abs(float((noise**4).mean()) - 3.0) < 5 * (96 / count) ** 0.5 + 1e-3
    assert 4.0 < float(noise.abs().max()) <= 4.34
    cells = (torch.special.ndtr(noise) * 64).long().clamp(max=63).cpu()
    assert abs(chi_square_z(torch.bincount(cells, minlength=64))) < 5


def test_noise_is_independent_along_axes_channels_and_images(device: torch.device) -> None:
    noise = noise_of((6, 6, 80, 80), device)
    bound = 5 / noise[:, :, 1:].numel() ** 0.5
    for step in (1, 2, 7):
        assert abs(float((noise[..., step:, :] * noise[..., :-step, :]).mean())) < bound * 1.1
        assert abs(float((noise[..., step:] * noise[..., :-step]).mean())) < bound * 1.1
    for one in range(6):
        for other in range(one + 1, 6):
            assert abs(float((noise[:, one] * noise[:, other]).mean())) < 5 / noise[:, 0].numel() ** 0.5
            assert abs(float((noise[one] * noise[other]).mean())) < 5 / noise[0].numel() ** 0.5


def test_steps_and_neighbouring_keys_have_streams_of_their_own() -> None:
    one, other = (ga.Noise().apply(torch.zeros(8, 1, 60, 60), plan).images for plan in _two_steps())
    for a, b in [(one, other), (one[1:], one[:-1]), (one[1:], other[:-1])]:
        assert abs(float((a * b).mean())) < 5 / a.numel() ** 0.5
        assert not torch.equal(a, b)


def _two_steps() -> list[ga.Plan]:
    plan = ga.Chain([ga.Noise(), ga.Noise()]).sample((8, 1, 60, 60), keys=torch.arange(8))
    single = ga.Noise().sample((8, 1, 60, 60), keys=torch.arange(8))
    return [dataclasses.replace(single, drawn=(drawn,)) for drawn in plan.drawn]


MIXED = ga.Chain(
    [
        ga.InBoxes(ga.Boxes(ratio=(0.0, 0.35)), ga.OneOf([ga.Noise(), ga.Constant(value=(0.0, 1.0))])),
        ga.InBoxes(ga.Boxes(ratio=(0.1, 0.35), overshoot=True), ga.Alien(), p=0.7),
        ga.InBoxes(ga.Boxes(count=(1, 3), side=(0.05, 1.0), placement="inside"), ga.Blur()),
    ],
    budget=0.5,
)


@given(order=st.permutations(range(24)), count=st.integers(2, 24))
def test_equal_keys_give_equal_plans_in_whatever_batch_the_image_sits(order: list[int], count: int) -> None:
    keys = some_keys(24, 5)
    whole = MIXED.sample((24, 3, 30, 31), keys=keys)
    part = MIXED.sample((count, 3, 30, 31), keys=keys[order[:count]])
    for place, image in enumerate(order[:count]):
        assert plans_equal(part[place], whole[image], but=[2])  # step 2 is the alien: its donor depends on the batch


def test_the_images_of_equal_keys_are_equal_in_whatever_batch(device: torch.device) -> None:
    images, keys = random_images((40, 3, 30, 31)).to(device), some_keys(40).to(device)
    corrupt = ga.Chain([part for part in MIXED.parts if "Alien" not in repr(part)])
    whole = corrupt(images, keys=keys)
    alone = [corrupt(images[n : n + 1], keys=keys[n : n + 1]) for n in range(40)]
    assert torch.equal(torch.cat([a.mask for a in alone]), whole.mask)
    torch.testing.assert_close(torch.cat([a.images for a in alone]), whole.images, rtol=0, atol=1e-6)


def test_a_generator_repeats_itself_and_goes_on(device: torch.device) -> None:
    images = random_images((6, 3, 24, 24)).to(device)
    runs = []
    for _ in range(2):
        generator = torch.Generator(device).manual_seed(3)
        runs.append([MIXED(images, generator=generator) for _ in range(2)])
    assert same_bits(runs[0][0].images, runs[1][0].images)
    assert same_bits(runs[0][1].images, runs[1][1].images)
    assert not same_bits(runs[0][0].images, runs[0][1].images)


def test_manual_seed_governs_the_default(device: torch.device) -> None:
    images = random_images((6, 3, 24, 24)).to(device)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(MIXED(images).images)
    assert same_bits(found[0], found[1])
    assert not same_bits(found[0], found[2])


def test_global_random_state_is_read_only_when_nothing_else_is_given(device: torch.device, generator: torch.Generator) -> None:
    images, keys = random_images((6, 3, 24, 24)).to(device), some_keys(6).to(device)

    def state() -> list[list[int]]:
        cuda = [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []
        return [tensor.tolist() for tensor in (torch.get_rng_state(), *cuda)]

    pythons, before = random.getstate(), state()
    plan = MIXED.sample(images.shape, keys=keys)
    MIXED.apply(images, plan)
    MIXED.kinds(plan)
    MIXED(images, keys=keys)
    MIXED(images, generator=generator)
    ga.keys(0, 1, [2, 3])
    assert state() == before
    MIXED(images)
    assert state() != before
    assert random.getstate() == pythons


def test_numpys_random_state_is_never_touched() -> None:
    numpy = pytest.importorskip("numpy")
    before = numpy.random.get_state()[1].tolist()
    MIXED(random_images((6, 3, 24, 24)))
    ga.presets.gmml()(random_images((6, 3, 24, 24)))
    assert numpy.random.get_state()[1].tolist() == before


def test_keys_differ_over_seeds_epochs_and_images() -> None:
    found = torch.cat([ga.keys(seed, epoch, range(500)) for seed in (-1, 0, 1, 2, 1 << 40) for epoch in range(20)])
    assert found.dtype == torch.int64
    assert len(found.unique()) == len(found)


def test_keys_do_not_depend_on_ranks_or_workers() -> None:
    whole = ga.keys(7, 3, range(1000))
    for ranks in (1, 2, 8):
        parts = [ga.keys(7, 3, torch.arange(rank, 1000, ranks)) for rank in range(ranks)]
        assert torch.equal(torch.cat(parts).sort().values, whole.sort().values)
        assert torch.equal(parts[-1], whole[ranks - 1 :: ranks])
    assert torch.equal(ga.keys(7, 3, torch.arange(1000, dtype=torch.int32)), whole)


# Plans of today: a change here changes what every seed means, and with it every recorded run. Change it knowingly.
GOLDEN: dict[str, tuple[ga.Corruption, tuple[int, ...], str, list[float]]] = {
    "gmml": (
        ga.presets.gmml(),
        (6, 3, 64, 48),
        "beecd720330e5e8a",
        [1.0410564, 0.8861295, 0.3872634, 0.9897363, 1.0967078, 0.9072038],
    ),
    "gmml_reference": (ga.presets.gmml_reference(), (6, 3, 40, 40), "6b66227cd020b9ce", []),
    "volume": (
        ga.Chain(
            [
                ga.InBoxes(ga.Boxes(ratio=(0.1, 0.4), dims=3), ga.OneOf([ga.Noise(), ga.Zeros()], weights=[1, 2])),
                ga.InBoxes(ga.Boxes(ratio=0.4, side=(0.2, 0.4), overshoot=True, dims=3), ga.Alien(), p=0.8),
                ga.InBoxes(ga.Boxes(count=(1, 3), side=0.5, placement="inside", dims=3), ga.Blur(sigma=(0.5, 1.5), kernel=(3, 7))),
            ],
            budget=0.5,
        ),
        (5, 2, 12, 16, 14),
        "385136be9356b48b",
        [1.4410565, 1.2861295, 0.7872635, 1.3897363, 1.4967079],
    ),
    "signal": (
        ga.InBoxes(ga.Boxes(ratio=0.5, align=4, dims=1), ga.Constant(value=(-1.0, 1.0))),
        (4, 2, 150),
        "6721f37c7ff676a7",
        [-0.4341151, 0.0828125, 0.427655, 0.3519077, 0.4099594, 0.05073, -0.4180226, 0.5341759],
    ),
}


def integers_hashed(plan: ga.Plan) -> str:
    """One hash over all integer and bool tensors of a plan."""
    digest = hashlib.sha256()
    for leaf in leaves(plan):
        if not leaf.is_floating_point():
            digest.update(repr((tuple(leaf.shape), leaf.tolist())).encode())
    return digest.hexdigest()[:16]


@pytest.mark.parametrize("name", GOLDEN)
def test_plans_are_those_recorded(name: str, device: torch.device) -> None:
    corrupt, shape, digest, sigmas = GOLDEN[name]
    plan = corrupt.sample(shape, keys=ga.keys(42, 1, range(shape[0])).to(device))
    assert integers_hashed(plan) == digest
    floats = [leaf for leaf in leaves(plan) if leaf.is_floating_point()]
    found = torch.cat([leaf.flatten() for leaf in floats]).cpu() if floats else torch.zeros(0)
    torch.testing.assert_close(found, torch.tensor(sigmas), rtol=0, atol=1e-6)


@pytest.mark.parametrize("integer", [int, numpy.int8, numpy.uint8, numpy.int32, numpy.int64, numpy.uint64, torch.tensor])
def test_any_integer_type_gives_the_key_of_that_number(integer: Callable[[int], Any]) -> None:
    wanted = ga.keys(3, 5, [7, 9], visit=2)
    assert torch.equal(ga.keys(integer(3), integer(5), [7, 9], visit=integer(2)), wanted)
    if integer is not torch.tensor:
        numbers = [integer(7), integer(9)]
        assert torch.equal(ga.keys(3, 5, numbers, visit=2), wanted)
        if integer is not int:
            assert torch.equal(ga.keys(3, 5, numpy.array(numbers), visit=numpy.array([2, 2])), wanted)


def test_another_visit_is_another_key_and_the_first_one_is_the_key_without() -> None:
    index = torch.arange(50)
    plain = ga.keys(1, 2, index)
    assert torch.equal(ga.keys(1, 2, index, visit=0), plain)
    assert torch.equal(ga.keys(1, 2, index, visit=torch.zeros(50, dtype=torch.int32)), plain)
    each = torch.cat([ga.keys(1, 2, index, visit=visit) for visit in (-1, 0, 1, 2, 1 << 40)])
    assert len(each.unique()) == 250
    mixed = ga.keys(1, 2, [7, 7, 7], visit=[0, 1, 2])
    assert mixed.tolist() == [int(ga.keys(1, 2, [7], visit=visit)) for visit in range(3)]
