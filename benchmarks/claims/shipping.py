"""What a card of the zoo says of its data, and of features that nobody trained, on the images that the weights are measured on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.claims.images import CALTECH, FLOWERS, open_images
from benchmarks.claims.rows import ROWS, SEEDS, Row
from benchmarks.claims.run import Results, identity, known_jobs, machine
from gmml_models.atomic_write import write_aside
from gmml_models.errors import UsageError
from gmml_models.evaluate.baselines import WORDS
from gmml_models.models.autoencoder import GMMLAutoencoder
from gmml_models.recipes.config import EvaluateConfig, FinetuneConfig
from gmml_models.recipes.evaluation import evaluate
from gmml_models.train.config import epochs_of

BASELINES = Path(__file__).parents[1] / "results" / "baselines.json"
_PHOTOGRAPHS = "no licence is stated for the images, whose copyright stays with the photographers: research use only"
SETS: Mapping[str, Mapping[str, Any]] = {
    CALTECH: {
        "id": "caltech101_sub",
        "name": "Caltech-101, a subset: 15 images of each of 101 classes, shorter side 160",
        "images": 1515,
        "licence": "not stated where the images were taken from; single images may carry rights of others: research use only",
        "source": "L. Fei-Fei, R. Fergus, P. Perona (2004)",
    },
    FLOWERS: {
        "id": "flowers102_part",
        "name": "Flowers-102, a part: 15 images of each of 89 classes, shorter side 160",
        "images": 1335,
        "licence": "none stated by the authors; copyright stays with the photographers: research use only",
        "source": "M-E. Nilsback, A. Zisserman (2008)",
    },
    "flowers102_part": {
        "id": "flowers102_part",
        "name": "Flowers-102, a part: training images of 89 classes, shorter side 160",
        "images": 4435,
        "licence": "none stated by the authors; copyright stays with the photographers: research use only",
        "source": "M-E. Nilsback, A. Zisserman (2008)",
    },
    "miml_scenes": {
        "id": "miml_scenes",
        "name": "MIML natural scenes, training images, shorter side at most 160",
        "images": 1500,
        "licence": "not stated where the images were taken from; said to be free for academic use: research use only",
        "source": "Z.-H. Zhou, M.-L. Zhang (2006)",
    },
    "openclipart": {
        "id": "openclipart",
        "name": "Open Clip Art: drawings on white, shorter side at most 128",
        "images": 3417,
        "licence": "public domain: dedicated by their authors, by the copyright file of Debian's openclipart-png 0.18",
        "source": "Debian's package openclipart-png 0.18",
    },
}
"""What is learnt from, by the names of `benchmarks.claims.images`."""
TESTED: Mapping[str, Mapping[str, Any]] = {
    CALTECH: {"id": "caltech101_sub", "name": "Caltech-101, a subset of 101 classes with 15 training images each", "images": 1010},
    FLOWERS: {"id": "flowers102_part", "name": "Flowers-102, 89 classes with 15 training images each", "images": 1108},
}
"""What is measured on: other images of the same classes, which no pretraining saw."""
FREE = "cc0-1.0"
LICENCES: Mapping[str, tuple[str, str | None, bytes | None]] = {
    "openclipart": (FREE, "https://creativecommons.org/publicdomain/zero/1.0/", None)
}
"""Licence of the weights by what they were learnt from, its address, its text; all others are `RESEARCH`."""
RESEARCH: tuple[str, str | None, bytes | None] = (
    "research use only",
    None,
    b"These weights were learnt from photographs whose copyright stays with their photographers, and for which no licence is\n"
    b"stated (the model card, README.md, names the sets). They are given for research alone: to repeat and compare\n"
    b"measurements, and to study how such models learn. They come as they are, without any warranty. The code that made and\n"
    b"loads them, gmml, is under the Apache License 2.0, which is not the licence of these weights.\n",
)
_MEASURED = {"20-NN, weighted": "knn", "linear probe": "linear"}


def data_of(name: str) -> dict[str, Any]:
    """What the card says of the images of a pretraining.

    Args:
        name: of `benchmarks.claims.images`; several packs are joined by "+".

    Raises:
        UsageError: nothing is known of one of them.
    """
    parts = [name] if name in SETS else name.split("+")
    if missing := [one for one in parts if one not in SETS]:
        raise UsageError(
            f"ship: nothing is known of the data {', '.join(missing)}. Say in benchmarks.claims.shipping.SETS what it is."
        )
    sets = [dict(SETS[one]) for one in parts]
    if len(sets) == 1:
        return {**sets[0], "sets": sets}
    licences = dict.fromkeys(str(one["licence"]) for one in sets)
    return {
        "name": "; ".join(str(one["name"]).partition(":")[0].partition(",")[0] for one in sets),
        "images": sum(int(one["images"]) for one in sets),
        "licence": next(iter(licences)) if len(licences) == 1 else _PHOTOGRAPHS,
        "sets": sets,
    }


def baselines_of(config: FinetuneConfig, *, known: Path = BASELINES, data: Path | None = None) -> dict[str, list[dict[str, Any]]]:
    """What needs no training, by k-NN and linear probe on the images of a fine-tuning: measured once, then known.

    Args:
        config: of the fine-tuning: data, model, pooling.
        known: the JSON of what was measured.
        data: the folder of the packs, to measure what is not known.

    Returns:
        Under "knn" and "linear" name, value, spread and seeds of each.

    Raises:
        UsageError: it is not known, and no ``data`` was given.
    """
    told = json.loads(known.read_text(encoding="utf-8")) if known.exists() else {}
    key = f"{config.data} {config.model} {config.pool}"
    if key not in told:
        if data is None:
            raise UsageError(f"ship: {known} does not know the baselines of {key}. Give --data FOLDER to measure them.")
        told[key] = {"rows": _measure(config, data), "machine": machine()}
        write_aside(known, json.dumps(told, indent=1, sort_keys=True))
    found: dict[str, list[dict[str, Any]]] = {"knn": [], "linear": []}
    for row in told[key]["rows"]:
        if row["features"] in WORDS and row["measure"] in _MEASURED:
            spread = row["spread"].get("top1")
            found[_MEASURED[row["measure"]]].append(
                {
                    "name": WORDS[row["features"]],
                    "value": round(row["values"]["top1"], 1),
                    "spread": None if spread is None else round(spread, 1),
                    "seeds": list(row["seeds"]),
                }
            )
    return found


def _measure(config: FinetuneConfig, data: Path) -> list[dict[str, Any]]:
    """The rows of ``gmml evaluate --baselines`` but those of the weights, which here are an untrained encoder's."""
    images = open_images(config.data, data)
    with TemporaryDirectory() as folder:
        weights = Path(folder) / "weights"
        GMMLAutoencoder(config.model, img_size=config.img_size, patch_size=config.patch_size).save_pretrained(weights)
        told = EvaluateConfig(
            weights=str(weights), out=Path(folder) / "out", pool=config.pool, seeds=SEEDS, baselines=True, cpu=True, workers=0
        )
        evaluate(told, dataset=images.train, test_dataset=images.test)
        rows = json.loads((told.out / "table.json").read_text(encoding="utf-8"))["rows"]
    kept = ("features", "measure", "values", "spread", "seeds")
    return [{name: row[name] for name in kept} for row in rows if row["features"] in WORDS]


def from_scratch(row: Row, results: Results, rows: Sequence[Row] = ROWS) -> list[dict[str, Any]]:
    """What the same fine-tuning comes to without weights, as far as it was run for as many epochs or more.

    Args:
        row: with a pretraining.
        results: all numbers.
        rows: where it is looked for.
    """
    found: dict[int, dict[str, Any]] = {}
    for other in rows:
        epochs, alike = epochs_of(other.finetune), other.pretrain is None and _alike(other.finetune) == _alike(row.finetune)
        if not alike or epochs < epochs_of(row.finetune) or epochs in found:
            continue
        jobs = [one for one in known_jobs(other, results) if one["top1"] is not None]
        numbers = [float(one["top1"]) for one in jobs]
        if numbers:
            found[epochs] = {
                "name": f"from scratch, {epochs} epochs",
                "value": round(fmean(numbers), 1),
                "spread": round(stdev(numbers), 1) if len(numbers) > 1 else None,
                "seeds": [int(one["seed"]) for one in jobs],
            }
    return [found[epochs] for epochs in sorted(found)]


def _alike(config: FinetuneConfig) -> dict[str, Any]:
    return identity(replace(config, epochs=1, precision=FinetuneConfig.precision))
