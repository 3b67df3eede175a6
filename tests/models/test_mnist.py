"""The two commands on real digits: slow, and only where the files are."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gmml_models.recipes import FinetuneConfig, PretrainConfig, finetune, pretrain

FILES = Path(os.environ.get("GMML_TEST_DATA", "/nowhere"))
IMAGES, LABELS = "mnist_t10k-images-idx3-ubyte.gz", "mnist_t10k-labels-idx1-ubyte.gz"
DIGITS = {"in_chans": 1, "mean": (0.13,), "std": (0.31,), "cpu": True, "drop_path": 0.0, "flip": 0.0, "warmup_epochs": 1.0}


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """The 10,000 test digits of MNIST as class folders: the first 8,000 to train on, the others to test."""
    with gzip.open(FILES / IMAGES) as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(FILES / LABELS) as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = tmp_path / "digits" / ("train" if number < 8000 else "test") / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:05d}.png", compress_level=1)
    return tmp_path / "digits"


@pytest.mark.slow
@pytest.mark.skipif(not (FILES / IMAGES).exists(), reason="the environment names no folder with MNIST's test files")
def test_pretrained_and_fine_tuned_digits_are_read(digits: Path, tmp_path: Path) -> None:
    before = PretrainConfig(
        data=str(digits),
        out=tmp_path / "pretrained",
        model="vit_micro_patch4_32",
        img_size=28,
        epochs=10,
        batch_size=128,
        lr=2e-3,
        views=1,
        scale=(0.6, 1.0),
        jitter_p=0.0,
        blur_p=0.0,
        resident=True,
        **DIGITS,  # type: ignore[arg-type]  # a dict of many types
    )
    assert pretrain(before).finished
    after = FinetuneConfig(
        data=str(digits),
        out=tmp_path / "tuned",
        weights=str(tmp_path / "pretrained" / "weights"),
        epochs=12,
        batch_size=64,
        lr=8e-3,
        scale=(0.7, 1.0),
        mixup=0.0,
        cutmix=0.0,
        erasing=0.0,
        auto_augment=None,
        smoothing=0.0,
        **DIGITS,  # type: ignore[arg-type]
    )
    assert float(finetune(after).history[-1]["top1"]) > 90.0
