"""The foundation's figures: the presets against a copy of the batch and against the release's rule as a plain loop.

Run with ``python -m benchmarks.foundation``; writes ``benchmarks/results/foundation.json`` and prints a table.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable
from pathlib import Path

import torch

import gmml_aug as ga
from benchmarks.release_rule import corrupt_in_a_loop
from benchmarks.timing import about_this_machine, alternate

RESULTS = Path(__file__).parent / "results" / "foundation.json"
SHAPE = (64, 3, 224, 224)


def main() -> None:
    """Measure, print and write."""
    torch.set_num_threads(1)
    images = torch.randn(SHAPE)
    small = torch.randn(2, 3, 32, 32)
    buffer = torch.empty_like(images)
    rng = random.Random(0)
    gmml, reference = ga.presets.gmml(), ga.presets.gmml_reference()
    plan = gmml.sample(images.shape)
    stages = ("noise", "alien", "grey", "blur")

    def one_step(number: int) -> Callable[[], object]:
        return lambda: gmml.apply(images, plan.only(number), out=buffer)

    figures = alternate(
        {
            "clone()": images.clone,
            "copy into warm memory": lambda: buffer.copy_(images),
            "gmml": lambda: gmml(images),
            "gmml, out=buffer": lambda: gmml(images, out=buffer),
            "gmml, sample alone": lambda: gmml.sample(images.shape),
            **{f"gmml, {stage} alone": one_step(number) for number, stage in enumerate(stages)},
            "gmml_reference": lambda: reference(images),
            "the release's rule, loop over images and boxes": lambda: corrupt_in_a_loop(images, rng),
            "gmml, 2 x 3 x 32 x 32": lambda: gmml(small),
        }
    )
    clone = figures["clone()"].minimum
    ratios = {
        "gmml / clone()": (figures["gmml"].minimum / clone, "at most 4"),
        "loop / gmml_reference": (
            figures["the release's rule, loop over images and boxes"].minimum / figures["gmml_reference"].minimum,
            "at least 2.5",
        ),
    }

    print(f"{'64 x 3 x 224 x 224 float32, one thread':48s} {'min ms':>8s} {'median':>8s} {'spread':>8s} {'x clone':>8s}")
    for name, figure in figures.items():
        print(f"{name:48s} {figure.minimum:8.2f} {figure.median:8.2f} {figure.quartiles:8.2f} {figure.minimum / clone:8.2f}")
    for name, (ratio, floor) in ratios.items():
        print(f"{name}: {ratio:.2f} (floor: {floor})")

    report = {
        "machine": about_this_machine(),
        "shape": SHAPE,
        "milliseconds": {name: dataclasses.asdict(figure) for name, figure in figures.items()},
        "ratios of minima": {name: {"measured": round(ratio, 2), "floor": floor} for name, (ratio, floor) in ratios.items()},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"written to {RESULTS.relative_to(RESULTS.parents[2])}")


if __name__ == "__main__":
    main()
