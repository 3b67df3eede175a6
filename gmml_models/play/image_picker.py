"""The pictures of the page: the ones to choose from, and the uploaded one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from gmml_models.data.image_files import read_square, reason_of


@dataclass(frozen=True)
class Album:
    """The files of the pictures; at least two are needed, because alien content comes from another picture."""

    paths: tuple[Path, ...]

    def names(self) -> list[str]:
        """The name of each picture: its file name without the extension."""
        return [path.stem for path in self.paths]

    def thumbnails(self, size: int) -> list[tuple[Image.Image, str]]:
        """Return small squares with their names."""
        return [(_square(path, size), path.stem) for path in self.paths]

    def batch(self, chosen: int, upload: str | None, size: int) -> Sequence[tuple[str, Image.Image]]:
        """Return the chosen picture, followed by the others.

        Args:
            chosen: the number of the chosen picture, from 0.
            upload: the file of an uploaded picture, which takes the place of the chosen one.
            size: side of the squares in pixels.

        Raises:
            ValueError: the upload cannot be read as a picture; the message says why.
        """
        others = [number for number in range(len(self.paths)) if upload is not None or number != chosen]
        found = [(self.paths[number].stem, _square(self.paths[number], size)) for number in others]
        if upload is None:
            return [(self.paths[chosen].stem, _square(self.paths[chosen], size)), *found]
        try:
            own = _square(Path(upload), size)
        # Pillow's decoders raise nearly anything on damaged files
        except Exception as error:
            raise ValueError(
                f"gmml play: the picture that was uploaded cannot be read: {reason_of(error)}. Give a JPEG, PNG, WebP, TIFF or GIF "
                "file."
            ) from error
        return [("your picture", own), *found]


@lru_cache(maxsize=64)
def _square(path: Path, size: int) -> Image.Image:
    return read_square(path, size)
