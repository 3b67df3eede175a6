"""Random compositions of everything there is, held against every promise that needs no oracle."""

from __future__ import annotations

import math
import random
from typing import Any
from unittest import mock

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gmml_aug as ga
from gmml_aug.backends.call import Maps
from gmml_aug.backends.reference import pixels
from gmml_aug.backends.reference import plan as planner
from gmml_aug.backends.reference.paint import step_mask
from tests.helpers import DTYPES, random_images, same_bits, some_keys
from tests.own_places import EVERYTHING
from tests.strategies import every_tree, small_sizes


def check_everything(data: st.DataObject) -> None:
    """One composition on one batch; on the CPU's ways for small images and batches, or for large ones."""
    with (
        mock.patch.object(planner, "_SEQUENTIAL", data.draw(st.sampled_from([planner._SEQUENTIAL, 0]))),
        mock.patch.object(pixels, "_SMALL", data.draw(st.sampled_from([pixels._SMALL, 0]))),
    ):
        check_promises(data)


def check_promises(data: st.DataObject) -> None:
    dims = data.draw(st.integers(1, 3))
    size = data.draw(small_sizes(dims=dims, least=4))
    tree = data.draw(every_tree(dims=dims))
    batch, channels = data.draw(st.integers(2, 5)), data.draw(st.sampled_from([1, 3, 5]))
    dtype = data.draw(st.sampled_from(DTYPES))
    images = random_images((batch, channels, *size), dtype, seed=data.draw(st.integers(0, 9)))
    keys = some_keys(batch, data.draw(st.integers(0, 999)))
    before, states = images.clone(), (torch.get_rng_state(), random.getstate())

    # shares and valid parts that a caller gives
    painted = [place for place in tree.program.places if place is not None and getattr(place, "ratio", None) is not None]
    ratios = lengths = None
    if data.draw(st.booleans()) and painted:
        most = min(place.largest_share for place in painted)
        ratios = [data.draw(st.floats(0.0, most)) for _ in range(batch)]
    if data.draw(st.integers(0, 3)) == 0:
        lengths = [[data.draw(st.integers(4, length)) for length in size] for _ in range(batch)]
    chance: Any = {"keys": keys, "ratios": ratios, "lengths": lengths}

    plan = tree.sample(images.shape, **chance)
    out = tree.apply(images, plan)

    # shape, dtype, the input, global chance
    assert out.images.shape == images.shape
    assert out.images.dtype == dtype
    assert out.mask.shape == (batch, 1, *size)
    assert same_bits(images, before)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    # an honest mask
    kept = ~out.mask.expand_as(images)
    assert torch.equal(out.images[kept], images[kept])
    assert torch.equal(tree.kinds(plan) > 0, out.mask)
    # replay: the call, the plan again, a part of the batch
    assert same_bits(tree(images, **chance).images, out.images)
    assert same_bits(tree.apply(images, plan).images, out.images)
    part = tree.apply(images[1:2], plan[1:2], donors=images)
    assert same_bits(part.images, out.images[1:2])
    assert torch.equal(part.mask, out.mask[1:2])
    # the printed code
    again = eval(repr(tree), EVERYTHING)
    assert again == tree
    assert torch.equal(again.sample(images.shape, **chance).boxes[0], plan.boxes[0])
    # budgets: the union of what the replacing steps under each of them touch
    flat, places = tree.program, dict[int, torch.Tensor]()
    for number, share in enumerate(flat.budgets):
        union = torch.zeros_like(out.mask)
        for step, one in enumerate(flat.steps):
            if number in one.budgets and one.fill.replaces:
                union |= step_mask(flat, plan, step, places, Maps())
        valid = [math.prod(size)] * batch if lengths is None else [math.prod(one) for one in lengths]
        for covered, area in zip(union.flatten(1).sum(1).tolist(), valid, strict=True):
            assert covered <= math.floor(share * area + 1e-6)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large])
@given(st.data())
def test_any_composition_keeps_every_promise(data: st.DataObject) -> None:
    check_everything(data)


@pytest.mark.slow
@settings(
    max_examples=10_000, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
)
@given(st.data())
def test_ten_thousand_compositions_keep_every_promise(data: st.DataObject) -> None:
    check_everything(data)


def test_every_fill_and_every_place_is_among_what_is_drawn() -> None:
    from tests.strategies import EVERY_FILL

    fills = {kind for kind in vars(ga).values() if isinstance(kind, type) and issubclass(kind, ga.Fill) and kind is not ga.Fill}
    assert {type(fill) for fill in EVERY_FILL} == fills
