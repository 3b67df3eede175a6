"""Draws a figure: tiles in rows, captions and a legend, at positions in points."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, cycle
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor

from gmml_aug.functional import luma_weights

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RowName = Literal["clean", "corrupted", "mask"]

# Okabe and Ito's colours, which colour-blind people tell apart too
_COLOURS = ("#E69F00", "#0072B2", "#CC79A7", "#009E73", "#56B4E9", "#D55E00", "#F0E442", "#000000")
_USUAL = {"Noise": _COLOURS[0], "Alien": _COLOURS[1], "Grey": _COLOURS[2], "Blur": _COLOURS[3]}
_PAPER, _INK, _PALE, _ALONE = "#FBFBF9", "#222222", "#85837C", "#454541"
_GROUND = 0.955  # behind signals
# in points
_MARGIN, _LABELS, _EDGE, _GAP, _CAPTION, _BETWEEN, _LINE = 16.0, 66.0, 108.0, 6.0, 14.0, 12.0, 14.0
_NAME, _SMALL = 9.5, 7.5  # sizes of type
_WIDEST = 3.0  # a picture that is longer than this is squeezed
_DPI = 160


def figure_class() -> Any:
    """A figure that needs no window and that notebooks show without pyplot."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "show: drawing needs matplotlib, which is not installed. Run pip install matplotlib; in a clone pip install '.[demo]'."
        ) from error

    class Shown(Figure):
        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            self.savefig(file, format="png")
            return file.getvalue()

    return Shown


class Entry(NamedTuple):
    """One step in the legend."""

    name: str
    colour: str
    share: float


class Drawing(NamedTuple):
    """Everything that is drawn: pixels (N, C, H, W) between 0 and 1, or signals (N, C, L) unchanged.

    Marks are 0 where nothing happened.
    """

    clean: Tensor
    images: Tensor
    marks: Tensor  # (N, 1, *S) number of the colour, from 1
    colours: Sequence[str]


def lay_out(figures: Any, drawing: Drawing, columns: int, rows: Sequence[RowName], legend: Sequence[Entry]) -> Figure:
    """The figure: ``rows`` of tiles, in several blocks if ``columns`` is too small for all images, and the legend."""
    count, signals = len(drawing.clean), drawing.clean.ndim == 3
    # the area of a tile is the same for pictures of any shape
    stretch = 4.0 if signals else min(max(drawing.clean.shape[3] / drawing.clean.shape[2], 1.0 / _WIDEST), _WIDEST)
    width, height = _EDGE * math.sqrt(stretch), _EDGE / math.sqrt(stretch)
    words = [f"{entry.name}  {_percent(entry.share)}" for entry in legend]
    content = columns * (width + _GAP) - _GAP
    wide = 27 + 0.6 * _SMALL * max(map(len, words), default=0)  # an entry of the legend
    aside = max(int((content + 16) / wide), 1)
    tops = list(accumulate((height + _GAP + (row == "mask") * _CAPTION for row in rows), initial=_MARGIN))
    block = tops[-1] - _MARGIN + _BETWEEN
    across, down = 2 * _MARGIN + _LABELS + content, _MARGIN + -(-count // columns) * block + -(-len(words) // aside) * _LINE
    figure: Figure = figures(figsize=(across / 72, down / 72), dpi=_DPI, facecolor=_PAPER)

    def write(x: float, y: float, words: str, size: float = _SMALL, colour: str = _PALE) -> None:
        figure.text(x / across, 1 - y / down, words, fontsize=size, color=colour)

    touched = (drawing.marks > 0).flatten(1).float().mean(1).tolist()
    for first in range(0, count, columns):
        for row, place in zip(rows, tops, strict=False):
            top = place + first // columns * block
            write(_MARGIN, top + _NAME, row, _NAME, _INK)
            if row == "mask" and first == 0:
                write(_MARGIN, top + 2.4 * _NAME, f"mean {_percent(sum(touched) / count)}")
            for number in range(first, min(first + columns, count)):
                left = _MARGIN + _LABELS + (number - first) * (width + _GAP)
                axes = figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))
                axes.set_axis_off()
                (_draw_signal if signals else _draw_picture)(axes, drawing, row, number)
                if row == "mask":
                    write(left, top + height + 10, _percent(touched[number]))
    for number, entry in enumerate(legend):
        x, y = _MARGIN + _LABELS + number % aside * wide, down - _MARGIN - (len(legend) - 1 - number) // aside * _LINE
        write(x, y, "\u25a0", _NAME, entry.colour)
        write(x + 11, y, words[number], colour=_INK)
    return figure


