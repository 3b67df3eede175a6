"""Paint with Triton kernels: a run of steps reads and writes the images once, and noise is drawn only for pixels that get it.

The same plan gives the same mask, bit for bit, and images that agree within float tolerance: the bits of `marks` say where steps
work, and the noise uses the same 16 bits of the same hash. A blur has its own kernels; for a fill without a kernel, `pixels` is
called between two runs. Nothing waits for the device.

For bytes, the first run normalises its input as `values.normalise` does, and writes the clean batch too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext

import torch

from gmml_aug.backends.call import Batch, Painted
from gmml_aug.backends.reference import paint as reference
from gmml_aug.backends.triton import blur
from gmml_aug.backends.triton.lower import IN_A_RUN, runs_on
from gmml_aug.backends.triton.painting import Painting
from gmml_aug.ops import Convolve
from gmml_aug.plan import Plan
from gmml_aug.program import Program
from gmml_aug.values import NORMALISED

_DTYPES = (torch.uint8, *NORMALISED)
_MOST_CHANNELS = 16  # a program holds all channels of its pixels
_MOST_STEPS = 32  # each is code of its own
_LARGEST = 1 << 31  # numbers in an image: offsets inside it are 32 bits wide


def can(program: Program, shape: Sequence[int], dtype: torch.dtype | None, device: torch.device, *, gradient: bool) -> str | None:
    """None, or the reason why this backend cannot be used; places that the planning kernel lacks do not count as one."""
    if not runs_on(device):
        return f"the kernels run on CUDA with Triton 3.4 or newer, outside compiled code, not on {device} here"
    if gradient:
        return "the kernels give no gradients to the images"
    if dtype is None:
        return reference.can(program, shape, dtype, device, gradient=gradient)
    kinds = [type(step.operation) for step in program.steps]
    if dtype not in _DTYPES:
        return f"the kernels paint uint8, float16, bfloat16 and float32, not {dtype}"
    if shape[1] > _MOST_CHANNELS:
        return f"the kernels support up to {_MOST_CHANNELS} channels, not {shape[1]}"
    if math.prod(shape[1:]) >= _LARGEST:
        return f"an image of {math.prod(shape[1:])} numbers has offsets beyond 32 bits"
    if len(kinds) > _MOST_STEPS:
        return f"the kernels support up to {_MOST_STEPS} steps, not {len(kinds)}"
    if any(where is not None and not where.is_boxes for where in program.places):
        return "a place of this program is not made of boxes"
    if not any(kind in (*IN_A_RUN, Convolve) for kind in kinds):
        return "none of the steps is an operation that the kernels support"
    return reference.can(program, shape, dtype, device, gradient=gradient)


def paint(program: Program, batch: Batch, plan: Plan) -> Painted:
    """The fused form of the reference's `paint`; call it only if `can` returns None.

    Returns:
        The corrupted images, in the memory format of ``images`` or in ``out``, the mask, and for bytes the clean batch.
    """
    if any(boxes.dtype == torch.bool for boxes in plan.boxes):  # what lies outside of boxes in padded images
        return reference.paint(program, batch, plan)
    with torch.no_grad(), torch.cuda.device(batch.images.device) if batch.images.is_cuda else nullcontext():
        call = Painting(program, batch, plan)
        number = 0
        while number < len(program.steps):
            operation = program.steps[number].operation
            end = number
            while end < len(program.steps) and type(program.steps[end].operation) in IN_A_RUN:
                end += 1
            boxed = blur.boxed(call, end) if end > number or number == 0 else []
            if end > number or boxed:
                call.run(number, end, boxed)
                for one in boxed:
                    blur.in_place(call, one)
                end += len(boxed)
            elif isinstance(operation, Convolve):
                blur.by_axes(call, number, operation)
            else:
                call.ask(number)
            number = max(end, number + 1)
        return call.result()
