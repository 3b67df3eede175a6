"""Boxes settled one after the other, on Python's integers, are those that are settled all at once."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import gmml_aug as ga
from gmml_aug.backends.reference import plan as planner
from gmml_aug.backends.reference.coverage import cover_until
from gmml_aug.backends.reference.sequential import cover_sequentially
from tests.helpers import sampled_both_ways, some_keys


@settings(max_examples=300)
@given(
    size=st.one_of(
        st.lists(st.integers(1, 12), min_size=1, max_size=3), st.tuples(st.integers(1, 300)), st.tuples(*[st.integers(1, 80)] * 2)
    ),
    count=st.integers(1, 140),
    longest=st.floats(0, 1),
    whole=st.booleans(),
    seed=st.integers(0, 1 << 20),
)
def test_every_number_is_the_same(size: list[int] | tuple[int, ...], count: int, longest: float, whole: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    batch = 3
    starts = [torch.randint(length, (batch, count), generator=generator) for length in size]
    extents = [torch.randint(1, max(round(longest * length), 1) + 1, (batch, count), generator=generator) for length in size]
    for extent, length in zip(extents, size, strict=True):
        extent[:, -1] = length  # the last one takes what chance left
    boxes = torch.stack(starts + extents, dim=2)
    target = torch.randint(math.prod(size) + 1, (batch,), generator=generator)
    here = torch.rand(batch, generator=generator) < 0.8
    wanted = cover_until(boxes, size, target, whole=whole)[0].masked_fill(~here[:, None, None], 0)
    assert torch.equal(cover_sequentially(boxes, size, target, here, whole=whole), wanted)


@pytest.mark.parametrize("name", ["gmml", "gmml_reference", "sit", "mc_ssl"])
@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (5, 3, 33, 70), (3, 1, 224, 224)], ids=str)
def test_a_preset_has_the_same_plan_either_way(name: str, shape: tuple[int, ...]) -> None:
    sampled_both_ways(getattr(ga.presets, name)(), shape, some_keys(shape[0]))


def test_an_image_has_the_same_plan_in_a_batch_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def count(boxes: Tensor, *rest: Any, **options: Any) -> Tensor:
        calls.append(len(boxes))
        return cover_sequentially(boxes, *rest, **options)

    monkeypatch.setattr(planner, "cover_sequentially", count)
    corrupt = ga.InBoxes(ga.Boxes(ratio=(0.0, 0.5)), ga.Noise())
    keys = some_keys(96)
    whole = corrupt.sample((96, 3, 32, 32), keys=keys, backend="reference")
    assert not calls  # so many are settled at once
    for first in range(0, 96, 8):
        part = corrupt.sample((8, 3, 32, 32), keys=keys[first : first + 8], backend="reference")
        assert torch.equal(part.boxes[0], whole.boxes[0][first : first + 8])
    assert calls == [8] * 12
