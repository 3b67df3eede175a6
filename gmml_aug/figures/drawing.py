"""How a figure is drawn: tiles in rows, captions and a legend, at places counted in points."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

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
_MARGIN, _LABELS, _EDGE, _GAP, _BETWEEN, _CAPTION, _LINE = 16.0, 66.0, 108.0, 6.0, 18.0, 14.0, 14.0
_NAME, _SMALL = 9.5, 7.5  # sizes of type
_WIDEST = 3.0  # a picture that is longer than this is squeezed
_DPI = 160


def figure_class() -> Any:
    """A figure that needs no window, and that notebooks show without pyplot."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("show: drawing needs matplotlib, which is not installed. Run pip install 'gmml[demo]'.") from error

    class Shown(Figure):
        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            self.savefig(file, format="png")
            return file.getvalue()

    return Shown


@dataclass(frozen=True)
class Entry:
    """One step in the legend."""

    name: str
    colour: str
    share: float

    @property
    def words(self) -> str:
        """Name and share."""
        return f"{self.name}  {_percent(self.share)}"


@dataclass(frozen=True)
class Drawing:
    """All that is drawn: pixels (N, C, H, W) in 0 to 1, or signals (N, C, L) as they are; marks are 0 where nothing happened."""

    clean: Tensor
    images: Tensor
    marks: Tensor  # (N, 1, *S) number of the colour, from 1
    draw: Callable[[Axes, Drawing, RowName, int], None]  # one tile
    colours: Sequence[str]

    @property
    def tile(self) -> tuple[float, float]:
        """Width and height in points; the area is the same for pictures of any shape."""
        if self.clean.ndim == 3:
            return 2.0 * _EDGE, 0.5 * _EDGE
        height, width = self.clean.shape[2:]
        stretch = math.sqrt(min(max(width / height, 1.0 / _WIDEST), _WIDEST))
        return _EDGE * stretch, _EDGE / stretch


def lay_out(figures: Any, drawing: Drawing, columns: int, rows: list[RowName], legend: Sequence[Entry]) -> Figure:
    """The figure: ``rows`` of tiles, as many blocks of them as the ``columns`` make necessary, and the legend."""
    count = len(drawing.clean)
    width, height = drawing.tile
    blocks = math.ceil(count / columns)
    block = len(rows) * (height + _GAP) - _GAP + ("mask" in rows) * _CAPTION
    content = columns * (width + _GAP) - _GAP
    lines = _flow(legend, content)
    whole = (
        2 * _MARGIN + _LABELS + content,
        2 * _MARGIN + blocks * (block + _BETWEEN) - _BETWEEN + (10 + len(lines) * _LINE) * bool(lines),
    )
    figure: Figure = figures(figsize=(whole[0] / 72, whole[1] / 72), dpi=_DPI, facecolor=_PAPER)

    def write(x: float, y: float, words: str, size: float = _SMALL, colour: str = _PALE, **more: Any) -> None:
        figure.text(x / whole[0], 1 - y / whole[1], words, fontsize=size, color=colour, **more)

    y = _MARGIN
    touched = (drawing.marks > 0).flatten(1).float().mean(1).tolist()
    for first in range(0, count, columns):
        for row in rows:
            write(_MARGIN, y + _NAME, row, _NAME, _INK)
            if row == "mask" and first == 0:
                write(_MARGIN, y + 2.4 * _NAME, f"mean {_percent(sum(touched) / count)}")
            for column, number in enumerate(range(first, min(first + columns, count))):
                x = _MARGIN + _LABELS + column * (width + _GAP)
                axes = figure.add_axes((x / whole[0], 1 - (y + height) / whole[1], width / whole[0], height / whole[1]))
                axes.set_axis_off()
                drawing.draw(axes, drawing, row, number)
                if row == "mask":
                    write(x, y + height + 10, _percent(touched[number]))
            y += height + _GAP + (row == "mask") * _CAPTION
        y += _BETWEEN - _GAP
    y = whole[1] - _MARGIN - (len(lines) - 1) * _LINE
    for line in lines:
        for x, entry in line:
            write(_MARGIN + _LABELS + x, y, "\u25a0", _NAME, entry.colour)
            write(_MARGIN + _LABELS + x + 11, y, entry.words, _SMALL, _INK)
        y += _LINE
    return figure


