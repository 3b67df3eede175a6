"""Rates of a run, groups of parameters, bounded gradients."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gmml_models.models.encoders import build_encoder
from gmml_models.schedule import Schedule, cosine
from gmml_models.train.optim import clip_gradients, parameter_groups


def schedule(**changes: float) -> Schedule:
    numbers = {"steps": 100, "warmup": 10, "lr": 1.0, "min_lr": 0.01, "weight_decay": 0.04, "weight_decay_end": 0.4, **changes}
    return Schedule(**numbers)  # type: ignore[arg-type]  # two of them are whole


def test_the_rate_rises_in_a_line_and_falls_along_a_cosine() -> None:
    plan = schedule()
    assert [plan.lr_at(step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert plan.lr_at(10) == pytest.approx(1.0)
    assert plan.lr_at(99) == pytest.approx(0.01)
    middle = 10 + 89 / 2
    assert plan.lr_at(int(middle)) == pytest.approx(0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * 44 / 89)))


def test_weight_decay_goes_from_its_start_to_its_end() -> None:
    plan = schedule()
    assert plan.weight_decay_at(0) == pytest.approx(0.04)
    assert plan.weight_decay_at(99) == pytest.approx(0.4)
    assert all(plan.weight_decay_at(step) <= plan.weight_decay_at(step + 1) for step in range(99))


@given(st.integers(1, 500), st.integers(0, 1000), st.floats(1e-6, 1.0), st.floats(0.0, 2.0))
def test_the_rate_is_positive_and_never_above_its_peak(steps: int, warmup: int, lr: float, min_lr: float) -> None:
    plan = schedule(steps=steps, warmup=warmup, lr=lr, min_lr=min_lr)
    rates = [plan.lr_at(step) for step in range(steps)]
    assert all(0.0 <= rate <= lr * (1 + 1e-9) for rate in rates)
    assert rates[0] > 0.0
    assert max(rates) == pytest.approx(lr)  # even where the warm-up is longer than the run


def test_a_cosine_is_cut_at_its_ends() -> None:
    assert cosine(2.0, 1.0, -1.0) == 2.0
    assert cosine(2.0, 1.0, 7.0) == 1.0


def test_biases_norms_tokens_and_positions_do_not_decay() -> None:
    encoder = build_encoder("vit_micro_patch4_32")
    groups = parameter_groups(encoder, {})
    bare = {id(parameter) for group in groups if not group["decays"] for parameter in group["params"]}
    for name, parameter in encoder.named_parameters():
        exempt = name.endswith(".bias") or "norm" in name or name in ("cls_token", "pos_embed")
        assert (id(parameter) in bare) == exempt, name
    assert sum(len(group["params"]) for group in groups) == len(list(encoder.parameters()))


def test_frozen_parameters_are_in_no_group() -> None:
    layer = nn.Linear(3, 4)
    layer.weight.requires_grad_(False)
    (group,) = parameter_groups(layer, {"bias": 0.5})
    assert group["params"][0] is layer.bias
    assert group["lr_scale"] == 0.5


def test_each_gradient_is_cut_by_itself_and_its_direction_stays() -> None:
    small, large = torch.tensor([0.3, 0.4]), torch.tensor([[30.0], [40.0]])
    norm = clip_gradients([small, large], 3.0)
    assert norm == pytest.approx(math.hypot(0.5, 50.0), rel=1e-5)
    torch.testing.assert_close(small, torch.tensor([0.3, 0.4]))
    torch.testing.assert_close(large, torch.tensor([[1.8], [2.4]]))


def test_without_a_limit_nothing_is_cut_and_what_is_not_finite_shows() -> None:
    gradient = torch.tensor([3.0, math.nan])
    assert not torch.isfinite(clip_gradients([gradient, torch.ones(2)], None))
    assert gradient[0] == 3.0
    assert clip_gradients([], 3.0) == 0.0
