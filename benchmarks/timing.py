"""How time is taken here.

Machines are shared and noisy, so contenders are run alternately in one process, on one thread, and compared by their minima; the
median and the spread stand beside them. A contender is called once before its times count.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch


@dataclass(frozen=True)
class Figures:
    """The times of one contender in milliseconds."""

    minimum: float
    median: float
    quartiles: float  # distance of the upper from the lower quartile
    runs: int


def alternate(contenders: Mapping[str, Callable[[], object]], *, rounds: int = 15) -> dict[str, Figures]:
    """Time every contender once a round, in turn.

    Args:
        contenders: name -> what to run.
        rounds: how often.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run()
    for _ in range(rounds):
        for name, run in contenders.items():
            begin = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - begin) * 1e3)
    return {name: _figures(taken) for name, taken in times.items()}


def _figures(taken: list[float]) -> Figures:
    low, _, high = statistics.quantiles(taken, n=4)
    return Figures(min(taken), statistics.median(taken), high - low, len(taken))


def about_this_machine() -> dict[str, str | int]:
    """What a reader must know to compare: hardware, versions, threads, allocator, date."""
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    except OSError:
        pass
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu,
        "threads": torch.get_num_threads(),
        "allocator": "default (glibc malloc, pages go back to the system)",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.system(),
    }
