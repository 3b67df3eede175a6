"""gmml predict: pictures in, classes or labels out, and every number is the classifier's own."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import gmml_models as gm
from gmml_models.errors import UsageError
from gmml_models.evaluate.predictions import Predictions, to_csv, to_json
from gmml_models.recipes import PredictConfig, predict
from tests.models.command_line import call
from tests.models.data_files import picture, truncate, write_classes, write_flat, write_tar

SMALL: dict[str, Any] = {"depth": 2, "img_size": 16, "patch_size": 8, "embed_dim": 16, "num_heads": 2}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights that tell three classes."""
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(5)
    model = gm.Classifier("vit_micro_patch8_64", ["ant", "bee", "cow"], mean=(0.4,) * 3, std=(0.3,) * 3, **SMALL)
    with torch.no_grad():
        next(model.head.parameters()).normal_()
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def labeller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights that tell three labels."""
    folder = tmp_path_factory.mktemp("labeller")
    torch.manual_seed(6)
    model = gm.Classifier("vit_micro_patch8_64", ["sea", "sky", "sun"], multi_label=True, hidden=0, **SMALL)
    with torch.no_grad():
        next(model.head.parameters()).normal_()
    model.save_pretrained(folder)
    return folder


def told(weights: Path, *images: Path, **options: Any) -> PredictConfig:
    given: dict[str, Any] = {"weights": str(weights), "images": images, "workers": 0, "cpu": True, **options}
    return PredictConfig(**given)


def by_hand(weights: Path, files: list[Path]) -> torch.Tensor:
    model = gm.Classifier.from_pretrained(weights)
    mean, std = (torch.tensor(one)[:, None, None] for one in (model.mean, model.std))
    given = []
    for file in files:
        opened = Image.open(file).convert("RGB")
        side = min(opened.size)
        left, top = (opened.width - side) / 2, (opened.height - side) / 2
        square = opened.resize((16, 16), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
        given.append((torch.from_numpy(np.asarray(square).copy()).permute(2, 0, 1) / 255 - mean) / std)
    with torch.no_grad():
        return model.probabilities(torch.stack(given))


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_each_picture_has_the_classifier_s_own_probabilities(classifier: Path, tmp_path: Path) -> None:
    files = sorted(write_flat(tmp_path / "pictures", 7).iterdir())
    found = predict(told(classifier, tmp_path / "pictures", batch_size=3))
    assert found.names == tuple(map(str, files))
    assert found.classes == ("ant", "bee", "cow")
    torch.testing.assert_close(found.probabilities, by_hand(classifier, files), rtol=0, atol=2e-3)
    torch.testing.assert_close(found.probabilities.sum(1), torch.ones(7))
    assert found.probabilities.std(0).max() > 0.03, "the pictures are not all alike"


def test_the_table_is_csv_or_json_by_its_name_and_tells_as_many_as_asked_for(
    classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_flat(tmp_path / "pictures", 4)
    words = ("predict", tmp_path / "pictures", "--weights", classifier, "--workers", "0", "--cpu")
    printed = call(capsys, *words, "--top", "2")
    assert printed.code == 0, printed.err
    assert f"gmml predict: 4 images in {tmp_path / 'pictures'}" in printed.err
    rows = rows_of(printed.out)
    assert list(rows[0]) == ["file", "class", "probability", "class_2", "probability_2"]
    assert all(float(row["probability"]) >= float(row["probability_2"]) for row in rows)
    for name in ("said.csv", "said.json"):
        ran = call(capsys, *words, "--top", "9", "-o", tmp_path / name)
        assert (ran.code, ran.out) == (0, f"4 predictions: {tmp_path / name}\n")
    held = json.loads((tmp_path / "said.json").read_text())
    assert held["classes"] == ["ant", "bee", "cow"]
    assert held["left_out"] == {}
    again = rows_of((tmp_path / "said.csv").read_text())
    for row, one, first in zip(rows, held["predictions"], again, strict=True):
        assert row["file"] == one["file"] == first["file"]
        assert row["class"] == one["classes"][0]["class"] == first["class"]
        assert len(one["classes"]) == 3
        assert sum(each["probability"] for each in one["classes"]) == pytest.approx(1)
        assert float(row["probability"]) == pytest.approx(one["classes"][0]["probability"], abs=1e-4)


def test_labels_hold_from_their_thresholds_on(labeller: Path, tmp_path: Path) -> None:
    write_flat(tmp_path / "pictures", 6)
    limits = predict(told(labeller, tmp_path / "pictures")).probabilities.median(0).values
    threshold = tuple(limits.tolist())
    found = predict(told(labeller, tmp_path / "pictures", out=tmp_path / "said.json", threshold=threshold))
    wanted = [[name for name, holds in zip(found.classes, row, strict=True) if holds] for row in found.probabilities >= limits]
    held = json.loads((tmp_path / "said.json").read_text())["predictions"]
    assert [one["labels"] for one in held] == wanted
    assert wanted != found.labels(), "a half for all would say something else"
    for one, row in zip(held, found.probabilities.tolist(), strict=True):
        assert one["probabilities"] == pytest.approx(dict(zip(("sea", "sky", "sun"), row, strict=True)))
    rows = rows_of(to_csv(found, threshold=threshold))
    assert [row["labels"] for row in rows] == ["; ".join(names) for names in wanted]
    assert list(rows[0]) == ["file", "labels", "sea", "sky", "sun"]


def test_of_equals_the_first_class_is_told_first() -> None:
    found = Predictions(
        names=("a,b.png",), classes=("x", 'y"z', "w"), multi_label=False, probabilities=torch.tensor([[0.2, 0.4, 0.4]])
    )
    assert [name for name, _ in found.top(2)[0]] == ['y"z', "w"]
    assert rows_of(to_csv(found, top=3))[0]["class"] == 'y"z'
    assert rows_of(to_csv(found))[0]["file"] == "a,b.png"
    assert json.loads(to_json(found, {}))["predictions"][0]["file"] == "a,b.png"


def test_files_folders_and_an_archive_are_read_and_what_was_left_out_is_told(
    classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_classes(tmp_path / "data", {"train/x": 2, "test/y": 2})
    single = tmp_path / "one.png"
    picture(9).save(single)
    found = predict(told(classifier, single, root))
    assert [Path(name).name for name in found.names] == ["one.png", "000.png", "001.png", "000.png", "001.png"]
    whole = predict(told(classifier, write_tar(tmp_path / "all.tar", root)))
    assert whole.names == ("test/y/000.png", "test/y/001.png", "train/x/000.png", "train/x/001.png"), "no split is chosen"
    torch.testing.assert_close(whole.probabilities, found.probabilities[1:])
    truncate(root / "train/x/001.png")
    (root / "raw.nef").write_text("raw")
    ran = call(capsys, "predict", root, "--weights", classifier, "--workers", "0", "--cpu", "-o", tmp_path / "said.json")
    assert ran.code == 1
    assert "1 of 4 images could not be read" in ran.err
    assert set(json.loads((tmp_path / "said.json").read_text())["left_out"]) == {
        str(root / "raw.nef"),
        str(root / "train/x/001.png"),
    }


def test_a_data_set_in_python(classifier: Path, tmp_path: Path) -> None:
    files = sorted(write_flat(tmp_path / "pictures", 3).iterdir())
    given = predict(told(classifier), dataset=[(Image.open(file).convert("RGB"), "any") for file in files])
    torch.testing.assert_close(given.probabilities, predict(told(classifier, *files)).probabilities)
    assert given.names == ("image 0", "image 1", "image 2")


class TestWhatIsRefused:
    @pytest.mark.usefixtures("offline")
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"weights": ""}, "no weights"),
            ({"weights": "no/where"}, "cannot be loaded as a classifier"),
            ({"images": ()}, "no images"),
            ({"images": (Path("nowhere.png"),)}, "there is no nowhere.png"),
            ({"top": 0}, "top=0"),
            ({"batch_size": 0}, "batch_size=0"),
            ({"threshold": ()}, "not a probability"),
            ({"threshold": (1.5,)}, "not a probability"),
            ({"threshold": (0.3,)}, "threshold is for several labels"),
            ({"img_size": 20}, "not a whole number of patches of 8 x 8.*img_size=16"),
            ({"out": Path("said.txt")}, "does not end in .csv or .json"),
            ({"out": Path("no/where/said.csv")}, "a folder that does not exist"),
        ],
        ids=str,
    )
    def test_before_any_work(self, classifier: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        config = told(classifier, write_flat(tmp_path / "pictures", 2))
        with pytest.raises(UsageError, match=message):
            predict(replace(config, **change))

    def test_what_is_for_classes_or_another_number_of_labels(self, labeller: Path, tmp_path: Path) -> None:
        config = told(labeller, write_flat(tmp_path / "pictures", 2))
        with pytest.raises(UsageError, match="top is for one class"):
            predict(replace(config, top=2))
        with pytest.raises(UsageError, match=r"2 thresholds were given for 3 labels \(sea, sky, sun\)"):
            predict(replace(config, threshold=(0.5, 0.5)))

    def test_weights_without_a_head(self, tmp_path: Path) -> None:
        gm.GMMLAutoencoder("vit_micro_patch8_64", **SMALL).save_pretrained(tmp_path / "weights")
        with pytest.raises(UsageError, match="holds no classifier"):
            predict(told(tmp_path / "weights", write_flat(tmp_path / "pictures", 2)))

    def test_nothing_that_can_be_read(self, classifier: Path, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_text("junk")
        with pytest.raises(UsageError, match="could be read"):
            predict(told(classifier, tmp_path / "a.png"))
        (tmp_path / "empty").mkdir()
        with pytest.raises(UsageError, match="no image in"):
            predict(told(classifier, tmp_path / "empty"))
        with pytest.raises(UsageError, match="is an archive, but was given with other paths"):
            predict(told(classifier, write_flat(tmp_path / "some", 2), write_tar(tmp_path / "all.tar", tmp_path / "some")))
