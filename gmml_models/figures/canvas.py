"""A drawing that is recorded, so that it can be rendered at any integer scale; it needs only Pillow and its font."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import final

from PIL import Image, ImageDraw, ImageFont

from gmml_models.figures.palette import INK, PAPER

_FINER = 4  # text is drawn this much larger and reduced: letters placed at whole pixels stand unevenly


@final
class Canvas:
    """Text, pictures and rectangles, at positions in pixels of scale 1.

    Args:
        width: the width of the whole drawing.
        height: the height of the whole drawing.
    """

    def __init__(self, width: int, height: int) -> None:
        self._size = width, height
        self._steps: list[Callable[[Image.Image, int], None]] = []

    def draw(self, scale: int = 1) -> Image.Image:
        """Render the drawing as an RGB image, ``scale`` times as large; the pixels of pictures become squares."""
        image = Image.new("RGB", (self._size[0] * scale, self._size[1] * scale), PAPER)
        for step in self._steps:
            step(image, scale)
        return image

    def write(self, x: int, baseline: int, text: str, size: int, colour: str = INK) -> None:
        """Add a line of text that starts at ``x`` on the baseline."""

        def step(image: Image.Image, scale: int) -> None:
            width, height = math.ceil(length(text, size)) + 4, 2 * size
            finer = _FINER * scale
            letters = Image.new("L", (width * finer, height * finer))
            ImageDraw.Draw(letters).text((0, size * finer * 3 // 2), text, 255, _font(size * finer), anchor="ls")
            there = letters.resize((width * scale, height * scale), Image.Resampling.BOX)
            image.paste(colour, (x * scale, (baseline - size * 3 // 2) * scale), there)

        self._steps.append(step)

    def paste(self, x: int, y: int, picture: Image.Image) -> None:
        """Add a picture with its upper left corner at a position."""

        def step(image: Image.Image, scale: int) -> None:
            large = (picture.width * scale, picture.height * scale)
            image.paste(picture if scale == 1 else picture.resize(large, Image.Resampling.NEAREST), (x * scale, y * scale))

        self._steps.append(step)

    def rectangle(self, x: int, y: int, width: int, height: int, colour: str) -> None:
        """A filled rectangle."""

        def step(image: Image.Image, scale: int) -> None:
            image.paste(colour, (x * scale, y * scale, (x + width) * scale, (y + height) * scale))

        self._steps.append(step)

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: int = 1) -> None:
        """Add a line through points (x, y); a single point becomes a dot."""

        def step(image: Image.Image, scale: int) -> None:
            there = [(x * scale, y * scale) for x, y in points]
            if len(there) == 1:
                ((x, y),) = there
                there = [(x - scale, y), (x + scale, y)]
            ImageDraw.Draw(image).line(there, fill=colour, width=width * scale, joint="curve")

        self._steps.append(step)


def length(text: str, size: int) -> float:
    """The width of a line of text, in pixels of scale 1."""
    return _font(size * _FINER).getlength(text) / _FINER


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
