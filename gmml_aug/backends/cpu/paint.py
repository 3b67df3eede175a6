"""Pixels by the compiled core."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gmml_aug.program import Program


def can(program: Program, shape: Sequence[int], dtype: torch.dtype | None, device: torch.device, *, gradient: bool) -> str | None:
    """None, or the reason why not."""
    return "there is no compiled core"
