"""Markdown from the texts of a config, escaped so that no text can break the layout."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard


def table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]], *, keep: bool = False) -> str:
    """A table; empty rows are left out, or with ``keep`` shown as not recorded."""
    told = [row for row in rows if keep or any(cell is not None for cell in row[1:])]
    if not told:
        return ""
    lines = [head, tuple("---" for _ in head), *told]
    return "\n".join("| " + " | ".join("not recorded" if cell is None else line(cell) for cell in row) + " |" for row in lines)


def line(value: object) -> str:
    """Text for one line of Markdown: no line breaks, no table cells, no HTML, no links."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:400]
    return re.sub(r"([|<>`\[\]])", r"\\\1", text.replace("\\", "\\\\"))


def code(value: object) -> str:
    """A name that stands between backticks."""
    return re.sub(r"[^\w.-]", "", str(value))


def fenced(recipe: object) -> str:
    """A block of text or JSON, with a fence longer than any inside it."""
    if recipe is None:
        return "Not recorded."
    text = recipe if isinstance(recipe, str) else json.dumps(recipe, indent=2, sort_keys=True, default=str)
    text = "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text)
    runs = [len(run) for run in re.findall("`+", text)]
    fence = "`" * max(3, max(runs, default=0) + 1)
    return f"{fence}\n{text}\n{fence}"


def mapping(value: object) -> Mapping[str, Any]:
    """A mapping unchanged, anything else as an empty one."""
    return value if isinstance(value, Mapping) else {}


def mappings(value: object) -> list[Mapping[str, Any]]:
    """The mappings of a list; of anything else none."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list | tuple) else []


def is_number(value: object) -> TypeGuard[int | float]:
    """True for a finite number that is not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
