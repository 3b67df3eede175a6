"""Fields of frozen dataclasses: store checked values, and print the code that builds the object."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

T = TypeVar("T")


def keep(owner: object, name: str, value: object) -> None:
    """Store a checked value."""
    object.__setattr__(owner, name, value)


def keep_range(owner: object, name: str, value: tuple[Any, Any]) -> None:
    """Store a checked (low, high).

    A range with low == high is stored as one number, so that the two ways of writing it compare equal.
    """
    keep(owner, name, value[0] if value[0] == value[1] else value)


def pair_of(value: T | tuple[T, T]) -> tuple[T, T]:
    """(low, high) of a value that `keep_range` stored."""
    return value if isinstance(value, tuple) else (value, value)


def as_code(self: Any) -> str:
    """The ``repr`` of a frozen dataclass: its constructor call, without arguments that equal their defaults.

    ``eval(repr(c), vars(gmml_aug)) == c`` for every composition of the library.
    """
    if not dataclasses.is_dataclass(self):
        return object.__repr__(self)
    words = []
    for field in dataclasses.fields(self):
        value = getattr(self, field.name)
        if field.kw_only:
            if value != field.default:
                words.append(f"{field.name}={value!r}")
        elif isinstance(value, tuple):
            nested = any("\n" in repr(part) for part in value) or sum(len(repr(part)) for part in value) > 80
            lines = ",\n".join(repr(part) for part in value).replace("\n", "\n    ")
            words.append(f"[\n    {lines},\n]" if nested else repr(list(value)))
        else:
            words.append(repr(value))
    return f"{type(self).__name__}({', '.join(words)})"


def settings(part: object) -> tuple[Any, ...]:
    """The class of a fill or place, and its non-default settings, so that options added later do not change the result."""
    if dataclasses.is_dataclass(part):
        fields = [(one.name, getattr(part, one.name), one.default) for one in dataclasses.fields(part)]
        told = [(name, value) for name, value, default in fields if value != default]
    else:
        told = sorted((name, value) for name, value in getattr(part, "__dict__", {}).items() if name != "_program")
    return (type(part).__qualname__, *told)
