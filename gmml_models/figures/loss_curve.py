"""The losses of a run over its epochs, as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from gmml_models.figures.canvas import Canvas, length
from gmml_models.figures.palette import BLUE, GREEN, INK, LINE, ORANGE, PALE, PURPLE, VERMILION

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 300, 56, 16, 44, 36
_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, VERMILION)
_MARKS = 5


def loss_curve(rows: Sequence[Mapping[str, Any]], names: Sequence[str], *, title: str) -> Image.Image:
    """One line a loss, over the epochs.

    Args:
        rows: of ``epochs.jsonl``: "epoch" and the losses; what is not a finite number is left out.
        names: of the losses, at most five.
        title: what is written above.

    Raises:
        ValueError: no finite number under any of the names.
    """
    lines = {
        name: [(float(row["epoch"]), float(row[name])) for row in rows if _finite(row.get("epoch")) and _finite(row.get(name))]
        for name in names[: len(_COLOURS)]
    }
    points = [point for line in lines.values() for point in line]
    if not points:
        raise ValueError(f"loss_curve: no finite number under {', '.join(names)} in {len(rows)} rows. Give the rows of a run.")
    step = _step(max(y for _, y in points) - min(y for _, y in points))
    low = math.floor(min(y for _, y in points) / step) * step
    high = max(math.ceil(max(y for _, y in points) / step) * step, low + step)
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    canvas = Canvas(_WIDTH, _HEIGHT)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / (last - first) if last > first else 0.5
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _TOP + (high - y) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    canvas.write(_LEFT, 22, title, 13)
    for number in range(round((high - low) / step) + 1):
        value = low + number * step
        _, y = place(first, value)
        canvas.line([(_LEFT, y), (_WIDTH - _RIGHT, y)], LINE)
        said = f"{value:.{max(0, -math.floor(math.log10(step)))}f}"
        canvas.write(_LEFT - 8 - math.ceil(length(said, 10)), round(y) + 4, said, 10, PALE)
    for epoch in sorted({first, last}):
        x, _ = place(epoch, low)
        said = f"epoch {epoch:g}"
        canvas.write(round(min(x, _WIDTH - _RIGHT - length(said, 10))), _HEIGHT - 14, said, 10, PALE)
    at = _LEFT
    for (name, line), colour in zip(lines.items(), _COLOURS, strict=False):
        if not line:
            continue
        canvas.line([place(*point) for point in line], colour, width=2)
        canvas.write(at, 38, name, 11, colour)
        at += math.ceil(length(name, 11)) + 16
    canvas.rectangle(_LEFT, _TOP, 1, _HEIGHT - _TOP - _BOTTOM, INK)
    return canvas.draw(2)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _step(span: float) -> float:
    """A round number that a span holds a few times."""
    if span <= 0:
        return 1.0
    rough = span / _MARKS
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough)
