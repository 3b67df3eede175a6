"""The parts of fine-tuning against plain computation: averages, layers, augmentation, losses, commands."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.loss.asymmetric_loss import AsymmetricLossMultiLabel
from timm.loss.cross_entropy import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor

import gmml_models as gm
from gmml_models.data.transforms import seeded
from gmml_models.errors import UsageError
from gmml_models.recipes.command_line_of import command_of
from gmml_models.recipes.config import EvaluateConfig, FinetuneConfig
from gmml_models.recipes.ema import Tuning, layer_scales
from gmml_models.recipes.finetune_augment import Mixing, Strength, centre_of, loss_of, strength, training_transform, view_plan

SMALL: dict[str, Any] = {"depth": 3, "img_size": 16, "patch_size": 8, "embed_dim": 16, "num_heads": 2}


def a_classifier(classes: Any = 4, **options: Any) -> gm.Classifier:
    torch.manual_seed(0)
    return gm.Classifier("vit_micro_patch8_64", classes, **{**SMALL, **options})


def head_weight(model: gm.Classifier) -> Tensor:
    weight = model.head[0].weight
    assert isinstance(weight, Tensor)
    return weight


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class TestTuning:
    @pytest.mark.parametrize("decay", [0.5, 0.99])
    def test_the_average_is_that_of_a_plain_computation(self, decay: float) -> None:
        tuning = Tuning(a_classifier(), decay)
        weight = head_weight(tuning.classifier)
        wanted = weight.detach().clone().double()
        for step in range(20):
            with torch.no_grad():
                weight += noise(*weight.shape, seed=step)
            tuning.after_step(0.5)
            now = min(decay, (1 + step) / (10 + step))
            wanted = now * wanted + (1 - now) * weight.detach().double()
        assert tuning.average is not None
        assert torch.allclose(head_weight(tuning.average).double(), wanted, atol=1e-5)
        assert not torch.equal(head_weight(tuning.average), weight)
        assert tuning.best is tuning.average
        assert not any(one.requires_grad for one in tuning.average.parameters())

    def test_the_average_is_used_when_asked_for_and_travels_in_the_state(self) -> None:
        tuning = Tuning(a_classifier(), 0.9).eval()
        with torch.no_grad():
            head_weight(tuning.classifier).add_(1)
        given = noise(2, 3, 16, 16)
        assert not torch.allclose(tuning(given), tuning(given, average=True))
        tuning.after_step(0.5)
        again = Tuning(a_classifier(), 0.9).eval()
        again.load_state_dict(tuning.state_dict())
        for one in (tuning, again):
            with torch.no_grad():
                head_weight(one.classifier).add_(1)
            one.after_step(0.5)
        assert torch.equal(tuning(given, average=True), again(given, average=True))

    def test_without_an_average_the_classifier_is_measured(self) -> None:
        tuning = Tuning(a_classifier()).eval()
        tuning.after_step(0.5)
        given = noise(2, 3, 16, 16)
        assert torch.equal(tuning(given), tuning(given, average=True))
        assert tuning.best is tuning.classifier
        assert not any(name.startswith("average") for name in tuning.state_dict())
        with pytest.raises(ValueError, match=r"outside \[0, 1\)"):
            Tuning(a_classifier(), 1.0)

    @pytest.mark.parametrize("options", [{}, {"fc_norm": True}, {"reg_tokens": 2}], ids=str)
    def test_layers_learn_at_powers_of_the_decay(self, options: dict[str, Any]) -> None:
        model = a_classifier(**options)
        scales = layer_scales(model, 0.5)
        learnt = {name for name, _ in model.named_parameters()}
        assert set(scales) == {name for name in learnt if name.startswith("encoder.")}
        for name, scale in scales.items():
            layer = name.removeprefix("encoder.").split(".")
            if layer[0] == "blocks":
                assert scale == 0.5 ** (3 - int(layer[1]))
            else:
                assert scale == (0.5 if "norm" in layer[0] else 0.5**4), name
        assert set(layer_scales(model, 1.0).values()) == {1.0}

    def test_layers_learn_as_in_timm(self) -> None:
        from timm.optim._param_groups import param_groups_layer_decay

        vit: Any = timm.create_model("vit_tiny_patch16_224", depth=3, num_classes=4)
        theirs = {id(one): group["lr_scale"] for group in param_groups_layer_decay(vit, layer_decay=0.7) for one in group["params"]}
        vit_names = {name: theirs[id(one)] for name, one in vit.named_parameters()}
        vit.reset_classifier(0)
        ours = layer_scales(gm.Classifier(vit, 4), 0.7)
        assert all(ours[f"encoder.{name}"] == pytest.approx(scale) for name, scale in vit_names.items() if "head" not in name)
        assert vit_names["head.weight"] == 1


class TestAugmentation:
    def test_the_strength_of_one_class_is_deits_and_that_of_several_labels_mc_ssls(self) -> None:
        config = FinetuneConfig()
        one, several = strength(config, multi_label=False), strength(config, multi_label=True)
        assert (one.smoothing, one.mixup, one.cutmix, one.erasing, one.scale) == (0.1, 0.8, 1.0, 0.25, (0.08, 1.0))
        assert (several.smoothing, several.mixup, several.cutmix, several.erasing, several.scale) == (0, 0, 0, 0, None)
        assert one.mixes
        assert not several.mixes
        told = strength(replace(config, mixup=0.0, cutmix=0.0, smoothing=0.0, erasing=0.0), multi_label=False)
        assert (told.mixes, told.smoothing, told.erasing) == (False, 0, 0)

    @pytest.mark.parametrize(
        ("change", "several", "message"),
        [
            ({"smoothing": 1.5}, False, "smoothing=1.5"),
            ({"erasing": -0.1}, False, "erasing=-0.1"),
            ({"flip": float("nan")}, False, "flip=nan"),
            ({"mixup": -1.0}, False, "mixup=-1.0"),
            ({"scale": (0.5, 0.1)}, False, "scale="),
            ({"mixup": 0.8}, True, "mixup=0.8 cannot be combined with several labels"),
            ({"smoothing": 0.1}, True, "smoothing=0.1 cannot be combined with several labels"),
        ],
        ids=str,
    )
    def test_strengths_that_are_refused(self, change: dict[str, Any], several: bool, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            strength(replace(FinetuneConfig(), **change), multi_label=several)

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("several", [False, True])
    def test_the_transform_repeats_under_a_key_and_differs_between_keys(self, channels: int, several: bool) -> None:
        config = FinetuneConfig()
        model = a_classifier(in_chans=channels, multi_label=several, mean=(0.4,) * channels, std=(0.3,) * channels)
        transform = training_transform(config, model, strength(config, multi_label=several))
        assert transform is not None
        pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).convert("L" if channels == 1 else "RGB")
        found: list[Tensor] = []
        for key in (1, 1, 2, 3):
            random.seed(key + len(found))  # must not matter
            with seeded(key):
                found.append(transform(image))
        assert torch.equal(found[0], found[1])
        assert not torch.equal(found[0], found[2])
        assert not torch.equal(found[2], found[3])
        assert all(one.shape == (channels, 16, 16) and one.dtype == torch.float32 and one.isfinite().all() for one in found)

    @pytest.mark.parametrize("policy", ["rand-m10-n4-inc1", "rand-m0-n4", "original", "augmix-m10"])
    def test_policies_run_at_their_ends(self, policy: str) -> None:
        config = FinetuneConfig(auto_augment=policy)
        transform = training_transform(config, a_classifier(), strength(config, multi_label=False))
        assert transform is not None
        image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8))
        for key in range(60):  # Pillow 13 refuses a posterize of no bits, which timm asks of it at the end of its scale
            with seeded(key):
                assert transform(image).isfinite().all()

    def test_several_labels_show_the_whole_image_normalised(self) -> None:
        config = FinetuneConfig(auto_augment=None, flip=0.0)
        model = a_classifier(multi_label=True, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
        transform = training_transform(config, model, strength(config, multi_label=True))
        assert transform is not None
        pixels = np.zeros((64, 32, 3), dtype=np.uint8)
        pixels[:16] = 255  # the upper quarter is white
        seen = transform(Image.fromarray(pixels))
        assert torch.allclose(seen[:, :3], torch.tensor(2.0), atol=0.2)
        assert torch.allclose(seen[:, 5:], torch.tensor(-2.0), atol=0.2)

    def test_crops_and_flips_alone_need_no_transform(self) -> None:
        for none in (None, "none", ""):
            config = FinetuneConfig(auto_augment=none, erasing=0.0, scale=(0.3, 0.9), flip=0.25)
            how, model = strength(config, multi_label=False), a_classifier(in_chans=5)
            assert training_transform(config, model, how) is None
            plan = view_plan(config, model, how)
            assert (plan.size, plan.views, plan.scale, plan.flip, plan.jitter_p, plan.blur_p) == (
                (16, 16),
                1,
                (0.3, 0.9),
                0.25,
                0,
                0,
            )
            assert (plan.mean, plan.std) == (model.mean, model.std)

    def test_a_policy_that_timm_does_not_know_and_channels_that_pillow_does_not(self) -> None:
        config = FinetuneConfig(auto_augment="rainbow")
        with pytest.raises(UsageError, match="auto_augment='rainbow'"):
            training_transform(config, a_classifier(), strength(config, multi_label=False))
        config = FinetuneConfig()
        with pytest.raises(UsageError, match="these images have 5"):
            training_transform(config, a_classifier(in_chans=5), strength(config, multi_label=False))

    def test_the_centre_crop_is_what_the_weights_record(self, tmp_path: Path) -> None:
        for size in (16, 160):
            a_classifier(img_size=size).save_pretrained(tmp_path / str(size))
            told = json.loads((tmp_path / str(size) / "config.json").read_text())["pretrained_cfg"]["crop_pct"]
            assert centre_of((size, size)) == told


class TestMixing:
    HOW = Strength(smoothing=0.1, mixup=0.8, cutmix=1.0, erasing=0.0, scale=None)

    def test_it_repeats_under_a_key_and_leaves_images_and_chance_alone(self) -> None:
        images, labels = noise(8, 3, 16, 16), torch.arange(8) % 4
        before, state = images.clone(), np.random.get_state(legacy=False)
        mixing = Mixing(self.HOW, 4)
        first, again, other = (mixing(images, labels, key) for key in (5, 5, 6))
        assert torch.equal(images, before)
        assert str(np.random.get_state(legacy=False)) == str(state)
        assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
        assert not torch.equal(first[0], other[0])

    def test_targets_say_what_the_images_are_made_of(self) -> None:
        images = torch.eye(4).repeat(2, 1)[:, :, None, None].expand(8, 4, 16, 16).contiguous()  # channel c is 1 for class c
        labels = torch.arange(4).repeat(2)
        for key in range(12):
            mixed, targets = Mixing(replace(self.HOW, smoothing=0.0), 4)(images, labels, key)
            assert torch.allclose(mixed.mean((2, 3)), targets, atol=1e-5)
            assert torch.allclose(targets.sum(1), torch.ones(8))

    def test_smoothing(self) -> None:
        _, targets = Mixing(self.HOW, 4)(noise(8, 3, 16, 16), torch.zeros(8, dtype=torch.long), 0)
        assert torch.allclose(targets[0], torch.tensor([0.925, 0.025, 0.025, 0.025]))


class TestLoss:
    def test_one_class_is_the_loss_of_timm(self) -> None:
        scores, labels = noise(6, 4), torch.arange(6) % 4
        smooth: Any = LabelSmoothingCrossEntropy  # without types
        soft: Any = SoftTargetCrossEntropy
        assert torch.allclose(loss_of(scores, labels, multi_label=False, smoothing=0.1), smooth(0.1)(scores, labels))
        targets = noise(6, 4, seed=1).softmax(1)
        assert torch.allclose(loss_of(scores, targets, multi_label=False), soft()(scores, targets))

    def test_several_labels_are_the_mean_of_equation_5(self) -> None:
        scores, labels = noise(6, 4), (noise(6, 4, seed=1) > 0).float()
        p = scores.double().sigmoid()
        plain = -torch.where(labels > 0, p.log(), p**4 * (1 - p).log()).mean()
        found = loss_of(scores, labels, multi_label=True)
        assert float(found) == pytest.approx(float(plain), rel=1e-5)
        theirs = AsymmetricLossMultiLabel(gamma_neg=4, gamma_pos=0, clip=0)
        assert float(found) == pytest.approx(float(theirs(scores.reshape(1, -1), labels.reshape(1, -1))) / 24, rel=1e-5)

    def test_low_precision_is_widened(self) -> None:
        scores, labels = noise(6, 4).bfloat16(), torch.arange(6) % 4
        assert loss_of(scores, labels, multi_label=False).dtype == torch.float32
        assert loss_of(scores, torch.eye(4)[labels], multi_label=False).dtype == torch.float32


@pytest.mark.parametrize(
    "config",
    [
        FinetuneConfig(data="a folder/x", epochs=3, cpu=True, scale=(0.2, 0.9), multi_label=False, auto_augment=None, mixup=0.0),
        FinetuneConfig(out=Path("o"), weights="w", mean=(0.1, 0.2, 0.3), resident=True, stop_after=1.5),
        EvaluateConfig(weights="w", data="d", measures=("knn", "classifier"), seeds=(4,), pool="both", few_shot=0.1),
    ],
    ids=str,
)
def test_the_command_of_a_config_gives_the_config(config: Any) -> None:
    import shlex

    import tyro

    words = shlex.split(command_of(config, "name"))
    assert words[:2] == ["gmml", "name"]
    assert tyro.cli(type(config), args=words[2:], config=(tyro.conf.FlagCreatePairsOff,)) == config


def test_a_published_command_has_no_paths_of_this_machine(tmp_path: Path) -> None:
    config = FinetuneConfig(data=str(tmp_path), weights="org/name", out=tmp_path / "out")
    assert command_of(config, "finetune", bare=True) == f"gmml finetune --data {tmp_path.name} --weights org/name"
