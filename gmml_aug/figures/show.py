"""A figure of the effect of a corruption: the clean images, the corrupted ones, and the mask.

Matplotlib is imported when the figure is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor

from gmml_aug.checks import check_channels, check_integer, check_values
from gmml_aug.figures.drawing import Drawing, RowName, figure_class, lay_out, legend_of
from gmml_aug.tensors import check_dtype
from gmml_aug.values import Values, pixel_statistics

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def show(
    clean: Tensor,
    out: Sequence[Tensor],
    *,
    count: int = 8,
    columns: int = 8,
    values: Values | None = None,
    kinds: Tensor | None = None,
    names: Sequence[str] | None = None,
    rows: Sequence[RowName] = ("clean", "corrupted", "mask"),
    path: str | Path | None = None,
) -> Figure:
    """Draw images before and after a corruption, and the pixels that it touched.

    Images with three channels are shown in colour, others as the mean of their channels in grey. Of volumes and clips, the middle
    slice of the first axis is shown, and the shares refer to it. Signals are shown as lines, one per channel for up to three
    channels, otherwise one for their mean. No window opens: a notebook shows the figure, and ``path`` saves it.

    Args:
        clean: (B, C, *S) the images that went in, on any device, float or uint8.
        out: the result: `Corrupted`, or any pair of images (B, C, *S) and mask (B, 1, *S) bool.
        count: the largest number of images to draw; the first images are drawn.
        columns: number of images side by side; the others follow below.
        values: the value range of float images, as in `Chain`. By default, and for ``"normalised"``, the range of the clean
            images that are drawn is scaled from black to white.
        kinds: (B, 1, *S) uint8 from ``corrupt.kinds(plan)``: the mask is drawn with one colour per step; from the ninth step on the
            colours repeat.
        names: the names of the steps for the legend, ``plan.steps``.
        rows: which rows to draw, and in which order.
        path: a file to which the figure is saved as well; its extension sets the format, for example .png or .pdf.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: tensors have a type or dtype that is not allowed.
        ValueError: tensors do not fit each other, rows or values are unknown, or names are given without kinds.
    """
    if not isinstance(out, Sequence) or len(out) != 2:
        came = type(out).__name__
        raise TypeError(f"show: out must be the pair (images, mask), not {came}. Give the result of the corruption.")
    images, mask = out
    _check_batches(clean, images)
    _check_map("mask", mask, clean, torch.bool, "Corrupted.mask")
    if kinds is not None:
        _check_map("kinds", kinds, clean, torch.uint8, "corrupt.kinds(plan)")
    elif names is not None:
        raise ValueError("show: names of steps were given without kinds. Give kinds=corrupt.kinds(plan) too.")
    if isinstance(rows, str) or not rows or not set(rows) <= set(get_args(RowName)):
        raise ValueError(f"show: rows={rows!r} is unknown. Allowed: a list of {', '.join(map(repr, get_args(RowName)))}.")
    shown = min(check_integer("show", "count", count, 1), clean.shape[0])
    columns = min(check_integer("show", "columns", columns, 1), shown)
    if values is not None:
        check_channels("show", check_values("show", values), clean.shape[1])
    figures = figure_class()

    marks = mask if kinds is None else kinds
    clean, images, marks = (_flat(part[:shown]) for part in (clean, images, marks))
    legend = legend_of(marks, names, one=kinds is None)
    if clean.ndim == 3:  # signals: as they are, with up to three channels
        wide = clean.float(), images.float()
        clean, images = (part if part.shape[1] <= 3 else part.mean(1, keepdim=True) for part in wide)
    else:
        clean, images = _to_pixels(clean, images, values)
    drawing = Drawing(clean, images, marks, [entry.colour for entry in legend])
    figure = lay_out(figures, drawing, columns, rows, legend if kinds is not None else [])
    if path is not None:
        figure.savefig(path)
    return figure


def _flat(part: Tensor) -> Tensor:
    """Move to the CPU, as bytes or as float32 without infinities; of a volume, take the middle slice."""
    part = part.detach()
    if part.ndim == 5:
        part = part[:, :, part.shape[2] // 2]
    part = part.cpu()
    if not part.is_floating_point():
        return part.to(torch.uint8)
    return part.float().nan_to_num(0.0, 0.0, 0.0)


def _to_pixels(clean: Tensor, images: Tensor, values: Values | None) -> tuple[Tensor, Tensor]:
    """Scale both to 0 to 1, with three channels or one."""
    if clean.dtype != torch.uint8 and (values is None or values == "normalised"):
        low, span = clean.min(), clean.max() - clean.min()
        both = [(part - low) / (span if span > 0 else 1.0) for part in (clean, images)]
    else:
        mean, std = (torch.tensor(part).reshape(-1, 1, 1) for part in pixel_statistics(clean, values or "unit"))
        both = [part * std + mean for part in (clean, images)]
    before, after = (part if part.shape[1] == 3 else part.mean(1, keepdim=True) for part in both)
    return before.clamp(0.0, 1.0), after.clamp(0.0, 1.0)


def _check_batches(clean: Tensor, images: Tensor) -> None:
    for name, batch in (("clean", clean), ("the images of out", images)):
        if not isinstance(batch, Tensor):
            raise TypeError(f"show: {name} must be a tensor (B, C, *S), not {type(batch).__name__}. Give a batch.")
        check_dtype(batch)
    if not 3 <= clean.ndim <= 5 or min(clean.shape) < 1:
        raise ValueError(
            f"show: clean has shape {tuple(clean.shape)}. Allowed: (B, C, *S) with one to three spatial axes, none of them "
            "empty; one image is image[None]."
        )
    if images.shape != clean.shape or (images.dtype == torch.uint8) != (clean.dtype == torch.uint8):
        raise ValueError(
            f"show: clean is {clean.dtype} {tuple(clean.shape)}, but the images of out are {images.dtype} "
            f"{tuple(images.shape)}. Give the batch and its result."
        )


def _check_map(name: str, part: object, clean: Tensor, dtype: torch.dtype, source: str) -> None:
    wanted = (clean.shape[0], 1, *clean.shape[2:])
    if not isinstance(part, Tensor):
        raise TypeError(f"show: {name} must be a tensor, not {type(part).__name__}. Give {source}.")
    if part.dtype != dtype or tuple(part.shape) != wanted:
        raise ValueError(
            f"show: {name} is {part.dtype} {tuple(part.shape)}. Allowed: {dtype} {wanted}, one map for all channels. Give {source}."
        )
