"""What is tried: axes one after the other, each from the best of the axes before it. No code here decides anything by a number.

Every run sees the same number of views. Images of two sets are learnt from together, without labels; every fifth training image of
each class is held out, and not learnt from. What decides is a linear probe of all training images, each measured by what was
learnt from others, those held out among them: see `benchmarks.tuning.readout`. Test images are not touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gmml_models.recipes.config import PretrainConfig

SETS = ("caltech101_sub", "flowers102_part")
IMAGES = "+".join(SETS) + "/held"
EPOCHS = 14
"""Of 4,760 images: about 66,000 views, some twelve minutes of one core."""
SEEDS = (0, 1)
"""Every option of an axis is run with the first seed, its best two with the others as well."""
BASE: Mapping[str, Any] = {
    "data": IMAGES,
    "model": "vit_micro_patch8_64",
    "epochs": EPOCHS,
    "batch_size": 64,
    "rate": 2e-3,  # of a step, whatever the batch
    "min_lr": 0.0,
    "warmup_epochs": 1.0,
    "betas": (0.9, 0.95),
    "weight_decay": 0.05,
    "weight_decay_end": 0.05,
    "drop_path": 0.0,
    "corruption": 'ablation(kind="replace", ratio=0.7)',
    "target": "normalised",
    "loss": "l2",
    "views": 1,
    "scale": (0.35, 1.0),
    "jitter_p": 0.0,
    "blur_p": 0.0,
    "resident_size": 112,  # a crop of 35 % is then still as large as a view
    "precision": "fp32",
    "cpu": True,
    "resident": True,
    "workers": 0,
    "pictures_every": 0,
    "keep": 1,
}
"""Where the search begins: a trial that did better than everything before it."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One thing that is varied.

    Attributes:
        name: of what is varied.
        options: name -> settings on top of the best so far; the settings that the search has reached by then compete as well.
    """

    name: str
    options: Mapping[str, Mapping[str, Any]]


_RATES: Mapping[str, Mapping[str, Any]] = {"2e-3": {"rate": 2e-3}, "4e-3": {"rate": 4e-3}, "1e-3": {"rate": 1e-3}}
AXES = (
    Axis(
        name="corruption",
        options={
            "alien-70": {"corruption": 'ablation(kind="replace", ratio=0.7)'},
            "gmml": {"corruption": "gmml"},
            "comb1-70": {"corruption": 'ablation(kind="comb1", ratio=0.7)'},
            "alien-50": {"corruption": 'ablation(kind="replace", ratio=0.5)'},
        },
    ),
    Axis(
        name="target",
        options={
            "normalised-l2": {"target": "normalised", "loss": "l2"},
            "pixels-l1": {"target": "pixels", "loss": "l1"},
            "normalised-l1": {"target": "normalised", "loss": "l1"},
        },
    ),
    Axis(name="rate", options=_RATES),
    Axis(name="batch", options={"64": {"batch_size": 64}, "32": {"batch_size": 32}, "16": {"batch_size": 16}}),
    Axis(name="rate-again", options=_RATES),  # another batch may ask for another rate
    Axis(name="crop", options={"35": {"scale": (0.35, 1.0)}, "20": {"scale": (0.2, 1.0)}, "60": {"scale": (0.6, 1.0)}}),
    Axis(
        name="decay",
        options={
            "0.05": {"weight_decay": 0.05, "weight_decay_end": 0.05},
            "0.2": {"weight_decay": 0.2, "weight_decay_end": 0.2},
            "paper": {"weight_decay": 0.04, "weight_decay_end": 0.4},
        },
    ),
    Axis(name="decoder", options={"paper": {"decoder": None}, "release": {"decoder": "release"}}),
    Axis(name="blocks", options={"fused": {"blocks": None}, "last": {"blocks": (6,)}, "last-two": {"blocks": (5, 6)}}),
    Axis(
        name="colour",
        options={"none": {"jitter_p": 0.0}, "jitter": {"jitter_p": 0.3}, "release": {"jitter_p": 0.3, "blur_p": 0.1}},
    ),
    Axis(name="drop-path", options={"0": {"drop_path": 0.0}, "0.1": {"drop_path": 0.1}}),
    Axis(name="betas", options={"0.95": {"betas": (0.9, 0.95)}, "0.999": {"betas": (0.9, 0.999)}}),
)
"""In the order of what they are expected to be worth."""

AFTER: Mapping[str, Mapping[str, Any]] = {
    "long": {"epochs": 2 * EPOCHS},
    "long-gmml": {"epochs": 2 * EPOCHS, "corruption": "gmml"},
    "long-pixels-l1": {"epochs": 2 * EPOCHS, "target": "pixels", "loss": "l1"},
    "long-mae": {"epochs": 2 * EPOCHS, "corruption": "mae"},
}
"""On top of what the search found, with every seed: whether it holds for twice as long, and beside the papers' choices."""


def configure(settings: Mapping[str, Any], seed: int) -> PretrainConfig:
    """The run of some settings."""
    told = {**settings, "seed": seed}
    rate = told.pop("rate")
    return PretrainConfig(lr=rate * 256 / told["batch_size"], **told)
