"""Pretraining from weights: what is taken, what is adapted, and that a run which goes on does not ask for them again."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

import gmml_models as gm
from gmml_models.errors import UsageError
from gmml_models.models.geometry import remember
from gmml_models.recipes import PretrainConfig, pretrain, start_autoencoder
from tests.models import runs

SMALL: dict[str, Any] = {"depth": 3, "img_size": 16, "patch_size": 8, "embed_dim": 16, "num_heads": 2}
STILL: dict[str, Any] = {"lr": 0.0, "min_lr": 0.0, "epochs": 1, "checkpoint_every": 0, "pictures_every": 0}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small autoencoder of MC-SSL's, whose blocks are not the default ones."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(3)
    model = gm.GMMLAutoencoder("vit_micro_patch8_64", blocks=(1, 3), decoder="mc_ssl", mean=(0.4,) * 3, std=(0.3,) * 3, **SMALL)
    model.save_pretrained(folder, about={"objective": "mc_ssl"})
    return folder


def told(out: Path, weights: Path | str, **options: Any) -> PretrainConfig:
    given: dict[str, Any] = {
        "model": PretrainConfig.model,
        "img_size": None,
        "patch_size": None,
        "weights": str(weights),
        **options,
    }
    config = runs.small(out, **given)
    assert isinstance(config, PretrainConfig)
    return config


def files_of(folder: Path) -> dict[str, Any]:
    return {
        f"{name}:{key}": value for name in ("model", "decoder") for key, value in load_file(folder / f"{name}.safetensors").items()
    }


@pytest.mark.parametrize("method", ["gmml", "sit", "mc_ssl"])
def test_encoder_decoder_blocks_and_normalisation_are_those_of_the_weights(
    weights: Path, tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(told(tmp_path / "run", weights, method=method, classes=32, head_width=16, **STILL), dataset=runs.Pictures(8))
    before, after = files_of(weights), files_of(tmp_path / "run" / "weights")
    assert before.keys() == after.keys()
    # a teacher is an average that moves, of a student that does not
    assert all(torch.allclose(before[name], after[name], rtol=0, atol=1e-7) for name in before)
    config = json.loads((tmp_path / "run" / "weights" / "config.json").read_text())
    assert (config["gmml"]["decoder"], config["gmml"]["blocks"], config["gmml"]["objective"]) == ("mc_ssl", [1, 3], method)
    assert config["pretrained_cfg"]["mean"] == [0.4] * 3
    assert config["gmml"]["recipe"]["weights"] == weights.name, "no path of this machine"
    assert f"starts from the encoder of {weights}; with its decoder (mc_ssl)." in capsys.readouterr().err


def test_who_made_the_weights_stays_in_config_and_card(weights: Path, tmp_path: Path) -> None:
    source = {"file": "dino.pth", "sha256": "0" * 64, "kind": "dino", "network": "teacher"}
    encoder = gm.from_pretrained(weights)
    remember(encoder, source)
    gm.GMMLAutoencoder(encoder).save_pretrained(tmp_path / "dino")
    pretrain(told(tmp_path / "run", tmp_path / "dino", method="gmml", **STILL), dataset=runs.Pictures(8))
    made = tmp_path / "run" / "weights"
    assert json.loads((made / "config.json").read_text())["gmml"]["source"] == source
    assert "(GMML), begun from a checkpoint of DINO (`dino.pth`), for" in (made / "README.md").read_text()


def test_another_size_and_other_channels_are_adapted_as_timm_does(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = told(tmp_path / "run", weights, img_size=32, in_chans=1, **STILL)
    pretrain(config, dataset=runs.Pictures(8, channels=1))
    after = load_file(tmp_path / "run" / "weights" / "model.safetensors")
    wanted = gm.from_pretrained(weights, img_size=32, in_chans=1).state_dict()
    assert after["pos_embed"].shape == (1, 17, 16)
    assert after["patch_embed.proj.weight"].shape == (16, 1, 8, 8)
    assert all(torch.equal(after[name], wanted[name]) for name in wanted)
    said = capsys.readouterr().err
    assert "its decoder outputs 3 channels: a new one; position embedding resampled from 16 x 16 to 32 x 32" in said
    assert "first layer adapted from 3 to 1 channels" in said


@pytest.mark.parametrize(
    ("options", "why"),
    [({"decoder": "paper"}, "its decoder is mc_ssl, but paper is requested"), ({"target": "normalised"}, "predicts pixels")],
    ids=str,
)
def test_a_decoder_that_does_not_fit_is_new_and_follows_from_the_seed(
    weights: Path, tmp_path: Path, options: dict[str, Any], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        torch.manual_seed(random.randrange(1000))
        pretrain(told(tmp_path / name, weights, **STILL, **options), dataset=runs.Pictures(8))
        assert why in capsys.readouterr().err
    one, two = (files_of(tmp_path / name / "weights") for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert torch.equal(one["model:pos_embed"], files_of(weights)["model:pos_embed"])


def test_the_zoo_and_weights_of_other_channels_decide_how_images_are_read(tmp_path: Path) -> None:
    gm.GMMLAutoencoder("vit_micro_patch8_64", in_chans=1, mean=(0.2,), std=(0.3,), **SMALL).save_pretrained(tmp_path / "grey")
    pretrain(told(tmp_path / "run", tmp_path / "grey", **STILL), dataset=runs.Pictures(8, channels=1))
    assert gm.GMMLAutoencoder.from_pretrained(tmp_path / "run" / "weights").mean == (0.2,)
    beginning = start_autoencoder.begin(told(tmp_path / "zoo", "gmml_vit_micro_patch8_64.openclipart", target="normalised"))
    assert beginning is not None
    zoo = gm.create_model("gmml_vit_micro_patch8_64.openclipart", pretrained=True).state_dict()
    assert all(torch.equal(tensor, zoo[name]) for name, tensor in beginning.autoencoder.state_dict().items())


def test_a_name_of_timm_gives_its_weights_and_their_normalisation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    made = timm.create_model

    def create(name: str, *, pretrained: bool = False, **options: Any) -> Any:
        if pretrained:
            asked.append({"name": name, **options})
        torch.manual_seed(7)
        model: Any = made(name, **{**options, "depth": 2})
        model.pretrained_cfg = {**model.pretrained_cfg, "mean": (0.5,) * 3, "std": (0.25,) * 3, "input_size": (3, 224, 224)}
        return model

    monkeypatch.setattr(timm, "create_model", create)
    beginning = start_autoencoder.begin(told(tmp_path / "run", "timm/vit_tiny_patch16_224", img_size=32, method="mc_ssl"))
    assert beginning is not None
    assert asked[0]["name"] == "vit_tiny_patch16_224"
    assert asked[0]["img_size"] == 32
    model = beginning.autoencoder
    assert (model.mean, model.std, model.decoder_name, model.blocks) == ((0.5,) * 3, (0.25,) * 3, "mc_ssl", (2,))
    named: Any = timm.get_pretrained_cfg("vit_tiny_patch16_224")
    assert beginning.about["source"] == {"file": f"vit_tiny_patch16_224.{named.tag}", "kind": "timm_weights"}
    model.save_pretrained(tmp_path / "weights", about={"objective": "mc_ssl"})
    card = (tmp_path / "weights" / "README.md").read_text()
    assert f"by MC-SSL, begun from timm's weights (`vit_tiny_patch16_224.{named.tag}`), for" in card
    assert beginning.told.endswith(
        "it has no decoder, so a new one is used; position embedding resampled from 224 x 224 to 32 x 32."
    )


def test_a_run_that_is_killed_goes_on_to_the_same_bits_without_the_weights(weights: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(weights, moved)
    pictures, log = runs.Pictures(), tmp_path / "log"
    straight, killed = (told(tmp_path / name, moved, method="mc_ssl", classes=32, head_width=16) for name in ("straight", "killed"))
    runs.finish(runs.start(straight, pictures, log), log)
    assert runs.kill_somewhere(killed, pictures, log, random.Random(1))
    shutil.rmtree(moved)
    runs.finish(runs.start(killed, pictures, log), log)
    assert runs.result(straight.out) == runs.result(killed.out)
    assert np.isfinite([row["loss"] for row in runs.rows(killed.out / "epochs.jsonl")]).all()


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "no/where"}, "cannot be loaded"),
        ({"weights": "no_such_model"}, "is neither a folder nor a name in the zoo"),
        ({"model": "vit_micro_patch8_64"}, "weights have their own model"),
        ({"patch_size": 4}, "has patches of 8 x 8"),
        ({"img_size": 20}, "not a whole number of the patches"),
    ],
    ids=str,
)
def test_what_cannot_be_begun_with(weights: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        pretrain(told(tmp_path / "run", **{"weights": weights, **STILL, **options}), dataset=runs.Pictures(8))


def test_a_record_that_is_torn_is_named(weights: Path, tmp_path: Path) -> None:
    config = told(tmp_path / "run", weights, **{**STILL, "epochs": 2, "stop_after": 0.0})
    assert not pretrain(config, dataset=runs.Pictures(8)).finished
    (tmp_path / "run" / "start.json").write_text("{")
    with pytest.raises(UsageError, match=r"start.json is damaged.*remove it to read --weights again"):
        pretrain(config, dataset=runs.Pictures(8))
    (tmp_path / "run" / "start.json").unlink()
    assert pretrain(config, dataset=runs.Pictures(8)).steps == 2
