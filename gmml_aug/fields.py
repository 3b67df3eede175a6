"""Print a composition as the code that builds it."""

from __future__ import annotations

import dataclasses
from typing import Any


def written(self: Any) -> str:
    """The ``repr`` of a frozen dataclass: its call, without what equals the defaults.

    ``eval(repr(c), vars(gmml_aug)) == c`` for every composition of the library.
    """
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
