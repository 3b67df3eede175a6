"""All contenders in one run, the ratios that the project is held to, and what each stage of `gmml` costs.

``python -m benchmarks.throughput`` measures in less than five minutes, ``--full`` the whole grid, ``--ratios`` nothing but the
ratios. Writes benchmarks/results/throughput.json and .md, the short table of README and docs, and
the figures of docs/performance. README.md has the contract.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

import gmml_aug as ga
from benchmarks.pages import put_speed
from benchmarks.release_rule import corrupt_in_a_loop
from benchmarks.timing import alternate
from gmml_models.bench.peers import PEERS, present
from gmml_models.bench.report import FULL, MAIN, QUICK, QUICK_CUDA, SIZES, apart, markdown, run, to_json
from gmml_models.bench.timing import CLONE, COPY, Call, Case, Effort, Peer, allocator, measure

RESULTS = Path(__file__).parent / "results"
FIGURES = Path(__file__).resolve().parents[1] / "docs" / "performance"
KORNIA, LOOP = "kornia erasing + blur + grey", "the release's rule, loop"
TIMM, KORNIA_ERASING, CUTMIX, TEN = "timm RandomErasing", "kornia RandomErasing", "torchvision CutMix", "noise in ten boxes"
KINDS = {"bfloat16": torch.bfloat16, "float16": torch.float16, "uint8": torch.uint8}
STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# glibc then takes nothing by mmap and returns nothing to the system
KEPT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(1 << 28)}


def _loop(images: Tensor) -> Call:
    if not images.is_floating_point():
        raise TypeError("the loop draws normal noise, which bytes cannot hold")
    rng = random.Random(0)

    def call() -> object:
        with images.device:  # its mask, too, as in the release: a wait for every box on a GPU
            return corrupt_in_a_loop(images, rng)

    return call


RELEASE = Peer(LOOP, "noise or alien per image, the release's rule, box by box in Python; mask", _loop)
LONG = replace(RELEASE, first=True)  # on a GPU it waits for every box


def ratios(effort: Effort, *, pixels: bool = True) -> dict[str, Any]:
    """What the CPU's backend is held to, on one thread: each ratio with its floor, its goal and the times behind it.

    To be run in a fresh process, for the allocator remembers.

    Args:
        effort: how often.
        pixels: measure the cost per pixel too, which takes longest.
    """
    names = (COPY, CLONE, "gmml", "gmml_reference", "Zeros", "Alien", "mae", KORNIA, TIMM, KORNIA_ERASING, CUTMIX)
    peers, _ = present([peer for peer in PEERS if peer.name in names])
    peers += [_into("gmml", ga.presets.gmml), _into(TEN, _ten_boxes)]
    # limits first: others leave memory behind, which clone() then finds
    limits = [peer for peer in peers if peer.name in (COPY, CLONE, "gmml")]
    alone = {row["peer"]: row["device_ms"]["minimum"] for row in measure(MAIN, limits, effort=effort)}
    rows = {row["peer"]: row for row in measure(MAIN, [*peers, RELEASE], effort=effort)}
    least: dict[str, float] = {name: row["device_ms"]["minimum"] for name, row in rows.items() if not row["error"]}
    small, gmml = torch.randn(2, 3, 32, 32), ga.presets.gmml()
    call = alternate({"call": lambda: gmml(small)}, rounds=300)["call"]
    pixel = cost_per_pixel() if pixels else {}
    costs = [one["ns_per_pixel"] for one in pixel.values()] or [math.nan]
    kinds = {name: _in_copies(dtype, effort) for name, dtype in KINDS.items()}

    def share(name: str, other: str) -> float:
        return least.get(name, math.nan) / least.get(other, math.nan)

    found = {
        "gmml into a buffer, in copies": (share("gmml into a buffer", COPY), "at most", 4.5, 3.0),
        "gmml / clone()": (alone["gmml"] / alone[CLONE], "at most", 1.6, 1.4),
        "kornia erasing + blur + grey / gmml": (share(KORNIA, "gmml"), "at least", 6.0, 8.0),
        "release's rule, loop / gmml_reference": (share(LOOP, "gmml_reference"), "at least", 2.5, 6.0),
        "one call, 2 x 3 x 32 x 32, ms": (call.minimum, "at most", 0.25, 0.10),
        "cost per pixel, largest / smallest": (max(costs) / min(costs), "at most", 1.6, 1.3),
        "one thread / two threads, gmml into a buffer": (two_threads(effort), "at least", 1.7, 1.9),
        "noise in ten boxes into a buffer / timm RandomErasing": (share(f"{TEN} into a buffer", TIMM), "at most", 1.0, 0.7),
        "Zeros / kornia RandomErasing": (share("Zeros", KORNIA_ERASING), "at most", 0.8, 0.5),
        "Alien / torchvision CutMix": (share("Alien", CUTMIX), "at most", 0.8, 0.5),
        "mae / kornia RandomErasing": (share("mae", KORNIA_ERASING), "at most", 0.8, 0.5),
        **{f"gmml into a buffer, {name}, in copies": (value, "at most", 8.0, 5.0) for name, value in kinds.items()},
        "from bytes to float32 / normalising": (_in_passes(effort), "at most", 2.0, 1.5),
    }
    return {
        "allocator": allocator(),
        "ratios": {
            name: {"measured": value if math.isfinite(value) else None, "target": target, "floor": floor, "goal": goal}
            for name, (value, target, floor, goal) in found.items()
        },
        "limits_ms": alone,
        "milliseconds": {name: row.get("device_ms") for name, row in rows.items()},
        "call_ms": {"minimum": call.minimum, "median": call.median},
        "cost_per_pixel": pixel,
    }


def _ten_boxes() -> ga.Corruption:
    """As timm's: ten boxes, each of a tenth of 2 to 35 % of the image."""
    return ga.InBoxes(ga.Boxes(count=10, side=(math.sqrt(0.002), math.sqrt(0.035)), placement="inside"), ga.Noise())


