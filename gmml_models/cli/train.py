"""``gmml pretrain`` trains a vision transformer on images without labels.

``gmml finetune`` trains a classifier on labelled ones.
"""

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
    """Pretrain a vision transformer without labels, by GMML, SiT or MC-SSL.

    Defaults are those of GMML 3.1, or of the authors' release where the paper gives none. To use several processes, start it with
    torchrun: torchrun --nproc-per-node 8 -m gmml_models.cli pretrain ...
    """

    recipe: Recipe = "paper"
    """Defaults of the other options; small is for a few thousand images and a CPU (docs/recipes.md)."""

    def run(self) -> int:
        """Train; returns 0 at the end of the run, 1 if images were skipped, 3 if it was stopped and can be resumed."""
        if not self.data:
            raise UsageError("gmml pretrain: no data was given. Give --data FOLDER, or a data set as timm names it.")
        from gmml_models.recipes.pretraining import pretrain

        config = PretrainConfig(**{one.name: getattr(self, one.name) for one in fields(PretrainConfig)})
        outcome = pretrain(config)
        return exit_code(outcome, config)


@dataclass(frozen=True, kw_only=True)
class Finetune(FinetuneConfig):
    """Train a classifier on labelled images, from pretrained weights or from scratch.

    With one class per image (class folders) it trains as in DeiT, which GMML 3.1 and MC-SSL 4.3 follow. With several labels per
    image (a labels.csv) it trains as in MC-SSL 4.2, whose settings are --img-size 448 --epochs 80 --batch-size 48.
    """

    recipe: Recipe = "paper"
    """Defaults of the other options; small is for a few thousand images and a CPU (docs/recipes.md)."""

    def run(self) -> int:
        """Train; returns 0 at the end of the run, 1 if images were skipped, 3 if it was stopped and can be resumed."""
        from gmml_models.recipes.finetuning import finetune

        config = FinetuneConfig(**{one.name: getattr(self, one.name) for one in fields(FinetuneConfig)})
        outcome = finetune(config)
        return exit_code(outcome, config)


def exit_code(outcome: Outcome, config: TrainConfig) -> int:
    """The exit code of a training run: 3 if it was stopped, 1 if files that may be images were skipped, otherwise 0.

    The exit code of a dry run is 0. With several processes, 1 is never used: torchrun would treat it as a failure and end the
    others.
    """
    if config.dry_run:
        return 0
    if not outcome.finished:
        return STOPPED
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    return 1 if outcome.left_out and alone else 0
