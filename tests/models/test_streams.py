"""Streams: shards of tars, Hugging Face streams and iterables are read once, in order, and shared out as any data set is."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

import gmml_aug
from gmml_models.data.channel_stats import channel_stats
from gmml_models.data.loaders import Feed, ViewPlan, make_feed
from gmml_models.data.sources import open_source
from gmml_models.data.stream_loader import Shares
from gmml_models.data.streams import Shards, StreamItem, StreamSource, shuffled
from gmml_models.errors import UsageError
from gmml_models.recipes.config import FinetuneConfig, PretrainConfig
from tests.models.data_files import pixels, png, write_classes, write_shard
from tests.models.test_feeds import flat, joined, same

COUNT = 30
# an image is told by its mean: what the views of a stream show
PLAN = ViewPlan(size=(8, 8), scale=(1.0, 1.0), flip=0.0, jitter_p=0.0, blur_p=0.0, mean=(0.0,) * 3, std=(1.0,) * 3)
CHANCE = replace(PLAN, scale=(0.1, 1.0), flip=0.5, jitter_p=0.5, blur_p=0.5)


def level(number: int) -> Image.Image:
    return Image.new("RGB", (12, 10), (8 * number,) * 3)


def numbers(view: Tensor) -> list[int]:
    """Which images a batch holds."""
    return (view.mean((1, 2, 3)) * 255 / 8).round().int().tolist()


@dataclass
class Levels:
    """An iterable that starts anew each time."""

    count: int = COUNT
    sized: bool = True
    broken: tuple[int, ...] = ()

    def __iter__(self) -> Iterator[Any]:
        for number in range(self.count):
            yield ("nothing", 0) if number in self.broken else (level(number), number % 2)


class Sized(Levels):
    def __len__(self) -> int:
        return self.count


def stream(dataset: Any, **options: Any) -> StreamSource:
    found = open_source(PretrainConfig(**options), dataset=dataset)
    assert isinstance(found, StreamSource)
    return found


def named(data: str, **options: Any) -> StreamSource:
    found = open_source(PretrainConfig(data=data, **options))
    assert isinstance(found, StreamSource)
    return found


def feed_of(source: StreamSource, plan: ViewPlan = PLAN, **options: Any) -> Feed:
    return make_feed(source, plan, **{"batch_size": 8, "workers": 0, "seed": 5, **options})


def test_an_epoch_of_a_stream_sees_every_image_once_in_an_order_of_its_own() -> None:
    feed = feed_of(stream(Sized()), batch_size=6)
    assert (feed.steps_per_epoch, feed.images) == (5, COUNT)
    orders = []
    for epoch in (0, 0, 1):
        batches = flat(feed.epoch(epoch))
        together = joined(batches)
        assert together.labels is None
        assert torch.equal(together.index, torch.arange(COUNT))
        assert torch.equal(together.keys, gmml_aug.keys(5, epoch, together.index))
        orders.append(numbers(together.views[0]))
        assert sorted(orders[-1]) == list(range(COUNT))
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != sorted(orders[0])


@pytest.mark.parametrize("options", [{"workers": 1}, {"workers": 2}, {"accumulate": 2}, {"accumulate": 4, "workers": 2}])
def test_workers_and_parts_of_a_stream_change_nothing(options: dict[str, int]) -> None:
    whole = [step[0] for step in feed_of(stream(Sized()), CHANCE).epoch(3)]
    parts = list(feed_of(stream(Sized()), CHANCE, **options).epoch(3))
    assert len(whole) == len(parts) == 3
    assert all(same(one, joined(step)) for one, step in zip(whole, parts, strict=True))


def test_processes_share_a_stream_as_they_share_a_data_set() -> None:
    whole = [step[0] for step in feed_of(stream(Sized()), CHANCE).epoch(0)]
    feeds = [feed_of(stream(Sized()), CHANCE, rank=rank, world=2, accumulate=2) for rank in range(2)]
    for step, shares in enumerate(zip(*(feed.epoch(0) for feed in feeds), strict=True)):
        assert same(joined([part for parts in shares for part in parts]), whole[step])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_goes_on_from_the_middle_without_decoding_what_came_before(workers: int) -> None:
    feed = feed_of(stream(Sized()), CHANCE, workers=workers)
    whole = flat(feed.epoch(2))
    for first in (0, 1, 3):
        assert all(map(same, flat(feed.epoch(2, first)), whole[first:]))
    bad = feed_of(stream(Levels(broken=tuple(range(COUNT))), stream_images=COUNT), workers=workers)
    assert flat(bad.epoch(0, 3)) == []
    assert not bad.broken


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_of_a_stream_is_replaced_by_the_next(workers: int) -> None:
    whole = numbers(joined(flat(feed_of(stream(Sized())).epoch(0))).views[0])
    bad = (whole[2], whole[3], whole[10])
    source = stream(Sized(broken=bad))
    feed = feed_of(source, workers=workers)
    wanted = list(whole)
    wanted[2] = wanted[3] = whole[4]
    wanted[10] = whole[11]
    assert numbers(joined(flat(feed.epoch(0))).views[0]) == wanted
    assert set(feed.broken) == {f"image {number}" for number in bad}
    assert all("it is a str" in reason for reason in feed.broken.values())


def test_a_stream_that_ends_early_begins_again_and_a_long_one_is_cut() -> None:
    again = numbers(joined(flat(feed_of(stream(Levels(10), stream_images=24)).epoch(0))).views[0])
    assert sorted(again[:10]) == sorted(again[10:20]) == list(range(10))
    short = feed_of(stream(Levels(), stream_images=8))
    first, second = (numbers(joined(flat(short.epoch(epoch))).views[0]) for epoch in (0, 1))
    assert len(set(first)) == 8
    assert set(first) != set(second)


def test_a_sample_of_a_stream_is_fixed() -> None:
    feed = feed_of(stream(Sized()))
    assert same(feed.sample(4), feed.sample(4))
    assert numbers(feed.sample(4).views[0]) == numbers(next(feed.epoch(0))[0].views[0])[:4]
    assert len(feed.sample(99).keys) == COUNT


class Divided(IterableDataset[Any]):
    """Gives each worker its own part, as those who write such data sets are told to."""

    def __iter__(self) -> Iterator[Image.Image]:
        worker = get_worker_info()
        first, every = (0, 1) if worker is None else (worker.id, worker.num_workers)
        yield from map(level, range(first, COUNT, every))


def test_a_stream_that_divides_itself_among_workers_is_still_seen_whole() -> None:
    one, two = (feed_of(stream(Divided(), stream_images=COUNT), batch_size=6, workers=workers) for workers in (0, 2))
    batches = flat(two.epoch(0))
    assert sorted(numbers(joined(batches).views[0])) == list(range(COUNT))
    assert all(map(same, batches, flat(one.epoch(0))))


def test_shuffling_keeps_every_record_and_mixes_near_ones() -> None:
    records: Any = range(5000)
    mixed: Any = list(shuffled(records, 1))
    assert sorted(mixed) == list(range(5000))
    assert mixed != list(shuffled(records, 2))
    moved = np.abs(np.array(mixed) - np.arange(5000))
    assert np.median(moved) > 100


STREAM_ERRORS: list[tuple[Any, dict[str, Any], str]] = [
    (Levels(), {}, "does not say how many images it has. Give --stream-images"),
    (iter(Levels()), {"stream_images": 8}, "can be read only once"),
    (object(), {"stream_images": 8}, "an? object, cannot be iterated"),
]


@pytest.mark.parametrize(("dataset", "options", "words"), STREAM_ERRORS)
def test_what_cannot_be_streamed_is_refused(dataset: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        stream(dataset, **options)


@pytest.mark.parametrize("workers", [0, 2])
def test_streams_without_images_end_in_words(workers: int) -> None:
    with pytest.raises(UsageError, match=r"^gmml: the data set holds no images"):
        flat(feed_of(stream(Levels(0), stream_images=8), workers=workers).epoch(0))
    with pytest.raises(
        UsageError, match=r"^gmml: 1000 images in a row of the data set could not be read. The first was image \d+: "
    ):
        flat(feed_of(stream(Levels(1200, broken=tuple(range(1200))), stream_images=8), workers=workers).epoch(0))


def test_a_stream_has_no_labels_and_cannot_be_kept() -> None:
    with pytest.raises(UsageError, match="streams are supported for pretraining only"):
        open_source(FinetuneConfig(), purpose="train", dataset=Sized())
    with pytest.raises(UsageError, match="a stream cannot be resident"):
        feed_of(stream(Sized()), resident=True)
    with pytest.raises(UsageError, match="has 30 images, fewer than the 64"):
        feed_of(stream(Sized()), batch_size=64)


# shards of any kind, shared out


@dataclass(frozen=True)
class Told:
    """Shards of a few images each, 64 in all; what is read is written down."""

    log: Path
    shards: int = 16

    def __call__(self, seed: int, share: int, shares: int) -> Iterator[StreamItem]:
        order = list(range(self.shards))
        random.Random(seed).shuffle(order)
        for shard in order[share::shares]:
            for number in range(shard * 64 // self.shards, (shard + 1) * 64 // self.shards):
                with self.log.open("a") as file:
                    file.write(f"{number}\n")
                yield StreamItem(f"{number}", Image.new("RGB", (12, 10), (4 * number,) * 3))


def sharded(log: Path, shards: int = 16) -> StreamSource:
    return StreamSource(Told(log, shards), images=64, channels=3, shards=shards)


def read(log: Path) -> Counter[int]:
    found = Counter(map(int, log.read_text().split()))
    log.unlink()
    return found


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (1, 2), (2, 2), (8, 0)])
def test_processes_and_workers_read_shards_of_their_own_and_see_what_one_would(tmp_path: Path, world: int, workers: int) -> None:
    log = tmp_path / "log"
    whole = [step[0] for step in feed_of(sharded(log), CHANCE).epoch(1)]
    assert read(log) == Counter(range(64))
    feeds = [feed_of(sharded(log), CHANCE, rank=rank, world=world, workers=workers) for rank in range(world)]
    found = list(zip(*(feed.epoch(1) for feed in feeds), strict=True))
    assert len(found) == len(whole) == 8
    assert all(same(joined([parts[0] for parts in step]), one) for step, one in zip(found, whole, strict=True))
    assert read(log) == Counter(range(64)), "nobody reads what another one reads"


def test_shards_are_drawn_anew_each_epoch_and_every_image_comes_once(tmp_path: Path) -> None:
    feed, firsts = feed_of(sharded(tmp_path / "log", shards=4), batch_size=4), set()
    for epoch in range(6):
        shades = [(step[0].views[0].mean((1, 2, 3)) * 255 / 4).round().int() for step in feed.epoch(epoch)]
        assert sorted(torch.cat(shades).tolist()) == list(range(64))
        blocks = torch.stack(shades) // 16  # a share, one shard of four, has a place in all batches
        assert torch.equal(blocks, blocks[:1].expand_as(blocks))
        firsts.add(tuple(blocks[0].tolist()))
    assert len(firsts) > 3


@pytest.mark.parametrize("first", [1, 2, 7])
def test_a_stream_of_shards_goes_on_from_the_middle(tmp_path: Path, first: int) -> None:
    feed = feed_of(sharded(tmp_path / "log"), CHANCE, accumulate=2, workers=2)
    whole = flat(feed.epoch(3))
    assert all(map(same, flat(feed.epoch(3, first)), whole[2 * first :]))


def test_a_share_that_is_short_goes_on_with_the_next_one(tmp_path: Path) -> None:
    records = sharded(tmp_path / "log", shards=4).records(0, 0, share=3, shares=4)
    found = [int(next(records).name) // 16 for _ in range(80)]
    assert all(len(set(found[start : start + 16])) == 1 for start in range(0, 80, 16))
    assert len(set(found[:64])) == 4
    assert found[64:] == found[:16]


@settings(max_examples=50)
@given(st.integers(1, 300), st.integers(1, 60), st.integers(1, 20))
def test_shares_are_equally_large_and_read_in_order(shards: int, batch_size: int, steps: int) -> None:
    shares = Shares.of(shards, batch_size, steps)
    assert (shards % shares.count, batch_size % shares.blocks, steps % shares.turns) == (0, 0, 0)
    seen: list[list[int]] = [[] for _ in range(shares.count)]
    for number in range(batch_size * steps):
        share, place = shares.find(number)
        seen[share].append(place)
    assert all(places == list(range(batch_size * steps // shares.count)) for places in seen)


# shards of webdataset


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three tars of eight images each, as people write them: some with a class, some without."""
    pytest.importorskip("webdataset")
    for shard in range(3):
        first = shard * 8
        records = [
            {"__key__": b"%06d" % number, "png": png(number), "cls": b"%d" % (number % 3)} for number in range(first, first + 8)
        ]
        if shard == 1:
            records = [{name: held for name, held in record.items() if name != "cls"} for record in records]
        write_shard(tmp_path / f"part-{shard:04d}.tar", records)
    return tmp_path


