"""SiT and MC-SSL0.0: their formulas, the teacher and the centre."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gmml_aug as ga
from gmml_models.losses import ConceptLoss, concept_loss, contrastive_loss
from gmml_models.models.autoencoder import GMMLAutoencoder
from gmml_models.objectives import MCSSL, SiT
from gmml_models.objectives.mc_ssl import ConceptHeads
from gmml_models.objectives.objective import Teacher
from tests.models.test_objectives import NAME, NOISE, crops, learn, photographs, restored, small, some_keys, with_error


def sit(**options: Any) -> SiT:
    found = small("sit", **options)
    assert isinstance(found, SiT)
    return found


def mc_ssl(**options: Any) -> MCSSL:
    found = small("mc_ssl", **options)
    assert isinstance(found, MCSSL)
    return found


def parts_of(objective: MCSSL) -> tuple[ConceptHeads, Teacher[ConceptHeads], ConceptLoss]:
    """What it has unless it reconstructs alone."""
    assert objective.head is not None
    assert objective.teacher is not None
    assert objective.patch_loss is not None
    return objective.head, objective.teacher, objective.patch_loss


def cls_of(autoencoder: GMMLAutoencoder, images: Tensor) -> Tensor:
    cls = autoencoder.encode(images).cls
    assert cls is not None
    return cls


def entropy(probabilities: Tensor) -> float:
    return float(-(probabilities * probabilities.clamp(min=1e-12).log()).sum(-1).mean())


# --- what they compute


def test_sit_is_contrast_plus_masked_reconstruction() -> None:
    objective, views = sit(reconstruction_weight=5.0, temperature=0.3), crops()
    assert objective.corrupt is not None
    objective.after_step(0.5)
    with torch.no_grad():
        for parameter in objective.head.parameters():  # so that teacher and student differ
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(parameter))))
    loss, parts = objective(views, keys=some_keys())
    seen = [objective.corrupt(view, keys=some_keys() + number).images for number, view in enumerate(views)]
    student = objective.head(torch.cat([cls_of(objective.autoencoder, one) for one in seen])).chunk(2)
    teacher = objective.teacher.head(torch.cat([cls_of(objective.teacher.autoencoder, view) for view in views])).chunk(2)
    contrast = contrastive_loss(student[0], student[1], teacher[0], teacher[1], temperature=0.3)
    errors = []
    for number, view in enumerate(views):
        found, mask = restored(objective, view, number)
        errors.append((((found - view).abs() * mask).sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3)))).mean())
    torch.testing.assert_close(parts["contrast"], contrast.detach())
    torch.testing.assert_close(parts["reconstruction"], torch.stack(errors).mean().detach())
    torch.testing.assert_close(loss, contrast + 5.0 * torch.stack(errors).mean())


@pytest.mark.parametrize("terms", ["both", "concepts"])
@pytest.mark.parametrize("cls", [False, True])
def test_mc_ssl_is_the_mean_of_reconstruction_and_concepts(terms: Any, cls: bool) -> None:
    objective = mc_ssl(terms=terms, cls=cls, student_temperature=0.2, teacher_temperature=0.07)
    views = crops(views=2, local=2) if terms == "both" or cls else crops(views=2)
    views = [views[0], *views[2:], views[1]]  # the second large one at the end
    learn(objective, views, 3, 1e-3)
    head, teacher, loss_of_patches = parts_of(objective)
    assert objective.corrupt is not None
    large = (0, len(views) - 1)
    seen = [objective.autoencoder.encode(objective.corrupt(v, keys=some_keys() + n).images) for n, v in enumerate(views)]
    known = {number: teacher.autoencoder.encode(views[number]) for number in large}
    temperatures = {"student_temperature": 0.2, "teacher_temperature": 0.07}
    centre = loss_of_patches.center
    wanted = {
        "concepts": torch.stack(
            [concept_loss(head.patch(seen[n].patches), teacher.head.patch(known[n].patches), centre, **temperatures) for n in large]
        ).mean()
    }
    if terms == "both":
        errors = [(restored(objective, view, number)[0] - view).abs().mean() for number, view in enumerate(views)]
        wanted["reconstruction"] = torch.stack(errors).mean()
    if cls:

        def similar(network: Any, tokens: Tensor | None) -> Tensor:
            bottleneck = network.patch.layers(tokens)
            return nn.functional.cosine_similarity(bottleneck[:, None], network.cls, dim=-1)

        assert objective.cls_loss is not None
        centre = objective.cls_loss.center
        each = [
            concept_loss(similar(head, seen[v].cls), similar(teacher.head, known[g].cls), centre, **temperatures)
            for g in large
            for v in range(len(views))
            if v != g
        ]
        assert len(each) == 2 * (len(views) - 1)
        wanted["cls"] = torch.stack(each).mean()
    loss, parts = objective(views, keys=some_keys())
    assert parts.keys() == wanted.keys()
    for name, part in wanted.items():
        torch.testing.assert_close(parts[name], part.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(loss, torch.stack(list(wanted.values())).mean(), rtol=1e-4, atol=1e-6)


def test_masked_reconstruction_is_an_option() -> None:
    objective, views = mc_ssl(terms="reconstruction", masked=True), crops(views=1)
    found, mask = restored(objective, views[0], 0)
    wanted = (((found - views[0]).abs() * mask).sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3)))).mean()
    torch.testing.assert_close(objective(views, keys=some_keys())[0], wanted)


@pytest.mark.parametrize("blocks", [(2,), (1, 2)])
def test_decoding_what_was_encoded_is_what_the_autoencoder_does(blocks: tuple[int, ...]) -> None:
    model, images = mc_ssl(blocks=blocks).autoencoder, crops()[0]
    assert torch.equal(model.decode(model.encode(images)), model(images))


# --- the teacher


@pytest.mark.parametrize("kind", ["sit", "mc_ssl"])
def test_the_teacher_follows_by_exactly_the_rule(kind: str) -> None:
    objective: Any = small(kind, momentum=0.9)
    student = dict(objective.named_parameters())
    teacher = {name.removeprefix("teacher."): p for name, p in student.items() if name.startswith("teacher.")}
    assert teacher.keys() == {name for name in student if not name.startswith("teacher.")}
    assert all(torch.equal(p, student[name]) for name, p in teacher.items())  # it starts as the student
    learn(objective, crops(), 1, 1e-3)
    before = {name: p.clone() for name, p in teacher.items()}
    with torch.no_grad():
        for name in teacher:
            student[name].add_(0.1)
    for progress in (0.0, 0.3, 1.0):
        keep = 1.0 - 0.1 * (1.0 + math.cos(math.pi * progress)) / 2
        objective.after_step(progress)
        for name, p in teacher.items():
            before[name] = keep * before[name] + (1.0 - keep) * student[name].detach()
            torch.testing.assert_close(p, before[name], rtol=1e-6, atol=1e-7)
            assert not p.requires_grad
    assert any((before[name] - student[name]).abs().max() > 0.05 for name in teacher)  # a slow average, not a copy


def test_the_teacher_has_no_chance_in_it_and_its_batch_norms_see_the_batch() -> None:
    objective = sit(drop_path_rate=0.9, proj_drop_rate=0.5)
    objective.autoencoder.encoder.register_buffer("mark", torch.zeros(3))
    objective.teacher.autoencoder.encoder.register_buffer("mark", torch.zeros(3))
    for _ in range(2):
        assert not any(part.training for part in objective.teacher.autoencoder.modules())
        assert all(part.training for part in objective.teacher.head.modules())
        objective.eval()
        assert not any(part.training for part in objective.modules())
        objective.train()
        assert objective.autoencoder.training
    views = crops()
    assert torch.equal(*[cls_of(objective.teacher.autoencoder, views[0]) for _ in range(2)])
    assert not torch.equal(*[cls_of(objective.autoencoder, views[0]) for _ in range(2)])
    objective(views, keys=some_keys())
    objective.autoencoder.encoder.get_buffer("mark").fill_(2.0)
    seen = [head.get_buffer("layers.1.running_mean").clone() for head in (objective.head, objective.teacher.head)]
    objective.after_step(0.0)
    assert (objective.teacher.autoencoder.encoder.get_buffer("mark") == 2.0).all()  # a buffer of the encoder is copied
    assert torch.equal(objective.teacher.head.get_buffer("layers.1.running_mean"), seen[1])  # statistics are its own
    assert not torch.equal(seen[0], seen[1])


def test_a_step_that_is_skipped_leaves_the_centre_alone() -> None:
    objective, views = mc_ssl(cls=True), crops()
    learn(objective, views, 2, 1e-3)
    start = copy.deepcopy(objective.state_dict())
    objective([10 * view for view in views], keys=some_keys())
    objective([view * math.nan for view in views], keys=some_keys())
    objective.discard()
    other = copy.deepcopy(objective)
    assert all(torch.equal(tensor, start[key]) for key, tensor in objective.state_dict().items())
    for one in (objective, other):
        one(views, keys=some_keys())
    objective.after_step(0.5)
    other.after_step(0.5)
    centre = parts_of(objective)[2].center
    assert centre.isfinite().all()
    assert torch.equal(parts_of(other)[2].center, centre)
    assert not torch.equal(centre, start["patch_loss.center"])
    kept = centre.clone()
    objective.after_step(0.6)  # nothing was observed since
    assert torch.equal(centre, kept)


def test_a_batch_with_nan_does_not_spoil_batch_norms_for_ever() -> None:
    objective, views = sit(), crops()
    objective([view * math.nan for view in views], keys=some_keys())
    objective.discard()
    learn(objective, views, 2, 1e-3)
    assert all(bool(tensor.isfinite().all()) for tensor in objective.state_dict().values())
    assert bool(objective.eval()(views, keys=some_keys())[0].isfinite())


# --- learning


def test_sit_overfits_a_few_images() -> None:
    found = learn(sit(img_size=16, patch_size=4, momentum=0.9), [photographs(16, 16), photographs(16, 16).flip(3)], 60, 4e-3)
    assert found[-1]["loss"] < 0.3 * found[0]["loss"]
    assert found[-1]["contrast"] < 0.15 * found[0]["contrast"]
    assert found[-1]["reconstruction"] < 0.8 * found[0]["reconstruction"]


def mean_choice(objective: MCSSL, images: Tensor) -> tuple[float, float]:
    """Entropy of the mean of the teacher's probabilities over tokens, and the mean of each one's, as shares of the largest."""
    _, teacher, loss = parts_of(objective)
    with torch.no_grad():
        logits, _ = teacher.head(teacher.autoencoder.encode(images, ()).patches, None)
    chosen = ((logits - loss.center) / 0.04).softmax(-1).flatten(0, 1)
    return entropy(chosen.mean(0)) / math.log(chosen.shape[1]), entropy(chosen) / math.log(chosen.shape[1])


@pytest.mark.parametrize(("corrupt", "least"), [(ga.presets.gmml(), 0.45), (None, 0.4)], ids=["gmml", "its own"])
def test_mc_ssl_overfits_a_few_images_and_does_not_collapse(corrupt: ga.Chain | None, least: float) -> None:
    objective, images = mc_ssl(img_size=16, patch_size=4, momentum=0.9, corrupt=corrupt), photographs(16, 16)
    found = learn(objective, [images], 100, 4e-3)
    assert found[-1]["loss"] < 0.3 * found[0]["loss"]
    assert found[-1]["reconstruction"] < 0.6 * found[0]["reconstruction"]
    assert found[-1]["concepts"] < 0.3 * found[0]["concepts"]
    together, each = mean_choice(objective, images)
    assert together > least  # many concepts are in use; one alone is 0
    assert each < 0.3  # and each token is sure of its own; all at once is 1


def test_the_last_layer_can_rest_for_a_share_of_the_run() -> None:
    objective, views = mc_ssl(cls=True, freeze_last=3 / 7), crops()
    head = parts_of(objective)[0]
    assert head.cls is not None
    for step in range(7):
        objective.zero_grad()
        objective(views, keys=some_keys())[0].backward()
        for last in (head.patch.concepts, head.cls):
            assert last.grad is not None
            assert bool(last.grad.any()) == (step >= 3)
        assert all(bool(p.grad is not None and p.grad.any()) for p in head.patch.layers.parameters())
        objective.discard()
        objective.after_step((step + 1) / 7)
    resting = mc_ssl(freeze_last=1.0)
    resting.load_state_dict({k: v for k, v in objective.state_dict().items() if "cls" not in k or "cls_token" in k})
    assert resting.learns == 1.0  # it is part of the state


# --- what is trained, and what not


def test_reconstruction_alone_needs_no_teacher() -> None:
    objective = mc_ssl(terms="reconstruction")
    assert objective.teacher is None
    assert objective.exported() is objective.autoencoder
    assert all(key.startswith("autoencoder.") for key in objective.state_dict())
    objective.after_step(0.5)
    objective.discard()


def test_concepts_alone_leave_the_decoder_as_it_is() -> None:
    objective, views = mc_ssl(terms="concepts"), crops()
    decoders = [objective.autoencoder.decoder, parts_of(objective)[1].autoencoder.decoder]
    start = copy.deepcopy([decoder.state_dict() for decoder in decoders])
    learn(objective, views, 2, 1e-2)
    for decoder, before in zip(decoders, start, strict=True):
        assert all(torch.equal(tensor, before[key]) for key, tensor in decoder.state_dict().items())
    assert not objective.reconstructs
    with pytest.raises(ValueError, match="no decoder is trained"):
        objective.reconstruct(views[0], keys=some_keys())


def test_encoders_without_class_token_learn_concepts() -> None:
    objective = mc_ssl(class_token=False)
    assert objective(crops(), keys=some_keys())[0].isfinite()
    with pytest.raises(ValueError, match="cls=True, but the encoder has no class token"):
        mc_ssl(class_token=False, cls=True)
    with pytest.raises(ValueError, match="SiT: the encoder has no class token"):
        sit(class_token=False)


# --- errors


def test_views_that_sit_cannot_compare_are_named() -> None:
    keys = some_keys()
    for views in (crops(views=1), crops(views=3), crops(views=1, local=1)):
        with_error(sit(), views, keys, ValueError, rf"two views of one size, but there are {len(views)}")


def test_views_that_mc_ssl_has_no_use_for_are_named() -> None:
    with_error(mc_ssl(cls=True), crops(views=1), some_keys(), ValueError, "different views, but there is only 1 view")
    with_error(mc_ssl(terms="concepts"), crops(local=1), some_keys(), ValueError, "nothing would be learnt from local views")


@pytest.mark.parametrize(
    ("kind", "options", "match"),
    [
        ("sit", {"reconstruction_weight": -1.0}, "reconstruction_weight=-1.0 is not a finite number of at least 0"),
        ("sit", {"reconstruction_weight": math.nan}, "reconstruction_weight=nan"),
        ("sit", {"temperature": 0.0}, "temperature=0.0 is not a finite number"),
        ("sit", {"momentum": 1.5}, r"momentum=1.5 is outside \[0, 1\]"),
        ("sit", {"hidden": 0}, "hidden=0 is not a whole number"),
        ("mc_ssl", {"terms": "all"}, "terms='all' is unknown. Allowed: 'both', 'reconstruction', 'concepts'"),
        ("mc_ssl", {"terms": "reconstruction", "cls": True}, "terms='reconstruction' has none"),
        ("mc_ssl", {"terms": "reconstruction", "blocks": (1,)}, r"blocks=\(1,\) end before the last block"),
        ("mc_ssl", {"classes": 0}, "classes=0 is not a whole number"),
        ("mc_ssl", {"freeze_last": 2.0}, r"freeze_last=2.0 is outside \[0, 1\]"),
        ("mc_ssl", {"teacher_temperature": 0.0}, "teacher_temperature=0.0 is not a finite number above 0"),
        ("mc_ssl", {"center_momentum": 1.0}, r"momentum=1.0 is outside \[0, 1\)"),
        ("mc_ssl", {"decoder": "deep"}, "decoder='deep' is unknown"),
    ],
)
def test_values_out_of_range_are_named(kind: str, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        small(kind, **options)


def test_the_defaults_are_those_of_the_papers_and_the_release() -> None:
    with torch.device("meta"):
        concepts, contrast = MCSSL(NAME, depth=1), SiT(NAME, depth=1)
    head, teacher, loss = parts_of(concepts)
    assert (loss.student_temperature, loss.teacher_temperature, loss.momentum) == (0.1, 0.04, 0.9)
    assert [tuple(p.shape) for name, p in head.patch.named_parameters() if name in ("layers.0.weight", "concepts")] == [
        (8192, 256),
        (2048, 192),
    ]
    assert (teacher.momentum, contrast.teacher.momentum) == (0.996, 0.996)
    assert (contrast.temperature, contrast.reconstruction_weight) == (0.2, 1.0)
    assert [p.shape[0] for name, p in contrast.head.named_parameters() if name in ("layers.0.weight", "layers.6.weight")] == [
        4096,
        256,
    ]
    assert mc_ssl(corrupt=NOISE).corrupt == NOISE
