"""The commands that a recipe prints at its end; they run as printed, or name what is missing."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path
from typing import Any

from gmml_models.errors import UsageError
from gmml_models.recipes.command_line_of import command_of
from gmml_models.recipes.config import EvaluateConfig, FinetuneConfig, PredictConfig, PretrainConfig
from gmml_models.recipes.labelled_data import open_labelled
from gmml_models.recipes.named import FINETUNE, recipe_of
from gmml_models.train.config import batch_of

_FIRST = ("weights", "data", "out")  # what a person looks for
_FOLDER = "FOLDER"  # stands for what nobody here knows
_HELD_OUT = 0.2  # where there are no test images


def after_pretraining(config: PretrainConfig) -> list[str]:
    """Show how to evaluate and fine-tune the weights, on the same images if these have labels."""
    data, images, lacking, holdout = _labelled(config)
    weights = str(config.out / "weights")
    recipe = recipe_of(config)
    start = FINETUNE[recipe]
    batch = min(batch_of(config), batch_of(FinetuneConfig(**start)))
    if images is not None:
        batch = max(min(batch, images) // 2 * 2, 2)  # MixUp takes pairs
    shared: dict[str, Any] = {
        "data": data,
        "weights": weights,
        "data_root": config.data_root,
        "workers": config.workers,
        "cpu": config.cpu,
        "extensions": config.extensions,
        "holdout": holdout,
    }
    tuned = config.out.with_name(f"{config.out.name}-finetuned")
    measured = EvaluateConfig(**shared, out=_measured(config.out))
    tuning = FinetuneConfig(**{**start, **shared, "out": tuned, "batch_size": batch, "precision": config.precision})
    return [
        f"Next, with labelled images{lacking}:",
        f"  {command_of(measured, 'evaluate', first=_FIRST)}",
        f"  {command_of(tuning, 'finetune', first=_FIRST, recipe=recipe)}",
    ]


def after_finetuning(config: FinetuneConfig) -> list[str]:
    """Show how to evaluate the classifier, use it on new images, and load it."""
    weights = str(config.out / "weights")
    known = {one.name for one in fields(EvaluateConfig)}
    same = {one.name: getattr(config, one.name) for one in fields(FinetuneConfig) if one.name in known}
    for name in ("out", "batch_size", "img_size", "in_chans", "mean", "std", "pool", "few_shot", "resident", "resident_size"):
        same.pop(name)  # those of the classifier, or no business of a measurement
    asked = {"data": config.data or _FOLDER, "weights": weights, "measures": ("classifier",), "out": _measured(config.out)}
    measured = EvaluateConfig(**{**same, **asked})
    lacking = "" if config.data and config.test_every else " (with labelled test images: FOLDER/test, or --test-data)"
    return [
        f"Next{lacking}:",
        f"  {command_of(measured, 'evaluate', first=_FIRST)}",
        f"  {_predicting(config, weights)}",
        f"  python -c \"import gmml_models; print(gmml_models.Classifier.from_pretrained('{weights}').classes)\"",
    ]


def _measured(run: Path) -> Path:
    """Where the numbers of a run go: its own folder, for the table of another run would replace them."""
    return run.with_name(f"{run.name}-evaluated")


def _predicting(config: FinetuneConfig, weights: str) -> str:
    """The images for a prediction: the test images if they are files, otherwise a placeholder."""
    images = next((one for one in (config.test_data, config.data) if one and Path(one).exists()), _FOLDER)
    also = [*(["--workers", str(config.workers)] if config.workers != PredictConfig.workers else []), *(["--cpu"] * config.cpu)]
    return shlex.join(["gmml", "predict", images, "--weights", weights, "--out", str(config.out / "predictions.csv"), *also])


def _labelled(config: PretrainConfig) -> tuple[str, int | None, str, float | None]:
    """The data to train and measure on: its name, the number of training images, the missing parts of other data, the holdout."""
    advice = f" ({_FOLDER}: a folder with train/ and test/, each with a folder per class or a labels.csv)"
    if config.data.partition("/")[0].lower() in ("torch", "hfds") and not Path(config.data).exists():
        return config.data, None, "", None
    if not Path(config.data).exists() or not config.data:
        return _FOLDER, None, advice, None
    for holdout in (None, _HELD_OUT):
        asked = EvaluateConfig(
            data=config.data, in_chans=config.in_chans, out=config.out, extensions=config.extensions, holdout=holdout
        )
        try:
            return config.data, len(open_labelled(asked, who="gmml pretrain").train), "", holdout
        except UsageError:
            continue
    return _FOLDER, None, advice, None
