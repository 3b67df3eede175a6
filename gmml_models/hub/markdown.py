"""Makes Markdown from the texts of a config, escaped so that no text can break the layout."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard


def table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]], *, keep: bool = False) -> str:
    """Format a table; empty rows are left out, or with ``keep`` shown as not recorded."""
    told = [row for row in rows if keep or any(cell is not None for cell in row[1:])]
    if not told:
        return ""
    lines = [head, tuple("---" for _ in head), *told]
    return "\n".join("| " + " | ".join("not recorded" if cell is None else line(cell) for cell in row) + " |" for row in lines)


def line(value: object) -> str:
    """Escape text for one line of Markdown: no line breaks, no table cells, no HTML, no links."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:400]
    return re.sub(r"([|<>`\[\]])", r"\\\1", text.replace("\\", "\\\\"))


def code(value: object) -> str:
    """Escape a name that is put between backticks."""
    return re.sub(r"[^\w.-]", "", str(value))


def fenced(recipe: object) -> str:
    """Format a block of text or JSON, with a fence longer than any inside it."""
    if recipe is None:
        return "Not recorded."
    text = recipe if isinstance(recipe, str) else json.dumps(recipe, indent=2, sort_keys=True, default=str)
    text = "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text)
    runs = [len(run) for run in re.findall("`+", text)]
    fence = "`" * max(3, max(runs, default=0) + 1)
    return f"{fence}\n{text}\n{fence}"


def mapping(value: object) -> Mapping[str, Any]:
    """Return a mapping unchanged, and an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def mappings(value: object) -> list[Mapping[str, Any]]:
    """Return the mappings in a list, and an empty list for anything else."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list | tuple) else []


def is_number(value: object) -> TypeGuard[int | float]:
    """True for a finite number that is not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
