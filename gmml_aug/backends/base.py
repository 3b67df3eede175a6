"""The single entry to the backends: chooses which one makes a plan, and which one paints it.

A backend is two functions, ``plan(program, request)`` and ``paint(program, batch, plan)``, and a check, ``can(program, shape,
dtype, device, gradient=...)``, which returns None, or the reason why the backend cannot be used (without a dtype it refers to
plans). All backends make equal plans and masks, and images that agree within float tolerance. A backend that is faster when it
does both at once also has ``corrupt(program, batch, request)``. When a call is traced, this runs as plain Python.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, cast, get_args

import torch

from gmml_aug.backends.call import Batch, Painted, Request
from gmml_aug.checks import check_choice
from gmml_aug.plan import Plan
from gmml_aug.program import Program
from gmml_aug.tensors import followed

Name = Literal["reference", "cpu", "triton"]
Choice = Literal["auto", "reference", "cpu", "triton", "fused", "torch"]

_FOLLOWED = "it does not work in compiled code, traces, function transforms or forward-mode derivatives"
_CHOICES = get_args(Choice)
_NAMES = {"fused": "triton", "torch": "reference"}  # other words for the same

_LOADED: dict[Name, Backend] = {}


class Backend(NamedTuple):
    """The interface that every backend provides."""

    can: Callable[..., str | None]
    plan: Callable[[Program, Request], Plan]
    paint: Callable[[Program, Batch, Plan], Painted]
    corrupt: Callable[[Program, Batch, Request], Painted | None] | None = None  # None where the plan has to be there first


def choose(
    wanted: str,
    program: Program,
    shape: Sequence[int],
    dtype: torch.dtype | None,
    device: torch.device,
    *,
    gradient: bool = False,
) -> Backend:
    """Choose the backend for a call, by its name, or else the fastest one that can do it.

    ``dtype`` is the dtype of the result, or None for a plan.

    Raises:
        ValueError: the name is unknown, or the backend cannot do this; the message says why.
    """
    check_choice("gmml_aug", "backend", wanted, _CHOICES)
    name = _NAMES.get(wanted, wanted)
    if name == "auto":
        fast: Name | None = "triton" if device.type == "cuda" else "cpu" if device.type == "cpu" else None
        if fast is not None and not followed():
            backend = backend_of(fast)
            if backend.can(program, shape, dtype, device, gradient=gradient) is None:
                return backend
        name = wanted = "reference"
    backend = backend_of(cast(Name, name))
    reason = _FOLLOWED if name != "reference" and followed() else backend.can(program, shape, dtype, device, gradient=gradient)
    if reason is not None:
        other = "" if name == "reference" else ' Use backend="auto", or "reference".'
        raise ValueError(f'gmml_aug: backend="{wanted}" cannot do this: {reason}.{other}')
    return backend


def backend_of(name: Name) -> Backend:
    """Return a backend by its name; it is imported on first use."""
    if torch.compiler.is_compiling():
        return _load(name)
    if name not in _LOADED:
        _LOADED[name] = _load(name)
    return _LOADED[name]


def _load(name: Name) -> Backend:
    if name == "triton":
        from gmml_aug.backends.triton import paint as triton
        from gmml_aug.backends.triton import plan as triton_plan

        return Backend(triton.can, triton_plan.plan, triton.paint)
    if name == "cpu":
        from gmml_aug.backends.cpu import paint as cpu
        from gmml_aug.backends.cpu import plan as cpu_plan

        return Backend(cpu.can, cpu_plan.plan, cpu.paint, cpu.corrupt)
    from gmml_aug.backends.reference import paint, plan

    return Backend(paint.can, plan.plan, paint.paint)
