"""How a number changes over a run: rates, weight decay, the momentum of a teacher."""

from __future__ import annotations

import math


def cosine(start: float, end: float, progress: float) -> float:
    """From ``start`` to ``end`` along half a cosine; ``progress`` is cut to [0, 1]."""
    done = min(max(progress, 0.0), 1.0)
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * done))
