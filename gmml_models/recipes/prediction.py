"""Predicts the classes or labels of new images with a classifier that fine-tuning wrote.

gmml predict PHOTOGRAPHS --weights runs/finetuned/weights -o predictions.csv
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gmml_models.atomic_write import write_aside
from gmml_models.data.dataset import check_readable
from gmml_models.data.image_paths import open_paths
from gmml_models.data.loaders import in_order
from gmml_models.data.map_dataset import MapSource
from gmml_models.data.transforms import ViewPlan
from gmml_models.errors import UsageError, WeightsError
from gmml_models.evaluate.predictions import Predictions, to_csv, to_json
from gmml_models.models.classifier import Classifier
from gmml_models.recipes.config import PredictConfig
from gmml_models.recipes.finetune_augment import centre_of
from gmml_models.recipes.labelled_data import tell, tell_unreadable
from gmml_models.train.progress import teller

if TYPE_CHECKING:
    from gmml_models.data.dataset import Source

_WHO = "gmml predict"
_ENDINGS = (".csv", ".json")


def predict(config: PredictConfig, *, dataset: Any = None) -> Predictions:
    """Predict the classes or labels of images, and write ``config.out`` if it is given. Images are centre crops, as in evaluation.

    Args:
        config: see `PredictConfig`.
        dataset: any map-style data set in Python, instead of ``config.images``; its labels are ignored.

    Raises:
        UsageError: there is no classifier or no readable image, or options do not fit; nothing is written.
    """
    _check(config, dataset)
    try:
        model = Classifier.from_pretrained(config.weights)
    except WeightsError as error:
        raise UsageError(f"{_WHO}: {config.weights!r} cannot be loaded as a classifier. {error}") from error
    _check_fit(config, model)
    source: Source
    if dataset is None:
        source = open_paths(config.images, channels=model.in_chans, who=_WHO)
    else:
        source = MapSource(dataset, channels=model.in_chans, labelled=False)
    tell(_WHO, source)
    check_readable(source)
    device = torch.device("cuda" if torch.cuda.is_available() and not config.cpu else "cpu")
    model.to(device)
    size = model.img_size if config.img_size is None else (config.img_size, config.img_size)
    plan = ViewPlan(size=size, views=1, centre=centre_of(size), mean=model.mean, std=model.std)
    numbers, said = list[int](), list[torch.Tensor]()
    batches = in_order(
        source,
        plan,
        batch_size=config.batch_size,
        device=device,
        workers=config.workers,
        progress=teller("images predicted", shown=True),
    )
    with torch.inference_mode():
        for batch in batches:
            said.append(model.probabilities(batch.views[0]).cpu())
            numbers += batch.index.tolist()
    tell_unreadable(_WHO, source, "images")
    found = Predictions(
        names=tuple(source.name(number) for number in numbers),
        classes=model.classes,
        multi_label=model.multi_label,
        probabilities=torch.cat(said).clone(),
        left_out={**{one.name: one.reason for one in source.left if one.lost}, **source.broken},
    )
    if config.out is not None:
        try:
            write_aside(config.out, written(found, config).removesuffix("\n"))
        except OSError as error:
            raise UsageError(f"{_WHO}: {config.out} could not be written ({error}). Give another --out.") from error
    return found


def written(found: Predictions, config: PredictConfig) -> str:
    """Format the table for ``config.out``: JSON if its name ends in .json, otherwise CSV."""
    if config.out is not None and config.out.suffix.lower() == ".json":
        facts = {"weights": config.weights, "classes": list(found.classes)}
        return to_json(found, facts, top=config.top, threshold=config.threshold)
    return to_csv(found, top=config.top, threshold=config.threshold)


def _check(config: PredictConfig, dataset: Any) -> None:
    if not config.weights:
        raise UsageError(f"{_WHO}: no weights. Give --weights with a folder that gmml finetune wrote, or a Hub name.")
    if dataset is None and not config.images:
        raise UsageError(f"{_WHO}: no images. Give files, or folders of them: gmml predict PHOTOGRAPHS --weights FOLDER.")
    for name, value in (("top", config.top), ("batch_size", config.batch_size)):
        if value < 1:
            raise UsageError(f"{_WHO}: {name}={value} is below 1. Give a whole number of at least 1.")
    if not config.threshold or not all(0 <= one <= 1 for one in config.threshold):
        raise UsageError(f"{_WHO}: threshold={config.threshold} is not a probability. Give a number from 0 to 1, or one per label.")
    if config.out is None:
        return
    if config.out.suffix.lower() not in _ENDINGS:
        raise UsageError(f"{_WHO}: --out {config.out} does not end in {' or '.join(_ENDINGS)}. Give, for example, predictions.csv.")
    if config.out.is_dir() or not config.out.parent.is_dir():
        what = "is a folder" if config.out.is_dir() else f"is in a folder that does not exist, {config.out.parent}"
        raise UsageError(f"{_WHO}: --out {config.out} {what}. Give a file in a folder that exists.")
    if any(one.exists() and Path(one).resolve() == config.out.resolve() for one in config.images):
        raise UsageError(f"{_WHO}: --out {config.out} is one of the images, which are never written to. Give another name.")


def _check_fit(config: PredictConfig, model: Classifier) -> None:
    if not model.multi_label and config.threshold != PredictConfig.threshold:
        raise UsageError(f"{_WHO}: threshold is for several labels per image, but {config.weights} predicts one class. Give --top.")
    if model.multi_label and config.top != PredictConfig.top:
        raise UsageError(f"{_WHO}: top is for one class per image, but {config.weights} predicts several labels. Give --threshold.")
    if len(config.threshold) not in (1, len(model.classes)):
        raise UsageError(
            f"{_WHO}: {len(config.threshold)} thresholds were given for {len(model.classes)} labels "
            f"({', '.join(model.classes[:10])}). "
            "Give one number for all, or one per label, in this order."
        )
    patch = model.patch_size
    if config.img_size is not None and (config.img_size < max(patch) or any(config.img_size % side for side in patch)):
        raise UsageError(
            f"{_WHO}: img_size={config.img_size} is not a whole number of patches of {patch[0]} x {patch[1]}. "
            f"Give, for example, img_size={max(patch[0], config.img_size - config.img_size % patch[0])}."
        )
