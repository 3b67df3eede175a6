"""``gmml finetune``: a classifier from labelled images."""

from __future__ import annotations

from dataclasses import dataclass, fields

from gmml_models.pretrain_command import STOPPED
from gmml_models.recipes.config import FinetuneConfig


@dataclass(frozen=True, kw_only=True)
class Finetune(FinetuneConfig):
    """Train a classifier on labelled images, from pretrained weights or from scratch.

    One class an image (class folders) as DeiT through timm, which GMML 3.1 and MC-SSL 4.3 follow. Several labels an image (a
    labels.csv) as MC-SSL 4.2, whose numbers are --img-size 448 --epochs 80 --batch-size 48.
    """

    def run(self) -> int:
        """Train; 0 at the end of the run, 3 where it stopped and the same command goes on."""
        from gmml_models.recipes.finetuning import finetune

        config = FinetuneConfig(**{one.name: getattr(self, one.name) for one in fields(FinetuneConfig)})
        outcome = finetune(config)
        return 0 if outcome.finished or config.dry_run else STOPPED
