"""The figures of docs/performance: ``python -m benchmarks.figures`` draws them anew from benchmarks/results/throughput.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gmml_models.bench.timing import CLONE, COPY

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
_SHOWN = (  # few enough to be told apart, in the order of the legend
    COPY,
    CLONE,
    "gmml",
    "gmml_reference",
    "timm RandomErasing",
    "torchvision RandomErasing",
    "kornia RandomErasing",
    "kornia erasing + blur + grey",
    "albumentations CoarseDropout",
    "the release's rule, loop",
)
_OURS, _LIMIT, _PEER = "#c44e52", "#888888", "#4c72b0"

Row = Mapping[str, Any]


def draw(report: Mapping[str, Any], folder: Path, *, suffix: str = "") -> list[Path]:
    """Write all figures of a report; the files."""
    from matplotlib import rc_context

    folder.mkdir(parents=True, exist_ok=True)
    rows = [row for row in report["rows"] if "device_ms" in row]
    machine = report["machine"]
    note = f"{machine['cpu'] if machine['device'] == 'cpu' else machine['device']}, threads: {machine['threads']}"
    files = []
    with rc_context({"axes.spines.top": False, "axes.spines.right": False}):
        figures = {
            "by_batch": _series(_images(rows, size=224), "images in a batch of 3 x 224 x 224, float32", 0, note),
            "by_size": _series(_by_size(rows), "side of an image in pixels, float32", 3, note),
            "copies": _copies(rows, report["rows"][0]["case"], note),
        }
        if "stages_ms" in report:
            figures["stages"] = _stages(report["stages_ms"], note)
        for name, figure in figures.items():
            file = folder / f"{name}{suffix}.png"
            figure.savefig(file, dpi=110, bbox_inches="tight")
            files.append(file)
    return files


def _images(rows: Sequence[Row], *, size: int) -> list[Row]:
    return [row for row in rows if row["dtype"] == "float32" and row["shape"][1:] == [3, size, size]]


def _by_size(rows: Sequence[Row]) -> list[Row]:
    """Of every size the batch nearest to 64 x 224 x 224 pixels."""
    found: list[Row] = []
    square = [row for row in rows if row["dtype"] == "float32" and len(row["shape"]) == 4 and row["shape"][1] == 3]
    for side in sorted({row["shape"][3] for row in square}):
        own = [row for row in square if row["shape"][3] == side]
        wanted = 64 * 224 * 224 / side**2
        batch = min({row["shape"][0] for row in own}, key=lambda batch: abs(batch - wanted))
        found += [row for row in own if row["shape"][0] == batch]
    return found


def _series(rows: Sequence[Row], label: str, axis: int, note: str) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.6))
    axes = figure.subplots()
    for number, name in enumerate(_SHOWN):
        own = sorted((row for row in rows if row["peer"] == name), key=lambda row: row["shape"][axis])
        if own:
            x = [row["shape"][axis] for row in own]
            y = [row["images_per_second"] for row in own] if axis == 0 else [_megapixels(row) for row in own]
            ours = name.startswith("gmml")
            style = "--" if name in (COPY, CLONE) else "-"
            colour = {COPY: _LIMIT, CLONE: _LIMIT, "gmml": _OURS, "gmml_reference": "#e8a0a2"}.get(name)
            marker = "os^vD<>phX"[number]
            axes.plot(x, y, style, color=colour, marker=marker, lw=2.4 if ours else 1.2, ms=5, label=name)
    axes.set(xscale="log", yscale="log", xlabel=label, ylabel="images per second" if axis == 0 else "million pixels per second")
    ticks = sorted({row["shape"][axis] for row in rows})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, bbox_to_anchor=(1.01, 1.0), loc="upper left", frameon=False)
    _sign(axes, note)
    return figure


def _megapixels(row: Row) -> float:
    height, width = row["shape"][2:]
    return float(row["images_per_second"] * height * width / 1e6)


def _copies(rows: Sequence[Row], case: str, note: str) -> Figure:
    from matplotlib.figure import Figure

    own = sorted((row for row in rows if row["case"] == case), key=lambda row: row["times_copy"] or 0.0)
    figure = Figure(figsize=(8.0, 0.28 * len(own) + 1.0))
    axes = figure.subplots()
    colours = {"ours": _OURS, "yours": _OURS, "limit": _LIMIT, "peer": _PEER}
    values = [row["times_copy"] or 0.0 for row in own]
    bars = axes.barh([row["peer"] for row in own], values, color=[colours[row["group"]] for row in own])
    axes.bar_label(bars, [f"{value:.3g}" for value in values], padding=3, fontsize=8)
    axes.set(xscale="log", xlabel=f"multiples of the copy into warm memory, {case}; they do not do the same work")
    axes.tick_params(axis="y", labelsize=8)
    _sign(axes, note)
    return figure


def _stages(found: Mapping[str, float], note: str) -> Figure:
    from matplotlib.figure import Figure

    parts = {name: value for name, value in found.items() if name != "measured whole"}
    figure = Figure(figsize=(8.0, 1.9))
    axes = figure.subplots()
    left = 0.0
    for name, value in parts.items():
        axes.barh(["sum of the parts"], [value], left=left, label=f"{name}, {value:.1f} ms")
        left += value
    axes.barh(["a whole call"], [found["measured whole"]], color=_LIMIT)
    axes.set(xlabel="milliseconds, gmml, 64 x 3 x 224 x 224 float32")
    axes.legend(fontsize=8, ncols=2, bbox_to_anchor=(1.01, 1.0), loc="upper left", frameon=False)
    _sign(axes, note)
    return figure


def _sign(axes: Axes, note: str) -> None:
    axes.annotate(note, (1.0, 1.01), xycoords="axes fraction", ha="right", va="bottom", fontsize=7, color="#666666")


def main() -> None:
    """Draw what was measured last."""
    for file in sorted((ROOT / "benchmarks" / "results").glob("throughput*.json")):
        report = json.loads(file.read_text(encoding="utf-8"))
        for drawn in draw(report, ROOT / "docs" / "performance", suffix=file.stem.removeprefix("throughput")):
            print(drawn.relative_to(ROOT))


if __name__ == "__main__":
    main()
