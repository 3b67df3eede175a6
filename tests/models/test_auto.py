"""What is chosen where nobody states it: by plain rules, said in a line, kept by the run, and never against what is stated."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gmml_models.cli.main import read
from gmml_models.data import loader
from gmml_models.errors import UsageError
from gmml_models.recipes import FinetuneConfig, PretrainConfig, auto, finetune, pretrain
from gmml_models.recipes.named import FINETUNE, PRETRAIN
from gmml_models.train.config import TrainConfig, check
from gmml_models.train.parallel import Parallel
from tests.models.data_files import write_classes
from tests.models.runs import Pictures, result, small

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def on(device: torch.device) -> Parallel:
    return Parallel(device=device, rank=0, world=1, autocast=torch.no_grad, fsdp=False)


def told(config: PretrainConfig, images: int, parallel: Parallel) -> PretrainConfig:
    """What is chosen before the model is built, and said."""
    found = auto.chosen(config, images, parallel)
    auto.tell_chosen(config, found, images, parallel, who="gmml pretrain")
    return found


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A GPU of so many bytes, and so many cores."""
    told = {"bytes": 24 << 30, "cores": 16}
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=told["bytes"]))
    monkeypatch.setattr(loader, "cores", lambda: told["cores"])
    monkeypatch.setattr(auto, "cores", lambda: told["cores"])
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    return told


def test_the_rules_are_those_that_are_written_down() -> None:
    lengths = [
        (kind, gpu, images) for kind in ("pretrain", "finetune") for gpu in (False, True) for images in (40, 7_450, 1_000_000)
    ]
    assert [auto.epochs_for(kind, images, gpu=gpu) for kind, gpu, images in lengths] == [
        *(800, 64, 20, 800, 800, 20),
        *(200, 20, 20, 200, 200, 20),
    ]


@given(kind=st.sampled_from(["pretrain", "finetune"]), images=st.integers(0, 10**8), gpu=st.booleans())
def test_more_images_are_never_seen_more_often(kind: str, images: int, gpu: bool) -> None:
    epochs = auto.epochs_for(kind, images, gpu=gpu)
    assert 20 <= epochs <= auto.LENGTHS[kind].most
    assert auto.epochs_for(kind, images + 1000, gpu=gpu) <= epochs <= auto.epochs_for(kind, images, gpu=True)


@pytest.mark.parametrize(
    ("config", "device", "gigabytes", "model"),
    [
        (PretrainConfig(model="auto"), CPU, 24, "vit_micro_patch8_64"),
        (PretrainConfig(model="auto"), GPU, 24, "vit_small_patch16_224"),
        (PretrainConfig(model="auto"), GPU, 4, "vit_tiny_patch16_224"),
        (PretrainConfig(**{**PRETRAIN["small"], "model": "auto"}), GPU, 24, "vit_micro_patch8_64"),
        (FinetuneConfig(model="auto"), CPU, 24, "vit_micro_patch8_64"),
        (FinetuneConfig(model="auto"), GPU, 24, "vit_small_patch16_224"),
    ],
)
def test_the_model_suits_the_device(
    tmp_path: Path, cards: dict[str, int], config: PretrainConfig, device: torch.device, gigabytes: int, model: str
) -> None:
    cards["bytes"] = gigabytes << 30
    assert auto.chosen(replace(config, out=tmp_path), 100, on(device)).model == model


@pytest.mark.parametrize(
    ("device", "cores", "processes", "workers"), [(CPU, 16, 1, 2), (CPU, 1, 1, 1), (GPU, 16, 1, 8), (GPU, 16, 8, 2)]
)
def test_workers_follow_from_the_cores_of_a_process(
    cards: dict[str, int], monkeypatch: pytest.MonkeyPatch, device: torch.device, cores: int, processes: int, workers: int
) -> None:
    cards["cores"] = cores
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert loader.workers_for(device, None) == workers
    assert loader.workers_for(device, 0) == 0, "what is stated is kept"
    assert loader.workers_for(device, 40) == 40


