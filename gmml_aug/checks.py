"""Checks of values before any work is done.

Messages say which function raised them, what was passed, what is allowed and what to do.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from gmml_aug.tensors import check_tensor, repeats_itself
from gmml_aug.values import Values

Number = TypeVar("Number", int, float)

_MOST_PIXELS = 1 << 45  # of an image: what draws of 64 bits reach exactly
_CLIPS = (
    "If these are clips (B, T, C, H, W), give images.transpose(1, 2) for boxes in space and time, or images.flatten(0, 1) for "
    "separate frames"
)


def plain(value: object) -> Any:
    """Convert an array or a tensor to (nested lists of) Python numbers; return anything else unchanged."""
    return value.tolist() if hasattr(value, "tolist") and hasattr(value, "dtype") else value


def _kind(value: object) -> str:
    return f"{type(value).__name__} {getattr(value, 'dtype', '')} of shape {tuple(getattr(value, 'shape', ()))}"


def check_integer(who: str, name: str, value: object, low: int | None = None, high: int | None = None) -> int:
    """Return the value as an int, or raise an error that names the caller."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{who}: {name}={value!r} is not an integer. Give a whole number, for example {name}={low or 1}.")
    try:
        number = int(value.__index__())
    except (TypeError, ValueError, RuntimeError):  # an array or tensor of several numbers, or of floats
        raise TypeError(f"{who}: {name} is {_kind(value)}. Give one whole number, {_span(low, high)}.") from None
    if (low is not None and number < low) or (high is not None and number > high):
        raise ValueError(f"{who}: {name}={number} is out of range. Allowed: {_span(low, high)}.")
    return number


def check_number(who: str, name: str, value: object, low: float = -math.inf, high: float = math.inf) -> float:
    """Return the value as a finite float between low and high, or raise an error that names the caller."""
    if isinstance(value, bool | str | bytes) or not hasattr(value, "__float__"):
        raise TypeError(f"{who}: {name}={value!r} is not a number. Give a number from {_span(low, high)}.")
    try:
        number = float(value.__float__())
    except (TypeError, ValueError, RuntimeError):  # an array or tensor of several numbers
        raise TypeError(f"{who}: {name} is {_kind(value)}. Give one number, {_span(low, high)}.") from None
    if not math.isfinite(number) or not low <= number <= high:
        raise ValueError(f"{who}: {name}={number} is out of range. Allowed: a finite number, {_span(low, high)}.")
    return number


def check_pair(who: str, name: str, value: object, low: float = -math.inf, high: float = math.inf) -> tuple[float, float]:
    """Return a number, or a (low, high) pair of numbers, as a pair with low <= high."""
    return _pair(who, name, value, lambda one: check_number(who, name, one, low, high), "number")


def check_integer_pair(who: str, name: str, value: object, low: int, high: int) -> tuple[int, int]:
    """Return an integer, or a (low, high) pair of integers, as a pair with low <= high."""
    return _pair(who, name, value, lambda one: check_integer(who, name, one, low, high), "integer")


def _pair(who: str, name: str, value: object, check: Callable[[object], Number], kind: str) -> tuple[Number, Number]:
    value = plain(value)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return (check(value),) * 2
    if len(value) != 2:
        raise ValueError(f"{who}: {name}={value!r} has {len(value)} entries. Give one {kind} or a pair (low, high).")
    least, most = map(check, value)
    if least > most:
        raise ValueError(f"{who}: {name}={(least, most)} has low above high. Give (low, high) with low <= high.")
    return least, most


def check_switch(who: str, name: str, value: object) -> bool:
    """Check that the value is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{who}: {name}={value!r} is not a boolean. Give True or False.")
    return value


def check_choice(who: str, name: str, value: object, allowed: Sequence[object], note: str = "") -> None:
    """Check that the value is one of a few words."""
    if value not in allowed:
        words = (" and " if len(allowed) == 2 else ", ").join(map(repr, allowed))
        raise ValueError(f"{who}: {name}={value!r} is unknown. Allowed: {words}{note}.")


def check_shared(who: str, shared: object, dims: int) -> tuple[int, ...]:
    """Check that the axes are distinct and not all of the images' axes, and sort them."""
    axes = plain(shared)
    axes = (axes,) if isinstance(axes, int) else axes
    if not isinstance(axes, tuple | list):
        raise TypeError(f"{who}: shared={shared!r} is not a tuple of axes. Give, for example, shared=(0,).")
    found = sorted(check_integer(who, "shared", axis, 0, dims - 1) for axis in axes)
    if len(set(found)) < len(found) or len(found) == dims:
        raise ValueError(
            f"{who}: shared={shared!r} must be distinct axes that leave at least one of the {dims} free. Axes count from 0, "
            "batch and "
            "channels not included: shared=(0,) with dims=2 gives vertical bands, with dims=3 tubes through the first axis."
        )
    return tuple(found)


