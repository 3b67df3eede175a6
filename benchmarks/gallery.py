"""The gallery: a figure for every fill, kind of place and preset, each from the line of code that is printed above it.

``python -m benchmarks.gallery`` writes docs/gallery.md and docs/gallery/*.jpg. Chance follows from fixed keys, so the same code
gives the same pixels. The photographs come with scikit-image and are in the public domain.
"""

from __future__ import annotations

import ast
import inspect
import io
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

import torch
from PIL import Image
from torch import Tensor

import gmml_aug as ga
from gmml_aug.presets import masked as masking
from gmml_models.data.image_files import bundled, read_square
from gmml_models.figures import corruption_steps

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = Path(__file__).resolve().parents[1] / "docs"
PUBLIC_DOMAIN = ("astronaut", "chelsea", "coffee", "rocket")
IMAGENET = (corruption_steps.MEAN, corruption_steps.STD)
_SIZE = 192  # whole patches of 16, whole cells of 32
_SEED, _DPI, _QUALITY = 144, 112, 78

Batch = Literal["bytes", "normalised", "spectrograms", "clip"]


@dataclass(frozen=True)
class Shown:
    """One figure and what is said about it."""

    section: str
    title: str
    code: str  # what builds the corruption
    words: str
    batch: Batch = "bytes"

    @property
    def file(self) -> str:
        """Name of the picture."""
        return "-".join(re.findall(r"[a-z0-9_]+", f"{self.section} {self.title}".lower())) + ".jpg"

    @property
    def corrupt(self) -> ga.Corruption:
        """What the code builds."""
        built = eval(self.code, {"ga": ga, "IMAGENET": IMAGENET})
        assert isinstance(built, ga.Corruption)
        return built


_SOME = "ga.Boxes(ratio=0.4, side=(0.15, 0.4))"
_TWO = 'ga.Boxes(count=2, side=(0.4, 0.6), placement="inside")'


def _fill(title: str, words: str, boxes: str = _SOME) -> Shown:
    return Shown("Fills", title, f"ga.InBoxes({boxes}, ga.{title})", words)


def _place(title: str, code: str, words: str) -> Shown:
    return Shown("Places", title, f"ga.InBoxes(ga.{code}, ga.Mean())", words)


WRITTEN = (
    _fill('Noise(distribution="uniform")', 'Uniform over all values: the default of `Noise()` for bytes and `values="unit"`.'),
    _fill('Noise(distribution="normal")', "Normal: N(0, 1) for normalised images, for which it is the default of `Noise()`."),
    _fill('Noise(distribution="matched")', "Normal, with the mean and standard deviation of each channel of each image."),
    _fill('Noise(per="pixel")', "The same value in all channels of a pixel."),
    _fill("Zeros()", "Black for bytes; the mean colour for normalised images, as in the presets below."),
    _fill("Constant(value=(0, 255))", "One colour per image, drawn from a range; or a fixed number."),
    _fill("Mean()", "The mean colour of each image."),
    _fill("Alien()", "Another image of the batch, at the same place; one donor per image, never the image itself."),
    _fill("Alien(same_place=False)", "Another image, from a different position in it."),
    _fill("Shuffle()", "The same image, from a different position in it."),
    _fill("Grey()", "Luma; the content is kept.", _TWO),
    _fill("Jitter(brightness=0.6, contrast=0.6, saturation=0.8, hue=0.4)", "Changed colours; the content is kept.", _TWO),
    _fill("Blur(sigma=(2.0, 4.0), kernel=19)", "A Gaussian blur with a sigma per image; the content is kept.", _TWO),
    _place("An exact ratio", "Boxes(ratio=0.5)", "Exactly half of the pixels of every image."),
    _place("A range of ratios", "Boxes(ratio=(0.0, 0.8))", "A share drawn separately for every image."),
    _place(
        "A count",
        "Boxes(count=(1, 5), side=(0.15, 0.35))",
        "One to five boxes; those that cross a border continue at the opposite one.",
    ),
    _place(
        "Whole inside",
        'Boxes(count=4, side=(0.15, 0.35), placement="inside")',
        "Boxes that lie fully inside the image, and so favour its centre.",
    ),
    _place(
        "As the release",
        'Boxes(ratio=0.5, side=(0.0, 0.3), placement="origin", overshoot=True)',
        "The rule of the authors' release: whole boxes until the ratio is exceeded, clipped at the borders.",
    ),
    _place("On a grid", "Boxes(ratio=0.5, align=16)", "Edges on a grid of 16 pixels, except where the last box is trimmed."),
    _place(
        "Vertical bands",
        "Boxes(ratio=0.4, side=(0.02, 0.1), shared=(0,))",
        "Boxes that span a whole axis; `shared=(1,)` makes them horizontal.",
    ),
    _place("Patches", "Cells(size=16, ratio=0.5)", "Whole cells of a grid, the same number in every image."),
    _place("Larger cells", "Cells(size=32, ratio=0.5)", "Cells of several patches."),
    _place("Blocks of patches", "Blocks(size=16, ratio=0.4)", "Rectangles of cells, up to a share that is never exceeded."),
    _place("Outside", "Boxes(ratio=0.3, side=(0.2, 0.5), invert=True)", "Everything except the boxes."),
    Shown(
        "How much",
        "A budget",
        "ga.Chain([ga.InBoxes(ga.Boxes(ratio=0.4), ga.Noise()), ga.InBoxes(ga.Boxes(ratio=0.4), ga.Alien())], budget=0.5)",
        "Two steps of 40 % that together touch at most half of an image: the later one is cut.",
    ),
    Shown(
        "How much",
        "One of several",
        f"ga.InBoxes({_SOME}, ga.OneOf([ga.Noise(), ga.Alien(), ga.Shuffle()]))",
        "One fill per image, chosen at random; `weights=` sets the probabilities.",
    ),
    Shown("How much", "Some images", f"ga.InBoxes({_SOME}, ga.Alien(), p=0.5)", "Half of the images, chosen at random."),
)


