"""Memory: it comes back whatever sizes are seen, a new size costs what the next call costs, and views of one memory are known."""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import gmml_aug as ga
from gmml_aug.backends.base import Choice
from gmml_aug.backends.cpu import picture, plan
from gmml_aug.backends.cpu.library import library

STATM = Path("/proc/self/statm")


def resident() -> float:
    """MiB."""
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
@pytest.mark.skipif(not STATM.exists(), reason="reads the resident memory where Linux tells it")
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_four_thousand_calls_of_random_sizes_keep_no_memory(backend: Choice) -> None:
    corrupt = ga.InBoxes(ga.Boxes(ratio=(0.0, 0.35)), ga.Noise())
    signal = ga.InBoxes(ga.Boxes(ratio=0.3, dims=1), ga.Zeros())
    chance = random.Random(0)
    store = torch.rand(3 * 300 * 300)  # one block for all images: what the allocator does with many is not ours
    least, most = [1e9, 1e9], [0.0, 0.0]
    for call in range(4000):
        height, width = chance.randint(120, 300), chance.randint(120, 300)
        corrupt(store[: 3 * height * width].view(1, 3, height, width), backend=backend)
        signal(store[: chance.randint(16_000, 240_000)][None, None], backend=backend)
        if call >= 500:
            half = call >= 2250
            least[half], most[half] = min(least[half], resident()), max(most[half], resident())
    assert most[1] - most[0] < 2.0
    assert least[1] - least[0] < 2.0


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_a_new_length_costs_what_the_second_call_costs(backend: Choice) -> None:
    signal = ga.InBoxes(ga.Boxes(ratio=0.3, dims=1), ga.Zeros())

    def seconds(images: torch.Tensor) -> float:
        begin = time.perf_counter()
        signal(images, keys=ga.keys(0, 0, [0]), backend=backend)
        return time.perf_counter() - begin

    new, again = [], []
    for length in range(240_000, 240_012):
        images = torch.zeros(1, 1, length)
        new.append(seconds(images))
        again.append(min(seconds(images) for _ in range(2)))
    # quarters: other processes take time, too
    assert statistics.quantiles(new)[0] < 3.0 * statistics.quantiles(again)[0]  # a table of lines took a thousand times as long


@pytest.mark.skipif(isinstance(library(), str), reason=str(library()))
def test_a_new_size_costs_at_most_a_half_more_than_the_second_call() -> None:
    corrupt = ga.InBoxes(ga.Boxes(ratio=(0.0, 0.35)), ga.Noise())
    keys = ga.keys(0, 0, [0])
    store = torch.rand(3 * 330 * 300)

    def seconds(images: torch.Tensor) -> float:
        begin = time.thread_time()
        corrupt(images, keys=keys)
        return time.thread_time() - begin

    new, again = [], []
    for extra in range(121):
        images = store[: 3 * (200 + extra) * 300].view(1, 3, 200 + extra, 300)
        new.append(seconds(images))
        again.append(seconds(images))
    # the first ones find cold code and memory; measured 1.2, and 1.4 when every size prepared the whole program
    assert statistics.median(new[20:]) < 1.5 * statistics.median(again[20:])


@pytest.mark.skipif(isinstance(library(), str), reason=str(library()))
def test_what_does_not_follow_from_the_size_is_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def counted(kind: type) -> Callable[..., Any]:
        def make(*about: object) -> Any:
            made.append(kind.__name__)
            return kind(*about)

        return make

    monkeypatch.setattr(plan, "_laws", type(plan._laws)(counted(plan._Laws)))
    monkeypatch.setattr(picture, "_look", type(picture._look)(counted(picture.Look)))
    corrupt = ga.presets.gmml(values="unit")
    for side in range(20, 40):
        corrupt(torch.rand(2, 3, side, 24))
    assert sorted(made) == ["Look", "_Laws"]
    corrupt(torch.rand(2, 4, 20, 24))  # another number of channels is another program to the core
    assert sorted(made) == ["Look", "Look", "_Laws", "_Laws"]
