"""The options shared by the commands that draw a paper's figure: weights, images, a file; torch is imported only in the methods."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple

import tyro

from gmml_models.cli.arguments import (
    bundled_photographs,
    check_output,
    check_range,
    device_of,
    read_images,
    several,
    write_sheet,
)
from gmml_models.errors import UsageError

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from timm.models.vision_transformer import VisionTransformer
    from torch import Tensor

    from gmml_models.figures.contact_sheet import Sheet
    from gmml_models.recipes.start_weights import Start

_MOST_IMAGES, _LARGEST = 64, 1024


class Shown(NamedTuple):
    """The images of a figure.

    Attributes:
        pictures: squares of the same size.
        names: the names of their files, without extensions.
        skipped: the number of files that could not be read.
        left: the number of files that were not read.
    """

    pictures: Sequence[Image.Image]
    names: Sequence[str]
    skipped: int
    left: int


@dataclass(frozen=True)
class FigureCommand:
    """A figure of how a model processes images."""

    name: ClassVar[str] = "figure"

    images: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="[IMAGES ...]")] = ()
    """Image files, or folders of them; the centre square of each is used. By default the photographs of scikit-image are used."""
    weights: str = ""
    """The folder of a gmml pretrain run, a folder of weights, a Hub name, or a name that gmml models lists."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None
    """File for the figure, .png or .pdf; by default the command's name with the extension .png."""
    count: Annotated[int, tyro.conf.arg(metavar="N")] = 16
    """Largest number of images; further images are not read."""
    size: Annotated[int | None, tyro.conf.arg(metavar="PIXELS")] = None
    """Size to which the shorter side of each image is resized; by default that of the weights."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to use; auto is the GPU if there is one."""

    @property
    def who(self) -> str:
        """The name of the command, for errors."""
        return f"gmml {self.name}"

    @property
    def file(self) -> Path:
        """The path of the figure."""
        return self.output or Path(f"{self.name}.png")

    def check(self) -> None:
        """Check the options that can be checked without torch.

        Raises:
            UsageError: there are no weights, numbers are out of range, or the file cannot be written.
        """
        if not self.weights:
            raise UsageError(
                f"{self.who}: no weights. Give --weights with the folder of a gmml pretrain run, a folder of weights, a Hub name, "
                "or a name that gmml models lists."
            )
        check_range(self.who, "count", self.count, 1, _MOST_IMAGES)
        if self.size is not None:
            check_range(self.who, "size", self.size, 1, _LARGEST)
        check_output(self.who, self.file, self.images)

    def folder(self) -> str:
        """The weights to load: if the folder of a run was given, the weights inside it.

        Raises:
            UsageError: the run is not finished.
        """
        run = Path(self.weights)
        if (run / "weights" / "config.json").is_file():
            return str(run / "weights")
        if (run / "checkpoints").is_dir():
            raise UsageError(
                f"{self.who}: the run {run} has no weights yet. Resume it with the command that started it, and let it finish."
            )
        return self.weights

    def read(self, vit: VisionTransformer) -> Shown:
        """Read the images, at a size that the encoder accepts.

        Raises:
            UsageError: the encoder does not accept the size, no image can be read, or there are none.
        """
        from gmml_models.models.geometry import img_size, in_chans, patch_size

        if in_chans(vit) not in (1, 3):
            raise UsageError(f"{self.who}: {self.weights} takes images of {in_chans(vit)} channels, but photographs have 1 or 3.")
        (down, across), size = patch_size(vit), self.size or max(img_size(vit))
        if size % down or size % across:
            step = math.lcm(down, across)
            near = max(step, size - size % step)
            raise UsageError(
                f"{self.who}: squares of {size} are not a whole number of patches of {down} x {across}. Give --size {near}."
            )
        paths = self.images or bundled_photographs(self.who, "no IMAGES were given; by default the command")
        reading = read_images(self.who, paths, size, self.count, self.file)
        names = [photograph.path.stem for photograph in reading.photographs]
        return Shown([photograph.picture for photograph in reading.photographs], names, len(reading.skipped), reading.left)

    def batch(self, shown: Shown, mean: Sequence[float], std: Sequence[float], device: torch.device) -> Tensor:
        """The images (B, C, H, W), normalised, on the device."""
        from gmml_models.figures.tiles import to_images

        return to_images(shown.pictures, mean, std).to(device)

    def on(self) -> torch.device:
        """The device."""
        return device_of(self.who, self.device)

    def finish(self, sheet: Sheet, shown: Shown, what: str) -> int:
        """Write the figure and report it; the exit code is 1 if files had to be skipped."""
        written = write_sheet(self.who, sheet, self.file)
        print(f"{what} of {several(len(shown.pictures), 'image')}, by {self.weights}")
        if shown.left:
            print(f"  skipped {several(shown.left, 'file')} that were not read; raise --count to include them")
        print(f"  figure  {written}")
        return 1 if shown.skipped else 0


def spread(depth: int, most: int = 6) -> tuple[int, ...]:
    """The blocks that are shown by default: all if there are few, otherwise six, evenly spaced up to the last."""
    count = min(depth, most)
    return tuple((depth * number + count // 2) // count for number in range(1, count + 1))


def statistics_of(start: Start, vit: VisionTransformer) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and std by which images for the weights of `open_weights` are normalised; ImageNet's if its folder does not say."""
    from gmml_models.models.geometry import statistics

    return statistics("figures", vit, start.mean, start.std)
