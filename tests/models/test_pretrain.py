"""``gmml pretrain`` as its user meets it: what comes out, what is refused, what is printed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import gmml_models as gm
from gmml_models.cli import main
from gmml_models.errors import UsageError
from gmml_models.recipes import pretrain
from tests.models.runs import Pictures, rows, small

TINY = ["--model", "vit_micro_patch4_32", "--img-size", "16", "--patch-size", "8", "--cpu", "--workers", "0", "--batch-size", "4"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight photographs of a kind, one of them broken."""
    images = tmp_path / "images"
    images.mkdir()
    for number in range(8):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (20, 24, 3), np.uint8)).save(images / f"{number}.png")
    (images / "5.png").write_bytes(b"\x89PNG and nothing more")
    return images


BROKEN = 1  # exit code of a run that left one of them out


def command(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


def test_a_folder_becomes_weights_that_everybody_loads(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert command("pretrain", "--data", folder, "--out", out, "--epochs", "2", "--pictures-every", "1", *TINY) == BROKEN
    said = capsys.readouterr().out
    assert f"gmml finetune --weights {out / 'weights'}" in said
    assert "broken, and skipped: 5.png" in said
    encoder = gm.from_pretrained(out / "weights")
    same = timm.create_model(f"local-dir:{out / 'weights'}", pretrained=True).eval()
    image = torch.randn(1, 3, 16, 16)
    assert torch.equal(encoder(image), same(image))
    assert gm.GMMLAutoencoder.from_pretrained(out / "weights")(image).shape == image.shape
    told = json.loads((out / "weights" / "config.json").read_text())["gmml"]
    assert (told["objective"], told["recipe"]["epochs"], told["data"]["images"]) == ("gmml", 2, 8)
    assert str(tmp_path) not in (out / "weights" / "config.json").read_text()  # a machine's folders are nobody's business
    for name in ("epoch-00001.png", "epoch-00002.png"):
        with Image.open(out / "pictures" / name) as sheet:
            assert sheet.width > 500
    assert [row["epoch"] for row in rows(out / "epochs.jsonl")] == [1, 2]
    assert list((out / "tensorboard").iterdir())


@pytest.mark.parametrize("method", ["gmml", "sit", "mc_ssl", "autoencoder"])
def test_every_method_runs_from_a_data_set_in_python(tmp_path: Path, method: str) -> None:
    config = small(tmp_path / "run", method=method, epochs=1, classes=32, head_width=32, batch_size=20, checkpoint_every=0)
    outcome = pretrain(config, dataset=Pictures())
    assert (outcome.finished, outcome.steps, outcome.skipped) == (True, 2, 0)
    assert all(torch.isfinite(tensor).all() for tensor in gm.from_pretrained(tmp_path / "run" / "weights").state_dict().values())


@pytest.mark.parametrize("method", ["gmml", "sit", "mc_ssl", "autoencoder"])
def test_a_normalised_target_travels_from_the_command_line_into_the_weights(folder: Path, tmp_path: Path, method: str) -> None:
    out = tmp_path / "run"
    words = ["--method", method, "--target", "normalised", "--loss", "l2", "--betas", "0.9", "0.95", "--epochs", "1"]
    words += ["--classes", "32", "--head-width", "32", "--pictures-every", "1"]
    if method != "autoencoder":
        words += ["--corruption", 'ablation(kind="replace", ratio=0.7)']
    assert command("pretrain", "--data", folder, "--out", out, *words, *TINY) == BROKEN
    assert gm.GMMLAutoencoder.from_pretrained(out / "weights").target == "normalised"
    recipe = json.loads((out / "weights" / "config.json").read_text())["gmml"]["recipe"]
    assert (recipe["target"], recipe["loss"], recipe["betas"]) == ("normalised", "l2", [0.9, 0.95])
    assert (out / "pictures" / "epoch-00001.png").exists()


@pytest.mark.parametrize("betas", [(0.9, 1.0), (-0.1, 0.9), (0.9,)])
def test_betas_that_no_optimiser_takes_are_named(tmp_path: Path, betas: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match=r"betas=\(.*\). Give two numbers of at least 0 and below 1"):
        pretrain(small(tmp_path / "run", betas=betas), dataset=Pictures())


def test_the_betas_reach_the_optimiser(tmp_path: Path) -> None:
    losses = []
    for name, betas in (("default", {}), ("same", {"betas": (0.9, 0.999)}), ("other", {"betas": (0.5, 0.9)})):
        config = small(tmp_path / name, epochs=2, checkpoint_every=0, **betas)
        losses.append(pretrain(config, dataset=Pictures()).history[-1]["loss"])
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channel_counts(tmp_path: Path, channels: int) -> None:
    config = small(tmp_path / "run", in_chans=channels, epochs=1, checkpoint_every=0)
    assert pretrain(config, dataset=Pictures(channels=channels)).finished
    assert gm.from_pretrained(tmp_path / "run" / "weights").patch_embed.proj.in_channels == channels


def test_both_data_paths_learn_alike(tmp_path: Path) -> None:
    losses = []
    for resident in (False, True):
        config = small(tmp_path / str(resident), resident=resident, resident_size=48, epochs=2, checkpoint_every=0, lr=5e-3)
        losses.append(float(pretrain(config, dataset=Pictures()).history[-1]["loss"]))
    assert losses[0] == pytest.approx(losses[1], rel=0.03)  # the same crops of the same images, resampled twice in one


def test_a_dry_run_says_what_it_would_take_and_leaves_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("pretrain", "--data", folder, "--out", tmp_path / "run", "--dry-run", *TINY) == 0
    said = capsys.readouterr().out
    assert "steps: 1,600 = 800 epochs of 2 (8 images)" in said
    assert "parameters: 1," in said
    assert "time: " in said
    assert "MiB for 4 images at once (1 part a step)" in said
    assert "--recipe small" not in said
    assert not (tmp_path / "run").exists()


def test_what_is_needed_is_asked_for_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmml_models.errors.find_spec", lambda name: None if name == "tensorboard" else True)
    with pytest.raises(UsageError, match=r"gmml pretrain needs tensorboard\. .*\.\[train\]"):
        pretrain(small(tmp_path / "run"), dataset=Pictures())
    assert not (tmp_path / "run").exists()


def test_a_clock_stops_it_with_its_own_exit_code(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words: list[str | Path] = [
        "pretrain",
        "--data",
        folder,
        "--out",
        tmp_path / "run",
        "--epochs",
        "1",
        "--pictures-every",
        "0",
        *TINY,
    ]
    assert command(*words, "--stop-after", "0") == 3
    said = capsys.readouterr()
    assert "Run the same command again to resume" in said.out
    assert "resumed" not in said.err
    assert command(*words) == BROKEN
    assert re.search(r"^resumed: 1 of \d+ steps were done$", capsys.readouterr().err, re.MULTILINE)


def test_torchrun_starts_two_processes(folder: Path, tmp_path: Path) -> None:
    words: list[str | Path] = [
        "pretrain",
        "--data",
        folder,
        "--out",
        tmp_path / "run",
        "--epochs",
        "1",
        "--pictures-every",
        "0",
        *TINY,
    ]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "gmml_models.cli"]
    ended = subprocess.run([*launch, *map(str, words)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.count("Next, with labelled images") == 1  # one of them speaks
    assert (tmp_path / "run" / "weights" / "model.safetensors").exists()


def empty(folder: Path) -> list[str | Path]:
    (folder.parent / "empty").mkdir()
    return ["--data", folder.parent / "empty"]


def alone(folder: Path) -> list[str | Path]:
    (folder.parent / "one").mkdir()
    Image.new("RGB", (9, 9)).save(folder.parent / "one" / "only.png")
    return ["--data", folder.parent / "one"]


def theirs(folder: Path) -> list[str | Path]:
    return ["--data", folder, "--out", folder]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (lambda folder: [], "no data"),
        (lambda folder: ["--data", folder / "nowhere"], "nowhere"),
        (empty, "empty"),
        (alone, "only one image"),
        (lambda folder: ["--data", folder, "--batch-size", "64"], "fewer than the 64 of one step"),
        (lambda folder: ["--data", folder, "--model", "resnet50"], "resnet50"),
        (lambda folder: ["--data", folder, "--model", "vit_smal_patch16_224"], "Close names are"),
        (lambda folder: ["--data", folder, "--img-size", "20"], "multiple of patch_size"),
        (lambda folder: ["--data", folder, "--img-size", "4"], "multiple of patch_size"),
        (lambda folder: ["--data", folder, "--corruption", "gmlm"], "Allowed: a preset"),
        (lambda folder: ["--data", folder, "--method", "autoencoder", "--corruption", "gmml"], "without corruption"),
        (lambda folder: ["--data", folder, "--method", "sit", "--views", "3"], "two views"),
        (lambda folder: ["--data", folder, "--mean", "0.5", "--std", "0.5"], "mean"),
        (lambda folder: ["--data", folder, "--fsdp"], "--fsdp shards over several processes"),
        (lambda folder: ["--data", folder, "--accumulate", "3"], "multiple of accumulate"),
        (theirs, "do not belong to a run"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: Callable[[Path], list[str | Path]],
    words: str,
) -> None:
    before = sorted(folder.iterdir())
    given = options(folder)
    tiny: list[str | Path] = [*TINY]
    for name in ("--model", "--img-size", "--batch-size"):  # what the case gives itself
        if name in given:
            at = tiny.index(name)
            del tiny[at : at + 2]
    out: list[str | Path] = [] if "--out" in given else ["--out", tmp_path / "run"]
    assert command("pretrain", "--epochs", "1", *given, *out, *tiny) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert sorted(folder.iterdir()) == before


def test_in_python_too(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fewer than the 64"):
        pretrain(small(tmp_path / "run", batch_size=64), dataset=Pictures())
