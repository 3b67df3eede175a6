"""``gmml stats``: the numbers are those of the pixels, and the words can be pasted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gmml_models.cli.stats import Stats
from gmml_models.data.channel_stats import ChannelStats, channel_stats
from gmml_models.data.dataset import Source
from gmml_models.data.sources import open_source
from gmml_models.errors import UsageError
from gmml_models.recipes.config import PretrainConfig
from tests.models.data_files import truncate, write_classes, write_flat


def stats_of(root: Path, *, threads: int = 2) -> ChannelStats:
    source = open_source(PretrainConfig(data=str(root)))
    assert isinstance(source, Source)
    return channel_stats(source, threads=threads)


def by_hand(files: list[Path]) -> tuple[list[float], list[float]]:
    images = [np.asarray(Image.open(file)).reshape(-1, 3) / 255 for file in files]
    mean = np.mean([image.mean(0) for image in images], axis=0)
    return mean.tolist(), np.sqrt(np.mean([((image - mean) ** 2).mean(0) for image in images], axis=0)).tolist()


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_every_image_has_the_same_say(tmp_path: Path, threads: int) -> None:
    root = write_flat(tmp_path, 9)
    Image.new("RGB", (300, 200), (255, 0, 9)).save(root / "large.png")
    told: list[tuple[int, int]] = []
    found = stats_of(root, threads=threads)
    mean, std = by_hand(sorted(root.iterdir()))
    assert found.mean == pytest.approx(mean, abs=1e-12)
    assert found.std == pytest.approx(std, abs=1e-12)
    assert (found.images, dict(found.broken)) == (10, {})
    source = open_source(PretrainConfig(data=str(root)))
    channel_stats(source, progress=lambda done, of: told.append((done, of)))
    assert told[-1] == (10, 10)


def test_one_colour_deviates_by_nothing(tmp_path: Path) -> None:
    for number in range(3):
        Image.new("RGB", (5, 5), (255, 0, 51)).save(tmp_path / f"{number}.png")
    found = stats_of(tmp_path)
    assert found.mean == pytest.approx((1.0, 0.0, 0.2))
    assert found.std == pytest.approx((0.0, 0.0, 0.0), abs=1e-7)


def test_broken_images_are_left_out_and_named(tmp_path: Path) -> None:
    root = write_flat(tmp_path, 5)
    truncate(root / "002.png")
    found = stats_of(root)
    mean, std = by_hand([file for file in sorted(root.iterdir()) if file.name != "002.png"])
    assert found.mean == pytest.approx(mean)
    assert found.std == pytest.approx(std)
    assert (found.images, list(found.broken)) == (4, ["002.png"])


def test_the_command_prints_options_to_paste(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_classes(tmp_path / "data" / "train", {"cat": 3, "dog": 2}).parent
    write_flat(root / "test", 3, first=40)
    assert Stats(data=str(root)).run() == 0
    printed = capsys.readouterr()
    mean, std = by_hand(sorted((root / "train").rglob("*.png")))  # test images have no say
    assert printed.out.splitlines() == [
        "--mean " + " ".join(f"{one:.4f}" for one in mean),
        "--std " + " ".join(f"{one:.4f}" for one in std),
    ]
    assert printed.err == f"gmml stats: 5 images in {root / 'train'}, 2 classes (cat, dog)\n"
    assert Stats(data=str(root), split="test", in_chans=1).run() == 0
    assert len(capsys.readouterr().out.split()) == 4


def test_the_command_prints_json_alone_and_names_what_it_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_flat(tmp_path, 4)
    truncate(root / "001.png")
    assert Stats(data=str(root), json=True).run() == 1
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert (found["images"], list(found["broken"]), len(found["mean"]), len(found["std"])) == (3, ["001.png"], 3, 3)
    assert "001.png is skipped: damaged" in printed.err


def test_a_channel_without_contrast_is_pointed_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        Image.new("RGB", (5, 5), (0, 0, 10 * number)).save(tmp_path / f"{number}.png")
    Stats(data=str(tmp_path)).run()
    printed = capsys.readouterr().err
    assert "channel 0 is constant" in printed
    assert "channel 2" not in printed


def test_without_data_nothing_is_done() -> None:
    with pytest.raises(UsageError, match="no data was given"):
        Stats().run()


def test_the_commands_module_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'timm', 'kornia', 'PIL', 'numpy', 'rich'}"
    code = f"import sys, gmml_models.cli.stats; print(sorted({heavy} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    before = subprocess.run(
        [sys.executable, "-c", code.replace("cli.stats", "errors")], capture_output=True, text=True, check=True
    ).stdout
    assert printed == before