def means(batches: list[Any]) -> list[float]:
    return sorted(joined(batches).views[0].mean((1, 2, 3)).mul(255).round(decimals=0).tolist())


def test_shards_are_read_by_folder_pattern_and_info_file(shards: Path) -> None:
    ways = [
        named(f"wds/{shards}", stream_images=24),
        named(f"wds/{shards}", split="part-{0000..0002}.tar|24"),
        named(f"wds/{shards}", split="part-{0000..0002}.tar", stream_images=24),
    ]
    about = {
        "splits": {
            "train": {
                "name": "train",
                "num_samples": 24,
                "filenames": [f"part-{n:04d}.tar" for n in range(3)],
                "shard_lengths": [8, 8, 8],
            }
        }
    }
    (shards / "_info.json").write_text(json.dumps(about))
    ways.append(named(f"wds/{shards}"))
    wanted = None
    for source in ways:
        assert source.images == 24
        batches = flat(feed_of(source, workers=2).epoch(0))
        wanted = wanted or batches
        assert all(map(same, batches, wanted))
    whole = sorted(round(float(np.asarray(Image.fromarray(pixels(n)).resize((8, 8), 3)).mean())) for n in range(24))
    assert np.abs(np.array(means(batches)) - np.array(whole)).max() <= 3
    assert not ways[0].broken
    with pytest.raises(UsageError, match="its info file does not match"):
        named(f"wds/{shards}", split="nonsense")