def entries() -> Iterator[Shown]:
    """All figures: those written above, then every preset there is."""
    yield from WRITTEN
    listed = {name: getattr(ga.presets, name) for name in ga.presets.names()}
    others = {
        name: function
        for name, function in inspect.getmembers(masking, inspect.isfunction)
        if function.__module__ == masking.__name__ and not name.startswith("_") and name not in listed
    }
    for module, functions in (("ga.presets", listed), ("ga.masking", others)):
        for name, function in functions.items():
            yield from _preset(f"{module}.{name}", name, function)


def _preset(code: str, name: str, function: Callable[..., ga.Chain]) -> Iterator[Shown]:
    words = (inspect.getdoc(function) or "").partition("\n")[0]
    kinds = [kind for kind in get_args(get_type_hints(function).get("kind")) if kind != "none"]  # of which nothing is to be seen
    batch: Batch = "clip" if function().program.dims == 3 else "spectrograms" if name == "specaugment" else "normalised"
    values = ["values=IMAGENET"] if batch != "spectrograms" else []
    for kind in kinds or [None]:
        options = [f'kind="{kind}"'] * (kind is not None) + values
        title = name if kind is None else f"{name}, {kind}"
        yield Shown("Presets", title, f"{code}({', '.join(options)})", words, batch)


@cache
def batch_of(kind: Batch) -> Tensor:
    """Four photographs, in bytes or normalised; a clip of one of them; or spectrograms."""
    if kind == "spectrograms":
        return torch.stack([_spectrogram(number) for number in range(4)])
    found = [read_square(path, _SIZE) for path in bundled() if path.stem in PUBLIC_DOMAIN]
    pictures = corruption_steps.to_batch(found)
    if kind == "clip":  # 16 frames, in which the camera pans over the second photograph
        wide = corruption_steps.to_batch([found[1].resize((_SIZE + 60, _SIZE + 60))])[0]
        frames = [wide[:, 30 : 30 + _SIZE, 4 * t : 4 * t + _SIZE] for t in range(16)]
        return corruption_steps.normalise(torch.stack(frames)).transpose(0, 1)[None]
    return pictures if kind == "bytes" else corruption_steps.normalise(pictures)


