"""The classifier: what its head sees, what travels with it, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import gmml_models as gm
from gmml_models.data.sampling import Batch
from gmml_models.errors import NotThereError, WrongBytesError, WrongKeysError
from gmml_models.evaluate.features import features
from gmml_models.hub import folder as hub
from gmml_models.hub.model_card import model_card
from gmml_models.models import pretrained
from gmml_models.models.pooling import Pool, pooled

SMALL: dict[str, Any] = {"depth": 2, "img_size": 32, "patch_size": 8, "embed_dim": 32, "num_heads": 2}


def a_classifier(classes: Any = 5, seed: int = 0, **options: Any) -> gm.Classifier:
    torch.manual_seed(seed)
    return gm.Classifier("vit_micro_patch8_64", classes, **{**SMALL, **options}).eval()


def images(count: int = 3, channels: int = 3, height: int = 32, width: int = 32) -> Tensor:
    return torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(1))


class TestPooling:
    """Against tokens that are computed layer by layer."""

    @staticmethod
    def tokens(model: gm.Classifier, given: Tensor) -> Tensor:
        vit: Any = model.encoder
        patches = vit.patch_embed.proj(given).flatten(2).transpose(1, 2)
        parts = [part.expand(len(given), -1, -1) for part in (vit.cls_token, vit.reg_token) if part is not None]
        now = torch.cat([*parts, patches], dim=1)
        now = now + vit.pos_embed if not vit.no_embed_class else torch.cat([*parts, patches + vit.pos_embed], dim=1)
        for block in vit.blocks:
            now = block(now)
        norm = vit.norm if not isinstance(vit.norm, nn.Identity) else vit.fc_norm
        return nn.functional.layer_norm(now, (now.shape[-1],), norm.weight, norm.bias, norm.eps)

    @pytest.mark.parametrize("options", [{}, {"reg_tokens": 3, "no_embed_class": True}, {"fc_norm": True}], ids=str)
    @pytest.mark.parametrize("pool", ["token", "mean", "both"])
    def test_the_head_sees_what_the_pool_says(self, pool: Pool, options: dict[str, Any]) -> None:
        model = a_classifier(pool=pool, **options)
        vit: Any = model.encoder
        nn.init.normal_(vit.fc_norm.weight if options.get("fc_norm") else vit.norm.weight)
        given = images()
        with torch.no_grad():
            tokens = self.tokens(model, given)
            first = 1 + options.get("reg_tokens", 0)
            token, mean = tokens[:, 0], torch.stack([tokens[:, place] for place in range(first, first + 16)]).sum(0) / 16
            wanted = {"token": token, "mean": mean, "both": torch.cat([token, mean], 1)}[pool]
            assert torch.allclose(pooled(model.encoder, given, pool), wanted, atol=1e-5)
            (linear,) = model.head
            assert isinstance(linear, nn.Linear)
            assert torch.allclose(model(given), wanted @ linear.weight.T + linear.bias, atol=1e-5)

    def test_without_a_class_token_only_the_mean_is_left(self) -> None:
        model = a_classifier(pool="mean", class_token=False)
        assert model(images()).shape == (3, 5)
        for pool in ("token", "both"):
            with pytest.raises(ValueError, match="needs a class token"):
                a_classifier(pool=pool, class_token=False)

    def test_features_of_batches_are_those_of_single_images_in_order(self) -> None:
        model = a_classifier(drop_path_rate=0.5).train()
        given, labels = images(7), torch.arange(7)

        batches = [
            Batch((given[first:last],), torch.zeros(last - first), labels[first:last], torch.arange(first, last))
            for first, last in ((0, 3), (3, 6), (6, 7))
        ]
        found = features(model.encoder, batches, "both")
        assert model.training
        assert model.encoder.training, "the mode must be as it was"
        assert found.labels is not None
        assert torch.equal(found.labels, labels)
        assert torch.equal(found.numbers, torch.arange(7))
        model.eval()
        alone = torch.cat([pooled(model.encoder, given[one : one + 1], "both") for one in range(7)])
        assert torch.allclose(found.vectors, alone, atol=1e-5)
        assert found.vectors.shape == (7, 64)
        assert not found.vectors.requires_grad
        with pytest.raises(ValueError, match="no images were given"):
            features(model.encoder, [])


class TestHead:
    def test_multi_label_has_a_hidden_layer_of_2048_with_gelu(self) -> None:
        model = a_classifier(["a", "b", "c"], multi_label=True)
        first, between, last = model.head
        assert isinstance(first, nn.Linear)
        assert isinstance(between, nn.GELU)
        assert isinstance(last, nn.Linear)
        assert (first.in_features, first.out_features, last.in_features, last.out_features) == (32, 2048, 2048, 3)

    def test_probabilities(self) -> None:
        one, several = a_classifier(), a_classifier(multi_label=True)
        given = images()
        assert torch.allclose(one.probabilities(given).sum(1), torch.ones(3))
        assert torch.allclose(several.probabilities(given), 1 / (1 + (-several(given)).exp()))

    def test_every_weight_learns(self) -> None:
        for pool in ("token", "mean", "both"):
            model = a_classifier(pool=pool).train()
            model(images()).square().sum().backward()
            idle = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.abs().sum()]
            assert not idle, pool


class TestTravel:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"pool": "both"},
            {"pool": "mean", "multi_label": True, "hidden": 12},
            {"in_chans": 2, "mean": (0.1, 0.2), "std": (0.5, 2.0), "img_size": (32, 16)},
            {"multi_label": True, "hidden": 0},
        ],
        ids=str,
    )
    def test_a_saved_classifier_comes_back_to_the_bit(self, tmp_path: Path, options: dict[str, Any]) -> None:
        model = a_classifier(["cat", "a dog", "Ünlü"], **options)
        model.save_pretrained(tmp_path / "model", about={"metrics": [{"name": "top1", "value": 50.0}]}, license="cc0-1.0")
        again = gm.Classifier.from_pretrained(tmp_path / "model")
        told = ("classes", "pool", "multi_label", "hidden", "mean", "std", "img_size", "patch_size", "in_chans")
        assert [getattr(again, name) for name in told] == [getattr(model, name) for name in told]
        given = images(2, model.in_chans, *model.img_size)
        assert torch.equal(again(given), model(given))
        assert not again.training
        assert all(weight.requires_grad for weight in again.parameters())

    def test_gmml_and_timm_load_its_encoder(self, tmp_path: Path) -> None:
        model = a_classifier(pool="mean")
        model.save_pretrained(tmp_path)
        given = images()
        wanted = model.encoder.forward_features(given)
        by_timm: Any = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
        assert torch.equal(by_timm.forward_features(given), wanted)
        assert torch.equal(gm.from_pretrained(tmp_path).forward_features(given), wanted)
        assert set(load_file(tmp_path / pretrained.DECODER)) == {"heads.classifier.0.weight", "heads.classifier.0.bias"}

    def test_other_tensors_beside_the_head_are_left_alone(self, tmp_path: Path) -> None:
        model = a_classifier()
        model.save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        beside = {
            **load_file(tmp_path / pretrained.DECODER),
            "heads.concepts.0.weight": torch.zeros(3),
            "decoder.0.bias": torch.zeros(2),
        }
        tensors = {pretrained.ENCODER: load_file(tmp_path / pretrained.ENCODER), pretrained.DECODER: beside}
        hub.write_folder(tmp_path, tensors=tensors, config=config, card=model_card)
        given = images()
        assert torch.equal(gm.Classifier.from_pretrained(tmp_path)(given), model(given))

    def test_the_card_tells_classes_and_does_not_speak_of_pretraining(self, tmp_path: Path) -> None:
        names = [f"kind {number} ```" for number in range(23)]
        a_classifier(names).save_pretrained(tmp_path, about={"metrics": [{"name": "top1", "value": 93.75, "command": "gmml x"}]})
        card = (tmp_path / "README.md").read_text()
        assert "fine-tuned with labels" in card
        assert "kind 19" in card
        assert "kind 20" not in card
        assert "3 more" in card
        assert "93.75" in card
        assert "has no classifier" not in card
        assert "GMMLAutoencoder" not in card
        assert 'gmml_models.Classifier.from_pretrained("NAME")' in card
        assert card.count("```") % 2 == 0

    def test_weights_of_another_size_and_channels_are_adapted(self, tmp_path: Path) -> None:
        a_classifier(depth=1).save_pretrained(tmp_path)
        plain = gm.from_pretrained(tmp_path)
        encoder = gm.from_pretrained(tmp_path, img_size=48, in_chans=1)
        assert encoder.pos_embed is not None
        assert plain.pos_embed is not None
        wanted = nn.functional.interpolate(
            plain.pos_embed[:, 1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2), (6, 6), mode="bicubic", antialias=True
        )
        assert torch.allclose(encoder.pos_embed[:, 1:], wanted.flatten(2).transpose(1, 2), atol=1e-6)
        assert torch.allclose(encoder.patch_embed.proj.weight, plain.patch_embed.proj.weight.sum(1, keepdim=True), atol=1e-6)
        assert gm.Classifier(encoder, 4)(images(2, 1, 48, 48)).shape == (2, 4)


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("classes", "options", "error", "message"),
        [
            (1, {}, ValueError, "are too few"),
            ([], {"multi_label": True}, ValueError, "are too few"),
            (["a", "b", "a"], {}, ValueError, "occur more than once"),
            ("ab", {}, TypeError, "neither a number nor a list"),
            (True, {}, TypeError, "neither a number nor a list"),
            (["a", 3], {}, TypeError, "not all strings"),
            (3, {"pool": "max"}, ValueError, "Allowed: 'token', 'mean' and 'both'"),
            (3, {"hidden": -1}, ValueError, "whole number of at least 0"),
            (3, {"hidden": 2.5}, ValueError, "whole number of at least 0"),
            (3, {"mean": (0.5,)}, ValueError, "3 finite numbers"),
            (3, {"std": (0.5, 0.5, 0.0)}, ValueError, "above 0"),
            (3, {"img_size": 30}, ValueError, "not a multiple of patch_size"),
        ],
    )
    def test_at_construction(self, classes: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            a_classifier(classes, **options)

    def test_one_label_is_enough_for_several_labels(self) -> None:
        assert a_classifier(1, multi_label=True)(images()).shape == (3, 1)

    @pytest.mark.parametrize(
        ("given", "error", "message"),
        [
            (images(channels=1), ValueError, r"not \(B, 3, H, W\)"),
            (images()[0], ValueError, r"not \(B, 3, H, W\)"),
            (images(height=30), ValueError, "to 24 x 32"),
            (images().to(torch.uint8), TypeError, "Normalise"),
        ],
        ids=["channels", "no batch", "size", "uint8"],
    )
    def test_at_the_call(self, given: Tensor, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            a_classifier()(given)

    def test_a_folder_without_a_classifier(self, tmp_path: Path) -> None:
        gm.GMMLAutoencoder(a_classifier().encoder).save_pretrained(tmp_path)
        with pytest.raises(WrongKeysError, match="holds no classifier"):
            gm.Classifier.from_pretrained(tmp_path)

    def test_an_autoencoder_of_a_classifiers_folder(self, tmp_path: Path) -> None:
        a_classifier().save_pretrained(tmp_path)
        with pytest.raises(WrongKeysError, match="no decoder of gmml"):
            gm.GMMLAutoencoder.from_pretrained(tmp_path)

    def test_a_flipped_bit_in_the_head_and_a_wrong_pin(self, tmp_path: Path) -> None:
        a_classifier().save_pretrained(tmp_path)
        with pytest.raises(WrongBytesError):
            gm.Classifier.from_pretrained(tmp_path, sha256="0" * 64)
        data = bytearray((tmp_path / pretrained.DECODER).read_bytes())
        data[-1] ^= 1
        (tmp_path / pretrained.DECODER).write_bytes(data)
        with pytest.raises(WrongBytesError):
            gm.Classifier.from_pretrained(tmp_path)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"classes": 6}, "another shape"),
            ({"classes": None}, "does not describe a classifier"),
            ({"pool": "max"}, "does not describe a classifier"),
            ({"hidden": 7}, "missing"),
        ],
        ids=str,
    )
    def test_a_config_that_does_not_fit(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        a_classifier().save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        config["gmml"]["classifier"].update(change)
        tensors = {name: load_file(tmp_path / name) for name in (pretrained.ENCODER, pretrained.DECODER)}
        hub.write_folder(tmp_path, tensors=tensors, config=config, card=model_card)
        with pytest.raises(WrongKeysError, match=r"(?i)" + message):
            gm.Classifier.from_pretrained(tmp_path)

    def test_a_name_that_is_nothing(self) -> None:
        with pytest.raises(NotThereError):
            gm.Classifier.from_pretrained("no/such/folder/here")
