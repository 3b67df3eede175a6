"""The health of a pretraining run: what its features are worth against those of the encoder that it began with, and its curves."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, final

import torch

from gmml_models.atomic_write import write_aside
from gmml_models.evaluate.health import Health, collapsed, health
from gmml_models.figures.curves import Panel, curves
from gmml_models.figures.run_sheet import save_sheet
from gmml_models.models.encoders import evaluating
from gmml_models.models.pooling import pooled
from gmml_models.train.run_folder import read_json

if TYPE_CHECKING:
    from gmml_models.data.sampling import Feed
    from gmml_models.objectives import Objective
    from gmml_models.train.run_folder import RunFolder

_IMAGES, _AT_ONCE = 256, 32
_FILE, _PICTURE = "health.json", "curves.png"
_OFTEN = 10.0  # seconds between pictures
_LOSSES = ("loss", "reconstruction", "contrast", "concepts", "cls")


@final
class HealthCheck:
    """Measures the mean of an encoder's patch tokens on a fixed few hundred images, now and then.

    What the encoder was like at the beginning is kept in ``health.json`` of the run, so that a run which goes on compares with the
    same numbers.

    Args:
        objective: its exported encoder is measured.
        feed: of the images; their classes, where folders tell them, are used for nothing else.
        run: the folder.
    """

    def __init__(self, objective: Objective, feed: Feed, run: RunFolder) -> None:
        self._objective, self._feed, self._run = objective, feed, run
        self._alarmed = False
        self.before = self._kept()
        self.now: Health | None = None

    def _kept(self) -> Health | None:
        """That of the beginning: measured if this is the beginning."""
        path = self._run.folder / _FILE
        begun = any(self._run.checkpoints.glob("step-*")) or self._run.done is not None
        if begun:
            return Health(**read_json(path, "remove it: the run goes on without the comparison")) if path.exists() else None
        found = self._measured()
        if found is not None:
            write_aside(path, json.dumps(found._asdict()))
        return found

    def _measured(self) -> Health | None:
        batch = self._feed.sample(_IMAGES)
        encoder = self._objective.exported().encoder
        if len(batch.views[0]) < 2:
            return None
        where = next(encoder.parameters()).device
        with evaluating(encoder), torch.no_grad():
            vectors = torch.cat([pooled(encoder, part.to(where), "mean").float().cpu() for part in batch.views[0].split(_AT_ONCE)])
        labels = batch.labels.cpu() if batch.labels is not None and batch.labels.ndim == 1 else None
        return health(vectors, labels) if bool(torch.isfinite(vectors).all()) else None

    def at_epoch(self, epochs: int) -> Mapping[str, float]:
        """Measure, and say so where features have collapsed; numbers to log."""
        self.now = self._measured()
        if self.now is None:
            return {}
        why = "" if self.before is None else collapsed(self.now, self.before)
        if why and not self._alarmed:
            print(f"gmml pretrain: collapse after epoch {epochs}: {why}. See docs/curves.md.", file=sys.stderr, flush=True)
        self._alarmed = bool(why)
        return {name: value for name, value in self.now._asdict().items() if value is not None}

    def words(self) -> str:
        """The last measurement for a person; empty without one."""
        if self.now is None or self.before is None:
            return ""
        parts = [f"effective rank {self.now.rank:.1f}, untrained {self.before.rank:.1f}"]
        if self.now.knn is not None and self.before.knn is not None:
            parts.insert(0, f"neighbours tell {self.now.knn:.1f} % of the classes, untrained {self.before.knn:.1f} %")
        alarm = " The features have collapsed: see docs/curves.md." if self._alarmed else ""
        return f"Features: {'; '.join(parts)}.{alarm}"


@final
class Curves:
    """Draws ``curves.png`` of a run from its log, at most every few seconds.

    Args:
        run: the folder.
        before: values of the beginning, by name, to be shown beside.
    """

    def __init__(self, run: RunFolder, before: Mapping[str, float | None] | None = None) -> None:
        self._run, self._before, self._due = run, before or {}, 0.0

    def draw(self, *, now: bool = False) -> None:
        """Draw what the log holds; a disk without room for it does not end the run."""
        if not now and time.monotonic() < self._due:
            return
        marks = {name: {"untrained": value} for name, value in self._before.items() if value is not None}
        panels = [
            Panel("loss", _LOSSES),
            Panel("test images, in percent", ("top1", "top5", "mAP", "CF1", "OF1")),
            Panel("neighbours, in percent", ("knn",), marks.get("knn", {})),
            Panel("effective rank of the features", ("rank",), marks.get("rank", {})),
            Panel("spread of the features", ("spread",), marks.get("spread", {}), (0.0, 1.0)),
            Panel("gradient norm", ("grad_norm",)),
            Panel("learning rate", ("lr",)),
        ]
        try:
            picture = curves(self._run.history(), panels, title=self._run.folder.name)
            if picture is not None:
                save_sheet(picture, self._run.folder / _PICTURE)
        except OSError as error:
            print(f"gmml: no curves could be drawn ({error}); the run goes on.", file=sys.stderr)
        self._due = time.monotonic() + _OFTEN