def draw(shown: Shown) -> tuple[Tensor, Figure]:
    """The corrupted images of an entry, and its figure."""
    corrupt, clean = shown.corrupt, batch_of(shown.batch)
    plan = corrupt.sample(clean.shape, keys=ga.keys(_SEED, 0, range(len(clean))))
    out, kinds = corrupt.apply(clean, plan), corrupt.kinds(plan)
    images, mask = out
    if shown.batch == "clip":  # every fifth frame, side by side
        clean, images, mask, kinds = (part[0, :, ::5].transpose(0, 1) for part in (clean, images, mask, kinds))
    rows: list[Any] = ["corrupted", "mask"] if shown.batch in ("bytes", "normalised") else ["clean", "corrupted", "mask"]
    values = IMAGENET if shown.batch in ("normalised", "clip") else None
    steps: dict[str, Any] = {"kinds": kinds, "names": plan.steps} if len(plan.steps) > 1 else {}
    return images, ga.show(clean, (images, mask), values=values, rows=rows, **steps)


def to_jpeg(figure: Figure) -> bytes:
    """A small file, the same for the same figure."""
    drawn, file = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI)
    Image.open(drawn).convert("RGB").save(file, format="JPEG", quality=_QUALITY, optimize=True, progressive=True)
    return file.getvalue()


def wrapped(code: str, width: int = 88) -> str:
    """A call or a list, with an item on each line where it is wider than the column of a page."""
    if len(code) <= width:
        return code
    tree = ast.parse(code, mode="eval").body
    assert isinstance(tree, ast.Call | ast.List)
    items = [*tree.args, *tree.keywords] if isinstance(tree, ast.Call) else tree.elts
    name, ends = (ast.get_source_segment(code, tree.func), "()") if isinstance(tree, ast.Call) else ("", "[]")
    parts = [wrapped(ast.get_source_segment(code, item) or "", width - 5).replace("\n", "\n    ") for item in items]
    return "\n".join([f"{name}{ends[0]}", *(f"    {part}," for part in parts), ends[1]])


def page(shown: list[Shown]) -> str:
    """docs/gallery.md."""
    lines = [
        "# Gallery",
        "",
        "Every fill, place and preset, with the code that made the picture, drawn by `make gallery` with `ga.show`. Colours",
        "mark the step that touched a pixel last, and numbers the share that was touched. Fills, places and budgets are shown",
        "on bytes, presets on images normalised with ImageNet's statistics, `IMAGENET = (mean, std)`. The photographs come with",
        "scikit-image: astronaut (NASA) and rocket (SpaceX) are in the public domain, chelsea (Stefan van der Walt) and coffee",
        "(Rachel Michetti) are CC0.",
        "",
        "![Four clean photographs](gallery/clean.jpg)",
    ]
    last = None
    for entry in shown:
        if last is None or entry.section != last.section:
            lines += ["", f"## {entry.section}"]
        lines += ["", f"### {entry.title}", ""]
        if last is None or entry.words != last.words:  # said once of a preset of several kinds
            lines += [entry.words, ""]
        lines += ["```python", wrapped(entry.code), "```", "", f"![{entry.section}: {entry.title}](gallery/{entry.file})"]
        last = entry
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write everything anew."""
    folder = FOLDER / "gallery"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.jpg"):
        old.unlink()
    clean = batch_of("bytes")
    nothing = torch.zeros_like(clean[:, :1], dtype=torch.bool)
    files = {"clean.jpg": to_jpeg(ga.show(clean, (clean, nothing), rows=["clean"]))}
    shown = list(entries())
    files |= {entry.file: to_jpeg(draw(entry)[1]) for entry in shown}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (FOLDER / "gallery.md").write_text(page(shown), encoding="utf-8")
    print(f"{len(files)} figures, {math.ceil(sum(map(len, files.values())) / 1000)} kB, in {folder}")


def _spectrogram(number: int) -> Tensor:
    """(1, 96, 256) something like the log power of a voice: harmonics that glide, come and go, over a floor of noise."""
    line, time = torch.arange(96.0)[:, None], torch.arange(256.0)
    pitch = 9.0 + 2.0 * number + 3.0 * torch.sin(time / (23.0 + 6.0 * number)) + 1.5 * torch.sin(time / 7.0 + number)
    loud = torch.sin(time / (17.0 + 5.0 * number) + number).clamp(min=-0.6) + 0.7
    power = torch.zeros(96, 256)
    for harmonic in range(1, 8):
        power = power + loud * torch.exp(-0.5 * ((line - harmonic * pitch) / 1.3) ** 2) / harmonic**0.6
    floor = 0.12 * torch.rand(96, 256, generator=torch.Generator().manual_seed(number))
    power = (power + floor + 0.02).log()
    return ((power - power.mean()) / power.std())[None]


if __name__ == "__main__":
    main()
