"""The contact sheet: pictures in rows and columns, with everything needed to read them, as PNG or PDF."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from PIL import Image, ImageFilter, ImageOps

from gmml_models.atomic_write import write_aside
from gmml_models.figures.canvas import Canvas, length
from gmml_models.figures.palette import LINE, PALE

_TITLE, _LABEL, _TEXT, _SMALL = 38, 20, 15, 14  # sizes of type
_MARGIN, _LABELS, _GAP = 64, 132, 14
_SPACE, _CAPTION, _SECTION = 16, 22, 28  # under a picture, for a caption there, and above a section
_SWATCH = 11
_LEAST = 560  # width of the content: narrower text is no pleasure to read
_SMALL_EDGE, _LARGE_EDGE = 160, 320
_PDF_SCALE, _PDF_DPI = 2, 192  # a page as large as the PNG at 96 dots an inch


@dataclass(frozen=True)
class Tile:
    """A picture and its caption."""

    picture: Image.Image
    caption: str


@dataclass(frozen=True)
class SheetRow:
    """One stage."""

    name: str
    note: str
    tiles: Sequence[Tile]
    colour: str | None = None  # of the swatch beside the name
    section: bool = False  # begins a new section, under a hairline

    @property
    def captioned(self) -> bool:
        """True if any picture has a caption."""
        return any(tile.caption for tile in self.tiles)


@dataclass(frozen=True)
class Swatch:
    """One entry of the legend."""

    colour: str
    words: str


@dataclass(frozen=True)
class Sheet:
    """The content of a sheet.

    All pictures have the same height, those of a column have the same width, and the last rows may have fewer pictures.
    """

    title: str
    about: str
    columns: Sequence[str]
    rows: Sequence[SheetRow]
    legend: Sequence[Swatch]
    code: str

    def draw(self, scale: int = 1) -> Image.Image:
        """Render the sheet as an RGB image, ``scale`` times as large."""
        widths = [tile.picture.width for tile in max((row.tiles for row in self.rows), key=len)]
        edge = self.rows[0].tiles[0].picture.height
        content = max(_LABELS + sum(widths) + (len(widths) - 1) * _GAP, _LEAST)
        about = _lines(self.about, _TEXT, content)
        code = _lines(self.code, _SMALL, content)
        legend = _flow(self.legend, content - _LABELS)
        head = _MARGIN + _TITLE + 16 + len(about) * 22 + 48
        body = sum(edge + _SPACE + row.captioned * _CAPTION + row.section * _SECTION for row in self.rows)
        foot = len(legend) * 24 + 48 + len(code) * 21 + _MARGIN
        canvas = Canvas(content + 2 * _MARGIN, head + body + foot)

        y = _MARGIN + _TITLE
        canvas.write(_MARGIN - 2, y, self.title, _TITLE)
        y += 16
        for line in about:
            y += 22
            canvas.write(_MARGIN, y - 6, line, _TEXT, PALE)
        y += 48
        left = [_MARGIN + _LABELS + before for before in accumulate((width + _GAP for width in widths), initial=0)]
        for x, name, width in zip(left, self.columns, widths, strict=False):
            canvas.write(x, y - 10, _cut(name, _SMALL, width), _SMALL, PALE)
        for row in self.rows:
            if row.section:
                _line(canvas, y + 4, content)
                y += _SECTION
            _label(canvas, row, y)
            for x, tile in zip(left, row.tiles, strict=False):
                canvas.paste(x, y, tile.picture)
                canvas.write(x, y + edge + 19, _cut(tile.caption, _SMALL, tile.picture.width), _SMALL, PALE)
            y += edge + _SPACE + row.captioned * _CAPTION
        for entries in legend:
            for x, entry in entries:
                _swatch(canvas, _MARGIN + _LABELS + x, y + 12, entry.colour)
                canvas.write(_MARGIN + _LABELS + x + _SWATCH + 8, y + 12, entry.words, _SMALL)
            y += 24
        y += 32
        _line(canvas, y, content)
        y += 16
        for line in code:
            y += 21
            canvas.write(_MARGIN, y - 5, line, _SMALL, PALE)
        return canvas.draw(scale)

    def write(self, path: Path) -> tuple[int, int]:
        """Draw the sheet into a file, as PNG or PDF depending on its extension; equal sheets give equal bytes.

        Returns width and height in pixels of scale 1.

        Raises:
            OSError: as in `save`.
        """
        if path.suffix.lower() != ".pdf":
            image = self.draw()
            save(image, path)
            return image.size
        image = self.draw(_PDF_SCALE)
        file = io.BytesIO()
        options = {"quality": 95, "subsampling": 0, "resolution": _PDF_DPI}
        image.save(file, format="PDF", title=self.title, creationDate=None, modDate=None, **options)
        write_aside(path, file.getvalue())
        return image.width // _PDF_SCALE, image.height // _PDF_SCALE


def save(image: Image.Image, path: Path) -> None:
    """Write a PNG under another name and rename it, so that a partial file is never visible.

    Raises:
        OSError: the folder does not exist, or the disk is full or cannot be written to; no partial file is left.
    """
    file = io.BytesIO()
    image.save(file, format="PNG")
    write_aside(path, file.getvalue())


def edge_of(size: int) -> int:
    """The side at which squares of this size are shown: small ones are enlarged by an integer factor, large ones are shrunk."""
    return min(size * -(-_SMALL_EDGE // size), _LARGE_EDGE)


def flat(picture: Image.Image, edge: int) -> Image.Image:
    """Resize a picture to the size used on the sheet; small ones keep sharp pixels."""
    if picture.width == edge:
        return picture
    return picture.resize((edge, edge), Image.Resampling.NEAREST if picture.width < edge else Image.Resampling.LANCZOS)


def faint(picture: Image.Image) -> Image.Image:
    """Turn a picture into a pale grey background for colours."""
    grey = ImageOps.autocontrast(picture.convert("L"), cutoff=1).point([205 + round(value * 45 / 255) for value in range(256)])
    return grey.convert("RGB")


def outlined(picture: Image.Image, mask: Image.Image, colour: str, width: int = 2) -> Image.Image:
    """Draw a line along the inside of a mask's border on a picture."""
    around = ImageOps.expand(mask, width, 0)  # so that the picture's own border counts as one
    inner = around.filter(ImageFilter.MinFilter(2 * width + 1)).crop((width, width, width + mask.width, width + mask.height))
    ring = Image.composite(Image.new("L", mask.size, 0), mask, inner)
    drawn = picture.copy()
    drawn.paste(colour, mask=ring)
    return drawn