SMALL, TUNED = PretrainConfig(**PRETRAIN["small"]), FinetuneConfig(**FINETUNE["small"])


def test_the_size_of_a_step_is_the_recipes_until_an_epoch_would_have_too_few() -> None:
    sizes = (1, 7, 40, 100, 511, 512, 2_000, 10**7)
    assert [auto.batch_for(PretrainConfig(), images) for images in sizes] == [1, 4, 8, 8, 32, 64, 128, 256]
    assert [auto.batch_for(SMALL, images) for images in sizes] == [1, 4, 8, 8, 32, 64, 64, 64]
    assert [auto.batch_for(FinetuneConfig(), images) for images in sizes] == [1, 4, 8, 8, 32, 64, 128, 256]
    assert [auto.batch_for(TUNED, images) for images in sizes] == [1, 4, 8, 8, 16, 16, 16, 16]


@given(
    config=st.sampled_from([PretrainConfig(), SMALL, FinetuneConfig(), TUNED]),
    images=st.integers(1, 10**5),
    more=st.integers(0, 999),
)
def test_a_step_is_never_larger_than_the_data_and_grows_with_it(config: TrainConfig, images: int, more: int) -> None:
    batch = auto.batch_for(config, images)
    assert 1 <= batch <= images
    assert images >= 8 * batch or batch <= 8
    assert batch == 1 or batch % 2 == 0, "MixUp takes pairs"
    assert batch <= auto.batch_for(config, images + more)


def test_every_machine_has_the_same_steps(tmp_path: Path, cards: dict[str, int]) -> None:
    asked = replace(SMALL, batch_size="auto", model="auto", views="auto", out=tmp_path)
    found = [auto.chosen(asked, 300, on(CPU))]
    cards.update(bytes=2 << 30, cores=1)
    found += [auto.chosen(asked, 300, on(GPU)), auto.chosen(asked, 300, replace(on(GPU), world=8))]
    assert [config.batch_size for config in found] == [32, 32, 32]
    with pytest.raises(UsageError, match="batch_size=32 is not a multiple of accumulate=3"):
        auto.chosen(replace(asked, accumulate=3), 300, on(CPU))


@pytest.mark.parametrize(
    ("options", "device", "cores", "resident", "views"),
    [
        ({}, CPU, 16, False, 2),  # two workers decode
        ({}, CPU, 16, True, 1),
        ({}, GPU, 4, False, 2),
        ({}, GPU, 16, False, 1),
        ({"workers": 4}, GPU, 16, False, 2),
        ({"method": "autoencoder"}, GPU, 16, False, 1),
        ({"method": "mc_ssl"}, GPU, 16, True, 1),
        ({"method": "mc_ssl", "cls_loss": True}, GPU, 16, True, 2),  # what the method compares
        ({"method": "sit"}, CPU, 1, True, 2),
    ],
)
def test_views_share_what_was_decoded(
    cards: dict[str, int], options: dict[str, Any], device: torch.device, cores: int, resident: bool, views: int
) -> None:
    cards["cores"] = cores
    assert auto.views_for(PretrainConfig(**options), device, resident=resident) == views