def _into(name: str, build: Callable[[], ga.Corruption]) -> Peer:
    """Ours, into memory that is there, as in a training loop with buffers of its own."""

    def make(images: Tensor) -> Call:
        corrupt, out = build(), torch.empty_like(images)
        return lambda: corrupt(images, out=out)

    return Peer(f"{name} into a buffer", "", make, "ours")


def _in_copies(dtype: torch.dtype, effort: Effort) -> float:
    """`gmml` into a buffer in another dtype, in copies of its own."""
    images = torch.randint(0, 256, MAIN.shape).to(dtype)
    out, gmml = torch.empty_like(images), ga.presets.gmml()
    times = alternate({"copy": lambda: out.copy_(images), "gmml": lambda: gmml(images, out=out)}, rounds=effort.rounds)
    return times["gmml"].minimum / times["copy"].minimum


def _in_passes(effort: Effort) -> float:
    """`from_bytes` to float32, in passes that normalise the same batch into a buffer."""
    images = torch.randint(0, 256, MAIN.shape, dtype=torch.uint8)
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in STATISTICS)
    out, gmml = torch.empty(images.shape), ga.presets.gmml(values=STATISTICS)
    scale, shift = 1 / (255 * std), -mean / std

    def normalise() -> None:
        torch.mul(images, scale, out=out).add_(shift)

    def corrupt() -> None:
        gmml.from_bytes(images, dtype=torch.float32)

    times = alternate({"normalise": normalise, "corrupt": corrupt}, rounds=effort.rounds)
    return times["corrupt"].minimum / times["normalise"].minimum


