"""The linear probe: a linear classifier on features that stay as they are.

N training images, M test images, d the width of the features, c classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from gmml_models.evaluate.metrics import main_measure, measure

if TYPE_CHECKING:
    from torch import Tensor

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
_HELD_OUT = 0.2
_ITERATIONS = 500


class Probed(NamedTuple):
    """What a probe says.

    Attributes:
        scores: (M, c) float32, before softmax or sigmoid.
        strength: scikit-learn's C, the inverse of the weight of the L2 penalty, that was chosen.
        held_out: measure on the held-out part by C.
    """

    scores: Tensor
    strength: float
    held_out: dict[float, float]


def linear_probe(
    train: Tensor,
    labels: Tensor,
    test: Tensor,
    *,
    classes: int | None = None,
    seed: int = 0,
    strengths: Sequence[float] = STRENGTHS,
) -> Probed:
    """Logistic regression on standardised features; for several labels one of its own a label.

    C is the one of ``strengths`` that is best (top-1 or mAP; the smallest of equals) on a fifth of the training images, drawn by
    ``seed`` and fitted without; then the probe is fitted to all of them. Classes with one image stay in the part that is fitted.

    Args:
        train: features of the training images.
        labels: their classes, or 0 and 1 for each of their labels.
        test: features of the test images.
        classes: c; by default the largest class that occurs, plus one.
        seed: of the held-out part.
        strengths: values of C.

    Shapes:
        (N, d) float, (N,) int64 or (N, c) of 0 and 1, (M, d) float.

    Raises:
        ValueError: shapes that do not fit, fewer than two classes in the training images, or no C.

    Source:
        Logistic regression by L-BFGS with a C chosen on held-out images: Kornblith et al., "Do better ImageNet models transfer
        better?" (2019); that the features are standardised, the grid and the share are ours. Neither GMML nor MC-SSL reports it.
    """
    if train.ndim != 2 or test.ndim != 2 or train.shape[1] != test.shape[1] or len(labels) != len(train) or not len(train):
        raise ValueError(
            f"linear_probe: features {tuple(train.shape)} with labels {tuple(labels.shape)} and {tuple(test.shape)} do not fit. "
            "Give (N, d), (N,) or (N, c), and (M, d)."
        )
    if not strengths:
        raise ValueError("linear_probe: strengths is empty. Give one C or more, for example (0.1, 1.0).")
    several = labels.ndim == 2
    if not several and len(labels.unique()) < 2:
        raise ValueError("linear_probe: all training images are of one class. Give two classes or more.")
    count = labels.shape[1] if several else classes or int(labels.max()) + 1
    known, given = _standardised(train, test)
    wanted = labels.cpu().numpy()
    fit, held = _parts(wanted, seed)
    held_out: dict[float, float] = {}
    if len(held) and len(strengths) > 1:
        for strength in sorted(strengths):
            scores = _fitted(known[fit], wanted[fit], known[held], count, strength)
            found = measure(torch.from_numpy(scores), torch.from_numpy(wanted[held]), multi_label=several)
            held_out[strength] = found[main_measure(found)]
    sound = {strength: value for strength, value in held_out.items() if value == value}  # NaN: no label in the held-out part
    best = max(sound, key=lambda strength: sound[strength]) if sound else sorted(strengths)[len(strengths) // 2]
    return Probed(torch.from_numpy(_fitted(known, wanted, given, count, best)), best, held_out)


def _standardised(train: Tensor, test: Tensor) -> tuple[Any, Any]:
    mean, std = train.double().mean(0), train.double().std(0, correction=0)
    std = torch.where(std > 1e-8, std, torch.ones_like(std))  # a feature that never changes
    known, given = (((each.double() - mean) / std).cpu().numpy() for each in (train, test))
    return known, given


def _parts(labels: Any, seed: int) -> tuple[Any, Any]:
    """Numbers of the images to fit and to hold out; a fifth of each class, rounded down but at least one of two and more."""
    order = np.random.default_rng(seed).permutation(len(labels))
    if labels.ndim == 2:
        cut = int(len(labels) * _HELD_OUT)
        return order[cut:], order[:cut]
    held = []
    for one in np.unique(labels):
        mine = order[labels[order] == one]
        held.append(mine[: max(int(len(mine) * _HELD_OUT), 1 if len(mine) > 1 else 0)])
    out = np.sort(np.concatenate(held))
    return np.setdiff1d(order, out), out


def _fitted(known: Any, labels: Any, given: Any, classes: int, strength: float) -> Any:
    """(M, c) scores; a class that the training images do not have scores lower than all others."""
    scores = np.full((len(given), classes), -1e4, dtype=np.float32)
    if labels.ndim == 2:
        for one in range(classes):
            mine = labels[:, one] > 0.5
            if mine.all() or not mine.any():  # nothing to learn: what is always so
                scores[:, one] = 1e4 if mine.all() else -1e4
            else:
                scores[:, one] = _regression(known, mine.astype(np.int64), strength).decision_function(given)
        return scores
    model = _regression(known, labels, strength)
    found = model.decision_function(given)
    if found.ndim == 1:  # two classes
        found = np.stack([-found, found], axis=1) / 2
    scores[:, model.classes_] = found
    return scores


def _regression(known: Any, labels: Any, strength: float) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():  # 500 iterations are enough for the measure, if not for the gradient
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=_ITERATIONS).fit(known, labels)
