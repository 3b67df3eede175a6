"""Writes the command line that produces a config."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gmml_models.data.config import DataConfig
from gmml_models.recipes.named import RECIPES, Recipe

_PLACES = ("data", "data_root", "test_data", "labels", "weights", "out")


def command_of(config: DataConfig, name: str, *, bare: bool = False, first: Sequence[str] = (), recipe: Recipe = "paper") -> str:
    """Write the command ``gmml NAME ...`` that produces a config; options at their defaults are left out.

    Args:
        config: any config of `gmml_models.recipes.config`.
        name: the name of the command.
        bare: True to shorten paths to their last part and leave out ``out`` and ``overwrite``, for publication.
        first: the names of fields to write before the others.
        recipe: the recipe that the command starts from.
    """
    words = ["gmml", name, *(["--recipe", recipe] if recipe != "paper" else [])]
    settings = RECIPES[name][recipe] if recipe != "paper" else {}
    known = {field.name: field for field in dataclasses.fields(config)}
    for field in (known[one] for one in dict.fromkeys((*first, *known))):
        value = getattr(config, field.name)
        if value == settings.get(field.name, field.default) or (bare and field.name in ("out", "overwrite")):
            continue
        if bare and field.name in _PLACES and value is not None and Path(str(value)).exists():
            value = Path(str(value)).resolve().name
        words += _words(field.name.replace("_", "-"), value, field.default)
    return shlex.join(words)


def _words(name: str, value: Any, default: Any) -> list[str]:
    if isinstance(value, bool) and isinstance(default, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    parts = value if isinstance(value, tuple) else (value,)
    return [f"--{name}", *(str(part) for part in parts)]
