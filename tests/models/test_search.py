"""The search for the small recipe: its order, what it runs and what it does not, and the images it learns from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.claims.images import open_images
from benchmarks.claims.run import identity, named
from benchmarks.tuning.grid import AFTER, AXES, BASE, SEEDS, configure
from benchmarks.tuning.readout import PROBED, places, score, scores, vectors
from benchmarks.tuning.search import Search
from gmml_models.recipes.parse_corruption import corruption_from
from gmml_models.recipes.pretraining import build_objective
from gmml_models.train.config import batch_of, check


class Made:
    """Scores by a rule, and the names of the jobs that were asked for."""

    def __init__(self, likes: Mapping[str, float]) -> None:
        self.likes, self.asked = likes, list[tuple[str, int]]()

    def __call__(self, settings: Mapping[str, Any], seed: int, name: str) -> dict[str, Any]:
        self.asked.append((name, seed))
        words = str(identity(configure(settings, seed)))
        return {"score": sum(worth for word, worth in self.likes.items() if word in words), "settings": words}


def test_every_option_is_a_run_that_can_be_made() -> None:
    for change in [*(change for axis in AXES for change in axis.options.values()), *AFTER.values()]:
        config = configure({**BASE, **change}, 0)
        check(config)
        corruption_from(config.corruption or "gmml", ((0.5,) * 3, (0.2,) * 3))
        assert config.lr * batch_of(config) / 256 == pytest.approx({**BASE, **change}["rate"])
    for axis in AXES:  # the settings that the search has reached compete with the others
        assert any(configure({**BASE, **change}, 0) == configure(BASE, 0) for change in axis.options.values())


def test_the_best_of_an_axis_is_kept_for_the_next_and_nothing_runs_twice() -> None:
    made = Made({"'gmml'": 2.0, "'blocks': [6]": 1.0, "release": -1.0})
    known: dict[str, dict[str, Any]] = {}
    found = list(Search(known=known, run=made).decisions())
    assert [one["axis"] for one in found] == [*(axis.name for axis in AXES), *("after" for _ in AFTER)]
    best = {one["axis"]: one["best"] for one in found}
    assert (best["corruption"], best["blocks"], best["decoder"]) == ("gmml", "last", "paper")
    assert len(made.asked) == len(known) == len(set(known))
    assert made.asked.count(("rate-again/2e-3", SEEDS[0])) == 0  # the same settings, known by another name
    at = [name.split("/")[0] for name, _ in made.asked]
    assert at == sorted(at, key=[*(axis.name for axis in AXES), "after"].index)
    seconds = [name for name, seed in made.asked if seed == SEEDS[1] and name.startswith("corruption/")]
    assert len(seconds) == 2  # the others are out after the first seed
    again = Made({})
    assert list(Search(known=known, run=again).decisions()) == found
    assert not again.asked


def test_without_a_runner_it_ends_at_what_is_not_known() -> None:
    assert not list(Search(known={}).decisions())
    made = Made({})
    known: dict[str, dict[str, Any]] = {}
    decisions = Search(known=known, run=made).decisions()
    first = next(decisions)
    assert list(Search(known=known).decisions()) == [first]


def test_the_score_is_read_at_one_place_for_both_sets() -> None:
    measured = {
        "one": {where: {"crossed": float(number), "linear": 0.0, "knn": 90.0} for number, where in enumerate(PROBED)},
        "two": {where: {"crossed": 10.0 * (where == PROBED[0]), "linear": 50.0, "knn": 0.0} for where in PROBED},
    }
    assert score(measured) == (5.0, PROBED[0])


def test_a_crossed_probe_measures_every_image_once_by_what_it_has_not_seen() -> None:
    generator = torch.Generator().manual_seed(0)
    wanted, truth = torch.arange(40) % 2, torch.arange(10) % 2
    assert places(torch.tensor([3, 1, 3, 3, 1])).tolist() == [0, 0, 1, 2, 1]
    known, given = (torch.randn(len(each), 4, generator=generator) for each in (wanted, truth))
    chance = scores(known, wanted, given, truth, probed=True)
    assert chance["crossed"] < 80  # labels that nothing tells of cannot be learnt by heart
    known[:, 0], given[:, 0] = wanted * 4.0, truth * 4.0
    assert scores(known, wanted, given, truth, probed=True) == {"knn": 100.0, "linear": 100.0, "crossed": 100.0}
    given[:, 0] = 4.0 - given[:, 0]  # the images held out contradict all others
    found = scores(known, wanted, given, truth, probed=True)
    assert found["linear"] == 0.0
    assert 50.0 < found["crossed"] <= 80.0


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    """Two packs of two classes with five training images each."""
    for pack, shade in (("one", 0), ("two", 128)):
        for part in ("train", "test"):
            for label in ("a", "b"):
                folder = tmp_path / pack / part / label
                folder.mkdir(parents=True)
                for number in range(5):
                    pixels = np.full((40, 40, 3), shade + 20 * number + 3 * (label == "b"), np.uint8)
                    Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path


def test_packs_together_are_their_images_without_labels(packs: Path) -> None:
    both, one, two = (open_images(f"{name}/held", packs) for name in ("one+two", "one", "two"))
    assert (len(both.train), len(both.test)) == (16, 4)
    assert not both.train.labelled
    assert set(both.train.labels()) == {None}
    apart = [*(one.train[number] for number in range(8)), *(two.train[number] for number in range(8))]
    for number, (image, _) in enumerate(apart):
        assert torch.equal(both.train[number][0], image)
        assert both.train[number][1] is None
    names = {both.train.name(number) for number in range(16)}
    assert len(names) == 16
    assert not names & {both.test.name(number) for number in range(4)}
    assert not any("test" in Path(name).parts for name in names)


def test_features_of_the_last_block_are_those_of_an_evaluation(packs: Path) -> None:
    from gmml_models.models.pooling import pooled

    model = build_objective(configure(BASE, 0)).autoencoder.eval()
    found, labels = vectors(model, open_images("one/held", packs).train)
    assert labels.tolist() == [0] * 4 + [1] * 4
    assert set(found) == {*(f"block {number}" for number in range(1, 7)), "fused"}
    image = open_images("one/held", packs).train[2][0]
    mean, std = (torch.tensor(each)[:, None, None] for each in (model.mean, model.std))
    even = ((image[:, :1, :1] / 255.0 - mean) / std).expand(3, 64, 64)[None]
    with torch.no_grad():
        torch.testing.assert_close(found["block 6"][2:3], pooled(model.encoder, even, "mean"), rtol=1e-3, atol=1e-3)


def test_a_run_has_a_name_of_its_settings_and_its_seed() -> None:
    runs = {named(configure({**BASE, **change}, seed)) for axis in AXES for change in axis.options.values() for seed in (0, 1)}
    once = {axis.name: axis for axis in AXES if axis.name != "rate-again"}.values()
    assert len(runs) == 2 * (sum(len(axis.options) - 1 for axis in once) + 1)