def two_threads(effort: Effort) -> float:
    """How much faster two threads are than one, `gmml` into a buffer; they need two quiet cores."""
    images = torch.randn(MAIN.shape)
    out, gmml, before = torch.empty_like(images), ga.presets.gmml(), torch.get_num_threads()

    def on(threads: int) -> Call:
        def call() -> None:
            torch.set_num_threads(threads)
            gmml(images, out=out)

        return call

    try:
        times = alternate({"one": on(1), "two": on(2)}, rounds=2 * effort.rounds)
    finally:
        torch.set_num_threads(before)
    return times["one"].minimum / times["two"].minimum


def cost_per_pixel(*, memory: float = 2.0, rounds: int = 7) -> dict[str, dict[str, Any]]:
    """Nanoseconds that `gmml` into a buffer takes for a pixel of all channels, by shape: 32 to 1024 px, 1 to 1024 images.

    Batches of 64 k pixels at least. Every batch is a part of one buffer, so that they can be run in turn, small ones several times
    a round; those that would need more than ``memory`` GB with their output are left out.

    What an image costs depends on the boxes that it draws. So as not to measure luck, every shape has the keys of at least 64
    images, in as many batches as that takes; each batch has its minimum, and the mean of these counts. One image alone takes its
    aliens from a bank. The clock is that of this thread: what other processes take is not counted.
    """
    shapes = [(batch, 3, size, size) for size in SIZES for batch in (1, 4, 16, 64, 256, 1024)]
    shapes = [shape for shape in shapes if math.prod(shape) * 4 * 3 <= memory * 1e9 and math.prod(shape) >= 3 * (64 << 10)]
    buffer = torch.randn(max(map(math.prod, shapes)))
    target = torch.empty_like(buffer)
    gmml = ga.presets.gmml()

    def one(shape: tuple[int, ...], visit: int) -> Call:
        batch, count = shape[0], math.prod(shape)
        images, out = (whole[:count].view(shape) for whole in (buffer, target))
        bank = torch.randn(2, *shape[1:]) if batch == 1 else None
        keys = ga.keys(0, visit, range(batch))
        return lambda: gmml(images, keys=keys, donors=bank, out=out)

    calls = {(shape, visit): one(shape, visit) for shape in shapes for visit in range(-(-64 // shape[0]))}
    often = {about: max(2, (3 << 20) // math.prod(about[0])) for about in calls}
    figures = alternate(calls, rounds=rounds, calls=often, clock=time.thread_time)
    found = {}
    for shape in shapes:
        taken = [figure for about, figure in figures.items() if about[0] == shape]
        least, middle = fmean(figure.minimum for figure in taken), fmean(figure.median for figure in taken)
        found["x".join(map(str, shape))] = {"ns_per_pixel": least * 3e6 / math.prod(shape), "minimum": least, "median": middle}
    return found


def with_pages_kept(rounds: int) -> dict[str, Any]:
    """The ratios again, in a process whose allocator keeps its pages."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ratios.json"
        words = [sys.executable, "-m", "benchmarks.throughput", "--ratios", str(file), "--rounds", str(rounds), "--without-pixels"]
        subprocess.run(words, check=True, env={**os.environ, **KEPT}, stdout=subprocess.DEVNULL)
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def stages(case: Case, device: str = "cpu", effort: Effort | None = None) -> dict[str, float]:
    """Milliseconds of each part of a call of `gmml`, which are stacked: the plan, the copy, then what each step adds to it."""
    gmml = ga.presets.gmml()
    names = [step.partition("(")[0] for step in gmml.sample(case.shape).steps]

    def only(*numbers: int) -> Peer:
        def make(images: Tensor) -> Call:
            plan = gmml.sample(images.shape, device=images.device).only(*numbers)
            return lambda: gmml.apply(images, plan)

        return Peer("+".join(names[number] for number in numbers) or "nothing", "", make, "ours")

    plan = Peer("sample", "", lambda images: lambda: gmml.sample(images.shape, device=images.device), "ours")
    whole = Peer("whole", "", lambda images: lambda: gmml(images), "ours")
    peers = [plan, whole, only(), *(only(number) for number in range(len(names)))]
    least = {row["peer"]: row["device_ms"]["minimum"] for row in measure(case, peers, device=device, effort=effort)}
    nothing = least["nothing"]
    parts = {"plan": least["sample"], "copy": nothing, **{name: max(0.0, least[name] - nothing) for name in names}}
    rest = max(0.0, least["whole"] - sum(parts.values()))  # what they cost only together
    return {**parts, "together": rest, "measured whole": least["whole"]}


def ratio_lines(found: Mapping[str, Any], kept: Mapping[str, Any] | None) -> list[str]:
    """The ratios as a Markdown table."""
    lines = ["| ratio of minima | measured | pages kept | floor | goal |", "| --- | ---: | ---: | ---: | ---: |"]
    for name, one in found["ratios"].items():
        other = kept["ratios"][name]["measured"] if kept else None
        cells = ["-" if value is None else f"{value:.2f}" for value in (one["measured"], other)]
        lines.append(f"| {name} | {' | '.join(cells)} | {one['target']} {one['floor']:g} | {one['goal']:g} |")
    return lines


def main() -> None:
    """Measure, print and write."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--full", action="store_true", help="the whole grid: an hour or more")
    reader.add_argument("--ratios", metavar="FILE", type=Path, help="write the ratios alone, as JSON")
    reader.add_argument("--pages", action="store_true", help="measure nothing: draw the table of README and docs from the JSON")
    reader.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    reader.add_argument("--memory", type=float, default=2.0, help="GB that a case may need")
    reader.add_argument("--without-pixels", action="store_true", help="no cost per pixel in --ratios, which takes longest")
    reader.add_argument("--to", metavar="FOLDER", type=Path, default=RESULTS, help="elsewhere no page is drawn anew")
    reader.add_argument("--rounds", type=int, default=7, help="of the ratios")
    asked = reader.parse_args()
    if asked.pages:
        put_speed(json.loads((RESULTS / "throughput.json").read_text(encoding="utf-8")))
        return
    torch.set_num_threads(1)
    if asked.ratios:
        found = ratios(Effort(rounds=asked.rounds, seconds=4.0), pixels=not asked.without_pixels)
        asked.ratios.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        print("\n".join(ratio_lines(found, None)))
        return

    cuda = asked.device == "cuda"
    parts = apart(stages, MAIN, asked.device, Effort(seconds=1.5))
    more: dict[str, Any] = {"stages_ms": parts}
    text: list[str] = []
    if not cuda:
        own = apart(ratios, Effort(rounds=asked.rounds, seconds=4.0))
        kept = with_pages_kept(asked.rounds) if sys.platform == "linux" else None
        more |= {"ratios": own, "ratios_pages_kept": kept}
        text = [*ratio_lines(own, kept), ""]
        print("\n".join(text))
    peers, absent = present([*PEERS, LONG if cuda else RELEASE])
    quick = QUICK_CUDA if cuda else QUICK
    report = run(
        FULL if asked.full else quick,
        peers,
        absent=absent,
        device=asked.device,
        effort=Effort(seconds=2.0 if asked.full else 0.1 if cuda else 0.25),
        memory=asked.memory,
        tell=lambda line: print(line, file=sys.stderr, flush=True),
    )
    report |= more
    name = "throughput-cuda" if cuda else "throughput"
    written, tables = to_json(report), markdown(report)
    asked.to.mkdir(parents=True, exist_ok=True)
    (asked.to / f"{name}.json").write_text(written, encoding="utf-8")
    (asked.to / f"{name}.md").write_text("\n".join([*text, tables]), encoding="utf-8")
    print(tables)
    if asked.to != RESULTS:
        return
    if not cuda:
        put_speed(json.loads(written))  # rounded as in the file

    from benchmarks.figures import draw

    for file in draw(report, FIGURES, suffix="-cuda" if cuda else ""):
        print(f"drawn: {file}")


if __name__ == "__main__":
    main()
