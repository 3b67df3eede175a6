"""Figure 2 of GMML at our size: what a longer pretraining gains, as ``python -m benchmarks.claims --curve`` draws it.

Each point is a run of its own, with the schedule of its length: rows of ``--recipe small`` that differ in their epochs alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from benchmarks.claims.rows import BY_NAME, MEASURES
from benchmarks.claims.run import Results
from benchmarks.claims.table import values
from gmml_models.figures.palette import BLACK, BLUE, LINE, PALE, VERMILION
from gmml_models.train.config import epochs_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = Path(__file__).parents[2] / "docs" / "pictures" / "longer.png"
PHOTOGRAPHS = 7_450
RUNS: Mapping[str, tuple[str, ...]] = {
    "Flowers-102": ("corruptions/alien-flowers", "worth/flowers", "weights/photos-flowers"),
    "Caltech-101": ("corruptions/alien", "worth/caltech", "weights/photos"),
}
"""From the shortest to the longest."""
SCRATCH: Mapping[str, str] = {"Flowers-102": "worth/flowers-scratch", "Caltech-101": "worth/caltech-scratch"}
"""Fine-tuned for as many views as ``worth`` in all; its features are those of an untrained encoder."""


def points(results: Results, measure: str) -> dict[str, list[tuple[int, list[float]]]]:
    """By data set, views of the pretraining and one number a seed, as far as they were run; 0 views are training from scratch."""
    found: dict[str, list[tuple[int, list[float]]]] = {}
    for data, names in RUNS.items():
        rows = [(0, BY_NAME[SCRATCH[data]])]
        for row in map(BY_NAME.__getitem__, names):
            assert row.pretrain is not None
            rows.append((epochs_of(row.pretrain) * PHOTOGRAPHS, row))
        every = [(views, values(row, results, measure)) for views, row in rows]
        found[data] = [(views, some) for views, some in every if some]
    return found


def draw(results: Results) -> Figure:
    """Fine-tuning on the left, the linear probe on the right, over the views of the pretraining."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": PALE, "font.size": 9}):
        figure = Figure(figsize=(8.4, 3.4), layout="constrained")
        for axes, measure in zip(figure.subplots(1, 2), ("top1", "linear"), strict=True):
            seeds: dict[float, set[int]] = {}
            for (data, some), colour in zip(points(results, measure).items(), (VERMILION, BLUE), strict=True):
                if not some:
                    continue
                x, y = [views / 1000 for views, _ in some], [fmean(numbers) for _, numbers in some]
                spread = [stdev(numbers) if len(numbers) > 1 else 0.0 for _, numbers in some]
                axes.errorbar(x, y, yerr=spread, color=colour, marker="o", ms=5, lw=1.8, capsize=3)
                axes.annotate(data, (x[-1], y[-1]), xytext=(0, 7), textcoords="offset points", ha="right", color=colour)
                for views, numbers in some:
                    seeds.setdefault(views / 1000, set()).add(len(numbers))
            for x_of, number in seeds.items():
                words, offset = " or ".join(map(str, sorted(number))), {"xytext": (0, 3), "textcoords": "offset points"}
                axes.annotate(words, (x_of, 0), ha="center", fontsize=8, color=BLACK, **offset)
            axes.set(xlabel="images seen in pretraining, thousands\n(above the axis: number of seeds)", ylim=(0, None))
            axes.set(ylabel=f"{MEASURES[measure]}, top-1, percent")
            axes.grid(color=LINE, lw=0.6)
    return figure


def save(results: Results, file: Path = PAGE) -> None:
    """Write the picture."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draw(results).savefig(file, dpi=120)
