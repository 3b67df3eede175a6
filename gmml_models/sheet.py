"""The contact sheet: a column for every image, a row for every stage, drawn with Pillow alone."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

_PAPER, _INK, _PALE, _LINE = "#FBFBF9", "#222222", "#85837C", "#DFDDD6"
_TITLE, _LABEL, _TEXT, _SMALL = 38, 20, 15, 14  # sizes of type
_FINER = 4  # text is drawn this much larger and reduced: letters placed at whole pixels stand unevenly
_MARGIN, _LABELS, _GAP = 64, 132, 14
_SPACE, _CAPTION, _SECTION = 16, 22, 28  # under a picture, for a caption there, and above a section
_SWATCH = 11
_LEAST = 560  # width of the content: narrower text is no pleasure to read
_SMALL_EDGE, _LARGE_EDGE = 160, 320


@dataclass(frozen=True)
class Tile:
    """A picture and what stands under it."""

    picture: Image.Image
    caption: str


@dataclass(frozen=True)
class Row:
    """One stage."""

    name: str
    note: str
    tiles: Sequence[Tile]
    colour: str | None = None  # of the swatch beside the name
    section: bool = False  # begins a new section, under a hairline

    @property
    def captioned(self) -> bool:
        """True if anything stands under the pictures."""
        return any(tile.caption for tile in self.tiles)


@dataclass(frozen=True)
class Swatch:
    """One entry of the legend."""

    colour: str
    words: str


@dataclass(frozen=True)
class Sheet:
    """All that is drawn; pictures are squares of one size."""

    title: str
    about: str
    columns: Sequence[str]
    rows: Sequence[Row]
    legend: Sequence[Swatch]
    code: str

    def draw(self) -> Image.Image:
        """The sheet as an RGB image."""
        edge = self.rows[0].tiles[0].picture.width
        content = max(_LABELS + len(self.columns) * (edge + _GAP) - _GAP, _LEAST)
        about = _lines(self.about, _TEXT, content)
        code = _lines(self.code, _SMALL, content)
        legend = _flow(self.legend, content - _LABELS)
        head = _MARGIN + _TITLE + 16 + len(about) * 22 + 48
        body = sum(edge + _SPACE + row.captioned * _CAPTION + row.section * _SECTION for row in self.rows)
        foot = len(legend) * 24 + 48 + len(code) * 21 + _MARGIN
        image = Image.new("RGB", (content + 2 * _MARGIN, head + body + foot), _PAPER)
        pen = ImageDraw.Draw(image)

        y = _MARGIN + _TITLE
        _write(image, _MARGIN - 2, y, self.title, _TITLE)
        y += 16
        for line in about:
            y += 22
            _write(image, _MARGIN, y - 6, line, _TEXT, _PALE)
        y += 48
        left = [_MARGIN + _LABELS + column * (edge + _GAP) for column in range(len(self.columns))]
        for x, name in zip(left, self.columns, strict=True):
            _write(image, x, y - 10, _cut(name, _SMALL, edge), _SMALL, _PALE)
        for row in self.rows:
            if row.section:
                _line(pen, y + 4, content)
                y += _SECTION
            _label(image, row, y)
            for x, tile in zip(left, row.tiles, strict=True):
                image.paste(tile.picture, (x, y))
                _write(image, x, y + edge + 19, _cut(tile.caption, _SMALL, edge), _SMALL, _PALE)
            y += edge + _SPACE + row.captioned * _CAPTION
        for entries in legend:
            for x, entry in entries:
                _swatch(pen, _MARGIN + _LABELS + x, y + 12, entry.colour)
                _write(image, _MARGIN + _LABELS + x + _SWATCH + 8, y + 12, entry.words, _SMALL)
            y += 24
        y += 32
        _line(pen, y, content)
        y += 16
        for line in code:
            y += 21
            _write(image, _MARGIN, y - 5, line, _SMALL, _PALE)
        return image


def save(image: Image.Image, path: Path) -> None:
    """Write a PNG aside first and then rename it, so that no half of it is ever seen.

    Raises:
        OSError: the folder is not there, full, or cannot be written to; nothing is left behind.
    """
    whole = Path(os.path.realpath(path))  # a link stays a link
    aside = whole.with_name(f"{whole.name}.{os.getpid()}.part")
    try:
        with aside.open("wb") as file:
            image.save(file, format="PNG")
        aside.replace(whole)
    finally:
        aside.unlink(missing_ok=True)


def edge_of(size: int) -> int:
    """The edge at which squares of this size are shown: as they are, small ones by whole multiples, large ones smaller."""
    return min(size * -(-_SMALL_EDGE // size), _LARGE_EDGE)


def flat(picture: Image.Image, edge: int) -> Image.Image:
    """A picture at the edge of the sheet; small ones keep their pixels."""
    if picture.width == edge:
        return picture
    return picture.resize((edge, edge), Image.Resampling.NEAREST if picture.width < edge else Image.Resampling.LANCZOS)


def faint(picture: Image.Image) -> Image.Image:
    """A picture as a pale grey ground for colours."""
    grey = ImageOps.autocontrast(picture.convert("L"), cutoff=1).point([205 + round(value * 45 / 255) for value in range(256)])
    return grey.convert("RGB")


def outlined(picture: Image.Image, mask: Image.Image, colour: str, width: int = 2) -> Image.Image:
    """A picture with a line along the inside of a mask's border."""
    around = ImageOps.expand(mask, width, 0)  # so that the picture's own border counts as one
    inner = around.filter(ImageFilter.MinFilter(2 * width + 1)).crop((width, width, width + mask.width, width + mask.height))
    ring = Image.composite(Image.new("L", mask.size, 0), mask, inner)
    drawn = picture.copy()
    drawn.paste(colour, mask=ring)
    return drawn