def check_edges(who: str, name: str, value: object, dims: int) -> int | tuple[int, ...]:
    """Check the edge of a cell in pixels: one number, or one per axis; equal numbers become one."""
    value = plain(value)
    if not isinstance(value, Sequence) or isinstance(value, str):
        return check_integer(who, name, value, 1)
    edges = tuple(check_integer(who, name, edge, 1) for edge in value)
    if len(edges) != dims:
        raise ValueError(
            f"{who}: {name}={value!r} has {len(edges)} numbers for {dims} spatial axes. Give one number, or {dims} numbers."
        )
    return edges[0] if len(set(edges)) == 1 else edges


def check_values(who: str, values: object) -> Values:
    """Check a value range, and return its statistics as tuples of floats."""
    if isinstance(values, str) and values in ("normalised", "unit"):
        return cast(Values, values)
    parts = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else []
    if len(parts) != 2 or not all(isinstance(part, Iterable) and not isinstance(part, str) for part in parts):
        raise ValueError(
            f'{who}: values={values!r} is unknown. Allowed: "normalised", "unit", or (mean, std), one number per channel each.'
        )
    means = tuple(check_number(who, "values (mean)", v) for v in parts[0])
    stds = tuple(check_number(who, "values (std)", v, 1e-12) for v in parts[1])
    if len(means) != len(stds) or not means:
        raise ValueError(f"{who}: values has {len(means)} means and {len(stds)} standard deviations. Give one of each per channel.")
    return means, stds


def check_channels(who: str, values: Values, channels: int, *, last: int | None = None) -> None:
    """Check that statistics given as ``values`` are one number, or one per channel; ``last`` is the length of the last axis."""
    if not isinstance(values, str) and len(values[0]) not in (1, channels):
        exchanged = len(values[0]) == last
        raise ValueError(
            f"{who}: values=(mean, std) has {len(values[0])} channels, but the images have {channels}. Give one number, or "
            f"one per channel{'; if the channels come last, put them first: images.movedim(-1, 1)' if exchanged else ''}."
        )


def check_shape(shape: Sequence[int], dims: int) -> tuple[int, ...]:
    """Check that a shape is (B, C, *S) with ``dims`` spatial axes, none of them empty."""
    if type(shape) is torch.Size:
        got = tuple(shape)
    else:
        got = plain(shape)
        if isinstance(got, str) or not isinstance(got, Sequence) or not all(hasattr(length, "__index__") for length in got):
            raise TypeError(
                f"gmml_aug: the shape {shape!r} is not a sequence of integers. Give (B, C, *S), for example images.shape."
            )
        got = tuple(length if isinstance(length, int | torch.SymInt) else length.__index__() for length in got)
    if len(got) != dims + 2:
        axes = {1: "L", 2: "H, W", 3: "D, H, W"}[dims]
        missing = dims + 2 - len(got)
        if missing == 1:
            mend = "Add the missing axis: one image is images[None], images without channels are images[:, None]"
        elif missing == 2:
            mend = "Add the missing axes: one image without channels is images[None, None]"
        else:
            mend = "Give (B, C, *S)" if missing > 0 else f"Fold axes into the batch: images.flatten(0, {-missing})"
        if 3 <= len(got) <= 5:
            mend += f"; or, if these are {len(got) - 2}-D data (B, C, *S), use Boxes(dims={len(got) - 2})"
        if len(got) == 3 and dims == 2:
            mend += ". Among transforms of torchvision, use torchvision_adapter.Corrupt(corrupt), which takes single images"
        if like_clips(got):
            mend += f". {_CLIPS}"
        raise ValueError(
            f"gmml_aug: images have shape {got}, but this corruption works on {dims} spatial axes: (B, C, {axes}). {mend}."
        )
    if any(length >= 1 << 31 for length in got) or math.prod(got[2:]) >= _MOST_PIXELS:
        raise ValueError(
            f"gmml_aug: images have shape {got}. Plans support sides below 2**31 and images below 2**45 pixels. Cut them "
            "into tiles."
        )
    if any(length < 1 for length in got):  # not min(): torch 2.6 cannot trace it over symbolic lengths
        raise ValueError(f"gmml_aug: images of shape {got} have an empty axis. Every axis must be at least 1; skip empty batches.")
    return got


