"""Measures against plain counting, one image and one label after the other."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, distributed
from torch.multiprocessing.spawn import spawn

from gmml_models.evaluate.metrics import MULTI_LABEL, Metrics, main_measure, measure


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def average_precision(scores: list[float], there: list[bool]) -> float:
    """The sum over distinct scores, from the highest, of the recall gained there times the precision down to there."""
    found, before = 0.0, 0.0
    for limit in sorted(set(scores), reverse=True):
        taken = [one for score, one in zip(scores, there, strict=True) if score >= limit]
        recall = sum(taken) / sum(there)
        found, before = found + (recall - before) * sum(taken) / len(taken), recall
    return found


def plainly(logits: Tensor, labels: Tensor) -> dict[str, float]:
    probabilities = 1 / (1 + np.exp(-logits.double().numpy()))
    wanted = labels.numpy() > 0
    occur = [label for label in range(wanted.shape[1]) if wanted[:, label].any()]
    precisions, recalls, averages = [], [], []
    right = said = there = 0
    for label in range(wanted.shape[1]):
        yes, true = probabilities[:, label] > 0.5, wanted[:, label]
        both = int((yes & true).sum())
        right, said, there = right + both, said + int(yes.sum()), there + int(true.sum())
        if label in occur:
            precisions.append(both / yes.sum() if yes.any() else 0.0)
            recalls.append(both / true.sum())
            averages.append(average_precision(list(logits[:, label].tolist()), list(true)))
    cp, cr = float(np.mean(precisions)), float(np.mean(recalls))
    op, overall = right / said if said else 0.0, right / there
    found = [float(np.mean(averages)), cp, cr, 2 * cp * cr / (cp + cr) if cp + cr else 0.0, op, overall]
    found.append(2 * op * overall / (op + overall) if op + overall else 0.0)
    return {name: 100 * value for name, value in zip(MULTI_LABEL, found, strict=True)}


@pytest.mark.parametrize("classes", [2, 5, 6, 17])
def test_accuracy_is_the_share_of_images_whose_class_is_among_the_best(classes: int) -> None:
    scores, labels = noise(203, classes), torch.arange(203) % classes
    scores[torch.arange(203), labels] += 1.0
    order = scores.argsort(dim=1, descending=True)
    found = measure(scores, labels)
    assert list(found) == (["top1", "top5"] if classes > 5 else ["top1"])
    for name, best in found.items():
        top = int(name.removeprefix("top"))
        right = sum(int(labels[one]) in order[one, :top].tolist() for one in range(203))
        assert best == pytest.approx(100 * right / 203, abs=1e-4)
    assert main_measure(found) == "top1"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("labels", [1, 2, 7])
def test_the_seven_measures_are_those_of_plain_counting(labels: int, seed: int) -> None:
    logits, wanted = 2 * noise(61, labels, seed=seed), (noise(61, labels, seed=seed + 10) > 0.7).float()
    wanted[0] = 1
    logits = (logits + wanted).round(decimals=1)  # ties too
    found = measure(logits, wanted, multi_label=True)
    assert list(found) == list(MULTI_LABEL)
    assert main_measure(found) == "mAP"
    for name, value in plainly(logits, wanted).items():
        assert found[name] == pytest.approx(value, abs=1e-3), name


def test_f1_is_that_of_the_mean_precision_and_recall_as_in_table_1_of_mc_ssl() -> None:
    # two labels: precision 1 and recall 1/4; precision 1/4 and recall 1. The mean of their own F1 would be 40.
    first = torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0])
    logits = torch.tensor([[1.0, -1, -1, -1, -1, -1, -1, -1], [1.0, 1, 1, 1, -1, -1, -1, -1]]).T
    found = measure(logits, torch.stack([first, torch.eye(8)[0]], 1), multi_label=True)
    assert (found["CP"], found["CR"]) == pytest.approx((62.5, 62.5))
    assert found["CF1"] == pytest.approx(62.5)
    # the paper's own numbers obey the same rule, to the digit that is printed
    for cp, cr, f1 in ((21.9, 55.2, 31.4), (49.7, 75.3, 59.9), (32.7, 58.7, 42.0), (56.8, 74.1, 64.3)):
        assert 2 * cp * cr / (cp + cr) == pytest.approx(f1, abs=0.06)


def test_labels_that_do_not_occur_are_left_out_of_the_means_over_labels() -> None:
    logits, wanted = noise(40, 6), (noise(40, 6, seed=1) > 0.5).long()
    wanted[:, [1, 4]] = 0
    found = measure(logits, wanted, multi_label=True)
    kept = [0, 2, 3, 5]
    there = measure(logits[:, kept], wanted[:, kept], multi_label=True)
    for name in ("mAP", "CP", "CR", "CF1"):
        assert found[name] == pytest.approx(there[name])
    assert found["OR"] == pytest.approx(there["OR"])
    assert found["OP"] < there["OP"], "what is said of them in vain counts over all"


def test_a_label_that_is_never_said_has_precision_0() -> None:
    wanted = torch.tensor([[1, 1], [0, 1]])
    found = measure(torch.tensor([[3.0, -3.0], [-3.0, -2.0]]), wanted, multi_label=True)
    assert found == pytest.approx({"mAP": 100, "CP": 50, "CR": 50, "CF1": 50, "OP": 100, "OR": 100 / 3, "OF1": 50})


def test_nothing_to_find_is_nan_and_nothing_said_is_0() -> None:
    none = measure(noise(4, 3), torch.zeros(4, 3), multi_label=True)
    assert all(math.isnan(none[name]) for name in MULTI_LABEL if name != "OP")
    silent = measure(torch.full((4, 3), -9.0), torch.ones(4, 3), multi_label=True)
    assert silent["OF1"] == silent["CF1"] == silent["CP"] == 0


@pytest.mark.parametrize("multi_label", [False, True])
def test_batches_add_up(multi_label: bool) -> None:
    scores = noise(50, 8)
    labels = (noise(50, 8, seed=1) > 0).long() if multi_label else torch.arange(50) % 8
    metrics = Metrics(8, multi_label=multi_label)
    for first in (0, 1, 20, 49):
        last = {0: 1, 1: 20, 20: 49, 49: 50}[first]
        metrics.update(scores[first:last], labels[first:last])
    assert metrics.compute() == pytest.approx(measure(scores, labels, multi_label=multi_label))


def test_scores_that_look_like_probabilities_are_logits_all_the_same() -> None:
    logits, wanted = torch.tensor([[0.2], [0.4]]), torch.tensor([[1], [1]])
    assert measure(logits, wanted, multi_label=True)["OR"] == 100


@pytest.mark.parametrize("scale", [1.0, 1e-30, 30.0, 1e6])
def test_average_precision_is_that_of_the_logits_however_large(scale: float) -> None:
    scores = scale * torch.tensor([[18.0], [20.0], [25.0], [30.0], [-1.0], [-20.0], [-25.0]])
    labels = torch.tensor([[0], [0], [1], [1], [0], [0], [0]])
    assert measure(scores, labels, multi_label=True)["mAP"] == 100.0
    assert measure(-scores, 1 - labels, multi_label=True)["mAP"] == 100.0
    tied = torch.tensor([[0.0], [-0.0], [float("inf")], [float("inf")]])
    assert measure(tied, torch.tensor([[1], [0], [0], [1]]), multi_label=True)["mAP"] == pytest.approx(50.0)


def test_bfloat16_scores_are_widened_before_the_sigmoid() -> None:
    logits = torch.tensor([[6.0], [6.0625], [5.0]]).bfloat16()  # their sigmoids are equal in bfloat16
    assert measure(logits, torch.tensor([[0], [1], [0]]), multi_label=True)["mAP"] == 100


@pytest.mark.parametrize(
    ("scores", "labels", "several"),
    [((4, 3), (4, 3), False), ((4, 3), (4,), True), ((4, 2), (4,), False), ((4,), (4,), False), ((4, 3), (3,), False)],
    ids=str,
)
def test_shapes_that_do_not_fit(scores: tuple[int, ...], labels: tuple[int, ...], several: bool) -> None:
    with pytest.raises(ValueError, match="do not fit 3 classes"):
        Metrics(3, multi_label=several).update(torch.zeros(scores), torch.zeros(labels, dtype=torch.long))


def test_no_image_is_nothing_to_measure() -> None:
    with pytest.raises(ValueError, match="no image was given"):
        Metrics(3).compute()


def _rank(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        for multi_label in (False, True):
            scores = noise(31, 8)
            labels = (noise(31, 8, seed=1) > 0).long() if multi_label else torch.arange(31) % 8
            metrics = Metrics(8, multi_label=multi_label)
            metrics.update(scores[rank::2], labels[rank::2])  # 16 and 15 images
            found = metrics.compute()
            torch.save(found, f"{folder}/{multi_label}-{rank}.pt")
    finally:
        distributed.destroy_process_group()


def test_two_processes_measure_what_one_does(tmp_path: Path) -> None:
    spawn(_rank, (str(tmp_path),), nprocs=2)
    for multi_label in (False, True):
        scores = noise(31, 8)
        labels = (noise(31, 8, seed=1) > 0).long() if multi_label else torch.arange(31) % 8
        wanted = measure(scores, labels, multi_label=multi_label)
        for rank in (0, 1):
            assert torch.load(tmp_path / f"{multi_label}-{rank}.pt") == pytest.approx(wanted)
