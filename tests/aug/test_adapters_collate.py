"""`CollateCorrupt` in real DataLoaders and real process groups: whose chance is whose, and what a resumed run repeats."""

from __future__ import annotations

import copy
import warnings
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler

import gmml_aug as ga
from tests.helpers import random_images, same_bits

COUNT = 12
NOISE = ga.InBoxes(ga.Boxes(ratio=0.5), ga.Noise())
MIXED = ga.Chain([NOISE, ga.InBoxes(ga.Boxes(ratio=0.2), ga.Alien())])
Pair = namedtuple("Pair", ["picture", "label"])


class Pictures(Dataset[dict[str, Any]]):
    """Images that know their number."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": random_images((3, 16, 16), seed=index), "label": index % 3, "index": index, "name": f"{index}.jpg"}


class Alike(Dataset[Tensor]):
    """The same image again and again, so that only chance tells the results apart."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> Tensor:
        return torch.zeros(3, 16, 16)


def one_epoch(loader: DataLoader[Any]) -> dict[str, Any]:
    """All batches of an epoch, joined."""
    batches = list(loader)
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0] if isinstance(batches[0][name], Tensor)}


def distinct(masks: Tensor) -> int:
    """How many different masks there are."""
    return len(torch.unique(masks.flatten(1), dim=0))


@pytest.mark.parametrize(("workers", "start"), [(0, None), (2, "fork"), (2, "spawn")], ids=str)
def test_with_an_index_chance_follows_from_seed_epoch_and_number_alone(workers: int, start: str | None) -> None:
    collate = copy.deepcopy(ga.CollateCorrupt(MIXED, seed=7, index="index"))  # frameworks copy what they are given
    loader = DataLoader(
        Pictures(),
        batch_size=3,
        shuffle=True,
        collate_fn=collate,
        num_workers=workers,
        multiprocessing_context=start,
        persistent_workers=workers > 0,
    )
    masks = []
    for epoch in (4, 5):
        collate.set_epoch(epoch)  # reaches workers that live on
        for batch in loader:
            wanted = MIXED(batch["clean"], keys=ga.keys(7, epoch, batch["index"]))
            assert same_bits(batch["images"], wanted.images)
            assert same_bits(batch["mask"], wanted.mask)
            assert same_bits(batch["clean"], torch.stack([random_images((3, 16, 16), seed=int(n)) for n in batch["index"]]))
            assert torch.equal(batch["label"], batch["index"] % 3)
            assert batch["name"] == [f"{n}.jpg" for n in batch["index"]]
            assert list(batch) == ["clean", "images", "mask", "label", "index", "name"]
            masks.append(batch["mask"])
    assert distinct(torch.cat(masks)) == 2 * COUNT


@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_without_an_index_workers_and_epochs_differ_and_a_seed_repeats_them(workers: int, persistent: bool) -> None:
    def two_epochs(torch_seed: int, **options: Any) -> Tensor:
        torch.manual_seed(torch_seed)
        loader = DataLoader(
            Alike(),
            batch_size=3,
            collate_fn=ga.CollateCorrupt(NOISE, **options),
            num_workers=workers,
            multiprocessing_context="fork" if workers else None,
            persistent_workers=persistent,
        )
        return torch.cat([one_epoch(loader)["mask"] for _ in range(2)])

    first = two_epochs(1)
    assert distinct(first) == 2 * COUNT
    assert torch.equal(two_epochs(1), first)
    others = [two_epochs(2), two_epochs(1, seed=1), two_epochs(1, rank=1)]
    assert distinct(torch.cat([first, *others])) == 8 * COUNT


def test_the_generator_of_a_loader_with_workers_governs_it() -> None:
    def epoch(seed: int) -> Tensor:
        loader = DataLoader(
            Alike(),
            batch_size=3,
            collate_fn=ga.CollateCorrupt(NOISE),
            num_workers=1,
            multiprocessing_context="fork",
            generator=torch.Generator().manual_seed(seed),
        )
        return torch.as_tensor(one_epoch(loader)["mask"])

    assert torch.equal(epoch(3), epoch(3))
    assert distinct(torch.cat([epoch(3), epoch(4)])) == 2 * COUNT


@pytest.mark.parametrize(
    ("samples", "options", "names"),
    [
        ([torch.zeros(3, 16, 16)] * 2, {}, []),
        ([(torch.zeros(3, 16, 16), 1)] * 2, {}, ["label"]),
        ([[torch.zeros(3, 16, 16), 1, 2.0]] * 2, {"fields": ("image", "age", "weight")}, ["age", "weight"]),
        ([(1, torch.zeros(3, 16, 16))] * 2, {"fields": ("label", "image")}, ["label"]),
        ([Pair(torch.zeros(3, 16, 16), 1)] * 2, {"image": "picture"}, ["label"]),
        ([{"pixel_values": torch.zeros(3, 16, 16), "labels": 1}] * 2, {"image": "pixel_values"}, ["labels"]),
        ([torch.zeros(3, 16, 16, dtype=torch.uint8)] * 2, {"collate": torch.stack}, []),
    ],
)
def test_samples_of_any_structure_become_a_dict(samples: list[Any], options: dict[str, Any], names: list[str]) -> None:
    batch = ga.CollateCorrupt(NOISE, **options)(samples)
    assert list(batch) == ["clean", "images", "mask", *names]
    assert batch["images"].shape == (2, 3, 16, 16)
    assert batch["images"].dtype == batch["clean"].dtype
    assert batch["mask"].sum().item() == 256
    assert not batch["clean"].any()


