"""The figures of `gmml_models.figures` as sheets, with one row per image and everything needed to read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image
from torch import Tensor

from gmml_models.figures.attention_maps import Attention
from gmml_models.figures.contact_sheet import Sheet, SheetRow, Swatch, Tile
from gmml_models.figures.palette import CLUSTERS, STEPS
from gmml_models.figures.reconstruction import Reconstructions
from gmml_models.figures.tiles import bars_tile, cluster_tile, edge_of_many, fitted, heat_tile, scale_tile, to_pictures

_BARS = 24
_MATRIX = 0.995  # the share of a matrix that its colours reach: a few entries of the diagonal would leave the rest dark


def reconstruction_sheet(
    clean: Tensor,
    found: Mapping[str, Reconstructions],
    names: Sequence[str],
    *,
    fused: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    code: str,
    helped: bool = False,
) -> Sheet:
    """Show clean and corrupted images and the reconstruction from every block, in one section per corruption.

    Args:
        clean: (B, C, H, W), normalised.
        found: maps each kind of corruption to its reconstructions.
        names: the names of the images.
        fused: the blocks that the decoder was trained on.
        mean: the mean per channel that the images were normalised by.
        std: the standard deviation per channel, in the same form.
        code: the code that computes the same tensors.
        helped: True if the decoder predicts normalised patches, so that their mean and deviation come from the clean image; the
            sheet says so.
    """
    edge = edge_of_many(max(clean.shape[2:]), len(clean) * len(found))
    originals = [fitted(picture, edge) for picture in to_pictures(clean, mean, std)]
    rows: list[SheetRow] = []
    for kind, one in found.items():
        errors = one.errors(clean).tolist()  # a list a column, of a number an image
        pictures = [to_pictures(images, mean, std) for images in (*one.by_block, one.fused)]
        corrupted = to_pictures(one.corrupted, mean, std)
        for number, name in enumerate(names):
            share = float(one.mask[number].float().mean())
            tiles = [Tile(originals[number], ""), Tile(fitted(corrupted[number], edge), f"{100 * share:.0f} % {kind}")]
            tiles += [
                Tile(fitted(column[number], edge), f"error {error[number]:.2f}")
                for column, error in zip(pictures, errors, strict=True)
            ]
            rows.append(SheetRow(str(number + 1), name, tiles, colour=STEPS[kind], section=bool(rows) and number == 0))
    blocks = next(iter(found.values())).blocks
    together = f"block {fused[0]} alone" if len(fused) == 1 else f"the average of blocks {_listed(fused)}"
    return Sheet(
        title="What every block restores",
        about=f"Images decoded from the patch tokens of single blocks; the decoder was trained on {together}, shown on the "
        "right. Numbers are the "
        "mean absolute error over the corrupted pixels, in units of the normalised images." + (f" {HELPED}" if helped else ""),
        columns=["clean", "corrupted", *(f"block {block}" for block in blocks), "as trained"],
        rows=rows,
        legend=[Swatch(STEPS[kind], _MEANING[kind]) for kind in found],
        code=code,
    )


HELPED = "Brightness and contrast of every patch are taken from the clean image: the decoder does not predict them."
"""The note under reconstructions by a decoder of normalised patches."""
_MEANING = {"noise": "noise in the corrupted boxes", "alien": "content of another image in the boxes"}


def attention_sheet(
    found: Attention, seen: Tensor, pictures: Sequence[Image.Image], names: Sequence[str], *, by: str, code: str
) -> Sheet:
    """Show the attention to the patches of every image, block by block, and the mean attention between all patches (GMML figure 3).

    Args:
        found: the attention, averaged over heads.
        seen: (B, L, h, w) the result of `Attention.seen_from`.
        pictures: the images, as squares of one size.
        names: the names of the images.
        by: the token that attends, in words.
        code: the code that computes the same tensors.
    """
    edge = edge_of_many(pictures[0].width, len(pictures))
    even = found.weights.shape[-1]  # tokens: attention that knows no preference gives each 1 / T
    rows = []
    for number, name in enumerate(names):
        tiles = [Tile(fitted(pictures[number], edge), "")]
        for one in seen[number]:
            most = float(one.max())
            tiles.append(Tile(heat_tile(one, most, edge), f"up to {most * even:.1f} x"))
        rows.append(SheetRow(str(number + 1), name, tiles))
    tiles = [Tile(scale_tile(edge), "none to most")]
    for matrix in found.between_patches():
        most = float(matrix.float().flatten().quantile(_MATRIX)) if matrix.numel() < 1 << 24 else float(matrix.max())
        tiles.append(Tile(heat_tile(matrix, most, edge), f"up to {float(matrix.max()) * even:.1f} x"))
    rows.append(SheetRow("all", "patch to patch", tiles, section=True))
    height, width = found.grid
    return Sheet(
        title="Where the blocks look",
        about=f"Top: how much {by} attends to each of the {height} x {width} patches, averaged over the heads. Bottom: how much "
        "every patch (row) attends to every other (column), averaged over heads and images; lines along the diagonal are "
        "neighbours in the "
        f"image. Each map has its own scale; the number below is its maximum; 1 x is uniform attention.",
        columns=["image", *(f"block {block}" for block in found.blocks)],
        rows=rows,
        legend=[],
        code=code,
    )


def concepts_sheet(
    labels: Tensor,
    clusters: Sequence[int],
    pictures: Sequence[Image.Image],
    names: Sequence[str],
    *,
    probabilities: Tensor | None,
    code: str,
) -> Sheet:
    """Show every image in a few clusters (MC-SSL figure 1), and the learnt concepts of its first cluster (figures 5 to 9).

    Args:
        labels: (len(clusters), B, h, w) the result of `concepts`.
        clusters: the numbers of clusters.
        pictures: the images, as squares of one size.
        names: the names of the images.
        probabilities: (B, K) the result of `concept_probabilities` for the first cluster of the smallest clustering, or None.
        code: the code that computes the same tensors.
    """
    side = 1 if len(pictures) <= 4 or probabilities is not None else 2  # images side by side
    edge = edge_of_many(pictures[0].width, -(-len(pictures) // side))
    columns = ["image", *(f"{count} concepts" for count in clusters)]
    every = []
    for number, (picture, name) in enumerate(zip(pictures, names, strict=True)):
        picture = fitted(picture, edge)
        caption = f"{number + 1}  {name}" if side > 1 else ""
        every.append([Tile(picture, caption), *(Tile(cluster_tile(one[number], picture), "") for one in labels)])
    about = (
        "K-means on the patch tokens of all images together: a colour means the same in every image, and keeps its meaning with "
        "more concepts. Yellow is the most central cluster over all images."
    )
    if probabilities is not None:
        shown, most = _shown(probabilities)
        for tiles, one in zip(every, probabilities[:, shown].tolist(), strict=True):
            best = sorted(range(len(shown)), key=lambda at: -one[at])[:3]
            said = ", ".join(f"{shown[at]} ({100 * one[at]:.0f} %)" for at in best if one[at] > 0) or "no patch is yellow"
            tiles.append(Tile(bars_tile([value / most for value in one], CLUSTERS[0], 5 * edge // 2, edge), f"most: {said}"))
        columns.append(f"{len(shown)} learnt concepts in the yellow patches, 0 to {100 * most:.0f} %")
        about += (
            f" Bars: the {len(shown)} most frequent of {probabilities.shape[1]} learnt concepts, always in the same order, and the "
            f"probability of each in the patches that are yellow in {columns[1]}. Images with the same content should have similar "
            f"bars."
        )
    rows = [
        SheetRow(
            _span(first, min(first + side, len(every))),
            "" if side > 1 else names[first],
            [tile for tiles in every[first : first + side] for tile in tiles],
        )
        for first in range(0, len(every), side)
    ]
    return Sheet(
        title="Which patches belong together",
        about=about,
        columns=columns * side,
        rows=rows,
        legend=[Swatch(CLUSTERS[number % len(CLUSTERS)], f"concept {number + 1}") for number in range(clusters[-1])],
        code=code,
    )


def _shown(probabilities: Tensor) -> tuple[list[int], float]:
    """The most probable concepts over all images, in that order, and the top of the bars' scale: a round number above all bars."""
    order = probabilities.mean(0).sort(descending=True, stable=True).indices[:_BARS].tolist()
    highest = float(probabilities[:, order].max())
    return order, next((step for step in (0.05, 0.1, 0.2, 0.4, 0.6, 0.8) if highest <= step), 1.0)


def _span(first: int, end: int) -> str:
    return str(first + 1) if end == first + 1 else f"{first + 1}, {end}"


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}" if len(numbers) > 1 else str(numbers[0])
