"""The structs of the compiled core, field by field as in `core/core.h`; every field has eight bytes, so there is no padding."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_double as f64
from ctypes import c_int64 as i64
from ctypes import c_void_p as pointer
from typing import Any, Final


class Gate(ctypes.Structure):
    """A gate, open if uniform draw number ``draw`` lies in low <= u < high."""

    _fields_ = [("draw", i64), ("low", f64), ("high", f64)]


class Place(ctypes.Structure):
    """A place, and how its boxes are drawn."""

    _fields_ = [
        ("kind", i64),
        ("free", i64),
        ("axis", i64 * 3),
        ("size", i64 * 3),
        ("step", i64 * 3),
        ("least", i64 * 3),
        ("values", i64 * 3),
        ("corners", i64 * 3),
        ("placement", i64),
        ("overshoot", i64),
        ("boxes", i64),
        ("covers", i64),
        ("least_amount", i64),
        ("amounts", i64),
        ("word", i64),
        ("rows", i64),
        ("step_list", i64),
        ("steps", i64),
        ("share", f64),
        ("share_span", f64),
        ("stretch", f64),
        ("stretch_span", f64),
    ]


class Draws(ctypes.Structure):
    """The rule by which a step draws for an image."""

    _fields_ = [
        ("law", i64),
        ("works", i64),
        ("gate", i64),
        ("gates", i64),
        ("budget_list", i64),
        ("budgets", i64),
        ("least", i64),
        ("values", i64),
        ("constants", i64),
        ("low", f64),
        ("span", f64),
    ]


class Program(ctypes.Structure):
    """The input for a plan."""

    _fields_ = [
        ("dims", i64),
        ("channels", i64),
        ("size", i64 * 3),
        ("steps", i64),
        ("places", i64),
        ("budgets", i64),
        ("words", i64),
        ("draws", pointer),
        ("place", pointer),
        ("gate", pointer),
        ("numbers", pointer),
        ("limits", pointer),
        ("constants", pointer),
    ]


class Step(ctypes.Structure):
    """The operation of a step on pixels."""

    _fields_ = [("operation", i64), ("place", i64), ("kind", i64), ("flags", i64), ("constants", i64), ("taps", i64)]


class Picture(ctypes.Structure):
    """What is painted."""

    _fields_ = [
        ("dims", i64),
        ("channels", i64),
        ("size", i64 * 3),
        ("interleaved", i64),
        ("type", i64),
        ("from_bytes", i64),
        ("steps", i64),
        ("places", i64),
        ("step", pointer),
        ("reading", pointer),
        ("constants", pointer),
        ("normal", pointer),
        ("normal_typed", pointer),
    ]


STRUCTS: Final = (Gate, Place, Draws, Program, Step, Picture)
WHOLE, BOXES, CELLS, BLOCKS = range(4)
NOTHING, KEY, COLOUR_DRAWN, COLOUR_FIXED, DONOR, SHIFT, DONOR_SHIFT, GAUSSIAN = range(8)
ZEROS, DRAWN, MEAN, TAKE, NOISE, GREY, BLUR = range(7)
TABLE, BYTES, NORMAL, UNIFORM, MATCHED = range(5)
PIXEL, CLAMP = 1, 2
OTHER, MOVED = 1, 2
ALL, READ, MERGE = range(3)
ONE_CLEAN = 2
MOST_TAPS = 255


_THREE: Final = i64 * 3
_FEWER: Final = ((0, 0, 0), (1, 1, 1))


def three(numbers: Sequence[int], missing: int) -> Any:
    """One entry for each of three axes; missing axes are added at the front."""
    return _THREE(*_FEWER[missing][len(numbers) :], *numbers)


def table(kind: Any, entries: Sequence[Any]) -> Any:
    """A C array with at least one entry."""
    return (kind * max(len(entries), 1))(*entries)