def picture_tile(axes: Axes, drawing: Drawing, row: RowName, number: int) -> None:
    """One image; the mask lies over a pale copy of the clean one."""
    if row != "mask":
        picture = (drawing.clean if row == "clean" else drawing.images)[number].expand(3, -1, -1)
    else:
        weights = drawing.clean.new_tensor(luma_weights(drawing.clean.shape[1])).reshape(-1, 1, 1)
        ground = (drawing.clean[number] * weights).sum(0)
        ground = (ground - ground.min()) / (ground.max() - ground.min()).clamp(min=1e-6)
        picture = _coloured(0.80 + 0.17 * ground.expand(3, -1, -1), drawing, number)
    # averaged where pixels are many, plain squares where they are few
    axes.imshow(picture.permute(1, 2, 0).numpy(), aspect="auto", interpolation="antialiased", interpolation_stage="data")


def signal_tile(axes: Axes, drawing: Drawing, row: RowName, number: int) -> None:
    """One signal; all are drawn to the same scale."""
    length = drawing.clean.shape[-1]
    drawn = [drawing.clean, drawing.images]
    low, high = min(float(part.min()) for part in drawn), max(float(part.max()) for part in drawn)
    room = max(high - low, 1e-6) * 0.06
    marks = drawing.clean.new_full((3, 1, length), _GROUND)
    if row != "clean":  # only a tint behind the corrupted line, which is what should be seen
        marks = _coloured(marks, drawing, number, strength=0.25 if row == "corrupted" else 1.0)
    extent = (-0.5, length - 0.5, low - room, high + room)
    axes.imshow(marks.permute(1, 2, 0).numpy(), aspect="auto", interpolation="nearest", extent=extent)
    signal = drawing.images if row == "corrupted" else drawing.clean
    axes.plot(signal[number].T.numpy(), color=_INK, linewidth=0.7, alpha=0.35 if row == "mask" else 1.0)
    axes.set_xlim(extent[:2])
    axes.set_ylim(extent[2:])


def _coloured(ground: Tensor, drawing: Drawing, number: int, strength: float = 1.0) -> Tensor:
    """A ground (3, H, W) with the colour of each mark on it."""
    marks = drawing.marks[number, 0].reshape(ground.shape[1:])
    for kind, colour in enumerate(drawing.colours, start=1):
        paint = strength * ground.new_tensor(_rgb(colour))[:, None, None] + (1.0 - strength) * ground
        ground = torch.where(marks == kind, paint, ground)
    return ground


def legend_of(marks: Tensor, names: Sequence[str] | None, *, one: bool) -> list[Entry]:
    """Name, colour and share of every step; ``one``: marks are those of a mask."""
    steps = 1 if one else max(int(marks.max()), len(names or ()), 1)
    called = [*(names or ()), *(f"step {number}" for number in range(len(names or ()) + 1, steps + 1))]
    used = {_USUAL[name] for name in called if name in _USUAL}
    left = [colour for colour in (*_COLOURS[4:], *_COLOURS[:4]) if colour not in used] if names else _COLOURS
    times, seen, entries, others = Counter(called), Counter[str](), list[Entry](), 0
    for number, name in enumerate(called, start=1):
        seen[name] += 1
        if name in _USUAL and seen[name] == 1:
            colour = _USUAL[name]
        else:
            colour, others = left[others % len(left)], others + 1
        share = float((marks == number).float().mean())
        entries.append(Entry(f"{name} {seen[name]}" if times[name] > 1 else name, _ALONE if one else colour, share))
    return entries


def _flow(legend: Sequence[Entry], width: float) -> list[list[tuple[float, Entry]]]:
    """The entries in as many lines as they need, each with its place in the line."""
    lines: list[list[tuple[float, Entry]]] = []
    x = math.inf
    for entry in legend:
        wide = 11 + 0.6 * _SMALL * len(entry.words)
        if x + wide > width:
            lines.append([])
            x = 0.0
        lines[-1].append((x, entry))
        x += wide + 16
    return lines


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))


def _percent(share: float) -> str:
    return f"{100.0 * share:.0f} %"
