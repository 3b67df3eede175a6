"""The predictions of a classifier, as CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from torch import Tensor


@final
@dataclass(frozen=True, kw_only=True)
class Predictions:
    """The probabilities for all images that could be read, in their order.

    Attributes:
        names: the names of the images.
        classes: the names of the classes or labels.
        multi_label: True if an image may have several labels, with independent probabilities; otherwise they sum to 1.
        probabilities: (N, c) float32, on the CPU.
        left_out: maps the names of images that could not be read to the reasons.
    """

    names: Sequence[str]
    classes: Sequence[str]
    multi_label: bool
    probabilities: Tensor
    left_out: Mapping[str, str] = field(default_factory=dict)

    def top(self, count: int = 1) -> list[list[tuple[str, float]]]:
        """The most probable classes of each image with their probabilities; ties are ordered by class."""
        values, which = self.probabilities.sort(dim=1, descending=True, stable=True)
        return [
            [(self.classes[place], value) for place, value in zip(places[:count], row[:count], strict=True)]
            for places, row in zip(which.tolist(), values.tolist(), strict=True)
        ]

    def labels(self, threshold: Sequence[float] = (0.5,)) -> list[list[str]]:
        """The labels of each image whose probability is at least the threshold, one number for all labels or one per label."""
        limits = self.probabilities.new_tensor(list(threshold))
        return [[self.classes[place] for place in row.nonzero().flatten().tolist()] for row in self.probabilities >= limits]


def to_csv(found: Predictions, *, top: int = 1, threshold: Sequence[float] = (0.5,)) -> str:
    """Format as CSV: a header line, then one line per image.

    For one class per image, the columns are ``file``, ``class``, ``probability``, and, if more are requested, ``class_2``,
    ``probability_2``, ... For several labels, they are ``file``, ``labels`` (those predicted, joined by "; "), and then the
    probability of each label under its name.
    """
    held = io.StringIO()
    table = csv.writer(held, lineterminator="\n")
    if found.multi_label:
        table.writerow(["file", "labels", *found.classes])
        for name, names, row in zip(found.names, found.labels(threshold), found.probabilities.tolist(), strict=True):
            table.writerow([name, "; ".join(names), *(f"{value:.4f}" for value in row)])
    else:
        count = min(top, len(found.classes))
        behind = ["", *(f"_{place}" for place in range(2, count + 1))]
        table.writerow(["file", *(f"{word}{end}" for end in behind for word in ("class", "probability"))])
        for name, best in zip(found.names, found.top(count), strict=True):
            table.writerow([name, *(word for one, value in best for word in (one, f"{value:.4f}"))])
    return held.getvalue()


def to_json(found: Predictions, facts: Mapping[str, Any], *, top: int = 1, threshold: Sequence[float] = (0.5,)) -> str:
    """Format as JSON: ``predictions``, one per image, ``left_out``, and the facts about their origin.

    One class per image: ``{"file": ..., "classes": [{"class": ..., "probability": ...}, ...]}``. Several labels: ``{"file": ...,
    "labels": [...], "probabilities": {label: ...}}``.
    """
    rows: list[dict[str, Any]]
    if found.multi_label:
        held = zip(found.names, found.labels(threshold), found.probabilities.tolist(), strict=True)
        rows = [
            {"file": name, "labels": names, "probabilities": dict(zip(found.classes, row, strict=True))}
            for name, names, row in held
        ]
    else:
        rows = [
            {"file": name, "classes": [{"class": one, "probability": value} for one, value in best]}
            for name, best in zip(found.names, found.top(top), strict=True)
        ]
    return json.dumps({**facts, "predictions": rows, "left_out": dict(found.left_out)}, indent=2)
