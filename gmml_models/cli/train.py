"""``gmml pretrain``: a vision transformer from images without labels; ``gmml finetune``: a classifier from labelled ones."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from gmml_models.errors import UsageError
from gmml_models.recipes.config import FinetuneConfig, PretrainConfig
from gmml_models.recipes.named import Recipe

if TYPE_CHECKING:
    from gmml_models.train.config import TrainConfig
    from gmml_models.train.trainer import Outcome

STOPPED = 3  # exit code of a run that stopped at a checkpoint: the same command goes on


@dataclass(frozen=True, kw_only=True)
class Pretrain(PretrainConfig):
    """Pretrain a vision transformer without labels, by GMML or one of its relatives.

    Defaults are those of GMML 3.1, or of the authors' release where the paper gives none. To use several processes, start it with
    torchrun: torchrun --nproc-per-node 8 -m gmml_models.cli pretrain ...
    """

    recipe: Recipe = "paper"
    """Defaults of the other options; small is for a few thousand images and a CPU (docs/recipes.md)."""

    def run(self) -> int:
        """Train; 0 at the end of the run, 1 if images were left out, 3 where it stopped and the same command goes on."""
        if not self.data:
            raise UsageError("gmml pretrain: no data. Give --data FOLDER, or a data set as timm names it.")
        from gmml_models.recipes.pretraining import pretrain

        config = PretrainConfig(**{one.name: getattr(self, one.name) for one in fields(PretrainConfig)})
        outcome = pretrain(config)
        return exit_code(outcome, config)


@dataclass(frozen=True, kw_only=True)
class Finetune(FinetuneConfig):
    """Train a classifier on labelled images, from pretrained weights or from scratch.

    With one class per image (class folders) it trains as DeiT does, which GMML 3.1 and MC-SSL 4.3 follow. With several labels per
    image (a labels.csv) it trains as MC-SSL 4.2, whose settings are --img-size 448 --epochs 80 --batch-size 48.
    """

    recipe: Recipe = "paper"
    """Defaults of the other options; small is for a few thousand images and a CPU (docs/recipes.md)."""

    def run(self) -> int:
        """Train; 0 at the end of the run, 1 if images were left out, 3 where it stopped and the same command goes on."""
        from gmml_models.recipes.finetuning import finetune

        config = FinetuneConfig(**{one.name: getattr(self, one.name) for one in fields(FinetuneConfig)})
        outcome = finetune(config)
        return exit_code(outcome, config)


def exit_code(outcome: Outcome, config: TrainConfig) -> int:
    """Of a training: 3 where it stopped, 1 where files that may be images were left out, else 0; of a dry run 0.

    Of several processes none ends with 1: torchrun would take it for a fault, and end the others.
    """
    if config.dry_run:
        return 0
    if not outcome.finished:
        return STOPPED
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    return 1 if outcome.left_out and alone else 0
