"""Neighbours and linear probes against plain computation, one image after the other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gmml_models.evaluate.knn import knn
from gmml_models.evaluate.linear_probe import _parts, linear_probe
from gmml_models.evaluate.metrics import measure


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class TestNeighbours:
    """Against a search that looks at one image after the other."""

    @staticmethod
    def slowly(train: Tensor, test: Tensor, k: int) -> list[list[tuple[float, int]]]:
        """(cosine, number) of the k nearest, nearest first."""
        found = []
        for one in test.double().numpy():
            near = [
                (float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other))), number)
                for number, other in enumerate(train.double().numpy())
            ]
            found.append(sorted(near, reverse=True)[:k])
        return found

    @pytest.mark.parametrize("k", [1, 5, 31, 100])
    def test_the_weighted_vote_of_classes(self, k: int) -> None:
        train, labels, test = noise(31, 6), torch.arange(31) % 4, 3 * noise(9, 6, seed=1)
        found = knn(train, labels, test, k=k, classes=5)
        assert found.shape == (9, 5)
        for row, near in zip(found, self.slowly(train, test, k), strict=True):
            votes = [sum(math.exp(cosine / 0.07) for cosine, number in near if labels[number] == one) for one in range(5)]
            assert row.tolist() == pytest.approx([vote / sum(votes) for vote in votes], abs=1e-5)

    @pytest.mark.parametrize("k", [1, 4, 7])
    def test_the_plain_vote_of_classes_and_its_ties(self, k: int) -> None:
        train, labels, test = noise(40, 3), torch.arange(40) % 3, noise(200, 3, seed=1)
        found = knn(train, labels, test, k=k, temperature=None)
        ties = 0
        for row, near in zip(found, self.slowly(train, test, k), strict=True):
            classes = [int(labels[number]) for _, number in near]
            most = max(classes.count(one) for one in classes)
            winners = [one for one in classes if classes.count(one) == most]  # nearest first
            ties += len(set(winners)) > 1
            assert int(row.argmax()) == winners[0]
        assert ties > 10 or k == 1

    @pytest.mark.parametrize("temperature", [0.07, None])
    def test_several_labels_are_shares_of_the_neighbours(self, temperature: float | None) -> None:
        train, test = noise(31, 6), noise(9, 6, seed=1)
        labels = (noise(31, 4, seed=2) > 0).float()
        labels[:, 2] = 0
        labels[:, 3] = 1
        found = knn(train, labels, test, k=5, temperature=temperature)
        for row, near in zip(found, self.slowly(train, test, 5), strict=True):
            weights = [math.exp(cosine / temperature) if temperature else 1.0 for cosine, _ in near]
            shares = [sum(w * float(labels[n, one]) for w, (_, n) in zip(weights, near, strict=True)) for one in range(4)]
            assert row.tolist() == pytest.approx([share / sum(weights) for share in shares], abs=1e-5)
        assert (found[:, 2] == 0).all()

    def test_many_test_images_are_taken_in_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        train, labels, test = noise(31, 6), torch.arange(31) % 4, noise(50, 6, seed=1)
        whole = knn(train, labels, test)
        monkeypatch.setattr("gmml_models.evaluate.knn._AT_ONCE", 100)
        assert torch.allclose(knn(train, labels, test), whole, atol=1e-6)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"k": 0}, "must be above 0"),
            ({"temperature": 0.0}, "must be above 0"),
            ({"temperature": math.nan}, "must be above 0"),
            ({"labels": torch.zeros(3, dtype=torch.long)}, "do not fit"),
            ({"test": torch.zeros(2, 5)}, "do not fit"),
            ({"train": torch.zeros(0, 6), "labels": torch.zeros(0, dtype=torch.long)}, "at least one training image"),
        ],
        ids=str,
    )
    def test_what_is_refused(self, change: dict[str, object], message: str) -> None:
        given: dict[str, object] = {"train": noise(31, 6), "labels": torch.arange(31) % 4, "test": noise(2, 6), **change}
        with pytest.raises(ValueError, match=message):
            knn(**given)  # type: ignore[arg-type]  # what is wrong on purpose


class TestProbe:
    @staticmethod
    def apart(count: int, seed: int, classes: int = 3, by: float = 6.0) -> tuple[Tensor, Tensor]:
        """Clouds around corners, on features of very different scales; one feature never changes."""
        labels = torch.arange(count) % classes
        vectors = noise(count, 8, seed=seed)
        vectors[torch.arange(count), labels] += by
        vectors = vectors * torch.logspace(-3, 3, 8)
        vectors[:, 7] = 5.0
        return vectors, labels

    def test_it_separates_what_a_line_separates(self) -> None:
        (train, labels), (test, wanted) = self.apart(90, 0), self.apart(60, 1)
        found = linear_probe(train, labels, test)
        assert measure(found.scores, wanted)["top1"] > 97
        assert measure(linear_probe(train, labels[noise(90, seed=5).argsort()], test).scores, wanted)["top1"] < 80

    def test_two_classes(self) -> None:
        (train, labels), (test, wanted) = self.apart(60, 0, classes=2), self.apart(40, 1, classes=2)
        assert measure(linear_probe(train, labels, test).scores, wanted)["top1"] > 95

    def test_several_labels_and_those_that_never_or_always_apply(self) -> None:
        train, test = noise(120, 5), noise(80, 5, seed=1)
        labels, wanted = (
            torch.cat([each[:, :2] > 0, each.new_tensor([[0, 1]]).expand(len(each), 2) > 0], 1) for each in (train, test)
        )
        found = linear_probe(train, labels.float(), test)
        assert found.scores.shape == (80, 4)
        assert measure(found.scores, wanted.float(), multi_label=True)["mAP"] > 97
        assert (found.scores[:, 2] < -100).all()
        assert (found.scores[:, 3] > 100).all()

    def test_a_class_without_training_images_is_never_said(self) -> None:
        train, labels = self.apart(90, 0)
        found = linear_probe(train, labels * 2, train, classes=6)
        assert set(found.scores.argmax(1).tolist()) == {0, 2, 4}

    def test_the_strength_is_the_best_on_held_out_images(self) -> None:
        # one class is rare: without weights nobody would ever say it
        labels = (torch.arange(100) % 4 == 0).long()
        train = noise(100, 3) + 6.0 * labels[:, None]
        found = linear_probe(train, labels, train, strengths=(1e-9, 1.0))
        assert found.held_out[1e-9] == pytest.approx(75)
        assert found.held_out[1.0] > 95
        assert found.strength == 1.0
        # more features than images, and one of them says something: weights that are free learn the noise by heart
        train, labels = noise(60, 100), torch.arange(60) % 2
        train[:, 0] += 2.0 * labels
        found = linear_probe(train, labels, train, strengths=(1e-3, 1e4))
        assert found.held_out[1e-3] > found.held_out[1e4]
        assert found.strength == 1e-3
        one = linear_probe(train, labels, train, strengths=(0.5,))
        assert (one.strength, one.held_out) == (0.5, {})

    def test_held_out_images_have_all_classes_that_have_two(self) -> None:
        labels = np.array([0] * 20 + [1] * 10 + [2] * 2 + [3])
        fit, held = _parts(labels, 0)
        assert sorted([*fit, *held]) == list(range(33))
        assert np.bincount(labels[held], minlength=4).tolist() == [4, 2, 1, 0]
        assert not np.array_equal(held, _parts(labels, 1)[1])
        assert np.array_equal(held, _parts(labels, 0)[1])

    def test_one_image_a_class_leaves_nothing_to_hold_out(self) -> None:
        train, labels = self.apart(3, 0)
        found = linear_probe(train, labels, train)
        assert not found.held_out
        assert found.scores.argmax(1).tolist() == [0, 1, 2]

    @pytest.mark.parametrize("several", [False, True], ids=["classes", "labels"])
    def test_an_image_is_judged_whatever_else_is_tested(self, several: bool) -> None:
        (train, classes), (test, _) = self.apart(90, 0, by=1.0), self.apart(60, 1)
        labels = torch.nn.functional.one_hot(classes, 3).float() if several else classes
        whole, part = (linear_probe(train, labels, given).scores for given in (test, test[:7]))
        torch.testing.assert_close(part, whole[:7], rtol=1e-6, atol=1e-6)

    def test_one_label_alone(self) -> None:
        train, test = noise(80, 5), noise(60, 5, seed=1)
        found = linear_probe(train, (train[:, :1] > 0).float(), test)
        assert measure(found.scores, (test[:, :1] > 0).float(), multi_label=True)["mAP"] > 97

    def test_it_repeats(self) -> None:
        (train, labels), (test, _) = self.apart(90, 0, by=1.0), self.apart(60, 1)
        one, two = (linear_probe(train, labels, test, seed=4) for _ in range(2))
        assert torch.equal(one.scores, two.scores)

    def test_what_is_refused(self) -> None:
        train, labels = self.apart(30, 0)
        with pytest.raises(ValueError, match="all training images belong to one class"):
            linear_probe(train, labels * 0, train)
        with pytest.raises(ValueError, match="do not fit"):
            linear_probe(train, labels, train[:, :3])
        with pytest.raises(ValueError, match="strengths is empty"):
            linear_probe(train, labels, train, strengths=())
