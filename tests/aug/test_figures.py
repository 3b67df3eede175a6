"""`show` draws what happened, and nothing else; and the gallery follows from its code."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

import gmml_aug as ga
from tests.helpers import DTYPES, random_images, same_bits, some_keys

pytest.importorskip("matplotlib")
if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
GALLERY = ROOT / "docs" / "gallery.md"
SIZES = {1: (40,), 2: (20, 24), 3: (5, 20, 24)}


def corrupted(images: Tensor, ratio: float = 0.5) -> tuple[ga.Corrupted, Tensor, ga.Plan]:
    boxes = ga.Boxes(ratio=ratio, side=(0.2, 0.5), dims=images.ndim - 2)
    corrupt = ga.Chain([ga.InBoxes(boxes, ga.Noise()), ga.InBoxes(boxes, ga.Alien())])
    plan = corrupt.sample(images.shape, keys=some_keys(len(images)))
    return corrupt.apply(images, plan), corrupt.kinds(plan), plan


def tiles(figure: Figure) -> list[Tensor]:
    """The (3, H, W) pictures in the order in which they were drawn."""
    return [torch.tensor(axes.images[0].get_array()).permute(2, 0, 1) for axes in figure.axes]


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_any_batch_is_drawn_and_left_as_it_was(dims: int, channels: int, dtype: torch.dtype) -> None:
    images = random_images((3, channels, *SIZES[dims]), dtype)
    before = images.clone()
    out, kinds, _ = corrupted(images)
    figure = ga.show(images, out, kinds=kinds)
    assert len(figure.axes) == 3 * 3
    assert all(0.0 <= float(tile.min()) <= float(tile.max()) <= 1.0 for tile in tiles(figure))
    assert same_bits(images, before)


def test_bytes_are_shown_as_they_are() -> None:
    images = random_images((2, 3, 8, 9), torch.uint8)
    out, _, _ = corrupted(images)
    shown = [tile.mul(255).round().byte() for tile in tiles(ga.show(images, out))]
    assert torch.equal(torch.stack(shown[:2]), images)
    assert torch.equal(torch.stack(shown[2:4]), out.images)


def test_the_normalisation_is_undone() -> None:
    pixels = torch.rand(2, 3, 8, 8)
    values = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
    mean, std = (torch.tensor(part)[:, None, None] for part in values)
    images = (pixels - mean) / std
    out, _, _ = corrupted(images)
    known = tiles(ga.show(images, out, values=values))
    torch.testing.assert_close(torch.stack(known[:2]), pixels)
    torch.testing.assert_close(torch.stack(tiles(ga.show(pixels, (pixels, out.mask), values="unit"))[:2]), pixels)
    unknown = torch.stack(tiles(ga.show(images, out))[:2])
    assert float(unknown.min()) == 0.0
    assert float(unknown.max()) == 1.0


def test_other_channels_are_shown_by_their_mean() -> None:
    images = torch.rand(2, 5, 8, 8)
    shown = tiles(ga.show(images, corrupted(images)[0], values="unit"))[0]
    torch.testing.assert_close(shown, images[0].mean(0).expand(3, -1, -1))


@pytest.mark.parametrize("named", [False, True])
def test_every_step_has_a_colour_of_its_own_and_the_rest_is_grey(named: bool) -> None:
    images = random_images((4, 3, 30, 30))
    out, kinds, plan = corrupted(images)
    figure = ga.show(images, out, kinds=kinds, names=plan.steps if named else None, rows=["mask"])
    colours = {number: set[tuple[float, ...]]() for number in range(3)}
    for tile, kind in zip(tiles(figure), kinds[:, 0], strict=True):
        for number, seen in colours.items():
            seen |= {tuple(colour) for colour in tile[:, kind == number].T.tolist()}
    assert all(len(set(colour)) == 1 for colour in colours[0])
    assert len(colours[1]) == len(colours[2]) == 1
    assert len(colours[1] | colours[2]) == 2
    legend = ("Noise", "Alien") if named else ("step 1", "step 2")
    for number, name in enumerate(legend, start=1):
        share = f"{100 * float((kinds == number).float().mean()):.0f} %"
        assert f"{name}  {share}" in words(figure)


def test_the_mask_alone_has_one_colour() -> None:
    images = random_images((2, 3, 30, 30))
    out, _, _ = corrupted(images, ratio=0.3)
    for tile, mask in zip(tiles(ga.show(images, out, rows=["mask"])), out.mask[:, 0], strict=True):
        assert len({tuple(colour) for colour in tile[:, mask].T.tolist()}) == 1
        assert float(tile[:, ~mask].min()) > float(tile[:, mask].max())


def test_a_volume_is_shown_by_its_middle_slice() -> None:
    images = torch.rand(2, 1, 5, 8, 8)
    out, _, _ = corrupted(images)
    assert torch.equal(tiles(ga.show(images, out, values="unit"))[0][:1], images[0, :, 2])


def test_a_signal_is_drawn_as_it_is() -> None:
    images = random_images((2, 2, 50))
    out, _, _ = corrupted(images)
    axes = ga.show(images, out).axes
    for number, wanted in enumerate((*images, *out.images)):
        drawn = [torch.tensor(line.get_ydata()) for line in axes[number].lines]
        assert torch.equal(torch.stack(drawn), wanted)


@pytest.mark.parametrize(
    ("count", "columns", "shape"), [(8, 8, (3, 20, 20)), (5, 2, (1, 10, 90)), (1, 3, (3, 90, 10)), (9, 4, (2, 30))]
)
def test_tiles_lie_apart_inside_the_figure(count: int, columns: int, shape: tuple[int, ...]) -> None:
    images = random_images((7, *shape))
    out, kinds, plan = corrupted(images)
    figure = ga.show(images, out, count=count, columns=columns, kinds=kinds, names=plan.steps)
    places = [axes.get_position() for axes in figure.axes]
    assert len(places) == 3 * min(count, 7)
    assert all(0 < place.x0 < place.x1 < 1 and 0 < place.y0 < place.y1 < 1 for place in places)
    for number, one in enumerate(places):
        assert not any(one.overlaps(other) for other in places[:number])
    assert all(0 < text.get_position()[0] < 1 and 0 < text.get_position()[1] < 1 for text in figure.texts)


def test_what_is_not_finite_is_drawn_all_the_same() -> None:
    images = random_images((2, 3, 8, 8))
    images[0, 0, 0, 0], images[0, 1, 0, 0] = torch.nan, torch.inf
    ga.show(images, (images, torch.ones(2, 1, 8, 8, dtype=torch.bool)))._repr_png_()  # type: ignore[attr-defined]


def test_it_is_saved_and_notebooks_show_it(tmp_path: Path) -> None:
    images = random_images((2, 3, 8, 8))
    figure = ga.show(images, corrupted(images)[0], path=tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


def test_matplotlib_is_imported_when_it_draws_and_no_window_is_asked_for() -> None:
    code = (
        "import sys, torch, gmml_aug as ga; assert 'matplotlib' not in sys.modules;"
        "batch = torch.rand(2, 3, 8, 8); ga.show(batch, ga.Noise()(batch)); assert 'matplotlib' in sys.modules;"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=300)


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    images = random_images((2, 3, 8, 8))
    with pytest.raises(ImportError, match=r"show: .* pip install '\.\[demo\]'"):
        ga.show(images, ga.Noise()(images))


def test_its_options_are_keyword_only() -> None:
    parameters = inspect.signature(ga.show).parameters.values()
    assert [one.name for one in parameters if one.kind is not inspect.Parameter.KEYWORD_ONLY] == ["clean", "out"]


BATCH = torch.zeros(2, 3, 8, 8)
MASK = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
WRONG: dict[str, tuple[Any, Any, dict[str, Any], type[Exception], str]] = {
    "no pair": (BATCH, BATCH, {}, TypeError, "pair"),
    "a triple": (BATCH, (BATCH, MASK, MASK), {}, TypeError, "pair"),
    "no batch": ([1.0], (BATCH, MASK), {}, TypeError, "clean"),
    "no axes": (BATCH[0, 0], (BATCH[0, 0], MASK), {}, ValueError, "image"),
    "integers": (BATCH.long(), (BATCH, MASK), {}, TypeError, "int64"),
    "another batch": (BATCH, (BATCH[:1], MASK), {}, ValueError, "but the images of out are"),
    "bytes and floats": (BATCH, (BATCH.byte(), MASK), {}, ValueError, "uint8"),
    "a float mask": (BATCH, (BATCH, MASK.float()), {}, ValueError, "mask"),
    "no mask": (BATCH, (BATCH, None), {}, TypeError, "mask"),
    "a mask of channels": (BATCH, (BATCH, MASK.expand(-1, 3, -1, -1)), {}, ValueError, "one map"),
    "kinds that are a mask": (BATCH, (BATCH, MASK), {"kinds": MASK}, ValueError, "kinds"),
    "names alone": (BATCH, (BATCH, MASK), {"names": ["Noise"]}, ValueError, "kinds"),
    "no images": (BATCH, (BATCH, MASK), {"count": 0}, ValueError, "count"),
    "half a column": (BATCH, (BATCH, MASK), {"columns": 0.5}, TypeError, "columns"),
    "unknown rows": (BATCH, (BATCH, MASK), {"rows": ["dirty"]}, ValueError, "'clean'"),
    "rows as a word": (BATCH, (BATCH, MASK), {"rows": "clean"}, ValueError, "list"),
    "unknown values": (BATCH, (BATCH, MASK), {"values": "bytes"}, ValueError, "unit"),
    "two of three means": (BATCH, (BATCH, MASK), {"values": ((0.5, 0.5), (1.0, 1.0))}, ValueError, "2 channels, but the images"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_drawn_is_an_error(name: str) -> None:
    clean, out, options, kind, words = WRONG[name]
    with pytest.raises(kind, match=words) as raised:
        ga.show(clean, out, **options)
    assert str(raised.value).partition(":")[0] in ("show", "gmml_aug")


def test_the_gallery_has_every_fill_place_and_preset_once() -> None:
    pytest.importorskip("skimage")
    from benchmarks import gallery

    shown = list(gallery.entries())
    assert len({entry.file for entry in shown}) == len(shown)
    used = {type(step.fill) for entry in shown for step in entry.corrupt.program.steps}
    assert used == {thing for thing in vars(ga).values() if isinstance(thing, type) and issubclass(thing, ga.Fill)} - {ga.Fill}
    places = {type(place).__name__ for entry in shown for place in entry.corrupt.program.places}
    assert places >= {"Boxes", "Cells", "Blocks"}
    assert {entry.title.partition(",")[0] for entry in shown if entry.section == "Presets"} >= set(ga.presets.names())


@pytest.mark.parametrize("name", ['Noise(per="pixel")', "A budget", "specaugment", "tubes"])
def test_the_gallery_is_the_same_when_it_is_drawn_again(name: str) -> None:
    pytest.importorskip("skimage")
    from benchmarks import gallery

    (entry,) = (entry for entry in gallery.entries() if entry.title == name)
    (once, figure), (again, other) = gallery.draw(entry), gallery.draw(entry)
    assert same_bits(once, again)
    assert gallery.to_jpeg(figure) == gallery.to_jpeg(other)


def test_the_pictures_of_the_gallery_are_there_and_small() -> None:
    text = GALLERY.read_text(encoding="utf-8")
    named = {line.partition("](gallery/")[2].rstrip(")") for line in text.splitlines() if line.startswith("![")}
    files = {file.name: file.stat().st_size for file in (GALLERY.parent / "gallery").iterdir()}
    assert named == set(files)
    assert sum(files.values()) < 2_500_000
    for block in text.split("```python\n")[1:]:
        ast.parse(block.partition("```")[0])


@pytest.mark.slow
def test_the_gallery_is_that_of_the_code() -> None:
    pytest.importorskip("skimage")
    from benchmarks import gallery

    assert gallery.page(list(gallery.entries())) == GALLERY.read_text(encoding="utf-8"), "run make gallery"
