"""Metrics of scores: accuracy for one class per image, seven metrics for several labels. All metrics are in percent.

The number of classes is c.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, final

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from gmml_models.evaluate.per_class import PerClass

MULTI_LABEL = ("mAP", "CP", "CR", "CF1", "OP", "OR", "OF1")
MULTI_CLASS = ("top1", "top5")
THRESHOLD = 0.5


@final
class Metrics:
    """Collects scores batch by batch; `torchmetrics` does the counting, and sums over the processes of a run.

    One class per image: "top1", and "top5" if there are more than five classes.

    Several labels per image, over the labels that occur in the test images:

    - "mAP": mean of the average precisions.
    - "CP", "CR": mean of the precisions and of the recalls at probability above 0.5; a label that is never predicted has
      precision 0.
    - "CF1": 2 CP CR / (CP + CR). This is not the mean of the labels' own F1.

    and, over all labels:

    - "OP", "OR": precision and recall of all decisions together; "OF1": 2 OP OR / (OP + OR).

    0 / 0 counts as 0. If no image has a label there is nothing to measure, and the metrics that need one are NaN.

    Args:
        classes: c.
        multi_label: True for several labels per image.
        device: the device of the scores.

    Shapes:
        update: scores (B, c), before softmax or sigmoid, and labels, (B,) int64 or (B, c) of 0 and 1.

    Raises:
        ValueError: at ``update``, the shapes do not fit; at ``compute``, there were no images.

    Source:
        MC-SSL 4.2 names the seven metrics and the threshold, but not the formula of CF1: computing it from CP and CR gives table
        1's numbers (21.9 and 55.2 -> 31.4). Leaving out labels that do not occur is our choice; if all occur, as in the paper's
        data sets, it changes nothing.
    """

    def __init__(self, classes: int, *, multi_label: bool = False, device: torch.device | str = "cpu") -> None:
        from torchmetrics import classification as of

        self.classes, self.multi_label, self._images = classes, multi_label, 0
        options: dict[str, Any] = {"validate_args": False}
        self._parts: dict[str, Any]
        if multi_label:
            self._parts = {
                "counts": of.MultilabelStatScores(classes, threshold=THRESHOLD, average="none", **options),
                "precisions": of.MultilabelAveragePrecision(classes, average="none", thresholds=None, **options),
            }
        else:
            tops = {"top1": 1, **({"top5": 5} if classes > 5 else {})}
            self._parts = {
                name: of.MulticlassAccuracy(classes, top_k=top, average="micro", **options) for name, top in tops.items()
            }
        for part in self._parts.values():
            part.to(device)

    def update(self, scores: Tensor, labels: Tensor) -> None:
        """Add a batch."""
        wanted = tuple(scores.shape) if self.multi_label else (len(scores),)
        if scores.ndim != 2 or scores.shape[1] != self.classes or tuple(labels.shape) != wanted:
            raise ValueError(
                f"Metrics: scores {tuple(scores.shape)} and labels {tuple(labels.shape)} do not fit {self.classes} classes. Give "
                f"scores (B, {self.classes}) and labels {f'(B, {self.classes})' if self.multi_label else '(B,)'}."
            )
        self._images += len(scores)
        values = scores.detach().float()  # bfloat16 would tie neighbours
        for name, part in self._parts.items():
            # torchmetrics takes a sigmoid itself, but only of scores outside [0, 1]
            of = values if not self.multi_label else ordered(values) if name == "precisions" else values.sigmoid()
            part.update(of, labels.long())

    def compute(self) -> dict[str, float]:
        """Return the metrics, in percent; with several processes, each must call it, and gets the metrics of all images."""
        if not self._images:
            raise ValueError("Metrics: no image was given. Give at least one batch.")
        if not self.multi_label:
            return {name: 100 * float(part.compute()) for name, part in self._parts.items()}
        counts = self._parts["counts"].compute().double().cpu().reshape(-1, 5)  # (c, 5)
        right, wrong, _, missed, there = counts.unbind(1)
        with warnings.catch_warnings():  # of labels that do not occur, which are left out below
            warnings.filterwarnings("ignore", message="No positive samples")
            precisions = self._parts["precisions"].compute().double().cpu().reshape(-1)
        occur = there > 0
        cp, cr = _over(right, right + wrong)[occur].mean(), (right / there)[occur].mean()
        op, recall = _over(right.sum(), (right + wrong).sum()), right.sum() / (right + missed).sum()
        found = (precisions[occur].mean(), cp, cr, _f1(cp, cr), op, recall, _f1(op, recall))
        return {name: 100 * float(value) for name, value in zip(MULTI_LABEL, found, strict=True)}


def measure(scores: Tensor, labels: Tensor, *, multi_label: bool = False) -> dict[str, float]:
    """Compute `Metrics` of one complete set of scores; the arguments are those of `Metrics.update`."""
    metrics = Metrics(scores.shape[-1], multi_label=multi_label, device=scores.device)
    metrics.update(scores, labels)
    return metrics.compute()


def score(
    model: Callable[[Tensor], Tensor],
    batches: Iterable[Any],
    *,
    classes: int,
    multi_label: bool,
    device: torch.device | str = "cpu",
    also: PerClass | None = None,
) -> dict[str, float]:
    """Compute `Metrics` of a classifier, without gradients; the caller sets its mode.

    Args:
        model: a function from images (B, C, H, W) to scores (B, c).
        batches: batches with ``views``, of which the first is used, and ``labels``; with several processes, those of this
            process.
        classes: c.
        multi_label: see `Metrics`.
        device: the device of the model.
        also: a function that is called with every batch too.
    """
    metrics = Metrics(classes, multi_label=multi_label, device=device)
    with torch.no_grad():
        for batch in batches:
            scores, labels = model(batch.views[0].to(device)), batch.labels.to(device)
            metrics.update(scores, labels)
            if also is not None:
                also.update(scores, labels)
    return metrics.compute()


def main_measure(found: dict[str, float]) -> str:
    """The name of the metric that runs are compared by: "mAP" or "top1"."""
    return "mAP" if "mAP" in found else "top1"


def ordered(scores: Tensor) -> Tensor:
    """Map float32 scores to float64 in [0, 1], keeping their order and ties; a sigmoid would merge all scores beyond 16.6.

    The bits of positive floats, read as integers, increase with them; those of negative floats decrease, so they are reversed.
    """
    bits = (scores + 0.0).view(torch.int32)  # + 0.0: -0 is 0
    rising = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).double()
    return ((rising + 2.0**31) / 2.0**32).where(~scores.isnan(), scores.double())


def _over(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole.clamp(min=1), torch.zeros_like(part))


def _f1(one: Tensor, other: Tensor) -> Tensor:
    return torch.where(one + other > 0, 2 * one * other / (one + other), 0 * (one + other))  # NaN stays NaN
