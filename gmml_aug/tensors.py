"""What kind of tensor came: kinds that are refused, whether torch follows what is done to it, and whose memory it is."""

from __future__ import annotations

import torch
from torch import Tensor

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8)  # of images

_MOST_TRIES = 10_000  # of an overlap; images take some ten


def followed() -> bool:
    """True where torch follows every operation (compiled code, traces, function transforms, tangents, dispatch modes).

    Numbers cannot be read there, and nothing may be written but by torch's own operations out of place.
    """
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
        or torch._C._get_tracing_state() is not None
    )


def readable(one: Tensor) -> bool:
    """True where its numbers can be read without waiting: on a CPU where nothing follows."""
    return one.device.type == "cpu" and not followed()


def vmapped() -> bool:
    """True in a function transform, where a tensor's place in memory is not to be asked for."""
    return not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None


def check_kind(name: str, given: Tensor) -> Tensor:
    """A strided tensor without a class of its own and without a negative bit; the same memory wherever that is possible."""
    if torch.compiler.is_compiling():
        return given
    if torch._C._get_tracing_state() is not None:
        raise TypeError(
            "gmml_aug: torch.jit.trace (or an export that traces) came, which would keep the boxes of this one call for ever. Use "
            "torch.compile(corrupt) or torch.export, or leave the corruption out of what is traced."
        )
    if given.is_nested:
        raise TypeError(
            f"gmml_aug: got {name} as a nested tensor, images of several sizes. Give one tensor (B, C, *S): "
            "torch.nested.to_padded_tensor(images, 0.0), and the sizes as lengths=."
        )
    if given.layout is not torch.strided:
        raise TypeError(
            f"gmml_aug: got {name} with layout {given.layout}. Allowed is torch.strided: convert with images.to_dense()."
        )
    if type(given) is not Tensor:
        if type(given).__torch_dispatch__ is not torch._C._disabled_torch_dispatch_impl:
            if torch._C._len_torch_dispatch_stack() > 0:
                return given
            raise TypeError(
                f"gmml_aug: got {name} as a {type(given).__name__}, which carries out operations itself. Give a plain tensor: of "
                "a DTensor its own part, images.to_local(); a FakeTensor inside its mode, with FakeTensorMode()."
            )
        with torch._C.DisableTorchFunctionSubclass():
            given = given.as_subclass(Tensor)
    return given.resolve_neg() if given.is_neg() else given


def check_tensor(
    name: str, given: object, kind: str, mend: str = "", dtype: torch.dtype | None = None, *, who: str = "gmml_aug"
) -> Tensor:
    """A plain tensor, of one dtype if it matters; ``kind`` says in words what is wanted."""
    if not isinstance(given, Tensor) or (dtype is not None and given.dtype != dtype):
        came = given.dtype if isinstance(given, Tensor) else type(given).__name__
        raise TypeError(f"{who}: {name} must be {kind}, not {came}.{mend}")
    return check_kind(name, given)


def check_dtype(images: Tensor) -> None:
    """Only float16, bfloat16, float32, float64 and uint8 hold images."""
    kind = images.dtype
    if kind in DTYPES:
        return
    if kind.is_complex:
        mend = "torch.cat([images.real, images.imag], dim=1), which makes channels of the two parts"
    elif images.is_quantized:
        mend = "images.dequantize()"
    elif kind == torch.bool:
        mend = 'images.float(), which is 0 and 1: say values="unit"'
    else:
        wide = not kind.is_floating_point and kind.itemsize > 2
        mend = f"images.{'double' if wide else 'float'}(), which keeps {'integers below 2**53' if wide else 'every value'}"
        mend += "; say by values=(mean, std) what they are, since noise and zeros are those of normalised images otherwise"
    raise TypeError(
        f"gmml_aug: images are {kind}. Allowed are float16, bfloat16, float32, float64 (any value range) and uint8 (0 to 255); "
        f"convert with {mend}."
    )


def overlap(one: Tensor, other: Tensor) -> bool:
    """True where the two have a byte in common; where that takes long to say, True too."""
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
    """True if the distance is a sum of at most so many of each stride, the largest first."""
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
    """True where two of its elements may lie at one place."""
    if images.is_contiguous():
        return False
    reach = 0
    for stride, length in sorted((abs(s), n) for s, n in zip(images.stride(), images.shape, strict=True) if n > 1):
        if stride <= reach:
            return True
        reach += stride * (length - 1)
    return False