def _label(canvas: Canvas, row: SheetRow, y: int) -> None:
    canvas.write(_MARGIN, y + 16, row.name, _LABEL)
    canvas.write(_MARGIN, y + 40, _cut(row.note, _TEXT, _LABELS - _GAP), _TEXT, PALE)
    if row.colour is not None:
        _swatch(canvas, _MARGIN + length(row.name, _LABEL) + 9, y + 15, row.colour)


def _swatch(canvas: Canvas, x: float, baseline: int, colour: str) -> None:
    canvas.rectangle(round(x), baseline - _SWATCH + 1, _SWATCH, _SWATCH, colour)


def _line(canvas: Canvas, y: int, content: int) -> None:
    canvas.rectangle(_MARGIN, y, content, 1, LINE)


def _lines(text: str, size: int, width: int) -> list[str]:
    """Break a text into lines between words."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and length(longer, size) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _cut(text: str, size: int, width: int) -> str:
    """Shorten a text to the width, replacing characters that the font does not have."""
    text = text.encode("latin-1", "replace").decode("latin-1")
    if length(text, size) <= width:
        return text
    while text and length(text + "...", size) > width:
        text = text[:-1]
    return text + "..."


def _flow(legend: Sequence[Swatch], width: int) -> list[list[tuple[int, Swatch]]]:
    """Arrange the entries of the legend in as many lines as they need, each with its position in the line."""
    lines: list[list[tuple[int, Swatch]]] = [[]]
    x = 0
    for entry in legend:
        wide = round(length(entry.words, _SMALL)) + _SWATCH + 36
        if lines[-1] and x + wide - 28 > width:
            lines.append([])
            x = 0
        lines[-1].append((x, entry))
        x += wide
    return lines