def test_what_is_stated_is_kept_and_what_is_chosen_is_said(
    tmp_path: Path, cards: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    stated = PretrainConfig(model="vit_tiny_patch16_224", epochs=7, workers=3, out=tmp_path)
    assert told(stated, 100, on(GPU)) == stated
    assert capsys.readouterr().err == ""
    asked = replace(stated, epochs="auto", img_size=32, patch_size=4)
    assert told(asked, 600_000, on(CPU)) == replace(asked, epochs=20)
    said = "gmml pretrain: chosen for 16 cores, no GPU and 600,000 images: --epochs 20. Other values may be given.\n"
    assert capsys.readouterr().err == said
    everything = replace(stated, model="auto", epochs="auto", batch_size="auto", workers=None)
    told(everything, 600_000, on(GPU))
    words = "--model vit_small_patch16_224 --epochs 20 --batch-size 256 --workers 8"
    assert f"chosen for 16 cores, a GPU of 24 GiB and 600,000 images: {words}." in capsys.readouterr().err
    told(everything, 600_000, replace(on(GPU), rank=1))
    assert capsys.readouterr().err == "", "one process speaks"
    theirs = told(replace(everything, weights="folder"), 600_000, on(CPU))
    assert theirs.model == PretrainConfig.model, "weights have a model of their own"
    assert "--model" not in capsys.readouterr().err


def test_a_run_keeps_what_it_chose_and_is_the_run_of_these_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(auto.LENGTHS, "pretrain", auto.Length(80, 80, 3))
    monkeypatch.setattr(auto, "_LEAST", 1)
    config: PretrainConfig = small(
        tmp_path / "run", model="auto", epochs="auto", workers=None, checkpoint_every=0, pictures_every=0, img_size=16
    )
    assert not pretrain(replace(config, stop_after=0.0), dataset=Pictures()).finished
    assert "--model vit_micro_patch8_64 --epochs 2 --workers " in capsys.readouterr().err
    recorded = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (recorded["model"], recorded["epochs"]) == ("vit_micro_patch8_64", 2)
    monkeypatch.setitem(auto.LENGTHS, "pretrain", auto.Length(120, 120, 3))  # as if the rule had changed
    monkeypatch.setattr(auto, "model_for", lambda config, device: "vit_tiny_patch16_224")
    outcome = pretrain(config, dataset=Pictures())
    assert (outcome.finished, outcome.steps) == (True, 10)
    assert "--model" not in capsys.readouterr().err
    stated = replace(config, out=tmp_path / "stated", model="vit_micro_patch8_64", epochs=2, workers=0)
    pretrain(stated, dataset=Pictures())
    assert result(stated.out) == result(config.out)
    assert pretrain(replace(stated, out=config.out), dataset=Pictures()).finished, "the numbers themselves go on too"
    with pytest.raises(UsageError, match="epochs: 2 -> 1"):
        pretrain(replace(config, epochs=1), dataset=Pictures())
    begun_anew = pretrain(replace(config, model="vit_micro_patch8_64", overwrite=True), dataset=Pictures())
    assert begun_anew.steps == 15


def test_fine_tuning_chooses_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(auto.LENGTHS, "finetune", auto.Length(24, 24, 200))
    monkeypatch.setattr(auto, "_LEAST", 1)
    data = write_classes(tmp_path / "data", {"a": 6, "b": 6})
    settings = {**FINETUNE["small"], "batch_size": 4, "img_size": 16, "workers": 0, "test_every": 0}
    config = FinetuneConfig(
        **{**settings, "data": str(data), "out": tmp_path / "run", "model": "auto", "epochs": "auto", "cpu": True}
    )
    assert finetune(config).steps == 6
    assert "12 images: --model vit_micro_patch8_64 --epochs 2." in capsys.readouterr().err
    monkeypatch.setattr("gmml_models.train.memory._ON_A_CPU", 1)
    finetune(replace(config, out=tmp_path / "parts", batch_size="auto", accumulate="auto"))
    assert "--epochs 2 --batch-size 8 --accumulate 4 (2 images at once)." in capsys.readouterr().err
    recorded = json.loads((tmp_path / "parts" / "config.json").read_text())
    assert (recorded["batch_size"], recorded["accumulate"]) == (8, 4)


def test_the_word_is_taken_by_the_command_line_and_no_other() -> None:
    names = ("--model", "--epochs", "--batch-size", "--accumulate", "--views")
    asked = read(["pretrain", "--data", "x", *(word for name in names for word in (name, "auto"))])
    assert isinstance(asked, PretrainConfig)
    assert [asked.model, asked.epochs, asked.batch_size, asked.accumulate, asked.views, asked.workers] == ["auto"] * 5 + [None]
    check(asked)
    with pytest.raises(SystemExit):
        read(["pretrain", "--data", "x", "--epochs", "many"])
    with pytest.raises(UsageError, match="epochs=0 is below 1"):
        check(replace(asked, epochs=0))
