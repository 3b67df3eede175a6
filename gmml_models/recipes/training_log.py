"""The files that a run puts next to its weights for readers of the card: the losses of every epoch, and their curve."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gmml_models.figures.curves import Panel, curves
from gmml_models.hub.model_card import CURVE, LOG
from gmml_models.train.run_folder import read_rows


def training_log(run: Path, *, title: str) -> dict[str, bytes]:
    """Return ``epochs.jsonl`` and ``loss.png`` of a run, under their names next to the weights; {} if nothing is recorded.

    Args:
        run: the folder of the run; runs of an older gmml have ``epochs.csv``.
        title: the title of the picture.
    """
    rows = epochs_of(run)
    if not rows:
        return {}
    found = {LOG: "".join(json.dumps(dict(row)) + "\n" for row in rows).encode()}
    names = [name for name in rows[0] if "loss" in name or name == "reconstruction"]
    if "reconstruction" in names and all(row.get("reconstruction") == row.get("loss") for row in rows):
        names.remove("reconstruction")  # the only part
    drawn = curves(rows, [Panel("losses", names)], title=title)
    if drawn is not None:
        picture = io.BytesIO()
        drawn.save(picture, "PNG", optimize=True)
        found[CURVE] = picture.getvalue()
    return found


def epochs_of(run: Path) -> Sequence[Mapping[str, Any]]:
    """The rows of a run's log."""
    if (run / "epochs.csv").exists() and not (run / "epochs.jsonl").exists():
        with (run / "epochs.csv").open(encoding="utf-8", newline="") as file:
            return [{name: _number(text) for name, text in row.items()} for row in csv.DictReader(file)]
    return read_rows(run / "epochs.jsonl")


def _number(text: str) -> float | int | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