def _draw_picture(axes: Axes, drawing: Drawing, row: RowName, number: int) -> None:
    """Draw one image; the mask is drawn over a pale copy of the clean one."""
    if row != "mask":
        picture = (drawing.clean if row == "clean" else drawing.images)[number].expand(3, -1, -1)
    else:
        weights = drawing.clean.new_tensor(luma_weights(drawing.clean.shape[1])).reshape(-1, 1, 1)
        ground = (drawing.clean[number] * weights).sum(0)
        ground = (ground - ground.min()) / (ground.max() - ground.min()).clamp(min=1e-6)
        picture = _coloured(0.80 + 0.17 * ground.expand(3, -1, -1), drawing, number)
    # averaged where pixels are many, plain squares where they are few
    axes.imshow(picture.permute(1, 2, 0).numpy(), aspect="auto", interpolation="antialiased", interpolation_stage="data")


def _draw_signal(axes: Axes, drawing: Drawing, row: RowName, number: int) -> None:
    """Draw one signal; all signals are drawn to the same scale."""
    both = torch.cat([drawing.clean, drawing.images])
    room = max(float(both.max() - both.min()), 1e-6) * 0.06
    extent = (-0.5, drawing.clean.shape[-1] - 0.5, float(both.min()) - room, float(both.max()) + room)
    marks = drawing.clean.new_full((3, 1, drawing.clean.shape[-1]), _GROUND)
    if row != "clean":  # only a tint behind the corrupted line, which is what should be seen
        marks = _coloured(marks, drawing, number, strength=0.25 if row == "corrupted" else 1.0)
    axes.imshow(marks.permute(1, 2, 0).numpy(), aspect="auto", interpolation="nearest", extent=extent)
    signal = drawing.images if row == "corrupted" else drawing.clean
    axes.plot(signal[number].T.numpy(), color=_INK, linewidth=0.7, alpha=0.35 if row == "mask" else 1.0)
    axes.set(xlim=extent[:2], ylim=extent[2:])


def _coloured(ground: Tensor, drawing: Drawing, number: int, strength: float = 1.0) -> Tensor:
    """A background (3, H, W) with the colour of each mark painted over it."""
    from matplotlib.colors import to_rgb

    marks = drawing.marks[number, 0].reshape(ground.shape[1:])
    for kind, colour in enumerate(drawing.colours, start=1):
        paint = strength * ground.new_tensor(to_rgb(colour))[:, None, None] + (1.0 - strength) * ground
        ground = torch.where(marks == kind, paint, ground)
    return ground


def legend_of(marks: Tensor, names: Sequence[str] | None, *, one: bool) -> list[Entry]:
    """The name, colour and share of every step; with ``one``, the marks are a single mask."""
    steps = 1 if one else max(int(marks.max()), len(names or ()), 1)
    called = [*(names or ()), *(f"step {number}" for number in range(len(names or ()) + 1, steps + 1))]
    usual = {name: colour for name, colour in _USUAL.items() if name in called}
    others = cycle(one for one in (*_COLOURS[4:], *_COLOURS[:4]) if one not in usual.values()) if names else cycle(_COLOURS)
    seen, entries = Counter[str](), list[Entry]()
    for number, name in enumerate(called, start=1):
        seen[name] += 1
        colour = _ALONE if one else usual.pop(name, "") or next(others)
        share = float((marks == number).float().mean())
        entries.append(Entry(f"{name} {seen[name]}" if called.count(name) > 1 else name, colour, share))
    return entries


def _percent(share: float) -> str:
    return f"{100.0 * share:.0f} %"
