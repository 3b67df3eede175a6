"""Feeds: the same images and views whoever computes them, on either path, in the middle of an epoch and on the next day."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

import gmml_aug
from gmml_models.data.dataset import Source
from gmml_models.data.free_memory import free_memory
from gmml_models.data.loader import Cutter, Decoding, WorkerFeed
from gmml_models.data.loaders import Batch, Feed, ViewPlan, in_order, make_feed
from gmml_models.data.resident_loader import ResidentFeed, bytes_kept, size_kept
from gmml_models.data.sampling import Share, order_of_epoch, spread
from gmml_models.data.sources import open_source
from gmml_models.errors import UsageError
from gmml_models.recipes.config import FinetuneConfig, PretrainConfig
from tests.models.data_files import pixels, truncate, write_classes, write_flat, write_labels, write_tar

PLAN = ViewPlan(size=(16, 16), local_size=(8, 8), local_views=1, jitter_p=0.5, blur_p=0.5)
PLAIN = replace(PLAN, jitter_p=0.0, blur_p=0.0)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """22 pictures in two classes."""
    return write_classes(tmp_path_factory.mktemp("data"), {"cat": 12, "dog": 10})


def source_of(root: Path, **options: Any) -> Source:
    source = open_source(PretrainConfig(data=str(root), **options))
    assert isinstance(source, Source)
    return source


def feed_of(root: Path, **options: Any) -> Feed:
    return make_feed(source_of(root), options.pop("plan", PLAN), **{"batch_size": 8, "workers": 0, "seed": 3, **options})


def flat(steps: Iterator[tuple[Batch, ...]]) -> list[Batch]:
    return [part for step in steps for part in step]


def same(one: Batch, other: Batch) -> bool:
    """Bit for bit."""
    labels = (one.labels is None) == (other.labels is None) and (one.labels is None or torch.equal(one.labels, other.labels))  # type: ignore[arg-type]
    views = all(torch.equal(a, b) for a, b in zip(one.views, other.views, strict=True))
    return views and labels and torch.equal(one.keys, other.keys) and torch.equal(one.index, other.index)


def joined(parts: Sequence[Batch]) -> Batch:
    views = tuple(torch.cat(view) for view in zip(*(part.views for part in parts), strict=True))
    labels = [part.labels for part in parts if part.labels is not None]
    return Batch(
        views, torch.cat([p.keys for p in parts]), torch.cat(labels) if labels else None, torch.cat([p.index for p in parts])
    )


PATHS: dict[str, dict[str, Any]] = {"here": {"workers": 0}, "workers": {"workers": 2}, "resident": {"resident": True}}


# the order of an epoch


@given(st.integers(1, 300), st.integers(-(2**63), 2**63 - 1), st.integers(0, 10_000))
def test_an_epoch_is_a_permutation_that_follows_from_seed_and_epoch(images: int, seed: int, epoch: int) -> None:
    order = order_of_epoch(images, seed, epoch)
    assert torch.equal(order.sort().values, torch.arange(images))
    assert torch.equal(order, order_of_epoch(images, seed, epoch))


def test_epochs_seeds_and_places_have_nothing_in_common() -> None:
    orders = torch.stack([order_of_epoch(2000, seed, epoch) for seed in range(3) for epoch in range(3)]).double()
    related = torch.corrcoef(torch.cat([orders, torch.arange(2000).double()[None]])) - torch.eye(10)
    assert related.abs().max() < 0.1


@given(st.data())
def test_every_step_is_shared_out_without_gap_or_overlap(data: st.DataObject) -> None:
    world, accumulate, part = (data.draw(st.integers(1, 4)) for _ in range(3))
    batch = world * accumulate * part
    images = data.draw(st.integers(batch, 5 * batch + 3))
    shares = [Share(images=images, batch_size=batch, accumulate=accumulate, rank=rank, world=world) for rank in range(world)]
    order = order_of_epoch(images, 0, 0)
    seen = []
    assert shares[0].steps_per_epoch == images // batch
    for step in range(shares[0].steps_per_epoch):
        parts = [part for share in shares for part in share.parts(order, step)]
        assert [len(one) for one in parts] == [part] * (world * accumulate)
        assert torch.equal(torch.cat(parts), order[step * batch : (step + 1) * batch])
        seen.append(torch.cat(parts))
    first = data.draw(st.integers(0, shares[0].steps_per_epoch))
    rest = [torch.cat(list(share.remaining(order, first)) or [order[:0]]) for share in shares]
    assert torch.equal(torch.cat(rest).sort().values, torch.cat([*seen[first:], order[:0]]).sort().values)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"images": 7}, "has 7 images, fewer than the 8 of one step. Give a --batch-size of at most 7"),
        ({"accumulate": 3}, "cannot be cut into 3 parts on each of 1 processes. Give a multiple of 3, for example 6"),
        ({"accumulate": 2, "world": 8}, "multiple of 16, for example 16"),
        ({"rank": 1}, "rank=1 of 1"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"accumulate": 0}, "accumulate=0"),
    ],
)
def test_a_batch_that_cannot_be_shared_out_is_refused(options: dict[str, int], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Share(**{"images": 100, "batch_size": 8, **options})


@given(st.integers(1, 50), st.integers(0, 60))
def test_a_sample_is_spread_over_the_data_set(images: int, count: int) -> None:
    numbers = spread(images, count)
    assert len(numbers) == min(images, count) == len(set(numbers.tolist()))
    if len(numbers) > 1:
        assert numbers.diff().max() - numbers.diff().min() <= 1


# every path


@pytest.mark.parametrize("path", list(PATHS))
def test_an_epoch_sees_whole_steps_of_views(folder: Path, path: str) -> None:
    feed = feed_of(folder, **PATHS[path])
    assert (feed.steps_per_epoch, feed.images, dict(feed.broken)) == (2, 22, {})
    assert isinstance(feed, ResidentFeed if path == "resident" else WorkerFeed)
    steps = list(feed.epoch(4))
    assert [len(step) for step in steps] == [1, 1]
    whole = source_of(folder)
    for step, (batch,) in enumerate(steps):
        assert [tuple(view.shape) for view in batch.views] == [(8, 3, 16, 16), (8, 3, 16, 16), (8, 3, 8, 8)]
        assert all(view.dtype == torch.float32 and view.is_contiguous() for view in batch.views)
        assert torch.equal(batch.index, order_of_epoch(22, 3, 4)[8 * step : 8 * step + 8])
        assert torch.equal(batch.keys, gmml_aug.keys(3, 4, batch.index))
        assert batch.labels is not None
        assert batch.labels.dtype == torch.int64
        assert batch.labels.tolist() == [whole.labels()[number] for number in batch.index.tolist()]
        assert not torch.equal(batch.views[0], batch.views[1])


@pytest.mark.parametrize("path", ["workers", "resident"])
def test_a_feed_repeats_itself_and_another_epoch_or_seed_does_not(folder: Path, path: str) -> None:
    feed, again, other = (feed_of(folder, seed=seed, **PATHS[path]) for seed in (3, 3, 4))
    first = flat(feed.epoch(0))
    assert all(map(same, first, flat(again.epoch(0))))
    assert all(map(same, first, flat(feed.epoch(0))))
    assert not any(map(same, first, flat(feed.epoch(1))))
    assert not any(map(same, first, flat(other.epoch(0))))


def test_workers_change_nothing(folder: Path) -> None:
    batches = [flat(feed_of(folder, workers=workers).epoch(2)) for workers in (0, 1, 2)]
    assert all(map(same, batches[0], batches[1]))
    assert all(map(same, batches[0], batches[2]))


@pytest.mark.parametrize("path", ["here", "resident"])
@pytest.mark.parametrize(("world", "accumulate"), [(1, 4), (2, 1), (2, 2), (4, 2)])
def test_processes_and_parts_change_nothing_but_who_computes(folder: Path, path: str, world: int, accumulate: int) -> None:
    whole = [step[0] for step in feed_of(folder, **PATHS[path]).epoch(1)]
    feeds = [feed_of(folder, rank=rank, world=world, accumulate=accumulate, **PATHS[path]) for rank in range(world)]
    for step, shares in enumerate(zip(*(feed.epoch(1) for feed in feeds), strict=True)):
        assert [len(parts) for parts in shares] == [accumulate] * world
        assert same(joined([part for parts in shares for part in parts]), whole[step])


@pytest.mark.parametrize("path", list(PATHS))
def test_an_epoch_goes_on_from_its_middle(folder: Path, path: str) -> None:
    options = {"batch_size": 4, "accumulate": 2, **PATHS[path]}
    whole = list(feed_of(folder, **options).epoch(5))
    feed = feed_of(folder, **options)
    left = feed.epoch(5)
    next(left)  # a run that was interrupted
    for first in (0, 2, 5):
        rest = list(feed.epoch(5, first))
        assert len(rest) == 5 - first
        assert all(same(a, b) for one, other in zip(rest, whole[first:], strict=True) for a, b in zip(one, other, strict=True))
    for wrong in (-1, 6):
        with pytest.raises(ValueError, match="Give 0 to 5"):
            list(feed.epoch(5, wrong))


class Counting(Source):
    """Remembers what was read."""

    def __init__(self) -> None:
        super().__init__(channels=3)
        self.asked: list[int] = []

    def __len__(self) -> int:
        return 40

    def name(self, index: int) -> str:
        return str(index)

    def labels(self) -> Sequence[None]:
        return [None] * 40

    def item(self, index: int) -> tuple[Tensor, None]:
        self.asked.append(index)
        return torch.full((3, 10, 10), index * 6, dtype=torch.uint8), None


def test_going_on_reads_nothing_of_what_came_before() -> None:
    source = Counting()
    feed = make_feed(source, PLAIN, batch_size=8, workers=0)
    assert len(list(feed.epoch(0, 3))) == 2
    assert source.asked == order_of_epoch(40, 0, 0)[24:].tolist()


@pytest.mark.parametrize("path", ["here", "resident"])
def test_pixels_end_normalised(path: str) -> None:
    plan = replace(PLAIN, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))
    (batch,) = next(make_feed(Counting(), plan, batch_size=8, **PATHS[path]).epoch(0))
    for row, number in enumerate(batch.index.tolist()):
        for channel in range(3):
            wanted = (number * 6 / 255 - plan.mean[channel]) / plan.std[channel]
            assert torch.allclose(batch.views[0][row, channel], torch.tensor(wanted), atol=1e-5)


def test_both_paths_take_the_same_crops(tmp_path: Path) -> None:
    root = write_flat(tmp_path, 16)
    feeds = [make_feed(source_of(root), PLAIN, batch_size=8, workers=0, resident=one, resident_size=24) for one in (False, True)]
    for (one,), (other,) in zip(*(feed.epoch(0) for feed in feeds), strict=True):
        for a, b in zip(one.views, other.views, strict=True):
            assert (a - b).abs().mean() < 0.06  # in deviations: three levels of 255
            assert (a - b).abs().mean() < (a - b.flip(3)).abs().mean() / 4
            assert (a - b).abs().mean() < (a - b.roll(1, 0)).abs().mean() / 4
    samples = [feed.sample(5) for feed in feeds]
    assert (samples[0].views[0] - samples[1].views[0]).abs().mean() < 0.06


def test_colours_and_blur_are_drawn_alike_on_both_paths(tmp_path: Path) -> None:
    root = write_flat(tmp_path, 16)
    plan = replace(PLAN, jitter=(0.9, 0.5, 0.5, 0.2), jitter_p=0.7, blur_p=0.7, scale=(0.9, 1.0))
    one, other = (make_feed(source_of(root), plan, batch_size=16, workers=0, resident=on) for on in (False, True))
    a, b = next(one.epoch(0))[0], next(other.epoch(0))[0]
    assert (a.views[0] - b.views[0]).abs().mean() < 0.08
    plain = next(make_feed(source_of(root), replace(plan, jitter_p=0.0, blur_p=0.0), batch_size=16, workers=0).epoch(0))[0]
    assert (a.views[0] - plain.views[0]).abs().mean() > 0.2


@pytest.mark.parametrize("path", ["workers", "resident"])
def test_nothing_is_drawn_from_the_global_generators(folder: Path, path: str) -> None:
    torch.manual_seed(1)
    random.seed(1)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    feed = feed_of(folder, **PATHS[path])
    first = flat(feed.epoch(0))
    feed.sample(3)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]  # type: ignore[index]
    torch.manual_seed(2)
    assert all(map(same, first, flat(feed_of(folder, **PATHS[path]).epoch(0))))


@pytest.mark.parametrize("path", list(PATHS))
def test_broken_images_are_named_and_batches_stay_whole(tmp_path: Path, path: str) -> None:
    root = write_flat(tmp_path, 16)
    for name in ("003", "004", "015"):
        truncate(root / f"{name}.png")
    feed = feed_of(root, plan=PLAIN, **PATHS[path])
    batches = flat(feed.epoch(0))
    assert set(feed.broken) == {"003.png", "004.png", "015.png"}
    assert all("truncated" in reason for reason in feed.broken.values())
    assert [len(batch.keys) for batch in batches] == [8, 8]
    assert torch.equal(joined(batches).index, order_of_epoch(16, 3, 0)[:16])
    stand_in = write_flat(tmp_path / "whole", 16)
    for gone, instead in ((3, 5), (4, 5), (15, 0)):
        (stand_in / f"{gone:03d}.png").write_bytes((stand_in / f"{instead:03d}.png").read_bytes())
    assert all(map(same, batches, flat(feed_of(stand_in, plan=PLAIN, **PATHS[path]).epoch(0))))


@pytest.mark.parametrize("path", list(PATHS))
def test_images_that_all_break_after_opening_end_the_run_in_words(tmp_path: Path, path: str) -> None:
    root = write_flat(tmp_path, 8)
    source = source_of(root)
    for file in root.iterdir():
        truncate(file)
    with pytest.raises(UsageError, match=r"^gmml: none of the 8 images could be read"):
        flat(make_feed(source, PLAN, batch_size=8, **PATHS[path]).epoch(0))


@pytest.mark.parametrize("path", list(PATHS))
def test_a_sample_is_fixed_spread_and_upright(folder: Path, path: str) -> None:
    feed = feed_of(folder, **PATHS[path])
    batch = feed.sample(4)
    assert batch.index.tolist() == [0, 5, 11, 16]
    assert torch.equal(batch.keys, gmml_aug.keys(3, 0, batch.index))
    assert [tuple(view.shape) for view in batch.views] == [(4, 3, 16, 16)]
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 0, 0, 1]
    assert same(batch, feed.sample(4))
    assert len(feed.sample(100).keys) == 22
    image = Image.open(folder / source_of(folder).name(5))
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    wanted = image.resize((16, 16), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
    found = batch.views[0][1] * torch.tensor(PLAN.std).view(3, 1, 1) + torch.tensor(PLAN.mean).view(3, 1, 1)
    assert (found - torch.from_numpy(np.array(wanted)).permute(2, 0, 1) / 255).abs().mean() < 0.02


@pytest.mark.parametrize("path", ["workers", "resident"])
def test_several_labels_come_as_rows_of_0_and_1(tmp_path: Path, path: str) -> None:
    write_labels(tmp_path, {"train": 10})
    source = open_source(FinetuneConfig(data=str(tmp_path)), purpose="train")
    (batch,) = next(make_feed(source, PLAN, batch_size=8, **PATHS[path]).epoch(0))
    assert batch.labels is not None
    assert batch.labels.dtype == torch.float32
    assert batch.labels.tolist() == [[n & 1, n >> 1 & 1] for n in batch.index.tolist()]


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("path", ["here", "resident"])
def test_other_channels_pass_through(channels: int, path: str) -> None:
    images = [np.full((9, 12, channels), 10 * number, dtype=np.uint8) for number in range(8)]
    plan = replace(PLAN, mean=(0.0,) * channels, std=(1.0,) * channels, jitter_p=0.0)
    source = open_source(PretrainConfig(in_chans=channels), dataset=images)
    (batch,) = next(make_feed(source, plan, batch_size=8, **PATHS[path]).epoch(0))
    assert batch.labels is None
    assert batch.views[0].shape == (8, channels, 16, 16)
    assert torch.allclose(batch.views[0].mean((1, 2, 3)), batch.index * 10 / 255, atol=2e-3)


# transforms of one image


def test_a_transform_follows_from_the_key_of_its_image(folder: Path) -> None:
    from timm.data import create_transform  # type: ignore[attr-defined]

    transform = create_transform(16, is_training=True, auto_augment="rand-m9-mstd0.5-inc1", re_prob=0.5, color_jitter=0.4)
    feeds = [feed_of(folder, transform=transform, **options) for options in ({"workers": 0}, {"workers": 2}, {"accumulate": 2})]
    whole, workers, parts = (list(feed.epoch(0)) for feed in feeds)
    for one, other, two in zip(whole, workers, parts, strict=True):
        assert one[0].views[0].shape == (8, 3, 16, 16)
        assert same(one[0], other[0])
        assert same(one[0], joined(two))
    (later,) = next(feeds[0].epoch(1))
    place = {number: row for row, number in enumerate(later.index.tolist())}
    both = [(row, place[number]) for row, number in enumerate(whole[0][0].index.tolist()) if number in place]
    assert both
    assert not any(torch.equal(whole[0][0].views[0][a], later.views[0][b]) for a, b in both)


def test_bytes_of_a_transform_are_normalised_and_floats_are_not(folder: Path) -> None:
    def small(picture: Image.Image) -> Tensor:
        return torch.from_numpy(np.array(picture.resize((6, 6)))).permute(2, 0, 1)

    (raw,) = next(feed_of(folder, transform=small).epoch(0))
    (own,) = next(feed_of(folder, transform=lambda picture: small(picture).float()).epoch(0))
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (PLAN.mean, PLAN.std))
    assert torch.allclose(raw.views[0], (own.views[0] / 255 - mean) / std, atol=1e-5)


def test_what_workers_are_given_can_be_sent_to_them(tmp_path: Path, folder: Path) -> None:
    """Where processes are not forked, as on other systems than Linux."""
    tar = write_tar(tmp_path / "data.tar", folder)
    table = write_labels(tmp_path / "labelled", {"train": 4}).parent
    images = [pixels(number) for number in range(4)]
    sources = [source_of(folder), source_of(tar), open_source(FinetuneConfig(data=str(table)), purpose="train")]
    sources += [open_source(FinetuneConfig(), purpose="train", dataset=[(one, number) for number, one in enumerate(images)])]
    for source in sources:
        decoding = Decoding(source, Cutter(PLAN), 3)
        sent = pickle.loads(pickle.dumps(decoding))[2, [1, 0]]
        assert all(torch.equal(a, b) for a, b in zip(sent.views, decoding[2, [1, 0]].views, strict=True))


# measuring


@pytest.mark.parametrize("workers", [0, 2])
def test_every_image_comes_once_and_in_order(tmp_path: Path, workers: int) -> None:
    root = write_classes(tmp_path, {"cat": 6, "dog": 5})
    truncate(root / "cat" / "004.png")
    source = source_of(root)
    told: list[tuple[int, int]] = []
    batches = list(in_order(source, PLAN, batch_size=4, workers=workers, progress=lambda *done: told.append(done)))
    assert told == [(4, 11), (7, 11), (10, 11)]
    assert torch.cat([batch.index for batch in batches]).tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]
    assert [len(batch.views[0]) for batch in batches] == [4, 3, 3]
    assert torch.cat([batch.labels for batch in batches if batch.labels is not None]).tolist() == [0] * 5 + [1] * 5
    assert list(source.broken) == ["cat/004.png"]
    sample = feed_of(root, workers=0, seed=0).sample(11)
    assert torch.equal(sample.views[0][3], batches[0].views[0][3])  # the same centre crop
    halves = [in_order(source, PLAN, batch_size=3, rank=rank, world=2, workers=0) for rank in range(2)]
    assert [torch.cat([batch.index for batch in half]).tolist() for half in halves] == [[0, 1, 2, 3], [5, 6, 7, 8, 9, 10]]
    own = in_order(source, PLAN, batch_size=20, workers=0, transform=lambda picture: torch.full((2, 3), float(picture.width)))
    assert next(own).views[0].shape == (10, 2, 3)


def test_a_batch_in_which_all_is_broken_is_left_out(tmp_path: Path) -> None:
    root = write_flat(tmp_path, 6)
    for number in (2, 3):
        truncate(root / f"{number:03d}.png")
    source = source_of(root)
    assert [batch.index.tolist() for batch in in_order(source, PLAN, batch_size=2, workers=0)] == [[0, 1], [4, 5]]
    assert len(source.broken) == 2


# which path


def test_the_path_is_chosen_by_device_and_room(folder: Path) -> None:
    source = source_of(folder)
    assert bytes_kept(source, (16, 16), CPU, None) == 0  # nobody waits for the CPU's memory
    assert bytes_kept(source, (16, 16), CPU, False) == 0
    assert bytes_kept(source, (16, 16), CPU, True) == 22 * 3 * 16 * 16
    free = free_memory(CPU)
    assert free is None or free > 1e6
    if free is not None:
        side = int((free / 3 / len(source)) ** 0.5) + 1
        with pytest.raises(UsageError, match=r"GB are free. Give a smaller --resident-size"):
            feed_of(folder, resident=True, resident_size=side)
    assert size_kept(PLAN, None) == (18, 18)
    assert size_kept(replace(PLAN, size=(16, 32)), None) == (18, 37)
    assert size_kept(PLAN, 20) == (20, 20)
    with pytest.raises(UsageError, match="resident_size=0"):
        size_kept(PLAN, 0)


def test_what_does_not_fit_together_is_refused_before_any_work(folder: Path) -> None:
    grey = source_of(folder, in_chans=1)
    with pytest.raises(UsageError, match="the images have 1 channels, but mean and std have 3"):
        make_feed(grey, PLAN, batch_size=8)
    with pytest.raises(UsageError, match="with its own transform cannot be resident"):
        feed_of(folder, transform=lambda picture: torch.zeros(1), resident=True)
    with pytest.raises(UsageError, match="has 22 images, fewer than the 32"):
        feed_of(folder, batch_size=32)
    five = open_source(PretrainConfig(in_chans=5), dataset=[np.zeros((9, 9, 5), dtype=np.uint8)] * 8)
    with pytest.raises(UsageError, match="pictures of 1 or 3 channels"):
        make_feed(five, replace(PLAN, mean=(0.0,) * 5, std=(1.0,) * 5), batch_size=8, transform=lambda picture: torch.zeros(1))


def test_progress_is_told_while_images_are_decoded(folder: Path) -> None:
    told: list[tuple[int, int]] = []
    feed_of(folder, resident=True, workers=2, progress=lambda done, of: told.append((done, of)))
    assert told[-1] == (22, 22)


@settings(max_examples=15)
@given(st.integers(0, 2**40), st.integers(0, 1000), st.sampled_from([(1, 1), (1, 2), (2, 1), (2, 4)]))
def test_any_step_of_any_run_is_what_it_would_have_been(folder: Path, seed: int, epoch: int, cut: tuple[int, int]) -> None:
    world, accumulate = cut
    feed = feed_of(folder, seed=seed, resident=True)
    (whole,) = next(feed.epoch(epoch, 1))
    feeds = [feed_of(folder, seed=seed, rank=rank, world=world, accumulate=accumulate) for rank in range(world)]
    shared = joined([part for one in feeds for step in islice(one.epoch(epoch, 1), 1) for part in step])
    assert torch.equal(shared.index, whole.index)
    assert torch.equal(shared.keys, whole.keys)
    assert (shared.views[0] - whole.views[0]).abs().mean() < 0.15


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_feed_on_the_gpu_gives_what_it_gives_on_the_cpu_and_waits_for_nothing(folder: Path) -> None:
    where = torch.device("cuda")
    here, there = feed_of(folder, resident=True), feed_of(folder, device=where)
    assert isinstance(there, ResidentFeed)  # unasked, since there is room
    for (one,), (other,) in zip(here.epoch(0), there.epoch(0), strict=True):
        assert torch.equal(one.keys, other.keys.cpu())
        for a, b in zip(one.views, other.views, strict=True):
            assert b.is_cuda
            assert (a - b.cpu()).abs().max() < 5e-3
    torch.cuda.set_sync_debug_mode("error")
    try:
        list(there.epoch(1))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for (one,), (other,) in zip(
        feed_of(folder).epoch(0), feed_of(folder, device=where, resident=False, workers=2).epoch(0), strict=True
    ):
        assert (one.views[0] - other.views[0].cpu()).abs().max() < 5e-3
