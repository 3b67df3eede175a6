"""The linear probe: a linear classifier on frozen features.

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
    """The result of a probe.

    Attributes:
        scores: (M, c) float32, before softmax or sigmoid.
        strength: the chosen C of scikit-learn, the inverse of the weight of the L2 penalty.
        held_out: for each C, the metric on the held-out part.
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
    """Logistic regression on standardised features; for several labels, a separate regression per label.

    C is the best of ``strengths`` (by top-1 or mAP; the smallest if several are equal) on a fifth of the training images, which
    is chosen by ``seed`` and used neither for the fit nor for the standardisation. The final probe is then fitted to all training
    images. A class with a single image stays in the fitted part.

    Args:
        train: features of the training images.
        labels: the classes of these images, or, for several labels per image, 0 or 1 for each label.
        test: features of the test images.
        classes: c; by default the largest class that occurs, plus one.
        seed: the seed that selects the held-out part.
        strengths: the values of C to try.

    Shapes:
        (N, d) float, (N,) int64 or (N, c) of 0 and 1, (M, d) float.

    Raises:
        ValueError: the shapes do not fit, the training images have fewer than two classes, or there is no C.

    Source:
        Logistic regression by L-BFGS with a C chosen on held-out images: Kornblith et al., "Do better ImageNet models transfer
        better?" (2019); standardising the features, the grid and the share are our choice. Neither GMML nor MC-SSL reports it.
    """
    if train.ndim != 2 or test.ndim != 2 or train.shape[1] != test.shape[1] or len(labels) != len(train) or not len(train):
        raise ValueError(
            f"linear_probe: features {tuple(train.shape)} with labels {tuple(labels.shape)} and {tuple(test.shape)} do not fit. "
            "Give (N, d), (N,) or (N, c), and (M, d)."
        )
    if not strengths:
        raise ValueError("linear_probe: strengths is empty. Give at least one C, for example (0.1, 1.0).")
    several = labels.ndim == 2
    if not several and len(labels.unique()) < 2:
        raise ValueError("linear_probe: all training images belong to one class. Give at least two classes.")
    count = labels.shape[1] if several else classes or int(labels.max()) + 1
    known, given, wanted = train.double().cpu().numpy(), test.double().cpu().numpy(), labels.cpu().numpy()
    scores = np.full((len(given), count), -1e4, dtype=np.float32)  # of classes that the training images do not have, and of labels
    if several:
        scores[:, wanted.all(0)] = 1e4  # nothing to learn: what is always so
        columns = np.flatnonzero(wanted.any(0) & ~wanted.all(0))
        wanted = (wanted[:, columns] > 0.5).astype(np.int64)
        if not len(columns):
            return Probed(torch.from_numpy(scores), sorted(strengths)[len(strengths) // 2], {})
    else:
        columns = np.unique(wanted)
    fit, held = _parts(wanted, seed)
    strength, held_out = sorted(strengths)[len(strengths) // 2], dict[float, float]()
    with warnings.catch_warnings():
        # 500 iterations are enough for the measure, if not for the gradient; a label that the fitted part does not have; NaN
        warnings.simplefilter("ignore")
        if len(held) and len(strengths) > 1:
            search = _search(sorted(strengths), fit, held, several=several).fit(known, wanted)
            held_out = dict(zip(sorted(strengths), search.cv_results_["mean_test_score"].tolist(), strict=True))
        if any(value == value for value in held_out.values()):  # NaN: no label in the held-out part
            strength, probe = search.best_params_[_c(several)], search.best_estimator_
        else:
            probe = _probe(several).set_params(**{_c(several): strength}).fit(known, wanted)
        found = probe.decision_function(given)
    if found.ndim == 1:
        found = found[:, None] if several else np.stack([-found, found], axis=1) / 2  # one label, two classes
    scores[:, columns] = found
    return Probed(torch.from_numpy(scores), strength, held_out)


def _probe(several: bool) -> Any:
    """Standardise features and fit a regression on them, with the statistics of the images that it is fitted to."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    regression = LogisticRegression(max_iter=_ITERATIONS)
    return Pipeline([("scale", StandardScaler()), ("fit", OneVsRestClassifier(regression) if several else regression)])


def _c(several: bool) -> str:
    return "fit__estimator__C" if several else "fit__C"


def _search(strengths: Sequence[float], fit: Any, held: Any, *, several: bool) -> Any:
    """Find the C whose probe, fitted to one part, is best on the other (the smallest of equals); then fit it to both parts."""
    from sklearn.model_selection import GridSearchCV

    def in_percent(probe: Any, vectors: Any, labels: Any) -> float:
        if not several:
            return 100.0 * float(np.mean(probe.predict(vectors) == labels))
        scores = torch.from_numpy(probe.decision_function(vectors)).reshape(len(labels), -1).float()
        found = measure(scores, torch.from_numpy(labels).float(), multi_label=True)
        return found[main_measure(found)]

    return GridSearchCV(_probe(several), {_c(several): list(strengths)}, cv=[(fit, held)], scoring=in_percent)


def _parts(labels: Any, seed: int) -> tuple[Any, Any]:
    """The indices of the images to fit and to hold out: a fifth of each class, rounded down, but at least one if it has two."""
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
