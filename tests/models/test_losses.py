"""Losses against plain float64 computations, their edge cases, and two processes against one."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed
from torch.multiprocessing.spawn import spawn
from torch.nn import functional as F

import gmml_aug as ga
import gmml_models as gm
from gmml_models.losses import (
    ConceptLoss,
    concept_loss,
    contrastive_loss,
    l1,
    l2,
    masked_l1,
    masked_l2,
    multi_label_loss,
)

MASKED = [(masked_l1, 1), (masked_l2, 2)]


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def some_mask(batch: int = 4, *size: int) -> Tensor:
    mask = torch.rand(batch, 1, *(size or (6, 5)), generator=torch.Generator().manual_seed(3)) < 0.4
    mask[0] = False
    mask[1] = True
    return mask


def masked_slowly(one: Tensor, other: Tensor, mask: Tensor, power: int) -> list[float]:
    """One number per image, one pixel after the other."""
    found = []
    for image in range(len(one)):
        terms = [
            abs(float(one[image, c, y, x]) - float(other[image, c, y, x])) ** power
            for c in range(one.shape[1])
            for y in range(one.shape[2])
            for x in range(one.shape[3])
            if mask[image, 0, y, x]
        ]
        found.append(sum(terms) / len(terms) if terms else 0.0)
    return found


# --- pixels


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(("loss", "power"), MASKED)
def test_masked_losses_are_what_they_say(loss: Callable[..., Tensor], power: int, dtype: torch.dtype) -> None:
    one, other, mask = noise(4, 3, 6, 5, dtype=dtype), noise(4, 3, 6, 5, seed=1, dtype=dtype), some_mask()
    wanted = torch.tensor(masked_slowly(one, other, mask, power), dtype=torch.float64)
    each = loss(one, other, mask, reduction="none")
    assert each.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(each.double(), wanted, rtol=1e-5, atol=1e-6)
    assert each[0] == 0
    torch.testing.assert_close(loss(one, other, mask).double(), wanted.mean(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss(one, other, mask, reduction="sum").double(), wanted.sum(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("loss", "power"), MASKED)
def test_a_full_mask_is_the_plain_loss(loss: Callable[..., Tensor], power: int) -> None:
    one, other, full = noise(4, 3, 6, 5), noise(4, 3, 6, 5, seed=1), torch.ones(4, 1, 6, 5, dtype=torch.bool)
    plain = {1: l1, 2: l2}[power]
    torch.testing.assert_close(loss(one, other, full), plain(one, other))
    torch.testing.assert_close(plain(one, other), {1: F.l1_loss, 2: F.mse_loss}[power](one, other))
    torch.testing.assert_close(plain(one, other, reduction="none"), (one - other).abs().pow(power).mean((1, 2, 3)))


@pytest.mark.parametrize(("loss", "_"), MASKED)
def test_an_empty_mask_costs_nothing_and_teaches_nothing(loss: Callable[..., Tensor], _: int) -> None:
    one = noise(4, 3, 6, 5).requires_grad_()
    out = loss(one, noise(4, 3, 6, 5, seed=1), torch.zeros(4, 1, 6, 5, dtype=torch.bool))
    out.backward()
    assert out == 0
    assert one.grad is not None
    assert not one.grad.any()


@pytest.mark.parametrize(("loss", "_"), MASKED)
def test_halves_of_a_batch_have_the_mean_of_the_whole(loss: Callable[..., Tensor], _: int) -> None:
    one, other, mask = noise(4, 3, 6, 5), noise(4, 3, 6, 5, seed=1), some_mask()
    halves = [loss(one[part], other[part], mask[part]) for part in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(torch.stack(halves).mean(), loss(one, other, mask))


@pytest.mark.parametrize(("loss", "_"), MASKED)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_lies_outside_the_mask_has_no_influence(loss: Callable[..., Tensor], _: int, bad: float) -> None:
    one, other, mask = noise(4, 3, 6, 5), noise(4, 3, 6, 5, seed=1), some_mask()
    wanted = loss(one, other, mask)
    spoilt = torch.where(mask, one, bad).requires_grad_()
    out = loss(spoilt, torch.where(mask, other, bad), mask)
    out.backward()
    assert torch.equal(out, wanted)
    assert spoilt.grad is not None
    assert bool(spoilt.grad.isfinite().all())
    assert not spoilt.grad[~mask.expand_as(spoilt)].any()


@pytest.mark.parametrize("size", [(7,), (3, 4, 2)])
def test_signals_of_other_dimensions_work(size: tuple[int, ...]) -> None:
    one, other, mask = noise(4, 2, *size), noise(4, 2, *size, seed=1), some_mask(4, *size)
    flat = masked_l1(one.reshape(4, 2, -1, 1), other.reshape(4, 2, -1, 1), mask.reshape(4, 1, -1, 1))
    torch.testing.assert_close(masked_l1(one, other, mask), flat)


def test_gradients_are_those_of_finite_differences() -> None:
    one, other, mask = noise(3, 2, 2, 3, dtype=torch.float64), noise(3, 2, 2, 3, seed=1, dtype=torch.float64), some_mask(3, 2, 3)
    one.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: masked_l1(x, other, mask), one)
    assert torch.autograd.gradcheck(lambda x: masked_l2(x, other, mask), one)
    assert torch.autograd.gradcheck(lambda x: l1(x, other), one)
    assert torch.autograd.gradcheck(lambda x: l2(x, other), one)
    student, teacher = noise(3, 4, 5, dtype=torch.float64).requires_grad_(), noise(3, 4, 5, seed=1, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: concept_loss(x, teacher, torch.zeros(5, dtype=torch.float64)), student)
    views = [noise(4, 6, seed=seed, dtype=torch.float64).requires_grad_(seed < 2) for seed in range(4)]
    assert torch.autograd.gradcheck(lambda a, b: contrastive_loss(a, b, *views[2:]), tuple(views[:2]))


@pytest.mark.parametrize("bad", [1e5, -1e5])
def test_half_types_do_not_overflow_inside(bad: float) -> None:
    one = torch.full((1, 3, 64, 64), bad, dtype=torch.bfloat16)
    mask = torch.ones(1, 1, 64, 64, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = masked_l2(one, torch.zeros_like(one), mask)
    torch.testing.assert_close(out, one[0, 0, 0, 0].float() ** 2)
    one = torch.full((1, 3, 64, 64), 6e4 * (1 if bad > 0 else -1), dtype=torch.float16)
    assert bool(masked_l1(one, -one, mask).isfinite())


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"mask": torch.zeros(4, 1, 6, 5)}, TypeError, "masked_l1: mask is torch.float32, not bool"),
        ({"mask": torch.zeros(4, 6, 5, dtype=torch.bool)}, ValueError, r"allowed: \(B, 1, \*S\) = \(4, 1, 6, 5\)"),
        ({"mask": torch.zeros(4, 3, 6, 5, dtype=torch.bool)}, ValueError, "one value per pixel"),
        ({"mask": torch.zeros(1, 1, 6, 5, dtype=torch.bool)}, ValueError, "for images"),
        ({"clean": torch.zeros(4, 1, 6, 5)}, ValueError, r"clean has shape \(4, 1, 6, 5\), but reconstruction has \(4, 3, 6, 5\)"),
        ({"clean": torch.zeros(4, 3, 6, 5, dtype=torch.int32)}, TypeError, "clean is torch.int32, not a float type"),
        ({"reduction": "avg"}, ValueError, "'avg' is unknown. Allowed: 'mean', 'sum' and 'none'"),
        (
            {"reconstruction": torch.zeros(0, 3, 6, 5), "clean": torch.zeros(0, 3, 6, 5), "mask": torch.zeros(0, 1, 6, 5).bool()},
            ValueError,
            "nothing to average",
        ),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], error: type[Exception], match: str) -> None:
    given: dict[str, Any] = {"reconstruction": noise(4, 3, 6, 5), "clean": noise(4, 3, 6, 5, seed=1), "mask": some_mask()}
    with pytest.raises(error, match=match):
        masked_l1(**{**given, **change})


# --- normalised patches


def normalised_slowly(images: Tensor, height: int, width: int) -> Tensor:
    """One patch after the other, in float64."""
    found = images.double().clone()
    for image in range(len(images)):
        for y in range(0, images.shape[2], height):
            for x in range(0, images.shape[3], width):
                patch = found[image, :, y : y + height, x : x + width]
                found[image, :, y : y + height, x : x + width] = (patch - patch.mean()) / (patch.var() + 1e-6).sqrt()
    return found


@pytest.mark.parametrize(("loss", "power"), MASKED)
def test_the_normalised_target_is_the_clean_image_patch_by_patch(loss: Callable[..., Tensor], power: int) -> None:
    one, other, mask = noise(4, 3, 6, 5), 4.0 * noise(4, 3, 6, 5, seed=1) - 1.0, some_mask()
    wanted = masked_slowly(one, normalised_slowly(other, 3, 5), mask, power)
    each = loss(one, other, mask, reduction="none", target="normalised", patch=(3, 5))
    torch.testing.assert_close(each.double(), torch.tensor(wanted, dtype=torch.float64), rtol=1e-4, atol=1e-5)
    plain = {1: l1, 2: l2}[power](one, other, target="normalised", patch=(3, 5))
    torch.testing.assert_close(plain.double(), (one - normalised_slowly(other, 3, 5)).abs().pow(power).mean())


@pytest.mark.parametrize(("loss", "_"), MASKED)
def test_pixels_are_the_target_unless_something_else_is_said(loss: Callable[..., Tensor], _: int) -> None:
    one, other, mask = noise(4, 3, 6, 5), noise(4, 3, 6, 5, seed=1), some_mask()
    assert torch.equal(loss(one, other, mask), loss(one, other, mask, target="pixels", patch=3))


@pytest.mark.parametrize(("loss", "_"), MASKED)
def test_a_normalised_target_costs_nothing_under_an_empty_mask_and_stays_in_its_patches(
    loss: Callable[..., Tensor], _: int
) -> None:
    one, other, mask = noise(4, 3, 6, 6).requires_grad_(), noise(4, 3, 6, 6, seed=1), torch.zeros(4, 1, 6, 6, dtype=torch.bool)
    mask[1, :, :3, :3] = True
    wanted = loss(one, other, mask, reduction="none", target="normalised", patch=3)
    assert wanted[[0, 2, 3]].tolist() == [0.0, 0.0, 0.0]
    spoilt = other.clone()
    spoilt[:, :, 3:] = math.nan  # of other patches
    out = loss(one, spoilt, mask, reduction="none", target="normalised", patch=3)
    assert torch.equal(out, wanted)
    out.sum().backward()
    assert one.grad is not None
    assert bool(one.grad.isfinite().all())
    assert not one.grad[~mask.expand_as(one)].any()


def test_gradients_through_a_normalised_target_are_those_of_finite_differences() -> None:
    one, other, mask = noise(3, 2, 2, 3, dtype=torch.float64), noise(3, 2, 2, 3, seed=1, dtype=torch.float64), some_mask(3, 2, 3)
    one.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: masked_l2(x, other, mask, target="normalised", patch=(2, 3)), one)
    assert torch.autograd.gradcheck(lambda x: masked_l2(other, x, mask, target="normalised", patch=(2, 3)), one)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"target": "normalized", "patch": 3}, "target='normalized' is unknown. Allowed: 'pixels' and 'normalised'"),
        ({"target": "normalised"}, "needs patch"),
        ({"target": "normalised", "patch": 4}, "patch=4 does not divide images of 6 x 5"),
    ],
)
def test_a_target_that_cannot_be_made_is_named(options: dict[str, Any], match: str) -> None:
    for loss, some in ((masked_l1, (some_mask(),)), (masked_l2, (some_mask(),)), (l1, ()), (l2, ())):
        with pytest.raises(ValueError, match=match):
            loss(noise(4, 3, 6, 5), noise(4, 3, 6, 5, seed=1), *some, **options)


# --- concepts


def concept_slowly(student: Tensor, teacher: Tensor, center: Tensor, hot: float, cold: float) -> float:
    rows = []
    for s, t in zip(student.double().flatten(0, -2), teacher.double().flatten(0, -2), strict=True):
        wanted = torch.exp((t - center.double()) / cold)
        said = torch.exp(s / hot)
        rows.append(float(-(wanted / wanted.sum() * torch.log(said / said.sum())).sum()))
    return sum(rows) / len(rows)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(7, 11), (2, 3, 11)])
def test_the_concept_loss_is_a_cross_entropy(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    student, teacher, center = noise(*shape, dtype=dtype), noise(*shape, seed=1, dtype=dtype), 0.1 * noise(11, seed=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = concept_loss(student, teacher, center, student_temperature=0.3, teacher_temperature=0.2)
    assert out.dtype == torch.promote_types(dtype, torch.float32)
    assert float(out) == pytest.approx(concept_slowly(student, teacher, center, 0.3, 0.2), rel=1e-5)


def test_concept_losses_of_halves_have_the_mean_of_the_whole() -> None:
    student, teacher, center = noise(4, 6, 11), noise(4, 6, 11, seed=1), torch.zeros(11)
    halves = [concept_loss(student[part], teacher[part], center) for part in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(torch.stack(halves).mean(), concept_loss(student, teacher, center))


def test_only_the_student_learns() -> None:
    student, teacher = noise(4, 6, 11).requires_grad_(), noise(4, 6, 11, seed=1).requires_grad_()
    loss = ConceptLoss(11)
    loss(student, teacher).backward()
    assert student.grad is not None
    assert student.grad.any()
    assert teacher.grad is None
    assert not loss.center.any()  # comparing leaves the centre as it is


def test_large_logits_stay_finite() -> None:
    student, teacher = (1e4 * noise(4, 11)).requires_grad_(), 1e4 * noise(4, 11, seed=1)
    out = concept_loss(student, teacher, torch.zeros(11))
    out.backward()
    assert bool(out.isfinite())
    assert student.grad is not None
    assert bool(student.grad.isfinite().all())


def test_the_centre_is_a_moving_average_of_the_teacher() -> None:
    loss = ConceptLoss(5, momentum=0.75)
    first, second = noise(2, 3, 5, dtype=torch.bfloat16).requires_grad_(), noise(4, 5, seed=1)
    loss.update(first)
    loss.update(second)
    wanted = 0.75 * 0.25 * first.detach().float().mean((0, 1)) + 0.25 * second.mean(0)
    torch.testing.assert_close(loss.center, wanted)
    assert loss.center.dtype == torch.float32
    assert not loss.center.requires_grad
    assert list(loss.state_dict()) == ["center"]
    loss.student_temperature, loss.teacher_temperature = 0.2, 0.07
    s, t = noise(3, 5), noise(3, 5, seed=4)
    torch.testing.assert_close(loss(s, t), concept_loss(s, t, loss.center, student_temperature=0.2, teacher_temperature=0.07))


@pytest.mark.parametrize("cut", [1, 3, 4])
def test_parts_that_are_observed_move_the_centre_as_the_whole_would(cut: int) -> None:
    whole, parted, tokens = ConceptLoss(5), ConceptLoss(5), noise(7, 2, 5)
    for step in range(2):
        whole.update(tokens + step)
        for part in (tokens[:cut], tokens[cut:]):
            parted.observe(part + step)
            parted(part, part)
        assert list(parted.state_dict()) == ["center"]
        parted.update()
    torch.testing.assert_close(parted.center, whole.center)
    parted.update()  # nothing was observed since
    torch.testing.assert_close(parted.center, whole.center)


def test_what_is_discarded_has_no_influence_even_nan() -> None:
    loss, other = ConceptLoss(5), ConceptLoss(5)
    loss.observe(noise(3, 5) * math.nan)
    loss.discard()
    loss.update(noise(7, 5))
    other.update(noise(7, 5))
    assert torch.equal(loss.center, other.center)


def entropy(probability: Tensor) -> float:
    return float(-(probability * probability.clamp(min=1e-12).log()).sum(-1).mean())


def test_the_centre_keeps_a_lopsided_teacher_from_collapsing() -> None:
    classes, teacher = 32, 0.1 * noise(400, 32)
    teacher[:, 7] += 1.0  # whatever the token, the seventh concept wins
    loss = ConceptLoss(classes)

    def mean_choice() -> float:
        return entropy(((teacher - loss.center) / loss.teacher_temperature).softmax(-1).mean(0))

    assert mean_choice() < 0.01 * math.log(classes)
    for _ in range(100):
        loss.update(teacher)
    assert mean_choice() > 0.9 * math.log(classes)


def test_the_teacher_is_sharper_than_the_student() -> None:
    logits = 0.1 * noise(400, 32)
    loss = ConceptLoss(32)
    assert entropy((logits / loss.teacher_temperature).softmax(-1)) < entropy((logits / loss.student_temperature).softmax(-1))


def test_wrong_arguments_of_the_concept_loss_are_named() -> None:
    with pytest.raises(ValueError, match="classes=0"):
        ConceptLoss(0)
    with pytest.raises(ValueError, match=r"momentum=1.0 is outside \[0, 1\)"):
        ConceptLoss(4, momentum=1.0)
    with pytest.raises(ValueError, match="teacher_temperature=0 is not a finite number above 0"):
        ConceptLoss(4, teacher_temperature=0)
    with pytest.raises(ValueError, match=r"centre has shape \(4,\) for logits \(2, 5\)"):
        ConceptLoss(4)(noise(2, 5), noise(2, 5))
    with pytest.raises(ValueError, match=r"ConceptLoss.update: the centre has shape \(4,\)"):
        ConceptLoss(4).update(noise(2, 5))
    with pytest.raises(ValueError, match=r"ConceptLoss.observe: the centre has shape \(4,\)"):
        ConceptLoss(4).observe(noise(2, 5))
    with pytest.raises(ValueError, match="they must be equal"):
        ConceptLoss(5)(noise(2, 5), noise(3, 5))


# --- contrast


def contrast_slowly(student: Tensor, teacher: Tensor, temperature: float) -> float:
    total = 0.0
    for number, one in enumerate(student.double()):
        similar = torch.stack([F.cosine_similarity(one, other, dim=0) for other in teacher.double()]) / temperature
        total += float(torch.logsumexp(similar, 0) - similar[number])
    return total / len(student)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [0.2, 0.7])
def test_the_contrastive_loss_is_symmetric_cross_entropy(temperature: float, dtype: torch.dtype) -> None:
    views = [noise(5, 8, seed=seed, dtype=dtype) for seed in range(4)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = contrastive_loss(*views, temperature=temperature)
    one, two, first, second = views
    wanted = 2 * temperature * (contrast_slowly(one, second, temperature) + contrast_slowly(two, first, temperature))
    assert out.dtype == torch.promote_types(dtype, torch.float32)
    assert float(out) == pytest.approx(wanted, rel=1e-5)
    torch.testing.assert_close(contrastive_loss(two, one, second, first, temperature=temperature), out)


def test_contrast_teaches_the_student_alone_and_prefers_its_own_image() -> None:
    views = [noise(6, 8, seed=seed).requires_grad_() for seed in range(4)]
    contrastive_loss(*views).backward()
    assert [view.grad is None for view in views] == [False, False, True, True]
    teacher = noise(6, 8, seed=9)
    assert contrastive_loss(teacher, teacher, teacher, teacher) < contrastive_loss(
        teacher.roll(1, 0), teacher.roll(1, 0), teacher, teacher
    )
    alike = torch.ones(6, 8)
    assert float(contrastive_loss(alike, alike, alike, alike)) == pytest.approx(2 * 0.2 * 2 * math.log(6), rel=1e-5)  # collapsed


def test_wrong_arguments_of_the_contrastive_loss_are_named() -> None:
    views = [noise(5, 8, seed=seed) for seed in range(4)]
    with pytest.raises(ValueError, match=r"temperature=0\.0 is not a finite number above 0"):
        contrastive_loss(*views, temperature=0.0)
    with pytest.raises(ValueError, match=r"teacher_2 has shape \(4, 8\)"):
        contrastive_loss(views[0], views[1], views[2], noise(4, 8))
    with pytest.raises(ValueError, match=r"not \(B, d\)"):
        contrastive_loss(views[0][None], views[1][None], views[2][None], views[3][None])
    with pytest.raises(TypeError, match=r"student_1 is torch\.int64"):
        contrastive_loss(views[0].long(), *views[1:])


# --- labels


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_multi_label_loss_is_asymmetric_focal_cross_entropy(dtype: torch.dtype) -> None:
    logits = noise(4, 7, dtype=dtype).requires_grad_()
    targets = noise(4, 7, seed=1) > 0.5
    p = logits.detach().double().sigmoid()
    wanted = torch.where(targets, -p.log(), -(1 - p).log() * p**4)  # gamma+ is 0, gamma- is 4
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = multi_label_loss(logits, targets)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.detach().double(), wanted.sum(1).mean(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(multi_label_loss(logits, targets, reduction="sum").double(), wanted.sum(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(multi_label_loss(logits, targets, reduction="mean").double(), wanted.mean(), rtol=1e-5, atol=1e-6)
    out.backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


def test_extreme_scores_and_soft_targets_stay_finite() -> None:
    logits = torch.tensor([[-200.0, 200.0, 0.0]]).requires_grad_()
    for targets in (torch.tensor([[1, 0, 1]]), torch.tensor([[0.3, 0.7, 0.5]])):
        out = multi_label_loss(logits, targets)
        out.backward()
        assert bool(out.isfinite())
        assert logits.grad is not None
        assert bool(logits.grad.isfinite().all())


def test_wrong_arguments_of_the_multi_label_loss_are_named() -> None:
    with pytest.raises(ValueError, match="'none' is unknown"):
        multi_label_loss(noise(2, 3), noise(2, 3) > 0, reduction="none")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"targets has shape \(2,\)"):
        multi_label_loss(noise(2, 3), torch.zeros(2))
    with pytest.raises(ValueError, match=r"not \(B, c\)"):
        multi_label_loss(noise(2), torch.zeros(2))


# --- compiled, and in several processes


def test_losses_compile_in_one_graph() -> None:
    one, other, mask = noise(4, 3, 6, 5), noise(4, 3, 6, 5, seed=1), some_mask()
    s, t, views = noise(4, 6, 11), noise(4, 6, 11, seed=1), [noise(5, 8, seed=seed) for seed in range(4)]

    def everything() -> Tensor:
        pixels = masked_l1(one, other, mask) + masked_l2(one, other, mask) + l1(one, other) + l2(one, other)
        return pixels + concept_loss(s, t, torch.zeros(11)) + contrastive_loss(views[0], views[1], views[2], views[3])

    torch.testing.assert_close(torch.compile(everything, fullgraph=True, backend="aot_eager")(), everything())


def one_rank(rank: int, folder: str) -> None:
    """What one of two processes finds on its half of the batch; the second holds more tokens for the centre."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    try:
        loss = ConceptLoss(5)
        tokens = noise(7, 5)
        for token in tokens[:2] if rank == 0 else tokens[2:]:
            loss.observe(token)
        loss.update()
        half = slice(3 * rank, 3 * rank + 3)
        views = [noise(6, 8, seed=seed)[half].requires_grad_() for seed in range(4)]
        contrast = contrastive_loss(*views)
        contrast.backward()
        torch.save((loss.center, contrast.detach(), views[0].grad, views[1].grad), f"{folder}/rank{rank}.pt")
    finally:
        distributed.destroy_process_group()


