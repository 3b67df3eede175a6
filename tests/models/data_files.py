"""Image files for tests: small, each one different, some of them damaged."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, np.dtype[np.uint8]]


def pixels(number: int, height: int = 20, width: int = 28, channels: int = 3) -> Array:
    """(height, width, channels) uint8, smooth, and another one for each number."""
    generator = np.random.default_rng(number)
    coarse = Image.fromarray(generator.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))[:, :, :channels].copy()


def picture(number: int, height: int = 20, width: int = 28) -> Image.Image:
    """The same as a picture."""
    return Image.fromarray(pixels(number, height, width))


def write_classes(root: Path, counts: Mapping[str, int], *, first: int = 0, ending: str = "png") -> Path:
    """Class folders of pictures in several sizes; the numbers go on from class to class."""
    number = first
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for place in range(count):
            picture(number, 16 + number % 5, 24 - number % 7).save(root / name / f"{place:03d}.{ending}")
            number += 1
    return root


def write_flat(root: Path, count: int, *, first: int = 0) -> Path:
    """A folder of pictures."""
    root.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        picture(number, 16 + number % 5, 24 - number % 7).save(root / f"{number:03d}.png")
    return root


def truncate(path: Path) -> None:
    """Take the second half of a file away."""
    held = path.read_bytes()
    path.write_bytes(held[: len(held) // 2])


def write_tar(path: Path, root: Path, top: str = "") -> Path:
    """A tar of everything below a folder."""
    with tarfile.open(path, "w") as tar:
        for file in sorted(root.rglob("*")):
            if file.is_file():
                tar.add(file, f"{top}{file.relative_to(root).as_posix()}")
    return path


def write_shard(path: Path, records: Sequence[Mapping[str, bytes]]) -> Path:
    """A shard of webdataset; every record is named by its number in ``__key__``."""
    with tarfile.open(path, "w") as tar:
        for record in records:
            for ending, held in record.items():
                if ending != "__key__":
                    info = tarfile.TarInfo(f"{record['__key__'].decode()}.{ending}")
                    info.size = len(held)
                    tar.addfile(info, io.BytesIO(held))
    return path


def png(number: int) -> bytes:
    """A picture as the bytes of a file."""
    held = io.BytesIO()
    picture(number).save(held, "PNG")
    return held.getvalue()


def write_labels(root: Path, counts: Mapping[str, int], *, columns: Sequence[str] = ("sea", "sky")) -> Path:
    """Folders of pictures with a labels.csv beside them: labels are the lowest bits of the number, and a column of text is last."""
    lines = [",".join(["file", *columns, "licence"])]
    number = 0
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            picture(number).save(root / folder / f"{number:03d}.png")
            bits = [str(number >> bit & 1) for bit in range(len(columns))]
            lines.append(",".join([f"{folder}/{number:03d}.png", *bits, '"free, to all"']))
            number += 1
    (root / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root / "labels.csv"