def test_shards_are_opened_in_an_order_that_follows_from_the_seed(shards: Path) -> None:
    urls = tuple(sorted(str(file) for file in shards.iterdir()))
    orders = [list(dict.fromkeys(item.name.split(":")[0] for item in Shards(urls, {})(seed, 0, 1))) for seed in (0, *range(9))]
    assert orders[0] == orders[1]
    assert all(tuple(sorted(order)) == urls for order in orders)
    assert len({tuple(order) for order in orders}) > 3
    parts = [[item.name for item in Shards(urls, {})(5, share, 3)] for share in range(3)]
    assert [name for part in parts for name in part] == [item.name for item in Shards(urls, {})(5, 0, 1)]


def test_damaged_images_and_shards_are_named(shards: Path) -> None:
    write_shard(
        shards / "part-0003.tar", [{"__key__": b"bad", "png": b"no image"}, {"__key__": b"text", "txt": b"no image either"}]
    )
    (shards / "part-0002.tar").write_bytes((shards / "part-0002.tar").read_bytes()[:5000])
    feed = feed_of(named(f"wds/{shards}", stream_images=24), workers=2)
    assert [len(batch.keys) for batch in flat(feed.epoch(0))] == [8, 8, 8]
    assert set(feed.broken) == {f"{shards}/part-0002.tar", f"{shards}/part-0003.tar: bad"}


