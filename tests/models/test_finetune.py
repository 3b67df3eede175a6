"""Whole fine-tuning runs on folders of a few images: what they leave, how they go on, what they refuse."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import gmml_models as gm
from gmml_models.cli.train import Finetune
from gmml_models.errors import UsageError
from gmml_models.evaluate.metrics import MULTI_LABEL
from gmml_models.recipes.config import EvaluateConfig, FinetuneConfig
from gmml_models.recipes.evaluation import evaluate
from gmml_models.recipes.finetune_augment import Mixing
from gmml_models.recipes.finetuning import finetune
from gmml_models.recipes.labelled_data import open_labelled
from gmml_models.train.run_folder import read_rows

SMALL: dict[str, Any] = {"depth": 3, "img_size": 16, "patch_size": 8, "embed_dim": 16, "num_heads": 2}


def stripes(kind: int, seed: int, side: int = 20) -> Image.Image:
    """Red and horizontal, green and vertical, or blue and chequered; noise on top."""
    chance = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] // 3
    pattern = (rows % 2, columns % 2, (rows + columns) % 2)[kind]
    pixels = chance.integers(0, 120, (side, side, 3))
    pixels[:, :, kind] += 130 * pattern
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training images of three classes, and 9 test images."""
    folder = tmp_path_factory.mktemp("classes")
    for split, count in (("train", 8), ("test", 3)):
        for kind, name in enumerate(("red", "green", "blue")):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                stripes(kind, 100 * kind + number + (50 if split == "test" else 0)).save(folder / split / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training images with any of four labels, the last of which the 8 test images never have."""
    folder = tmp_path_factory.mktemp("labels")
    lines = ["file,red,green,blue,rare"]
    for split, count in (("train", 24), ("test", 8)):
        (folder / split).mkdir()
        for number in range(count):
            has = [(number >> bit) & 1 for bit in range(3)]
            pixels = np.random.default_rng(number + count).integers(0, 100, (20, 24, 3))
            pixels[:, :, [bit for bit in range(3) if has[bit]]] += 150
            Image.fromarray(pixels.astype(np.uint8)).save(folder / split / f"{number}.png")
            lines.append(f"{split}/{number}.png," + ",".join(map(str, [*has, int(split == "train" and number % 5 == 0)])))
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small autoencoder, for images of 16 x 16."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(3)
    model = gm.GMMLAutoencoder("vit_micro_patch8_64", mean=(0.4, 0.4, 0.4), std=(0.3, 0.3, 0.3), **SMALL)
    model.save_pretrained(folder, about={"objective": "mc_ssl"})
    return folder


def told(data: Path, out: Path, weights: Path | None, **options: Any) -> FinetuneConfig:
    given: dict[str, Any] = {
        "data": str(data),
        "out": out,
        "weights": None if weights is None else str(weights),
        "epochs": 2,
        "batch_size": 8,
        "warmup_epochs": 0.0,
        "workers": 0,
        "cpu": True,
        **options,
    }
    return FinetuneConfig(**given)


def weights_of(out: Path) -> dict[str, Tensor]:
    return {
        f"{name}:{key}": value
        for name in ("model", "decoder")
        for key, value in load_file(out / "weights" / f"{name}.safetensors").items()
    }


def rows_of(out: Path) -> list[dict[str, Any]]:
    return read_rows(out / "epochs.jsonl")


class TestRuns:
    def test_a_dry_run_says_what_it_would_take_and_leaves_nothing(
        self, classes: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        finetune(told(classes, tmp_path / "run", pretrained, dry_run=True, epochs=100, accumulate=2, mixup=0.0, cutmix=0.0))
        said = capsys.readouterr().out
        assert "steps: 300 = 100 epochs of 3 (24 images)" in said
        assert "for 4 images at once (2 parts a step)" in said
        assert "time: " in said
        assert "measured with 4 images per step" in said
        assert not (tmp_path / "run").exists()

    def test_a_run_learns_measures_and_leaves_a_classifier(
        self, classes: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "run"
        config = told(
            classes, out, pretrained, epochs=20, lr=0.1, mixup=0.0, cutmix=0.0, auto_augment=None, erasing=0.0, scale=(0.7, 1.0)
        )
        outcome = finetune(config)
        assert outcome.finished
        assert outcome.steps == 60
        rows = rows_of(out)
        assert [int(row["epoch"]) for row in rows] == list(range(1, 21))
        assert all("top5" not in row for row in rows), "three classes have no five best"
        assert float(rows[-1]["top1"]) > 60, "chance is 33"
        model = gm.Classifier.from_pretrained(out / "weights")
        assert model.classes == ("blue", "green", "red")
        assert (model.pool, model.mean) == ("mean", (0.4, 0.4, 0.4)), "MC-SSL's, and its normalisation"
        right = 0
        for place, name in enumerate(model.classes):
            for file in sorted((classes / "test" / name).iterdir()):
                pixels = torch.from_numpy(np.asarray(Image.open(file).resize((16, 16), Image.Resampling.BICUBIC)).copy())
                given = (pixels.permute(2, 0, 1)[None] / 255 - 0.4) / 0.3
                right += int(model(given).argmax()) == place
        assert abs(100 * right / 9 - float(rows[-1]["top1"])) < 12, "what is saved is what was measured"
        said = capsys.readouterr().out
        assert f"top1 {float(rows[-1]['top1']):.2f}" in said
        assert "gmml evaluate --weights" in said
        card = (out / "weights" / "README.md").read_text()
        assert "gmml finetune" in card
        assert str(tmp_path) not in card
        assert str(classes.parent) not in card

    @pytest.mark.parametrize("ema", [0.0, 0.9])
    def test_the_best_epoch_is_kept_and_measures_what_it_says(
        self, classes: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], ema: float
    ) -> None:
        config = told(classes, tmp_path / "run", pretrained, epochs=8, lr=0.5, ema=ema)
        outcome = finetune(config)
        measured = [float(row["top1"]) for row in outcome.history]
        best = measured.index(max(measured))  # the first of equals
        out = tmp_path / "run" / "weights-best"
        told_of_it = json.loads((out / "config.json").read_text())["gmml"]["metrics"][0]
        assert told_of_it["value"] == pytest.approx(max(measured), abs=0.01)
        assert told_of_it["measured_by"] == (
            f"gmml finetune, epoch {best + 1}, chosen by the 9 test images on which it is measured"
        )
        again = evaluate(
            EvaluateConfig(
                weights=str(out), data=str(classes), measures=("classifier",), out=tmp_path / "table", workers=0, cpu=True
            )
        )
        assert again[0].values["top1"] == pytest.approx(max(measured), abs=1e-3)
        said = capsys.readouterr().out
        assert f"Its weights: {out}" in said
        # and one that was stopped after each step keeps the same
        stopped = replace(config, out=tmp_path / "stopped")
        while not finetune(replace(stopped, stop_after=0.0)).finished:
            pass
        one, two = (load_file(run / "weights-best" / "model.safetensors") for run in (tmp_path / "run", tmp_path / "stopped"))
        assert all(torch.equal(one[name], two[name]) for name in one)
        assert not finetune(replace(config, out=tmp_path / "none", epochs=1, keep_best=False)).left_out
        assert not (tmp_path / "none" / "weights-best").exists()

    @pytest.mark.parametrize("options", [{"ema": 0.9}, {"layer_decay": 0.5, "accumulate": 2}], ids=str)
    def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
        self, classes: Path, pretrained: Path, tmp_path: Path, options: dict[str, Any]
    ) -> None:
        straight, stopped = tmp_path / "straight", tmp_path / "stopped"
        finetune(told(classes, straight, pretrained, **options))
        outcome = finetune(told(classes, stopped, pretrained, stop_after=0.0, **options))
        assert not outcome.finished
        assert outcome.steps == 1
        assert not (stopped / "weights").exists()
        assert finetune(told(classes, stopped, pretrained, checkpoint_every=1, **options)).finished
        one, two = weights_of(straight), weights_of(stopped)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[name], two[name]) for name in one)
        for first, second in zip(rows_of(straight), rows_of(stopped), strict=True):
            assert (first["loss"], first["top1"]) == (second["loss"], second["top1"])

    def test_the_learning_rate_is_meant_for_512_images_and_layers_learn_at_their_share(
        self, classes: Path, pretrained: Path, tmp_path: Path
    ) -> None:
        start = gm.from_pretrained(pretrained).state_dict()
        moved = {}
        for decay in (1.0, 0.1):
            out = tmp_path / str(decay)
            finetune(told(classes, out, pretrained, lr=0.5, layer_decay=decay, epochs=1))
            last = 1e-6 + (0.5 * 8 / 512 - 1e-6) * 0.5 * (1 + math.cos(math.pi * 2 / 2))
            assert float(rows_of(out)[0]["lr"]) == pytest.approx(last)
            now = weights_of(out)
            moved[decay] = {
                name: float((now[f"model:{name}"] - start[name]).abs().mean())
                for name in ("patch_embed.proj.weight", "norm.weight")
            }
        # Adam moves by the rate whatever the gradient: four layers from the head, and one
        assert moved[1.0]["patch_embed.proj.weight"] == pytest.approx(0.5 * 8 / 512, rel=0.7)
        assert moved[0.1]["patch_embed.proj.weight"] < 0.001 * moved[1.0]["patch_embed.proj.weight"]
        assert 0.03 < moved[0.1]["norm.weight"] / moved[1.0]["norm.weight"] < 0.3

    def test_smoothing_counts_without_mixing_too(self, classes: Path, pretrained: Path, tmp_path: Path) -> None:
        losses = []
        for smoothing in (0.0, 0.9):
            out = tmp_path / str(smoothing)
            finetune(told(classes, out, pretrained, mixup=0.0, cutmix=0.0, smoothing=smoothing, epochs=20, lr=0.1))
            losses.append(float(rows_of(out)[-1]["loss"]))
        assert losses[0] < losses[1] - 0.05

    def test_every_part_of_every_step_is_mixed_by_a_draw_of_its_own(
        self, classes: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mix, keys = Mixing.__call__, list[int]()

        def noting(self: Mixing, images: Tensor, labels: Tensor, key: int) -> tuple[Tensor, Tensor]:
            keys.append(key)
            return mix(self, images, labels, key)

        monkeypatch.setattr(Mixing, "__call__", noting)
        for name, seed in (("one", 0), ("again", 0), ("other", 1)):
            options = {"auto_augment": None, "erasing": 0.0, "scale": (0.7, 1.0)}
            finetune(told(classes, tmp_path / name, pretrained, seed=seed, accumulate=2, test_every=0, **options))
        one, again, other = keys[:12], keys[12:24], keys[24:]
        assert len(set(one) | set(other)) == 24, "two epochs of three steps in two parts"
        assert one == again

    def test_the_average_is_what_is_measured_and_saved(self, classes: Path, pretrained: Path, tmp_path: Path) -> None:
        steady: dict[str, Any] = {"test_data": str(classes / "train"), "lr": 2.0, "epochs": 4}
        finetune(told(classes, tmp_path / "plain", pretrained, **steady))
        finetune(told(classes, tmp_path / "mean", pretrained, ema=0.9, **steady))
        measured = [[row["top1"] for row in rows_of(tmp_path / name)] for name in ("plain", "mean")]
        assert measured[0] != measured[1]
        table = evaluate(
            EvaluateConfig(
                weights=str(tmp_path / "mean" / "weights"),
                data=str(classes),
                test_data=str(classes / "train"),
                measures=("classifier",),
                out=tmp_path / "table",
                workers=0,
                cpu=True,
            )
        )
        assert table[0].values["top1"] == pytest.approx(float(measured[1][-1]), abs=1e-3)
        one, two = weights_of(tmp_path / "plain"), weights_of(tmp_path / "mean")
        assert one.keys() == two.keys()
        assert not torch.equal(one["model:norm.weight"], two["model:norm.weight"])
        assert not torch.equal(two["model:norm.weight"], gm.from_pretrained(pretrained).state_dict()["norm.weight"])
        state = load_file(next((tmp_path / "mean" / "checkpoints").glob("*/state.safetensors")))
        assert torch.equal(state["model/classifier.encoder.norm.weight"], one["model:norm.weight"]), "learning goes on as without"
        assert torch.equal(state["model/average.encoder.norm.weight"], two["model:norm.weight"])

    def test_several_labels_give_the_seven_measures(self, labels: Path, pretrained: Path, tmp_path: Path) -> None:
        out = tmp_path / "run"
        finetune(told(labels, out, pretrained, epochs=12, lr=0.05))
        rows = rows_of(out)
        assert all(rows[-1][name] is not None for name in MULTI_LABEL)
        assert float(rows[-1]["mAP"]) > 60
        model = gm.Classifier.from_pretrained(out / "weights")
        assert (model.classes, model.multi_label, model.hidden) == (("red", "green", "blue", "rare"), True, 2048)

    def test_labels_that_no_test_image_has_are_not_recorded_as_numbers(self, pretrained: Path, tmp_path: Path) -> None:
        for split in ("train", "test"):
            (tmp_path / split).mkdir()
            for number in range(4):
                stripes(number % 3, number).save(tmp_path / split / f"{number}.png")
        train = "".join(f"train/{number}.png,{number % 2}\n" for number in range(4))
        (tmp_path / "labels.csv").write_text("file,odd\n" + train + "".join(f"test/{number}.png,0\n" for number in range(4)))
        finetune(told(tmp_path, tmp_path / "run", pretrained, epochs=1, batch_size=4))
        assert rows_of(tmp_path / "run")[-1]["mAP"] is None
        told_metrics = json.loads((tmp_path / "run" / "weights" / "config.json").read_text())["gmml"]["metrics"]
        assert [one["name"] for one in told_metrics] == ["OP (%)"]

    def test_from_scratch_with_another_size_and_mixing(self, classes: Path, tmp_path: Path) -> None:
        out = tmp_path / "run"
        config = told(
            classes, out, None, model="vit_micro_patch8_64", img_size=32, patch_size=16, epochs=1, in_chans=1, test_every=5
        )
        outcome = finetune(config)
        assert outcome.steps == 3
        assert rows_of(out)[-1]["top1"] is not None, "the last epoch is always measured"
        model = gm.Classifier.from_pretrained(out / "weights")
        assert (model.img_size, model.patch_size, model.in_chans, model.pool) == ((32, 32), (16, 16), 1, "token")

    def test_few_shots_are_a_share_of_each_class(self, classes: Path, pretrained: Path, tmp_path: Path) -> None:
        out = tmp_path / "run"
        outcome = finetune(told(classes, out, pretrained, few_shot=0.25, batch_size=2, epochs=1))
        assert outcome.steps == 3, "two of eight images in each of three classes"
        assert json.loads((out / "weights" / "config.json").read_text())["gmml"]["data"]["images"] == 6

    def test_the_seed_chooses_the_few_shots(self, classes: Path, tmp_path: Path) -> None:
        def chosen(seed: int) -> tuple[str, ...]:
            train = open_labelled(told(classes, tmp_path, None, few_shot=0.25, seed=seed), who="test").train
            return tuple(train.name(index) for index in range(len(train)))

        assert chosen(3) == chosen(3)
        assert len({chosen(seed) for seed in range(4)}) > 2

    def test_data_sets_in_python_and_nothing_measured(self, pretrained: Path, tmp_path: Path) -> None:
        images = [(stripes(number % 3, number), number % 3) for number in range(12)]
        config = replace(told(tmp_path, tmp_path / "run", pretrained, epochs=1, test_every=0, batch_size=6), data="")
        outcome = finetune(config, dataset=images)
        assert outcome.finished
        assert "top1" not in outcome.history[-1]
        with pytest.raises(UsageError, match="was given without test images"):
            finetune(replace(config, test_every=1, out=tmp_path / "other"), dataset=images)
        measured = finetune(replace(config, test_every=1, out=tmp_path / "third"), dataset=images, test_dataset=images[:5])
        assert measured.history[-1]["top1"] is not None

    def test_weights_of_other_channels_decide_how_images_are_read(self, classes: Path, tmp_path: Path) -> None:
        grey = tmp_path / "grey"
        gm.GMMLAutoencoder("vit_micro_patch8_64", in_chans=1, mean=(0.2,), std=(0.3,), **SMALL).save_pretrained(grey)
        finetune(told(classes, tmp_path / "run", grey, epochs=1))
        model = gm.Classifier.from_pretrained(tmp_path / "run" / "weights")
        assert (model.in_chans, model.mean) == (1, (0.2,))

    def test_colour_weights_are_adapted_to_grey_images(self, classes: Path, pretrained: Path, tmp_path: Path) -> None:
        finetune(told(classes, tmp_path / "run", pretrained, epochs=1, in_chans=1, img_size=24))
        model = gm.Classifier.from_pretrained(tmp_path / "run" / "weights")
        assert (model.in_chans, model.mean, model.img_size) == (1, (0.0,), (24, 24))


def test_the_command_says_whether_it_is_finished(classes: Path, pretrained: Path, tmp_path: Path) -> None:
    config = told(classes, tmp_path / "run", pretrained, epochs=1)
    command = Finetune(**{one.name: getattr(config, one.name) for one in fields(config)})
    assert replace(command, stop_after=0.0).run() == 3
    assert command.run() == 0
    with pytest.raises(UsageError, match="ema=2"):
        replace(command, ema=2.0).run()


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"layer_decay": 0.0}, "layer_decay=0.0"),
            ({"ema": 1.0}, "ema=1.0"),
            ({"few_shot": 0.0}, "few_shot=0.0"),
            ({"test_every": -1}, "test_every=-1"),
            ({"batch_size": 9}, "odd batches"),
            ({"batch_size": 6, "accumulate": 2}, "odd batches"),
            ({"batch_size": 64}, "fewer than the 64"),
            ({"img_size": 20}, "not a whole number of the patches"),
            ({"img_size": 4}, "not a whole number of the patches"),
            ({"patch_size": 4}, "has patches of 8 x 8"),
            ({"model": "vit_tiny_patch16_224"}, "were both given"),
            ({"weights": "no/such/folder"}, "cannot be loaded"),
            ({"weights": None, "model": "vit_nothing"}, "known neither to timm"),
            ({"weights": None, "model": "vit_micro_patch8_64", "img_size": 20}, "not a multiple of patch_size"),
            ({"mean": (0.1,)}, "3 finite numbers"),
            ({"data": ""}, "no data"),
            ({"data": "/no/such/folder"}, "there is no"),
            ({"smoothing": 2.0}, "smoothing=2.0"),
            ({"auto_augment": "rainbow"}, "rainbow"),
            ({"multi_label": True}, "labels.csv"),
            ({"resident": True}, "auto-augment none"),
        ],
        ids=str,
    )
    def test_before_any_work(self, classes: Path, pretrained: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        out = tmp_path / "run"
        with pytest.raises(UsageError, match=message):
            finetune(replace(told(classes, out, pretrained), **change))
        assert not out.exists()

    def test_one_class_and_no_labels(self, pretrained: Path, tmp_path: Path) -> None:
        for folder, message in (("one/train/a", "only one class"), ("none/train", "no labels")):
            place = tmp_path / folder
            place.mkdir(parents=True)
            for number in range(3):
                stripes(0, number).save(place / f"{number}.png")
            with pytest.raises(UsageError, match=message):
                finetune(told(tmp_path / folder.split("/")[0], tmp_path / "run", pretrained))

    def test_test_images_of_classes_that_training_does_not_have(self, classes: Path, pretrained: Path, tmp_path: Path) -> None:
        (tmp_path / "test" / "yellow").mkdir(parents=True)
        stripes(0, 0).save(tmp_path / "test" / "yellow" / "0.png")
        with pytest.raises(UsageError, match="yellow"):
            finetune(told(classes, tmp_path / "run", pretrained, test_data=str(tmp_path / "test")))

    def test_test_images_with_fewer_classes_are_measured_by_their_names(
        self, classes: Path, pretrained: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "test" / "red").mkdir(parents=True)
        stripes(0, 0).save(tmp_path / "test" / "red" / "0.png")
        finetune(told(classes, tmp_path / "run", pretrained, epochs=1, test_data=str(tmp_path / "test")))
        model = gm.Classifier.from_pretrained(tmp_path / "run" / "weights")
        pixels = torch.from_numpy(np.asarray(stripes(0, 0).resize((16, 16), Image.Resampling.BICUBIC)).copy())
        says = model((pixels.permute(2, 0, 1)[None] / 255 - 0.4) / 0.3).argmax()
        assert float(rows_of(tmp_path / "run")[-1]["top1"]) == 100 * (model.classes[int(says)] == "red")

    def test_a_column_of_labels_that_is_missing(self, labels: Path, pretrained: Path, tmp_path: Path) -> None:
        (tmp_path / "test").mkdir()
        stripes(0, 0).save(tmp_path / "test" / "0.png")
        (tmp_path / "labels.csv").write_text("file,red,green,blue\ntest/0.png,1,0,0\n")
        with pytest.raises(UsageError, match="rare"):
            finetune(told(labels, tmp_path / "run", pretrained, test_data=str(tmp_path)))

    def test_no_test_images(self, pretrained: Path, tmp_path: Path) -> None:
        for kind, name in enumerate(("a", "b")):
            (tmp_path / "data" / "train" / name).mkdir(parents=True)
            for number in range(4):
                stripes(kind, number).save(tmp_path / "data" / "train" / name / f"{number}.png")
        with pytest.raises(UsageError, match="test"):
            finetune(told(tmp_path / "data", tmp_path / "run", pretrained))
        assert finetune(told(tmp_path / "data", tmp_path / "run", pretrained, test_every=0, epochs=1)).finished