def like_clips(shape: Sequence[int]) -> bool:
    """True for shapes that are almost certainly clips (B, T, C, H, W): three "frames" of more than three "channels"."""
    return len(shape) == 5 and shape[2] == 3 and shape[1] not in (1, 3) and min(shape[3:]) > 3


def warn_of_clips(shape: Sequence[int]) -> None:
    """Warn that time and channels seem to be swapped; nothing else would reveal it."""
    if like_clips(shape):
        warnings.warn(
            f"gmml_aug: images of shape {tuple(shape)} are treated as volumes of depth 3 with {shape[1]} channels. {_CLIPS}. If "
            f"they "
            "are such volumes, ignore this warning.",
            stacklevel=7,
        )


def check_donors(donors: Tensor, images: Tensor) -> Tensor:
    """Check that donors are images of the same dtype, channels and size as the batch."""
    donors = check_tensor("donors", donors, "a tensor (N, C, *S)")
    if donors.dtype != images.dtype or donors.shape[1:] != images.shape[1:] or donors.shape[0] < 1:
        raise ValueError(
            f"gmml_aug: donors are {donors.dtype} {tuple(donors.shape)}, but the images are {images.dtype} "
            f"{tuple(images.shape)}. Give at "
            "least one image of the same dtype, channels and size."
        )
    check_device("donors", donors.device, images.device)
    return donors


def check_out(out: Tensor, images: Tensor) -> None:
    """Check that ``out`` is a buffer like the batch, with separate memory for every pixel."""
    check_tensor("out", out, "a tensor (B, C, *S)")
    if out.dtype != images.dtype or out.shape != images.shape:
        raise ValueError(
            f"gmml_aug: out is {out.dtype} {tuple(out.shape)}, but the images are {images.dtype} {tuple(images.shape)}. Give a "
            "buffer like them: torch.empty_like(images)."
        )
    check_device("buffer given as out", out.device, images.device)
    wrong = ""
    if repeats_itself(out):
        wrong = "repeats the same memory (an expanded tensor, or rows that overlap)"
    elif torch.is_grad_enabled() and out.requires_grad and out.is_leaf:
        wrong = "is a leaf that requires gradients, which torch does not allow to be written to"
    elif out.is_neg():
        wrong = "has a negative bit (the imaginary part of a conjugate)"
    if wrong:
        raise ValueError(f"gmml_aug: out {wrong}. Give a separate buffer: torch.empty_like(images).")


def check_keys(keys: Tensor, batch: int, device: torch.device) -> Tensor:
    """Check that there is one int64 per image, on the device of the images."""
    mend = " Make them with gmml_aug.keys()."
    keys = check_tensor("keys", keys, "an int64 tensor, one per image", mend, torch.int64)
    if keys.shape != (batch,):
        raise ValueError(f"gmml_aug: keys have shape {tuple(keys.shape)}, but the batch holds {batch} images. Give one per image.")
    check_device("keys", keys.device, device)
    return keys


def check_generator(generator: object, device: torch.device) -> None:
    """Check that a generator is a torch.Generator on the device of the images."""
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            f"gmml_aug: the generator is {type(generator).__name__}. Give a torch.Generator, for example "
            "torch.Generator(device).manual_seed(0), or keys."
        )
    check_device("generator", generator.device, device)


def check_map(name: str, bound: object, images: Tensor) -> Tensor:
    """Check a map of pixels: (B or 1, 1, *S) bool, on the device of the images."""
    bound = check_tensor(name, bound, "a bool tensor", f" Give, for example, {name}=map > 0.5.", torch.bool)
    wanted = (images.shape[0], 1, *images.shape[2:])
    if tuple(bound.shape[1:]) != wanted[1:] or bound.ndim != images.ndim or bound.shape[0] not in (1, wanted[0]):
        raise ValueError(
            f"gmml_aug: {name} has shape {tuple(bound.shape)} for images {tuple(images.shape)}; allowed: {wanted}, with 1 "
            "as the batch size if all images share it. Give one map for all channels, and add missing axes with unsqueeze."
        )
    check_device(name, bound.device, images.device)
    return bound


def check_device(what: str, got: torch.device, wanted: torch.device) -> None:
    """Check that two things are on the same device, because a copy would wait for the device."""
    if got.type != wanted.type or (got.index or 0) != (wanted.index or 0):
        raise ValueError(
            f"gmml_aug: the {what} must be on the device of the images, {wanted}, not on {got}. Make it there: a copy "
            "inside the call would make the device wait."
        )


def _span(low: float | None, high: float | None) -> str:
    bottom = low is None or low == -math.inf
    top = high is None or high == math.inf
    return "any" if bottom and top else f"{low} or more" if top else f"{high} or less" if bottom else f"{low} to {high}"
