"""The options of a call, checked before any work: images, maps, plans, ratios and lengths must fit the program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor

from gmml_aug import checks
from gmml_aug.backends.base import Choice
from gmml_aug.backends.call import Batch, Lengths, Maps, Ratios, Request
from gmml_aug.places.base import Place, free_size
from gmml_aug.plan import Plan
from gmml_aug.program import Program
from gmml_aug.tensors import check_dtype, check_kind, check_tensor, followed, overlap
from gmml_aug.values import NORMALISED, Values

_SHAPES = 64  # that a program remembers to have been checked for


class SampledOptions(TypedDict, total=False):
    """The options that a call and `Corruption.from_bytes` share; `Corruption.__call__` describes them."""

    generator: torch.Generator | None
    keys: Tensor | None
    rank: int | None
    donors: Tensor | None
    allowed: Tensor | None
    forced: Tensor | None
    ratios: Ratios | None
    lengths: Lengths | None
    backend: Choice


class CallOptions(SampledOptions, total=False):
    """The options of a call, for functions that pass them on."""

    out: Tensor | None


def check_images(images: Tensor, program: Program) -> Tensor:
    """Check the images of a call, and return them as a plain tensor."""
    mend = "" if isinstance(images, Tensor) else _as_tensor(images)
    images = check_tensor("images", images, "a tensor (B, C, *S)", mend)
    check_dtype(images)
    checks.check_shape(images.shape, program.dims)
    checks.check_channels("gmml_aug", program.values, images.shape[1], last=images.shape[-1])
    return images


def _as_tensor(images: object) -> str:
    """How a tensor is made of what is no tensor."""
    if isinstance(images, list | tuple):
        return " Stack the tensors of a list: torch.stack(images)."
    shape = getattr(images, "shape", None)
    if hasattr(images, "__array__") and shape is not None:
        last = isinstance(shape, tuple) and len(shape) == 4 and shape[-1] in (1, 3, 4) and shape[1] > 4
        return f" Convert an array: torch.as_tensor(images){'.permute(0, 3, 1, 2), which puts the channels first' if last else ''}."
    if hasattr(images, "__array_interface__"):
        return " Convert pictures with torchvision.transforms.v2.functional.to_image(picture), and stack a batch of one size."
    return ""


def check_maps(images: Tensor, allowed: Tensor | None, forced: Tensor | None) -> Maps:
    """Check the maps of a call against its images."""
    given = (("allowed", allowed), ("forced", forced))
    return Maps(*(None if one is None else checks.check_map(name, one, images) for name, one in given))


def check_donors(images: Tensor, donors: Tensor | None, program: Program) -> tuple[Tensor, int | None]:
    """The images that aliens come from, and the number of images in the bank.

    The batch itself, even if passed as donors, is not a bank.
    """
    if donors is None or donors is images:
        return images, None
    donors = checks.check_donors(donors, images)
    if not (program.reads_donors and overlap(donors, images)):
        return donors, donors.shape[0]
    same = donors.data_ptr() == images.data_ptr() and donors.shape == images.shape
    if same and all(s == t for s, t, n in zip(donors.stride(), images.stride(), images.shape, strict=True) if n > 1):
        return images, None
    raise ValueError(
        f"gmml_aug: donors of shape {tuple(donors.shape)} share memory with the images, but are not the same ones: an image could "
        "be its own donor. Give other images; or leave donors out, which takes them from the batch. To corrupt a part of "
        "a batch with donors from the whole batch: plan = corrupt.sample(batch.shape), corrupt.apply(batch[i:j], "
        "plan[i:j], donors=batch)."
    )


def check_sampling(
    program: Program,
    shape: Sequence[int],
    *,
    generator: torch.Generator | None,
    keys: Tensor | None,
    bank: int | None,
    device: torch.device | str | None,
    ratios: Any,
    lengths: Any,
) -> tuple[torch.device, Request]:
    """The `Request` that a plan is made from; if no keys were given, they are empty here and drawn later."""
    shape = checks.check_shape(shape, program.dims)
    batch = shape[0]
    if bank is not None:
        bank = checks.check_integer("sample", "bank", bank, 1)
    if keys is not None and generator is not None:
        raise ValueError("gmml_aug: got both keys and a generator, but each of them alone determines the draw. Give one of them.")
    if device is not None:
        where = torch.device(device)
    elif isinstance(keys, Tensor):
        where = keys.device
    else:
        where = generator.device if isinstance(generator, torch.Generator) else torch.get_default_device()
    if keys is not None:
        keys = checks.check_keys(keys, batch, where)
    elif generator is not None:
        checks.check_generator(generator, where)
    donors, own = (batch, True) if bank is None else (bank, False)
    working = _working(program, shape, donors, own)
    shares = None if ratios is None else _check_ratios(ratios, batch, where, program)
    valid = None if lengths is None else _check_lengths(lengths, shape, program)
    found = torch.empty(0, dtype=torch.int64, device=where) if keys is None else keys
    return where, Request(found, shape, working, donors, own, shares, valid)


def _working(program: Program, shape: tuple[int, ...], donors: int, from_batch: bool) -> tuple[bool, ...]:
    """For each step, False if it cannot change images of this shape; raises an error if a place does not fit into them.

    Results are cached by shape.
    """
    key, kept = (shape, donors, from_batch), program.working
    if not followed() and key in kept:
        return kept[key]
    found = tuple(step.fill.applies_to(shape, donors=donors, from_batch=from_batch) for step in program.steps)
    for place in program.places:
        if place is not None:
            place.check_size(free_size(place, shape[2:]))
    checks.check_channels("gmml_aug", program.values, shape[1])
    if not followed():
        if program.dims == 3:
            checks.warn_of_clips(shape)
        if len(kept) >= _SHAPES:
            kept.clear()
        kept[key] = found
    return found


def _check_ratios(ratios: Any, batch: int, device: torch.device, program: Program) -> Tensor:
    """(B,) float64 on the device, each between 0 and 1 and within what the places can cover."""
    shares = ratios
    if not isinstance(shares, Tensor):
        given = checks.plain(ratios)
        if not isinstance(given, Sequence) or isinstance(given, str):
            raise TypeError(
                f"gmml_aug: ratios={ratios!r} is neither a tensor nor a list of numbers. Give one number for each image."
            )
        numbers = [checks.check_number("gmml_aug", "ratios", value) for value in given]
        shares = torch.tensor(numbers, dtype=torch.float64, device=device)
    if shares.shape != (batch,) or not shares.is_floating_point():
        raise ValueError(
            f"gmml_aug: ratios are {shares.dtype} {tuple(shares.shape)} for {batch} images. Give one float for each image."
        )
    checks.check_device("tensor of ratios", shares.device, device)
    drawing = [place for place in program.places if getattr(place, "ratio", None) is not None]
    if not drawing:
        raise ValueError(
            "gmml_aug: ratios= was given, but no place here has a ratio. Give a place a ratio, for example Boxes(ratio=0.5)."
        )
    if shares.device.type == "cpu" and not followed():
        if not bool(((shares >= 0) & (shares <= 1)).all()):  # NaN is neither
            raise ValueError(f"gmml_aug: ratios are {shares.tolist()}. Allowed: 0 to 1, a share of the image.")
        for place in drawing:
            assert place is not None
            most = place.largest_share
            if float(shares.max()) > most + 1e-6:
                raise ValueError(
                    f"gmml_aug: ratios reach {float(shares.max()):.3g}, but {place!r} draws only enough boxes for {most:.3g}. "
                    "Give it "
                    f"a range that includes them, such as ratio=({most:.3g}, {float(shares.max()):.3g})."
                )
    return shares.to(torch.float64)


def _check_lengths(lengths: Any, shape: Sequence[int], program: Program) -> tuple[tuple[int, ...], ...]:
    """The size of the valid part of each image, along every axis."""
    if isinstance(lengths, Tensor) and lengths.device.type != "cpu":
        raise ValueError(
            f"gmml_aug: lengths are on {lengths.device}. Give them on the CPU: reading them here would make the device wait."
        )
    rows = checks.plain(lengths)
    if isinstance(rows, str) or not isinstance(rows, Sequence):
        raise TypeError(f"gmml_aug: lengths={lengths!r} is neither a tensor nor a list of integers. Give one for each image.")
    size, batch = tuple(shape[2:]), shape[0]
    if len(rows) != batch:
        raise ValueError(f"gmml_aug: got {len(rows)} lengths for {batch} images. Give one for each image.")
    found = []
    for row in rows:
        row = checks.plain(row)
        valid = tuple(row) if isinstance(row, Sequence) else (*size[:-1], row)
        if len(valid) != len(size):
            raise ValueError(
                f"gmml_aug: lengths={row!r} for {len(size)} spatial axes. Give one number, for the last axis, or {len(size)} "
                "numbers."
            )
        each = zip(valid, size, strict=True)
        found.append(tuple(checks.check_integer("gmml_aug", "lengths", number, 1, length) for number, length in each))
        for place in program.places:
            if isinstance(place, Place):
                place.check_size(free_size(place, found[-1]))
    return tuple(found)


def check_plan(plan: Plan, program: Program) -> None:
    """Check that a plan was sampled from this program."""
    if not isinstance(plan, Plan):
        raise TypeError(f"gmml_aug: expected a Plan, not {type(plan).__name__}. Make one with sample(images.shape).")
    if plan.fingerprint == program.fingerprint:
        return
    places = len(plan.boxes) == len(program.places) and all(boxes.shape[2] == 2 * program.dims for boxes in plan.boxes)
    if plan.steps != program.names or not places:
        raise ValueError(
            f"gmml_aug: the plan has the steps {', '.join(plan.steps)} at {len(plan.boxes)} places, but this corruption has "
            f"{', '.join(program.names)} at {len(program.places)}. Give a plan that was sampled by this corruption or an "
            "equal one."
        )
    if plan.fingerprint:
        raise ValueError(
            f"gmml_aug: the plan has the steps {', '.join(plan.steps)} as this corruption does, but was sampled by one with "
            f"other settings (fingerprint {plan.fingerprint}, here {program.fingerprint}). Give a plan that was sampled by "
            "this corruption or an equal one; only values= may differ."
        )


def check_fit(plan: Plan, program: Program, images: Tensor, donors: Tensor | None) -> Tensor:
    """Check that a plan is for images of this shape, on their device, and return the images that its donor numbers refer to."""
    wanted = (plan.keys.shape[0], *plan.shape)
    if wanted != tuple(images.shape):
        raise ValueError(f"gmml_aug: the plan is for images {wanted}, not {tuple(images.shape)}. Sample one for them, or slice it.")
    checks.check_device("plan", plan.keys.device, images.device)
    check_kind("the plan", plan.keys)
    found = images if donors is None else checks.check_donors(donors, images)
    if program.reads_donors and donors is None and plan.bank:
        raise ValueError(
            f"gmml_aug: the plan chose donors from a bank of {plan.donors} images, which was not given. Pass it as donors=."
        )
    if program.reads_donors and found.shape[0] != plan.donors:
        raise ValueError(
            f"gmml_aug: the plan chose donors among {plan.donors} images, but {found.shape[0]} are here. Give the batch or "
            "bank it was sampled for as donors=."
        )
    return found


def keep_apart(batch: Batch, program: Program) -> Batch:
    """Return the batch after checking that no memory is both read and written to."""
    images, pool, out = batch.images, batch.donors, batch.out
    if out is None:
        return batch
    if overlap(out, images):
        batch = batch._replace(images=images.clone())
    if pool is images:
        return batch._replace(donors=batch.images)
    return batch._replace(donors=pool.clone()) if program.reads_donors and overlap(out, pool) else batch


def check_bytes(images: Tensor, values: Values, dtype: torch.dtype, clean: bool) -> None:
    """Check that the images are bytes, and that there are statistics to normalise them with."""
    checks.check_switch("from_bytes", "clean", clean)
    mend = " For images that are already floats, call the corruption itself: corrupt(images)."
    check_tensor("images", images, "a uint8 tensor (B, C, *S), 0 to 255", mend, torch.uint8, who="from_bytes")
    if dtype not in NORMALISED:
        raise TypeError(f"from_bytes: dtype={dtype}. Allowed: {', '.join(map(str, NORMALISED))}.")
    if values == "normalised":
        raise ValueError(
            'from_bytes: this corruption has values="normalised", so the statistics to normalise by are not known. Give them '
            'when you create the corruption: values=(mean, std), or values="unit" for 0 to 1.'
        )