def test_two_processes_equal_one(tmp_path: Path) -> None:
    spawn(one_rank, args=(str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    loss = ConceptLoss(5)
    loss.update(noise(7, 5))
    for center, *_ in ranks:
        torch.testing.assert_close(center, loss.center)
    views = [noise(6, 8, seed=seed).requires_grad_() for seed in range(4)]
    whole = contrastive_loss(*views)
    whole.backward()
    torch.testing.assert_close((ranks[0][1] + ranks[1][1]) / 2, whole.detach())
    for view in range(2):  # each rank's loss is a mean over half the images
        torch.testing.assert_close(torch.cat([found[2 + view] for found in ranks]) / 2, views[view].grad)


@pytest.mark.parametrize("values", ["unit", ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))], ids=str)
@pytest.mark.parametrize("target", ["pixels", "normalised"])
def test_bytes_are_normalised_where_they_are_compared(values: Any, target: Any) -> None:
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    corrupt = ga.presets.gmml(values=values)
    corrupted, mask = corrupt.from_bytes(images, keys=torch.arange(4), dtype=torch.float32, clean=False)
    clean = corrupt.from_bytes(images, keys=torch.arange(4), dtype=torch.float32).clean
    more: dict[str, Any] = {"target": target, "patch": 8}
    for masked in (gm.masked_l1, gm.masked_l2):
        assert torch.equal(masked(corrupted, images, mask, values=values, **more), masked(corrupted, clean, mask, **more))
    for whole in (gm.l1, gm.l2):
        assert torch.equal(whole(corrupted, images, values=values, **more), whole(corrupted, clean, **more))


def test_bytes_without_statistics_and_floats_with_them_are_refused() -> None:
    stored, mask = torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.ones(2, 1, 8, 8, dtype=torch.bool)
    with pytest.raises(TypeError, match=r"masked_l1: clean is torch.uint8 and values=None.*corrupt.program.values"):
        gm.masked_l1(torch.zeros(2, 3, 8, 8), stored, mask)
    with pytest.raises(TypeError, match=r"values='normalised' does not state"):
        gm.masked_l1(torch.zeros(2, 3, 8, 8), stored, mask, values="normalised")
    with pytest.raises(TypeError, match=r"l2: values='unit' is for bytes, but clean is torch.float32"):
        gm.l2(torch.zeros(2, 3, 8, 8), stored.float(), values="unit")
    with pytest.raises(ValueError, match="2 channels"):
        gm.l1(torch.zeros(2, 3, 8, 8), stored, values=((0.5, 0.5), (1.0, 1.0)))