PICTURE: dict[str, Any] = {"image": torch.zeros(3, 16, 16), "index": 0}


@pytest.mark.parametrize(
    ("samples", "options", "kind", "message"),
    [
        ([PICTURE], {"index": "index"}, ValueError, r"every epoch.*Call set_epoch\(epoch\) before"),
        ([PICTURE], {"index": "number"}, ValueError, r"index='number' is not among.*index"),
        ([PICTURE], {"image": "pixels"}, ValueError, r"image='pixels' is not among.*image, index"),
        ([{**PICTURE, "mask": 1}], {}, ValueError, r"samples have mask beside.*Rename"),
        ([(1, 2, 3)], {}, ValueError, r"3 fields.*names 2.*Name them all"),
        ([PICTURE], {"collate": lambda samples: samples[0]["image"].tolist}, TypeError, r"method.*a dict, a tuple or a list"),
        ([PICTURE], {"collate": lambda samples: {"image": [1]}}, TypeError, r"collated images are list"),
        ([PICTURE], {"corrupt": ga.Alien()}, ValueError, r"Alien: .*batch holds 1.*drop_last=True"),
    ],
)
def test_what_cannot_be_collated_is_an_error(
    samples: list[Any], options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    collate = ga.CollateCorrupt(**{"corrupt": NOISE, **options})
    with pytest.raises(kind, match=message):
        collate(samples)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"corrupt": None}, TypeError, r"corrupt=None is not a corruption"),
        ({"seed": 0.5}, TypeError, r"CollateCorrupt: seed=0.5 is not an integer"),
        ({"rank": -1}, ValueError, r"CollateCorrupt: rank=-1 is out of range"),
        ({"fields": "image"}, TypeError, r"fields='image' is not a list"),
        ({"sed": 1}, TypeError, r"sed"),
    ],
    ids=str,
)
def test_what_no_collate_can_be_made_of_is_an_error(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        ga.CollateCorrupt(**{"corrupt": NOISE, **options})


def test_a_copy_has_an_epoch_of_its_own() -> None:
    one = ga.CollateCorrupt(NOISE, index="index")
    one.set_epoch(1)
    other = copy.deepcopy(one)
    other.set_epoch(2)
    samples = [PICTURE]
    assert torch.equal(one(samples)["mask"], NOISE(PICTURE["image"][None], keys=ga.keys(0, 1, [0])).mask)
    assert torch.equal(other(samples)["mask"], NOISE(PICTURE["image"][None], keys=ga.keys(0, 2, [0])).mask)


def test_the_rank_of_a_launcher_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    assert ga.CollateCorrupt(NOISE).rank == 3


def train(rank: int, folder: str) -> None:
    """A run of three epochs, and the run that is resumed before its last; both processes were seeded alike."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for first in (0, 2):
        torch.manual_seed(first)
        numbered = ga.CollateCorrupt(MIXED, seed=7, index="index")
        sampler: DistributedSampler[Any] = DistributedSampler(Pictures(), shuffle=True, seed=1)
        loader = DataLoader(Pictures(), batch_size=3, sampler=sampler, collate_fn=numbered)
        model = DistributedDataParallel(nn.Conv2d(3, 3, 3, padding=1))
        for epoch in range(first, 3):
            sampler.set_epoch(epoch)
            numbered.set_epoch(epoch)
            batches = []
            for batch in loader:
                ((model(batch["images"]) - batch["clean"]).abs() * batch["mask"]).mean().backward()
                batches.append(batch)
            seen = {name: torch.cat([batch[name] for batch in batches]) for name in ("images", "mask", "index")}
            torch.save(seen, f"{folder}/{first}-{epoch}-{rank}.pt")
    torch.manual_seed(0)
    plain = DataLoader(Alike(), batch_size=3, collate_fn=ga.CollateCorrupt(NOISE))
    torch.save(one_epoch(plain)["mask"], f"{folder}/plain-{rank}.pt")
    distributed.barrier()  # nobody leaves while another still waits for it
    distributed.destroy_process_group()


def test_two_processes_corrupt_differently_and_alike_after_a_resume(tmp_path: Path) -> None:
    spawn(train, args=(str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"0-2-{rank}.pt") for rank in range(2)]
    again = [torch.load(tmp_path / f"2-2-{rank}.pt") for rank in range(2)]
    for one, other in zip(ranks, again, strict=True):
        assert all(same_bits(one[name], other[name]) for name in one)
    assert distinct(torch.cat([seen["mask"] for seen in ranks])) == COUNT
    for seen in ranks:  # and as one process would have masked them
        assert torch.equal(seen["mask"], MIXED(torch.zeros(6, 3, 16, 16), keys=ga.keys(7, 2, seen["index"])).mask)
    earlier = torch.load(tmp_path / "0-1-0.pt")
    assert distinct(torch.cat([earlier["mask"], *(seen["mask"] for seen in ranks)])) == COUNT + COUNT // 2
    plain = [torch.load(tmp_path / f"plain-{rank}.pt") for rank in range(2)]
    assert distinct(torch.cat(plain)) == 2 * COUNT


class Repeats(Dataset[tuple[Tensor, int, int]]):
    """An image that is seen again and again, with the number of the visit."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, place: int) -> tuple[Tensor, int, int]:
        return torch.zeros(3, 16, 16), 7, place // 2


def test_an_index_that_comes_again_has_a_mask_of_its_own_where_visits_are_told() -> None:
    fields = ("image", "index", "visit")
    found = {}
    for visit in (False, "visit", True):
        collate = ga.CollateCorrupt(NOISE, index="index", visit=visit, fields=fields)
        for epoch in (0, 1):
            collate.set_epoch(epoch)
            found[visit, epoch] = one_epoch(DataLoader(Repeats(), batch_size=3, collate_fn=collate))["mask"]
        collate.set_epoch(0)
        again = one_epoch(DataLoader(Repeats(), batch_size=3, collate_fn=collate))["mask"]
        assert torch.equal(again, found[visit, 0])  # an epoch repeats itself
    assert [distinct(found[visit, 0]) for visit in (False, "visit", True)] == [1, COUNT // 2, COUNT]
    assert torch.equal(found["visit", 0][0], found[False, 0][0])  # visit 0 is the mask without


@pytest.mark.parametrize("workers", [1, 2])
def test_visits_that_are_counted_do_not_depend_on_the_number_of_workers(workers: int) -> None:
    masks = []
    for number in (0, workers):
        collate = ga.CollateCorrupt(NOISE, index="index", visit=True, fields=("image", "index", "visit"))
        loader = DataLoader(
            Repeats(),
            batch_size=2,
            collate_fn=collate,
            num_workers=number,
            persistent_workers=number > 0,
            prefetch_factor=number or None,
        )
        for epoch in (0, 0, 1):
            collate.set_epoch(epoch)
            masks.append(one_epoch(loader)["mask"])
    assert all(torch.equal(one, other) for one, other in zip(masks[:3], masks[3:], strict=True))
    assert torch.equal(masks[0], masks[1])
    assert distinct(torch.cat(masks)) == 2 * COUNT
    ranks = [ga.CollateCorrupt(NOISE, index="index", visit=True, fields=("image", "index"), rank=rank) for rank in (0, 1)]
    each = []
    for collate in ranks:
        collate.set_epoch(0)
        each.append(collate([(torch.zeros(3, 16, 16), 7)])["mask"])
    assert not torch.equal(*each)


def test_an_index_that_comes_again_is_told_once_where_nothing_is_said_of_visits() -> None:
    samples = [(torch.zeros(3, 16, 16), index) for index in (7, 8, 7, 7)]
    for visit in (None, False, True):
        collate = ga.CollateCorrupt(NOISE, index="index", visit=visit, fields=("image", "index"))
        collate.set_epoch(0)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            masks = [collate(batch)["mask"] for batch in (samples[:2], samples, samples)]
        assert [("2 of 4 images have an index" in str(one.message), one.filename) for one in told] == [(True, __file__)] * (
            visit is None
        )
        assert torch.equal(masks[1][0], masks[1][2]) == (visit is not True)
        assert torch.equal(masks[1], masks[2]) == (visit is not True)


def test_visits_that_cannot_be_told_are_refused() -> None:
    with pytest.raises(ValueError, match=r"CollateCorrupt: visit=True needs index=.*Leave it out"):
        ga.CollateCorrupt(NOISE, visit=True)
    collate = ga.CollateCorrupt(NOISE, index="index", visit="visit", fields=("image", "index"))
    collate.set_epoch(0)
    with pytest.raises(ValueError, match=r"CollateCorrupt: visit='visit' is not among the fields.*number of each visit"):
        collate([(torch.zeros(3, 16, 16), 7)])
    files = ga.CollateCorrupt(NOISE, index="index", fields=("image", "index"))
    files.set_epoch(0)
    with pytest.raises(TypeError, match=r"keys: index is \('a.png',\).*integer number of each image"):
        files([(torch.zeros(3, 16, 16), "a.png")])