def test_shards_that_are_not_there_are_refused(shards: Path) -> None:
    with pytest.raises(UsageError, match=r"2 shards are missing, the first .*part-0003.tar"):
        named(f"wds/{shards}", split="part-{0002..0004}.tar|40")
    with pytest.raises(UsageError, match="there are no tars in"):
        named(f"wds/{shards / 'nowhere'}")
    with pytest.raises(UsageError, match="--stream-images"):
        named(f"wds/{shards}")


# Hugging Face


def test_hugging_face_streams_are_shared_out_as_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    rows = {"image": [level(number) for number in range(COUNT)], "label": [0] * COUNT}
    held = datasets.Dataset.from_dict(rows, features).to_iterable_dataset(num_shards=3)
    feeds = [feed_of(stream(held, stream_images=COUNT), CHANCE, workers=workers) for workers in (0, 2)]
    one, other = (flat(feed.epoch(1)) for feed in feeds)
    assert all(map(same, one, other))
    orders = [
        numbers(joined(flat(feed_of(stream(held, stream_images=COUNT), batch_size=6).epoch(epoch))).views[0]) for epoch in (0, 1)
    ]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(COUNT))
    assert orders[0] != orders[1]
    root = write_classes(tmp_path / "data" / "train", {"cat": 5, "dog": 5}).parent
    source = named(f"hfids/{root}", data_root=str(tmp_path / "cache"), stream_images=10)
    assert source.images == 10
    batches = flat(feed_of(source, batch_size=5).epoch(0))
    assert len(set(joined(batches).views[0].mean((1, 2, 3)).tolist())) == 10
    assert not source.broken


def test_the_numbers_of_a_stream_are_those_of_its_images() -> None:
    found = channel_stats(stream(Sized(broken=(3,))))
    kept = np.array([8 * number / 255 for number in range(COUNT) if number != 3])
    assert found.images == COUNT - 1
    assert found.mean == pytest.approx((kept.mean(),) * 3)
    assert found.std == pytest.approx((kept.std(),) * 3)
    assert list(found.broken) == ["image 3"]
