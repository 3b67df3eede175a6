"""``gmml predict``: predicts the classes or labels of pictures."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import tyro

from gmml_models.errors import shown
from gmml_models.recipes.config import PredictConfig


@dataclass(frozen=True, kw_only=True)
class Predict(PredictConfig):
    """Classify new images with a classifier that gmml finetune trained."""

    images: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="[IMAGES ...]")] = ()
    """Image files, and folders of them at any depth; or one archive."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None
    """File for the table, .csv or .json; by default it is printed as CSV."""

    def run(self) -> int:
        """Predict, and write or print the table; the exit code is 1 if files that may be images were skipped."""
        from gmml_models.recipes.prediction import predict, written

        config = PredictConfig(**{one.name: getattr(self, one.name) for one in fields(PredictConfig)})
        found = predict(config)
        if config.out is None:
            text = written(found, config)
            print(shown(text) if sys.stdout.isatty() else text, end="")
        else:
            print(f"{len(found.names)} predictions: {config.out}")
        return 1 if found.left_out else 0
