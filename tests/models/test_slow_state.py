"""Averages and centres are float32 in a model of any dtype, so that they move; and the passes of such a model work."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import gmml_aug as ga
import gmml_models as gm
from gmml_models.losses import ConceptLoss
from gmml_models.models.classifier import Classifier
from gmml_models.objectives.objective import Teacher
from gmml_models.recipes.ema import Tuning

SMALL: dict[str, Any] = {"img_size": 16, "patch_size": 8, "depth": 1, "embed_dim": 32, "num_heads": 2}


def mc_ssl() -> gm.MCSSL:
    torch.manual_seed(0)
    return gm.MCSSL("vit_tiny_patch16_224", classes=16, hidden=8, bottleneck=4, **SMALL)


def sit() -> gm.SiT:
    torch.manual_seed(0)
    return gm.SiT("vit_tiny_patch16_224", hidden=8, out=4, **SMALL)


def views(dtype: torch.dtype) -> list[Tensor]:
    return [torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(n)).to(dtype) for n in range(2)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("build", [mc_ssl, sit])
def test_the_teacher_moves_as_far_in_any_dtype(build: Any, dtype: torch.dtype) -> None:
    moved = []
    for kind in (torch.float32, dtype):
        objective = build().to(kind)
        teacher: Teacher[Any] = objective.teacher
        assert {parameter.dtype for parameter in teacher.parameters()} == {torch.promote_types(kind, torch.float32)}
        before = [parameter.clone() for parameter in teacher.parameters()]
        with torch.no_grad():
            for parameter in [*objective.autoencoder.parameters(), *objective.head.parameters()]:
                parameter.mul_(1.05)
        for _ in range(40):
            objective.after_step(0.0)
        moved.append(float(sum((a - b).abs().sum() for a, b in zip(teacher.parameters(), before, strict=True))))
    assert moved[0] > 0
    assert moved[1] == pytest.approx(moved[0], rel=0.01)  # bfloat16 rounds the student's step, no more


@pytest.mark.parametrize("build", [mc_ssl, sit])
def test_a_half_precision_objective_learns_and_shows_pictures(build: Any) -> None:
    keys = ga.keys(0, 0, range(4))
    exact, _ = build()(views(torch.float32), keys=keys)
    objective = build().bfloat16()
    loss, _ = objective(views(torch.bfloat16), keys=keys)
    loss.backward()
    objective.after_step(0.5)
    assert loss.item() == pytest.approx(exact.item(), rel=0.1)
    shown = objective.reconstruct(views(torch.bfloat16)[0], keys=keys)
    assert shown.restored.dtype == torch.float32
    assert torch.isfinite(shown.restored).all()


def test_a_teacher_of_a_half_precision_student_is_float32() -> None:
    model = gm.GMMLAutoencoder("vit_tiny_patch16_224", **SMALL).bfloat16()
    assert {parameter.dtype for parameter in gm.MCSSL(model, classes=8).teacher.parameters()} == {torch.float32}  # type: ignore[union-attr]


def test_the_centre_is_float32_and_follows_to_other_devices_and_wider_types() -> None:
    loss = ConceptLoss(8).half()
    assert loss.center.dtype == loss.observed.dtype == torch.float32
    assert loss.double().center.dtype == torch.float64
    assert loss.to("meta").center.device.type == "meta"
    fresh = ConceptLoss(8).bfloat16()
    for _ in range(300):  # by 0.1 of what is left each time: bfloat16 would stop at two digits
        fresh.update(torch.full((2, 8), 1.001, dtype=torch.float32))
    assert fresh.center[0].item() == pytest.approx(1.001, abs=1e-5)


def test_the_average_of_a_fine_tuning_is_float32() -> None:
    torch.manual_seed(0)
    tuning: Any = Tuning(Classifier("vit_tiny_patch16_224", 3, **SMALL), decay=0.9999).bfloat16()
    assert tuning.average is not None
    assert next(tuning.classifier.parameters()).dtype == torch.bfloat16
    assert {parameter.dtype for parameter in tuning.average.parameters()} == {torch.float32}
    tuning.steps += 10**6
    before = tuning.average.head[0].weight.clone()
    with torch.no_grad():
        tuning.classifier.head[0].weight.mul_(1.5)
    tuning.after_step(0.5)
    assert not torch.equal(tuning.average.head[0].weight, before)
