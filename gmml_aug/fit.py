"""What fits what: images, maps and plans against a program, before any work."""

from __future__ import annotations

from torch import Tensor

from gmml_aug import checks
from gmml_aug.paint import Bounds
from gmml_aug.plan import Plan
from gmml_aug.program import Program


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


def check_plan(plan: Plan, program: Program) -> None:
    """A plan with the steps of this program."""
    if not isinstance(plan, Plan):
        raise TypeError(f"gmml_aug: a Plan is wanted, but {type(plan).__name__} came. Make one with sample(images.shape).")
    places = len(plan.boxes) == len(program.places) and all(boxes.shape[2] == 2 * program.dims for boxes in plan.boxes)
    if plan.steps != program.names or not places:
        raise ValueError(
            f"gmml_aug: the plan has the steps {', '.join(plan.steps)} at {len(plan.boxes)} places, this corruption "
            f"{', '.join(program.names)} at {len(program.places)}. Give a plan that this corruption, or one written with the same "
            "steps, has sampled."
        )


def check_fit(plan: Plan, images: Tensor) -> None:
    """A plan for images of this shape, on their device."""
    wanted = (plan.keys.shape[0], *plan.shape)
    if wanted != tuple(images.shape):
        raise ValueError(
            f"gmml_aug: the plan is for images {wanted}, but {tuple(images.shape)} came. Sample one for them, or slice it."
        )
    checks.check_device("plan", plan.keys.device, images.device)


def wants_fused(backend: str, program: Program, images: Tensor, donors: Tensor) -> bool:
    """True for ``backend="fused"``.

    Raises:
        ValueError: an unknown backend, or kernels that do not work here.
    """
    if backend == "torch":
        return False
    if backend != "fused":
        raise ValueError(f"gmml_aug: backend={backend!r} is unknown. Allowed are 'torch' and 'fused'.")
    from gmml_aug import fused

    if not fused.supports(program, images, donors):
        raise ValueError(
            f'gmml_aug: backend="fused" cannot do this: {images.dtype} on {images.device}. It takes uint8, float16, bfloat16 and '
            "float32 of up to 16 channels on CUDA with Triton, outside compiled code and without gradients to the images. Use "
            'backend="torch".'
        )
    return True
