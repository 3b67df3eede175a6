"""The operations on a group of pixels that every backend knows, and the tensors that a fill sees when it computes its own pixels.

A fill lowers to one of five operations, or to itself: then its own `pixels` is called. An operation says what is done and from
which distribution its numbers are drawn; the numbers themselves, one row per image, are in the plan. Backends carry out operations
and never see a fill; `register_operation` registers a function for your own fill or operation on one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import Tensor

from gmml_aug.checks import check_choice
from gmml_aug.values import Values

Tensors = tuple[Tensor, ...]


class Scene(NamedTuple):
    """What a fill sees when it makes its pixels; read these tensors, but never write to them.

    Attributes:
        now: (B, C, *S) the images after the earlier steps.
        clean: (B, C, *S) the images before any step.
        donors: (N, C, *S) where aliens come from: the whole clean batch, or the bank.
        mask: (B, 1, *S) bool: the new pixels are used only where it is True.
        values: the value range; see `gmml_aug.Chain`.
    """

    now: Tensor
    clean: Tensor
    donors: Tensor
    mask: Tensor
    values: Values


Pixels = Callable[[Any, Scene, Tensors], Any]
BackendName = Literal["reference", "cpu", "triton"]
BACKENDS: tuple[BackendName, ...] = ("reference", "cpu", "triton")


class Operation:
    """What a step does to its pixels; a fill is an operation too."""


@dataclass(frozen=True)
class Colour(Operation):
    """One value per channel.

    Drawn: for ``"drawn"``, (B, C) float32, uniform in low to high for each image and channel, or the fixed values in ``channels``
        if these are given; otherwise nothing.
    """

    source: Literal["zeros", "drawn", "mean"]  # "mean": of each channel of each clean image
    low: float = 0.0
    high: float = 0.0
    channels: tuple[float, ...] = ()


@dataclass(frozen=True)
class Take(Operation):
    """Pixels of a clean image.

    Drawn: if there are donors, their numbers, (B,) int64; then, if the content is moved, the shifts, (B, D) int64: the content at
        p comes from p + shift, modulo the image.
    """

    donor: bool  # another image's, else the image's own
    moved: bool


@dataclass(frozen=True)
class Draw(Operation):
    """Noise, a new value for every pixel and channel. Drawn: the keys of its stream, (B,) int64."""

    distribution: Literal["normal", "uniform", "matched"] | None
    per: Literal["channel", "pixel"]


@dataclass(frozen=True)
class Mix(Operation):
    """Luma in every channel, a linear function of a pixel's channels. Nothing is drawn."""


@dataclass(frozen=True)
class Convolve(Operation):
    """A Gaussian blur along every axis, with its own sigma for every image.

    Drawn: sigma, (B,) float32, and the number of taps, (B,) int64.
    """

    sigma: tuple[float, float]
    taps: tuple[int, int]


_FUNCTIONS: dict[tuple[BackendName, type], Pixels] = {}


def register_operation(kind: type, backend: BackendName, function: Pixels) -> None:
    """Register a function that carries out your own fill or operation on one backend.

    Without one, the backend calls the fill's `pixels`. The function is called only when a step has work to do, between the
    backend's own operations, and may launch a kernel. Its result must equal that of `pixels` within float tolerance.

    Args:
        kind: the class of the fill; an instance of it is ``function``'s first argument.
        backend: ``"cpu"``, ``"triton"`` (CUDA), or ``"reference"`` (any device).
        function: ``(fill, scene, drawn) -> pixels``, as for `Fill.pixels`: it returns a tensor that broadcasts to (B, C, *S); it
            must not write to the scene.

    Raises:
        TypeError: ``kind`` is not a class of fill or operation, or ``function`` cannot be called.
        ValueError: the backend is unknown.

    Source:
        Ours.
    """
    if not isinstance(kind, type) or not issubclass(kind, Operation):
        raise TypeError(f"register_operation: kind={kind!r} is not a class of fill. Give the class, for example MyFill.")
    check_choice("register_operation", "backend", backend, BACKENDS)
    if not callable(function):
        raise TypeError(f"register_operation: function={function!r} cannot be called. Give a function (fill, scene, drawn).")
    _FUNCTIONS[backend, kind] = function


def function_of(operation: Operation, backend: BackendName) -> Pixels | None:
    """The registered function, or its own `pixels`; None if it has neither."""
    return _FUNCTIONS.get((backend, type(operation))) or getattr(type(operation), "pixels", None)
