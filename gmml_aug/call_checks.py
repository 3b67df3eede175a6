"""What fits what: images, maps and plans against a program, before any work."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gmml_aug import checks
from gmml_aug.backends.reference.paint import Bounds
from gmml_aug.places.base import free_axes
from gmml_aug.plan import Plan
from gmml_aug.program import Program


def check_call(
    images: Tensor, program: Program, donors: Tensor | None, allowed: Tensor | None, forced: Tensor | None, backend: str
) -> int | None:
    """What a call gets beside its chance; the number of images in its bank, None without one."""
    check_images(images, program)
    if donors is not None:
        checks.check_donors(donors, images)
    bounds(images, allowed, forced)
    wants_fused(backend, program, images, images if donors is None else donors)
    return None if donors is None or donors is images else donors.shape[0]


def check_images(images: Tensor, program: Program) -> None:
    """Images that this program can work on."""
    if not isinstance(images, Tensor):
        raise TypeError(
            f"gmml_aug: images must be a tensor (B, C, *S), but {type(images).__name__} came. Stack them: torch.stack(list)."
        )
    checks.check_dtype(images)
    checks.check_shape(images.shape, program.dims)
    program.check_channels(images.shape[1])


def bounds(images: Tensor, allowed: Tensor | None, forced: Tensor | None) -> Bounds:
    """The maps of a call, checked against its images."""
    for name, bound in (("allowed", allowed), ("forced", forced)):
        if bound is not None:
            checks.check_bound(name, bound, images)
    return Bounds(allowed, forced)


def check_chance(
    device: torch.device | str | None, keys: Tensor | None, generator: torch.Generator | None, bank: int | None, batch: int
) -> torch.device:
    """Where a plan's chance comes from; the device that it is made on."""
    if bank is not None:
        checks.check_integer("sample", "bank", bank, 1)
    if keys is not None and generator is not None:
        raise ValueError("gmml_aug: both keys and a generator came, and each decides everything. Give one of them.")
    if device is not None:
        where = torch.device(device)
    elif isinstance(keys, Tensor):
        where = keys.device
    else:
        where = generator.device if isinstance(generator, torch.Generator) else torch.get_default_device()
    if keys is not None:
        checks.check_keys(keys, batch, where)
    elif generator is not None:
        checks.check_generator(generator, where)
    return where


def check_size(shape: Sequence[int], program: Program) -> None:
    """Images (B, C, *S) in which the boxes have room, of as many channels as there are statistics."""
    for place in program.places:
        if place is not None:
            place.check_size([shape[2 + axis] for axis in free_axes(place)])
    program.check_channels(shape[1])


def check_plan(plan: Plan, program: Program) -> None:
    """A plan with the steps of this program."""
    if not isinstance(plan, Plan):
        raise TypeError(f"gmml_aug: a Plan is wanted, but {type(plan).__name__} came. Make one with sample(images.shape).")
    if plan.fingerprint == program.fingerprint:
        return
    places = len(plan.boxes) == len(program.places) and all(boxes.shape[2] == 2 * program.dims for boxes in plan.boxes)
    if plan.steps != program.names or not places:
        raise ValueError(
            f"gmml_aug: the plan has the steps {', '.join(plan.steps)} at {len(plan.boxes)} places, this corruption "
            f"{', '.join(program.names)} at {len(program.places)}. Give a plan that this corruption, or an equal one, has sampled."
        )
    if plan.fingerprint:
        raise ValueError(
            f"gmml_aug: the plan has the steps {', '.join(plan.steps)} as this corruption has, but was sampled by one with other "
            f"settings (fingerprint {plan.fingerprint}, here {program.fingerprint}). Give a plan that this corruption, or an equal "
            "one, has sampled; only values= may differ."
        )


def check_fit(plan: Plan, images: Tensor) -> None:
    """A plan for images of this shape, on their device."""
    wanted = (plan.keys.shape[0], *plan.shape)
    if wanted != tuple(images.shape):
        raise ValueError(
            f"gmml_aug: the plan is for images {wanted}, but {tuple(images.shape)} came. Sample one for them, or slice it."
        )
    checks.check_device("plan", plan.keys.device, images.device)


def pool(plan: Plan, program: Program, images: Tensor, donors: Tensor | None) -> Tensor:
    """The images that the plan's donor numbers refer to."""
    if donors is not None:
        checks.check_donors(donors, images)
    found = images if donors is None else donors
    if program.foreign and donors is None and plan.bank:
        raise ValueError(
            f"gmml_aug: the plan chose donors from a bank of {plan.donors} images, which did not come. Give it as donors=."
        )
    if program.foreign and found.shape[0] != plan.donors:
        raise ValueError(
            f"gmml_aug: the plan chose donors among {plan.donors} images, but {found.shape[0]} are here. Give the batch or "
            "bank it was sampled for as donors=."
        )
    return found


def share_memory(one: Tensor, other: Tensor) -> bool:
    """True where writing to one may change the other."""
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def wants_fused(backend: str, program: Program, images: Tensor, donors: Tensor) -> bool:
    """True for ``backend="fused"``, and for ``"auto"`` on CUDA where the kernels can do this.

    Raises:
        ValueError: an unknown backend, or kernels that do not work here.
    """
    if not _may_fuse(backend, images.device):
        return False
    from gmml_aug.backends.triton import paint as fused

    can = fused.supports(program, images, donors)
    if backend == "fused" and not can:
        raise ValueError(
            f'gmml_aug: backend="fused" cannot do this: {images.dtype} on {images.device}. It takes uint8, float16, bfloat16 and '
            "float32 of up to 16 channels on CUDA with Triton 3.4, outside compiled code and without gradients to the images. Use "
            'backend="torch".'
        )
    return can


def wants_fused_plan(backend: str, device: torch.device) -> bool:
    """True for ``backend="fused"``, and for ``"auto"`` on CUDA where kernels run.

    Raises:
        ValueError: an unknown backend, or a device on which no kernels run.
    """
    if not _may_fuse(backend, device):
        return False
    from gmml_aug.backends.triton.lower import runs_on

    can = runs_on(device)
    if backend == "fused" and not can:
        raise ValueError(
            f'gmml_aug: backend="fused" cannot make a plan on {device}. It takes CUDA with Triton 3.4, outside compiled code. Use '
            'backend="torch".'
        )
    return can


def _may_fuse(backend: str, device: torch.device) -> bool:
    if backend not in ("auto", "torch", "fused"):
        raise ValueError(f"gmml_aug: backend={backend!r} is unknown. Allowed are 'auto', 'torch' and 'fused'.")
    return backend == "fused" or (backend == "auto" and device.type == "cuda")
