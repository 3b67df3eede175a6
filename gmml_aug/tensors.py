"""Kinds of tensors: which are refused, whether torch records what is done to them, and whether they share memory."""

from __future__ import annotations

import torch
from torch import Tensor

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8)  # of images

_MOST_TRIES = 10_000  # of an overlap; images take some ten


def followed() -> bool:
    """True if torch records every operation (compiled code, traces, function transforms, tangents, dispatch modes).

    Then numbers cannot be read, and only torch's own out-of-place operations may be used.
    """
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
        or torch._C._get_tracing_state() is not None
    )


def readable(one: Tensor) -> bool:
    """True if a tensor's numbers can be read without waiting: it is on a CPU, and torch is not recording."""
    return one.device.type == "cpu" and not followed()


def vmapped() -> bool:
    """True in a function transform, where a tensor's address must not be read."""
    return not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None


def check_kind(name: str, given: Tensor) -> Tensor:
    """Convert to a plain strided tensor without a negative bit, in the same memory if possible."""
    if torch.compiler.is_compiling():
        return given
    if torch._C._get_tracing_state() is not None:
        raise TypeError(
            "gmml_aug: torch.jit.trace (or an export that traces) would keep the boxes of this one call forever. Use "
            "torch.compile(corrupt) or torch.export, or leave the corruption out of the code that is traced."
        )
    if given.is_nested:
        raise TypeError(
            f"gmml_aug: got {name} as a nested tensor, that is, images of several sizes. Give one tensor (B, C, *S): "
            "torch.nested.to_padded_tensor(images, 0.0), and the sizes as lengths=."
        )
    if given.layout is not torch.strided:
        raise TypeError(
            f"gmml_aug: got {name} with layout {given.layout}. Only torch.strided is accepted: convert with images.to_dense()."
        )
    if type(given) is not Tensor:
        if type(given).__torch_dispatch__ is not torch._C._disabled_torch_dispatch_impl:
            if torch._C._len_torch_dispatch_stack() > 0:
                return given
            raise TypeError(
                f"gmml_aug: got {name} as a {type(given).__name__}, which handles operations itself. Give a plain tensor: for "
                "a DTensor, its local part, images.to_local(); use a FakeTensor only inside its mode, with FakeTensorMode()."
            )
        with torch._C.DisableTorchFunctionSubclass():
            given = given.as_subclass(Tensor)
    return given.resolve_neg() if given.is_neg() else given


def check_tensor(
    name: str, given: object, kind: str, mend: str = "", dtype: torch.dtype | None = None, *, who: str = "gmml_aug"
) -> Tensor:
    """Check that a value is a plain tensor, of the given dtype if there is one; ``kind`` describes it in the error."""
    if not isinstance(given, Tensor) or (dtype is not None and given.dtype != dtype):
        came = given.dtype if isinstance(given, Tensor) else type(given).__name__
        raise TypeError(f"{who}: {name} must be {kind}, not {came}.{mend}")
    return check_kind(name, given)


def check_dtype(images: Tensor) -> None:
    """Check that images are float16, bfloat16, float32, float64 or uint8."""
    kind = images.dtype
    if kind in DTYPES:
        return
    if kind.is_complex:
        mend = "torch.cat([images.real, images.imag], dim=1), which turns the two parts into channels"
    elif images.is_quantized:
        mend = "images.dequantize()"
    elif kind == torch.bool:
        mend = 'images.float(), which gives 0 and 1: pass values="unit"'
    else:
        wide = not kind.is_floating_point and kind.itemsize > 2
        mend = f"images.{'double' if wide else 'float'}(), which keeps {'integers below 2**53' if wide else 'every value'}"
        mend += "; describe them with values=(mean, std), because noise and zeros are otherwise made for normalised images"
    raise TypeError(
        f"gmml_aug: images are {kind}. Allowed: float16, bfloat16, float32, float64 (any value range) and uint8 (0 to 255); "
        f"convert with {mend}."
    )


def overlap(one: Tensor, other: Tensor) -> bool:
    """True if the two tensors have a byte in common, or if it would take too long to find out."""
    if one is other:
        return True
    if one.device != other.device or one.device.type == "meta" or followed():
        return False
    start, end = one.data_ptr(), other.data_ptr()
    if one.is_contiguous() and other.is_contiguous():
        return start < end + other.nbytes and end < start + one.nbytes
    axes: dict[int, int] = {}  # bytes from one element to the next: how many steps there are, of either
    for tensor in (one, other):
        item = tensor.element_size()
        steps = [(abs(stride) * item, length - 1) for stride, length in zip(tensor.stride(), tensor.shape, strict=True)]
        for stride, count in [*steps, (1, item - 1)]:
            axes[stride] = axes.get(stride, 0) + count
        end += sum(stride * count for stride, count in [*steps, (1, item - 1)]) if tensor is other else 0
    # one + sum(a) = other + sum(b) with 0 <= b <= most; so one + sum(a) + sum(most - b) = the last byte of the other
    axes.pop(0, None)
    return _reaches(end - start, sorted(((s, n) for s, n in axes.items() if n), reverse=True), [_MOST_TRIES])


def _reaches(distance: int, axes: list[tuple[int, int]], tries: list[int]) -> bool:
    """True if the distance can be written as a sum of strides, each used at most a given number of times.

    The strides are sorted, with the largest first.
    """
    tries[0] -= 1
    if distance == 0 or tries[0] < 0:
        return True
    if not axes or distance < 0:
        return False
    (stride, count), rest = axes[0], axes[1:]
    reach = sum(s * n for s, n in rest)
    least, most = max(-((reach - distance) // stride), 0), min(distance // stride, count)
    return any(_reaches(distance - number * stride, rest, tries) for number in range(least, most + 1))


def repeats_itself(images: Tensor) -> bool:
    """True if two elements of the tensor may share memory."""
    if images.is_contiguous():
        return False
    reach = 0
    for stride, length in sorted((abs(s), n) for s, n in zip(images.stride(), images.shape, strict=True) if n > 1):
        if stride <= reach:
            return True
        reach += stride * (length - 1)
    return False
