"""What the decoder makes of single blocks: against the model itself, and against what was corrupted."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import gmml_aug as ga
import gmml_models as gm
from gmml_models.figures import corruptions, reconstructions
from gmml_models.models.patches import patch_statistics

SMALL: dict[str, Any] = {"embed_dim": 32, "depth": 4, "num_heads": 2, "img_size": 32, "patch_size": 8}
RGB = ((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
KEYS = ga.keys(3, 0, range(4))


def small(**options: Any) -> gm.GMMLAutoencoder:
    torch.manual_seed(0)
    return gm.GMMLAutoencoder("vit_tiny_patch16_224", **{**SMALL, **options}).eval()


def images(count: int = 4, size: tuple[int, int] = (32, 32), channels: int = 3) -> Tensor:
    return torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(1))


MODELS: list[dict[str, Any]] = [
    {},
    {"blocks": (1, 4), "decoder": "release"},
    {"blocks": (2,), "decoder": "mc_ssl"},  # the last block has no part in it
    {"global_pool": "avg", "class_token": True},  # the final norm has its other name
    {"class_token": False, "global_pool": "", "img_size": (32, 16), "in_chans": 1},
    {"reg_tokens": 2, "patch_size": (4, 8)},
]


@pytest.mark.parametrize("options", MODELS)
def test_the_average_is_what_the_model_returns(options: dict[str, Any]) -> None:
    model = small(**options)
    clean = images(size=model.img_size, channels=model.in_chans)
    found = reconstructions(model, clean, corrupt=corruptions()["noise"], keys=KEYS)
    with torch.no_grad():
        assert torch.allclose(found.fused, model(found.corrupted), atol=1e-6)
    assert found.blocks == (1, 2, 3, 4)
    assert found.by_block.shape == (4, *clean.shape)


def test_normalised_patches_are_shown_in_pixels_with_the_statistics_of_the_clean_ones() -> None:
    model, clean = small(target="normalised"), images() * 2.0 + 3.0
    found = reconstructions(model, clean, corrupt=corruptions()["noise"], keys=KEYS)
    torch.testing.assert_close(found.fused, model.restore(found.corrupted, clean=clean))
    wanted = patch_statistics(clean, 8)
    with torch.no_grad():
        said = model(found.corrupted)
    back = (found.fused.unflatten(2, (4, 8)).unflatten(4, (4, 8)) - wanted.mean[:, :, :, None, :, None]) / wanted.std[
        :, :, :, None, :, None
    ]
    torch.testing.assert_close(back.reshape(clean.shape), said, rtol=1e-3, atol=1e-3)
    assert (found.by_block.mean() - 3.0).abs() < 0.5


@pytest.mark.parametrize("options", MODELS)
def test_a_block_is_decoded_as_if_it_were_the_only_one(options: dict[str, Any]) -> None:
    model = small(**options)
    clean = images(size=model.img_size, channels=model.in_chans)
    found = reconstructions(model, clean, corrupt=corruptions()["alien"], keys=KEYS, blocks=(1, 3, 4))
    for block, restored in zip(found.blocks, found.by_block, strict=True):
        alone = copy.deepcopy(model)
        alone.blocks = (block,)
        with torch.no_grad():
            assert torch.allclose(restored, alone(found.corrupted), atol=1e-6)
    assert (found.by_block[0] - found.by_block[2]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["noise", "alien"])
def test_the_mask_is_true_where_pixels_are_others(kind: str) -> None:
    clean = images()
    found = reconstructions(small(), clean, corrupt=corruptions(RGB)[kind], keys=KEYS)
    assert torch.equal((found.corrupted != clean).any(1, keepdim=True), found.mask)
    assert (found.mask.sum((1, 2, 3)) == round(0.3 * 32 * 32)).all()  # to the pixel, in every image
    again = corruptions(RGB)[kind](clean, keys=KEYS)
    assert torch.equal(found.corrupted, again.images)


def test_alien_content_is_that_of_another_image_and_noise_is_not() -> None:
    clean = images()
    taken = {}
    for kind, corrupt in corruptions(RGB, ratio=0.5).items():
        found = reconstructions(small(), clean, corrupt=corrupt, keys=KEYS)
        same = (found.corrupted[:, None] == clean[None]).all(2) | ~found.mask  # (B, donors, H, W)
        taken[kind] = same.flatten(2).all(2).float()
        assert (found.mask.sum((1, 2, 3)) == 32 * 32 // 2).all()
    assert (taken["alien"].sum(1) == 1).all()
    assert taken["alien"].diagonal().sum() == 0
    assert taken["noise"].sum() == 0


def test_errors_are_means_over_the_corrupted_pixels_alone() -> None:
    clean = images()
    allowed = torch.ones(4, 1, 32, 32, dtype=torch.bool)
    allowed[2] = False
    found = reconstructions(small(), clean, corrupt=corruptions()["noise"], keys=KEYS, blocks=(2, 4))
    found = found._replace(mask=found.mask & allowed)
    errors = found.errors(clean)
    assert errors.shape == (3, 4)
    for row, restored in enumerate([*found.by_block, found.fused]):
        for number in (0, 1, 3):
            where = found.mask[number].expand(3, -1, -1)
            assert torch.isclose(errors[row, number], (restored[number] - clean[number]).abs()[where].mean())
    assert (errors[:, 2] == 0).all()


def test_the_model_is_as_it_was_and_was_asked_in_evaluation_mode() -> None:
    options: dict[str, Any] = {"proj_drop_rate": 0.5, "drop_path_rate": 0.5}
    calm = reconstructions(small(**options), images(), corrupt=corruptions()["noise"], keys=KEYS)
    model = small(**options).train()
    model.decoder.eval()
    found = reconstructions(model, images(), corrupt=corruptions()["noise"], keys=KEYS)
    assert torch.equal(found.by_block, calm.by_block)
    assert model.encoder.training
    assert not model.decoder.training
    assert not found.by_block.requires_grad
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"model": small().encoder}, TypeError, "has no decoder. Give a GMMLAutoencoder"),
        ({"blocks": (0, 1)}, ValueError, "blocks=.* ascending whole numbers from 1 to 4"),
        ({"blocks": (2, 1)}, ValueError, "ascending"),
        ({"blocks": ()}, ValueError, "ascending"),
        ({"images": images(size=(32, 30))}, ValueError, "not a whole number of patches"),
        ({"images": images().byte()}, TypeError, "not a float type"),
        ({"keys": ga.keys(3, 0, range(3))}, ValueError, "keys"),
        ({"images": images(1), "keys": ga.keys(3, 0, range(1))}, ValueError, "a donor must be another image"),
    ],
)
def test_what_cannot_be_shown_is_refused(change: dict[str, Any], error: type[Exception], says: str) -> None:
    given: dict[str, Any] = {"model": small(), "images": images(), "corrupt": corruptions()["alien"], "keys": KEYS, **change}
    with pytest.raises(error, match=says):
        reconstructions(given.pop("model"), given.pop("images"), **given)
