"""The command line in this process, and photographs for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from gmml_models.cli import main


class Ran(NamedTuple):
    """What came of a command."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


def call(capsys: pytest.CaptureFixture[str], *words: object) -> Ran:
    """Run a command to its end."""
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words)])
    captured = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return Ran(ended.value.code, captured.out, captured.err)


def write_photographs(folder: Path) -> Path:
    """Write three colourful images of different sizes into a new folder."""
    folder.mkdir()
    for number, (width, height) in enumerate([(60, 40), (33, 70), (50, 50)]):
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((width * 2, height * 2)).save(folder / f"photo{number}.png")
    return folder
