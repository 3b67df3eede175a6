"""The health of a pretraining run: its features compared with those of the encoder at the start."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, final

import torch

from gmml_models.atomic_write import write_aside
from gmml_models.evaluate.health import Health, collapsed, health
from gmml_models.models.encoders import evaluating
from gmml_models.models.pooling import pooled
from gmml_models.train.run_folder import read_json

if TYPE_CHECKING:
    from torch import Tensor

    from gmml_models.data.sampling import Feed
    from gmml_models.objectives import Objective
    from gmml_models.train.run_folder import RunFolder

_IMAGES, _AT_ONCE = 256, 32
_FILE = "health.json"


@final
class HealthCheck:
    """Measures at intervals the mean of an encoder's patch tokens on a few hundred fixed images.

    The numbers of the encoder at the start are kept in ``health.json`` of the run, so that a resumed run compares with the same
    ones.

    Args:
        objective: the objective whose exported encoder is measured.
        feed: the feed of the images; their classes, if class folders give them, are used for nothing else.
        run: the folder.
    """

    def __init__(self, objective: Objective, feed: Feed, run: RunFolder) -> None:
        self._objective, self._feed, self._run = objective, feed, run
        self._alarmed = False
        self._images: Tensor | None = None  # decoded once, they stay
        self._labels: Tensor | None = None
        self.before = self._kept()
        self.now: Health | None = None

    def _kept(self) -> Health | None:
        """The measurement at the start of the run, made now if the run is just starting."""
        path = self._run.folder / _FILE
        begun = any(self._run.checkpoints.glob("step-*")) or self._run.done is not None
        if begun:
            return Health(**read_json(path, "remove it, and the run continues without the comparison")) if path.exists() else None
        found = self._measured()
        if found is not None:
            write_aside(path, json.dumps(found._asdict()))
        return found

    def _measured(self) -> Health | None:
        if self._images is None:
            batch = self._feed.sample(_IMAGES)
            self._images = batch.views[0].cpu()
            self._labels = batch.labels.cpu() if batch.labels is not None and batch.labels.ndim == 1 else None
        if len(self._images) < 2:
            return None
        encoder = self._objective.exported().encoder
        where = next(encoder.parameters()).device
        with evaluating(encoder), torch.no_grad():
            vectors = torch.cat([pooled(encoder, part.to(where), "mean").float().cpu() for part in self._images.split(_AT_ONCE)])
        return health(vectors, self._labels) if bool(torch.isfinite(vectors).all()) else None

    def at_epoch(self, epochs: int) -> Mapping[str, float]:
        """Measure the features, report a collapse, and return the numbers to log."""
        self.now = self._measured()
        if self.now is None:
            return {}
        why = "" if self.before is None else collapsed(self.now, self.before)
        if why and not self._alarmed:
            print(f"gmml pretrain: collapse after epoch {epochs}: {why}. See docs/curves.md.", file=sys.stderr, flush=True)
        self._alarmed = bool(why)
        return {name: value for name, value in self.now._asdict().items() if value is not None}

    def words(self) -> str:
        """The last measurement as text; empty if there is none."""
        if self.now is None or self.before is None:
            return ""
        parts = [f"effective rank {self.now.rank:.1f}, untrained {self.before.rank:.1f}"]
        if self.now.knn is not None and self.before.knn is not None:
            parts.insert(0, f"k-NN accuracy {self.now.knn:.1f} %, untrained {self.before.knn:.1f} %")
        alarm = " The features have collapsed: see docs/curves.md." if self._alarmed else ""
        return f"Features: {'; '.join(parts)}.{alarm}"
