"""The bits of recorded runs: a change that means to change no numbers is held to them.

Floating-point sums depend on torch's release and on the processor, so the hashes hold for one pair of them and are skipped on
others; the losses, which are compared to a part in a thousand, hold everywhere. Whoever changes numbers on purpose records them
again, by ``python -m tests.models.test_recorded``, and says in the commit what changed.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from gmml_models.recipes import EvaluateConfig, FinetuneConfig, PretrainConfig, evaluate, finetune, pretrain
from tests.models.runs import Pictures


def here() -> tuple[str, str]:
    """What the hashes hold for: the release of torch, the processor's maker and its widest vectors."""
    maker = ""
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        maker = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("vendor_id")), "")
    return torch.__version__, f"{platform.machine()} {maker} {torch.backends.cpu.get_cpu_capability()}"


class Recorded(NamedTuple):
    """What is kept of a run."""

    loss: float  # of the last epoch, or the percentage of a measure
    weights: str  # of what was exported
    state: str  # of the last checkpoint, optimiser and teacher with it


RECORDED_ON = ("2.14.1+cu130", "x86_64 GenuineIntel AVX512")
RECORDED: dict[str, Recorded] = {
    "gmml": Recorded(loss=1.0221114873886108, weights="5c2301d30246c3ec7bad85d5", state="fb40b8514937db9dd6b1a32b"),
    "gmml on the device": Recorded(loss=0.989358913898468, weights="618da3fa15f9b45de587328c", state="2186fb656bcd4d2b8620c937"),
    "gmml of normalised patches": Recorded(
        loss=0.9870574593544006, weights="ae4f7abaa311477d74871ce3", state="c8825f306b405b6793811feb"
    ),
    "sit": Recorded(loss=2.8166736125946046, weights="5d1125bec84c1ad1b7f8216b", state="5fa0f96d8813aa60cd4b77b3"),
    "mc_ssl": Recorded(loss=2.5917909145355225, weights="f3f2ab0c2ec4d1a69243c727", state="f00321a2693f1a055779f654"),
    "autoencoder": Recorded(loss=1.0100365042686463, weights="d2a195799593a3db09ac3aef", state="1d19776fc58cc9a4fc94a459"),
    "finetune": Recorded(loss=0.685045599937439, weights="30e4cbecf4e58298a3c444f4", state="3850e035756b4fb30c6aeab5"),
    "linear probe": Recorded(loss=98.25000166893005, weights="66aa99b094cf6b3007ff888a", state=""),
}

_SMALL: dict[str, Any] = {
    "data": "pictures",
    "img_size": 16,
    "patch_size": 8,
    "epochs": 2,
    "batch_size": 8,
    "warmup_epochs": 1.0,
    "workers": 0,
    "cpu": True,
}
_CHANCE: dict[str, Any] = {"jitter_p": 0.5, "blur_p": 0.5, "pictures_every": 0, "head_width": 32, "classes": 32}


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Of names, types, shapes and bytes."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:24]


def of_a_run(out: Path, loss: float) -> Recorded:
    """What a run left in its folder."""
    exported: dict[str, Tensor] = {}
    for file in sorted((out / "weights").glob("*.safetensors")):
        exported |= load_file(file)
    (last,) = (out / "checkpoints").glob("step-*")
    return Recorded(loss, digest(exported), digest(load_file(last / "state.safetensors")))


def pretraining(folder: Path, **changes: Any) -> Recorded:
    """A run of two epochs on pictures from their numbers."""
    config = PretrainConfig(out=folder / "run", model="vit_micro_patch4_32", **{**_SMALL, **_CHANCE, **changes})
    outcome = pretrain(config, dataset=Pictures())
    return of_a_run(config.out, float(outcome.history[-1]["loss"]))


def finetuning(folder: Path, **changes: Any) -> Recorded:
    """A classifier with all of timm's augmentation, two parts a step, clipped gradients and an average of the weights."""
    numbers = {**_SMALL, "accumulate": 2, "ema": 0.9, "clip": 1.0, "layer_decay": 0.75, **changes}
    config = FinetuneConfig(out=folder / "run", model="vit_micro_patch4_32", **numbers)
    outcome = finetune(config, dataset=Pictures(), test_dataset=Pictures(count=12))
    return of_a_run(config.out, float(outcome.history[-1]["loss"]))


class Shades(Pictures):
    """Pictures of four shades, which are their labels: chance alone would make the choice of C a matter of ties."""

    def __getitem__(self, index: int) -> tuple[np.ndarray[Any, Any], int]:
        pixels, shade = super().__getitem__(index)[0], index % 4
        return (pixels // 2 + 30 * shade).astype(np.uint8), shade


def probing(folder: Path) -> Recorded:
    """Neighbours and a linear probe on the features of a run."""
    pretraining(folder)
    config = EvaluateConfig(
        weights=str(folder / "run" / "weights"),
        data="pictures",
        cpu=True,
        workers=0,
        k=3,
        seeds=(0, 1),
        out=folder / "table",
        pool="token",
    )
    rows = evaluate(config, dataset=Shades(count=160), test_dataset=Shades(count=200))
    values = {row.measure: row.values for row in rows}
    told = json.dumps(values, sort_keys=True)
    return Recorded(values["linear probe"]["top1"], hashlib.sha256(told.encode()).hexdigest()[:24], "")


RUNS: dict[str, Callable[[Path], Recorded]] = {
    "gmml": pretraining,
    "gmml on the device": lambda folder: pretraining(folder, resident=True, accumulate=2),
    "gmml of normalised patches": lambda folder: pretraining(folder, target="normalised", loss="l2"),
    "sit": lambda folder: pretraining(folder, method="sit"),
    "mc_ssl": lambda folder: pretraining(folder, method="mc_ssl", local_views=1, cls_loss=True),
    "autoencoder": lambda folder: pretraining(folder, method="autoencoder"),
    "finetune": finetuning,
    "linear probe": probing,
}


@pytest.mark.parametrize("name", RUNS)
def test_a_recorded_run_gives_what_it_gave(name: str, tmp_path: Path) -> None:
    found, recorded = RUNS[name](tmp_path), RECORDED[name]
    assert found.loss == pytest.approx(recorded.loss, rel=1e-3)
    if here() != RECORDED_ON:
        pytest.skip(f"the bits were recorded on {' '.join(RECORDED_ON)}, this is {' '.join(here())}; the loss is as it was")
    assert found == recorded


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(f"RECORDED_ON = {here()}")
    for title, run in RUNS.items():
        with tempfile.TemporaryDirectory() as one:
            print(f"    {title!r}: {run(Path(one))!r},", flush=True)