def _label(image: Image.Image, row: Row, y: int) -> None:
    _write(image, _MARGIN, y + 16, row.name, _LABEL)
    _write(image, _MARGIN, y + 40, row.note, _TEXT, _PALE)
    if row.colour is not None:
        _swatch(ImageDraw.Draw(image), _MARGIN + _length(row.name, _LABEL) + 9, y + 15, row.colour)


def _swatch(pen: ImageDraw.ImageDraw, x: float, baseline: float, colour: str) -> None:
    pen.rectangle((round(x), baseline - _SWATCH + 1, round(x) + _SWATCH - 1, baseline), colour)


def _line(pen: ImageDraw.ImageDraw, y: int, content: int) -> None:
    pen.line((_MARGIN, y, _MARGIN + content - 1, y), _LINE)


def _write(image: Image.Image, x: int, baseline: int, text: str, size: int, colour: str = _INK) -> None:
    width, height = math.ceil(_length(text, size)) + 4, 2 * size
    letters = Image.new("L", (width * _FINER, height * _FINER))
    ImageDraw.Draw(letters).text((0, size * _FINER * 3 // 2), text, 255, _font(size * _FINER), anchor="ls")
    image.paste(colour, (x, baseline - size * 3 // 2), letters.resize((width, height), Image.Resampling.BOX))


def _length(text: str, size: int) -> float:
    return _font(size * _FINER).getlength(text) / _FINER


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _lines(text: str, size: int, width: int) -> list[str]:
    """Break a text between words."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _length(longer, size) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _cut(text: str, size: int, width: int) -> str:
    """A name of any characters as what the font has and the width holds."""
    text = text.encode("latin-1", "replace").decode("latin-1")
    if _length(text, size) <= width:
        return text
    while text and _length(text + "...", size) > width:
        text = text[:-1]
    return text + "..."


def _flow(legend: Sequence[Swatch], width: int) -> list[list[tuple[int, Swatch]]]:
    """The entries of the legend in as many lines as they need, each with its place in the line."""
    lines: list[list[tuple[int, Swatch]]] = [[]]
    x = 0
    for entry in legend:
        wide = round(_length(entry.words, _SMALL)) + _SWATCH + 36
        if lines[-1] and x + wide - 28 > width:
            lines.append([])
            x = 0
        lines[-1].append((x, entry))
        x += wide
    return lines
