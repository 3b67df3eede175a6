"""What weights are compared with: each feature is what its name says, and is measured as the weights are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import gmml_models as gm
from gmml_models.data.loaders import ViewPlan, in_order
from gmml_models.data.sources import open_source
from gmml_models.errors import UsageError
from gmml_models.evaluate.baselines import HANDMADE, WORDS, colour_histogram, handmade, hog, pca, thumbnails
from gmml_models.evaluate.knn import knn
from gmml_models.evaluate.metrics import measure
from gmml_models.recipes.baseline_features import untrained
from gmml_models.recipes.config import EvaluateConfig, PretrainConfig
from gmml_models.recipes.evaluation import evaluate
from gmml_models.recipes.finetune_augment import centre_of
from gmml_models.recipes.pretraining import build_objective
from tests.models.data_files import write_classes

SMALL: dict[str, Any] = {"depth": 2, "img_size": 32, "patch_size": 8, "embed_dim": 32, "num_heads": 2}


def photographs() -> Tensor:
    """(4, 3, 64, 64) in [0, 1]: squares of real photographs."""
    data = pytest.importorskip("skimage.data")
    corners = [("astronaut", 0, 180), ("chelsea", 60, 150), ("coffee", 100, 200), ("rocket", 100, 200)]
    squares = [getattr(data, name)()[top : top + 64, left : left + 64] for name, top, left in corners]
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float() / 255


def test_hog_is_that_of_scikit_image() -> None:
    images = photographs()
    feature: Any = pytest.importorskip("skimage.feature")
    theirs = [
        feature.hog(one.permute(1, 2, 0).numpy(), orientations=9, pixels_per_cell=(8, 8), cells_per_block=(2, 2), channel_axis=-1)
        for one in images
    ]
    assert np.abs(hog(images).numpy() - np.stack(theirs)).max() < 1e-6
    grey: Any = feature.hog(images[0, 0].numpy(), orientations=9, pixels_per_cell=(8, 8), cells_per_block=(2, 2))
    assert np.abs(hog(images[:1, :1]).numpy() - grey).max() < 1e-6
    assert hog(torch.rand(2, 3, 100, 80)).shape == hog(torch.rand(2, 5, 32, 32)).shape == (2, 1764)


def test_the_histogram_counts_the_colours_of_all_pixels() -> None:
    images = photographs()
    found = colour_histogram(images).square() * 64 * 64
    for one, counted in zip(images, found, strict=True):
        theirs, _ = np.histogramdd(one.flatten(1).T.numpy(), bins=8, range=[(0, 1)] * 3)
        assert np.abs(counted.numpy() - theirs.flatten()).max() < 1e-2
    shuffled = images.flatten(2)[:, :, torch.randperm(64 * 64)].view_as(images)
    assert torch.equal(colour_histogram(shuffled), colour_histogram(images))
    assert colour_histogram(torch.ones(2, 1, 8, 8)).shape == (2, 32)
    assert torch.allclose(colour_histogram(torch.ones(2, 4, 8, 8)).square().sum(1), torch.tensor(4.0))


def test_a_thumbnail_has_the_average_of_each_of_its_squares() -> None:
    images = photographs()
    averages = images.view(4, 3, 8, 8, 8, 8).mean((3, 5))
    assert torch.allclose(thumbnails(images), averages.flatten(1) - 0.5, atol=1e-6)


def test_the_directions_are_those_of_the_training_images_alone() -> None:
    spread = 60 / torch.arange(1, 61) ** 1.5  # so that the first directions are far from equal
    train = (128 + spread * torch.randn(40, 60, generator=torch.Generator().manual_seed(0))).clamp(0, 255).round().byte()
    test = train[:7].flip(1)
    known, given = pca(train, test, 5)
    exact = np.linalg.svd(train.double().numpy() - train.double().numpy().mean(0))[2][:5]
    theirs = (train.double().numpy() - train.double().numpy().mean(0)) @ exact.T / 255
    assert np.abs(np.abs(known.numpy()) - np.abs(theirs)).max() < 0.01
    assert given.shape == (7, 5)
    assert torch.allclose(pca(train, test[:1], 5)[1], given[:1], atol=1e-5)
    assert pca(train[:3], test, 128)[0].shape == (3, 3)


def test_the_untrained_encoder_is_the_one_that_pretraining_begins_with() -> None:
    began = build_objective(PretrainConfig(model="vit_micro_patch4_32", seed=3)).autoencoder.encoder
    encoder = gm.GMMLAutoencoder("vit_micro_patch4_32").encoder
    before = torch.random.get_rng_state()
    blank = untrained(encoder, 3)
    assert torch.equal(torch.random.get_rng_state(), before)
    for (name, one), (_, other) in zip(began.state_dict().items(), blank.state_dict().items(), strict=True):
        assert torch.equal(one, other), name
    drawn: Any = untrained(encoder, 4)
    assert not torch.equal(drawn.pos_embed, cast(Any, blank).pos_embed)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_classes(folder / "train", {"a": 12, "b": 11, "c": 10})
    write_classes(folder / "test", {"a": 4, "b": 4, "c": 4}, first=100)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(1)
    gm.GMMLAutoencoder("vit_micro_patch8_64", **SMALL).save_pretrained(folder)
    return folder


def told(data: Path, weights: Path, out: Path, **options: Any) -> EvaluateConfig:
    given: dict[str, Any] = {"data": str(data), "weights": str(weights), "out": out, "k": 5, "workers": 0, "cpu": True, **options}
    return EvaluateConfig(**given, baselines=True, pool="mean", seeds=(0, 1))


def test_baselines_stand_beside_the_weights_by_every_measure(data: Path, weights: Path, tmp_path: Path) -> None:
    config = told(data, weights, tmp_path)
    rows = evaluate(config)
    assert [row.features for row in rows[::3]] == ["weights", *WORDS]
    assert {row.measure for row in rows} == {"5-NN, weighted", "5-NN, plain", "linear probe"}
    alone = evaluate(replace(config, baselines=False, out=tmp_path / "alone"))
    assert [row.values for row in alone] == [row.values for row in rows[:3]]
    written = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [(one["features"], one["measure"]) for one in written] == [(row.features, row.measure) for row in rows]
    text = (tmp_path / "table.md").read_text()
    for words in WORDS.values():
        assert f"| {words} | linear probe |" in text
    assert "features" not in (tmp_path / "alone" / "table.md").read_text().splitlines()[0]
    assert "--baselines" in rows[0].command
    by_kind = {(row.features, row.measure): row for row in rows}
    assert by_kind["untrained", "5-NN, weighted"].seeds == (0, 1)
    assert by_kind["thumbnails", "5-NN, weighted"].seeds == ()


def test_a_baseline_is_measured_on_the_images_that_the_weights_see(data: Path, weights: Path, tmp_path: Path) -> None:
    rows = evaluate(told(data, weights, tmp_path, measures=("knn",)))
    found = {row.features: row.values for row in rows if row.measure == "5-NN, weighted"}
    seen, labels = {}, {}
    for split in ("train", "test"):
        plan = ViewPlan(size=(32, 32), views=1, centre=centre_of((32, 32)), mean=(0.0,) * 3, std=(1.0,) * 3)
        source = open_source(EvaluateConfig(data=str(data), split=split), purpose="train")
        (batch,) = in_order(source, plan, batch_size=64, workers=0)
        assert batch.labels is not None
        seen[split], labels[split] = batch.views[0], batch.labels
        by_hand = []
        for file in sorted((data / split).glob("*/*.*")):
            with Image.open(file) as image:
                side = min(image.size)
                left, top = (image.width - side) // 2, (image.height - side) // 2
                square = image.convert("RGB").crop((left, top, left + side, top + side)).resize((32, 32), Image.Resampling.BICUBIC)
            by_hand.append(torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255)
        assert (torch.stack(by_hand) - seen[split]).abs().mean() < 0.03  # Pillow's centre squares, but for rounding
    for kind, make in {"thumbnails": thumbnails, "hog": hog}.items():
        scores = knn(make(seen["train"].clamp(0, 1)), labels["train"], make(seen["test"].clamp(0, 1)), k=5)
        assert found[kind]["top1"] == pytest.approx(measure(scores, labels["test"])["top1"], abs=1e-3), kind


def test_there_must_be_something_that_measures_them(data: Path, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Add knn or linear"):
        evaluate(told(data, weights, tmp_path / "out", measures=("classifier",)))
    with pytest.raises(ValueError, match="no images were given"):
        handmade([])
    assert set(HANDMADE) < set(WORDS)
